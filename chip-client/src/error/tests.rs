//! Codes are unique per meaning and messages say what was found.

use super::*;

#[test]
fn refusals_carry_the_code_of_their_status() {
    for status in Status::ALL {
        let error = ChipError::Refused { command: Opcode::Unwrap, status: *status, detail: 0 };
        assert_eq!(error.code(), format!("CHIP_{}", status.name()));
    }
}

#[test]
fn denial_names_the_false_condition() {
    let error = ChipError::Refused { command: Opcode::Unwrap, status: Status::PolicyDenied, detail: 4 };
    assert_eq!(
        error.to_string(),
        "the chip refused UNWRAP: POLICY_DENIED (expected every condition true, found false: link_mode)"
    );
    assert_eq!(error.class(), Class::PolicyDenied);
}

#[test]
fn refused_evidence_names_what_did_not_hold() {
    let of = |detail| {
        let error = ChipError::Refused { command: Opcode::Present, status: Status::EvidenceRefused, detail };
        assert_eq!((error.code(), error.class()), ("CHIP_EVIDENCE_REFUSED", Class::PolicyDenied));
        error.to_string()
    };
    let refused = "the chip refused PRESENT: EVIDENCE_REFUSED";
    assert_eq!(of(0x104), format!("{refused} (expected every rule met, found not met: debug)"));
    assert_eq!(of(9), format!("{refused} (expected evidence that verifies, found: root_untrusted)"));
    assert_eq!(of(0xfff), format!("{refused} (expected evidence that holds, found: detail 0xfff)"));
}
