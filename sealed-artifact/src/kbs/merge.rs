//! Fragments in the text of a resource policy: each lies between its own markers, and nothing else of the text is touched.

use std::ops::Range;

use super::{PolicyFragment, ResourcePath};
use crate::error::{ArtifactError, Found, length, limit};

/// Largest resource policy in bytes that is read or written.
pub const MAXIMUM_RESOURCE_POLICY: u64 = 1 << 20;
/// What an empty policy becomes before the first fragment.
const HEADER: &str = "package policy\n\nimport rego.v1\n\ndefault allow := false\n";
const BEGIN: &str = "# BEGIN innerkeep";
const END: &str = "# END innerkeep";

/// A resource policy after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The whole text.
    pub text: String,
    /// Whether there are rules outside the markers. Rules of Rego add up: such a rule may allow a fragment's path to others,
    /// as the usual policy that allows everything to every attested guest does. Whoever merges shows that to the operator.
    pub foreign_rules: bool,
}

/// Puts a fragment into a policy: in place of its earlier self, else at the end. An empty text gets a header first.
///
/// # Errors
/// `LIMIT_EXCEEDED`; `MALFORMED` for damaged markers and for a text that is not of `package policy`.
pub fn merge(existing: &str, fragment: &PolicyFragment) -> Result<Merged, ArtifactError> {
    limit("resource policy", 0, MAXIMUM_RESOURCE_POLICY, length(existing.as_bytes()))?;
    let mut text = if existing.trim().is_empty() { HEADER.to_owned() } else { existing.to_owned() };
    match find(&text, fragment.path())? {
        Some(section) => text.replace_range(section, fragment.text()),
        None => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            text.push('\n');
            text += fragment.text();
        }
    }
    finish(text)
}

/// Takes the fragment of a path out of a policy, if it is there.
///
/// # Errors
/// `LIMIT_EXCEEDED`; `MALFORMED` for damaged markers and for a text that is not of `package policy`.
pub fn remove(existing: &str, path: ResourcePath) -> Result<Merged, ArtifactError> {
    limit("resource policy", 0, MAXIMUM_RESOURCE_POLICY, length(existing.as_bytes()))?;
    let mut text = existing.to_owned();
    if text.trim().is_empty() {
        return finish(text);
    }
    if let Some(section) = find(&text, path)? {
        let blank = text.get(..section.start).is_some_and(|before| before.ends_with("\n\n"));
        text.replace_range(section.start - usize::from(blank)..section.end, "");
    }
    finish(text)
}

fn finish(text: String) -> Result<Merged, ArtifactError> {
    limit("resource policy", 0, MAXIMUM_RESOURCE_POLICY, length(text.as_bytes()))?;
    let sections = sections(&text)?;
    let outside =
        lines(&text).filter(|(place, _)| !sections.iter().any(|one| one.place.contains(&place.start)));
    let foreign_rules = outside.map(|(_, line)| code(line)).any(|line| {
        let harmless =
            ["", "package policy", "import rego.v1", "default allow := false", "default allow = false"];
        !harmless.contains(&line)
    });
    Ok(Merged { text, foreign_rules })
}

/// Where the section of a path is.
fn find(text: &str, path: ResourcePath) -> Result<Option<Range<usize>>, ArtifactError> {
    let sections = sections(text)?;
    let mut code_lines = lines(text).map(|(place, line)| (place.start, code(line)));
    let (start, first) = code_lines.find(|(_, line)| !line.is_empty()).unwrap_or_default();
    // What is inside a section is replaced, and the package would go with it.
    let inside = sections.iter().any(|section| section.place.contains(&start));
    // GUARD: resource-policy-package -> evil_resource_policy_of_another_package_is_refused
    if first != "package policy" || inside {
        let expected = "the line `package policy` first, outside marked sections";
        return Err(ArtifactError::Malformed {
            what: "resource policy",
            expected,
            found: Found::text(first),
        });
    }
    let id = path.id();
    Ok(sections.into_iter().find(|section| section.id == id).map(|section| section.place))
}

struct Section {
    id: String,
    place: Range<usize>,
}

/// All marked sections. One damaged marker anywhere is an error: it is not known then where a section ends.
fn sections(text: &str) -> Result<Vec<Section>, ArtifactError> {
    let mut found: Vec<Section> = Vec::new();
    let mut open: Option<Section> = None;
    for (place, line) in lines(text) {
        let marker = line.trim_end();
        let damaged = || ArtifactError::Malformed {
            what: "resource policy",
            expected: "markers `# BEGIN innerkeep ID` and `# END innerkeep ID` in pairs, each ID once",
            found: Found::value(format_args!("\"{marker}\" at byte {}", place.start)),
        };
        if marker.trim_start().starts_with(BEGIN) {
            let id = id_of(marker, BEGIN).ok_or_else(damaged)?;
            // GUARD: resource-policy-markers -> evil_damaged_markers_are_refused
            if open.is_some() || found.iter().any(|section| section.id == id) {
                return Err(damaged());
            }
            open = Some(Section { id, place });
        } else if marker.trim_start().starts_with(END) {
            let id = id_of(marker, END).ok_or_else(damaged)?;
            let mut section = open.take().filter(|section| section.id == id).ok_or_else(damaged)?;
            section.place.end = place.end;
            found.push(section);
        }
    }
    // GUARD: resource-policy-end-marker -> evil_damaged_markers_are_refused
    if let Some(section) = open {
        return Err(ArtifactError::Malformed {
            what: "resource policy",
            expected: "an end for every marked section",
            found: Found::value(format_args!("none for the one at byte {}", section.place.start)),
        });
    }
    Ok(found)
}

/// The id of a marker line that has nothing else on it.
fn id_of(marker: &str, word: &str) -> Option<String> {
    let id = marker.strip_prefix(word)?.strip_prefix(' ')?;
    let fitting = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fitting.then(|| id.to_owned())
}

/// Lines with their places, line ends included.
fn lines(text: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut start = 0;
    text.split_inclusive('\n').map(move |line| {
        let place = start..start + line.len();
        start = place.end;
        (place, line)
    })
}

/// A line without comment and surrounding blanks. A `#` inside a string cuts too much: such a line is a rule anyway.
fn code(line: &str) -> &str {
    line.split_once('#').map_or(line, |(code, _)| code).trim()
}
