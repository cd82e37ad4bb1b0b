//! One session for all callers: who needs it while it is made waits for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::error::{Fault, Hop, KbsError, TransportFault};
use super::handshake::now;
use super::rcar::{Cookie, Credential};
use super::retry::deadline_over;
use super::tee_key::TeeKey;
use super::token::Token;

/// A token, the key it speaks of, and the broker's session if it was made there.
#[derive(Debug)]
pub struct Session {
    key: TeeKey,
    token: Token,
    cookie: Option<Cookie>,
}

impl Session {
    /// A passport: a token from elsewhere about `key`.
    pub fn new(key: TeeKey, token: Token) -> Self {
        Self { key, token, cookie: None }
    }

    pub(super) fn with_cookie(key: TeeKey, token: Token, cookie: Cookie) -> Self {
        Self { key, token, cookie: Some(cookie) }
    }

    /// The token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    pub(super) fn key(&self) -> &TeeKey {
        &self.key
    }

    /// The cookie where the session was made, else the token.
    pub(super) fn own_credential(&self) -> Credential<'_> {
        self.cookie.as_ref().map_or(Credential::Bearer(&self.token), Credential::Session)
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: Mutex<Held>,
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    session: Option<Arc<Session>>,
    failure: Option<KbsError>,
}

impl Sessions {
    /// The session, if it is valid and not `stale`; else what `make` makes. Of callers at the same time one makes it;
    /// if that fails, all of them get its error.
    pub(super) async fn session<F: Future<Output = Result<Session, KbsError>>>(
        &self,
        stale: Option<&Arc<Session>>,
        deadline: Instant,
        make: impl FnOnce() -> F,
    ) -> Result<Arc<Session>, KbsError> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut held =
            timeout_at(deadline, self.held.lock()).await.map_err(|_| deadline_over(Hop::Attest))?;
        let usable = |session: &&Arc<Session>| {
            session.token.is_valid_at(now()) && !stale.is_some_and(|stale| Arc::ptr_eq(stale, session))
        };
        if let Some(session) = held.session.as_ref().filter(usable) {
            return Ok(Arc::clone(session));
        }
        held.session = None;
        if self.failures.load(Ordering::Acquire) != failures
            && let Some(failure) = held.failure.as_ref().filter(|failure| is_shared(failure))
        {
            return Err(failure.clone());
        }
        match make().await {
            Ok(session) => {
                let session = Arc::new(session);
                held.session = Some(Arc::clone(&session));
                held.failure = None;
                Ok(session)
            }
            Err(failure) => {
                held.failure = Some(failure.clone());
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    /// Whether a session is held, valid or not.
    pub(super) async fn is_held(&self) -> bool {
        self.held.lock().await.session.is_some()
    }
}

/// One caller's deadline says nothing about another's.
fn is_shared(failure: &KbsError) -> bool {
    !matches!(failure.fault(), Fault::Transport(TransportFault::Deadline { .. }))
}
