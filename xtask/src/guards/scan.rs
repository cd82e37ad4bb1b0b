//! Finds guard comments and the tests that they name.

use super::statement;
use crate::shell::Workspace;
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One security check and the tests that must notice when it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Its name, unique in the workspace.
    pub name: String,
    /// Tests, by function name or by the end of their path.
    pub tests: Vec<String>,
    /// Packages (directories) in which such tests are.
    pub packages: BTreeSet<PathBuf>,
    /// Whether such a test boots a guest, which needs the guest's own build of our programs.
    pub in_guest: bool,
    /// The file, relative to the root.
    pub file: PathBuf,
    /// The comment's line, from 1.
    pub line: usize,
    /// The bytes of the statement in the file.
    pub statement: Range<usize>,
}

impl Guard {
    /// Whether the name or the file contains `filter`.
    pub fn matches(&self, filter: &str) -> bool {
        self.name.contains(filter) || self.file.to_string_lossy().contains(filter)
    }
}

/// How files of tests begin that boot guests.
const GUEST_TESTS: &str = "tests/tests/vm_";
/// How the comment begins.
const MARK: &str = "// GUARD:";

/// All guards of the workspace, in the order of files; every broken rule is an error.
pub fn guards(workspace: &Workspace) -> anyhow::Result<Vec<Guard>> {
    let mut guards = Vec::new();
    let mut problems = Vec::new();
    let mut functions = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    let mut in_guest = BTreeSet::new();
    for file in workspace.rust_files()? {
        // The texts in xtask itself speak about guards, and guard nothing.
        if file.starts_with("xtask") || file.starts_with("fuzz") {
            continue;
        }
        let text = std::fs::read_to_string(workspace.path(&file))
            .with_context(|| format!("read {}", file.display()))?;
        for name in test_functions(&text) {
            functions.entry(name.to_owned()).or_default().insert(package_dir(workspace, &file));
            if file.to_string_lossy().starts_with(GUEST_TESTS) {
                in_guest.insert(name.to_owned());
            }
        }
        match in_text(&file, &text) {
            Ok(found) => guards.extend(found),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    let mut names = BTreeMap::<&str, &Guard>::new();
    for guard in &guards {
        if let Some(first) = names.insert(&guard.name, guard) {
            problems.push(format!(
                "{}:{}: guard `{}` also stands in {}:{}",
                guard.file.display(),
                guard.line,
                guard.name,
                first.file.display(),
                first.line
            ));
        }
    }
    for guard in &mut guards {
        for test in &guard.tests {
            let function = test.rsplit("::").next().unwrap_or(test);
            match functions.get(function) {
                Some(packages) => {
                    guard.packages.extend(packages.iter().cloned());
                    guard.in_guest |= in_guest.contains(function);
                }
                None => problems.push(format!(
                    "{}:{}: guard `{}` names test `{test}`, which does not exist",
                    guard.file.display(),
                    guard.line,
                    guard.name
                )),
            }
        }
    }
    if !problems.is_empty() {
        bail!("guard comments are broken:\n  {}", problems.join("\n  "));
    }
    Ok(guards)
}

/// Names of all test functions of the workspace.
pub fn test_names(workspace: &Workspace) -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in workspace.rust_files()? {
        let text = std::fs::read_to_string(workspace.path(&file))?;
        names.extend(test_functions(&text).into_iter().map(str::to_owned));
    }
    Ok(names)
}

/// Guards of one file.
fn in_text(file: &Path, text: &str) -> anyhow::Result<Vec<Guard>> {
    let mut guards = Vec::new();
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        offset += line.len();
        let Some(declaration) = line.trim().strip_prefix(MARK) else { continue };
        let place = || format!("{}:{}", file.display(), index + 1);
        let (name, tests) = declare(declaration).with_context(place)?;
        let after = text.get(offset..).unwrap_or_default();
        let statement = statement::first(after).with_context(place)?;
        guards.push(Guard {
            in_guest: false,
            name,
            tests,
            packages: BTreeSet::new(),
            file: file.to_owned(),
            line: index + 1,
            statement: statement.start + offset..statement.end + offset,
        });
    }
    Ok(guards)
}

/// Reads `<guard-name> -> <test>[, <test>]`.
fn declare(text: &str) -> anyhow::Result<(String, Vec<String>)> {
    let (name, tests) = text.split_once("->").context("expected `// GUARD: <name> -> <test>`")?;
    let name = name.trim();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        bail!("guard name `{name}` is not of the form `lower-case-words`");
    }
    let tests: Vec<String> = tests.split(',').map(|test| test.trim().to_owned()).collect();
    for test in &tests {
        if test.is_empty() || !test.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
            bail!("`{test}` is not the name of a test");
        }
    }
    Ok((name.to_owned(), tests))
}

/// Names of the functions that a `#[test]` (or `#[test_case…]`, `#[tokio::test…]`) stands before.
fn test_functions(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut armed = false;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("#[test") || line.starts_with("#[tokio::test") {
            armed = true;
        }
        let Some((_, rest)) = line.split_once("fn ") else { continue };
        if armed && !line.starts_with("//") {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            names.push(rest.get(..end).unwrap_or_default());
            armed = false;
        }
    }
    names
}

/// The directory of the package that a file belongs to.
fn package_dir(workspace: &Workspace, file: &Path) -> PathBuf {
    file.ancestors()
        .skip(1)
        .find(|dir| !dir.as_os_str().is_empty() && workspace.path(dir).join("Cargo.toml").is_file())
        .unwrap_or_else(|| Path::new(""))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::{in_text, test_functions};
    use std::path::Path;

    #[test]
    fn a_guard_is_its_comment_and_the_statement_below() {
        let text = "fn f() {\n    // GUARD: mac-checked -> forged_mac, session::replayed\n    // Constant time.\n    \
                    if a != b {\n        return Err(E);\n    }\n    Ok(())\n}\n";
        let guards = in_text(Path::new("a.rs"), text).unwrap();
        let [guard] = guards.as_slice() else { panic!("one guard expected, found {}", guards.len()) };
        assert_eq!(guard.name, "mac-checked");
        assert_eq!(guard.tests, ["forged_mac", "session::replayed"]);
        assert_eq!(guard.line, 2);
        assert_eq!(&text[guard.statement.clone()], "if a != b {\n        return Err(E);\n    }");
    }

    #[test]
    fn broken_comments_are_named_with_their_place() {
        for (comment, expected) in [
            ("// GUARD: no-arrow", "expected `// GUARD: <name> -> <test>`"),
            ("// GUARD: Upper -> t", "guard name `Upper`"),
            ("// GUARD: a -> b c", "`b c` is not the name of a test"),
            ("// GUARD: a -> ", "`` is not the name of a test"),
        ] {
            let error = in_text(Path::new("a.rs"), &format!("\n{comment}\nf()?;\n")).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.starts_with("a.rs:2: ") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn tests_are_functions_below_a_test_attribute() {
        let text = "#[test]\nfn one() {}\nfn not_one() {}\n#[test]\n#[should_panic]\npub async fn two() {}\n\
            #[tokio::test]\nasync fn three() {}\n";
        assert_eq!(test_functions(text), ["one", "two", "three"]);
    }
}
