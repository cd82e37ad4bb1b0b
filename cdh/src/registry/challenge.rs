//! `WWW-Authenticate`: how a registry asks for credentials (RFC 9110 §11.6.1, distribution specification "token").

use std::collections::BTreeMap;

/// Longest header that is read.
const HEADER_MAX: usize = 8_192;
const PARAMETERS_MAX: usize = 16;

/// What a registry asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token of this service.
    Bearer {
        /// URL of the token service.
        realm: String,
        /// Name of the registry there.
        service: Option<String>,
        /// What the token has to permit.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The scheme's name.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Bearer { .. } => "Bearer",
        }
    }

    /// The strongest challenge of one header: Bearer before Basic. None for what cannot be understood.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        if header.len() > HEADER_MAX {
            return None;
        }
        let mut found = None;
        let mut rest = header.trim_start();
        while !rest.is_empty() {
            let (scheme, after) = token(rest)?;
            let (parameters, after) = parameters(after)?;
            rest = after;
            let challenge = if scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameters.get("realm")?.clone();
                let (service, scope) = (parameters.get("service").cloned(), parameters.get("scope").cloned());
                Some(Self::Bearer { realm, service, scope })
            } else {
                scheme.eq_ignore_ascii_case("basic").then_some(Self::Basic)
            };
            if matches!((&found, &challenge), (None, _) | (Some(Self::Basic), Some(Self::Bearer { .. }))) {
                found = challenge;
            }
        }
        found
    }
}

/// Parameters up to the next scheme.
fn parameters(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(rest) else {
            return rest.is_empty().then_some((found, rest));
        };
        // A token without `=` is the next scheme.
        let Some(after) = after.trim_start().strip_prefix('=') else { return Some((found, rest)) };
        let (value, after) = value(after.trim_start())?;
        if found.len() >= PARAMETERS_MAX || found.insert(name.to_ascii_lowercase(), value).is_some() {
            return None;
        }
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(token, _)| !token.is_empty())
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_of_real_registries_are_read() {
        for (header, expected) in [
            (r#"Basic realm="Registry Realm""#, Challenge::Basic),
            ("basic", Challenge::Basic),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/busybox:pull""#,
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/busybox:pull"),
                ),
            ),
            (r#"bearer Realm = "https://a/", scope=x:y"#, bearer("https://a/", None, Some("x"))),
            (r#"Basic realm="b", Bearer realm="https://a\"b/""#, bearer("https://a\"b/", None, None)),
            (r#"Bearer realm="https://a/", Basic realm="b""#, bearer("https://a/", None, None)),
            (r#"Negotiate, Basic realm="x""#, Challenge::Basic),
        ] {
            if header.ends_with("x:y") {
                assert_eq!(Challenge::parse(header), None, "a colon has to be quoted");
            } else {
                assert_eq!(Challenge::parse(header), Some(expected), "{header}");
            }
        }
    }

    #[test]
    fn evil_challenges_are_refused() {
        let long = format!("Bearer realm=\"{}\"", "a".repeat(HEADER_MAX));
        let many = format!("Bearer realm=\"a\"{}", (0..20).map(|i| format!(",p{i}=1")).collect::<String>());
        for refused in [
            "",
            "Bearer",
            "Digest realm=\"x\"",
            "Bearer realm=\"https://a",
            "Bearer realm=\"a\", realm=\"b\"",
            "Bearer =x",
            "Bearer realm=\"a\u{1}\"",
            "\"",
            long.as_str(),
            many.as_str(),
        ] {
            assert_eq!(Challenge::parse(refused), None, "{refused:.60}");
        }
    }

    proptest! {
        #[test]
        fn evil_headers_never_panic(header in "(Bearer|Basic)? ?[ -~]{0,60}") {
            let _ = Challenge::parse(&header);
        }
    }
}
