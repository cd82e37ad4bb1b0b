use super::{EvidenceError, Found};

#[test]
fn codes_are_sorted_and_documented() {
    let specification = include_str!("../../../docs/spec/evidence.md");
    assert!(EvidenceError::CODES.is_sorted());
    for code in EvidenceError::CODES {
        assert!(specification.contains(&format!("| `{code}` |")), "{code} is missing in the specification");
    }
    assert_eq!(specification.matches("\n| `EVIDENCE_").count(), EvidenceError::CODES.len());
}

#[test]
fn evil_text_from_outside_is_escaped_and_shortened() {
    let shown = Found::text(&"\u{1b}[31m\n".repeat(400)).to_string();
    assert!(shown.chars().count() <= 161);
    assert!(!shown.contains(['\u{1b}', '\n']));
    assert!(shown.ends_with('…'));
    assert_eq!(Found::hex(&[0xab; 4096]).to_string().chars().count(), 161);
}
