//! Requests that no policy means to allow.

use std::collections::BTreeSet;

use protocol::Endpoint;
use serde_json::{Value as Json, json};

use crate::authoring::complete;
use crate::engine::PolicyEngine;
use crate::request::{Input, RequestName};

/// Which of them are allowed.
#[derive(Debug, Default)]
pub(super) struct Probes {
    allowed: BTreeSet<&'static str>,
    /// A command with a terminal.
    pub(super) terminal: bool,
}

impl Probes {
    /// Asks all; nothing has an effect.
    pub(super) fn ask(engine: &PolicyEngine) -> Self {
        let mut probes = Self::default();
        for endpoint in Endpoint::ALL {
            let Some(rule) = endpoint.policy_rule() else { continue };
            if allows(engine, endpoint, &hostile(endpoint, false)) {
                probes.allowed.insert(rule);
            }
        }
        probes.terminal = allows(engine, Endpoint::ExecProcess, &hostile(Endpoint::ExecProcess, true));
        probes
    }

    /// Whether a request was allowed that could not be meant.
    pub(super) fn is_open(&self, rule: &str) -> bool {
        self.allowed.contains(rule)
    }
}

fn allows(engine: &PolicyEngine, endpoint: Endpoint, partial: &Json) -> bool {
    let input = complete(endpoint, partial)
        .and_then(|whole| Input::from_json(&whole.to_string(), engine.limits()))
        .and_then(|input| Ok((RequestName::new(endpoint.message())?, input)));
    input.is_ok_and(|(name, input)| {
        let decision = engine.decide(&name, &input);
        let allowed = decision.is_allowed();
        decision.undo();
        allowed
    })
}

/// Names that nobody has.
const NOBODY: &str = "innerkeep-lint-nobody";

fn hostile(endpoint: Endpoint, terminal: bool) -> Json {
    let capabilities = json!({ "Bounding": ["CAP_SYS_ADMIN"], "Effective": ["CAP_SYS_ADMIN"], "Permitted": ["CAP_SYS_ADMIN"] });
    let process = json!({
        "Args": ["/innerkeep-lint/evil"], "Env": ["LD_PRELOAD=/innerkeep-lint/evil.so"], "Cwd": "/innerkeep-lint",
        "Terminal": terminal, "User": {}, "Capabilities": capabilities,
    });
    match endpoint {
        Endpoint::ExecProcess => json!({ "container_id": NOBODY, "exec_id": NOBODY, "process": process }),
        Endpoint::CreateContainer => json!({
            "container_id": NOBODY, "exec_id": NOBODY,
            "OCI": {
                "Version": "1.1.0", "Process": process, "Root": { "Path": "/innerkeep-lint/rootfs" }, "Linux": {},
                "Mounts": [{ "destination": "/innerkeep-lint", "source": "/", "type_": "bind", "options": ["rbind", "rw"] }],
                "Hooks": { "Prestart": [{ "Path": "/innerkeep-lint/evil" }] },
            },
        }),
        Endpoint::CopyFile => {
            json!({ "path": "/innerkeep-lint/../etc/shadow", "file_type": "Regular", "file_mode": 0o104_777 })
        }
        Endpoint::SetPolicy => {
            json!({ "policy": "package agent_policy\n\ndefault ExecProcessRequest := true\n" })
        }
        Endpoint::ReadStdout | Endpoint::ReadStderr | Endpoint::WriteStdin | Endpoint::StatsContainer => {
            json!({ "container_id": NOBODY, "exec_id": NOBODY })
        }
        _ => json!({}),
    }
}
