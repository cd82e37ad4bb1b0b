//! Which entry of a configuration applies to an image (containers-policy.json(5), "Supported transports and their scopes").
//!
//! Most precise first: the image itself, its repository, each namespace above, the registry with its port, then `*.` and each
//! domain above the host. A reference with a digest is looked up by the digest, whatever tag stands beside it: that tag was resolved by nobody.

use std::collections::BTreeMap;

use super::digest::Digest;
use super::name::{ImageName, is_host, is_registry, is_repository, is_tag};

/// Longest scope, in bytes.
pub(crate) const SCOPE_MAX: usize = 512;

/// The scopes that an image is in, most precise first. The transport's own default, `""`, is not among them.
pub(crate) fn scopes(name: &ImageName) -> Vec<String> {
    let mut all = Vec::new();
    let repository = name.name();
    match (name.digest(), name.tag()) {
        (Some(digest), _) => all.push(format!("{repository}@{digest}")),
        (None, Some(tag)) => all.push(format!("{repository}:{tag}")),
        (None, None) => {}
    }
    let mut namespace = repository.as_str();
    loop {
        all.push(namespace.to_owned());
        match namespace.rsplit_once('/') {
            Some((parent, _)) => namespace = parent,
            None => break,
        }
    }
    if !namespace.starts_with('[') {
        let mut host = namespace.split(':').next().unwrap_or_default();
        while let Some((_, parent)) = host.split_once('.') {
            all.push(format!("*.{parent}"));
            host = parent;
        }
    }
    all
}

/// The most precise entry for an image, with its scope.
pub(crate) fn lookup<'a, T>(entries: &'a BTreeMap<String, T>, name: &ImageName) -> Option<(&'a str, &'a T)> {
    scopes(name)
        .iter()
        .find_map(|scope| entries.get_key_value(scope))
        .map(|(scope, entry)| (scope.as_str(), entry))
}

/// Whether a scope can match any image at all. One that cannot would leave its images to a more general entry, unnoticed.
pub(crate) fn is_scope(scope: &str) -> bool {
    if scope.len() > SCOPE_MAX {
        return false;
    }
    if let Some(domain) = scope.strip_prefix("*.") {
        return is_host(domain);
    }
    let Some((registry, rest)) = scope.split_once('/') else { return is_registry(scope) };
    let path = if let Some((path, digest)) = rest.split_once('@') {
        if Digest::parse(digest).is_none() {
            return false;
        }
        path
    } else if let Some((path, tag)) = rest.split_once(':') {
        if !is_tag(tag) {
            return false;
        }
        path
    } else {
        rest
    };
    is_registry(registry) && is_repository(path)
}

#[cfg(test)]
mod tests;
