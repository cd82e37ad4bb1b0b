//! What name a signature has to give to an image (containers-policy.json(5), `signedIdentity`).

use super::json::{JsonFault, Members, quoted};
use super::name::{ImageName, NAME_MAX, is_registry, is_repository};
use serde_json::Value;

/// A rule about the name in a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    ExactReference(ImageName),
    ExactRepository(String),
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    Remap { prefix: String, signed_prefix: String },
}

impl Identity {
    /// Reads `signedIdentity`; the default when it is absent.
    pub(crate) fn parse(value: Option<Value>) -> Result<Self, JsonFault> {
        let Some(value) = value else { return Ok(Self::MatchRepoDigestOrExact) };
        let mut members = Members::of(value, "object `signedIdentity`")?;
        let kind = members.text("type")?;
        let identity = match kind.as_str() {
            "exactReference" => {
                let name = name(&members.text("dockerReference")?, "dockerReference")?;
                if name.tag().is_none() && name.digest().is_none() {
                    return Err(JsonFault::new("a tag or digest in `dockerReference`", "neither"));
                }
                Self::ExactReference(name)
            }
            "exactRepository" => {
                let name = name(&members.text("dockerRepository")?, "dockerRepository")?;
                if name.tag().is_some() || name.digest().is_some() {
                    return Err(JsonFault::new("a repository in `dockerRepository`", "a tag or digest"));
                }
                Self::ExactRepository(name.name())
            }
            "matchExact" => Self::MatchExact,
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchRepository" => Self::MatchRepository,
            "remapIdentity" => Self::Remap {
                prefix: prefix(members.text("prefix")?)?,
                signed_prefix: prefix(members.text("signedPrefix")?)?,
            },
            other => return Err(JsonFault::new("a documented type of `signedIdentity`", quoted(other))),
        };
        members.finish()?;
        Ok(identity)
    }

    /// Its name in a policy.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::ExactReference(_) => "exactReference",
            Self::ExactRepository(_) => "exactRepository",
            Self::MatchExact => "matchExact",
            Self::MatchRepoDigestOrExact => "matchRepoDigestOrExact",
            Self::MatchRepository => "matchRepository",
            Self::Remap { .. } => "remapIdentity",
        }
    }

    /// Whether a signature that names `signed` is one about an image that was asked for as `intended`.
    pub(crate) fn accepts(&self, intended: &ImageName, signed: &ImageName) -> bool {
        match self {
            Self::ExactReference(name) => is_whole(signed) && signed == name,
            Self::ExactRepository(name) => signed.name() == *name,
            Self::MatchExact => is_whole(intended) && is_whole(signed) && signed == intended,
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(intended, signed),
            Self::MatchRepository => signed.name() == intended.name(),
            Self::Remap { prefix, signed_prefix } => remapped(intended, prefix, signed_prefix)
                .is_some_and(|intended| repo_digest_or_exact(&intended, signed)),
        }
    }
}

/// A tag has to be the same one. A digest was compared with the image before, and with the signed digest after: the repository is left.
fn repo_digest_or_exact(intended: &ImageName, signed: &ImageName) -> bool {
    match (intended.digest(), intended.tag()) {
        (Some(_), _) => is_whole(signed) && signed.name() == intended.name(),
        (None, Some(_)) => signed == intended,
        (None, None) => false,
    }
}

/// Whether it says which image of its repository.
fn is_whole(name: &ImageName) -> bool {
    name.tag().is_some() || name.digest().is_some()
}

/// The name with its first components replaced; as it is where they are others. A prefix ends where a component ends.
fn remapped(name: &ImageName, prefix: &str, signed_prefix: &str) -> Option<ImageName> {
    let whole = name.name();
    let Some(rest) = whole.strip_prefix(prefix) else { return Some(name.clone()) };
    // GUARD: remap-component -> evil_prefix_that_ends_inside_a_component
    if !rest.is_empty() && !rest.starts_with('/') {
        return Some(name.clone());
    }
    let (registry, repository) = signed_prefix.split_once('/').unwrap_or((signed_prefix, ""));
    let repository = format!("{repository}{rest}");
    let repository = repository.strip_prefix('/').unwrap_or(&repository);
    ImageName::new(registry, repository, name.tag().map(str::to_owned), name.digest().cloned()).ok()
}

fn name(text: &str, expected: &'static str) -> Result<ImageName, JsonFault> {
    ImageName::parse(text)
        .map_err(|fault| JsonFault::new(expected, format!("a text without {}", fault.expected)))
}

/// A registry, perhaps with a path.
fn prefix(text: String) -> Result<String, JsonFault> {
    let (registry, path) =
        text.split_once('/').map_or((text.as_str(), None), |(head, path)| (head, Some(path)));
    if text.len() > NAME_MAX || !is_registry(registry) || !path.is_none_or(is_repository) {
        return Err(JsonFault::new("a registry or namespace in its expanded form", quoted(&text)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
