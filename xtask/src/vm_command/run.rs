//! `cargo xtask vm run -- CMD…`.

use super::Ended;
use crate::shell::Workspace;
use anyhow::Context;
use clap::Args;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xtask::vm::wire::Exec;
use xtask::vm::{self, Expired, Spec, Stdin, Tools};

/// Boot a guest, run a command inside, stream its output and end with its status.
///
/// The guest has busybox, `innerkeep` and the other programs of the project in /bin, `/out` if asked for, and nothing else. Status 124: the time is
/// over; 125: the guest failed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A file to take along, as HOST:GUEST; a directory with all that is in it.
    #[arg(long, value_name = "HOST:GUEST")]
    file: Vec<String>,
    /// A directory of the host, mounted on /out and shared with the guest.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A chip: a vfio-user socket. In the guest it is a PCI device behind the IOMMU.
    #[arg(long, value_name = "SOCKET")]
    chip: Vec<PathBuf>,
    /// A raw disk image, /dev/vda and so on.
    #[arg(long, value_name = "IMAGE")]
    disk: Vec<PathBuf>,
    /// A vsock device.
    #[arg(long)]
    vsock: bool,
    /// A kernel module, with what it needs.
    #[arg(long, value_name = "NAME")]
    module: Vec<String>,
    /// Words for the kernel's command line.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// Memory.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u32,
    /// Processors.
    #[arg(long, value_name = "N", default_value_t = 2)]
    cpus: u32,
    /// The longest the command may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// Where the serial log is kept.
    #[arg(long, value_name = "FILE")]
    serial: Option<PathBuf>,
    /// Use guest programs that are already built.
    #[arg(long)]
    no_build: bool,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What a guest may take until its command starts, and after it.
const BOOT: Duration = Duration::from_secs(120);

/// Runs the subcommand.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let tools = Tools::obtain(&super::say)?;
    let programs = if arguments.no_build {
        vm::Programs::beside(&workspace.ci_bin_dir())
    } else {
        super::say("building the guest's programs …");
        vm::build(workspace, &[])?
    };
    let mut spec = Spec::new(programs).memory_mib(arguments.memory).cpus(arguments.cpus);
    for program in vm::GuestProgram::ALL.iter().filter(|program| program.name != "vm-init") {
        spec = spec.program(program.name)?;
    }
    for pair in &arguments.file {
        let (host, guest) =
            pair.split_once(':').with_context(|| format!("--file {pair}: expected HOST:GUEST"))?;
        let host = PathBuf::from(host);
        let mode = if is_executable(&host)? { 0o755 } else { 0o644 };
        spec = if host.is_dir() { spec.copy_directory(&host, guest)? } else { spec.copy(&host, guest, mode) };
    }
    for chip in &arguments.chip {
        spec = spec.chip(chip, None);
    }
    for disk in &arguments.disk {
        spec = spec.disk(disk);
    }
    if let Some(directory) = &arguments.out {
        spec = spec.share(directory);
    }
    if arguments.vsock {
        spec = spec.vsock();
    }
    if let Some(words) = &arguments.cmdline {
        spec = spec.cmdline(words);
    }
    if let Some(serial) = &arguments.serial {
        spec = spec.keep_serial(serial);
    }
    let modules: Vec<&str> = arguments.module.iter().map(String::as_str).collect();
    let timeout = Duration::from_secs(arguments.timeout);
    let guest = match spec.modules(&modules).timeout(timeout + BOOT).boot(&tools) {
        Ok(guest) => guest,
        Err(error) => return Err(error.context(Ended(125))),
    };
    eprintln!(
        "guest up after {:.1} s (kernel {}, {:.1} s of them inside)",
        guest.boot.as_secs_f64(),
        guest.ready.kernel,
        guest.ready.uptime
    );
    let exec =
        Exec { argv: arguments.command.clone(), stdin: !std::io::stdin().is_terminal(), ..Exec::default() };
    let status = guest.spawn_with(&exec).and_then(|running| {
        if exec.stdin {
            let to = running.stdin();
            // Ends with the input, or with this program.
            std::thread::spawn(move || feed(&to));
        }
        running.stream(timeout, &mut |error, bytes| {
            let written =
                if error { std::io::stderr().write_all(bytes) } else { std::io::stdout().write_all(bytes) };
            let _ = written.and_then(|()| std::io::stdout().flush());
        })
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let ended = if error.is::<Expired>() { Ended(124) } else { Ended(125) };
            return Err(error.context(ended));
        }
    };
    let stalls = guest.vsock_stalls();
    if stalls > 0 {
        eprintln!("the back end of vsock reported {stalls} stalled connections");
    }
    guest.power_off().context(Ended(125))?;
    if status != 0 {
        return Err(Ended(u8::try_from(status).unwrap_or(255)).into());
    }
    Ok(())
}

fn feed(to: &Stdin) {
    let mut piece = vec![0; 64 << 10];
    let mut from = std::io::stdin().lock();
    loop {
        match from.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if to.write(piece.get(..count).unwrap_or_default()).is_err() {
                    return;
                }
            }
        }
    }
    let _ = to.close();
}

fn is_executable(path: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let found = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(found.permissions().mode() & 0o100 != 0)
}
