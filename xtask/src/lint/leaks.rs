//! Nothing of one developer's machine belongs in the sources: no home directories, no private registry.

use crate::shell::Workspace;
use anyhow::bail;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Beginnings of paths that exist on one machine only. (Written in two parts so that this file passes.)
const PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Files that may contain such a path, each with its reason.
const ALLOWED: &[(&str, &str)] = &[];

/// Registries that everyone has.
const PUBLIC: &[&str] =
    &["crates.io", "index.crates.io", "static.crates.io", "github.com", "pypi.org", "files.pythonhosted.org"];

/// The one source that the lock file may name.
const LOCK_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The rule.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let mut needles: BTreeSet<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    if workspace.root().components().count() > 2 {
        needles.insert(workspace.root().to_string_lossy().into_owned());
    }
    needles.extend(configured_hosts());
    let mut problems = Vec::new();
    for file in workspace.source_files()? {
        let name = file.to_string_lossy();
        // Bytes that are no text (test vectors) cannot name a path that anybody reads.
        let Ok(text) = std::fs::read_to_string(workspace.path(&file)) else { continue };
        if ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            for needle in needles.iter().filter(|needle| mentions(line, needle)) {
                problems.push(format!("{name}:{}: names `{needle}`", index + 1));
            }
            let foreign =
                line.strip_prefix("source = \"").is_some_and(|source| !source.starts_with(LOCK_SOURCE));
            if name.ends_with("Cargo.lock") && foreign {
                problems.push(format!("{name}:{}: {line}: only `{LOCK_SOURCE}` is allowed", index + 1));
            }
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// Whether the line has the path (or host) as a whole, not as the tail of a longer one.
fn mentions(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}')))
    })
}

/// Hosts of registries that this machine's cargo and pip are set up with, but for the public ones.
fn configured_hosts() -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| home.as_ref().map(|home| home.join(".cargo")));
    let files = [
        cargo_home.map(|dir| dir.join("config.toml")),
        home.as_ref().map(|home| home.join(".config/pip/pip.conf")),
        Some(PathBuf::from("/etc/pip.conf")),
    ];
    for text in files.into_iter().flatten().filter_map(|file| std::fs::read_to_string(file).ok()) {
        hosts.extend(hosts_in(&text));
    }
    hosts.retain(|host| !PUBLIC.contains(&host.as_str()));
    hosts
}

/// Host names of the web addresses in a text.
fn hosts_in(text: &str) -> BTreeSet<String> {
    let mut hosts = BTreeSet::new();
    for (at, separator) in text.match_indices("://") {
        let rest = text.get(at + separator.len()..).unwrap_or_default();
        let authority = rest.split(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'')).next();
        let host = authority.and_then(|authority| authority.rsplit('@').next()).unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        if host.contains('.') {
            hosts.insert(host.to_owned());
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::{PATHS, hosts_in, mentions};

    #[test]
    fn a_path_counts_only_from_its_beginning() {
        let path = PATHS.first().copied().unwrap_or_default();
        assert!(mentions(&format!("cd {path}main"), path));
        assert!(!mentions(&format!("target{path}main"), path));
    }

    #[test]
    fn hosts_are_read_without_user_and_port() {
        let hosts = hosts_in("index = \"sparse+https://user:pass@registry.example.org:8443/index/\"\n");
        assert!(hosts.iter().eq(["registry.example.org"]));
    }
}
