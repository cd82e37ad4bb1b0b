//! A file is one idea: 300 lines of code that is not tests is a sign, 600 is the end.

use crate::shell::Workspace;
use anyhow::bail;

/// Above this a file is named.
const SOFT: usize = 300;
/// Above this the lint fails.
const HARD: usize = 600;

/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// The rule.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let mut too_long = Vec::new();
    for file in workspace.rust_files()? {
        let name = file.to_string_lossy();
        if is_test_file(&name) {
            continue;
        }
        let lines = code_lines(&std::fs::read_to_string(workspace.path(&file))?);
        if lines > HARD && !LONGER.iter().any(|(allowed, _)| *allowed == name) {
            too_long.push(format!("{name}: {lines} lines, the limit is {HARD}"));
        } else if lines > SOFT {
            println!("note: {name} has {lines} lines, more than {SOFT}");
        }
    }
    for (allowed, _) in LONGER {
        if !workspace.path(allowed).is_file() {
            too_long.push(format!("{allowed}: on the list of longer files, but does not exist"));
        }
    }
    if !too_long.is_empty() {
        bail!("{}", too_long.join("\n"));
    }
    Ok(())
}

/// Whether the whole file is tests.
pub fn is_test_file(name: &str) -> bool {
    name.split('/').any(|part| matches!(part, "tests" | "benches" | "tests.rs"))
}

/// Lines before the test module.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[cfg(test)]
mod tests {
    use super::{code_lines, is_test_file};

    #[test]
    fn counting_ends_at_the_test_module() {
        assert_eq!(code_lines("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert_eq!(code_lines("a\nb\n"), 2);
    }

    #[test]
    fn test_files_are_known_by_their_path() {
        assert!(is_test_file("tests/src/lib.rs"));
        assert!(is_test_file("chip-client/src/session/tests.rs"));
        assert!(!is_test_file("xtask/src/test.rs"));
    }
}
