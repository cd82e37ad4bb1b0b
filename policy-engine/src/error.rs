//! Why a policy text was refused.

/// A policy text that is not put into force. The policy that was in force before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The evaluator found the policy wrong before any request: unsafe variables, recursion, conflicting rules.
    #[error("the policy does not hold together: {message}")]
    Analysis {
        /// What the evaluator said, shortened.
        message: String,
    },
    /// A builtin function that no agent offers to policies, or one whose answer the host controls.
    #[error("line {line} calls `{name}`, which policies of an agent do not have")]
    Builtin {
        /// The function.
        name: String,
        /// Where, counted from 1.
        line: u32,
    },
    /// The module is of another package, so that no request would ever find a rule.
    #[error("expected package `agent_policy`, found `{found}`")]
    Package {
        /// The package of the text.
        found: String,
    },
    /// Not Rego v1.
    #[error("the policy is not Rego: {message}")]
    Syntax {
        /// What the parser said, shortened.
        message: String,
    },
    /// Longer than the cap, checked before anything looks at the text.
    #[error("expected a policy of at most {max} bytes, found {found}")]
    TooLarge {
        /// Its length in bytes.
        found: usize,
        /// The cap in bytes.
        max: usize,
    },
}

impl PolicyError {
    /// The stable code of this error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Analysis { .. } => "POLICY_ANALYSIS",
            Self::Builtin { .. } => "POLICY_BUILTIN",
            Self::Package { .. } => "POLICY_PACKAGE",
            Self::Syntax { .. } => "POLICY_SYNTAX",
            Self::TooLarge { .. } => "POLICY_TOO_LARGE",
        }
    }
}

/// A request that cannot be asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Not one JSON object.
    #[error("expected the request as one JSON object: {message}")]
    Json {
        /// What the parser said; never the text.
        message: String,
    },
    /// A link to copy whose target is no text. (What upstream says.)
    #[error("parsing CopyFileRequest for policy: invalid symlink content, expected UTF-8")]
    Link,
    /// Not a name of a request: letters and digits, a letter first, at most 64 bytes.
    #[error("expected the name of a request message, found {found:?}")]
    Name {
        /// What was given, shortened.
        found: String,
    },
    /// Longer than the cap.
    #[error("expected a request of at most {max} bytes of JSON, found {found}")]
    TooLarge {
        /// Its length in bytes.
        found: usize,
        /// The cap in bytes.
        max: usize,
    },
}

impl InputError {
    /// The stable code of this error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Json { .. } => "POLICY_INPUT_JSON",
            Self::Link => "POLICY_INPUT_LINK",
            Self::Name { .. } => "POLICY_INPUT_NAME",
            Self::TooLarge { .. } => "POLICY_INPUT_TOO_LARGE",
        }
    }
}

/// At most `max` bytes of `text`, cut at a character.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
