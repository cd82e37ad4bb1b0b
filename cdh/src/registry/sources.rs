//! Which places serve a reference: a subset of `containers-registries.conf` (version 2).
//!
//! ```toml
//! [[registry]]
//! prefix = "docker.io/acme"            # or "*.example.com"; default: location
//! location = "registry.example/acme"   # replaces the prefix
//! insecure = false                     # plain http instead of https
//! blocked = false
//! [[registry.mirror]]
//! location = "mirror.example:5000/acme"
//! insecure = false
//! pull-from-mirror = "all"             # or "digest-only", "tag-only"
//! ```
//!
//! The entry with the longest prefix counts; a prefix ends where a part of the name ends. Mirrors come first, in order, then the
//! location. What this subset does not know is refused. `insecure` is plain http: a certificate is never left unverified.

use serde::Deserialize;

use super::error::{RegistryError, shown};
use super::reference::{Reference, is_repository, normal_host, normal_registry};

/// Largest document in bytes.
pub const SOURCES_MAX: usize = 1 << 20;
const ENTRIES_MAX: usize = 1_024;
const MIRRORS_MAX: usize = 16;

/// The entries of a document.
#[derive(Debug, Default)]
pub struct Sources {
    entries: Vec<Entry>,
}

/// One place that may serve a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The reference there.
    pub reference: Reference,
    /// Plain http.
    pub insecure: bool,
}

#[derive(Debug)]
struct Entry {
    prefix: Prefix,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug)]
enum Prefix {
    /// `*.` and this: hosts below it.
    Below(String),
    /// A registry, namespace or repository.
    Name(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<RegistryTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Sources {
    /// Reads a document of at most [`SOURCES_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`.
    pub fn parse(toml: &str) -> Result<Self, RegistryError> {
        // GUARD: sources-size -> evil_registry_configuration_is_refused
        if toml.len() > SOURCES_MAX {
            return Err(bad("at most 1 MiB", String::new()));
        }
        let document: Document = toml::from_str(toml)
            .map_err(|error| bad("registries.conf, version 2, without other keys", shown(error.message())))?;
        let searched = document.unqualified_search_registries.unwrap_or_default();
        // GUARD: sources-search -> evil_registry_configuration_is_refused
        if searched.iter().any(|registry| registry != "docker.io") {
            return Err(bad("no search for short names but at docker.io", shown(&searched.join(" "))));
        }
        if document.registry.len() > ENTRIES_MAX {
            return Err(bad("at most 1024 registries", document.registry.len().to_string()));
        }
        let mut sources = Self::default();
        for table in document.registry {
            sources.add(table)?;
        }
        Ok(sources)
    }

    /// Adds that this registry (`host[:port]`) is spoken to in plain http. For a command line; a guest's is in its bound document.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`.
    pub fn insert_insecure(&mut self, registry: &str) -> Result<(), RegistryError> {
        let location = Some(registry.to_owned());
        self.add(RegistryTable { prefix: None, location, insecure: true, blocked: false, mirror: Vec::new() })
    }

    /// All places for a reference, in the order in which they are asked.
    ///
    /// # Errors
    ///
    /// `REGISTRY_BLOCKED`; `REGISTRY_REFERENCE` for a place that no name can be made for.
    pub fn of(&self, reference: &Reference) -> Result<Vec<Source>, RegistryError> {
        let name = reference.name();
        let fitting = self.entries.iter().filter_map(|entry| Some((entry, entry.prefix.fits(&name)?)));
        let Some((entry, length)) = fitting.max_by_key(|(_, length)| *length) else {
            return Ok(vec![Source { reference: reference.clone(), insecure: false }]);
        };
        // GUARD: sources-blocked -> evil_blocked_registry_is_not_asked
        if entry.blocked {
            return Err(RegistryError::Blocked { name });
        }
        let rest = name.get(length..).unwrap_or_default();
        let at = |location: &str, insecure| {
            Ok(Source { reference: reference.renamed(&format!("{location}{rest}"))?, insecure })
        };
        let pinned = reference.digest().is_some();
        let serves = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFrom::All => true,
            PullFrom::DigestOnly => pinned,
            PullFrom::TagOnly => !pinned,
        };
        let mirrors = entry.mirrors.iter().filter(serves);
        let mut found: Vec<Source> = mirrors
            .map(|mirror| at(&mirror.location, mirror.insecure))
            .collect::<Result<_, RegistryError>>()?;
        found.push(match &entry.location {
            Some(location) => at(location, entry.insecure)?,
            None => Source { reference: reference.clone(), insecure: entry.insecure },
        });
        Ok(found)
    }

    fn add(&mut self, table: RegistryTable) -> Result<(), RegistryError> {
        let RegistryTable { prefix, location, insecure, blocked, mirror } = table;
        let location = location.map(|location| normal_place(&location)).transpose()?;
        let prefix = match (&prefix, &location) {
            (Some(prefix), _) => Prefix::parse(prefix)?,
            (None, Some(location)) => Prefix::Name(location.clone()),
            (None, None) => return Err(bad("a prefix or location in each registry", String::new())),
        };
        if mirror.len() > MIRRORS_MAX {
            return Err(bad("at most 16 mirrors of a registry", mirror.len().to_string()));
        }
        // A location beside a wildcard would make all hosts below it one.
        if matches!(prefix, Prefix::Below(_)) && (location.is_some() || !mirror.is_empty()) {
            return Err(bad("no location and no mirror beside a prefix with '*'", String::new()));
        }
        let doubled = self.entries.iter().any(|entry| entry.prefix.text() == prefix.text());
        // GUARD: sources-doubled -> evil_registry_configuration_is_refused
        if doubled {
            return Err(bad("each prefix once", shown(prefix.text())));
        }
        let mirrors = mirror
            .into_iter()
            .map(|mirror| Ok(Mirror { location: normal_place(&mirror.location)?, ..mirror }))
            .collect::<Result<_, RegistryError>>()?;
        self.entries.push(Entry { prefix, location, insecure, blocked, mirrors });
        Ok(())
    }
}

impl Prefix {
    fn parse(text: &str) -> Result<Self, RegistryError> {
        match text.strip_prefix("*.") {
            Some(host) => {
                let host = normal_host(host).ok_or_else(|| bad("a host name after '*.'", shown(text)))?;
                Ok(Self::Below(format!(".{host}")))
            }
            None => Ok(Self::Name(normal_place(text)?)),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Below(text) | Self::Name(text) => text,
        }
    }

    /// How many bytes of a name it covers, if it does: up to the end of a part.
    fn fits(&self, name: &str) -> Option<usize> {
        match self {
            Self::Below(suffix) => {
                let registry = name.split('/').next()?;
                let host = registry.split(':').next()?;
                host.ends_with(suffix.as_str()).then_some(suffix.len())
            }
            Self::Name(prefix) => {
                let rest = name.strip_prefix(prefix.as_str())?;
                // GUARD: sources-prefix-ends -> evil_prefix_of_half_a_name
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                Some(prefix.len())
            }
        }
    }
}

/// `host[:port][/path]` in its one form.
fn normal_place(text: &str) -> Result<String, RegistryError> {
    let refused = || bad("registry[/path] in prefix and location", shown(text));
    let (registry, path) =
        text.split_once('/').map_or((text, None), |(registry, path)| (registry, Some(path)));
    let registry = normal_registry(registry).ok_or_else(refused)?;
    match path {
        None => Ok(registry),
        Some(path) if is_repository(path) => Ok(format!("{registry}/{path}")),
        Some(_) => Err(refused()),
    }
}

fn bad(expected: &'static str, found: String) -> RegistryError {
    RegistryError::Config { what: "registry configuration", expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        prefix = "docker.io/acme"
        location = "registry.example/hub/acme"
        [[registry.mirror]]
        location = "Mirror.example:5000/acme"
        insecure = true
        [[registry.mirror]]
        location = "pinned.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "docker.io"
        blocked = true
        [[registry]]
        prefix = "*.plain.example"
        insecure = true
    "#;

    fn places(reference: &str) -> Vec<(String, bool)> {
        let sources = Sources::parse(DOCUMENT).unwrap();
        let found = sources.of(&Reference::parse(reference).unwrap()).unwrap();
        found.into_iter().map(|source| (source.reference.to_string(), source.insecure)).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        assert_eq!(
            places("acme/x:v1"),
            [
                ("mirror.example:5000/acme/x:v1".into(), true),
                ("registry.example/hub/acme/x:v1".into(), false)
            ]
        );
        let digest = Digest::of(b"");
        let pinned = places(&format!("acme/x@{digest}"));
        assert_eq!(pinned[1], (format!("pinned.example/x@{digest}"), false));
        assert_eq!(pinned.len(), 3);
        assert_eq!(places("a.plain.example:80/x"), [("a.plain.example:80/x:latest".into(), true)]);
        assert_eq!(places("other.example/x"), [("other.example/x:latest".into(), false)]);
    }

    use crate::registry::digest::Digest;

    #[test]
    fn evil_blocked_registry_is_not_asked() {
        let sources = Sources::parse(DOCUMENT).unwrap();
        let error = sources.of(&Reference::parse("busybox").unwrap()).unwrap_err();
        assert_eq!(error.code(), "REGISTRY_BLOCKED");
    }

    #[test]
    fn evil_prefix_of_half_a_name() {
        let sources =
            Sources::parse("[[registry]]\nprefix='r.example/acme'\nlocation='evil.example'").unwrap();
        for name in ["r.example/acmecorp/x", "r.example.org/acme/x", "x.example/r.example/acme"] {
            let found = sources.of(&Reference::parse(name).unwrap()).unwrap();
            assert!(found.iter().all(|source| source.reference.name() == name), "{found:?}");
        }
        let found = sources.of(&Reference::parse("r.example/acme/x").unwrap()).unwrap();
        assert_eq!(found[0].reference.name(), "evil.example/x");
        let wild = Sources::parse("[[registry]]\nprefix='*.example'\nblocked=true").unwrap();
        assert!(wild.of(&Reference::parse("r.badexample/x").unwrap()).is_ok());
        assert!(wild.of(&Reference::parse("r.example:5000/x").unwrap()).is_err());
    }

    #[test]
    fn evil_registry_configuration_is_refused() {
        let mirrors = format!(
            "[[registry]]\nlocation='a.example'\n{}",
            "[[registry.mirror]]\nlocation='b.example'\n".repeat(17)
        );
        for (refused, word) in [
            ("#".repeat(SOURCES_MAX + 1).as_str(), "at most 1 MiB"),
            ("unqualified-search-registries = ['evil.example']", "no search"),
            ("[[registry]]\ninsecure=true", "prefix or location"),
            ("[[registry]]\nlocation='a.example'\nskip-verify=true", "other keys"),
            ("credential-helpers = []", "other keys"),
            ("[[registry]]\nlocation='https://a.example'", "registry[/path]"),
            ("[[registry]]\nlocation='a.example/../b'", "registry[/path]"),
            ("[[registry]]\nlocation='a.example'\n[[registry]]\nlocation='A.example'", "once"),
            ("[[registry]]\nprefix='*.a.example'\nlocation='b.example'", "'*'"),
            (mirrors.as_str(), "16 mirrors"),
        ] {
            let error = Sources::parse(refused).unwrap_err();
            assert_eq!(error.code(), "REGISTRY_CONFIG");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
