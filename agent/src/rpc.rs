//! `grpc.AgentService`: each method takes its request through the gate to its handler, one file each.

use std::sync::Arc;

use async_trait::async_trait;
use protocol::Endpoint;
use protocol::agent as wire;
use ttrpc::asynchronous::TtrpcContext;

use crate::context::Agent;
use crate::gate;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<Agent>);

/// Handlers: method, its name on the wire, its request, its answer. `handle` of the module of the method's name does the work.
macro_rules! handlers {
    ($($method:ident: $endpoint:ident($request:ident) -> $answer:ty;)+) => {
        $(mod $method;)+

        /// The methods that have a handler.
        #[cfg(test)]
        pub(crate) const HANDLED: &[Endpoint] = &[$(Endpoint::$endpoint),+];

        #[async_trait]
        impl wire::AgentService for Service {
            $(
                async fn $method(&self, context: &TtrpcContext, request: wire::$request) -> ttrpc::Result<$answer> {
                    gate::pass(&self.0, Endpoint::$endpoint, context, request, |agent, request| async move {
                        $method::handle(&agent, request).await
                    })
                    .await
                }
            )+
        }
    };
}

// Alphabetical.
handlers! {
    add_arp_neighbors: AddARPNeighbors(AddARPNeighborsRequest) -> wire::Empty;
    add_swap: AddSwap(AddSwapRequest) -> wire::Empty;
    add_swap_path: AddSwapPath(AddSwapPathRequest) -> wire::Empty;
    close_stdin: CloseStdin(CloseStdinRequest) -> wire::Empty;
    copy_file: CopyFile(CopyFileRequest) -> wire::Empty;
    create_container: CreateContainer(CreateContainerRequest) -> wire::Empty;
    create_sandbox: CreateSandbox(CreateSandboxRequest) -> wire::Empty;
    destroy_sandbox: DestroySandbox(DestroySandboxRequest) -> wire::Empty;
    exec_process: ExecProcess(ExecProcessRequest) -> wire::Empty;
    get_diagnostic_data: GetDiagnosticData(GetDiagnosticDataRequest) -> wire::GetDiagnosticDataResponse;
    get_guest_details: GetGuestDetails(GuestDetailsRequest) -> wire::GuestDetailsResponse;
    get_ip_tables: GetIPTables(GetIPTablesRequest) -> wire::GetIPTablesResponse;
    get_metrics: GetMetrics(GetMetricsRequest) -> wire::Metrics;
    get_oom_event: GetOOMEvent(GetOOMEventRequest) -> wire::OOMEvent;
    get_volume_stats: GetVolumeStats(VolumeStatsRequest) -> protocol::csi::VolumeStatsResponse;
    list_interfaces: ListInterfaces(ListInterfacesRequest) -> wire::Interfaces;
    list_routes: ListRoutes(ListRoutesRequest) -> wire::Routes;
    mem_agent_compact_set: MemAgentCompactSet(MemAgentCompactConfig) -> wire::Empty;
    mem_agent_memcg_set: MemAgentMemcgSet(MemAgentMemcgConfig) -> wire::Empty;
    mem_hotplug_by_probe: MemHotplugByProbe(MemHotplugByProbeRequest) -> wire::Empty;
    online_cpu_mem: OnlineCPUMem(OnlineCPUMemRequest) -> wire::Empty;
    pause_container: PauseContainer(PauseContainerRequest) -> wire::Empty;
    read_stderr: ReadStderr(ReadStreamRequest) -> wire::ReadStreamResponse;
    read_stdout: ReadStdout(ReadStreamRequest) -> wire::ReadStreamResponse;
    remove_container: RemoveContainer(RemoveContainerRequest) -> wire::Empty;
    remove_stale_virtiofs_share_mounts: RemoveStaleVirtiofsShareMounts(RemoveStaleVirtiofsShareMountsRequest) -> wire::Empty;
    reseed_random_dev: ReseedRandomDev(ReseedRandomDevRequest) -> wire::Empty;
    resize_volume: ResizeVolume(ResizeVolumeRequest) -> wire::Empty;
    resume_container: ResumeContainer(ResumeContainerRequest) -> wire::Empty;
    set_guest_date_time: SetGuestDateTime(SetGuestDateTimeRequest) -> wire::Empty;
    set_ip_tables: SetIPTables(SetIPTablesRequest) -> wire::SetIPTablesResponse;
    set_policy: SetPolicy(SetPolicyRequest) -> wire::Empty;
    signal_process: SignalProcess(SignalProcessRequest) -> wire::Empty;
    start_container: StartContainer(StartContainerRequest) -> wire::Empty;
    stats_container: StatsContainer(StatsContainerRequest) -> wire::StatsContainerResponse;
    tty_win_resize: TtyWinResize(TtyWinResizeRequest) -> wire::Empty;
    update_container: UpdateContainer(UpdateContainerRequest) -> wire::Empty;
    update_ephemeral_mounts: UpdateEphemeralMounts(UpdateEphemeralMountsRequest) -> wire::Empty;
    update_interface: UpdateInterface(UpdateInterfaceRequest) -> protocol::types::Interface;
    update_routes: UpdateRoutes(UpdateRoutesRequest) -> wire::Routes;
    wait_process: WaitProcess(WaitProcessRequest) -> wire::WaitProcessResponse;
    write_stdin: WriteStdin(WriteStreamRequest) -> wire::WriteStreamResponse;
}

#[cfg(test)]
mod tests {
    use protocol::endpoint::ServiceName;

    use super::*;

    #[test]
    fn every_method_of_the_service_has_a_handler() {
        let mut missing: Vec<_> = Endpoint::ALL
            .into_iter()
            .filter(|endpoint| endpoint.service() == ServiceName::AgentService)
            .collect();
        assert_eq!(missing.len(), 42);
        missing.retain(|endpoint| !HANDLED.contains(endpoint));
        assert_eq!(missing, [], "without a handler");
    }
}
