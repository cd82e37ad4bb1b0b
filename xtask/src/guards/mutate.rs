//! Takes guards out of a copy of the tree and runs the tests that have to notice.

use super::scan::Guard;
use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How long one build or one run of tests may take. A test that hangs without its guard has noticed.
const LIMIT_SECONDS: &str = "900";

/// What `timeout` ends with when it had to stop the program.
const TIMED_OUT: i32 = 124;

/// What happened to one guard.
enum Outcome {
    Noticed(&'static str),
    Unnoticed,
    DoesNotCompile,
}

/// Removes each guard in turn; returns a line for each that went wrong.
pub fn run(workspace: &Workspace, guards: &[Guard]) -> anyhow::Result<Vec<String>> {
    let copy = Copy::make(workspace)?;
    shell::stage("named tests pass with all guards in place", || copy.baseline(guards))?;
    let mut problems = Vec::new();
    for (index, guard) in guards.iter().enumerate() {
        let verdict = match copy.without(guard)? {
            Outcome::Noticed(how) => format!("noticed ({how})"),
            Outcome::Unnoticed => {
                problems.push(format!("{}: {} still pass without it", place(guard), guard.tests.join(", ")));
                "NOT NOTICED".to_owned()
            }
            Outcome::DoesNotCompile => {
                problems.push(format!("{}: cannot be removed (the rest does not compile)", place(guard)));
                "CANNOT BE REMOVED".to_owned()
            }
        };
        println!("[{}/{}] {}: {verdict}", index + 1, guards.len(), guard.name);
    }
    Ok(problems)
}

fn place(guard: &Guard) -> String {
    format!("{} ({}:{})", guard.name, guard.file.display(), guard.line)
}

/// The text without the guard: its statement is still compiled, and never reached. (A name that is bound anew keeps its
/// old value.)
fn removed(text: &str, guard: &Guard) -> anyhow::Result<String> {
    let (before, rest) = text.split_at_checked(guard.statement.start).context("the file has changed")?;
    let (statement, after) =
        rest.split_at_checked(guard.statement.end - guard.statement.start).context("the file has changed")?;
    if statement.starts_with("let ") && !statement.starts_with("let _ ") {
        return Ok(format!("{before}{after}"));
    }
    Ok(format!("{before}if false {{ {statement} }}{after}"))
}

/// A copy of the sources with a build directory of its own, kept between runs.
struct Copy {
    tree: Workspace,
    target: PathBuf,
}

impl Copy {
    fn make(workspace: &Workspace) -> anyhow::Result<Self> {
        let dir = workspace.target_dir().join("guards");
        let copy = Self { tree: Workspace::at(dir.join("tree")), target: dir.join("target") };
        let files = workspace.source_files()?;
        for file in &files {
            let bytes = std::fs::read(workspace.path(file))?;
            write_if_changed(&copy.tree.path(file), &bytes)?;
        }
        remove_strangers(copy.tree.root(), copy.tree.root(), &files.into_iter().collect())?;
        copy.seed(workspace)?;
        Ok(copy)
    }

    /// Starts from what is already built: compiled dependencies are the same here and there.
    fn seed(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let built = workspace.ci_bin_dir();
        if self.target.exists() || !built.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.target)?;
        shell::run(
            workspace.command("cp").args(["--archive", "--reflink=auto"]).arg(&built).arg(&self.target),
        )
    }

    /// Without a change every named test exists and passes; else its failure would prove nothing.
    fn baseline(&self, guards: &[Guard]) -> anyhow::Result<()> {
        let packages = packages(guards);
        if !self.build(&packages, guards)? {
            bail!("the copy does not compile");
        }
        let tests: BTreeSet<String> = guards.iter().flat_map(|guard| guard.tests.clone()).collect();
        let tests: Vec<String> = tests.into_iter().collect();
        let found = self.full_names(&packages, &tests)?;
        for test in &tests {
            if !found.iter().any(|name| is_called(name, test)) {
                bail!("no test that runs is called `{test}`");
            }
        }
        if self.test(&packages, &tests)? != Some(0) {
            bail!("not all of these pass with all guards in place: {}", tests.join(", "));
        }
        Ok(())
    }

    fn without(&self, guard: &Guard) -> anyhow::Result<Outcome> {
        let file = self.tree.path(&guard.file);
        let original = std::fs::read_to_string(&file)?;
        std::fs::write(&file, removed(&original, guard)?)?;
        let outcome = self.observe(guard);
        std::fs::write(&file, original)?;
        outcome
    }

    fn observe(&self, guard: &Guard) -> anyhow::Result<Outcome> {
        let guards = std::slice::from_ref(guard);
        let packages = packages(guards);
        if !self.build(&packages, guards)? {
            return Ok(Outcome::DoesNotCompile);
        }
        Ok(match self.test(&packages, &guard.tests)? {
            Some(0) => Outcome::Unnoticed,
            Some(TIMED_OUT) => Outcome::Noticed("a test hangs"),
            _ => Outcome::Noticed("a test fails"),
        })
    }

    /// Builds tests, and the programs that end-to-end tests start; false when it does not compile.
    fn build(&self, packages: &BTreeSet<String>, guards: &[Guard]) -> anyhow::Result<bool> {
        let mut builds =
            vec![self.cargo(&["build", "--profile", "ci", "--bins", "--tests", "--quiet"], packages)];
        if guards.iter().any(|guard| guard.in_guest) {
            builds.push(self.cargo(&["xtask", "vm", "build"], &BTreeSet::new()));
        }
        for mut cargo in builds {
            if !cargo.status().with_context(|| format!("start {}", shell::shown(&cargo)))?.success() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The exit status of the named tests, all of them together.
    fn test(&self, packages: &BTreeSet<String>, tests: &[String]) -> anyhow::Result<Option<i32>> {
        let mut cargo = if shell::has_cargo_subcommand("nextest") {
            let mut cargo = self.confined(&["nextest", "run", "--cargo-profile", "ci"], packages);
            cargo.args(["--status-level", "none", "--final-status-level", "none", "-E", &filterset(tests)]);
            cargo
        } else {
            let mut cargo = self.confined(TEST, packages);
            cargo.args(["--", "--exact"]).args(self.full_names(packages, tests)?);
            cargo
        };
        cargo.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(cargo.status().with_context(|| format!("start {}", shell::shown(&cargo)))?.code())
    }

    /// Full names of the tests that are called so.
    fn full_names(&self, packages: &BTreeSet<String>, tests: &[String]) -> anyhow::Result<BTreeSet<String>> {
        let mut list = self.cargo(TEST, packages);
        list.args(["--", "--list", "--format", "terse"]);
        let listing = shell::output(&mut list)?;
        Ok(listing
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|name| tests.iter().any(|test| is_called(name, test)))
            .map(str::to_owned)
            .collect())
    }

    /// [`Self::cargo`] where nothing of this machine can be written but what tests and builds need.
    ///
    /// Without its guard a test may do what the guard is against, as root: one mounted `/etc` in its temporary
    /// directory, and the end of that directory was the end of `/etc`.
    fn confined(&self, arguments: &[&str], packages: &BTreeSet<String>) -> Command {
        let cargo = self.cargo(arguments, packages);
        if !rustix::process::geteuid().is_root() {
            return cargo;
        }
        let mut command = self.tree.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", CONFINE, "confine"]);
        command.arg(cargo.get_program()).args(cargo.get_args());
        command
            .env("CARGO_TARGET_DIR", &self.target)
            .env("WRITABLE", self.target.parent().unwrap_or(&self.target))
            .stdin(Stdio::null());
        command
    }

    /// Cargo in the copy, with a limit of time.
    fn cargo(&self, arguments: &[&str], packages: &BTreeSet<String>) -> Command {
        let mut command = self.tree.command("timeout");
        command.args(["--kill-after=10", LIMIT_SECONDS]);
        command.arg(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments);
        for package in packages {
            command.args(["-p", package]);
        }
        command.env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        command
    }
}

/// Makes the root file system read-only, in a mount namespace of its own, but for places of builds and tests. What is bound from it is
/// read-only, too.
const CONFINE: &str = r#"
for place in "$WRITABLE" "${TMPDIR:-/tmp}" /var/tmp /run "${CARGO_HOME:-$HOME/.cargo}" "$HOME/.cache"; do
    if [ -d "$place" ]; then mount --bind "$place" "$place"; fi
done
mount -o remount,bind,ro /
cd "$PWD"
exec "$@"
"#;

/// `cargo test` of everything but documentation. (`--bins` would also start programs that say they have no tests.)
const TEST: &[&str] = &["test", "--profile", "ci", "--tests", "--quiet"];

/// The tests by name, for nextest.
fn filterset(tests: &[String]) -> String {
    let each: Vec<String> = tests.iter().map(|test| format!("test(/(^|::){test}$/)")).collect();
    each.join(" | ")
}

/// Whether a test's full name is `test`, or ends with it as a path.
fn is_called(full: &str, test: &str) -> bool {
    full.strip_suffix(test).is_some_and(|before| before.is_empty() || before.ends_with("::"))
}

/// The packages whose programs end-to-end tests start.
const STARTED: [&str; 6] =
    ["agent", "attestation-agent", "cli", "chip-emulator", "tee-emulator", "key-broker-emulator"];

/// The packages to build for these guards: those with the tests, and the programs for end-to-end tests.
fn packages(guards: &[Guard]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for dir in guards.iter().flat_map(|guard| &guard.packages) {
        names.insert(package_name(dir));
    }
    if names.contains("tests") {
        names.extend(STARTED.map(str::to_owned));
    }
    names
}

/// Directory = package name, but for emulators, which carry theirs behind.
fn package_name(dir: &Path) -> String {
    let last = dir.file_name().unwrap_or_default().to_string_lossy();
    if dir.starts_with("emulators") { format!("{last}-emulator") } else { last.into_owned() }
}

/// Leaves files alone that are as they should be, so that cargo finds them unchanged.
fn write_if_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

/// Removes files of the copy that the sources no longer have.
fn remove_strangers(root: &Path, dir: &Path, files: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            remove_strangers(root, &path, files)?;
        } else if !files.contains(path.strip_prefix(root)?) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Guard, STARTED, filterset, is_called, package_name, packages, removed};
    use std::path::Path;

    #[test]
    fn a_removed_guard_is_unreachable_and_the_rest_is_as_it_was() {
        let text = "fn f() {\n    verify(x)?;\n    Ok(())\n}\n";
        let guard = Guard { statement: 13..24, ..Guard::default() };
        assert_eq!(removed(text, &guard).unwrap(), "fn f() {\n    if false { verify(x)?; }\n    Ok(())\n}\n");
    }

    #[test]
    fn a_name_that_is_bound_anew_keeps_its_value() {
        let guard = Guard { statement: 7..27, ..Guard::default() };
        assert_eq!(removed("{ f(); let x = x.filter(g); h(x) }", &guard).unwrap(), "{ f();  h(x) }");
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error() {
        let guard = Guard { statement: 13..24, ..Guard::default() };
        assert!(removed("short", &guard).is_err());
    }

    #[test]
    fn tests_are_called_by_whole_names() {
        assert!(is_called("session::tests::replay", "replay"));
        assert!(is_called("session::tests::replay", "tests::replay"));
        assert!(is_called("replay", "replay"));
        assert!(!is_called("session::no_replay", "replay"));
        assert_eq!(filterset(&["a".into(), "b::c".into()]), "test(/(^|::)a$/) | test(/(^|::)b::c$/)");
    }

    #[test]
    fn packages_are_named_after_their_directories() {
        assert_eq!(package_name(Path::new("chip-client")), "chip-client");
        assert_eq!(package_name(Path::new("emulators/chip")), "chip-emulator");
    }

    #[test]
    fn end_to_end_tests_come_with_the_programs_that_they_start() {
        let guards = |package: &str| [Guard { packages: [package.into()].into(), ..Guard::default() }];
        assert_eq!(packages(&guards("emulators/tee")), ["tee-emulator".to_owned()].into());
        let all = packages(&guards("tests"));
        assert!(STARTED.iter().chain(&["tests"]).all(|name| all.contains(*name)), "{all:?}");
    }
}
