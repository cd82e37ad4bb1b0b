//! Why a request is not answered with what it asks for: who misbehaved, a stable code, a status.

use std::io;

use crate::Class;
use crate::hub_error::HubError;

/// A failure of the REST front. Nothing secret is in it, and nothing that a container wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestError {
    /// What serves the request.
    #[error(transparent)]
    BackEnd(#[from] HubError),
    /// The front cannot listen.
    #[error("listen on {address}")]
    Bind {
        /// Where.
        address: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A place to listen that others than this guest reach.
    #[error("listen on {found}: expected a loopback address")]
    BindPlace {
        /// What was asked for.
        found: String,
    },
    /// A body that is not what the route takes.
    #[error("body: expected {expected}")]
    Body {
        /// What it takes.
        expected: &'static str,
    },
    /// Too many requests of this container are waiting.
    #[error("too many requests of this container are waiting; try again")]
    Busy,
    /// The request took too long. What the platform was asked for may still happen.
    #[error("expected an answer within 45 seconds, found none; try again")]
    Deadline,
    /// An event that only this guest itself may log.
    #[error("domain: expected one that is not this guest's own")]
    EventDomain,
    /// A route that this process was started without.
    #[error("expected --features with {expected}")]
    Feature {
        /// The feature.
        expected: &'static str,
    },
    /// A Host header that is not this guest's loopback.
    #[error("Host: expected exactly one, of this guest's loopback")]
    Host,
    /// Another method than the route has.
    #[error("method: expected {allowed}")]
    Method {
        /// The one that it has.
        allowed: &'static str,
    },
    /// No evidence commits to the audit of this guest yet.
    #[error("expected evidence for the audit of this guest, found none yet; try again")]
    NotAttested,
    /// Bound configuration does not list the route for this container.
    #[error("expected bound cdh.toml to list this route for this container")]
    NotListed,
    /// A browser's request for another site.
    #[error("Origin: expected none")]
    Origin,
    /// A path that two readers may read differently.
    #[error(
        "path: expected segments of letters, digits, '-', '_' and '.', not starting with '.', each named plainly"
    )]
    Path,
    /// Nobody knows which container asks.
    #[error("expected a process of exactly one container of this guest")]
    PeerUnknown,
    /// Somebody outside of this guest.
    #[error("expected a peer on this guest's loopback")]
    PeerRemote,
    /// A query that is not what the route takes.
    #[error("query: expected {expected}")]
    Query {
        /// What it takes.
        expected: &'static str,
    },
    /// No such route.
    #[error("expected a route of this front")]
    RouteUnknown,
    /// A token with its private key.
    #[error("a token comes with a private key, and keys never leave this guest's processes")]
    TokenKey,
    /// The container is not the one that bound configuration means, as far as this guest can verify.
    #[error("expected a container that bound configuration names, on a root that this guest verified")]
    Withheld {
        /// What is in the way.
        code: &'static str,
    },
}

impl RestError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BackEnd(error) => error.code(),
            Self::Bind { .. } => "REST_BIND",
            Self::BindPlace { .. } => "REST_BIND_PLACE",
            Self::Body { .. } => "REST_BODY",
            Self::Busy => "REST_BUSY",
            Self::Deadline => "REST_DEADLINE",
            Self::EventDomain => "REST_EVENT_DOMAIN",
            Self::Feature { .. } => "REST_FEATURE",
            Self::Host => "REST_HOST",
            Self::Method { .. } => "REST_METHOD",
            Self::NotAttested => "REST_NOT_ATTESTED",
            Self::NotListed => "REST_NOT_LISTED",
            Self::Origin => "REST_ORIGIN",
            Self::Path => "REST_PATH",
            Self::PeerUnknown => "REST_PEER_UNKNOWN",
            Self::PeerRemote => "REST_PEER_REMOTE",
            Self::Query { .. } => "REST_QUERY",
            Self::RouteUnknown => "REST_ROUTE_UNKNOWN",
            Self::TokenKey => "REST_TOKEN_KEY",
            Self::Withheld { code } => code,
        }
    }

    /// The status of HTTP: 400 for a request that is none, 403 for one that is refused, 404 for what is not there, 405 for a method, 503
    /// for whatever another try may mend, and for this guest's own faults.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Body { .. } | Self::Path | Self::Query { .. } => 400,
            Self::EventDomain
            | Self::Host
            | Self::NotListed
            | Self::Origin
            | Self::PeerRemote
            | Self::PeerUnknown
            | Self::TokenKey
            | Self::Withheld { .. } => 403,
            Self::Feature { .. } | Self::RouteUnknown => 404,
            Self::Method { .. } => 405,
            Self::Bind { .. } | Self::BindPlace { .. } | Self::Busy | Self::Deadline | Self::NotAttested => {
                503
            }
            Self::BackEnd(error) => match error.code() {
                "KBS_RESOURCE_URI_INVALID" | "ATTEST_EVENT_INVALID" | "ATTEST_REQUEST_TOO_LARGE" => 400,
                "KBS_REFUSED_RESOURCE" | "KBS_REFUSED_PATH" | "CDH_OFFLINE_NO_RESOURCE" => 404,
                _ if error.class() == Class::Refused => 403,
                _ => 503,
            },
        }
    }

    /// Whose fault.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::BackEnd(error) => error.class(),
            Self::Bind { .. } => Class::Io,
            Self::BindPlace { .. } | Self::Feature { .. } => Class::Config,
            Self::Busy | Self::Deadline | Self::NotAttested => Class::Transient,
            Self::Body { .. }
            | Self::Method { .. }
            | Self::Path
            | Self::Query { .. }
            | Self::RouteUnknown => Class::Usage,
            _ => Class::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_the_back_end_has_its_status() {
        let status = |error: HubError| RestError::from(error).status();
        assert_eq!(status(HubError::NoBroker), 503);
        assert_eq!(status(HubError::OfflineMissing { uri: "kbs:///a/b/c".to_owned() }), 404);
        assert_eq!(status(HubError::Interrupted), 503);
        assert_eq!(status(HubError::SealedSignature), 403);
        assert_eq!((RestError::Deadline.status(), RestError::Deadline.class()), (503, Class::Transient));
    }
}
