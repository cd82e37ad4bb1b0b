//! Containers, made by a helper in a compartment of its own.
//!
//! ```text
//!  agent (threads, keys) ─control─▶ zygote (one thread, no secret) ─clone(CLONE_PARENT)─▶ helper, one for each operation
//!    │  order, descriptors ────────────────────────────────────────────────────────────▶   │ libcontainer
//!    │  ◀── number, terminal ───────────────────────────────────────────────────────────   ▼
//!    └── latch: "I am what was asked for" ◀─ looked at in /proc, cgroup ─▶ "go" ────── process: own executor ─▶ program
//! ```
//! Every process that is made here is a child of the agent, waited for by its reaper alone. What libcontainer leaves out (filters of
//! processes that join, device rules, empty groups, …) is done by an executor and a device program of our own, and what the
//! kernel says of a process is held against the order before its program runs.

mod container;
mod devices;
mod error;
pub(crate) mod helper;
mod latch;
mod operation;
mod order;
mod pen;
mod remains;
mod switches;
mod verify;
mod wire;
mod workers;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdh::rest::Asked;
pub use error::EngineError;
pub use order::{CreateOrder, Created, ExecOrder, SecretVariable, Stdio};
use protocol::ids::ContainerId;
use rustix::process::{Pid, Signal};
use tokio::time::timeout;

use self::container::{Container, Site, Stage};
use self::operation::{Operation, both};
use self::pen::Pens;
use self::wire::{Guise, Order, Task};
use crate::error::chain;
use crate::log::{Key, Level, Log, Value};
use crate::reaper::{Admitted, Reaper};
use crate::spec::DeviceRule;
use crate::zygote::Nursery;

const SUBSYSTEM: &str = "engine";
const STATE_MODE: u32 = 0o700;

/// Where the engine works.
#[derive(Clone, Debug)]
pub struct Places {
    /// The engine's own state: for root alone, and in no container.
    pub state: PathBuf,
    /// The root of the control groups.
    pub cgroup: PathBuf,
    /// The kernel's switches.
    pub sysctl: PathBuf,
    /// How long an operation of the helper may take.
    pub deadline: Duration,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/run/innerkeep/containers"),
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            sysctl: PathBuf::from("/proc/sys"),
            deadline: Duration::from_secs(30),
        }
    }
}

/// Makes containers and their processes.
///
/// Its operations are not to be dropped half-way: who does not want what comes of one takes it away afterwards.
#[derive(Debug)]
pub struct Engine {
    reaper: Arc<Reaper>,
    log: Log,
    places: Places,
    /// Where helpers come from; an engine without makes nothing.
    nursery: Option<Arc<Nursery>>,
    pens: Arc<Pens>,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    /// Control groups are made and taken away by one at a time: they share the directories above them.
    making: tokio::sync::Mutex<()>,
}

impl Engine {
    /// An engine that makes nothing: this process has no zygote.
    #[must_use]
    pub fn unavailable(reaper: Arc<Reaper>, log: &Log) -> Self {
        let places = Places::default();
        Self {
            reaper,
            log: log.clone(),
            pens: Arc::new(Pens::below(&places.cgroup)),
            places,
            nursery: None,
            containers: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// An engine whose helpers come from this nursery.
    ///
    /// # Errors
    /// `ENGINE_SYSTEM`.
    pub fn new(
        nursery: Arc<Nursery>,
        reaper: Arc<Reaper>,
        log: &Log,
        places: Places,
    ) -> Result<Self, EngineError> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(STATE_MODE)
            .create(&places.state)
            .map_err(EngineError::system("make the state"))?;
        let pens = Arc::new(Pens::below(&places.cgroup));
        Ok(Self { nursery: Some(nursery), pens, places, ..Self::unavailable(reaper, log) })
    }

    /// Makes a container. When it returns, the first process waits for [`Self::start`], in its cgroup and namespaces; on an
    /// error nothing is left.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn create(&self, order: CreateOrder) -> Result<Created, EngineError> {
        self.nursery()?;
        let (process, guise) = container::check(&order)?;
        let terminal = process.terminal() == Some(true);
        let _making = self.making.lock().await;
        let (site, other_end) = Site::new(&self.places, &order)?;
        let CreateOrder { id, bundle, prepared, stdio } = order;
        let task = Task::Create { bundle, terminal, guise: guise.clone() };
        let order = self.order(&id, task);
        let group = prepared.cgroup_path.absolute();
        let switched = match container::switch(&self.places, &prepared) {
            Ok(switched) => switched,
            Err(error) => return Err(self.cleared(&site, error).await),
        };
        let descriptors = container::descriptors(other_end, stdio);
        let made = async {
            site.write_config(&prepared)?;
            let operation = self.begin("create", &order, descriptors).await?;
            let (pid, terminal) = operation.made(terminal).await?;
            let process = operation.claim(pid)?;
            verify::group(pid, &group)?;
            let devices = devices::Attached::new(site.group.path(), &prepared.device_rules)?;
            operation.end().await;
            Ok((Created { process, pid: pid.as_raw_nonzero().get(), terminal }, devices))
        };
        let (created, devices) = match self.in_time("create", made).await {
            Ok(made) => made,
            Err(error) => {
                switched.undo();
                return Err(self.cleared(&site, error).await);
            }
        };
        let container = Container {
            site,
            guise,
            group,
            first: created.process.handle(),
            devices: Mutex::new(devices),
            has_last_hooks: container::has_last_hooks(&prepared.spec),
            stage: tokio::sync::Mutex::new(Stage::Created),
        };
        self.table().insert(id, Arc::new(container));
        Ok(created)
    }

    /// Lets the first process execute its program, once it is seen to be what was ordered. After an error the container is still
    /// there, and its processes are dead.
    ///
    /// # Errors
    /// See [`EngineError`]; `ENGINE_PROGRAM` where the program cannot be executed.
    pub async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.start_with(id, &[]).await
    }

    /// The same, with values of its environment that only the process gets, once it is seen to be what was ordered.
    ///
    /// # Errors
    /// As [`Engine::start`]; `ENGINE_SYSTEM` where the specification has no variable of such a name.
    pub async fn start_with(
        &self,
        id: &ContainerId,
        variables: &[SecretVariable],
    ) -> Result<(), EngineError> {
        self.nursery()?;
        let container = self.container(id)?;
        let mut stage = container.stage.lock().await;
        expect(id, *stage, Stage::Created)?;
        let order = self.order(id, Task::Start);
        let started = async {
            let operation = self.begin("start", &order, Vec::new()).await?;
            let program = async {
                let process = container.site.latch.ready().await?;
                verify::first(process, container.first.process())?;
                look(process, &container.guise, &container)?;
                for variable in variables {
                    container.site.latch.bring(variable).await?;
                }
                container.site.latch.go()?;
                container.site.latch.executed().await
            };
            both(operation.done(), program).await?;
            operation.end().await;
            Ok(())
        };
        let started = self.in_time("start", started).await;
        *stage = if started.is_ok() { Stage::Started } else { Stage::Failed };
        if started.is_err() {
            self.kill(&container);
        }
        started
    }

    /// Runs another process in a started container.
    ///
    /// # Errors
    /// See [`EngineError`]; `ENGINE_PROGRAM` where the program cannot be executed.
    pub async fn exec(&self, order: ExecOrder) -> Result<Created, EngineError> {
        self.nursery()?;
        let container = self.container(&order.id)?;
        let ExecOrder { id, process, stdio } = order;
        container::check_streams(&process.process, &stdio)?;
        let guise = Guise::of(&process.process, process.seccomp.as_ref())?;
        let has_terminal = process.process.terminal() == Some(true);
        let stage = container.stage.lock().await;
        expect(&id, *stage, Stage::Started)?;
        let (latch, other_end) = latch::Latch::pair()?;
        let task = Task::Exec { process: Box::new(process.process), guise: guise.clone() };
        let (order, descriptors) = (self.order(&id, task), container::descriptors(other_end, stdio));
        let mut claimed = None;
        let made = async {
            let operation = self.begin("exec", &order, descriptors).await?;
            let program = async {
                let process = latch.ready().await?;
                claimed = Some(operation.claim(process)?);
                look(process, &guise, &container)?;
                latch.go()?;
                latch.executed().await
            };
            let made = both(operation.made(has_terminal), program).await?;
            operation.end().await;
            Ok(made)
        };
        let made = self
            .in_time("exec", made)
            .await
            .and_then(|(pid, terminal)| joined(claimed.take(), pid, terminal));
        if made.is_err() {
            if let Some(claimed) = claimed {
                let _ = claimed.handle().signal(Signal::KILL);
            }
            let left =
                |error: std::io::Error| EngineError::Left { id: id.to_string(), what: error.to_string() };
            remains::kill_holders(latch.other_end()).await.map_err(left)?;
        }
        made
    }

    /// Replaces the rules about devices of a container, in one step.
    ///
    /// # Errors
    /// See [`EngineError`]; the old rules are in force then, unless the code is `ENGINE_NOT_ENFORCED`.
    pub fn set_device_rules(&self, id: &ContainerId, rules: &[DeviceRule]) -> Result<(), EngineError> {
        let container = self.container(id)?;
        container.devices.lock().unwrap_or_else(PoisonError::into_inner).replace(rules)
    }

    /// Takes a container away: its processes, killed if need be, its cgroup and its state. Of the bundle only `config.json` goes.
    ///
    /// # Errors
    /// See [`EngineError`]; it may be asked again after `ENGINE_LEFT`.
    pub async fn delete(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.nursery()?;
        let container = self.container(id)?;
        // Whatever operation is under way ends with its process.
        self.kill(&container);
        let mut stage = container.stage.lock().await;
        let _making = self.making.lock().await;
        if container.has_last_hooks && *stage != Stage::Failed {
            let order = self.order(id, Task::Delete);
            let hooks = async {
                let operation = self.begin("delete", &order, Vec::new()).await?;
                operation.done().await?;
                operation.end().await;
                Ok(())
            };
            // It goes all the same.
            if let Err(error) = self.in_time("delete", hooks).await {
                self.complain("hooks after the end of a container failed", &error);
            }
        }
        *stage = Stage::Failed;
        container.site.clear().await?;
        self.table().remove(id);
        Ok(())
    }

    /// Whether there is somebody who makes containers, and helpers.
    pub(crate) const fn is_available(&self) -> bool {
        self.nursery.is_some()
    }

    /// Reads the first request of a connection, in a helper that has nothing else. Nobody but the caller has the connection when it returns.
    ///
    /// # Errors
    /// See [`EngineError`]; `ENGINE_REFUSED` where there is no request.
    pub(crate) async fn read_request(&self, connection: OwnedFd) -> Result<Asked, EngineError> {
        let order = Order { state: self.places.state.clone(), id: String::new(), task: Task::Ask };
        let read = async {
            let operation = self.begin("ask", &order, vec![connection]).await?;
            let asked = operation.asked().await?;
            operation.end().await;
            Ok(asked)
        };
        self.in_time("ask", read).await
    }

    /// Who unpacks images and speaks to registries: helpers of the same nursery.
    pub(crate) fn workers(&self) -> Arc<dyn cdh::worker::Workers> {
        let (nursery, reaper) = (self.nursery.clone(), Arc::clone(&self.reaper));
        Arc::new(workers::Helpers { nursery, reaper, pens: Arc::clone(&self.pens) })
    }

    /// Starts a helper with an order.
    async fn begin(
        &self,
        action: &'static str,
        order: &Order,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Operation, EngineError> {
        let nursery = self.nursery()?;
        let pen = self.pens.make().map_err(EngineError::system("make a helper's control group"))?;
        Operation::begin(nursery, &self.reaper, pen, action, order, descriptors).await
    }

    fn nursery(&self) -> Result<&Nursery, EngineError> {
        self.nursery.as_deref().ok_or(EngineError::Unavailable { why: "this process started none" })
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &ContainerId) -> Result<Arc<Container>, EngineError> {
        self.table().get(id).cloned().ok_or_else(|| EngineError::Missing { id: id.to_string() })
    }

    fn order(&self, id: &ContainerId, task: Task) -> Order {
        Order { state: self.places.state.clone(), id: id.to_string(), task }
    }

    async fn in_time<T>(
        &self,
        action: &'static str,
        operation: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let seconds = self.places.deadline.as_secs();
        timeout(self.places.deadline, operation)
            .await
            .unwrap_or(Err(EngineError::Deadline { action, seconds }))
    }

    /// Takes away what a failed create left. What cannot be is the worse error.
    async fn cleared(&self, site: &Site, error: EngineError) -> EngineError {
        match site.clear_unfinished().await {
            Ok(()) => error,
            Err(left) => {
                self.complain("a container was not made", &error);
                left
            }
        }
    }

    /// Kills every process of a container.
    fn kill(&self, container: &Container) {
        if let Err(error) = std::fs::write(container.site.group.path().join("cgroup.kill"), "1") {
            self.complain(
                "kill a container",
                &EngineError::System { what: "kill a container", source: error },
            );
        }
    }

    fn complain(&self, text: &'static str, error: &EngineError) {
        let fields = [(Key::Code, error.code().into()), (Key::Error, Value::shown(&chain(error)))];
        self.log.say(Level::Warning, SUBSYSTEM, text, &fields);
    }
}

/// Holds a process at its latch against what was ordered.
fn look(process: Pid, guise: &Guise, container: &Container) -> Result<(), EngineError> {
    verify::guise(process, guise)?;
    verify::group(process, &container.group)?;
    container.devices.lock().unwrap_or_else(PoisonError::into_inner).verify()
}

/// What was made: the process at the latch and the one that the helper names are the same.
fn joined(claimed: Option<Admitted>, named: Pid, terminal: Option<OwnedFd>) -> Result<Created, EngineError> {
    match claimed {
        Some(process) if process.process() == named => {
            Ok(Created { process, pid: named.as_raw_nonzero().get(), terminal })
        }
        _ => Err(EngineError::Helper { action: "exec", what: "named another process" }),
    }
}

fn expect(id: &ContainerId, found: Stage, expected: Stage) -> Result<(), EngineError> {
    if found != expected {
        return Err(EngineError::State {
            id: id.to_string(),
            expected: expected.name(),
            found: found.name(),
        });
    }
    Ok(())
}
