//! CreateContainer: [`Step`] by step, each with what takes it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdh::rest::peers::NAME;
use protocol::agent::CreateContainerRequest;
use protocol::ids::{AbsolutePath, ContainerId, ExecId, ValueError};
use protocol::oci;
use protocol::status::RpcError;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::cgroup::Cgroup;
use crate::containers::bundle::Bundle;
use crate::containers::steps::{Failure, Ground, Step, take_all};
use crate::containers::streams::Waiting;
use crate::containers::{Container, Parts, Process, unsupported};
use crate::context::Agent;
use crate::devices::{self, TRUSTED_STORE};
use crate::engine::{CreateOrder, Created, EngineError};
use crate::error::chain;
use crate::gate::Permitted;
use crate::log::{Key, Level, Value};
use crate::sealed::{SecretError, SecretFiles};
use crate::spec::visible::{self, Mounts};
use crate::spec::{self, Facts, Prepared, SpecError};
use crate::storage::{Added, Beside, Images, Permission, VerifiedRoot};
use crate::streams::{HostSockets, Ports};

const SUBSYSTEM: &str = "container";
/// How long an image is pulled for a caller who says nothing. Runtimes say how long they wait.
const PULL_PATIENCE: Duration = Duration::from_secs(600);

/// Makes a container, up to the point where its process waits to be started.
///
/// # Errors
/// Nothing is left then, or the id is a tombstone.
pub(crate) async fn create(
    agent: &Agent,
    request: Permitted<CreateContainerRequest>,
) -> Result<Arc<Container>, RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let exec = exec_id(&request.exec_id)?;
    let Some(specification) = request.OCI.as_ref() else {
        return Err(RpcError::Failed(
            "EINVAL",
            "CreateContainer: expected a specification, the host sent none".to_owned(),
        ));
    };
    unsupported::refuse(&request, agent.secrets.hub())?;
    let ports = Ports { stdin: request.stdin_port, stdout: request.stdout_port, stderr: request.stderr_port };
    let sockets = Waiting::sockets(agent, ports).await?;
    let reservation = agent.containers.reserve(&id)?;
    let mut draft = Draft {
        agent,
        request: &request,
        specification: specification.clone(),
        id,
        exec,
        sockets,
        left: false,
        bundle: None,
        storages: None,
        files: None,
        facts: None,
        prepared: None,
        waiting: None,
        created: None,
        made: false,
        container: None,
    };
    let failure = match (take_all(&mut draft, || request.is_late()).await, draft.container.take()) {
        (Ok(()), Some(container)) => {
            if let Some(added) = draft.storages.take() {
                added.keep();
            }
            agent.volumes.remember_log(container.id(), specification);
            reservation.commit(Arc::clone(&container));
            return Ok(container);
        }
        (Ok(()), None) => Failure { error: out_of_order(), left: Vec::new() },
        (Err(failure), _) if failure.left.is_empty() => {
            reservation.release();
            return Err(failure.error);
        }
        (Err(failure), _) => failure,
    };
    for (step, error) in &failure.left {
        let fields = [(Key::Step, step.name().into()), (Key::Error, Value::shown(&error.status().1))];
        agent.log.say(Level::Error, SUBSYSTEM, "a container that failed could not be taken back", &fields);
    }
    // Its id is a tombstone from here on.
    drop(reservation);
    Err(failure.error)
}

/// The id of the first process; runtimes give it the container's.
fn exec_id(id: &str) -> Result<Option<ExecId>, ValueError> {
    if id.is_empty() { Ok(None) } else { ExecId::parse(id).map(Some) }
}

/// A container that is being made.
struct Draft<'a> {
    agent: &'a Agent,
    request: &'a Permitted<CreateContainerRequest>,
    specification: oci::Spec,
    id: ContainerId,
    exec: Option<ExecId>,
    sockets: Option<HostSockets>,
    /// Something failed that says itself that it has left something.
    left: bool,
    bundle: Option<Arc<Bundle>>,
    storages: Option<Added>,
    /// Sealed files of its mounts.
    files: Option<SecretFiles>,
    facts: Option<Arc<Facts>>,
    prepared: Option<Prepared>,
    waiting: Option<Waiting>,
    created: Option<Created>,
    /// The engine has made it.
    made: bool,
    container: Option<Arc<Container>>,
}

impl Ground for Draft<'_> {
    async fn take(&mut self, step: Step) -> Result<(), RpcError> {
        match step {
            Step::Bundle => {
                let bundle = Bundle::make(&self.agent.roots.run, &self.id)?;
                self.bundle = Some(Arc::new(bundle));
                Ok(())
            }
            Step::Devices => {
                let Agent { hotplug, storages, .. } = self.agent;
                devices::apply(&self.request.devices, &mut self.specification, hotplug, storages).await?;
                Ok(())
            }
            Step::Storages => self.add_storages().await,
            Step::Secrets => self.find_sealed_files().await,
            Step::Sandbox => self.know_the_sandbox(),
            Step::Root => self.put_root().await,
            Step::Prepare => self.prepare().await,
            Step::Engine => self.engine().await,
            Step::Settle => self.settle(),
        }
    }

    async fn undo(&mut self, step: Step) -> Result<(), RpcError> {
        match step {
            Step::Bundle => match self.bundle.take() {
                Some(bundle) => blocking(move || bundle.remove().map_err(RpcError::from)).await,
                None => Ok(()),
            },
            Step::Devices | Step::Sandbox | Step::Prepare => Ok(()),
            Step::Storages => {
                let undone = match self.storages.take() {
                    Some(added) => added.undo().await.map_err(RpcError::from),
                    None => Ok(()),
                };
                undone.and_then(|()| self.nothing_left())
            }
            Step::Secrets => {
                self.files = None;
                Ok(())
            }
            Step::Root => match self.bundle.clone() {
                Some(bundle) => blocking(move || bundle.release_root().map_err(RpcError::from)).await,
                None => Ok(()),
            },
            Step::Engine => {
                (self.waiting, self.created, self.container) = (None, None, None);
                if std::mem::take(&mut self.made) {
                    self.agent.engine.delete(&self.id).await.map_err(engine_error)?;
                }
                self.nothing_left()
            }
            Step::Settle => {
                self.agent.sealed.release(&self.id);
                self.agent.secrets.release(&self.id);
                self.agent.askers.release(&self.id);
                Ok(self.agent.containers.pids().withdraw(&self.id, true)?)
            }
        }
    }
}

impl Draft<'_> {
    /// An error that says of itself that it left something counts when its step is undone.
    fn nothing_left(&mut self) -> Result<(), RpcError> {
        if std::mem::take(&mut self.left) {
            return Err(RpcError::Failed("CONTAINER_LEFT", "what failed has left something".to_owned()));
        }
        Ok(())
    }

    async fn add_storages(&mut self) -> Result<(), RpcError> {
        let Agent { storages, hotplug, .. } = self.agent;
        let images = self.images().await?;
        if let Some((pause, process)) = images.pause().zip(self.specification.Process.as_mut()) {
            pause.replace(process);
        }
        let store = trusted_store(&mut self.specification, &self.agent.roots.sys)?;
        let beside = Beside {
            store: store.as_deref(),
            images: Some(&images),
            unverified_layers: !self.agent.tee_active,
        };
        let id = Some(&self.id);
        match storages.add_with(&self.request.storages, id, hotplug, &beside).await {
            Ok(added) => {
                self.storages = Some(added);
                if let Some(root) = storages.verified_root(Path::new(&self.request.OCI.Root.Path), &self.id) {
                    // GUARD: root-measured -> sealed_artifacts_and_the_audit_of_a_guest
                    self.agent.measured.root(&root).await?;
                }
                Ok(())
            }
            Err(error) => {
                self.left = error.leaves_traces();
                Err(error.into())
            }
        }
    }

    /// The image that a storage asks for, before anything is mounted.
    async fn images(&self) -> Result<Images, RpcError> {
        let latest = Instant::now() + PULL_PATIENCE;
        let permission = Permission {
            hub: self.agent.secrets.hub(),
            annotations: &self.specification.Annotations,
            deadline: self.request.deadline().map_or(latest, |deadline| deadline.min(latest)),
            tee_active: self.agent.tee_active,
            log: &self.agent.log,
        };
        Ok(Images::obtain(&self.request.storages, &self.id, &permission).await?)
    }

    /// Where the storages of this container are.
    fn storage_places(&self) -> Vec<PathBuf> {
        let places = self.request.storages.iter().map(|storage| AbsolutePath::parse(&storage.mount_point));
        places.flatten().map(|place| place.as_path().to_owned()).collect()
    }

    /// Mounts with sealed files come from the guest's memory from here on. They are filled when the container is started.
    async fn find_sealed_files(&mut self) -> Result<(), RpcError> {
        let (shared, place) = (self.agent.roots.shared(), self.agent.roots.own.join("secrets"));
        let place = place.join(self.id.as_str());
        let mut mounts = std::mem::take(&mut self.specification.Mounts);
        let gathered = blocking(move || {
            let files = SecretFiles::gather(&mut mounts, &shared, &place);
            files.map(|files| (mounts, files)).map_err(|error| SecretError::from(error).into())
        });
        (self.specification.Mounts, self.files) = gathered.await?;
        if self.files.is_some() {
            let root = self.agent.storages.verified_root(Path::new(&self.request.OCI.Root.Path), &self.id);
            self.agent.secrets.require(&root.as_ref().map(VerifiedRoot::identities).unwrap_or_default())?;
        }
        Ok(())
    }

    fn know_the_sandbox(&mut self) -> Result<(), RpcError> {
        let (agent, bundle) = (self.agent, self.bundle()?);
        let facts = Facts::of_system(self.id.clone(), bundle.path().to_owned(), agent.tee_active);
        let mut facts = facts.map_err(|error| failed("list the devices of the guest", &error))?;
        facts.namespaces = agent.sandbox.namespaces();
        facts.hooks = agent.sandbox.hooks();
        facts.namespaces.pid = agent.containers.pids().of_container(self.request.sandbox_pidns)?;
        facts.storages = self.storage_places();
        facts.storages.extend(self.files.iter().map(|files| files.place().to_owned()));
        self.facts = Some(Arc::new(facts));
        Ok(())
    }

    async fn put_root(&self) -> Result<(), RpcError> {
        let (bundle, places) = (self.bundle()?, self.storage_places());
        let asked = self.specification.Root.Path.clone();
        // The host serves these files, and may let us wait.
        blocking(move || bundle.put_root(&asked, &places).map_err(RpcError::from)).await
    }

    async fn prepare(&mut self) -> Result<(), RpcError> {
        let facts = self.facts.clone().ok_or_else(out_of_order)?;
        let specification = std::mem::take(&mut self.specification);
        let prepared = blocking(move || spec::prepare(&specification, &facts).map_err(spec_error)).await?;
        self.prepared = Some(prepared);
        Ok(())
    }

    async fn engine(&mut self) -> Result<(), RpcError> {
        let prepared = self.prepared.clone().ok_or_else(out_of_order)?;
        let process = prepared.spec.process().as_ref().ok_or_else(out_of_order)?;
        let terminal = process.terminal() == Some(true);
        let (stdio, waiting) =
            Waiting::open(self.agent, terminal, process.user().uid(), self.sockets.take())?;
        let bundle = self.bundle()?.path().to_owned();
        let before = mounts_of(&self.agent.roots.proc, "self")?;
        let order = CreateOrder { id: self.id.clone(), bundle, prepared, stdio };
        let pid = match self.agent.engine.create(order).await {
            Ok(created) => {
                let pid = created.pid;
                (self.waiting, self.created, self.made) = (Some(waiting), Some(created), true);
                pid
            }
            Err(error) => {
                self.left = matches!(error, EngineError::Left { .. });
                return Err(engine_error(error));
            }
        };
        // GUARD: created-as-ordered -> containers_that_fail_and_hosts_that_are_evil
        self.look(&before, pid)?;
        Ok(())
    }

    /// Holds what the container sees against what was ordered, before its program may look. `before` are the mounts of the guest from before it
    /// was made: one that another container had meanwhile may be gone.
    fn look(&self, before: &Mounts, process: i32) -> Result<(), RpcError> {
        let (facts, prepared) = self.facts.as_deref().zip(self.prepared.as_ref()).ok_or_else(out_of_order)?;
        let proc = &self.agent.roots.proc;
        let (after, seen) = (mounts_of(proc, "self")?, mounts_of(proc, &process.to_string())?);
        for guest in [before, &after] {
            visible::check(guest, &seen, facts).map_err(spec_error)?;
        }
        visible::check_ordered(&after, &seen, &prepared.spec).map_err(spec_error)
    }

    fn settle(&mut self) -> Result<(), RpcError> {
        let (created, waiting) = self.created.take().zip(self.waiting.take()).ok_or_else(out_of_order)?;
        let Created { process, terminal, .. } = created;
        let agent = self.agent;
        let exec = self.exec.as_ref().map(ToString::to_string).unwrap_or_default();
        let streams = waiting.meet(agent, &self.id, &exec, terminal)?;
        let first = Process::adopt(self.exec.clone(), process, streams);
        agent.containers.pids().offer(&self.id, &first, &agent.roots.proc, &agent.roots.own)?;
        let (prepared, bundle) = (self.prepared.take().ok_or_else(out_of_order)?, self.bundle()?);
        let asked = PathBuf::from(&self.request.OCI.Root.Path);
        let verified_root = agent.storages.verified_root(&asked, &self.id);
        let identity = spec::process_identity(&prepared).map_err(spec_error)?;
        let roots = verified_root.as_ref().map(VerifiedRoot::identities).unwrap_or_default();
        // Where the root was verified, not where the container's is: a storage of the host may lie at the bundle's `rootfs`, and what was
        // verified beside it says nothing about it.
        agent.sealed.admit(&self.id, roots.clone(), &asked, identity)?;
        let name = self.request.OCI.Annotations.get(NAME).map(String::as_str);
        agent.askers.admit(&self.id, name, &prepared.cgroup_path, roots.clone(), &asked, identity)?;
        let environment = prepared.spec.process().as_ref().and_then(|process| process.env().as_deref());
        let environment = environment.unwrap_or_default();
        agent.secrets.admit(&self.id, environment, self.files.take(), roots, &asked, identity)?;
        self.container = Some(Arc::new(Container::new(Parts {
            id: self.id.clone(),
            first,
            cgroup: Cgroup::open(&agent.roots.cgroup, &prepared.cgroup_path)?,
            prepared,
            bundle,
        })));
        Ok(())
    }

    fn bundle(&self) -> Result<Arc<Bundle>, RpcError> {
        self.bundle.clone().ok_or_else(out_of_order)
    }
}

/// Takes the disk that stands for the store of images out of a specification, whose numbers are the guest's own by now: it is the sandbox's,
/// and no container gets it.
fn trusted_store(specification: &mut oci::Spec, sys: &Path) -> Result<Option<String>, RpcError> {
    let Some(linux) = specification.Linux.as_mut() else { return Ok(None) };
    let Some(device) = linux.Devices.iter().find(|device| device.Path == TRUSTED_STORE) else {
        return Ok(None);
    };
    let (major, minor) = (device.Major, device.Minor);
    linux.Devices.retain(|device| device.Path != TRUSTED_STORE);
    if let Some(resources) = linux.Resources.as_mut() {
        resources.Devices.retain(|rule| (rule.Major, rule.Minor) != (major, minor));
    }
    let link = std::fs::read_link(sys.join(format!("dev/block/{major}:{minor}")));
    let link = link.map_err(|error| failed("find the disk of the trusted store", &error))?;
    let name = link.file_name().and_then(|name| name.to_str());
    name.map(|name| Some(format!("/dev/{name}"))).ok_or_else(out_of_order)
}

/// The mounts of a process's namespace.
fn mounts_of(proc: &Path, process: &str) -> Result<Mounts, RpcError> {
    let text = std::fs::read_to_string(proc.join(process).join("mountinfo"));
    Mounts::parse(&text.map_err(|error| failed("list mounts", &error))?).map_err(spec_error)
}

/// What may wait for the host or a disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    let lost = |_| {
        RpcError::Failed("CONTAINER_LOST", "work on a container ended by a defect of the agent".to_owned())
    };
    spawn_blocking(work).await.map_err(lost)?
}

/// As the host is told.
pub(super) fn engine_error(error: EngineError) -> RpcError {
    RpcError::Failed(error.code(), chain(&error))
}

/// As the host is told: where, never what stands there.
pub(super) fn spec_error(error: SpecError) -> RpcError {
    RpcError::Failed(error.code(), error.to_string())
}

fn failed(what: &'static str, error: &std::io::Error) -> RpcError {
    RpcError::Failed("CONTAINER_SYSTEM", format!("{what}: {error}"))
}

fn out_of_order() -> RpcError {
    RpcError::Failed("CONTAINER_ORDER", "a step of making a container came before its turn".to_owned())
}
