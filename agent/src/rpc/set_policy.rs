//! SetPolicy: another policy, if the old one agrees and, in a confidential guest, bound configuration lists its digest.

use protocol::agent::{Empty, SetPolicyRequest};
use protocol::status::RpcError;

use crate::context::Agent;
use crate::gate::Permitted;

/// All or nothing: a text that is no policy leaves the old one in force, with its state.
pub(crate) async fn handle(agent: &Agent, request: Permitted<SetPolicyRequest>) -> Result<Empty, RpcError> {
    agent.gate.replace_policy(&request.policy)?;
    Ok(Empty::new())
}
