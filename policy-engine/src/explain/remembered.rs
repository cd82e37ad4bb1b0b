//! Explanations that were given before: tracing costs far more than deciding, and whoever asks what is denied asks it again, a probe
//! each second, a hostile host as often as it can.

use super::Explanation;
use crate::decision::Denial;
use crate::request::RequestName;
use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use regorus::Value;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Explanations that are kept; the oldest goes first.
const MAX_KEPT: usize = 64;
/// Longest explanation that is kept: names in it may be the request's.
const MAX_KEPT_BYTES: usize = 4096;

/// What was asked: request, denial, its fields and the policy's state, in one digest.
pub(super) type Question = [u8; SHA256_OUTPUT_LEN];

/// Some of the explanations of one policy.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<VecDeque<(Question, Explanation)>>);

/// `None`: what is asked has no text, and is not remembered.
pub(super) fn question(
    request: &RequestName,
    denial: &Denial,
    input: &Value,
    data: &Value,
) -> Option<Question> {
    let mut digest = Context::new(&SHA256);
    for part in [request.as_str(), denial.code(), &input.to_json_str().ok()?, &data.to_json_str().ok()?] {
        digest.update(&part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.finish().as_ref().try_into().ok()
}

impl Remembered {
    pub(super) fn find(&self, question: &Question) -> Option<Explanation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(asked, _)| asked == question).map(|(_, answer)| answer.clone())
    }

    pub(super) fn keep(&self, question: Question, answer: &Explanation) {
        let reasons = answer.reasons.iter();
        let bytes = reasons.map(|reason| {
            let fields: usize = reason.fields.iter().map(String::len).sum();
            reason.rule.len() + reason.statement.len() + fields
        });
        if bytes.sum::<usize>() > MAX_KEPT_BYTES {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().any(|(asked, _)| *asked == question) {
            return;
        }
        if kept.len() >= MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((question, answer.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Reason;
    use super::*;

    fn explanation(field: &str) -> Explanation {
        let reason = Reason {
            rule: "rule".to_owned(),
            line: 7,
            statement: "input.a == 1".to_owned(),
            fields: vec![field.to_owned()],
        };
        Explanation { request: name(), code: Some("POLICY_DENIED"), reasons: vec![reason] }
    }

    fn name() -> RequestName {
        RequestName::new("ExecProcessRequest").unwrap()
    }

    #[test]
    fn what_differs_is_another_question() {
        let [one, two] = [r#"{"a": 1}"#, r#"{"a": 2}"#].map(|json| Value::from_json_str(json).unwrap());
        let ask =
            |denial: Denial, input: &Value, data: &Value| question(&name(), &denial, input, data).unwrap();
        let first = ask(Denial::Rule, &one, &two);
        assert_eq!(first, ask(Denial::Rule, &one.clone(), &two.clone()));
        let other = RequestName::new("CopyFileRequest").unwrap();
        let others = [
            ask(Denial::Undefined, &one, &two),
            ask(Denial::Rule, &two, &two),
            ask(Denial::Rule, &one, &one),
            ask(Denial::Rule, &two, &one),
            question(&other, &Denial::Rule, &one, &two).unwrap(),
        ];
        assert!(!others.contains(&first));
    }

    #[test]
    fn the_oldest_goes_first_and_never_are_there_too_many() {
        let remembered = Remembered::default();
        let asked = |index: usize| Value::from(u64::try_from(index).unwrap());
        let questions: Vec<Question> = (0..MAX_KEPT + 1)
            .map(|index| question(&name(), &Denial::Rule, &asked(index), &Value::Null).unwrap())
            .collect();
        for (index, question) in questions.iter().enumerate() {
            remembered.keep(*question, &explanation(&index.to_string()));
            remembered.keep(*question, &explanation("again"));
        }
        assert_eq!(remembered.0.lock().unwrap().len(), MAX_KEPT);
        assert_eq!(remembered.find(&questions[0]), None);
        assert_eq!(remembered.find(&questions[1]), Some(explanation("1")));
        assert_eq!(remembered.find(&questions[MAX_KEPT]), Some(explanation(&MAX_KEPT.to_string())));
    }

    #[test]
    fn evil_host_long_names_are_not_kept() {
        let remembered = Remembered::default();
        let question = question(&name(), &Denial::Rule, &Value::Null, &Value::Null).unwrap();
        remembered.keep(question, &explanation(&"x".repeat(MAX_KEPT_BYTES)));
        assert_eq!(remembered.find(&question), None);
    }
}
