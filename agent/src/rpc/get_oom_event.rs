//! GetOOMEvent: waits until a container runs out of memory.

use protocol::agent::{GetOOMEventRequest, OOMEvent};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// One event for each container, to one of those who ask. Dropped, it has taken none.
pub(crate) async fn handle(
    agent: &Agent,
    _request: Permitted<GetOOMEventRequest>,
) -> Result<OOMEvent, RpcError> {
    let container = agent.oom.next().await.map_err(|_| RpcError::EventsEnded)?;
    Ok(OOMEvent { container_id: container.to_string(), ..OOMEvent::default() })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::sync::Arc;

    use protocol::agent::{AgentService as _, DestroySandboxRequest, GetMetricsRequest};
    use protocol::ids::ContainerId;
    use ttrpc::asynchronous::TtrpcContext;

    use super::*;
    use crate::cgroup::Cgroup;
    use crate::rpc::Service;
    use crate::spec::CgroupPath;

    const ALLOW: &str = "package agent_policy
default DestroySandboxRequest := true
default GetMetricsRequest := true
default GetOOMEventRequest := true
";

    fn context() -> TtrpcContext {
        TtrpcContext {
            mh: ttrpc::MessageHeader::new_request(1, 0),
            metadata: HashMap::new(),
            timeout_nano: 0,
            connection_data: Arc::default(),
        }
    }

    fn agent() -> (tempfile::TempDir, Arc<Agent>) {
        let directory = tempfile::tempdir().unwrap();
        let agent = Arc::new(Agent::for_test(directory.path(), false));
        agent.gate.begin_with(ALLOW).unwrap();
        (directory, agent)
    }

    // COMPAT: GetOOMEvent, DestroySandbox same: who waits is told of the end
    #[tokio::test]
    async fn events_come_and_end_with_the_sandbox() {
        let (directory, agent) = agent();
        let id = ContainerId::parse("c1").unwrap();
        fs::create_dir(directory.path().join("c1")).unwrap();
        fs::write(directory.path().join("c1/memory.events"), "oom_kill 1\n").unwrap();
        let group = Cgroup::open(directory.path(), &CgroupPath::parse("/c1", &id).unwrap()).unwrap();
        agent.oom.watch(&id, &group).unwrap();
        let service = Service(Arc::clone(&agent));
        let event = service.get_oom_event(&context(), GetOOMEventRequest::new()).await.unwrap();
        assert_eq!(event.container_id, "c1");
        let asked = service.clone();
        let waiting =
            tokio::spawn(async move { asked.get_oom_event(&context(), GetOOMEventRequest::new()).await });
        tokio::task::yield_now().await;
        service.destroy_sandbox(&context(), DestroySandboxRequest::new()).await.unwrap();
        let Err(ttrpc::Error::RpcStatus(status)) = waiting.await.unwrap() else { panic!("an event") };
        assert_eq!((status.code(), status.message()), (ttrpc::Code::INTERNAL, "\"\""));
    }

    #[tokio::test]
    async fn metrics_are_a_text() {
        let (_directory, agent) = agent();
        fs::create_dir_all(&agent.roots.proc).unwrap();
        fs::write(agent.roots.proc.join("loadavg"), "0.10 0.20 0.30 1/50 77\n").unwrap();
        let service = Service(agent);
        let metrics = service.get_metrics(&context(), GetMetricsRequest::new()).await.unwrap().metrics;
        assert!(metrics.contains("kata_agent_scrape_count 1\n"), "{metrics}");
        assert!(metrics.contains("kata_guest_load{item=\"load5\"} 0.20\n"), "{metrics}");
    }
}
