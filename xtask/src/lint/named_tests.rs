//! A document that names a test as its proof names one that exists.

use crate::guards;
use crate::shell::Workspace;
use anyhow::bail;

/// The documents that name tests.
const DOCUMENTS: &[&str] =
    &["ARCHITECTURE.md", "SPECIFICATION.md", "docs/compatibility.md", "docs/threat-model.md"];

/// The rule: every `code` word of the form of a test's name is one.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let tests = guards::test_names(workspace)?;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(workspace.path(document))?;
        for name in names(&text) {
            if !tests.contains(name) {
                missing.push(format!("{document}: there is no test `{name}`"));
            }
        }
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    Ok(())
}

/// Words in backticks that look like tests: lower case, three underscores or more.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_name)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn only_names_of_tests_are_taken() {
        let text = "`evil_device_wrong_root`, `move_mount`, evil_not_in_code, `…_b_c_d`\n`a_file_is_read`";
        assert!(names(text).eq(["evil_device_wrong_root", "a_file_is_read"]));
    }
}
