//! The reference: regorus 0.9.1 as upstream's agent configures and uses it.

use serde_json::{Value as Json, json};

/// What upstream's agent would answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    Denied,
    Undefined,
    Error(String),
}

pub struct Reference {
    engine: regorus091::Engine,
    fresh: regorus091::Engine,
    pub state: Json,
}

impl Reference {
    pub fn new(text: &str) -> Self {
        let mut engine = regorus091::Engine::new();
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine.add_policy("agent_policy".to_owned(), text.to_owned()).unwrap();
        let state = json!({ "pstate": {} });
        engine.add_data(regorus091::Value::from_json_str(&state.to_string()).unwrap()).unwrap();
        Self { fresh: engine.clone(), engine, state }
    }

    /// The value of the rule.
    pub fn value(&mut self, name: &str, input: &str) -> Result<Option<regorus091::Value>, String> {
        self.engine.set_input_json(input).map_err(|error| error.to_string())?;
        let results = self.engine.eval_query(format!("data.agent_policy.{name}"), false);
        let _ = self.engine.take_prints();
        let results = match results {
            Ok(results) => results,
            Err(error) => {
                // An error leaves contexts of the failed evaluation behind.
                self.engine = self.fresh.clone();
                self.engine.clear_data();
                self.engine
                    .add_data(regorus091::Value::from_json_str(&self.state.to_string()).unwrap())
                    .unwrap();
                return Err(error.to_string());
            }
        };
        Ok(results
            .result
            .first()
            .and_then(|result| result.expressions.first())
            .map(|found| found.value.clone()))
    }

    pub fn decide(&mut self, name: &str, input: &str) -> Outcome {
        match self.value(name, input) {
            Err(error) => Outcome::Error(error),
            Ok(None) => Outcome::Undefined,
            Ok(Some(regorus091::Value::Bool(true))) => Outcome::Allowed,
            Ok(Some(regorus091::Value::Bool(false))) => Outcome::Denied,
            Ok(Some(value)) => self.object(&value),
        }
    }

    fn object(&mut self, value: &regorus091::Value) -> Outcome {
        let Ok(answer) = serde_json::from_str::<Json>(&value.to_json_str().unwrap()) else {
            return Outcome::Error("not an object".to_owned());
        };
        match answer.get("allowed") {
            Some(Json::Bool(true)) => {}
            Some(Json::Bool(false)) => return Outcome::Denied,
            _ => return Outcome::Error("no `allowed`".to_owned()),
        }
        if let Some(ops) = answer.get("ops").filter(|ops| !ops.is_null()) {
            let Ok(patch) = serde_json::from_value::<json_patch::Patch>(ops.clone()) else {
                return Outcome::Error("no patch".to_owned());
            };
            let mut state = self.state.clone();
            if let Err(error) = json_patch::patch(&mut state, &patch.0) {
                return Outcome::Error(error.to_string());
            }
            self.state = state;
            self.engine.clear_data();
            self.engine.add_data(regorus091::Value::from_json_str(&self.state.to_string()).unwrap()).unwrap();
        }
        Outcome::Allowed
    }
}
