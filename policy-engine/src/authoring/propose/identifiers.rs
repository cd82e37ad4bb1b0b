//! What differs from one start of a pod to the next, and what stands for it.

use std::collections::BTreeMap;

use protocol::Endpoint;
use serde_json::{Map, Value as Json};

use super::{Identifiers, Sample, text_of};
use crate::authoring::observed::Observed;

/// The identifier of the request's own container.
pub(super) const CONTAINER: &str = "$(container-id)";
/// The identifier of the sandbox.
pub(super) const SANDBOX: &str = "$(sandbox-id)";
/// The identifier of a process that was started beside the first.
pub(super) const PROCESS: &str = "$(process-id)";
/// In front of a string that is a pattern.
pub(super) const PATTERN: &str = "$(pattern)";
/// Identifiers of containers whose creation the request cannot know.
const ANY: &str = "[A-Za-z0-9_-]{16,128}";
/// Sixteen hexadecimal digits, as runtimes put them behind the identifier in paths that they share.
const UNIQUE: &str = "[0-9a-f]{16}";
/// Shorter identifiers are compared where they are a field, and not looked for in other strings.
const LONG: usize = 16;

/// Whether a request already holds what would be taken for a placeholder.
pub(super) fn holds_a_placeholder(value: &Json) -> bool {
    match value {
        Json::String(text) => [CONTAINER, SANDBOX, PROCESS, PATTERN].iter().any(|known| text.contains(known)),
        Json::Array(items) => items.iter().any(holds_a_placeholder),
        Json::Object(members) => members.values().any(holds_a_placeholder),
        _ => false,
    }
}

/// Identifiers that were seen.
pub(super) struct Known {
    kind: Identifiers,
    /// Of all containers that are created somewhere.
    containers: Vec<String>,
    sandbox: Option<String>,
    /// Whether it was created already.
    has_sandbox: bool,
    /// Containers that exist, and the request that created each.
    living: BTreeMap<String, usize>,
}

impl Known {
    pub(super) fn new(observed: &[Observed], kind: Identifiers) -> Self {
        let of = |endpoint: Endpoint, name: &str| -> Vec<String> {
            observed
                .iter()
                .filter(|request| request.endpoint == endpoint)
                .filter_map(|request| text_of(request.input.as_object()?, name))
                .filter(|id| is_identifier(id))
                .map(str::to_owned)
                .collect()
        };
        let mut containers = of(Endpoint::CreateContainer, "container_id");
        containers.sort();
        containers.dedup();
        let sandboxes = of(Endpoint::CreateSandbox, "sandbox_id");
        // With two of them nothing says which is meant.
        let one = sandboxes.first().filter(|first| sandboxes.iter().all(|other| other == *first));
        Self { kind, containers, sandbox: one.cloned(), has_sandbox: false, living: BTreeMap::new() }
    }

    /// What a request leaves behind, but for containers that are created.
    pub(super) fn after(&mut self, request: &Observed) {
        match request.endpoint {
            Endpoint::CreateSandbox => self.has_sandbox = true,
            Endpoint::RemoveContainer => {
                if let Some(id) =
                    request.input.as_object().and_then(|members| text_of(members, "container_id"))
                {
                    self.living.remove(id);
                }
            }
            _ => {}
        }
    }

    /// A container exists from here on.
    pub(super) fn created(&mut self, input: &Json, index: usize) {
        let id = input.as_object().and_then(|members| text_of(members, "container_id"));
        if let Some(id) = id.filter(|id| is_identifier(id)) {
            self.living.insert(id.to_owned(), index);
        }
    }

    /// A request with placeholders.
    pub(super) fn sample(&self, request: &Observed) -> Sample {
        let rule = request.rule();
        let Json::Object(members) = &request.input else {
            return Sample { rule, content: request.input.clone(), container: None };
        };
        if self.kind == Identifiers::Exact {
            return Sample { rule, content: request.input.clone(), container: None };
        }
        let creates = request.endpoint == Endpoint::CreateContainer;
        let sandbox = self
            .sandbox
            .as_deref()
            .filter(|_| self.has_sandbox || request.endpoint == Endpoint::CreateSandbox);
        let own = text_of(members, "container_id")
            .filter(|id| if creates { is_identifier(id) } else { self.living.contains_key(*id) });
        let mut content = Map::new();
        for (name, value) in members {
            let value = match (name.as_str(), value.as_str(), own) {
                ("container_id", Some(_), Some(_)) => Json::from(CONTAINER),
                ("exec_id", Some(id), Some(own)) if id == own => Json::from(CONTAINER),
                // The first process has an empty one in some requests.
                ("exec_id", Some(id), Some(_)) if is_identifier(id) && !creates => Json::from(PROCESS),
                ("sandbox_id", Some(id), _) if sandbox == Some(id) => Json::from(SANDBOX),
                _ => self.within(value, own, sandbox),
            };
            content.insert(name.clone(), value);
        }
        let container = own.and_then(|own| self.living.get(own).copied()).filter(|_| !creates);
        Sample { rule, content: Json::Object(content), container }
    }

    fn within(&self, value: &Json, own: Option<&str>, sandbox: Option<&str>) -> Json {
        match value {
            Json::String(text) => Json::from(self.text(text, own, sandbox)),
            Json::Array(items) => items.iter().map(|item| self.within(item, own, sandbox)).collect(),
            Json::Object(members) => {
                let within = |value| self.within(value, own, sandbox);
                Json::Object(members.iter().map(|(name, value)| (name.clone(), within(value))).collect())
            }
            other => other.clone(),
        }
    }

    /// A string with placeholders; a pattern where a plain placeholder does not do.
    fn text(&self, text: &str, own: Option<&str>, sandbox: Option<&str>) -> String {
        let (mut plain, mut pattern, mut needs_pattern) = (String::new(), String::new(), false);
        let mut rest = text;
        while !rest.is_empty() {
            let (taken, stands) = self.identifier_at(rest, own, sandbox);
            let Some(stands) = stands else {
                let mut letters = rest.chars();
                let Some(letter) = letters.next() else { break };
                plain.push(letter);
                push_escaped(&mut pattern, letter);
                rest = letters.as_str();
                continue;
            };
            rest = rest.get(taken..).unwrap_or_default();
            plain.push_str(stands);
            pattern.push_str(stands);
            needs_pattern |= stands == ANY;
            if let Some(behind) = unique_behind(rest) {
                pattern.push('-');
                pattern.push_str(UNIQUE);
                needs_pattern = true;
                rest = behind;
            }
        }
        if needs_pattern { format!("{PATTERN}^{pattern}$") } else { plain }
    }

    /// Which identifier a string begins with: its length, and what stands for it.
    fn identifier_at(
        &self,
        text: &str,
        own: Option<&str>,
        sandbox: Option<&str>,
    ) -> (usize, Option<&'static str>) {
        let begins = |id: &str| {
            id.len() >= LONG
                && text.strip_prefix(id).is_some_and(|rest| {
                    !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_')
                })
        };
        if let Some(own) = own.filter(|own| begins(own)) {
            return (own.len(), Some(CONTAINER));
        }
        if let Some(sandbox) = sandbox.filter(|sandbox| begins(sandbox)) {
            return (sandbox.len(), Some(SANDBOX));
        }
        let other = self.containers.iter().chain(&self.sandbox).find(|id| begins(id));
        other.map_or((0, None), |id| (id.len(), Some(ANY)))
    }
}

/// `-`, sixteen hexadecimal digits, and what follows, which begins with `-`.
fn unique_behind(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('-')?;
    let digits = rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).count();
    let behind = rest.get(16..)?;
    (digits == 16 && behind.starts_with('-')).then_some(behind)
}

/// What is compared as a form: letters, digits, `_` and `-`, of which no pattern is made.
pub(super) fn is_identifier(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A letter that stands for itself in a pattern.
fn push_escaped(pattern: &mut String, letter: char) {
    if letter.is_ascii_punctuation() {
        pattern.push('\\');
    }
    pattern.push(letter);
}
