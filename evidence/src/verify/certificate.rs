//! What the verifying libraries do not look at in certificates and revocation lists.

use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::CrlNumber;
use x509_cert::name::Name;
use x509_cert::time::Time;

use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};

pub(crate) const OID_CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");

/// From when until when an object holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which object.
    pub what: &'static str,
    /// First second.
    pub not_before: u64,
    /// Last second.
    pub not_after: u64,
}

impl Window {
    /// Refuses an object that does not hold at `now`.
    ///
    /// # Errors
    /// `EVIDENCE_NOT_IN_TIME`.
    pub fn holds_at(self, now: u64) -> Result<(), EvidenceError> {
        let Self { what, not_before, not_after } = self;
        // GUARD: dates -> evil_dates_of_every_tdx_object_count, evil_dates_of_every_snp_object_count
        if now < not_before || now > not_after {
            return Err(EvidenceError::NotInTime { what, not_before, not_after, now });
        }
        Ok(())
    }
}

/// A certificate with its own bytes.
pub(crate) struct Parsed {
    pub(crate) which: &'static str,
    pub(crate) der: Vec<u8>,
    pub(crate) certificate: Certificate,
}

impl Parsed {
    pub(crate) fn parse(which: &'static str, der: &[u8]) -> Result<Self, EvidenceError> {
        let certificate =
            Certificate::from_der(der).map_err(|error| invalid(which, "a certificate in DER", error))?;
        Ok(Self { which, der: der.to_vec(), certificate })
    }

    pub(crate) fn window(&self) -> Window {
        let validity = self.certificate.tbs_certificate().validity();
        Window {
            what: self.which,
            not_before: seconds(&validity.not_before),
            not_after: seconds(&validity.not_after),
        }
    }

    pub(crate) fn subject(&self) -> &Name {
        self.certificate.tbs_certificate().subject()
    }

    pub(crate) fn issuer(&self) -> &Name {
        self.certificate.tbs_certificate().issuer()
    }

    pub(crate) fn serial(&self) -> &[u8] {
        self.certificate.tbs_certificate().serial_number().as_bytes()
    }

    pub(crate) fn public_key(&self) -> &[u8] {
        self.certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes()
    }

    /// SHA-256 of the public key with its algorithm: who numbers a series of lists, whatever the certificate around it.
    pub(crate) fn key_digest(&self) -> Result<Octets<32>, EvidenceError> {
        let spki = self.certificate.tbs_certificate().subject_public_key_info().to_der();
        let spki = spki.map_err(|error| invalid(self.which, "a public key that encodes to DER", error))?;
        Ok(Octets(Sha256::digest(spki).into()))
    }

    pub(crate) fn common_name(&self) -> String {
        self.subject().common_name().ok().flatten().map(|name| name.value().into_owned()).unwrap_or_default()
    }

    pub(crate) fn extensions(&self) -> &[Extension] {
        self.certificate.tbs_certificate().extensions().map(Vec::as_slice).unwrap_or_default()
    }

    /// The value of an extension that stands at most once.
    pub(crate) fn extension(&self, oid: &ObjectIdentifier) -> Option<&Extension> {
        self.extensions().iter().find(|extension| extension.extn_id == *oid)
    }

    /// Names and versions that bind a certificate to its issuer, beside the signature.
    pub(crate) fn named_as_issuer(&self, issuer: &Self) -> Result<(), EvidenceError> {
        // GUARD: issuer-names -> evil_certificate_of_another_issuer_name_is_refused
        if self.issuer() != issuer.subject() {
            let found = self.issuer();
            return Err(invalid(self.which, "the subject of its issuer as issuer", found));
        }
        Ok(())
    }

    /// No extension twice, none critical that is not in `known`.
    pub(crate) fn known_extensions(&self, known: &[ObjectIdentifier]) -> Result<(), EvidenceError> {
        for (index, extension) in self.extensions().iter().enumerate() {
            let oid = extension.extn_id;
            // GUARD: extensions-once -> evil_repeated_extension_is_refused
            if self.extensions().iter().skip(index + 1).any(|other| other.extn_id == oid) {
                return Err(invalid(self.which, "no extension twice", oid));
            }
            // GUARD: critical-extensions-known -> evil_unknown_critical_extension_is_refused
            if extension.critical && !known.contains(&oid) {
                return Err(invalid(self.which, "no unknown critical extension", oid));
            }
        }
        Ok(())
    }
}

/// A revocation list with what counts in it.
pub(crate) struct RevocationList {
    pub(crate) list: CertificateList,
    pub(crate) window: Window,
    pub(crate) number: u64,
}

impl RevocationList {
    pub(crate) fn parse(which: &'static str, der: &[u8]) -> Result<Self, EvidenceError> {
        let list = CertificateList::from_der(der)
            .map_err(|error| invalid(which, "a revocation list in DER", error))?;
        let Some(next_update) = &list.tbs_cert_list.next_update else {
            return Err(invalid(which, "a date of the next update", "none"));
        };
        let window = Window {
            what: which,
            not_before: seconds(&list.tbs_cert_list.this_update),
            not_after: seconds(next_update),
        };
        let extensions = list.tbs_cert_list.crl_extensions.as_deref().unwrap_or_default();
        let number = extensions.iter().find(|extension| extension.extn_id == OID_CRL_NUMBER);
        let number = number.and_then(|extension| CrlNumber::from_der(extension.extn_value.as_bytes()).ok());
        let number = number.and_then(|CrlNumber(number)| big_endian(number.as_bytes()));
        let Some(number) = number else {
            return Err(invalid(which, "a number of at most 64 bits", "none"));
        };
        Ok(Self { list, window, number })
    }

    /// Whose list it says it is.
    pub(crate) fn named_as_issuer(&self, which: &'static str, issuer: &Parsed) -> Result<(), EvidenceError> {
        let found = &self.list.tbs_cert_list.issuer;
        // GUARD: tdx-list-issuer -> evil_exchanged_revocation_lists_are_refused
        if found != issuer.subject() {
            return Err(invalid(which, "the subject of its issuer as issuer", found));
        }
        Ok(())
    }

    /// Whether the list names a serial number.
    pub(crate) fn revokes(&self, serial: &[u8]) -> bool {
        let revoked = self.list.tbs_cert_list.revoked_certificates.as_deref().unwrap_or_default();
        revoked.iter().any(|entry| entry.serial_number.as_bytes() == serial)
    }

    pub(crate) fn signed_bytes(&self, which: &'static str) -> Result<Vec<u8>, EvidenceError> {
        self.list.tbs_cert_list.to_der().map_err(|error| invalid(which, "a list that encodes to DER", error))
    }
}

pub(crate) fn big_endian(bytes: &[u8]) -> Option<u64> {
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    if significant.clone().count() > 8 {
        return None;
    }
    Some(significant.fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

pub(crate) fn seconds(time: &Time) -> u64 {
    time.to_unix_duration().as_secs()
}

pub(crate) fn invalid(
    which: &'static str,
    expected: &'static str,
    found: impl std::fmt::Display,
) -> EvidenceError {
    EvidenceError::CertificateInvalid { which, expected, found: Found::value(found) }
}
