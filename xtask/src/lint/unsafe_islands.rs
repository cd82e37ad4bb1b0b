//! `unsafe` lives in named islands only, and says each time why it is sound.

use super::file_size::is_test_file;
use crate::shell::Workspace;
use anyhow::bail;

/// Where `unsafe` may stand, and for what.
const ISLANDS: &[(&str, &str)] = &[
    ("protected-memory/src/", "mmap, mount and ioctl for what holds plaintext"),
    ("chip-client/src/vfio/", "kernel VFIO"),
    ("chip-client/src/vfio_user/", "shared mappings and descriptors of the vfio-user socket"),
    ("fuzz/src/heap.rs", "an allocator that counts, to see allocations above a cap"),
    (
        "agent/src/sys/",
        "copies and programs of processes, filters of system calls and device programs, namespaces and mounts held by descriptor, \
         ioctls of the generator of random numbers, swap, files in the reactor, signals that end the machine, \
         how many heaps the allocator has",
    ),
    ("attestation-agent/src/ioctl.rs", "ioctls of the TDX and SEV-SNP guest drivers"),
    ("emulators/chip/src/sys/", "the emulated device's mappings of guest memory"),
];

/// Crate roots that must forbid it altogether.
const FORBIDDING: &[&str] = &[
    "sealed-artifact/src/lib.rs",
    "cli/src/main.rs",
    "initdata/src/lib.rs",
    "cdh/src/lib.rs",
    "xtask/src/main.rs",
];

/// How far above an `unsafe` its reason may begin.
const REACH: usize = 12;

/// The rule.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let mut count = 0_usize;
    for file in workspace.rust_files()? {
        let name = file.to_string_lossy();
        let text = std::fs::read_to_string(workspace.path(&file))?;
        let island = ISLANDS.iter().any(|(place, _)| name.starts_with(place));
        for finding in findings(&text) {
            count += 1;
            let line = finding.line;
            if !island && !is_test_file(&name) {
                problems.push(format!("{name}:{line}: unsafe outside the islands"));
            }
            if !finding.explained {
                problems.push(format!("{name}:{line}: unsafe without a SAFETY comment"));
            }
        }
        if FORBIDDING.contains(&&*name) && !text.contains("#![forbid(unsafe_code)]") {
            problems.push(format!("{name}: `#![forbid(unsafe_code)]` is missing"));
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("{count} uses of unsafe, all explained and inside the islands");
    Ok(())
}

struct Finding {
    line: usize,
    explained: bool,
}

/// Each `unsafe` block, impl, function or extern block in the code.
fn findings(text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.trim_start().starts_with("#") || !has_unsafe(code) {
            continue;
        }
        let above = lines.iter().take(index).rev().take(REACH);
        // A function says in its docs what it asks for (clippy sees to it); its body's blocks say why they are sound.
        let explained = code.contains("unsafe fn")
            || line.contains("// SAFETY:")
            || above.take_while(|line| !ends_the_reach(line)).any(|line| line.contains("SAFETY:"));
        findings.push(Finding { line: index + 1, explained });
    }
    findings
}

/// A line above which a comment no longer belongs to this statement.
fn ends_the_reach(line: &str) -> bool {
    let line = line.trim();
    !line.starts_with("//") && (line.ends_with(';') || line == "}")
}

/// Whether the keyword stands there as a word, outside quotes.
fn has_unsafe(code: &str) -> bool {
    let Some(at) = code.find("unsafe") else { return false };
    let (before, rest) = code.split_at(at);
    let after = rest.get("unsafe".len()..).unwrap_or_default();
    let bounded = |c: Option<char>| c.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
    let quoted = before.matches('"').count() % 2 == 1;
    bounded(before.chars().next_back()) && bounded(after.chars().next()) && !quoted
}

#[cfg(test)]
mod tests {
    use super::findings;

    fn verdicts(text: &str) -> Vec<(usize, bool)> {
        findings(text).into_iter().map(|finding| (finding.line, finding.explained)).collect()
    }

    #[test]
    fn a_reason_directly_above_counts() {
        assert_eq!(verdicts("// SAFETY: the pointer is ours\nlet x = unsafe { *p };"), [(2, true)]);
    }

    #[test]
    fn a_reason_of_another_statement_does_not_count() {
        assert_eq!(
            verdicts("// SAFETY: ours\nlet x = unsafe { *p };\nlet y = unsafe { *q };"),
            [(2, true), (3, false)]
        );
    }

    #[test]
    fn attributes_strings_and_names_are_not_code() {
        assert!(verdicts("#![forbid(unsafe_code)]\nlet unsafe_code = \"unsafe\"; // unsafe").is_empty());
    }

    #[test]
    fn a_function_needs_no_comment_and_its_blocks_do() {
        let text = "unsafe fn f() {\n    unsafe { g() }\n}\nunsafe impl A for B {}";
        assert_eq!(verdicts(text), [(1, true), (2, false), (4, false)]);
    }
}
