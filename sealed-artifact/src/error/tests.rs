use super::*;

/// One error of each variant.
fn samples() -> Vec<ArtifactError> {
    let found = || Found::text("x");
    vec![
        ArtifactError::Cancelled,
        ArtifactError::CarrierCorrupt { expected: "x", found: found() },
        ArtifactError::CommitmentMismatch { payload: 0 },
        ArtifactError::EvidenceRequired,
        ArtifactError::GrantForgeable { reason: "x" },
        ArtifactError::GrantKindUnknown { member: "kind", found: found() },
        ArtifactError::GrantOpenFailed,
        ArtifactError::GrantWrongObject { expected: found(), found: found() },
        ArtifactError::GrantWrongRecipient { member: "id", expected: found(), found: found() },
        ArtifactError::KeyInvalid { expected: "x", found: found() },
        ArtifactError::LengthMismatch { payload: 0, what: "x", expected: 1, found: 2 },
        ArtifactError::LimitExceeded { what: "x", minimum: 0, maximum: 1, found: 2 },
        ArtifactError::Malformed { what: "x", expected: "x", found: found() },
        ArtifactError::NotCanonical { what: "x", offset: 1 },
        ArtifactError::NotFound { what: found() },
        ArtifactError::OriginUnproven { expected: found(), found: found() },
        ArtifactError::PayloadDigestMismatch { payload: 0 },
        ArtifactError::PayloadIncomplete { payload: 0, expected: 2, found: 1 },
        ArtifactError::PinIncomplete { missing: "family" },
        ArtifactError::PolicyDenied { rule: "family", expected: found(), found: found() },
        ArtifactError::PolicyWeak { first: "WEAK_OPAQUE", more: 0 },
        ArtifactError::RandomUnavailable,
        ArtifactError::Rollback { family: found(), expected: 2, found: 1 },
        ArtifactError::SegmentAuthFailed { payload: 0, segment: 1 },
        ArtifactError::SegmentReused { payload: 0, segment: 1 },
        ArtifactError::SignatureInvalid { expected: found(), found: found() },
        ArtifactError::TagTableMismatch { payload: 0, expected: found(), found: found() },
    ]
}

#[test]
fn codes_are_those_of_the_specification() {
    let specification = include_str!("../../../docs/spec/sealed-artifact-v1.md");
    let section = specification.split("## 13. ").nth(1).unwrap();
    let mut documented: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut known: Vec<&str> = samples().iter().map(ArtifactError::code).collect();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, documented);
}

#[test]
fn messages_are_lower_case_and_classes_are_total() {
    for error in samples() {
        let text = error.to_string();
        assert!(!text.ends_with('.'), "{text}");
        assert!(text.starts_with(|first: char| first.is_lowercase()), "{text}");
        let _ = error.class();
    }
}

#[test]
fn found_text_is_escaped_and_short() {
    let shown = Found::text("a\n\u{1b}[31m\"").to_string();
    assert_eq!(shown, "a\\n\\u{1b}[31m\\\"");
    assert!(Found::text(&"y".repeat(100_000)).to_string().chars().count() < 100);
}
