//! `cargo xtask setup`: finds what demo, tests and benches need on a Debian-like machine.

use crate::shell::{self, Workspace};
use anyhow::{Context, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Find and install the system packages that demo and tests need.
///
/// Prints the commands first and asks. Installing needs root; looking does not. A `/dev/fuse` that only root may open is
/// opened for everybody, as Debian has it: demo and tests also run without root.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Install without asking (for CI).
    #[arg(long)]
    yes: bool,
    /// Also what only `cargo xtask bench` uses: the tools that landing is compared with.
    #[arg(long)]
    bench: bool,
}

/// One thing that has to be there, and the Debian packages that bring it.
struct Need {
    what: &'static str,
    packages: &'static [&'static str],
    present: fn() -> bool,
    only_bench: bool,
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C compiler and linker (aws-lc, every Rust program)",
        packages: &["build-essential"],
        present: || shell::has_program("cc") && shell::has_program("make"),
        only_bench: false,
    },
    Need {
        what: "Python 3 (second readers of the formats)",
        packages: &["python3"],
        present: || shell::has_program("python3"),
        only_bench: false,
    },
    Need {
        what: "Python's venv and ensurepip",
        packages: &["python3-venv"],
        present: || python_imports("venv, ensurepip"),
        only_bench: false,
    },
    Need { what: "git", packages: &["git"], present: || shell::has_program("git"), only_bench: false },
    Need {
        what: "setpriv and unshare (tests without root)",
        packages: &["util-linux"],
        present: || shell::has_program("setpriv") && shell::has_program("unshare"),
        only_bench: false,
    },
    Need {
        what: "ip (tests of the agent's network look from outside)",
        packages: &["iproute2"],
        present: || shell::has_program("ip"),
        only_bench: false,
    },
    Need {
        what: "iptables (packet filters of test guests)",
        packages: &["iptables"],
        present: || Path::new("/usr/sbin/xtables-nft-multi").is_file(),
        only_bench: false,
    },
    Need {
        what: "swtpm (tests of the TPM speak to a real TPM 2.0)",
        packages: &["swtpm"],
        present: || shell::has_program("swtpm"),
        only_bench: false,
    },
    Need {
        what: "xz and zstd (kernel and modules of test guests)",
        packages: &["xz-utils", "zstd"],
        present: || shell::has_program("xz") && shell::has_program("zstd"),
        only_bench: false,
    },
    Need {
        what: "mkfs.ext4 (disks of test guests)",
        packages: &["e2fsprogs"],
        present: || Path::new("/usr/sbin/mkfs.ext4").is_file(),
        only_bench: false,
    },
    Need {
        what: "mkfs.erofs (layers of test guests)",
        packages: &["erofs-utils"],
        present: || shell::has_program("mkfs.erofs"),
        only_bench: false,
    },
    Need {
        what: "cryptsetup (headers of volumes, held against it; it is in no guest)",
        packages: &["cryptsetup-bin"],
        present: || Path::new("/usr/sbin/cryptsetup").is_file(),
        only_bench: false,
    },
    Need {
        what: "Debian's archive keys (packages of test guests)",
        packages: &["debian-archive-keyring"],
        present: || Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").is_file(),
        only_bench: false,
    },
    Need {
        what: "docker-registry, skopeo and umoci (images of tests, and where they are pulled from)",
        packages: &["docker-registry", "skopeo", "umoci"],
        present: || ["docker-registry", "skopeo", "umoci"].into_iter().all(shell::has_program),
        only_bench: false,
    },
    Need {
        what: "openssl (certificates of test registries; what landing is compared with)",
        packages: &["openssl"],
        present: || shell::has_program("openssl"),
        only_bench: false,
    },
    Need { what: "age", packages: &["age"], present: || shell::has_program("age"), only_bench: true },
    Need { what: "gpg", packages: &["gnupg"], present: || shell::has_program("gpg"), only_bench: true },
];

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let mut packages = BTreeSet::new();
    for need in NEEDS.iter().filter(|need| arguments.bench || !need.only_bench) {
        let present = (need.present)();
        println!("{:>8}  {}", if present { "found" } else { "missing" }, need.what);
        if !present {
            packages.extend(need.packages);
        }
    }
    let fuse = fuse();
    println!("{:>8}  /dev/fuse that everybody may open (the emulated TEE)", fuse.name());
    optional_tools();
    if packages.is_empty() && fuse != Fuse::Closed {
        println!("nothing to install");
        return Ok(());
    }
    if !packages.is_empty() && !shell::has_program("apt-get") {
        bail!("no apt-get here: install the equivalents of {packages:?} with this system's package manager");
    }
    let mut install = if packages.is_empty() { Vec::new() } else { commands(workspace, &packages) };
    if fuse == Fuse::Closed {
        let mut open = workspace.command("chmod");
        open.args(["0666", FUSE]);
        install.push(open);
    }
    let prefix = if shell::is_root() { "" } else { "sudo " };
    println!("commands:");
    for command in &install {
        println!("    {prefix}{}", shell::shown(command).trim_matches('`'));
    }
    if !shell::is_root() {
        bail!("installing system packages needs root: run the commands above, then start again");
    }
    if !arguments.yes && !confirmed()? {
        bail!("not installed");
    }
    for mut command in install {
        shell::run(&mut command)?;
    }
    for need in NEEDS.iter().filter(|need| arguments.bench || !need.only_bench) {
        if !(need.present)() {
            bail!("still missing after the installation: {}", need.what);
        }
    }
    Ok(())
}

/// The device that the emulated TEE serves its files through.
const FUSE: &str = "/dev/fuse";

/// Who may open it. Debian's device manager makes it 0666; some containers do not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fuse {
    Absent,
    Closed,
    Open,
}

impl Fuse {
    fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Closed => "closed",
            Self::Open => "found",
        }
    }
}

fn fuse() -> Fuse {
    match std::fs::metadata(FUSE) {
        Ok(metadata) if metadata.permissions().mode() & 0o006 == 0o006 => Fuse::Open,
        Ok(_) => Fuse::Closed,
        Err(_) => Fuse::Absent,
    }
}

/// Tools of cargo that change how fast or how much is checked; nothing requires them.
fn optional_tools() {
    for (name, use_) in [
        ("nextest", "faster test runs; `cargo test` is used without it"),
        ("deny", "licences, bans and sources in `cargo xtask lint`"),
        ("fuzz", "`cargo xtask fuzz`, with a nightly toolchain"),
    ] {
        let state = if shell::has_cargo_subcommand(name) { "found" } else { "absent" };
        println!("{state:>8}  cargo-{name} (optional): {use_}");
    }
}

fn python_imports(modules: &str) -> bool {
    let mut python = Command::new("python3");
    python.args(["-c", &format!("import {modules}")]).stdin(Stdio::null());
    python.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn commands(workspace: &Workspace, packages: &BTreeSet<&str>) -> Vec<Command> {
    let mut update = workspace.command("apt-get");
    update.arg("update");
    let mut install = workspace.command("apt-get");
    install.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    for command in [&mut update, &mut install] {
        command.env("DEBIAN_FRONTEND", "noninteractive");
    }
    vec![update, install]
}

fn confirmed() -> anyhow::Result<bool> {
    print!("run them now? [y/N] ");
    std::io::stdout().flush().context("write the question")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
