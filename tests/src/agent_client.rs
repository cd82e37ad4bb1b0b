//! A runtime as the agent sees one: a client of its service over vsock, and requests of the shape that runtimes send.
//!
//! ```text
//!  guest(&programs, &work, POLICY) ─▶ Guest ─▶ AgentClient::connect ─▶ create_sandbox, create_container, …
//!                                              └── spawn: calls that wait, beside others
//! ```

pub mod checks;
pub mod confidential;
pub mod requests;
pub mod storages;

use crate::programs::Programs;
use crate::vm;
use crate::work::Work;
use initdata::{Algorithm, Package};
use protocol::agent::{self, AgentServiceClient, Empty};
use protocol::health::{CheckRequest, HealthClient};
use protocol::{csi, types};
use std::fmt;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use ttrpc::r#async::Client;
use ttrpc::r#async::transport::Socket;
use ttrpc::context::{Context, with_duration};
use xtask::vm::{Guest, Init, Spec};

/// The agent's port.
pub const PORT: u32 = 1024;
/// A policy that lets everything through.
pub const ALLOW_ALL: &str = include_str!("agent_client/allow-all.rego");
/// How long a call may take unless said otherwise.
const CALL: Duration = Duration::from_secs(60);

/// A guest that is not running yet: the agent as its process 1, this policy in initdata. No TEE vouches for initdata here, so the
/// image says that it may be unbound.
pub fn spec(programs: &Programs, work: &Work, policy: &str) -> Spec {
    spec_with(programs, work, &[("policy.rego", policy)])
}

/// As [`spec`], with these files in initdata.
pub fn spec_with(programs: &Programs, work: &Work, files: &[(&str, &str)]) -> Spec {
    let mut package = Package::new(Algorithm::Sha384);
    for (name, text) in files {
        package.insert(name, text).expect("a file of initdata");
    }
    let packed = package.pack().expect("initdata");
    let disk = work.write("initdata.img", packed.image());
    vm::spec(programs, &["innerkeep-agent"])
        .init(Init::Agent)
        .vsock()
        .disk(&disk)
        .file("/etc/innerkeep/insecure.toml", 0o644, "insecure = [\"unbound-initdata\"]\n")
        .keep_serial(&work.join("serial.log"))
}

/// Boots it and waits until the agent serves.
#[track_caller]
pub fn serving(spec: Spec) -> Guest {
    let guest = vm::boot(spec);
    guest
        .wait_serial("\"msg\":\"serving\"", Duration::from_secs(60))
        .unwrap_or_else(|error| panic!("{error:#}"));
    guest
}

/// What the agent answered instead of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name of the status, `INVALID_ARGUMENT` say; `CONNECTION` where there was no answer.
    pub code: String,
    /// Its text.
    pub text: String,
}

impl Refused {
    fn of(error: ttrpc::Error) -> Self {
        match error {
            ttrpc::Error::RpcStatus(status) => {
                Self { code: format!("{:?}", status.code()), text: status.message().to_owned() }
            }
            other => Self { code: "CONNECTION".to_owned(), text: other.to_string() },
        }
    }

    /// Whether the text has this in it.
    pub fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

/// A connection to the agent, and the runtime that its calls run on.
pub struct AgentClient {
    runtime: Runtime,
    service: AgentServiceClient,
    health: HealthClient,
    limit: Duration,
}

impl fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentClient").finish_non_exhaustive()
    }
}

impl AgentClient {
    /// Connects to the agent of a guest.
    #[track_caller]
    pub fn connect(guest: &Guest) -> Self {
        let stream = guest.vsock(PORT, Duration::from_secs(30)).unwrap_or_else(|error| panic!("{error:#}"));
        Self::over(stream)
    }

    /// Speaks over a connection.
    pub fn over(stream: UnixStream) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let client = {
            let _inside = runtime.enter();
            stream.set_nonblocking(true).expect("a socket that does not block");
            let stream = tokio::net::UnixStream::from_std(stream).expect("a socket of the runtime");
            Client::new(Socket::new(stream))
        };
        let (service, health) = (AgentServiceClient::new(client.clone()), HealthClient::new(client));
        Self { runtime, service, health, limit: CALL }
    }

    /// The deadline of the calls from now on, which the agent is told.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn context(&self) -> Context {
        with_duration(self.limit)
    }

    /// A call that waits, beside others: `client.spawn(|service| async move { service.wait_process(…).await })`. There is no deadline
    /// but the context's.
    pub fn spawn<R, F>(&self, call: impl FnOnce(AgentServiceClient) -> F) -> Pending<R>
    where
        R: Send + 'static,
        F: Future<Output = ttrpc::Result<R>> + Send + 'static,
    {
        Pending { task: self.runtime.spawn(call(self.service.clone())) }
    }

    /// The answer of a call that was spawned.
    #[track_caller]
    pub fn join<R>(&self, pending: Pending<R>) -> Result<R, Refused> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(CALL, pending.task).await });
        answer.expect("an answer in time").expect("a call that did not panic").map_err(Refused::of)
    }

    /// `grpc.Health` answers.
    #[track_caller]
    pub fn assert_healthy(&self) {
        let request = CheckRequest::default();
        let check = self.health.check(self.context(), &request);
        self.runtime.block_on(check).map_err(Refused::of).unwrap_or_else(|refused| panic!("{refused}"));
    }
}

/// A call that was not answered yet.
#[derive(Debug)]
pub struct Pending<R> {
    task: JoinHandle<ttrpc::Result<R>>,
}

impl<R> Pending<R> {
    /// Whether the answer is there.
    pub fn is_answered(&self) -> bool {
        self.task.is_finished()
    }
}

macro_rules! calls {
    ($($name:ident($request:ty) -> $reply:ty;)+) => {
        /// The calls, each to its end.
        impl AgentClient {
            $(
                /// The call of this name.
                ///
                /// # Errors
                /// What the agent answered.
                pub fn $name(&self, request: &$request) -> Result<$reply, Refused> {
                    self.runtime.block_on(self.service.$name(self.context(), request)).map_err(Refused::of)
                }
            )+
        }
    };
}

calls! {
    create_container(agent::CreateContainerRequest) -> Empty;
    start_container(agent::StartContainerRequest) -> Empty;
    remove_container(agent::RemoveContainerRequest) -> Empty;
    exec_process(agent::ExecProcessRequest) -> Empty;
    signal_process(agent::SignalProcessRequest) -> Empty;
    wait_process(agent::WaitProcessRequest) -> agent::WaitProcessResponse;
    update_container(agent::UpdateContainerRequest) -> Empty;
    update_ephemeral_mounts(agent::UpdateEphemeralMountsRequest) -> Empty;
    stats_container(agent::StatsContainerRequest) -> agent::StatsContainerResponse;
    pause_container(agent::PauseContainerRequest) -> Empty;
    resume_container(agent::ResumeContainerRequest) -> Empty;
    remove_stale_virtiofs_share_mounts(agent::RemoveStaleVirtiofsShareMountsRequest) -> Empty;
    get_diagnostic_data(agent::GetDiagnosticDataRequest) -> agent::GetDiagnosticDataResponse;
    write_stdin(agent::WriteStreamRequest) -> agent::WriteStreamResponse;
    read_stdout(agent::ReadStreamRequest) -> agent::ReadStreamResponse;
    read_stderr(agent::ReadStreamRequest) -> agent::ReadStreamResponse;
    close_stdin(agent::CloseStdinRequest) -> Empty;
    tty_win_resize(agent::TtyWinResizeRequest) -> Empty;
    update_interface(agent::UpdateInterfaceRequest) -> types::Interface;
    update_routes(agent::UpdateRoutesRequest) -> agent::Routes;
    list_interfaces(agent::ListInterfacesRequest) -> agent::Interfaces;
    list_routes(agent::ListRoutesRequest) -> agent::Routes;
    add_arp_neighbors(agent::AddARPNeighborsRequest) -> Empty;
    get_ip_tables(agent::GetIPTablesRequest) -> agent::GetIPTablesResponse;
    set_ip_tables(agent::SetIPTablesRequest) -> agent::SetIPTablesResponse;
    get_metrics(agent::GetMetricsRequest) -> agent::Metrics;
    mem_agent_memcg_set(agent::MemAgentMemcgConfig) -> Empty;
    mem_agent_compact_set(agent::MemAgentCompactConfig) -> Empty;
    create_sandbox(agent::CreateSandboxRequest) -> Empty;
    destroy_sandbox(agent::DestroySandboxRequest) -> Empty;
    online_cpu_mem(agent::OnlineCPUMemRequest) -> Empty;
    reseed_random_dev(agent::ReseedRandomDevRequest) -> Empty;
    get_guest_details(agent::GuestDetailsRequest) -> agent::GuestDetailsResponse;
    mem_hotplug_by_probe(agent::MemHotplugByProbeRequest) -> Empty;
    set_guest_date_time(agent::SetGuestDateTimeRequest) -> Empty;
    copy_file(agent::CopyFileRequest) -> Empty;
    get_oom_event(agent::GetOOMEventRequest) -> agent::OOMEvent;
    add_swap(agent::AddSwapRequest) -> Empty;
    add_swap_path(agent::AddSwapPathRequest) -> Empty;
    get_volume_stats(agent::VolumeStatsRequest) -> csi::VolumeStatsResponse;
    resize_volume(agent::ResizeVolumeRequest) -> Empty;
    set_policy(agent::SetPolicyRequest) -> Empty;
}
