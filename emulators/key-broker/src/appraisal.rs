//! Appraisal: claims become a trustworthiness vector (AR4SI) and a status in the token. It decides nothing by itself.

use std::sync::{Mutex, PoisonError};

use regorus::{Engine, Value};
use serde_json::{Map, json};

use crate::reference::ReferenceValues;
use crate::rego::{self, RegoError};

/// The policy where nobody set another.
pub(crate) const DEFAULT: &str = include_str!("default-attestation-policy.rego");
/// The one policy id.
pub(crate) const POLICY_ID: &str = "default";
const VECTOR: [&str; 8] = [
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
];

/// What a policy makes of one guest or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appraisal {
    /// `none`, `affirming`, `warning` or `contraindicated`: the worst of the vector.
    pub(crate) status: &'static str,
    /// The eight claims.
    pub(crate) vector: Map<String, serde_json::Value>,
}

struct State {
    text: String,
    references: ReferenceValues,
    engine: Engine,
}

/// The attestation policy with its reference values.
pub(crate) struct Appraiser {
    state: Mutex<State>,
}

impl State {
    fn new(text: String, references: ReferenceValues) -> Result<Self, RegoError> {
        let failed = |error: &dyn std::fmt::Display| RegoError::Parse(error.to_string());
        let mut engine = rego::parse(&text)?;
        let data = json!({"reference": references.0});
        let values = data.get("reference").map(rego::value).transpose()?.unwrap_or(Value::Undefined);
        engine.add_data(rego::value(&data)?).map_err(|error| failed(&error))?;
        let lookup = move |arguments: Vec<Value>| {
            let found = arguments.first().and_then(|name| values.as_object().ok()?.get(name).cloned());
            Ok(found.unwrap_or_else(Value::new_array))
        };
        engine
            .add_extension("query_reference_value".to_owned(), 1, Box::new(lookup))
            .map_err(|error| failed(&error))?;
        let mut state = Self { text, references, engine };
        state.evaluate(Value::new_object()).map_err(|error| failed(&error))?;
        Ok(state)
    }

    fn evaluate(&mut self, input: Value) -> Result<Value, RegoError> {
        self.engine.set_input(input);
        let results = self
            .engine
            .eval_query("data.policy".to_owned(), false)
            .map_err(|error| RegoError::Evaluation(format!("{error:#}")))?;
        let first = results.result.first().and_then(|result| result.expressions.first());
        Ok(first.map_or(Value::Undefined, |expression| expression.value.clone()))
    }
}

impl Appraiser {
    /// A policy with reference values.
    ///
    /// # Errors
    /// For text that cannot be used.
    pub(crate) fn new(text: String, references: ReferenceValues) -> Result<Self, RegoError> {
        Ok(Self { state: Mutex::new(State::new(text, references)?) })
    }

    /// Puts another policy in force.
    pub(crate) fn replace_policy(&self, text: String) -> Result<(), RegoError> {
        let mut state = self.lock();
        *state = State::new(text, state.references.clone())?;
        Ok(())
    }

    /// Puts other reference values in force.
    pub(crate) fn replace_references(&self, references: ReferenceValues) -> Result<(), RegoError> {
        let mut state = self.lock();
        *state = State::new(state.text.clone(), references)?;
        Ok(())
    }

    /// The reference values in force.
    pub(crate) fn references(&self) -> ReferenceValues {
        self.lock().references.clone()
    }

    /// Appraises the annotated evidence of one guest or device.
    ///
    /// # Errors
    /// For a policy that fails or gives claims that are no numbers of AR4SI.
    pub(crate) fn appraise(&self, evidence: &serde_json::Value) -> Result<Appraisal, RegoError> {
        let found = self.lock().evaluate(rego::value(evidence)?)?;
        let mut vector = Map::new();
        let mut worst = Tier::None;
        for name in VECTOR {
            let rule = Value::from(name.replace('-', "_"));
            let claim = found.as_object().ok().and_then(|rules| rules.get(&rule).cloned());
            let claim = match claim {
                None | Some(Value::Undefined) => 0,
                Some(claim) => claim
                    .as_i64()
                    .ok()
                    .and_then(|claim| i8::try_from(claim).ok())
                    .ok_or_else(|| RegoError::Evaluation(format!("{name}: expected -128 to 127")))?,
            };
            worst = worst.max(Tier::of(claim));
            vector.insert(name.to_owned(), claim.into());
        }
        Ok(Appraisal { status: worst.name(), vector })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Appraiser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Appraiser")
    }
}

/// Tiers of AR4SI, from the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    None,
    Affirming,
    Warning,
    Contraindicated,
}

impl Tier {
    const fn of(claim: i8) -> Self {
        match claim {
            -1..=1 => Self::None,
            -32..=31 => Self::Affirming,
            -96..=95 => Self::Warning,
            _ => Self::Contraindicated,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Affirming => "affirming",
            Self::Warning => "warning",
            Self::Contraindicated => "contraindicated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tdx(debug: bool, status: &str) -> serde_json::Value {
        json!({"tdx": {
            "tcb_status": status, "collateral_expiration_status": "0", "td_attributes": {"debug": debug},
            "quote": {"body": {"mr_td": "aa"}},
        }})
    }

    #[test]
    fn the_default_policy_judges_hardware_configuration_and_measurement() {
        let appraiser = Appraiser::new(DEFAULT.to_owned(), ReferenceValues::default()).unwrap();
        let status = |evidence: &serde_json::Value| appraiser.appraise(evidence).unwrap().status;
        assert_eq!(status(&tdx(false, "UpToDate")), "warning");
        assert_eq!(status(&tdx(false, "OutOfDate")), "contraindicated");
        assert_eq!(status(&json!({"sample": {}})), "contraindicated");
        let mut references = ReferenceValues::default();
        references.0.insert("mr_td".to_owned(), vec!["aa".into()]);
        references.0.insert("snp_launch_measurement".to_owned(), vec!["bb".into()]);
        appraiser.replace_references(references).unwrap();
        assert_eq!(status(&tdx(false, "UpToDate")), "affirming");
        assert_eq!(status(&tdx(true, "UpToDate")), "warning");
        let snp = |debug| json!({"snp": {"measurement": "bb", "policy_debug_allowed": debug}});
        assert_eq!(status(&snp(false)), "affirming");
        assert_eq!(status(&snp(true)), "warning");
        let vector = appraiser.appraise(&tdx(false, "UpToDate")).unwrap().vector;
        assert_eq!((vector.len(), &vector["executables"], &vector["file-system"]), (8, &3.into(), &0.into()));
        assert_eq!(appraiser.references().0.len(), 2);
    }

    #[test]
    fn other_policies_see_data_and_are_held_to_numbers() {
        let text =
            "package policy\nhardware := 2 if data.reference.x[0] == input.x\nfile_system := input.claim\n";
        let appraiser = Appraiser::new(DEFAULT.to_owned(), ReferenceValues::default()).unwrap();
        let mut references = ReferenceValues::default();
        references.0.insert("x".to_owned(), vec![7.into()]);
        appraiser.replace_references(references).unwrap();
        appraiser.replace_policy(text.to_owned()).unwrap();
        assert_eq!(appraiser.appraise(&json!({"x": 7})).unwrap().status, "affirming");
        assert_eq!(appraiser.appraise(&json!({"x": 8})).unwrap().status, "none");
        for claim in [json!(200), json!("2"), json!(1.5)] {
            assert!(appraiser.appraise(&json!({"claim": claim})).is_err());
        }
        assert!(appraiser.replace_policy("package other".to_owned()).is_err());
        assert_eq!(appraiser.appraise(&json!({"x": 7})).unwrap().status, "affirming");
    }
}
