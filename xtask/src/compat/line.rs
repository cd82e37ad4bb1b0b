//! One line of a test, and the test that it stands above.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

const MARK: &str = "COMPAT:";

/// How a method compares with upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// What upstream does.
    Same,
    /// Refuses what upstream lets through.
    Stricter,
    /// Does more than upstream of what it is for.
    Better,
    /// No test reaches it, for this reason.
    NotExercised,
}

impl Verdict {
    /// All of them with their words.
    const ALL: [(Self, &str); 4] = [
        (Self::Same, "same"),
        (Self::Stricter, "stricter"),
        (Self::Better, "better"),
        (Self::NotExercised, "not exercised"),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, word)| word)
    }
}

/// What a test says that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub methods: Vec<String>,
    pub verdict: Verdict,
    /// What differs, or what is the same; may be empty for the latter.
    pub text: String,
    /// The test, as the document names it.
    pub test: String,
    pub file: PathBuf,
}

/// Those of a file.
pub fn of_file(file: &Path, text: &str) -> anyhow::Result<Vec<Line>> {
    let is_python = file.extension().is_some_and(|kind| kind == "py");
    let comment = if is_python { "#" } else { "//" };
    let rows: Vec<&str> = text.lines().map(str::trim).collect();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let Some(said) = row.strip_prefix(comment).and_then(|row| row.trim_start().strip_prefix(MARK)) else {
            continue;
        };
        let place = || format!("{}:{}", file.display(), index + 1);
        let below = rows.get(index + 1..).unwrap_or_default();
        let name = if is_python { python_test(text, below) } else { rust_test(below) }.with_context(place)?;
        let (methods, verdict, text) = read(said).with_context(place)?;
        let test = match file.file_name().filter(|_| is_python) {
            Some(program) => format!("{}: {name}", program.to_string_lossy()),
            None => name.to_owned(),
        };
        lines.push(Line { methods, verdict, text, test, file: file.to_owned() });
    }
    Ok(lines)
}

/// Reads `Method, Method verdict: text`.
fn read(said: &str) -> anyhow::Result<(Vec<String>, Verdict, String)> {
    let (head, text) = said.split_once(": ").unwrap_or((said, ""));
    let found = Verdict::ALL.iter().find_map(|(verdict, word)| {
        let names = head.trim().strip_suffix(word)?;
        names.ends_with(' ').then_some((*verdict, names))
    });
    let (verdict, names) =
        found.context("expected `COMPAT: Method[, Method] same|stricter|better|not exercised[: text]`")?;
    let text = text.trim();
    ensure!(!text.is_empty() || verdict == Verdict::Same, "`{}` needs a text: what, or why", verdict.word());
    ensure!(!text.contains('|'), "a `|` would end the cell of the table");
    let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    Ok((names, verdict, text.to_owned()))
}

/// The test function below, with nothing but comments and attributes in between.
fn rust_test<'a>(below: &[&'a str]) -> anyhow::Result<&'a str> {
    let mut is_test = false;
    for row in below {
        if row.starts_with("#[test") || row.starts_with("#[tokio::test") {
            is_test = true;
        } else if !row.starts_with("//") && !row.starts_with("#[") {
            let Some((_, name)) = row.split_once("fn ").filter(|_| is_test) else { break };
            return Ok(identifier(name));
        }
    }
    bail!("expected a test below, with nothing but comments and attributes in between")
}

/// The function below, with nothing but comments in between, that the program also uses.
fn python_test<'a>(text: &str, below: &[&'a str]) -> anyhow::Result<&'a str> {
    let row = below.iter().find(|row| !row.starts_with('#')).copied().unwrap_or_default();
    let name = identifier(
        row.strip_prefix("def ")
            .context("expected a function below, with nothing but comments in between")?,
    );
    let is_identifier = |letter: char| letter.is_alphanumeric() || letter == '_';
    let uses = text.split(|letter| !is_identifier(letter)).filter(|word| *word == name).count();
    ensure!(uses > 1, "`{name}` is never run");
    Ok(name)
}

fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Result<Vec<String>, String> {
        let shown = |line: &Line| {
            let Line { methods, verdict, text, test, .. } = line;
            format!("{} {}: {text} <- {test}", methods.join("+"), verdict.word())
        };
        let lines = of_file(Path::new(file), text).map_err(|error| format!("{error:#}"))?;
        Ok(lines.iter().map(shown).collect())
    }

    #[test]
    fn a_line_belongs_to_the_test_below() {
        let text = "// COMPAT: A, B same\n// COMPAT: A stricter: only once: really\n/// Words.\n#[tokio::test(x)]\nasync fn a_b() {}\n";
        assert_eq!(
            found("a.rs", text).unwrap(),
            ["A+B same:  <- a_b", "A stricter: only once: really <- a_b"]
        );
        let text = "# COMPAT: C not exercised: no kernel has it\n# More.\ndef c_d(x: int) -> None:\n    pass\n\nc_d(1)\n";
        let expected = ["C not exercised: no kernel has it <- p.py: c_d"];
        assert_eq!(found("tests/compat/p.py", text).unwrap(), expected);
    }

    #[test]
    fn broken_lines_are_named_with_their_place() {
        for (file, text, expected) in [
            ("a.rs", "// COMPAT: A same\nfn a() {}\n", "a.rs:1: expected a test below"),
            ("a.rs", "\n// COMPAT: A same\n\n#[test]\nfn a() {}\n", "a.rs:2: expected a test below"),
            ("a.rs", "// COMPAT: A\n#[test]\nfn a() {}\n", "expected `COMPAT: Method"),
            ("a.rs", "// COMPAT: same\n#[test]\nfn a() {}\n", "expected `COMPAT: Method"),
            ("a.rs", "// COMPAT: A better\n#[test]\nfn a() {}\n", "`better` needs a text"),
            ("a.rs", "// COMPAT: A better: x | y\n#[test]\nfn a() {}\n", "would end the cell"),
            ("a.py", "# COMPAT: A same\ndef a():\n    pass\n", "`a` is never run"),
            ("a.py", "# COMPAT: A same\nx = 1\n", "expected a function below"),
        ] {
            let error = found(file, text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
