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
    create_sandbox: CreateSandbox(CreateSandboxRequest) -> wire::Empty;
    destroy_sandbox: DestroySandbox(DestroySandboxRequest) -> wire::Empty;
    set_policy: SetPolicy(SetPolicyRequest) -> wire::Empty;
}
