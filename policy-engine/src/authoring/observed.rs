//! Requests that were seen, one JSON object a line.

use protocol::Endpoint;
use serde::Deserialize;
use serde_json::Value as Json;

use super::complete::complete;
use crate::error::{InputError, PolicyError, shortened};

/// A request and what it asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// The method; of several that share a rule, the first.
    pub endpoint: Endpoint,
    /// The whole request as policies see it.
    pub input: Json,
}

/// What is wrong with what an author gave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthoringError {
    /// Not one JSON object of the form that is expected.
    #[error("line {line}: expected {expected}: {message}")]
    Form {
        /// The line, counted from 1.
        line: usize,
        /// What should have been there.
        expected: &'static str,
        /// What the parser said.
        message: String,
    },
    /// A name that no request has.
    #[error("{place}: expected the name of a request, found {found:?}")]
    Endpoint {
        /// Where.
        place: String,
        /// What was found, shortened.
        found: String,
    },
    /// A request that cannot be.
    #[error("{place}: {error}")]
    Input {
        /// Where.
        place: String,
        /// Why.
        error: InputError,
    },
    /// The policy does not load.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A proposed text does not decide as it has to; a mistake in this program, or requests that contradict each other.
    #[error("the proposed policy would not allow request {0}, and is not given out")]
    Proposal(usize),
    /// There is nothing to make a policy from.
    #[error("expected at least one request, found none")]
    Nothing,
}

impl AuthoringError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Form { .. } => "POLICY_FORM",
            Self::Endpoint { .. } => "POLICY_ENDPOINT",
            Self::Input { error, .. } => error.code(),
            Self::Policy(error) => error.code(),
            Self::Proposal(_) => "POLICY_PROPOSAL",
            Self::Nothing => "POLICY_NOTHING_OBSERVED",
        }
    }
}

/// One line: as upstream's agent writes them at log level debug (`kind`, `request`), or in our words.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(alias = "kind")]
    endpoint: String,
    #[serde(alias = "request", default)]
    input: Option<Json>,
    /// Upstream writes a second line with the result of a rule that is an object.
    #[serde(default)]
    result: Option<Json>,
}

impl Observed {
    /// Reads one request; fields that are left out have their defaults. `line` is for messages.
    ///
    /// # Errors
    /// `POLICY_FORM`, `POLICY_ENDPOINT`, `POLICY_INPUT_JSON`.
    pub fn parse(text: &str, line: usize) -> Result<Self, AuthoringError> {
        let parsed: Line = serde_json::from_str(text).map_err(|error| AuthoringError::Form {
            line,
            expected: "an object with `endpoint` and `input` (or `kind` and `request`)",
            message: shortened(&error.to_string(), 256),
        })?;
        Self::of(&parsed.endpoint, parsed.input.as_ref(), &format!("line {line}"))
    }

    /// Reads a file of requests. Empty lines are none, and a second line about the same request is not another.
    ///
    /// # Errors
    /// As [`Observed::parse`].
    pub fn parse_lines(text: &str) -> Result<Vec<Self>, AuthoringError> {
        let mut found = Vec::new();
        for (position, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let is_result = serde_json::from_str::<Line>(line).is_ok_and(|line| line.result.is_some());
            if !is_result {
                found.push(Self::parse(line, position + 1)?);
            }
        }
        Ok(found)
    }

    /// A request by the name of its method, of its message, or its path on the wire.
    pub(crate) fn of(name: &str, input: Option<&Json>, place: &str) -> Result<Self, AuthoringError> {
        let endpoint = endpoint_of(name).ok_or_else(|| AuthoringError::Endpoint {
            place: place.to_owned(),
            found: shortened(name, 64),
        })?;
        let empty = Json::Object(serde_json::Map::new());
        let input = complete(endpoint, input.unwrap_or(&empty))
            .map_err(|error| AuthoringError::Input { place: place.to_owned(), error })?;
        Ok(Self { endpoint, input })
    }

    /// The rule that decides it.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        self.endpoint.message()
    }
}

/// The method that a name means: of the method, of its request message, or its path on the wire. None that no policy
/// decides.
#[must_use]
pub fn endpoint_of(name: &str) -> Option<Endpoint> {
    let method = name.rsplit('/').next()?;
    let service = name.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
    if name.contains('/') && service.is_none() {
        return None;
    }
    Endpoint::ALL.into_iter().filter(|endpoint| endpoint.policy_rule().is_some()).find(|endpoint| {
        match service {
            Some(service) => endpoint.service().as_str() == service && endpoint.method() == method,
            None => endpoint.message() == name || endpoint.method() == name,
        }
    })
}
