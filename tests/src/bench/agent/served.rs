//! Programs that serve: the agent, and a bare server of the same protocol to hold it against.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use protocol::health::{self, CheckRequest, HealthCheckResponse, create_health};
use rustix::process::{Pid, Signal, kill_process};
use ttrpc::r#async::{Server, TtrpcContext};

/// A server in a process of its own; dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Served {
    child: Child,
    /// Where it listens.
    pub(crate) socket: PathBuf,
    /// Before the process was made.
    pub(crate) since: Instant,
}

impl Served {
    /// The agent, with a policy or without one.
    pub(crate) fn agent(program: &Path, directory: &Path, policy: Option<&Path>) -> anyhow::Result<Self> {
        let socket = directory.join("agent.sock");
        let mut command = Command::new(program);
        command.arg("--server-addr").arg(format!("unix://{}", socket.display()));
        if let Some(policy) = policy {
            command.arg("--policy").arg(policy);
        }
        Self::start(command, directory, socket)
    }

    /// This program, as the bare server.
    pub(crate) fn bare(directory: &Path) -> anyhow::Result<Self> {
        let socket = directory.join("bare.sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--bare").arg(&socket).arg("--out").arg(directory);
        Self::start(command, directory, socket)
    }

    fn start(mut command: Command, directory: &Path, socket: PathBuf) -> anyhow::Result<Self> {
        let _ = fs::remove_file(&socket);
        let log = File::create(directory.join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        // As process 1 it has no environment: a developer's `RUST_BACKTRACE` would be most of what compiling a policy costs.
        command.env_clear();
        let since = Instant::now();
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, socket, since })
    }

    /// Proportional set size in bytes of the process and of everybody that it started, and how many they are.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, usize)> {
        let family = family(self.child.id())?;
        let sizes = family.iter().map(|process| proportional(*process));
        Ok((sizes.sum::<anyhow::Result<u64>>()?, family.len()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn proportional(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

/// A process and its descendants.
fn family(of: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // The name, in parentheses, may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parents.insert(process, parent.unwrap_or(0_u32));
    }
    let mut found = vec![of];
    let mut seen = 0;
    while let Some(parent) = found.get(seen).copied() {
        found.extend(parents.iter().filter(|(_, above)| **above == parent).map(|(process, _)| *process));
        seen += 1;
    }
    Ok(found)
}

struct Bare;

impl health::Health for Bare {
    // What `async_trait` makes of the trait's own declaration.
    fn check<'own, 'context, 'call>(
        &'own self,
        _: &'context TtrpcContext,
        _: CheckRequest,
    ) -> Pin<Box<dyn Future<Output = ttrpc::Result<HealthCheckResponse>> + Send + 'call>>
    where
        'own: 'call,
        'context: 'call,
        Self: 'call,
    {
        let status = health::health_check_response::ServingStatus::SERVING.into();
        Box::pin(async move { Ok(HealthCheckResponse { status, ..Default::default() }) })
    }
}

/// Serves nothing but that, as the protocol's own server does, until it is killed.
pub(crate) fn serve_bare(socket: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let address = format!("unix://{}", socket.display());
        let mut server = Server::new().bind(&address)?.register_service(create_health(Arc::new(Bare)));
        server.start().await?;
        std::future::pending::<anyhow::Result<()>>().await
    })
}
