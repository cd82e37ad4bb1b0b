//! From bound configuration to an agent that can be asked: policy, files for guest components, parts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use attestation_agent::Attester;
use initdata::Initdata;
use policy_engine::{Limits, Policy, PolicyError};
use rustix::fs::{OFlags, fstatfs, major, minor};

use crate::audit;
use crate::cgroup::OomEvents;
use crate::context::{Agent, Parts, Roots};
use crate::engine::{Engine, Places};
use crate::error::AgentError;
use crate::hotplug::Hotplug;
use crate::log::{Key, Log};
use crate::reaper::Reaper;
use crate::server::Stopper;
use crate::streams::{Passfd, PipeSize};
use crate::zygote::Nursery;

const SUBSYSTEM: &str = "start";
/// The policy of the image, where upstream has it.
const IMAGE_POLICY: &str = "/etc/kata-opa/default-policy.rego";
/// Longest policy text, as the engine's own cap.
const MAXIMUM_POLICY_BYTES: u64 = 16 << 20;
/// That of a program's first thread.
const COMPILER_STACK: usize = 8 << 20;
/// Where guest components of upstream look for their files.
const GUEST_FILES: &str = "/run/confidential-containers/initdata";
/// An initramfs is one of these (`linux/magic.h`).
const RAMFS_MAGIC: u64 = 0x8584_58F6;
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// What the kernel calls a dm-verity device in `dm/uuid`.
const VERITY: &str = "CRYPT-VERITY-";

/// What the agent starts with, beside bound configuration.
#[derive(Debug, Default)]
pub(crate) struct Choices<'a> {
    /// Insecure modes that are on.
    pub(crate) modes: &'a [&'static str],
    /// What gives evidence; without it there is no data hub.
    pub(crate) attester: Option<Arc<Attester>>,
    /// The policy; without one every request is denied.
    pub(crate) policy: Option<Compiling>,
    /// The port where the host connects them; 0 is none.
    pub(crate) passfd_port: u32,
    /// How much pipes hold.
    pub(crate) pipe_size: PipeSize,
}

/// A policy that is compiled while the rest of the agent starts. Nothing is asked of it before it is whole.
#[derive(Debug)]
pub(crate) struct Compiling {
    origin: &'static str,
    policy: JoinHandle<Result<Policy, PolicyError>>,
}

impl Compiling {
    /// Begins with the policy of bound configuration, of the command line (outside a TEE), or of the image, in this order.
    pub(crate) fn begin(
        tee_active: bool,
        initdata: Option<&Initdata>,
        argument: Option<&Path>,
    ) -> Result<Option<Self>, AgentError> {
        let bound = initdata.and_then(|initdata| initdata.document().policy()).map(str::to_owned);
        let (text, origin) = match (bound, argument) {
            (Some(text), _) => (Some(text), "initdata"),
            (None, Some(path)) => (Some(read_policy(&open(path)?, path)?), "argument"),
            (None, None) => (image_policy(Path::new(IMAGE_POLICY), tee_active)?, "image"),
        };
        let Some(text) = text else { return Ok(None) };
        let thread = thread::Builder::new().name("compile".to_owned()).stack_size(COMPILER_STACK);
        let policy = thread.spawn(move || Policy::load(&text, &Limits::default()));
        let policy = policy.map_err(AgentError::system("start the thread that compiles the policy"))?;
        Ok(Some(Self { origin, policy }))
    }

    fn wait(self) -> Result<Policy, AgentError> {
        Ok(self.policy.join().unwrap_or_else(|panic| resume_unwind(panic))?)
    }
}

impl Choices<'_> {
    fn listen(&self, log: &Log) -> Result<Option<Passfd>, AgentError> {
        if self.passfd_port == 0 {
            return Ok(None);
        }
        let listening = Passfd::listen(self.passfd_port, log);
        let failed = |error| AgentError::system("listen for streams")(io::Error::other(error));
        listening.map(Some).map_err(failed)
    }
}

/// Puts the agent together. Without a policy its gate denies everything but reading what was denied.
pub(crate) fn agent(
    log: &Log,
    tee_active: bool,
    initdata: Option<Initdata>,
    reaper: Arc<Reaper>,
    engine: Engine,
    choices: Choices<'_>,
    stopper: Stopper,
) -> Result<Arc<Agent>, AgentError> {
    let roots = Roots::system();
    let parts = Parts {
        engine,
        oom: OomEvents::start(log).map_err(AgentError::system("watch the memory of containers"))?,
        passfd: choices.listen(log)?,
        pipe_size: choices.pipe_size,
        log: log.clone(),
        hotplug: Hotplug::start(&roots.sys, &roots.dev, log)?,
        roots,
        tee_active,
        audit: audit::begin(initdata.as_ref(), choices.modes)?,
        initdata,
        attester: choices.attester.clone(),
        reaper,
        stopper,
    };
    let agent = Agent::new(parts)?;
    // Before anything is held against it: certificates, tokens.
    let begun = agent.machine.clock().begin();
    let failed = |error| AgentError::system("set a clock that is over")(io::Error::other(error));
    if begun.map_err(failed)? {
        log.warn(SUBSYSTEM, "the clock was before the release of this program, and is not any more", &[]);
    }
    match choices.policy {
        Some(compiling) => {
            let origin = compiling.origin;
            agent.gate.begin(compiling.wait()?);
            log.info(SUBSYSTEM, "policy in force", &[(Key::Origin, origin.into())]);
        }
        None => log.warn(SUBSYSTEM, "no policy: every request is denied", &[]),
    }
    // After the policy: what containers may have is landed when it is known which there may be.
    agent.sealed.start(&agent.audit)?;
    Ok(Arc::new(agent))
}

/// What makes containers. Without a nursery it makes none.
pub(crate) fn engine(
    nursery: Option<&Arc<Nursery>>,
    reaper: &Arc<Reaper>,
    log: &Log,
) -> Result<Engine, AgentError> {
    let Some(nursery) = nursery else { return Ok(Engine::unavailable(Arc::clone(reaper), log)) };
    let roots = Roots::system();
    let places = Places {
        state: roots.own.join("containers"),
        cgroup: roots.cgroup,
        sysctl: roots.proc.join("sys"),
        ..Places::default()
    };
    Ok(Engine::new(Arc::clone(nursery), Arc::clone(reaper), log, places)?)
}

/// Writes what guest components of upstream read, for root alone.
pub(crate) fn write_guest_files(initdata: &Initdata) -> Result<(), AgentError> {
    write_files(Path::new(GUEST_FILES), initdata)
}

fn write_files(directory: &Path, initdata: &Initdata) -> Result<(), AgentError> {
    let failed = |path: &Path| {
        let path = path.to_string_lossy().into_owned();
        move |source: io::Error| AgentError::Io { action: "write", path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    for (name, text) in initdata.guest_files() {
        let path = directory.join(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path).map_err(failed(&path))?;
        file.write_all(text.as_bytes()).map_err(failed(&path))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, AgentError> {
    // A pipe would be waited for.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags).open(path).map_err(AgentError::io("open", &path.to_string_lossy()))
}

fn read_policy(file: &File, path: &Path) -> Result<String, AgentError> {
    let mut text = String::new();
    let read = file.take(MAXIMUM_POLICY_BYTES + 1).read_to_string(&mut text);
    read.map_err(AgentError::io("read", &path.to_string_lossy()))?;
    Ok(text)
}

/// The policy of the image. In a confidential guest it counts only if the image is measured: an initramfs, or dm-verity.
fn image_policy(path: &Path, tee_active: bool) -> Result<Option<String>, AgentError> {
    let file = match open(path) {
        Ok(file) => file,
        Err(AgentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let measured = is_measured(&file).map_err(AgentError::io("look at", &path.to_string_lossy()))?;
    // GUARD: image-policy-measured -> evil_host_policy_on_a_disk
    if tee_active && !measured {
        return Err(AgentError::ImagePolicy { path: path.to_string_lossy().into_owned() });
    }
    read_policy(&file, path).map(Some)
}

/// Whether a file lies on the initramfs, or on a device that the kernel verifies.
pub(crate) fn is_measured(file: &File) -> io::Result<bool> {
    let magic = u64::try_from(fstatfs(file)?.f_type).unwrap_or_default();
    let device = file.metadata()?.dev();
    if matches!(magic, RAMFS_MAGIC | TMPFS_MAGIC) {
        return Ok(device == fs::metadata("/")?.dev());
    }
    let uuid = format!("/sys/dev/block/{}:{}/dm/uuid", major(device), minor(device));
    Ok(fs::read_to_string(uuid).is_ok_and(|uuid| uuid.starts_with(VERITY)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_policy_on_a_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.rego");
        assert!(image_policy(&path, true).unwrap().is_none());
        fs::write(&path, "package agent_policy\n").unwrap();
        assert_eq!(image_policy(&path, true).unwrap_err().code(), "AGENT_IMAGE_POLICY");
        assert_eq!(image_policy(&path, false).unwrap().as_deref(), Some("package agent_policy\n"));
    }

    #[test]
    fn guest_components_find_their_files() {
        let mut package = initdata::Package::new(initdata::Algorithm::Sha256);
        package.insert("aa.toml", "[token_configs]\n").unwrap();
        package.insert("policy.rego", "package agent_policy\n").unwrap();
        let packed = package.pack().unwrap();
        let unverified = initdata::Unverified::from_annotation(&packed.annotation()).unwrap();
        let initdata = unverified.insecure_unbound().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("initdata");
        write_files(&below, &initdata).unwrap();
        assert_eq!(fs::read_to_string(below.join("aa.toml")).unwrap(), "[token_configs]\n");
        assert_eq!(fs::read_to_string(below.join("initdata.toml")).unwrap(), initdata.text());
        assert_eq!(fs::metadata(below.join("aa.toml")).unwrap().mode() & 0o7777, 0o400);
        assert!(!below.join("cdh.toml").exists());
        // What lies there already is not the agent's.
        assert_eq!(write_files(&below, &initdata).unwrap_err().code(), "AGENT_IO");
    }
}
