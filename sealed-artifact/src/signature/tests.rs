use super::*;

/// The 96 bytes inside a signature object.
pub(crate) fn raw_signature(object: &[u8]) -> [u8; 96] {
    Signature::parse(object).unwrap().signature
}
