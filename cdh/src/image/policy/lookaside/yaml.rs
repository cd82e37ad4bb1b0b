//! The part of YAML in which such configurations are written: nested mappings of texts.

use std::collections::BTreeMap;

use super::super::json::{JsonFault, quoted};

/// Deepest nesting.
const DEPTH_MAX: usize = 3;

/// A text or a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Mapping(BTreeMap<String, Node>),
    Text(String),
}

impl Node {
    pub(super) fn mapping(self, expected: &'static str) -> Result<BTreeMap<String, Self>, JsonFault> {
        match self {
            Self::Mapping(members) => Ok(members),
            Self::Text(_) => Err(JsonFault::new(expected, "a text")),
        }
    }

    pub(super) fn text(self, expected: &'static str) -> Result<String, JsonFault> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Mapping(_) => Err(JsonFault::new(expected, "a mapping")),
        }
    }
}

/// Reads a document.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Node>, JsonFault> {
    let mut lines = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        // A document may begin with this line.
        if lines.is_empty() && line == "---" {
            continue;
        }
        if let Some(line) = Line::parse(number + 1, line)? {
            lines.push(line);
        }
    }
    let mut rest = lines.as_slice();
    let top = mapping(&mut rest, 0, 1)?;
    match rest.first() {
        Some(line) => Err(line.fault("lines of one mapping under one another")),
        None => Ok(top),
    }
}

struct Line {
    number: usize,
    indent: usize,
    key: String,
    value: Option<String>,
}

impl Line {
    fn parse(number: usize, line: &str) -> Result<Option<Self>, JsonFault> {
        let fault = |expected| JsonFault::new(expected, format!("something else in line {number}"));
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if content.trim().is_empty() || content.starts_with('#') {
            return Ok(None);
        }
        let (key, rest) = scalar(content, true).ok_or(fault("a key, plain or quoted, and a colon"))?;
        let rest = rest.strip_prefix(':').ok_or(fault("a colon behind the key"))?;
        let value = rest.trim_start_matches(' ');
        if value.trim().is_empty() || (value.starts_with('#') && value.len() < rest.len()) {
            return Ok(Some(Self { number, indent, key, value: None }));
        }
        if value.len() == rest.len() {
            return Err(fault("a space behind the colon"));
        }
        let (value, behind) = scalar(value, false).ok_or(fault("a text, plain or quoted"))?;
        let comment = behind.trim_start_matches(' ');
        let is_comment = comment.starts_with('#') && comment.len() < behind.len();
        if !comment.is_empty() && !is_comment {
            return Err(fault("nothing behind the text"));
        }
        Ok(Some(Self { number, indent, key, value: Some(value) }))
    }

    fn fault(&self, expected: &'static str) -> JsonFault {
        JsonFault::new(expected, format!("{} in line {}", quoted(&self.key), self.number))
    }
}

/// A quoted text, or a plain one of characters that have no meaning in YAML; and what follows.
///
/// A plain key ends at a colon with nothing or a space behind it; a plain value at a space.
fn scalar(text: &str, key: bool) -> Option<(String, &str)> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let (inner, rest) = rest.split_once(quote)?;
            // No escapes: a quote or backslash in a text is refused.
            let plain = !inner.contains(['\\', '"', '\'']) && !inner.chars().any(char::is_control);
            return (plain && !rest.starts_with(quote)).then(|| (inner.to_owned(), rest));
        }
    }
    let end = if key {
        text.char_indices()
            .find(|(at, character)| {
                *character == ':'
                    && text.get(at + 1..).is_none_or(|rest| rest.is_empty() || rest.starts_with(' '))
            })
            .map(|(at, _)| at)?
    } else {
        text.find(' ').unwrap_or(text.len())
    };
    let (plain, rest) = text.split_at_checked(end)?;
    let fits = plain.starts_with(|character: char| character.is_ascii_alphanumeric() || character == '/')
        && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/:@".contains(&byte));
    fits.then(|| (plain.to_owned(), rest))
}

fn mapping(rest: &mut &[Line], indent: usize, depth: usize) -> Result<BTreeMap<String, Node>, JsonFault> {
    let mut members = BTreeMap::new();
    while let Some((line, below)) = rest.split_first() {
        if line.indent < indent {
            break;
        }
        if line.indent > indent {
            return Err(line.fault("lines of one mapping under one another"));
        }
        *rest = below;
        let node = match (&line.value, below.first()) {
            (Some(text), _) => Node::Text(text.clone()),
            (None, Some(next)) if next.indent > indent => {
                if depth >= DEPTH_MAX {
                    return Err(next.fault("at most three mappings in one another"));
                }
                Node::Mapping(mapping(rest, next.indent, depth + 1)?)
            }
            // Nothing is an empty mapping.
            (None, _) => Node::Mapping(BTreeMap::new()),
        };
        if members.insert(line.key.clone(), node).is_some() {
            return Err(line.fault("each key once"));
        }
    }
    Ok(members)
}
