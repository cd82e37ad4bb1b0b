//! The landing and demo tests once more as `nobody`: a laptop user has no root, and the product must not need it.

use super::TestProgram;
use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test whose name contains one of these runs without root too.
const NAMES: &[&str] = &["landing", "demo", "unseal", "unprivileged"];

/// Programs that boot guests run everything inside as root, and QEMU out of a cache that `nobody` has not.
const GUESTS: &str = "vm_";

/// `nobody` and `nogroup` of Debian; the numbers that every Linux leaves without rights.
const NOBODY: u32 = 65534;

/// Runs the matching tests of every test program as `nobody`.
pub fn run(workspace: &Workspace, programs: &[TestProgram]) -> anyhow::Result<()> {
    if !shell::is_root() {
        eprintln!("not run: this user is unprivileged, the workspace tests below are the same run");
        return Ok(());
    }
    let home = TemporaryHome::make()?;
    let hidden = hidden_ancestor(workspace.root())?;
    let (mut ran, mut failed) = (0, Vec::new());
    for program in programs.iter().filter(|program| !program.target.name.starts_with(GUESTS)) {
        for test in matching(program)? {
            ran += 1;
            let mut command = enter(workspace, hidden.as_deref(), &program.package_dir);
            command.arg(&program.executable).args(["--exact", &test]);
            command.env("TMPDIR", &home.0).env("HOME", &home.0).env_remove("XDG_CACHE_HOME");
            command.env_remove("XDG_RUNTIME_DIR").env("CARGO_MANIFEST_DIR", &program.package_dir);
            // One process a test, as nextest does it: tests may confine their own process.
            let output = command.stdin(Stdio::null()).output().context("start a test as nobody")?;
            if !output.status.success() {
                eprintln!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
                failed.push(format!("{} {test}", program.target.name));
            }
        }
    }
    eprintln!("{ran} tests (names with {NAMES:?}) as uid {NOBODY}, {} failed", failed.len());
    if !failed.is_empty() {
        bail!("tests fail as uid {NOBODY}:\n  {}", failed.join("\n  "));
    }
    Ok(())
}

/// Full names of the program's tests that match.
fn matching(program: &TestProgram) -> anyhow::Result<Vec<String>> {
    let mut list = Command::new(&program.executable);
    list.args(["--list", "--format", "terse"]).args(NAMES).current_dir(&program.package_dir);
    let text = shell::output(&mut list)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// A command prefix that becomes `nobody` in `dir`, with the source tree readable whatever lies above it, and with `/dev/fuse` open to
/// everybody, as it is on Debian: in a container it may be root's alone.
fn enter(workspace: &Workspace, hidden: Option<&Path>, dir: &Path) -> Command {
    let mut command = workspace.command("unshare");
    // In a private mount namespace a closed directory is an empty open one with the tree bound into it, and so is the device's node.
    command.args(["--mount", "--propagation", "private", "--", "sh", "-euc"]).arg(
        "umask 022; root=$1 hidden=$2 dir=$3; shift 3; aside=$(mktemp -d /run/innerkeep-XXXXXX); \
         if [ -n \"$hidden\" ]; then \
         mount --bind \"$root\" \"$aside\"; mount -t tmpfs -o mode=755 tmpfs \"$hidden\"; \
         mkdir -p \"$root\"; mount --bind \"$aside\" \"$root\"; umount \"$aside\"; fi; \
         if [ -c /dev/fuse ]; then mount -t tmpfs -o mode=755 tmpfs \"$aside\"; mknod -m 666 \"$aside/fuse\" c 10 229; \
         mount --bind \"$aside/fuse\" /dev/fuse; umount \"$aside\"; fi; rmdir \"$aside\"; \
         cd \"$dir\"; exec \"$@\"",
    );
    command.arg("sh").arg(workspace.root()).arg(hidden.unwrap_or(Path::new(""))).arg(dir);
    let nobody = NOBODY.to_string();
    command.args(["setpriv", "--reuid", &nobody, "--regid", &nobody, "--clear-groups", "--"]);
    command
}

/// The topmost directory above the tree that others may not enter.
fn hidden_ancestor(root: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut ancestors: Vec<&Path> = root.ancestors().collect();
    ancestors.reverse();
    for directory in ancestors {
        let metadata = directory.metadata().with_context(|| format!("look at {}", directory.display()))?;
        if metadata.mode() & 0o005 != 0o005 {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

/// A directory that belongs to `nobody` and goes away with this value.
struct TemporaryHome(PathBuf);

impl TemporaryHome {
    fn make() -> anyhow::Result<Self> {
        let dir = Path::new("/tmp").join(format!("innerkeep-nobody-{}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        let home = Self(dir);
        chown(&home.0, Some(NOBODY), Some(NOBODY)).context("hand the directory to nobody")?;
        Ok(home)
    }
}

impl Drop for TemporaryHome {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
