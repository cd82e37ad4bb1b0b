//! `cargo xtask deps`: the dependency table of ARCHITECTURE.md, held against what cargo resolves.

use crate::shell::Workspace;
use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};

/// Check which crates may use which: directions, emulators, C code.
#[derive(Debug, Args)]
pub struct Arguments {}

/// What a crate may use inside the workspace.
enum May {
    Use(&'static [&'static str]),
    UseAnything,
}

/// The table. A crate of the workspace that has no row is an error.
const TABLE: &[(&str, May)] = &[
    ("sealed-artifact", May::Use(&[])),
    ("protected-memory", May::Use(&[])),
    ("chip-client", May::Use(&["protected-memory", "sealed-artifact"])),
    ("evidence", May::Use(&["sealed-artifact"])),
    ("policy-engine", May::Use(&["protocol", "sealed-artifact"])),
    ("protocol", May::Use(&[])),
    ("initdata", May::Use(&[])),
    (
        "attestation-agent",
        May::Use(&["evidence", "initdata", "protected-memory", "protocol", "sealed-artifact"]),
    ),
    // `initdata` for what a bound document says of modes and artifacts, `evidence` for the classes of what a chip is shown.
    (
        "cdh",
        May::Use(&[
            "attestation-agent",
            "chip-client",
            "evidence",
            "initdata",
            "protected-memory",
            "protocol",
            "sealed-artifact",
        ]),
    ),
    (
        "agent",
        May::Use(&[
            "attestation-agent",
            "cdh",
            "chip-client",
            "initdata",
            "policy-engine",
            "protected-memory",
            "protocol",
        ]),
    ),
    (
        "cli",
        May::Use(&[
            "attestation-agent",
            "cdh",
            "chip-client",
            "evidence",
            "initdata",
            "policy-engine",
            "protected-memory",
            "protocol",
            "sealed-artifact",
        ]),
    ),
    ("chip-emulator", May::Use(&["chip-client", "evidence", "sealed-artifact"])),
    ("key-broker-emulator", May::Use(&["evidence", "sealed-artifact"])),
    ("tee-emulator", May::Use(&["evidence"])),
    ("tests", May::UseAnything),
    ("xtask", May::Use(&[])),
];

/// Crates that become what users run: no emulator is reachable from them and they link no C but aws-lc.
const SHIPPED: &[&str] = &["attestation-agent", "cdh", "cli", "agent"];

/// What the chip emulator may name of the driver: constants and wire structs, so that both sides of the wire are
/// written twice.
const EMULATOR_MAY_NAME: &[&str] = &["chip_client::abi", "chip_client::vfio_user::wire"];

/// The crate that may build C.
const C_ALLOWED: &str = "aws-lc-sys";

/// Crates that depend on a C compiler at build time, with the feature that keeps them from using it.
const C_SWITCHED_OFF: &[(&str, &str)] = &[("blake3", "pure")];

/// Crates that depend on a C compiler at build time and use it for other architectures alone, in the version that was read:
/// the build script of `nc` compiles C where the stable compiler has no inline assembly, which x86-64 has.
const C_OF_OTHER_ARCHITECTURES: &[(&str, &str)] = &[("nc", "0.9.8")];

/// Build dependencies that mean C, or a library of the system.
const C_BUILDERS: &[&str] =
    &["autotools", "bindgen", "cc", "cmake", "meson", "nasm-rs", "pkg-config", "vcpkg"];

/// Runs the subcommand.
pub fn run(workspace: &Workspace, _arguments: &Arguments) -> anyhow::Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.path("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform=x86_64-unknown-linux-gnu".to_owned()])
        .exec()?;
    let mut problems = table_problems(&metadata);
    problems.extend(reach_problems(&metadata)?);
    problems.extend(emulator_problems(workspace)?);
    if !problems.is_empty() {
        bail!("dependency rules are broken:\n  {}", problems.join("\n  "));
    }
    let count = metadata.workspace_packages().len();
    println!("dependency table holds for {count} crates");
    Ok(())
}

/// Direct dependencies between our crates that the table does not allow, for every kind but development.
fn table_problems(metadata: &Metadata) -> Vec<String> {
    let ours: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let mut problems = Vec::new();
    for package in metadata.workspace_packages() {
        let Some((_, may)) = TABLE.iter().find(|(name, _)| *name == package.name.as_str()) else {
            problems.push(format!("`{}` has no row in TABLE of xtask/src/deps.rs", package.name));
            continue;
        };
        let May::Use(allowed) = may else { continue };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if dependency.kind != DependencyKind::Development
                && ours.contains(name)
                && !allowed.contains(&name)
            {
                problems.push(format!("`{}` must not use `{name}`", package.name));
            }
        }
        if package.dependencies.iter().any(|d| d.kind != DependencyKind::Development && d.name == "tests") {
            problems.push(format!("`{}` must not use `tests`", package.name));
        }
    }
    problems
}

/// What is reachable from shipped crates and must not be.
fn reach_problems(metadata: &Metadata) -> anyhow::Result<Vec<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata has no resolved graph")?;
    let nodes: BTreeMap<&PackageId, &Node> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let mut problems = Vec::new();
    for shipped in metadata.workspace_packages() {
        if !SHIPPED.contains(&shipped.name.as_str()) {
            continue;
        }
        for id in reachable(&nodes, &packages, &shipped.id) {
            let (Some(package), Some(node)) = (packages.get(id), nodes.get(id)) else { continue };
            if package.manifest_path.starts_with(metadata.workspace_root.join("emulators")) {
                problems.push(format!("emulator `{}` is reachable from `{}`", package.name, shipped.name));
            }
            if builds_c(package, node) {
                problems.push(format!("`{}` links C through `{}`", shipped.name, package.name));
            }
        }
    }
    Ok(problems)
}

/// Everything that ends up in the program: normal dependencies, transitively. (A build script's own dependencies
/// run at build time and are not linked.)
fn reachable<'a>(
    nodes: &BTreeMap<&'a PackageId, &'a Node>,
    packages: &BTreeMap<&'a PackageId, &'a Package>,
    start: &'a PackageId,
) -> BTreeSet<&'a PackageId> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![start];
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(node) = nodes.get(id) else { continue };
        for dependency in &node.deps {
            let normal = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            let linked = match (packages.get(id), packages.get(&dependency.pkg)) {
                (Some(user), Some(used)) => is_switched_on(user, node, used.name.as_str()),
                _ => true,
            };
            if normal && linked {
                todo.push(&dependency.pkg);
            }
        }
    }
    seen
}

/// Whether a dependency is in the build. Cargo's graph also lists optional ones that a weak feature (`ring?/alloc`) names
/// and that nothing switches on.
fn is_switched_on(user: &Package, node: &Node, used: &str) -> bool {
    let declared: Vec<_> = user.dependencies.iter().filter(|dependency| dependency.name == used).collect();
    if declared.is_empty() || declared.iter().any(|dependency| !dependency.optional) {
        return true;
    }
    // The names under which features speak of it.
    let names: Vec<&str> = declared.iter().map(|found| found.rename.as_deref().unwrap_or(used)).collect();
    node.features.iter().map(|feature| feature.as_str()).any(|feature| {
        let items = user.features.get(feature).into_iter().flatten().map(String::as_str);
        items.chain([feature]).any(|item| {
            let item = item.strip_prefix("dep:").unwrap_or(item);
            names.contains(&item.split_once('/').map_or(item, |(name, _)| name))
        })
    })
}

fn builds_c(package: &Package, node: &Node) -> bool {
    let name = package.name.as_str();
    let switched_off = C_SWITCHED_OFF
        .iter()
        .any(|(crate_, feature)| *crate_ == name && node.features.iter().any(|f| f.as_str() == *feature));
    let elsewhere = C_OF_OTHER_ARCHITECTURES
        .iter()
        .any(|(crate_, version)| *crate_ == name && package.version.to_string() == *version);
    let has_builder = package.dependencies.iter().any(|dependency| {
        dependency.kind == DependencyKind::Build && C_BUILDERS.contains(&dependency.name.as_str())
    });
    name != C_ALLOWED
        && !switched_off
        && !elsewhere
        && (has_builder || (package.links.is_some() && name.ends_with("-sys")))
}

/// Lines of the emulator that name more of the driver than the wire.
fn emulator_problems(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    for file in workspace.rust_files()? {
        if !file.starts_with("emulators/chip/src") {
            continue;
        }
        let text = std::fs::read_to_string(workspace.path(&file))?;
        for name in driver_names(&text) {
            if !EMULATOR_MAY_NAME.iter().any(|allowed| within(&name, allowed)) {
                problems.push(format!("{} names `{name}` of the driver", file.display()));
            }
        }
    }
    Ok(problems)
}

/// Whether a path is `allowed` or lies below it.
fn within(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Paths that begin with `chip_client` outside comments, groups of a `use` spelled out.
fn driver_names(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("chip_client") {
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = code.get(at..).unwrap_or_default();
        expand("", rest, &mut names);
    }
    names
}

/// Reads one path of a `use` at the start of `text`, with its groups, and returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, names: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    let end =
        text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '*')).unwrap_or(text.len());
    let (path, mut rest) = text.split_at(end);
    let full = format!("{prefix}{path}");
    if !path.ends_with("::") || !rest.starts_with('{') {
        names.push(full);
        return rest;
    }
    rest = rest.get(1..).unwrap_or_default();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return rest;
        }
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        let before = rest.len();
        rest = expand(&full, rest, names);
        // `as alias`, commas and anything else up to the next member.
        let skip = rest.find([',', '}']).unwrap_or(rest.len());
        rest = rest.get(skip..).unwrap_or_default();
        rest = rest.strip_prefix(',').unwrap_or(rest);
        if rest.len() == before {
            return rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EMULATOR_MAY_NAME, driver_names, within};

    #[test]
    fn groups_of_a_use_are_spelled_out() {
        let text = "use chip_client::{abi::{Opcode, Status as S}, vfio_user::wire, session};\n\
                    // chip_client::comment\nfn f() { let _ = chip_client::abi::MAX; }";
        assert_eq!(
            driver_names(text),
            [
                "chip_client::abi::Opcode",
                "chip_client::abi::Status",
                "chip_client::vfio_user::wire",
                "chip_client::session",
                "chip_client::abi::MAX",
            ]
        );
    }

    #[test]
    fn only_whole_modules_are_allowed() {
        let allowed = |name: &str| EMULATOR_MAY_NAME.iter().any(|allowed| within(name, allowed));
        assert!(allowed("chip_client::abi"));
        assert!(allowed("chip_client::abi::Opcode"));
        assert!(!allowed("chip_client::abi_helpers::Opcode"));
        assert!(!allowed("chip_client::vfio_user::client"));
        assert!(!allowed("chip_client"));
    }
}
