//! What is asked: the name of a request and its content as policies see it.

use crate::error::{InputError, shortened};
use crate::limits::Limits;
use regorus::Value;
use std::fmt;

/// Longest name of a request.
const MAX_NAME: usize = 64;

/// The name of a request message, which is the name of the rule that decides it: `CreateContainerRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestName(String);

impl RequestName {
    /// A name: letters and digits, a letter first, at most 64 bytes. It becomes part of a query, so that nothing else
    /// may be in it.
    ///
    /// # Errors
    /// `POLICY_INPUT_NAME`.
    pub fn new(name: &str) -> Result<Self, InputError> {
        let well_formed = name.len() <= MAX_NAME
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // GUARD: policy-request-name -> evil_runtime_name_that_is_a_query
        if !well_formed {
            return Err(InputError::Name { found: shortened(name, MAX_NAME) });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the rule that decides it.
    pub(crate) fn rule(&self) -> String {
        format!("data.agent_policy.{}", self.0)
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The content of a request, in the shape that policies are written for: every field present, proto field names,
/// enumerations as numbers. It prints no content.
#[derive(Clone)]
pub struct Input(pub(crate) Value);

impl Input {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// `POLICY_INPUT_TOO_LARGE`, `POLICY_INPUT_JSON`.
    pub fn from_json(json: &str, limits: &Limits) -> Result<Self, InputError> {
        // GUARD: policy-input-cap -> evil_runtime_oversize_request
        if json.len() > limits.input_bytes {
            return Err(InputError::TooLarge { found: json.len(), max: limits.input_bytes });
        }
        let value = Value::from_json_str(json)
            .map_err(|error| InputError::Json { message: shortened(&error.to_string(), 256) })?;
        // GUARD: policy-input-object -> evil_runtime_request_that_is_no_object
        if value.as_object().is_err() {
            return Err(InputError::Json { message: "it is another kind of value".to_owned() });
        }
        Ok(Self(value))
    }

    /// The content in JSON: everything that was in the request. For whoever wrote it or may read it anyway.
    ///
    /// # Errors
    /// `POLICY_INPUT_JSON`: it holds a value that JSON has no form for.
    pub fn to_json(&self) -> Result<serde_json::Value, InputError> {
        let said = |message: String| InputError::Json { message: shortened(&message, 256) };
        let text = self.0.to_json_str().map_err(|error| said(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| said(error.to_string()))
    }

    /// The object without fields, which is what a policy is asked with about itself.
    #[must_use]
    pub fn empty() -> Self {
        Self(Value::new_object())
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input(..)")
    }
}
