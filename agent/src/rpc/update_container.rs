//! UpdateContainer: other limits for a container that is there.

use protocol::agent::{Empty, UpdateContainerRequest};
use protocol::ids::ContainerId;
use protocol::oci::LinuxResources;
use protocol::status::RpcError;
use tokio::task::spawn_blocking;

use crate::cgroup::{Applied, Cgroup, CgroupError};
use crate::context::Agent;
use crate::gate::Permitted;
use crate::spec::{self, ForbiddenDevices};

/// All of them or none. Limits that were applied before one that cannot be are taken back; if that fails, too, the container's
/// processes are killed: nobody knows what they may use.
pub(crate) async fn handle(
    agent: &Agent,
    request: Permitted<UpdateContainerRequest>,
) -> Result<Empty, RpcError> {
    let id = ContainerId::parse(&request.container_id)?;
    let container = agent.containers.get(&id).ok_or(RpcError::NoContainer)?;
    let Some(resources) = request.resources.as_ref() else { return Ok(Empty::new()) };
    let _work = container.work().await.ok_or(RpcError::NoContainer)?;
    let forbidden = ForbiddenDevices::of_system(&agent.roots.proc).map_err(|error| {
        RpcError::Failed("CONTAINER_DEVICES", format!("the kernel's list of devices: {}", error.kind()))
    })?;
    let prepared = spec::prepare_resources(resources, container.prepared(), &forbidden)
        .map_err(|error| RpcError::Failed(error.code(), error.to_string()))?;
    let group = container.cgroup();
    let applied = match apply(group, resources).await {
        Ok(applied) => applied,
        Err(error) => return Err(given_up(group, error).await),
    };
    // GUARD: update-in-time -> evil_host_deadline_in_an_update
    if request.is_late() {
        return Err(taken_back(group, applied, RpcError::Deadline).await);
    }
    // What cannot fail half-way is the last: one program replaces the other.
    let replaced = match &prepared.device_rules {
        Some(rules) => agent.engine.set_device_rules(&id, rules),
        None => Ok(()),
    };
    match replaced {
        Ok(()) => Ok(Empty::new()),
        Err(error) => {
            let why = RpcError::Failed(error.code(), crate::error::chain(&error));
            Err(taken_back(group, applied, why).await)
        }
    }
}

/// A limit that is lower than what is used makes the kernel look for memory first.
async fn apply(group: &Cgroup, resources: &LinuxResources) -> Result<Applied, CgroupError> {
    let (group, resources) = (group.clone(), resources.clone());
    spawn_blocking(move || group.apply(&resources)).await.unwrap_or(Err(CgroupError::Malformed { file: "" }))
}

async fn taken_back(group: &Cgroup, applied: Applied, why: RpcError) -> RpcError {
    let own = group.clone();
    match spawn_blocking(move || own.put_back(applied)).await {
        Ok(Ok(())) => why,
        _ => killed(group, why).await,
    }
}

async fn given_up(group: &Cgroup, error: CgroupError) -> RpcError {
    let is_partial = matches!(error, CgroupError::NotRestored { .. });
    let error = RpcError::from(error);
    if is_partial { killed(group, error).await } else { error }
}

async fn killed(group: &Cgroup, why: RpcError) -> RpcError {
    match group.kill_all().await {
        Ok(()) => why,
        Err(error) => RpcError::from(error),
    }
}
