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
