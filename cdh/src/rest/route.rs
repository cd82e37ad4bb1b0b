//! Routes: the path of a request, read one way only.
//!
//! A path is compared byte by byte: nothing in it is decoded, removed or resolved, so what policy permits is what is asked for.

use crate::rest::RestError;

/// Longest path.
const MAXIMUM_PATH_BYTES: usize = 1024;
/// Longest segment, as in a resource's URI.
const MAXIMUM_SEGMENT_BYTES: usize = 255;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /info`.
    Info,
    /// `GET /aa/token`: known, and never answered.
    Token,
    /// `GET /aa/evidence`.
    Evidence,
    /// `GET /aa/additional-evidence`.
    AdditionalEvidence,
    /// `POST /aa/aael`.
    Event,
    /// `GET /cdh/resource/REPOSITORY/TYPE/TAG`.
    Resource([String; 3]),
}

/// Part of the front that is served or not, by `--features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `/aa/…`.
    Attestation,
    /// `/cdh/…`.
    Resource,
}

impl Route {
    /// Reads a path: `/`, and segments of ASCII letters, digits, `-`, `_` and `.` that do not begin with `.`.
    ///
    /// # Errors
    ///
    /// `REST_PATH`, `REST_ROUTE_UNKNOWN`.
    pub fn parse(path: &str) -> Result<Self, RestError> {
        let segments = segments(path).ok_or(RestError::Path)?;
        match segments.as_slice() {
            ["info"] => Ok(Self::Info),
            ["aa", "token"] => Ok(Self::Token),
            ["aa", "evidence"] => Ok(Self::Evidence),
            ["aa", "additional-evidence"] => Ok(Self::AdditionalEvidence),
            ["aa", "aael"] => Ok(Self::Event),
            ["cdh", "resource", repository, kind, tag] => {
                Ok(Self::Resource([*repository, *kind, *tag].map(str::to_owned)))
            }
            _ => Err(RestError::RouteUnknown),
        }
    }

    /// Its method.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Event => "POST",
            _ => "GET",
        }
    }

    /// Whether a method is the route's.
    ///
    /// # Errors
    ///
    /// `REST_METHOD`.
    pub fn require_method(&self, method: &str) -> Result<(), RestError> {
        let allowed = self.method();
        if method == allowed { Ok(()) } else { Err(RestError::Method { allowed }) }
    }

    /// The feature that it is a part of; none for `/info`.
    #[must_use]
    pub const fn feature(&self) -> Option<Feature> {
        match self {
            Self::Info => None,
            Self::Resource(_) => Some(Feature::Resource),
            _ => Some(Feature::Attestation),
        }
    }
}

/// The segments of a path, if it is one that everybody reads alike.
pub(crate) fn segments(path: &str) -> Option<Vec<&str>> {
    // GUARD: rest-path-cap -> evil_container_oversize_path
    if path.len() > MAXIMUM_PATH_BYTES {
        return None;
    }
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    // GUARD: rest-path-form -> evil_container_path_tricks
    if !segments.iter().all(|segment| is_segment(segment)) {
        return None;
    }
    Some(segments)
}

fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAXIMUM_SEGMENT_BYTES).contains(&segment.len())
        && !segment.starts_with('.')
        && segment.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &str) -> &'static str {
        Route::parse(path).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn the_routes_of_upstream_are_read() {
        let resource = Route::Resource(["default", "db", "pass.word"].map(str::to_owned));
        let table = [
            ("/info", Route::Info, "GET", None),
            ("/aa/token", Route::Token, "GET", Some(Feature::Attestation)),
            ("/aa/evidence", Route::Evidence, "GET", Some(Feature::Attestation)),
            ("/aa/additional-evidence", Route::AdditionalEvidence, "GET", Some(Feature::Attestation)),
            ("/aa/aael", Route::Event, "POST", Some(Feature::Attestation)),
            ("/cdh/resource/default/db/pass.word", resource, "GET", Some(Feature::Resource)),
        ];
        for (path, route, method, feature) in table {
            assert_eq!(Route::parse(path).unwrap(), route, "{path}");
            assert_eq!((route.method(), route.feature()), (method, feature), "{path}");
        }
        for path in
            ["/aa", "/aa/evidences", "/INFO", "/cdh/resource/a/b", "/cdh/resource/a/b/c/d", "/cdh/r/a/b/c"]
        {
            assert_eq!(code(path), "REST_ROUTE_UNKNOWN", "{path}");
        }
    }

    #[test]
    fn evil_container_path_tricks() {
        for path in [
            "",
            "/",
            "//",
            "//info",
            "/info/",
            "info",
            "/aa//evidence",
            "/aa/./evidence",
            "/aa/../info",
            "/cdh/resource/a/b/",
            "/cdh/resource//b/c",
            "/cdh/resource/a/b/c/",
            "/cdh/resource/a/b/%2e",
            "/cdh/resource/a/%2e%2e/c",
            "/cdh/resource/a%2fb/c",
            "/cdh/resource/a/b/..",
            "/cdh/resource/a/b/.c",
            "/cdh/resource/a/b/c;x",
            "/cdh/resource/a/b/c#x",
            "/cdh/resource/a/b/c?x",
            "/cdh/resource/a/b/c d",
            "/cdh/resource/a/b/c\\..",
            "/cdh/resource/a/b/\u{e9}",
            "/cdh/resource/a/b/c\0",
            "/cdh/resource/a/b/*",
        ] {
            assert_eq!(code(path), "REST_PATH", "{path:?}");
        }
    }

    #[test]
    fn evil_container_oversize_path() {
        let long = |length| format!("/cdh/resource/{0}/{0}/{0}{1}", "a".repeat(200), "/a".repeat(length));
        assert_eq!(code(&long(100)), "REST_ROUTE_UNKNOWN");
        assert_eq!(code(&long(400)), "REST_PATH");
        assert_eq!(code(&format!("/cdh/resource/a/b/{}", "a".repeat(256))), "REST_PATH");
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_has_one_spelling(path in "/[a-z./%-]{0,8}(/[a-c.%]{0,3}){0,5}") {
            if let Ok(Route::Resource(parts)) = Route::parse(&path) {
                proptest::prop_assert_eq!(format!("/cdh/resource/{}", parts.join("/")), path);
            }
        }

        #[test]
        fn every_resource_is_read_back(parts in proptest::array::uniform3("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}")) {
            let path = format!("/cdh/resource/{}", parts.join("/"));
            proptest::prop_assert_eq!(Route::parse(&path).unwrap(), Route::Resource(parts));
        }
    }
}
