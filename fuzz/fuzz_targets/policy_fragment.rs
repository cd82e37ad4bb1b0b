//! Fragments in a broker's resource policy. Only marked sections are touched; merging twice is merging once; a fragment
//! says nothing outside its markers, whatever the policy document says.
//!
//! Input: a policy document; or a script of pieces that make up the text which is merged into.

#![no_main]

use std::sync::LazyLock;

use fuzz::fixed::ARTIFACT;
use fuzz::stream::Choices;
use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::kbs::{PolicyFragment, merge, policy_fragment, remove};
use sealed_artifact::policy::{PolicyDocument, TEMPLATE};

/// Two fragments of different policies.
static FRAGMENTS: LazyLock<[PolicyFragment; 2]> = LazyLock::new(|| {
    let of = |text: &str| {
        let policy = PolicyDocument::from_toml(text).expect("a policy");
        policy_fragment(ARTIFACT.core.digest(), &policy).expect("a fragment")
    };
    [of(TEMPLATE), of(&TEMPLATE.replace("min_counter = 1", "min_counter = 9"))]
});

fuzz_target!(|data: &[u8]| {
    document(data);
    if let Some(text) = canonical(data) {
        document(&text);
    }
    let Ok(text) = String::from_utf8(script(data)) else { return };
    FRAGMENTS.iter().for_each(|fragment| merged(&text, fragment));
});

fn document(data: &[u8]) {
    let Ok(policy) = PolicyDocument::parse(data) else { return };
    let fragment = bounded(data.len(), || policy_fragment(ARTIFACT.core.digest(), &policy));
    let Ok(fragment) = fragment else { return };
    let markers: Vec<_> = fragment.text().lines().filter(|line| line.contains(" innerkeep ")).collect();
    let id = |line: &str| line.rsplit(' ').next().map(str::to_owned);
    let [first, last] = markers.as_slice() else { panic!("more than two markers: {markers:?}") };
    assert!(
        fragment.text().starts_with("# BEGIN innerkeep ") && fragment.text().ends_with(&format!("{last}\n"))
    );
    assert_eq!(id(first), id(last));
    let alone = merge("", &fragment).expect("a policy of its own");
    assert!(!alone.foreign_rules, "a fragment leaves its markers");
    let without = remove(&alone.text, fragment.path()).expect("a policy of its own");
    assert!(!without.foreign_rules && !without.text.contains("allow if"));
    merged(&alone.text, &FRAGMENTS[0]);
}

fn merged(text: &str, fragment: &PolicyFragment) {
    let Ok(once) = bounded(text.len(), || merge(text, fragment)) else { return };
    let at = once.text.find(fragment.text()).expect("the fragment itself");
    let (before, after) = (&once.text[..at], &once.text[at + fragment.text().len()..]);
    assert!(!before.contains(fragment.text()) && !after.contains(fragment.text()));
    let twice = merge(&once.text, fragment).expect("what was merged");
    assert_eq!(twice, once);
    // Everything else of the text is there, in its order.
    if text.trim().is_empty() {
        assert!(after.is_empty() && !once.foreign_rules);
    } else if !has_section(text, fragment) {
        assert!(after.is_empty());
        assert_eq!(before.trim_end_matches('\n'), text.trim_end_matches('\n'));
    } else {
        assert!(text.starts_with(before) && text.ends_with(after));
    }
    let removed = bounded(text.len(), || remove(&once.text, fragment.path())).expect("what was merged");
    assert!(!has_section(&removed.text, fragment));
    assert_eq!(removed.foreign_rules, once.foreign_rules);
    let before = if before.ends_with("\n\n") { &before[..before.len() - 1] } else { before };
    assert_eq!(removed.text, format!("{before}{after}"));
    let gone = remove(&removed.text, fragment.path()).expect("what was removed from");
    assert_eq!(gone, removed);
    // The other fragment's section is no business of this one.
    for other in FRAGMENTS.iter().filter(|other| other.path() != fragment.path()) {
        assert_eq!(text.contains(other.text()), once.text.contains(other.text()));
        assert_eq!(text.contains(other.text()), removed.text.contains(other.text()));
    }
}

fn has_section(text: &str, fragment: &PolicyFragment) -> bool {
    text.lines().any(|line| line.trim_end() == first_line(fragment))
}

fn first_line(fragment: &PolicyFragment) -> &str {
    fragment.text().lines().next().expect("a line")
}

/// A text made of pieces.
fn script(data: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(data);
    let mut text = Vec::new();
    while !choices.is_empty() && text.len() < 1 << 16 {
        match choices.u8() % 10 {
            0 => text.extend(b"package policy\n"),
            1 => text.extend(b"import rego.v1\n"),
            2 => text.extend(b"default allow := false\n"),
            3 => text.extend(b"allow if { input.x == \"# BEGIN innerkeep\" }\n"),
            4 => text.extend(FRAGMENTS[0].text().as_bytes()),
            5 => text.extend(FRAGMENTS[1].text().as_bytes()),
            6 => text.extend(first_line(&FRAGMENTS[usize::from(choices.u8() & 1)]).as_bytes()),
            7 => text.extend(
                FRAGMENTS[usize::from(choices.u8() & 1)].text().lines().next_back().unwrap_or("").as_bytes(),
            ),
            8 => text.push(b'\n'),
            _ => {
                let len = usize::from(choices.u8());
                text.extend(choices.bytes(len));
            }
        }
    }
    text
}
