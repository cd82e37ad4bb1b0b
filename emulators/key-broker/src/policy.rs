//! The resource policy: who gets what. Rego with Trustee's input (claims of the token) and data (what is asked for).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use regorus::{Engine, Value};
use serde::Serialize;

use crate::rego::{self, RegoError};

/// Trustee's default: everything to every verified guest, nothing to sample evidence.
pub(crate) const DEFAULT: &str = include_str!("default-resource-policy.rego");
const RULE: &str = "data.policy.allow";
/// Most requests whose engine is kept ready.
const MAXIMUM_PREPARED: usize = 256;

/// What is asked for: the `data` of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Wanted<'a> {
    pub(crate) plugin: &'a str,
    #[serde(rename = "resource-path")]
    pub(crate) path: &'a [String],
    pub(crate) query: &'a BTreeMap<String, String>,
}

struct Compiled {
    text: String,
    parsed: Engine,
    /// Engines with the data of one request, analysed once.
    prepared: Mutex<HashMap<String, Arc<Mutex<Engine>>>>,
}

/// The policy that is in force.
pub(crate) struct ResourcePolicy {
    current: RwLock<Arc<Compiled>>,
}

impl Compiled {
    fn new(text: &str) -> Result<Self, RegoError> {
        let compiled = Self { text: text.to_owned(), parsed: rego::parse(text)?, prepared: Mutex::default() };
        // Analysis happens at the first evaluation; a policy that fails it is refused now, not at a guest's request.
        let path = ["a", "b", "c"].map(str::to_owned);
        let probe = Wanted { plugin: "resource", path: &path, query: &BTreeMap::new() };
        let mut engine = compiled.engine(&probe)?;
        rego::evaluate(&mut engine, RULE, Value::new_object())
            .map_err(|error| RegoError::Parse(error.to_string()))?;
        Ok(compiled)
    }

    fn engine(&self, wanted: &Wanted<'_>) -> Result<Engine, RegoError> {
        let failed = |error: &dyn std::fmt::Display| RegoError::Evaluation(error.to_string());
        let data = serde_json::to_value(wanted).map_err(|error| failed(&error))?;
        let mut engine = self.parsed.clone();
        engine.add_data(rego::value(&data)?).map_err(|error| failed(&error))?;
        Ok(engine)
    }

    fn prepared(&self, wanted: &Wanted<'_>) -> Result<Arc<Mutex<Engine>>, RegoError> {
        let key = serde_json::to_string(wanted).unwrap_or_default();
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = prepared.get(&key) {
            return Ok(Arc::clone(engine));
        }
        if prepared.len() >= MAXIMUM_PREPARED {
            prepared.clear();
        }
        let engine = Arc::new(Mutex::new(self.engine(wanted)?));
        prepared.insert(key, Arc::clone(&engine));
        Ok(engine)
    }
}

impl ResourcePolicy {
    /// A policy from text.
    ///
    /// # Errors
    /// For text that does not parse or has no `data.policy.allow`.
    pub(crate) fn new(text: &str) -> Result<Self, RegoError> {
        Ok(Self { current: RwLock::new(Arc::new(Compiled::new(text)?)) })
    }

    /// Puts another policy in force.
    pub(crate) fn replace(&self, text: &str) -> Result<(), RegoError> {
        let compiled = Arc::new(Compiled::new(text)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = compiled;
        Ok(())
    }

    /// The text in force.
    pub(crate) fn text(&self) -> String {
        self.current().text.clone()
    }

    /// Whether a guest with these claims gets it. Undefined is no; anything but a boolean is an error.
    pub(crate) fn allows(&self, wanted: &Wanted<'_>, claims: &Value) -> Result<bool, RegoError> {
        let engine = self.current().prepared(wanted)?;
        let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
        match rego::evaluate(&mut engine, RULE, claims.clone())? {
            Value::Bool(allowed) => Ok(allowed),
            Value::Undefined => Ok(false),
            _ => Err(RegoError::Evaluation("expected a boolean data.policy.allow".to_owned())),
        }
    }

    fn current(&self) -> Arc<Compiled> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for ResourcePolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResourcePolicy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn allows(
        policy: &ResourcePolicy,
        plugin: &str,
        path: &str,
        claims: &serde_json::Value,
    ) -> Result<bool, RegoError> {
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        let query = BTreeMap::from([("version".to_owned(), "2".to_owned())]);
        policy.allows(&Wanted { plugin, path: &path, query: &query }, &rego::value(claims).unwrap())
    }

    fn claims(tee: &str) -> serde_json::Value {
        json!({"submods": {"cpu0": {"ear.status": "contraindicated", "ear.veraison.annotated-evidence": {tee: {"debug": false}}}}})
    }

    #[test]
    fn the_default_policy_is_trustees() {
        let policy = ResourcePolicy::new(DEFAULT).unwrap();
        assert_eq!(allows(&policy, "resource", "a/b/c", &claims("tdx")), Ok(true));
        assert_eq!(allows(&policy, "resource", "a/b/c", &claims("snp")), Ok(true));
        assert_eq!(allows(&policy, "resource", "a/b/c", &claims("sample")), Ok(false));
        assert_eq!(allows(&policy, "other", "a/b/c", &claims("tdx")), Ok(false));
        assert_eq!(allows(&policy, "resource", "a/b/c", &json!({})), Ok(false));
    }

    #[test]
    fn policies_see_path_query_and_claims() {
        let policy = ResourcePolicy::new(
            "package policy\nimport rego.v1\ndefault allow = false\nallow if {\n data[\"resource-path\"][0] == \"a\"\n data.query.version == \"2\"\n input.submods.cpu0[\"ear.veraison.annotated-evidence\"].tdx.debug == false\n}\n",
        )
        .unwrap();
        for _ in 0..2 {
            assert_eq!(allows(&policy, "resource", "a/b/c", &claims("tdx")), Ok(true));
            assert_eq!(allows(&policy, "resource", "x/b/c", &claims("tdx")), Ok(false));
            assert_eq!(allows(&policy, "resource", "a/b/c", &claims("snp")), Ok(false));
        }
        policy.replace("package policy\ndefault allow = true\n").unwrap();
        assert_eq!(allows(&policy, "resource", "x/b/c", &claims("sample")), Ok(true));
        assert_eq!(policy.text(), "package policy\ndefault allow = true\n");
    }

    #[test]
    fn policies_that_cannot_be_used_are_refused_and_leave_the_old_one() {
        let policy = ResourcePolicy::new(DEFAULT).unwrap();
        for text in [
            "",
            "package policy",
            "package other\ndefault allow = true",
            "package policy\nallow if {",
            "package policy\nallow if x > 1",
            "package policy\ndefault permit = true",
            "package policy\nallow { true }",
            &format!("package policy\ndefault allow = true\n#{}", "x\n#".repeat(MAXIMUM)),
        ] {
            assert!(matches!(policy.replace(text), Err(RegoError::Parse(_))), "{text}");
        }
        assert_eq!(policy.text(), DEFAULT);
    }
    const MAXIMUM: usize = rego::MAXIMUM_POLICY_BYTES / 3 + 1;

    #[test]
    fn no_boolean_is_no_permission() {
        let policy = ResourcePolicy::new("package policy\nallow := input.answer\n").unwrap();
        assert_eq!(allows(&policy, "resource", "a/b/c", &json!({"answer": true})), Ok(true));
        assert_eq!(allows(&policy, "resource", "a/b/c", &json!({})), Ok(false));
        for answer in [json!("true"), json!(1), json!([true]), json!(null)] {
            assert!(allows(&policy, "resource", "a/b/c", &json!({"answer": answer})).is_err());
        }
    }

    #[test]
    fn evil_policy_that_never_ends() {
        let text = "package policy\nimport rego.v1\ndefault allow := false\nallow if {\n input.go\n some a in numbers.range(1, 2000)\n some b in numbers.range(1, 2000)\n some c in numbers.range(1, 2000)\n a + b + c == 0\n}\n";
        let policy = ResourcePolicy::new(text).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = sender.send(allows(&policy, "resource", "a/b/c", &json!({"go": true})));
        });
        let found = receiver.recv_timeout(std::time::Duration::from_secs(30)).expect("an end");
        assert!(matches!(found, Err(RegoError::Evaluation(_))));
    }

    #[test]
    fn many_paths_keep_the_memory_bounded() {
        let policy = ResourcePolicy::new(DEFAULT).unwrap();
        for at in 0..MAXIMUM_PREPARED + 10 {
            assert_eq!(allows(&policy, "resource", &format!("a/b/{at}"), &claims("tdx")), Ok(true));
        }
        assert!(policy.current().prepared.lock().unwrap().len() <= MAXIMUM_PREPARED);
    }
}
