//! Requests and answers as values.

use std::fmt;

use zeroize::Zeroizing;

use super::super::error::{AnswerFault, Fault};
use super::super::refusal::Refusal;
use super::super::token::Token;

/// Name of the session cookie.
const COOKIE: &str = "kbs-session-id";
/// Longest session id, in bytes. Trustee's has 32.
const COOKIE_MAX: usize = 128;

/// A session id. It opens secrets for as long as the session lives, so nothing prints it.
#[derive(Clone)]
pub struct Cookie(Zeroizing<String>);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

impl Cookie {
    /// Header `Cookie`.
    pub fn header(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{COOKIE}={}", *self.0))
    }
}

/// What shows a broker that this guest is attested.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A token, as bearer: passport mode.
    Bearer(&'a Token),
    /// The session: background-check mode.
    Session(&'a Cookie),
}

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET without body.
    Get,
    /// POST with a JSON body.
    Post,
}

/// A request to be sent.
pub struct Outgoing {
    method: Method,
    path: String,
    body: Vec<u8>,
    cookie: Option<Zeroizing<String>>,
    authorization: Option<Zeroizing<String>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({:?} {}, {} bytes)", self.method, self.path, self.body.len())
    }
}

impl Outgoing {
    pub(super) fn get(path: String, credential: Credential<'_>) -> Self {
        let (cookie, authorization) = match credential {
            Credential::Bearer(token) => (None, Some(Zeroizing::new(format!("Bearer {}", token.expose())))),
            Credential::Session(cookie) => (Some(cookie.header()), None),
        };
        Self { method: Method::Get, path, body: Vec::new(), cookie, authorization }
    }

    pub(super) fn post(path: &str, body: Vec<u8>, cookie: Option<Cookie>) -> Self {
        let cookie = cookie.as_ref().map(Cookie::header);
        Self { method: Method::Post, path: path.to_owned(), body, cookie, authorization: None }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Path and query below the URL of the broker, beginning with `/kbs/v0/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Header `Cookie`.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_ref().map(|text| text.as_str())
    }

    /// Header `Authorization`.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(|text| text.as_str())
    }
}

/// An answer of the broker, whose size the transport has capped.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// Status.
    pub status: u16,
    /// Every `Set-Cookie` header.
    pub set_cookie: &'a [Zeroizing<String>],
    /// Body.
    pub body: &'a [u8],
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answer({}, {} bytes)", self.status, self.body.len())
    }
}

impl<'a> Answer<'a> {
    /// The body of a success; else the refusal.
    pub(super) fn accepted(&self) -> Result<&'a [u8], Fault> {
        match self.status {
            200 => Ok(self.body),
            401 | 404 => Err(Refusal::parse(self.status, self.body)?.into()),
            found => Err(AnswerFault::Status { found }.into()),
        }
    }

    /// The session cookie, if there is one. Attributes are not looked at: there is one broker and one connection.
    pub(super) fn session_cookie(&self) -> Result<Option<Cookie>, AnswerFault> {
        let values: Vec<&str> = self
            .set_cookie
            .iter()
            .filter_map(|header| header.split(';').next())
            .filter_map(|pair| pair.trim().split_once('='))
            .filter_map(|(name, value)| (name == COOKIE).then_some(value))
            .collect();
        let Some(first) = values.first() else { return Ok(None) };
        // GUARD: kbs-one-cookie -> evil_broker_sets_two_sessions
        if values.len() > 1 {
            return Err(AnswerFault::CookieCount { found: values.len() });
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        // GUARD: kbs-cookie-text -> evil_broker_puts_a_header_into_the_cookie
        if first.is_empty() || first.len() > COOKIE_MAX || !first.bytes().all(allowed) {
            return Err(AnswerFault::CookieText { max: COOKIE_MAX });
        }
        Ok(Some(Cookie(Zeroizing::new((*first).to_owned()))))
    }
}
