//! `[[innerkeep.rest]]`: what each container may ask the REST front for. What is not listed is refused.

use initdata::{RestRoute, RestRule};
use serde::Deserialize;

use super::invalid;
use crate::hub_error::HubError;
use crate::rest::Route;
use crate::rest::peers::{entry_name, is_entry_name};

/// Most containers.
const MAXIMUM_CONTAINERS: usize = 64;
/// Most routes of a container.
const MAXIMUM_ROUTES: usize = 128;
/// Longest name of a container.
pub(crate) const MAXIMUM_NAME_BYTES: usize = 253;

/// What one container may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestAllow {
    /// The container's name, as its specification has it and policy let it pass.
    pub container: String,
    /// Routes.
    pub routes: Vec<RoutePattern>,
}

/// `/info`, `/aa/evidence`, `/aa/additional-evidence`, `/aa/aael`, or `/cdh/resource/REPOSITORY/TYPE/TAG`. In the last one each of the three
/// segments may end with `*`, which stands for any rest of that segment, also none, and never for more than the segment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RoutePattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exactly(Route),
    Resources([SegmentPattern; 3]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SegmentPattern {
    Exactly(String),
    Begins(String),
}

impl RoutePattern {
    /// Whether it stands for a route.
    #[must_use]
    pub fn permits(&self, route: &Route) -> bool {
        match (&self.0, route) {
            (Pattern::Resources(patterns), Route::Resource(parts)) => {
                patterns.iter().zip(parts).all(|(pattern, part)| match pattern {
                    SegmentPattern::Exactly(text) => part == text,
                    SegmentPattern::Begins(text) => part.starts_with(text),
                })
            }
            (Pattern::Exactly(permitted), route) => permitted == route,
            (Pattern::Resources(_), _) => false,
        }
    }
}

impl TryFrom<String> for RoutePattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let expected = "expected a route of the REST front, '*' only at the end of a resource's segment";
        // A letter in place of each `*` makes the pattern a path; segments of `*` alone are segments, too.
        let segments: Vec<&str> = text.split('/').collect();
        let plain: Vec<&str> = segments.iter().map(|part| part.strip_suffix('*').unwrap_or(part)).collect();
        let filled: Vec<&str> = plain.iter().map(|part| if part.is_empty() { "x" } else { part }).collect();
        let path = if segments.first() == Some(&"") {
            format!("/{}", filled.get(1..).unwrap_or_default().join("/"))
        } else {
            return Err(expected);
        };
        if segments.iter().skip(1).any(|segment| segment.is_empty()) {
            return Err(expected);
        }
        let starred = segments.iter().any(|segment| segment.ends_with('*'));
        let route = Route::parse(&path).map_err(|_| expected)?;
        // GUARD: rest-token-never-listed -> evil_configuration_lists_the_token
        if route == Route::Token {
            return Err("/aa/token comes with a private key and cannot be listed");
        }
        match route {
            Route::Resource(_) => {
                let parts = |index: usize| segments.get(index).copied().unwrap_or_default();
                if parts(1) != "cdh" || parts(2) != "resource" {
                    return Err(expected);
                }
                Ok(Self(Pattern::Resources([3, 4, 5].map(|index| SegmentPattern::of(parts(index))))))
            }
            _ if starred => Err(expected),
            route => Ok(Self(Pattern::Exactly(route))),
        }
    }
}

impl SegmentPattern {
    fn of(segment: &str) -> Self {
        segment
            .strip_suffix('*')
            .map_or_else(|| Self::Exactly(segment.to_owned()), |front| Self::Begins(front.to_owned()))
    }
}

/// Whether the list has one entry for a container and is no longer than the limits.
pub(super) fn require_lists(lists: &[RestAllow]) -> Result<(), HubError> {
    let refused = |expected: &str| Err(invalid(format!("innerkeep.rest: expected {expected}")));
    if lists.len() > MAXIMUM_CONTAINERS || lists.iter().any(|list| list.routes.len() > MAXIMUM_ROUTES) {
        return refused("at most 64 containers with at most 128 routes each");
    }
    if !lists.iter().all(|list| is_name(&list.container) && !is_entry_name(&list.container)) {
        return refused(
            "names of containers of 1 to 253 printable ASCII characters, none beginning with rest:",
        );
    }
    for (index, list) in lists.iter().enumerate() {
        if lists.iter().skip(index + 1).any(|other| other.container == list.container) {
            return refused("each container once");
        }
    }
    Ok(())
}

/// `[[rest]]` of bound `innerkeep.toml` as lists: by the name of each entry, and with `/info`, which is everybody's there.
///
/// # Errors
///
/// `CDH_CONFIG_INVALID`: `aa-token`, or a resource that the front has no path for.
pub fn of_entries(entries: &[RestRule]) -> Result<Vec<RestAllow>, HubError> {
    let list = |(index, entry): (usize, &RestRule)| {
        let resources = entry.resources.iter().filter_map(|uri| uri.strip_prefix("kbs:///"));
        let resources = resources.map(|path| format!("/cdh/resource/{path}"));
        let others = entry.routes.iter().filter_map(|route| match route {
            RestRoute::CdhResource => None,
            route => Some(format!("/{}", route.name().replacen('-', "/", 1))),
        });
        let paths = resources.chain(others).chain(["/info".to_owned()]);
        let routes: Result<Vec<_>, _> = paths.map(RoutePattern::try_from).collect();
        let routes = routes.map_err(|reason| invalid(format!("innerkeep.toml: rest: {reason}")))?;
        Ok(RestAllow { container: entry_name(index), routes })
    };
    entries.iter().enumerate().map(list).collect()
}

/// Whether bound configuration lists a route for a container.
#[must_use]
pub fn lists(lists: &[RestAllow], container: &str, route: &Route) -> bool {
    let of_container = lists.iter().filter(|list| list.container == container);
    of_container.flat_map(|list| &list.routes).any(|pattern| pattern.permits(route))
}

/// Whether a text can be the name of a container.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=MAXIMUM_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubConfig;

    fn config(container: &str, routes: &str) -> Result<Vec<RestAllow>, &'static str> {
        let text = format!("[[innerkeep.rest]]\ncontainer = {container:?}\nroutes = [{routes}]\n");
        HubConfig::parse(&text).map(|config| config.innerkeep.rest).map_err(|error| error.code())
    }

    fn permitted(routes: &str, path: &str) -> bool {
        lists(&config("app", routes).unwrap(), "app", &Route::parse(path).unwrap())
    }

    #[test]
    fn what_is_listed_is_permitted_and_nothing_else() {
        let routes = "\"/aa/evidence\", \"/cdh/resource/default/db/password\"";
        for (path, expected) in [
            ("/aa/evidence", true),
            ("/cdh/resource/default/db/password", true),
            ("/cdh/resource/default/db/password2", false),
            ("/cdh/resource/default/db/Password", false),
            ("/aa/additional-evidence", false),
            ("/aa/aael", false),
            ("/aa/token", false),
            ("/info", false),
        ] {
            assert_eq!(permitted(routes, path), expected, "{path}");
            assert!(!lists(&config("app", routes).unwrap(), "other", &Route::parse(path).unwrap()));
        }
        assert!(!permitted("", "/info"));
        assert!(lists(&[], "app", &Route::Info).eq(&false));
    }

    #[test]
    fn a_star_is_the_rest_of_its_segment() {
        for (pattern, path, expected) in [
            ("/cdh/resource/default/db/*", "/cdh/resource/default/db/password", true),
            ("/cdh/resource/default/db/*", "/cdh/resource/default/dbs/password", false),
            ("/cdh/resource/default/db-*/x", "/cdh/resource/default/db-1/x", true),
            ("/cdh/resource/default/db-*/x", "/cdh/resource/default/db-/x", true),
            ("/cdh/resource/default/db-*/x", "/cdh/resource/default/db/x", false),
            ("/cdh/resource/*/*/*", "/cdh/resource/a/b/c", true),
            ("/cdh/resource/*/*/*", "/aa/evidence", false),
        ] {
            assert_eq!(permitted(&format!("{pattern:?}"), path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn lists_of_another_form_are_refused() {
        for route in [
            "*",
            "/*",
            "/aa/*",
            "/aa/evidence*",
            "/inf*",
            "/cdh/*/a/b/c",
            "/cdh/resource*/a/b/c",
            "/cdh/resource/a/b",
            "/cdh/resource/*",
            "/cdh/resource/a/*b/c",
            "/cdh/resource/a/b**/c",
            "/cdh/resource/a//c",
            "/info/",
            "info",
            "/cdh/resource/a/b/.*",
            "/cdh/resource/a/b/%61",
            "/metrics",
            "",
        ] {
            assert_eq!(config("app", &format!("{route:?}")), Err("CDH_CONFIG_INVALID"), "{route}");
        }
        for name in ["", "two words", "\u{e9}", &"x".repeat(254), "rest:0"] {
            assert_eq!(config(name, "\"/info\""), Err("CDH_CONFIG_INVALID"), "{name}");
        }
        assert_eq!(config("app", &"\"/info\",".repeat(129)), Err("CDH_CONFIG_INVALID"));
        let twice = "[[innerkeep.rest]]\ncontainer = \"a\"\nroutes = []\n".repeat(2);
        assert_eq!(HubConfig::parse(&twice).unwrap_err().code(), "CDH_CONFIG_INVALID");
        let more = "[[innerkeep.rest]]\ncontainer = \"a\"\nroutes = []\nmethods = []\n";
        assert_eq!(HubConfig::parse(more).unwrap_err().code(), "CDH_CONFIG_INVALID");
    }

    fn entries(routes: &str) -> Result<Vec<RestAllow>, &'static str> {
        let hash = format!("sha256:{}", "01".repeat(32));
        let entry = |index| {
            format!("[[rest]]\ncontainer = {{ image = \"{hash}\", policy_container = {index} }}\n{routes}\n")
        };
        let mut package = initdata::Package::new(initdata::Algorithm::Sha256);
        package.insert("innerkeep.toml", &(entry(0) + &entry(1))).unwrap();
        let unverified =
            initdata::Unverified::from_annotation(&package.pack().unwrap().annotation()).unwrap();
        let initdata = unverified.insecure_unbound().unwrap();
        of_entries(&initdata.document().settings().rest).map_err(|error| error.code())
    }

    #[test]
    fn an_entry_by_what_was_verified_is_a_list() {
        let found = entries(
            "routes = [\"aa-evidence\", \"aa-additional-evidence\", \"aa-aael\", \"cdh-resource\"]\nresources = [\"kbs:///a/b/c\"]",
        );
        let found = found.unwrap();
        assert_eq!(found.len(), 2);
        for path in ["/info", "/aa/evidence", "/aa/additional-evidence", "/aa/aael", "/cdh/resource/a/b/c"] {
            let route = Route::parse(path).unwrap();
            assert!(lists(&found, "rest:0", &route) && lists(&found, "rest:1", &route), "{path}");
            assert!(!lists(&found, "rest:2", &route), "{path}");
        }
        assert!(!lists(&found, "rest:0", &Route::parse("/cdh/resource/a/b/d").unwrap()));
        let only = entries("routes = [\"aa-aael\"]").unwrap();
        assert!(!lists(&only, "rest:0", &Route::Evidence));
    }

    #[test]
    fn evil_configuration_lists_the_token() {
        assert_eq!(entries("routes = [\"aa-token\"]").unwrap_err(), "CDH_CONFIG_INVALID");
        assert_eq!(config("app", "\"/aa/token\""), Err("CDH_CONFIG_INVALID"));
    }
}
