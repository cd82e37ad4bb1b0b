//! Every method that the agent serves: a closed list. A test holds it against the descriptors, both ways.

use std::fmt;

use protobuf::reflect::MessageDescriptor;
use protobuf::{Message, MessageDyn, MessageFull as _};

use crate::limits::{FLAT, LimitError, Shape, shapes};
use crate::{agent, health, innerkeep};

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceName {
    /// `grpc.AgentService`.
    AgentService,
    /// `innerkeep.AuditService`.
    AuditService,
    /// `grpc.Health`.
    Health,
}

impl ServiceName {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentService => "grpc.AgentService",
            Self::AuditService => "innerkeep.AuditService",
            Self::Health => "grpc.Health",
        }
    }
}

/// When the policy is asked about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyPoint {
    /// Before anything happens; a denial is an error.
    Before,
    /// Before the stream is touched; a denial is success with empty data, which runtimes take for the end. (Upstream reads first.)
    BeforeReading,
    /// The policy that is to be replaced is asked.
    OldPolicy,
    /// Never.
    Never,
}

/// What a call does to the guest, and with it how it may be ordered among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Changes state of the agent or of the machine: such calls queue, and one whose deadline passes there has no effect.
    Changes,
    /// Changes nothing.
    Reads,
    /// Moves bytes, or waits for an event, maybe for ever: holds no lock while it does.
    Waits,
}

macro_rules! endpoints {
    ($($name:ident, $service:ident, $module:ident::$message:ident, $effect:ident, $point:ident, $first:ident $(:: $second:ident)?;)+) => {
        /// A method. Its name is the one on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names of the wire; what they do is in the .proto files")]
        pub enum Endpoint {
            $($name,)+
        }

        impl Endpoint {
            /// All of them.
            pub const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$name),+];

            /// The service that it is a method of.
            #[must_use]
            pub const fn service(self) -> ServiceName {
                match self {
                    $(Self::$name => ServiceName::$service,)+
                }
            }

            /// The method on the wire.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The name of the request message without its package.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($message),)+
                }
            }

            /// What it does.
            #[must_use]
            pub const fn effect(self) -> Effect {
                match self {
                    $(Self::$name => Effect::$effect,)+
                }
            }

            /// When the policy is asked.
            #[must_use]
            pub const fn policy_point(self) -> PolicyPoint {
                match self {
                    $(Self::$name => PolicyPoint::$point,)+
                }
            }

            /// The limits of its request.
            pub(crate) fn shape(self) -> &'static Shape {
                match self {
                    $(Self::$name => &$first $(:: $second)?,)+
                }
            }

            /// The descriptor of its request.
            #[must_use]
            pub fn request(self) -> MessageDescriptor {
                match self {
                    $(Self::$name => $module::$message::descriptor(),)+
                }
            }

            /// Decodes its request, after the limits were checked.
            ///
            /// # Errors
            /// `REQUEST_…`: all of [`LimitError`].
            pub fn decode(self, payload: &[u8]) -> Result<Box<dyn MessageDyn>, LimitError> {
                match self {
                    $(Self::$name => {
                        self.decode_as::<$module::$message>(payload).map(|message| Box::new(message) as Box<dyn MessageDyn>)
                    })+
                }
            }
        }
    };
}

endpoints! {
    CreateContainer, AgentService, agent::CreateContainerRequest, Changes, Before, shapes::CREATE_CONTAINER_REQUEST;
    StartContainer, AgentService, agent::StartContainerRequest, Changes, Before, FLAT;
    RemoveContainer, AgentService, agent::RemoveContainerRequest, Changes, Before, FLAT;
    ExecProcess, AgentService, agent::ExecProcessRequest, Changes, Before, shapes::EXEC_PROCESS_REQUEST;
    SignalProcess, AgentService, agent::SignalProcessRequest, Changes, Before, FLAT;
    WaitProcess, AgentService, agent::WaitProcessRequest, Waits, Before, FLAT;
    UpdateContainer, AgentService, agent::UpdateContainerRequest, Changes, Before, shapes::UPDATE_CONTAINER_REQUEST;
    UpdateEphemeralMounts, AgentService, agent::UpdateEphemeralMountsRequest, Changes, Before, shapes::UPDATE_EPHEMERAL_MOUNTS_REQUEST;
    StatsContainer, AgentService, agent::StatsContainerRequest, Reads, Before, FLAT;
    PauseContainer, AgentService, agent::PauseContainerRequest, Changes, Before, FLAT;
    ResumeContainer, AgentService, agent::ResumeContainerRequest, Changes, Before, FLAT;
    RemoveStaleVirtiofsShareMounts, AgentService, agent::RemoveStaleVirtiofsShareMountsRequest, Changes, Before, FLAT;
    GetDiagnosticData, AgentService, agent::GetDiagnosticDataRequest, Reads, Before, FLAT;
    WriteStdin, AgentService, agent::WriteStreamRequest, Waits, Before, shapes::WRITE_STREAM_REQUEST;
    ReadStdout, AgentService, agent::ReadStreamRequest, Waits, BeforeReading, FLAT;
    ReadStderr, AgentService, agent::ReadStreamRequest, Waits, BeforeReading, FLAT;
    CloseStdin, AgentService, agent::CloseStdinRequest, Changes, Before, FLAT;
    TtyWinResize, AgentService, agent::TtyWinResizeRequest, Changes, Before, FLAT;
    UpdateInterface, AgentService, agent::UpdateInterfaceRequest, Changes, Before, shapes::UPDATE_INTERFACE_REQUEST;
    UpdateRoutes, AgentService, agent::UpdateRoutesRequest, Changes, Before, shapes::UPDATE_ROUTES_REQUEST;
    ListInterfaces, AgentService, agent::ListInterfacesRequest, Reads, Before, FLAT;
    ListRoutes, AgentService, agent::ListRoutesRequest, Reads, Before, FLAT;
    AddARPNeighbors, AgentService, agent::AddARPNeighborsRequest, Changes, Before, shapes::ADD_ARP_NEIGHBORS_REQUEST;
    GetIPTables, AgentService, agent::GetIPTablesRequest, Reads, Before, FLAT;
    SetIPTables, AgentService, agent::SetIPTablesRequest, Changes, Before, shapes::SET_IP_TABLES_REQUEST;
    GetMetrics, AgentService, agent::GetMetricsRequest, Reads, Before, FLAT;
    MemAgentMemcgSet, AgentService, agent::MemAgentMemcgConfig, Changes, Before, FLAT;
    MemAgentCompactSet, AgentService, agent::MemAgentCompactConfig, Changes, Before, FLAT;
    CreateSandbox, AgentService, agent::CreateSandboxRequest, Changes, Before, shapes::CREATE_SANDBOX_REQUEST;
    DestroySandbox, AgentService, agent::DestroySandboxRequest, Changes, Before, FLAT;
    OnlineCPUMem, AgentService, agent::OnlineCPUMemRequest, Changes, Before, FLAT;
    ReseedRandomDev, AgentService, agent::ReseedRandomDevRequest, Changes, Before, shapes::RESEED_RANDOM_DEV_REQUEST;
    GetGuestDetails, AgentService, agent::GuestDetailsRequest, Reads, Before, FLAT;
    MemHotplugByProbe, AgentService, agent::MemHotplugByProbeRequest, Changes, Before, shapes::MEM_HOTPLUG_BY_PROBE_REQUEST;
    SetGuestDateTime, AgentService, agent::SetGuestDateTimeRequest, Changes, Before, FLAT;
    CopyFile, AgentService, agent::CopyFileRequest, Changes, Before, shapes::COPY_FILE_REQUEST;
    GetOOMEvent, AgentService, agent::GetOOMEventRequest, Waits, Before, FLAT;
    AddSwap, AgentService, agent::AddSwapRequest, Changes, Before, shapes::ADD_SWAP_REQUEST;
    AddSwapPath, AgentService, agent::AddSwapPathRequest, Changes, Before, FLAT;
    GetVolumeStats, AgentService, agent::VolumeStatsRequest, Reads, Before, FLAT;
    ResizeVolume, AgentService, agent::ResizeVolumeRequest, Changes, Before, FLAT;
    SetPolicy, AgentService, agent::SetPolicyRequest, Changes, OldPolicy, shapes::SET_POLICY_REQUEST;
    Check, Health, health::CheckRequest, Reads, Never, FLAT;
    Version, Health, health::CheckRequest, Reads, Never, FLAT;
    Head, AuditService, innerkeep::AuditHeadRequest, Reads, Before, FLAT;
    Read, AuditService, innerkeep::AuditReadRequest, Reads, Before, FLAT;
    Acknowledge, AuditService, innerkeep::AuditAcknowledgeRequest, Changes, Before, FLAT;
}

impl Endpoint {
    /// The method of a service, by their names on the wire.
    #[must_use]
    pub fn find(service: &str, method: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.method() == method && endpoint.service().as_str() == service)
    }

    /// The rule of the policy that decides it, which has the name of the request message: two methods that share a message
    /// share a rule. `None`: no policy is asked.
    #[must_use]
    pub const fn policy_rule(self) -> Option<&'static str> {
        match self.policy_point() {
            PolicyPoint::Before | PolicyPoint::BeforeReading | PolicyPoint::OldPolicy => Some(self.message()),
            PolicyPoint::Never => None,
        }
    }

    /// Whether it changes state: such calls queue.
    #[must_use]
    pub const fn is_stateful(self) -> bool {
        matches!(self.effect(), Effect::Changes)
    }

    /// Checks a payload against the limits of the request, without decoding it.
    ///
    /// # Errors
    /// `REQUEST_MALFORMED`, `REQUEST_MEMBERS`, `REQUEST_COUNT`, `REQUEST_BYTES`.
    pub fn check(self, payload: &[u8]) -> Result<(), LimitError> {
        self.shape().check(payload)
    }

    /// Decodes a payload as a type that the caller knows to be its request, after the limits were checked.
    ///
    /// # Errors
    /// `REQUEST_…`: all of [`LimitError`].
    pub fn decode_as<M: Message>(self, payload: &[u8]) -> Result<M, LimitError> {
        self.check(payload)?;
        M::parse_from_bytes(payload).map_err(|_| LimitError::Undecodable)
    }
}

/// The path on the wire: `/grpc.AgentService/CreateContainer`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}", self.service().as_str(), self.method())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::generated::{agent, health, innerkeep};

    #[test]
    fn endpoints_are_the_methods_of_the_services_both_ways() {
        let files = [agent::file_descriptor(), health::file_descriptor(), innerkeep::file_descriptor()];
        let wire: BTreeSet<String> = files
            .iter()
            .flat_map(|file| {
                let package = file.proto().package();
                file.proto().service.iter().flat_map(move |service| {
                    let path = move |name: &str| format!("/{package}.{}/{name}", service.name());
                    service
                        .method
                        .iter()
                        .map(move |method| format!("{} {}", path(method.name()), &method.input_type()[1..]))
                })
            })
            .collect();
        let line = |endpoint: &Endpoint| format!("{endpoint} {}", endpoint.request().full_name());
        let ours: BTreeSet<String> = Endpoint::ALL.iter().map(line).collect();
        assert_eq!(ours, wire);
        assert_eq!(Endpoint::ALL.len(), 47);
    }

    #[test]
    fn rules_have_the_names_of_upstream() {
        let rule = |method| Endpoint::find("grpc.AgentService", method).unwrap().policy_rule().unwrap();
        let others = [
            ("GetGuestDetails", "GuestDetailsRequest"),
            ("GetVolumeStats", "VolumeStatsRequest"),
            ("ReadStdout", "ReadStreamRequest"),
            ("ReadStderr", "ReadStreamRequest"),
            ("WriteStdin", "WriteStreamRequest"),
            ("MemAgentMemcgSet", "MemAgentMemcgConfig"),
            ("MemAgentCompactSet", "MemAgentCompactConfig"),
        ];
        for (method, expected) in others {
            assert_eq!(rule(method), expected);
        }
        for endpoint in Endpoint::ALL {
            let is_other = others.iter().any(|(method, _)| *method == endpoint.method());
            match endpoint.service() {
                ServiceName::Health => assert_eq!(endpoint.policy_rule(), None),
                ServiceName::AgentService if !is_other => {
                    assert_eq!(
                        endpoint.policy_rule(),
                        Some(format!("{}Request", endpoint.method()).as_str())
                    );
                }
                ServiceName::AuditService => {
                    assert_eq!(
                        endpoint.policy_rule(),
                        Some(format!("Audit{}Request", endpoint.method()).as_str())
                    );
                }
                ServiceName::AgentService => {}
            }
            assert_eq!(Endpoint::find(endpoint.service().as_str(), endpoint.method()), Some(endpoint));
        }
        assert_eq!(Endpoint::find("grpc.Health", "CreateContainer"), None);
    }
}
