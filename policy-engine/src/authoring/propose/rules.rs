//! The text: defaults, one definition for each request, and the requests as data, in the shape of generated policies.

use serde_json::{Map, Value as Json};

use super::identifiers::{CONTAINER, PATTERN, PROCESS, SANDBOX};
use super::{Identifiers, Sample, all_rules};

/// The form of an identifier.
const IDENTIFIER: &str = "^[A-Za-z0-9_-]{1,128}$";

/// Where the sandbox is kept in the state: no identifier of a container, which may have letters, digits, `_` and `-`.
const KEPT_SANDBOX: &str = "$sandbox";

const HEADER: &str = "# Made by `innerkeep policy record` from requests that were seen: it allows those and denies everything else.
# Read it before it is used: what was seen is not what should be allowed.
package agent_policy
";

pub(super) fn text(samples: &[Sample], identifiers: Identifiers) -> String {
    let mut text = format!("{HEADER}\ndefault AllowRequestsFailingPolicy := false\n");
    for rule in all_rules() {
        text.push_str(&format!("default {rule} := false\n"));
    }
    let mut data: Map<String, Json> = Map::new();
    for rule in all_rules() {
        let own: Vec<&Sample> = samples.iter().filter(|sample| sample.rule == rule).collect();
        if own.is_empty() {
            continue;
        }
        if identifiers == Identifiers::Exact {
            text.push_str(&format!(
                "\n{rule} if {{\n    some known in policy_data.{rule}\n    input == known\n}}\n"
            ));
        } else {
            own.iter().enumerate().for_each(|(index, sample)| text.push_str(&definition(sample, index)));
        }
        data.insert(rule.to_owned(), own.iter().map(|sample| sample.content.clone()).collect());
    }
    let data = serde_json::to_string_pretty(&Json::Object(data)).unwrap_or_default();
    text.push_str(&format!("\npolicy_data := {data}\n"));
    text
}

/// One definition: the request is the known one, but for what is bound.
fn definition(sample: &Sample, index: usize) -> String {
    let mut functions = Functions { prefix: format!("same_{}_{index}", sample.rule), texts: Vec::new() };
    let mut body = Body::default();
    body.value(&sample.content, "input", "known", true, &mut functions);
    let mut head = vec![format!("known := policy_data.{}[{index}]", sample.rule)];
    let creates_sandbox = sample.rule == "CreateSandboxRequest" && body.sandbox;
    if body.container {
        head.push("container := input.container_id".to_owned());
        match sample.container {
            Some(created) => head.push(format!("data.pstate[container] == {created}")),
            None => {
                head.push(format!("regex.match({}, container)", literal(IDENTIFIER)));
                head.push("not data.pstate[container]".to_owned());
            }
        }
    }
    if creates_sandbox {
        head.push("sandbox := input.sandbox_id".to_owned());
        head.push(format!("regex.match({}, sandbox)", literal(IDENTIFIER)));
    } else if body.sandbox {
        head.push(format!("sandbox := data.pstate[{}]", literal(KEPT_SANDBOX)));
    }
    let path = "concat(\"/\", [\"/pstate\", container])";
    let operations = match (sample.rule, sample.container) {
        ("CreateContainerRequest", _) if body.container => {
            Some(format!("{{\"op\": \"add\", \"path\": {path}, \"value\": {index}}}"))
        }
        ("CreateSandboxRequest", _) if creates_sandbox => {
            let path = literal(&format!("/pstate/{KEPT_SANDBOX}"));
            Some(format!("{{\"op\": \"add\", \"path\": {path}, \"value\": sandbox}}"))
        }
        ("RemoveContainerRequest", Some(_)) => Some(format!("{{\"op\": \"remove\", \"path\": {path}}}")),
        _ => None,
    };
    let value = operations
        .map_or_else(String::new, |operations| format!(" := {{\"allowed\": true, \"ops\": [{operations}]}}"));
    let statements: Vec<String> =
        head.into_iter().chain(body.statements).map(|statement| format!("    {statement}\n")).collect();
    let functions = functions.texts.concat();
    format!("\n{}{value} if {{\n{}}}\n{functions}", sample.rule, statements.concat())
}

/// Functions that a definition is made of, one for each object: the machine has 255 registers for each.
struct Functions {
    prefix: String,
    texts: Vec<String>,
}

/// Statements that compare one object.
#[derive(Default)]
struct Body {
    statements: Vec<String>,
    container: bool,
    sandbox: bool,
}

impl Body {
    /// Compares the value at `asked` with the one at `known`: as one, where it is no object and nothing in it is bound.
    fn value(&mut self, value: &Json, asked: &str, known: &str, here: bool, functions: &mut Functions) {
        match value {
            Json::Object(members) if here => {
                self.statements
                    .push(format!("{{key | some key, _ in {asked}}} == {{key | some key, _ in {known}}}"));
                for (name, value) in members {
                    let below = |base: &str| format!("{base}[{}]", literal(name));
                    self.value(value, &below(asked), &below(known), false, functions);
                }
            }
            Json::Object(members) if !members.is_empty() => self.call(value, asked, known, functions),
            Json::Array(items) if is_bound(value) => {
                self.statements.push(format!("count({asked}) == count({known})"));
                for (index, value) in items.iter().enumerate() {
                    let below = |base: &str| format!("{base}[{index}]");
                    self.value(value, &below(asked), &below(known), false, functions);
                }
            }
            Json::String(text) if is_bound(value) => self.text(text, asked, known),
            _ => self.statements.push(format!("{asked} == {known}")),
        }
    }

    /// Compares an object by a function of its own.
    fn call(&mut self, value: &Json, asked: &str, known: &str, functions: &mut Functions) {
        let mut inner = Self::default();
        inner.value(value, "asked", "known", true, functions);
        self.container |= inner.container;
        self.sandbox |= inner.sandbox;
        let name = format!("{}_{}", functions.prefix, functions.texts.len());
        let bound: String = [(inner.container, ", container"), (inner.sandbox, ", sandbox")]
            .into_iter()
            .filter_map(|(is_used, variable)| is_used.then_some(variable))
            .collect();
        let statements: String =
            inner.statements.iter().map(|statement| format!("    {statement}\n")).collect();
        functions.texts.push(format!("\n{name}(asked, known{bound}) if {{\n{statements}}}\n"));
        self.statements.push(format!("{name}({asked}, {known}{bound})"));
    }

    fn text(&mut self, text: &str, asked: &str, known: &str) {
        if text == PROCESS {
            self.statements.push(format!("regex.match({}, {asked})", literal(IDENTIFIER)));
            return;
        }
        let (own, sandbox) = (text.contains(CONTAINER), text.contains(SANDBOX));
        self.container |= own;
        self.sandbox |= sandbox;
        let mut wanted = known.to_owned();
        for (stands, is_there, variable) in [(CONTAINER, own, "container"), (SANDBOX, sandbox, "sandbox")] {
            if is_there {
                wanted = format!("replace({wanted}, {}, {variable})", literal(stands));
            }
        }
        if text.starts_with(PATTERN) {
            let pattern = format!("trim_prefix({wanted}, {})", literal(PATTERN));
            self.statements.push(format!("regex.match({pattern}, {asked})"));
        } else {
            self.statements.push(format!("{asked} == {wanted}"));
        }
    }
}

/// Whether a placeholder is somewhere in a value.
fn is_bound(value: &Json) -> bool {
    match value {
        Json::String(_) => super::identifiers::holds_a_placeholder(value),
        Json::Array(items) => items.iter().any(is_bound),
        Json::Object(members) => members.values().any(is_bound),
        _ => false,
    }
}

/// A string of the policy: JSON's form is Rego's.
fn literal(text: &str) -> String {
    Json::from(text).to_string()
}
