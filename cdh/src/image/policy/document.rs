//! The policy document (containers-policy.json(5)).
//!
//! Stricter than that page where strictness takes nothing away: `transports` has to be there (as upstream demands), transports and types
//! of requirements that are unknown are refused, and a scope that no image can be in is refused too.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::cosign::CosignKey;
use super::error::{KeyFault, PolicyError};
use super::identity::Identity;
use super::json::{self, JsonFault, Members, quoted};
use super::material::MaterialUri;
use super::openpgp::Keyring;
use super::scope::is_scope;

/// Longest policy, in bytes.
pub const POLICY_MAX: usize = 1 << 20;
/// Most scopes of a transport.
pub const SCOPES_MAX: usize = 1024;
/// Most requirements of one scope.
pub const REQUIREMENTS_MAX: usize = 16;
/// Most keys of one requirement.
pub const KEYS_MAX: usize = 16;

const WHAT: &str = "image policy";

/// Transports that tools know (containers-transports(5)). Entries of those other than `docker` are read and never used.
const TRANSPORTS: [&str; 11] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

/// The requirements of one scope: 1 to [`REQUIREMENTS_MAX`].
pub(crate) type Requirements = Vec<Requirement>;

/// One demand.
#[derive(Debug)]
pub(crate) enum Requirement {
    AcceptAnything,
    Reject,
    SignedBy { keys: Keys<Keyring>, identity: Identity },
    Sigstore { keys: Keys<CosignKey>, identity: Identity },
}

/// Keys in the policy itself, or where they are.
#[derive(Debug)]
pub(crate) enum Keys<K> {
    Here(Vec<K>),
    Elsewhere(Vec<MaterialUri>),
}

/// The whole document.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) default: Requirements,
    pub(crate) docker: BTreeMap<String, Requirements>,
}

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let top = || "top level".to_owned();
        let value = json::parse(bytes, POLICY_MAX).map_err(at(top()))?;
        let mut members = Members::of(value, "an object").map_err(at(top()))?;
        let default = members.take("default").map_err(at(top()))?;
        let transports = members.take("transports").map_err(at(top()))?;
        members.finish().map_err(at(top()))?;
        let default = requirements(default, "default")?;
        let transports = Members::of(transports, "an object").map_err(at("transports".to_owned()))?;
        let mut docker = BTreeMap::new();
        for (transport, scopes) in transports.into_entries() {
            // GUARD: policy-transports -> evil_transport_that_nobody_knows
            if !TRANSPORTS.contains(&transport.as_str()) {
                let fault = JsonFault::new("a documented transport", quoted(&transport));
                return Err(at("transports".to_owned())(fault));
            }
            let scopes = entries(scopes, &transport)?;
            if transport == "docker" {
                docker = scopes;
            }
        }
        Ok(Self { default, docker })
    }
}

fn entries(value: Value, transport: &str) -> Result<BTreeMap<String, Requirements>, PolicyError> {
    let place = || format!("transports.{transport}");
    let members = Members::of(value, "an object").map_err(at(place()))?;
    // GUARD: policy-scopes -> evil_policy_with_too_many_scopes
    if members.len() > SCOPES_MAX {
        return Err(at(place())(JsonFault::new("at most 1024 scopes", members.len().to_string())));
    }
    let mut scopes = BTreeMap::new();
    for (scope, value) in members.into_entries() {
        // GUARD: policy-scope -> evil_scope_that_matches_nothing
        if transport == "docker" && !scope.is_empty() && !is_scope(&scope) {
            let fault = JsonFault::new("a scope in its expanded, lower-case form", quoted(&scope));
            return Err(at(place())(fault));
        }
        let requirements = requirements(value, &format!("{}.{}", place(), quoted(&scope)))?;
        scopes.insert(scope, requirements);
    }
    Ok(scopes)
}

fn requirements(value: Value, place: &str) -> Result<Requirements, PolicyError> {
    let items = json::items(value, "requirements", REQUIREMENTS_MAX).map_err(at(place.to_owned()))?;
    let numbered = items.into_iter().enumerate();
    numbered.map(|(number, item)| requirement(item, &format!("{place}[{number}]"))).collect()
}

fn requirement(value: Value, place: &str) -> Result<Requirement, PolicyError> {
    let here = || at(place.to_owned());
    let mut members = Members::of(value, "an object").map_err(here())?;
    let kind = members.text("type").map_err(here())?;
    let requirement = match kind.as_str() {
        "insecureAcceptAnything" => Requirement::AcceptAnything,
        "reject" => Requirement::Reject,
        "signedBy" => {
            let key_type = members.text("keyType").map_err(here())?;
            // GUARD: policy-key-type -> evil_keys_of_an_unsupported_type
            if key_type != "GPGKeys" {
                return Err(unsupported(place, "a `keyType` other than `GPGKeys`"));
            }
            let keys = keys(&mut members, place, "keyData", None, |data| {
                Ok(Keyring::parse(&base64(data).unwrap_or_default())?)
            })?;
            let identity = Identity::parse(members.optional("signedIdentity")).map_err(here())?;
            Requirement::SignedBy { keys, identity }
        }
        "sigstoreSigned" => {
            keyless(&mut members, place)?;
            let keys = keys(&mut members, place, "keyData", Some("keyDatas"), |data| {
                // PEM itself, which upstream took, or the base64 of it, which the page documents.
                let pem = if data.starts_with("-----") {
                    data.as_bytes().to_vec()
                } else {
                    base64(data).unwrap_or_default()
                };
                Ok(CosignKey::parse(&pem)?)
            })?;
            let identity = Identity::parse(members.optional("signedIdentity")).map_err(here())?;
            Requirement::Sigstore { keys, identity }
        }
        "signedBaseLayer" => return Err(unsupported(place, "a requirement `signedBaseLayer`")),
        other => {
            let fault = JsonFault::new("a documented type of requirement", quoted(other));
            return Err(here()(fault));
        }
    };
    members.finish().map_err(here())?;
    Ok(requirement)
}

/// Demands of a public-key infrastructure or a transparency log. None is left out quietly.
fn keyless(members: &mut Members, place: &str) -> Result<(), PolicyError> {
    const KEYLESS: [(&str, &str); 6] = [
        ("fulcio", "keyless signing (`fulcio`)"),
        ("pki", "certificates of a PKI (`pki`)"),
        ("rekorPublicKeyData", "a transparency log (`rekorPublicKeyData`)"),
        ("rekorPublicKeyDatas", "a transparency log (`rekorPublicKeyDatas`)"),
        ("rekorPublicKeyPath", "a transparency log (`rekorPublicKeyPath`)"),
        ("rekorPublicKeyPaths", "a transparency log (`rekorPublicKeyPaths`)"),
    ];
    let found = KEYLESS.into_iter().find(|(name, _)| members.optional(name).is_some());
    // GUARD: policy-keyless -> evil_demand_that_is_not_implemented
    if let Some((_, found)) = found {
        return Err(unsupported(place, found));
    }
    Ok(())
}

/// Exactly one of `keyPath`, `keyPaths`, `keyData` and, where there is such a member, `keyDatas`.
fn keys<K>(
    members: &mut Members,
    place: &str,
    one: &'static str,
    several: Option<&'static str>,
    parse: impl Fn(&str) -> Result<K, KeyFault>,
) -> Result<Keys<K>, PolicyError> {
    let here = || at(place.to_owned());
    let path = members.optional_text("keyPath").map_err(here())?;
    let paths = members.optional_texts("keyPaths", KEYS_MAX).map_err(here())?;
    let data = members.optional_text(one).map_err(here())?;
    let datas = match several {
        Some(name) => members.optional_texts(name, KEYS_MAX).map_err(here())?,
        None => None,
    };
    let given = [path.is_some(), paths.is_some(), data.is_some(), datas.is_some()];
    let given = given.into_iter().filter(|given| *given).count();
    // GUARD: policy-one-key-source -> evil_requirement_with_two_sources_of_keys
    if given != 1 {
        return Err(here()(JsonFault::new("exactly one source of keys", given.to_string())));
    }
    if let Some(paths) = path.map(|path| vec![path]).or(paths) {
        let bad = |path: &str| JsonFault::new("an absolute path, file:/// or kbs:// URI", quoted(path));
        let uris = paths.iter().map(|path| MaterialUri::parse(path).ok_or_else(|| here()(bad(path))));
        return uris.collect::<Result<_, _>>().map(Keys::Elsewhere);
    }
    let datas = data.map(|data| vec![data]).or(datas).unwrap_or_default();
    let bad = |source| PolicyError::Key { place: place.to_owned(), source };
    datas.iter().map(|data| parse(data).map_err(bad)).collect::<Result<_, _>>().map(Keys::Here)
}

/// Base64, perhaps in lines.
fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

fn at(place: String) -> impl FnOnce(JsonFault) -> PolicyError {
    move |source| PolicyError::Malformed { what: WHAT, place, source }
}

fn unsupported(place: &str, found: &'static str) -> PolicyError {
    PolicyError::Unsupported { place: place.to_owned(), found }
}

#[cfg(test)]
mod tests;
