//! A small writer of certificates and revocation lists, so that tests can write wrong ones too.

use std::time::Duration;

use x509_cert::der::Encode;
use x509_cert::der::asn1::{ObjectIdentifier, UtcTime};

use crate::mint::{MintError, failed};

/// Tag, length, content.
#[must_use]
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        out.push(short);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or_default());
        out.extend(bytes);
    }
    out.extend(content);
    out
}

/// SEQUENCE of the parts.
#[must_use]
pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// INTEGER of an unsigned big-endian number.
#[must_use]
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    let mut content: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    if content.first().is_none_or(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    tlv(0x02, &content)
}

/// OBJECT IDENTIFIER.
///
/// # Errors
/// For text that is none.
pub fn oid(text: &str) -> Result<Vec<u8>, MintError> {
    let oid = ObjectIdentifier::new(text).map_err(failed("an object identifier"))?;
    oid.to_der().map_err(failed("an object identifier"))
}

/// BIT STRING of whole bytes.
#[must_use]
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

/// OCTET STRING.
#[must_use]
pub fn octet_string(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

/// UTCTime of seconds since 1970.
///
/// # Errors
/// After 2049.
pub fn time(seconds: u64) -> Result<Vec<u8>, MintError> {
    let time =
        UtcTime::from_unix_duration(Duration::from_secs(seconds)).map_err(failed("a date before 2050"))?;
    time.to_der().map_err(failed("a date before 2050"))
}

/// A name of organisation and common name.
///
/// # Errors
/// Never for these constants.
pub fn name(common_name: &str) -> Result<Vec<u8>, MintError> {
    let part = |id: &str, text: &str| -> Result<Vec<u8>, MintError> {
        Ok(tlv(0x31, &sequence(&[oid(id)?, tlv(0x0c, text.as_bytes())])))
    };
    Ok(sequence(&[part("2.5.4.10", "Innerkeep emulated (insecure)")?, part("2.5.4.3", common_name)?]))
}

/// An extension of a certificate or list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Object identifier, as text.
    pub id: String,
    /// Whether whoever does not know it has to refuse.
    pub critical: bool,
    /// Content of its OCTET STRING.
    pub value: Vec<u8>,
}

impl Extension {
    /// An extension.
    #[must_use]
    pub fn new(id: &str, critical: bool, value: Vec<u8>) -> Self {
        Self { id: id.to_owned(), critical, value }
    }

    fn encode(&self) -> Result<Vec<u8>, MintError> {
        let critical = if self.critical { tlv(0x01, &[0xff]) } else { Vec::new() };
        Ok(sequence(&[oid(&self.id)?, critical, octet_string(&self.value)]))
    }
}

fn extensions(tag: u8, extensions: &[Extension]) -> Result<Vec<u8>, MintError> {
    if extensions.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Result<Vec<_>, _> = extensions.iter().map(Extension::encode).collect();
    Ok(tlv(tag, &sequence(&parts?)))
}

/// Basic constraints and key usage of an authority.
#[must_use]
pub fn authority_extensions() -> Vec<Extension> {
    vec![
        Extension::new("2.5.29.19", true, sequence(&[tlv(0x01, &[0xff])])),
        // keyCertSign and cRLSign
        Extension::new("2.5.29.15", true, tlv(0x03, &[1, 0x06])),
    ]
}

/// What a certificate says, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateTemplate {
    /// Serial number.
    pub serial: Vec<u8>,
    /// Issuer, DER.
    pub issuer: Vec<u8>,
    /// Subject, DER.
    pub subject: Vec<u8>,
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
    /// Public key, DER.
    pub public_key: Vec<u8>,
    /// Extensions.
    pub extensions: Vec<Extension>,
    /// Algorithm of the signature, DER.
    pub algorithm: Vec<u8>,
}

impl CertificateTemplate {
    /// The certificate, signed by `sign`.
    ///
    /// # Errors
    /// What `sign` says, or a date or identifier that has no encoding.
    pub fn issue(
        &self,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, MintError>,
    ) -> Result<Vec<u8>, MintError> {
        let to_be_signed = sequence(&[
            tlv(0xa0, &integer(&[2])),
            integer(&self.serial),
            self.algorithm.clone(),
            self.issuer.clone(),
            sequence(&[time(self.not_before)?, time(self.not_after)?]),
            self.subject.clone(),
            self.public_key.clone(),
            extensions(0xa3, &self.extensions)?,
        ]);
        let signature = sign(&to_be_signed)?;
        Ok(sequence(&[to_be_signed, self.algorithm.clone(), bit_string(&signature)]))
    }
}

/// What a revocation list says, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListTemplate {
    /// Issuer, DER.
    pub issuer: Vec<u8>,
    /// Date of issue.
    pub this_update: u64,
    /// Date of the next one.
    pub next_update: u64,
    /// Serial numbers of revoked certificates.
    pub revoked: Vec<Vec<u8>>,
    /// Number of the list.
    pub number: u64,
    /// Algorithm of the signature, DER.
    pub algorithm: Vec<u8>,
}

impl ListTemplate {
    /// The list, signed by `sign`.
    ///
    /// # Errors
    /// What `sign` says, or a date that has no encoding.
    pub fn issue(
        &self,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, MintError>,
    ) -> Result<Vec<u8>, MintError> {
        let mut entries = Vec::new();
        for serial in &self.revoked {
            entries.push(sequence(&[integer(serial), time(self.this_update)?]));
        }
        let number = Extension::new("2.5.29.20", false, integer(&self.number.to_be_bytes()));
        let to_be_signed = sequence(&[
            integer(&[1]),
            self.algorithm.clone(),
            self.issuer.clone(),
            time(self.this_update)?,
            time(self.next_update)?,
            if entries.is_empty() { Vec::new() } else { sequence(&entries) },
            extensions(0xa0, &[number])?,
        ]);
        let signature = sign(&to_be_signed)?;
        Ok(sequence(&[to_be_signed, self.algorithm.clone(), bit_string(&signature)]))
    }
}
