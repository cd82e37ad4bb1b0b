//! Just enough DER to take keys out of the two envelopes that the cryptographic library writes.
//!
//! The input is this process's own; still nothing is assumed about it.

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// Modulus and exponent, without leading zeros, of an RSA `SubjectPublicKeyInfo`.
pub(super) fn rsa_public(spki: &[u8]) -> Option<(&[u8], &[u8])> {
    let (outer, _) = element(SEQUENCE, spki)?;
    let (_algorithm, rest) = element(SEQUENCE, outer)?;
    let (bits, _) = element(BIT_STRING, rest)?;
    let (key, _) = element(SEQUENCE, bits.strip_prefix(&[0])?)?;
    let (modulus, rest) = element(INTEGER, key)?;
    let (exponent, _) = element(INTEGER, rest)?;
    Some((without_zeros(modulus), without_zeros(exponent)))
}

/// The key inside a PKCS #8 version 1 envelope: for RSA that is PKCS #1.
pub(super) fn pkcs8_inner(pkcs8: &[u8]) -> Option<&[u8]> {
    let (outer, _) = element(SEQUENCE, pkcs8)?;
    let (_version, rest) = element(INTEGER, outer)?;
    let (_algorithm, rest) = element(SEQUENCE, rest)?;
    Some(element(OCTET_STRING, rest)?.0)
}

/// Contents of the first element, which must have that tag, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 3 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    rest.split_at_checked(length)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
