//! What handlers work on: one agent, its parts, and where the system's trees are.

use std::path::PathBuf;
use std::sync::Arc;

use attestation_agent::Attester;
use initdata::Initdata;
use policy_engine::audit::Audit;

use crate::cgroup::OomEvents;
use crate::containers::Containers;
use crate::copy::Copies;
use crate::engine::Engine;
use crate::error::AgentError;
use crate::gate::Gate;
use crate::hotplug::Hotplug;
use crate::hub::DataHub;
use crate::log::Log;
use crate::machine::Machine;
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::network::Network;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::sealed::{self, Askers, Sealed, Secrets};
use crate::server::Stopper;
use crate::storage::Storages;
use crate::streams::{Passfd, PipeSize};
use crate::swap::Swap;
use crate::volume::Volumes;

/// Where the system's trees are. Tests have theirs in a directory of their own.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    /// What runtimes know: bundles, shared files, mounts of storages. `/run/kata-containers`.
    pub(crate) run: PathBuf,
    /// What nobody but the agent knows. `/run/innerkeep`.
    pub(crate) own: PathBuf,
    /// `/proc`.
    pub(crate) proc: PathBuf,
    /// `/sys`.
    pub(crate) sys: PathBuf,
    /// `/dev`.
    pub(crate) dev: PathBuf,
    /// `/etc`.
    pub(crate) etc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub(crate) cgroup: PathBuf,
}

impl Roots {
    /// Those of the system.
    pub(crate) fn system() -> Self {
        Self {
            run: "/run/kata-containers".into(),
            own: "/run/innerkeep".into(),
            proc: "/proc".into(),
            sys: "/sys".into(),
            dev: "/dev".into(),
            etc: "/etc".into(),
            cgroup: "/sys/fs/cgroup".into(),
        }
    }

    /// The same below a directory.
    #[cfg(test)]
    pub(crate) fn below(directory: &std::path::Path) -> Self {
        let at = |path: &str| directory.join(path);
        Self {
            run: at("run/kata-containers"),
            own: at("run/innerkeep"),
            proc: at("proc"),
            sys: at("sys"),
            dev: at("dev"),
            etc: at("etc"),
            cgroup: at("sys/fs/cgroup"),
        }
    }

    /// Where host and guest share files: virtio-fs, or CopyFile.
    pub(crate) fn shared(&self) -> PathBuf {
        self.run.join("shared/containers")
    }
}

/// The agent. Its parts have locks of their own.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) log: Log,
    pub(crate) roots: Roots,
    /// Whether this is a confidential guest.
    pub(crate) tee_active: bool,
    pub(crate) gate: Gate,
    /// What the gate decided.
    pub(crate) audit: Arc<Audit>,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) engine: Engine,
    pub(crate) sandbox: Sandbox,
    pub(crate) containers: Containers,
    pub(crate) network: Network,
    pub(crate) machine: Machine,
    pub(crate) sealed: Sealed,
    /// The data hub of this process, and what containers get by it.
    pub(crate) secrets: Secrets,
    /// Containers, as the REST front knows them.
    pub(crate) askers: Askers,
    pub(crate) metrics: Metrics,
    /// Which verified roots are in the runtime log.
    pub(crate) measured: Measured,
    /// Containers that ran out of memory.
    pub(crate) oom: OomEvents,
    /// Where the host connects streams to; `None` if there is no such port.
    pub(crate) passfd: Option<Passfd>,
    /// How much the pipes of processes hold.
    pub(crate) pipe_size: PipeSize,
    pub(crate) hotplug: Hotplug,
    pub(crate) storages: Storages,
    pub(crate) copies: Copies,
    pub(crate) swap: Swap,
    pub(crate) volumes: Volumes,
    /// Ends the agent.
    pub(crate) stopper: Stopper,
}

/// What an agent is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) log: Log,
    pub(crate) roots: Roots,
    pub(crate) tee_active: bool,
    pub(crate) initdata: Option<Initdata>,
    pub(crate) attester: Option<Arc<Attester>>,
    pub(crate) audit: Audit,
    pub(crate) reaper: Arc<Reaper>,
    pub(crate) engine: Engine,
    pub(crate) oom: OomEvents,
    pub(crate) passfd: Option<Passfd>,
    pub(crate) pipe_size: PipeSize,
    pub(crate) hotplug: Hotplug,
    pub(crate) stopper: Stopper,
}

impl Agent {
    /// Puts it together. Its gate has no policy yet.
    ///
    /// # Errors
    /// `cdh.toml` of bound initdata is refused.
    pub(crate) fn new(parts: Parts) -> Result<Self, AgentError> {
        let Parts {
            log,
            roots,
            tee_active,
            initdata,
            attester,
            audit,
            reaper,
            engine,
            oom,
            passfd,
            pipe_size,
            hotplug,
            stopper,
        } = parts;
        let audit = Arc::new(audit);
        let settings = initdata.as_ref().map(|initdata| initdata.document().settings());
        // In a confidential guest the host replaces no policy but by a text that the operator listed.
        let replacements = tee_active.then(|| settings.map(|s| s.set_policy.clone()).unwrap_or_default());
        let machine = Machine::new(&roots.sys, &roots.dev, tee_active);
        let shared = sealed::shared(&roots);
        let (bound, workers) = (initdata.as_ref(), engine.workers());
        let hub = DataHub::open(bound, attester.as_ref(), machine.dated(), &audit, &shared, workers)?;
        let sealed = Sealed::new(initdata.as_ref(), &roots, &hub, shared, &log);
        let secrets = Secrets::new(hub, &sealed);
        let entries = settings.map(|settings| settings.rest.iter().map(|entry| entry.container.clone()));
        let entries = entries.into_iter().flatten().collect();
        Ok(Self {
            gate: Gate::new(replacements, Arc::clone(&audit), &log),
            audit,
            engine,
            sandbox: Sandbox::default(),
            containers: Containers::default(),
            network: Network::new(&roots.proc),
            machine,
            askers: Askers::new(&secrets, entries),
            secrets,
            sealed,
            metrics: Metrics::default(),
            measured: Measured::new(attester),
            oom,
            passfd,
            pipe_size,
            storages: Storages::new(&roots.run, &roots.sys, &roots.dev, Arc::clone(&reaper), &log),
            copies: Copies::into_directory(roots.shared()),
            swap: Swap::default(),
            volumes: Volumes::below(&roots.run, tee_active),
            hotplug,
            log,
            roots,
            tee_active,
            reaper,
            stopper,
        })
    }

    /// One whose trees lie below a directory, without a policy. Has to be called inside a runtime.
    #[cfg(test)]
    pub(crate) fn for_test(directory: &std::path::Path, tee_active: bool) -> Self {
        let audit = Audit::start(policy_engine::audit::Facts::default(), None);
        Self::for_test_with(directory, tee_active, audit.expect("an audit"))
    }

    /// The same with an audit that somebody can read.
    #[cfg(test)]
    pub(crate) fn for_test_with(directory: &std::path::Path, tee_active: bool, audit: Audit) -> Self {
        let log = Log::console();
        log.set_level(crate::log::Level::Critical);
        let (stopper, _) = Stopper::new();
        let reaper = Reaper::start(&log).map(Arc::new).expect("a reaper");
        let roots = Roots::below(directory);
        Self::new(Parts {
            engine: Engine::unavailable(Arc::clone(&reaper), &log),
            reaper,
            oom: OomEvents::start(&log).expect("events of memory"),
            hotplug: Hotplug::looking(&roots.sys, &roots.dev, std::time::Duration::ZERO),
            roots,
            log,
            tee_active,
            initdata: None,
            attester: None,
            passfd: None,
            pipe_size: PipeSize::default(),
            audit,
            stopper,
        })
        .expect("an agent")
    }
}
