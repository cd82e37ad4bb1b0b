//! All ttrpc services: `.proto`, generated code, and the frames that carry them.
//!
//! ```text
//!  proto/*.proto ──build.rs, no protoc──▶ messages, clients, server traits ──▶ agent::…, health::…, …
//!         └──────── tests: descriptor = table of the wire, both ways
//!  bytes of a connection ──▶ frame::Frames ──▶ where frames begin and end, what they announce
//! ```
//!
//! ```
//! use protocol::attestation_agent::GetEvidenceRequest;
//! use protocol::Message as _;
//!
//! # fn main() -> Result<(), protocol::MessageError> {
//! let request = GetEvidenceRequest { RuntimeData: b"abc".to_vec(), ..GetEvidenceRequest::default() };
//! assert_eq!(request.write_to_bytes()?, b"\x0a\x03abc");
//! # Ok(())
//! # }
//! ```
//!
//! It refuses to: decide anything, open a socket, start a runtime. Names of fields are those of the wire, so that a
//! reader finds them in upstream's documents.

pub use protobuf::{Error as MessageError, Message, MessageDyn, MessageFull};

/// What the generator wrote; only the modules below name it.
#[expect(missing_debug_implementations, reason = "generated")]
#[expect(
    clippy::allow_attributes,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "generated"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

/// `grpc.AgentService`: messages, client, server trait.
pub mod agent {
    pub use crate::generated::agent::*;
    pub use crate::generated::agent_ttrpc::{AgentService, AgentServiceClient, create_agent_service};
    pub use protobuf::well_known_types::empty::Empty;
}

/// The specification of a container on the wire.
pub mod oci {
    pub use crate::generated::oci::*;
}

/// Network and storage types that several messages use.
pub mod types {
    pub use crate::generated::types::*;
}

/// Answers about volumes.
pub mod csi {
    pub use crate::generated::csi::*;
}

/// `attestation_agent.AttestationAgentService`: messages, client, server trait.
pub mod attestation_agent {
    pub use crate::generated::attestation_agent::*;
    pub use crate::generated::attestation_agent_ttrpc::{
        AttestationAgentService, AttestationAgentServiceClient, create_attestation_agent_service,
    };
}

/// `grpc.Health`: messages, client, server trait.
pub mod health {
    pub use crate::generated::health::*;
    pub use crate::generated::health_ttrpc::{Health, HealthClient, create_health};
}

/// `innerkeep.AuditService`: messages, client, server trait.
pub mod innerkeep {
    pub use crate::generated::innerkeep::*;
    pub use crate::generated::innerkeep_ttrpc::{AuditService, AuditServiceClient, create_audit_service};
}

/// `api.*`: the services of the Confidential Data Hub.
pub mod api {
    pub use crate::generated::api::*;
    pub use crate::generated::api_ttrpc::{
        GetResourceService, GetResourceServiceClient, ImagePullService, ImagePullServiceClient,
        SealedSecretService, SealedSecretServiceClient, SecureMountService, SecureMountServiceClient,
        create_get_resource_service, create_image_pull_service, create_sealed_secret_service,
        create_secure_mount_service,
    };
}

/// `keyprovider.KeyProviderService`: messages, client, server trait.
pub mod keyprovider {
    pub use crate::generated::keyprovider::*;
    pub use crate::generated::keyprovider_ttrpc::{
        KeyProviderService, KeyProviderServiceClient, create_key_provider_service,
    };
}

/// `innerkeep.ArtifactService`: messages, client, server trait.
pub mod artifact {
    pub use crate::generated::artifact::*;
    pub use crate::generated::artifact_ttrpc::{
        ArtifactService, ArtifactServiceClient, create_artifact_service,
    };
}

pub mod endpoint;
pub mod envelope;
pub mod frame;
pub mod hub;
pub mod ids;
pub mod limits;
mod serve;
pub mod status;

pub use endpoint::Endpoint;
pub use serve::{Refused, admitted};

#[cfg(test)]
mod tests;
