//! ExecProcess: another process in a container, which starts at once.

use std::sync::Arc;

use protocol::agent::ExecProcessRequest;
use protocol::ids::{ContainerId, ExecId};
use protocol::status::RpcError;
use rustix::process::Signal;

use crate::containers::create::{engine_error, spec_error};
use crate::containers::streams::Waiting;
use crate::containers::{Process, State};
use crate::context::Agent;
use crate::engine::{Created, ExecOrder};
use crate::gate::Permitted;
use crate::spec;
use crate::streams::Ports;

/// Starts the process, in all namespaces of its container.
///
/// # Errors
/// No process of this call runs then.
pub(crate) async fn exec(agent: &Agent, request: Permitted<ExecProcessRequest>) -> Result<(), RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainerToRun)?;
    let exec = ExecId::parse(&request.exec_id)?;
    let Some(process) = request.process.as_ref() else { return Err(RpcError::NoProcessInRequest) };
    let ports = Ports { stdin: request.stdin_port, stdout: request.stdout_port, stderr: request.stderr_port };
    let sockets = Waiting::sockets(agent, ports).await?;

    let _work = container.work().await.ok_or(RpcError::NoContainerToRun)?;
    container.may_exec(&exec)?;
    container.expect(State::Running, "running")?;
    let prepared = spec::prepare_process(process, container.prepared()).map_err(spec_error)?;
    let terminal = prepared.process.terminal() == Some(true);
    let (stdio, waiting) = Waiting::open(agent, terminal, prepared.process.user().uid(), sockets)?;
    // GUARD: exec-in-time -> evil_host_deadline_before_an_exec
    if request.is_late() {
        return Err(RpcError::Deadline);
    }
    let order = ExecOrder { id: id.clone(), process: prepared, stdio };
    let Created { process, terminal, .. } = agent.engine.exec(order).await.map_err(engine_error)?;
    let handle = process.handle();
    let streams = waiting.meet(agent, &id, exec.as_str(), terminal).and_then(|streams| {
        // It runs, and nobody waits for it.
        if request.is_late() { Err(RpcError::Deadline) } else { Ok(streams) }
    });
    match streams {
        Ok(streams) => {
            container.add(Arc::new(Process::adopt(Some(exec), process, streams)));
            Ok(())
        }
        Err(error) => {
            let _ = handle.signal(Signal::KILL);
            // Its end is waited for, so that it is gone before the caller is told.
            let _ = process.await;
            Err(error)
        }
    }
}
