//! `guest`: the emulated TEE at the paths where a kernel shows a real one, in a virtual machine that exists for tests.
//!
//! configfs-tsm lies over the kernel's own, which has no provider here; files that sysfs does not have are put beside
//! those that it has; the driver's node is a real character device.

mod places;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ValueEnum;
use fuser::BackgroundSession;
use nix::sys::signal::Signal;
use rustix::fs::statfs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::faults::Faults;
use crate::launch::TeeKind;
use crate::log;
use crate::serve::{self, termination_signals};
use crate::state::{State, now};
use crate::tee::Tee;
use crate::{cuse, drivers};
use places::Places;

const CONFIGFS: &str = "/sys/kernel/config";
const CONFIGFS_MAGIC: i64 = 0x6265_6570;
const REPORTS: &str = "kernel/config/tsm/report";
const NODES: [&str; 2] = ["/dev/sev-guest", "/dev/tdx_guest"];
/// Runtime log of the attestation agent: a boot begins without.
const RUN: &str = "/run/attestation-agent";

/// A part of the platform that can be left away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Reports by configfs (Linux 6.7).
    ConfigfsTsm,
    /// Measurement files of TDX (Linux 6.16).
    Measurements,
    /// The event log of the firmware.
    EventLog,
    /// The node of the guest driver.
    Device,
}

/// How to run the TEE of this machine. `serve.root` is where its files are mounted before they are put to their places.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) serve: serve::Options,
    pub(crate) fault_plan: Option<PathBuf>,
    pub(crate) without: Vec<Part>,
    /// Made when the guest is ready, and again when a new fault plan holds.
    pub(crate) ready_file: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT; at SIGHUP the fault plan is read anew.
pub(crate) fn guest(options: &Options) -> anyhow::Result<()> {
    let mut signals = termination_signals();
    signals.add(Signal::SIGHUP);
    // Before any thread is started: threads inherit the mask.
    signals.thread_block().context("signals")?;
    serve::announce(&options.serve);
    refuse_beside_a_tee()?;
    let tee = launch(&options.serve)?;
    if Path::new(RUN).is_dir() {
        serve::empty(Path::new(RUN))?;
    }
    let (places, session) = show(options, &tee)?;
    if !options.without.contains(&Part::Device) {
        make_node(&tee)?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "ready").and_then(|()| out.flush()).context("standard output")?;
    loop {
        if let Some(path) = &options.ready_file {
            fs::write(path, b"ready\n").with_context(|| path.display().to_string())?;
        }
        if signals.wait().context("signals")? != Signal::SIGHUP {
            break;
        }
        if let Some(path) = &options.fault_plan {
            options.serve.faults.replace(Faults::read(path)?);
        }
    }
    drop(places);
    drop(session);
    Ok(())
}

/// Collateral is written where it is asked for and nowhere else: an emulated processor takes a while for each signature.
fn launch(options: &serve::Options) -> anyhow::Result<Arc<Tee>> {
    let now = now()?;
    let state = State::open(&options.state)?;
    if let Some(out) = &options.collateral_out {
        state.write_own_collateral(&options.launch, now, out)?;
    }
    Ok(Arc::new(Tee::launch(&state, &options.launch, Arc::clone(&options.faults), now)?))
}

/// A machine that has a TEE keeps it.
fn refuse_beside_a_tee() -> anyhow::Result<()> {
    let node = NODES.into_iter().find(|node| Path::new(node).exists());
    let probe = Path::new("/sys").join(REPORTS).join("innerkeep-tee-emulator");
    let provider = fs::create_dir(&probe).is_ok() && {
        let found = probe.join("provider").exists();
        let _ = fs::remove_dir(&probe);
        found
    };
    // GUARD: tee-guest-beside-none -> a_machine_with_a_tee_keeps_it
    if node.is_some() || provider {
        bail!(
            "{}: expected a machine without a TEE, found one",
            node.unwrap_or("/sys/kernel/config/tsm/report")
        );
    }
    Ok(())
}

/// Puts all files to their places.
fn show(options: &Options, tee: &Arc<Tee>) -> anyhow::Result<(Places, BackgroundSession)> {
    let staging = options.serve.root.join("sys");
    serve::make_directory(&staging)?;
    let (staging, session) = serve::mount(Arc::clone(tee), staging)?;
    // From here on the files hold on to their places, and this one can go.
    let placed = place(options, &staging);
    unmount(&staging, UnmountFlags::DETACH).with_context(|| staging.display().to_string())?;
    Ok((placed?, session))
}

fn place(options: &Options, staging: &Path) -> anyhow::Result<Places> {
    let wanted = |part| !options.without.contains(&part);
    let mut paths = Vec::new();
    if wanted(Part::ConfigfsTsm) {
        mount_configfs()?;
        let reports = Path::new("/sys").join(REPORTS);
        if !reports.is_dir() {
            bail!("{}: load the kernel modules configfs and tsm_report", reports.display());
        }
        paths.push(REPORTS);
    }
    match options.serve.launch.tee {
        TeeKind::Snp => paths.extend(["devices/platform/sev-guest", "devices/virtual/misc/sev-guest"]),
        TeeKind::Tdx => {
            if wanted(Part::Measurements) {
                paths.push("devices/virtual/misc/tdx_guest");
            }
            if wanted(Part::EventLog) {
                paths.extend(["firmware/acpi/tables/data/CCEL", "firmware/acpi/tables/CCEL"]);
            }
        }
    }
    let mut places = Places::default();
    for path in paths {
        places.put(&staging.join(path), &Path::new("/sys").join(path))?;
    }
    places.close()?;
    Ok(places)
}

fn mount_configfs() -> anyhow::Result<()> {
    if Path::new("/sys").join(REPORTS).is_dir() {
        return Ok(());
    }
    let missing = || format!("{CONFIGFS}: load the kernel modules configfs and tsm_report");
    let found = statfs(CONFIGFS).with_context(missing)?;
    if found.f_type == CONFIGFS_MAGIC {
        return Ok(());
    }
    let flags = MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
    mount("configfs", CONFIGFS, "configfs", flags, None).with_context(missing)
}

fn make_node(tee: &Arc<Tee>) -> anyhow::Result<()> {
    match tee.kind() {
        TeeKind::Snp => cuse::serve("sev-guest", drivers::SevGuest(Arc::clone(tee)))?,
        TeeKind::Tdx => cuse::serve("tdx_guest", drivers::TdxGuest(Arc::clone(tee)))?,
    }
    log::note("the node of the guest driver is there");
    Ok(())
}
