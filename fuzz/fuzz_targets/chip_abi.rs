//! Every structure of the chip interface. What is accepted encodes to the same bytes.
//!
//! Input: one byte that chooses the structure, then the bytes. A further byte where the structure needs a parameter.

#![no_main]

use chip_client::abi::{
    Abort, Accept, COMPLETION_LEN, Cap, CertificateList, Completion, Floors, IdentityRecord, LoadTags, Offer,
    Opcode, Present, Provision, SUBMISSION_LEN, SealedReply, SessionStatus, SessionSuite, Status, Submission,
    Unseal, Unwrap, parse_finish, parse_handle, parse_register, put_finish,
};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

macro_rules! same {
    ($type:ident, $bytes:expr) => {
        if let Ok(value) = $type::parse($bytes) {
            assert_eq!(value.encode(), $bytes);
        }
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    bounded(data.len(), || check(*which, bytes));
});

fn check(which: u8, bytes: &[u8]) {
    match which % 18 {
        0 => same!(IdentityRecord, bytes),
        1 => same!(CertificateList, bytes),
        2 => same!(Provision, bytes),
        3 => same!(Abort, bytes),
        4 => same!(Offer, bytes),
        5 => same!(Accept, bytes),
        6 => same!(Present, bytes),
        7 => same!(Unwrap, bytes),
        8 => same!(LoadTags, bytes),
        9 => same!(Unseal, bytes),
        10 => same!(SessionStatus, bytes),
        11 => same!(Floors, bytes),
        12 => {
            if let Ok(list) = parse_register(bytes) {
                let mut encoded = Vec::new();
                list.put(&mut encoded);
                assert_eq!(encoded, bytes);
                assert!(list.entries.iter().all(|e| e.length > 0 && e.iova.checked_add(e.length).is_some()));
                let _ = list.total();
            }
        }
        13 => {
            let Some((count, rest)) = bytes.split_first() else { return };
            if let Ok(reply) = SealedReply::parse(rest, u32::from(*count)) {
                assert_eq!(reply.encode(), rest);
            }
        }
        14 => {
            for (suite, length) in [(SessionSuite::Classical, 0), (SessionSuite::Hybrid, 1_088)] {
                if let Ok(ciphertext) = parse_finish(bytes, suite) {
                    assert_eq!(ciphertext.len(), length);
                    assert_eq!(put_finish(ciphertext), bytes);
                }
            }
        }
        15 => {
            if let Some(entry) = bytes.first_chunk::<SUBMISSION_LEN>()
                && let Ok(submission) = Submission::parse(entry)
            {
                assert_eq!(submission.encode(), *entry);
                if let Some(opcode) = Opcode::from_u8(submission.opcode) {
                    assert_eq!(opcode.as_u8(), submission.opcode);
                }
            }
        }
        16 => {
            if let Some(entry) = bytes.first_chunk::<COMPLETION_LEN>() {
                let completion = Completion::parse(entry);
                assert_eq!(completion.encode(), *entry);
                if let Some(status) = Status::from_u16(completion.status) {
                    assert_eq!(status.as_u16(), completion.status);
                }
            }
        }
        _ => {
            if let Some(bits) = bytes.first_chunk::<8>() {
                let bits = u64::from_le_bytes(*bits);
                assert_eq!(Cap::from_bits(bits).to_bits(), bits);
            }
            if let Ok(handle) = parse_handle(bytes) {
                assert_eq!(handle.to_le_bytes(), bytes);
            }
        }
    }
}
