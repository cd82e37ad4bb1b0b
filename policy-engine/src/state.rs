//! The state of a policy: a document that permissions may change.

use crate::decision::{Denial, LimitKind};
use crate::error::shortened;
use crate::limits::Limits;
use regorus::Value;
use serde::Deserialize;
use serde_json::Value as Json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The data document of one policy in force.
#[derive(Debug, Clone)]
pub(crate) struct State(Arc<Mutex<Document>>);

#[derive(Debug)]
struct Document {
    json: Json,
    data: Value,
    /// A change is staged; the next may begin when it is over.
    staged: bool,
}

/// What a rule may say beside yes and no.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    #[serde(default)]
    pub(crate) ops: Option<json_patch::Patch>,
}

impl State {
    /// What every policy begins with.
    pub(crate) fn new() -> Self {
        let json = serde_json::json!({ "pstate": {} });
        let data = Value::from_json_str(&json.to_string()).unwrap_or_else(|_| Value::new_object());
        Self(Arc::new(Mutex::new(Document { json, data, staged: false })))
    }

    /// The document as policies see it.
    pub(crate) fn data(&self) -> Value {
        self.lock().data.clone()
    }

    /// The document in JSON.
    pub(crate) fn json(&self) -> Json {
        self.lock().json.clone()
    }

    /// The right to change the state, which one request has at a time.
    pub(crate) fn begin(&self) -> Result<Staged, Denial> {
        let mut document = self.lock();
        // GUARD: policy-one-change-at-a-time -> evil_runtime_two_creates_at_once
        if document.staged {
            return Err(Denial::StateBusy);
        }
        document.staged = true;
        Ok(Staged { state: self.clone(), next: None })
    }

    fn lock(&self) -> MutexGuard<'_, Document> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to change the state, and the change. Dropped, it leaves the state as it was.
#[derive(Debug)]
pub(crate) struct Staged {
    state: State,
    next: Option<(Json, Value)>,
}

impl Staged {
    /// Applies `patch` to a copy of the whole document. Nothing is visible before [`commit`](Self::commit).
    pub(crate) fn apply(&mut self, patch: &json_patch::Patch, limits: &Limits) -> Result<(), Denial> {
        // GUARD: policy-patch-operations -> evil_policy_patch_of_many_operations
        if patch.0.len() > limits.patch_operations {
            return Err(Denial::Limit(LimitKind::State));
        }
        let mut json = self.state.json();
        json_patch::patch(&mut json, &patch.0)
            .map_err(|error| Denial::Patch { message: shortened(&error.to_string(), 256) })?;
        let text = json.to_string();
        // GUARD: policy-state-cap -> evil_runtime_state_that_grows
        if text.len() > limits.state_bytes {
            return Err(Denial::Limit(LimitKind::State));
        }
        // GUARD: policy-state-object -> evil_policy_patch_of_the_root
        if !json.is_object() {
            return Err(Denial::Patch { message: "the document is no object any more".to_owned() });
        }
        let data = Value::from_json_str(&text)
            .map_err(|error| Denial::Patch { message: shortened(&error.to_string(), 256) })?;
        self.next = Some((json, data));
        Ok(())
    }

    /// Puts the change into force.
    pub(crate) fn commit(mut self) {
        if let Some((json, data)) = self.next.take() {
            let mut document = self.state.lock();
            document.json = json;
            document.data = data;
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.state.lock().staged = false;
    }
}
