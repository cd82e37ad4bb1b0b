//! `cargo xtask compat`: the table of the guest agent's methods in `docs/compatibility.md`, made of what tests say that they hold.
//!
//! A line stands above a test, in Rust or in Python, and belongs to it alone:
//!
//! ```text
//! // COMPAT: ExecProcess stricter: only in a running container
//! // COMPAT: ReadStdout, ReadStderr same: a read waits
//! // COMPAT: MemHotplugByProbe not exercised: the test guest's kernel has no probe
//! ```

mod line;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;

use crate::shell::Workspace;
use line::Line;

/// Write the table of the guest agent's methods in docs/compatibility.md anew, from the lines of tests.
#[derive(Debug, Args)]
pub struct Arguments {}

const DOCUMENT: &str = "docs/compatibility.md";
/// Every method on the wire.
const WIRE: &str = "tests/compat/kata_wire.txt";
/// Services of upstream: what there is to compare with.
const SERVICES: [&str; 2] = ["grpc.AgentService", "grpc.Health"];
const PYTHON: &str = "tests/compat";
const BEGIN: &str = "<!-- `cargo xtask compat` writes this table: begin -->";
const END: &str = "<!-- end -->";

/// Writes the table.
pub fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<()> {
    let (path, text) = document(workspace)?;
    let expected = expected(workspace, &text)?;
    if expected == text {
        println!("compat: {DOCUMENT} says what the tests say");
        return Ok(());
    }
    std::fs::write(&path, expected).with_context(|| format!("write {}", path.display()))?;
    println!("compat: {DOCUMENT} written");
    Ok(())
}

/// The rule: every method has a test, every line names a method, and the table says what the lines say.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let (_, text) = document(workspace)?;
    if expected(workspace, &text)? != text {
        bail!("{DOCUMENT} does not say what the tests say: run `cargo xtask compat`");
    }
    Ok(())
}

fn document(workspace: &Workspace) -> anyhow::Result<(std::path::PathBuf, String)> {
    let path = workspace.path(DOCUMENT);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {DOCUMENT}"))?;
    Ok((path, text))
}

/// The document with the table of today.
fn expected(workspace: &Workspace, text: &str) -> anyhow::Result<String> {
    let wire = std::fs::read_to_string(workspace.path(WIRE)).with_context(|| format!("read {WIRE}"))?;
    let methods = methods(&wire);
    let (lines, mut problems) = lines(workspace)?;
    problems.extend(table::problems(&methods, &lines));
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    replaced(text, &table::render(&methods, &lines))
}

/// Methods of upstream's services, in the order of the wire's table.
fn methods(wire: &str) -> Vec<&str> {
    wire.lines()
        .filter_map(|line| line.strip_prefix("rpc /")?.split(' ').next()?.split_once('/'))
        .filter(|(service, _)| SERVICES.contains(service))
        .map(|(_, method)| method)
        .collect()
}

/// The lines of all tests, and what is wrong with some.
fn lines(workspace: &Workspace) -> anyhow::Result<(Vec<Line>, Vec<String>)> {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let mut files: BTreeSet<_> = workspace.rust_files()?.into_iter().collect();
    // The texts in xtask itself speak about such lines.
    files.retain(|file| !file.starts_with("xtask"));
    let is_python =
        |file: &Path| file.starts_with(PYTHON) && file.extension().is_some_and(|kind| kind == "py");
    files.extend(workspace.source_files()?.into_iter().filter(|file| is_python(file)));
    for file in files {
        let text = std::fs::read_to_string(workspace.path(&file))
            .with_context(|| format!("read {}", file.display()))?;
        match line::of_file(&file, &text) {
            Ok(found) => lines.extend(found),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    Ok((lines, problems))
}

/// The document with this between the marks.
fn replaced(text: &str, table: &str) -> anyhow::Result<String> {
    let between = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = between.with_context(|| format!("{DOCUMENT}: no `{BEGIN}` and `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_those_of_upstreams_services() {
        let wire = "rpc /grpc.AgentService/CopyFile grpc.A grpc.B\nrpc /innerkeep.AuditService/Head a b\n\
                    rpc /grpc.Health/Check a b\nmessage grpc.A\n  1 a string singular\n";
        assert_eq!(methods(wire), ["CopyFile", "Check"]);
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert!(replaced("a\n", "new\n").is_err());
    }
}
