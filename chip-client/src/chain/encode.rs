//! Writing of certificates: the few DER forms that they need.

use x509_cert::der::asn1::ObjectIdentifier;

pub(super) const OID_COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
pub(super) const OID_ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
pub(super) const OID_BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(super) const OID_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// SubjectPublicKeyInfo of a P-384 key, up to the 97 bytes of its uncompressed point.
pub(super) const SPKI_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x05, 0x2B, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xA0;
const CONTEXT_3: u8 = 0xA3;

/// keyUsage keyCertSign.
pub(super) const USAGE_CERTIFY: [u8; 2] = [2, 0x04];
/// keyUsage digitalSignature.
pub(super) const USAGE_SIGN: [u8; 2] = [7, 0x80];

/// What goes into a certificate.
pub(super) struct Contents<'a> {
    pub(super) serial: [u8; 16],
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    pub(super) spki: &'a [u8],
    pub(super) extensions: Vec<Vec<u8>>,
}

/// TBSCertificate.
pub(super) fn to_be_signed(contents: &Contents<'_>) -> Vec<u8> {
    // The highest bit is clear, so that the number is positive, and the next one set, so that it has no leading zero.
    let mut serial = contents.serial;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3F | 0x40;
    }
    let not_before = tlv(UTC_TIME, &[b"700101000000Z"]);
    let not_after = tlv(GENERALIZED_TIME, &[b"99991231235959Z"]);
    let extensions: Vec<&[u8]> = contents.extensions.iter().map(Vec::as_slice).collect();
    tlv(
        SEQUENCE,
        &[
            &tlv(CONTEXT_0, &[&tlv(INTEGER, &[&[2]])]),
            &tlv(INTEGER, &[&serial]),
            &algorithm(),
            &name(contents.issuer),
            &tlv(SEQUENCE, &[&not_before, &not_after]),
            &name(contents.subject),
            contents.spki,
            &tlv(CONTEXT_3, &[&tlv(SEQUENCE, &extensions)]),
        ],
    )
}

/// Certificate, from its signed part and an ASN.1 signature.
pub(super) fn certificate(tbs: &[u8], signature: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[tbs, &algorithm(), &tlv(BIT_STRING, &[&[0], signature])])
}

/// basicConstraints of a CA, critical.
pub(super) fn ca_constraints(path_length: Option<u8>) -> Vec<u8> {
    let length = path_length.map(|n| tlv(INTEGER, &[&[n]])).unwrap_or_default();
    let value = tlv(SEQUENCE, &[&tlv(BOOLEAN, &[&[0xFF]]), &length]);
    extension(OID_BASIC_CONSTRAINTS, true, &value)
}

/// keyUsage, critical: number of unused bits and the bits.
pub(super) fn key_usage(bits: [u8; 2]) -> Vec<u8> {
    extension(OID_KEY_USAGE, true, &tlv(BIT_STRING, &[&bits]))
}

/// An extension.
pub(super) fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { tlv(BOOLEAN, &[&[0xFF]]) } else { Vec::new() };
    let oid = tlv(OBJECT_IDENTIFIER, &[oid.as_bytes()]);
    tlv(SEQUENCE, &[&oid, &flag, &tlv(OCTET_STRING, &[value])])
}

fn name(common_name: &str) -> Vec<u8> {
    let oid = tlv(OBJECT_IDENTIFIER, &[OID_COMMON_NAME.as_bytes()]);
    let attribute = tlv(SEQUENCE, &[&oid, &tlv(UTF8_STRING, &[common_name.as_bytes()])]);
    tlv(SEQUENCE, &[&tlv(SET, &[&attribute])])
}

fn algorithm() -> Vec<u8> {
    tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[OID_ECDSA_SHA384.as_bytes()])])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().skip_while(|b| **b == 0).copied().collect::<Vec<u8>>();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend_from_slice(&significant);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}
