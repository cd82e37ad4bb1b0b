//! Which 64 bytes a guest has attested: the closed set of forms of specification §1.
//!
//! There is no constructor from bytes. Whoever wants evidence names a [`Claim`], and its form says who may.

use std::fmt;

use sha2::{Digest, Sha256, Sha512};

use crate::service::RawPermission;

/// Bytes of report data.
pub const REPORT_DATA_BYTES: usize = 64;
const CHIP_SESSION: &[u8] = b"innerkeep chip session v1";
const RA_TLS: &[u8] = b"innerkeep ra-tls v1";
const AUDIT_GENESIS: &[u8] = b"innerkeep audit genesis v1";
const WORKLOAD: &[u8] = b"innerkeep workload evidence v1";
const WORKLOAD_IDENTITY: &[u8] = b"innerkeep workload identity v1";
const OWN_REGISTERS: &[u8] = b"innerkeep own registers v1";

/// What a guest has attested. Nothing else ever reaches a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The first record of an audit.
    AuditGenesis {
        /// Digest of the genesis.
        digest: [u8; 64],
    },
    /// A session with a chip.
    ChipSession {
        /// Hash of the transcript.
        transcript: [u8; 64],
    },
    /// A handshake with a key broker.
    Kbs(KbsDigest),
    /// The registers of this guest, read by itself and shown to nobody.
    OwnRegisters {
        /// Fresh random bytes.
        nonce: [u8; 32],
    },
    /// A TLS key that was made here.
    RaTls {
        /// Its SubjectPublicKeyInfo, DER.
        spki: Vec<u8>,
    },
    /// Bytes that a peer chose, who is allowed to.
    Raw(RawReportData),
    /// Bytes that a workload chose, under its identity.
    Workload {
        /// Who asked.
        identity: WorkloadIdentity,
        /// What it wants to have attested.
        runtime_data: Vec<u8>,
    },
}

/// SHA-384 of the canonical object `{"additional-evidence","nonce","tee-pubkey"}`. Only the KBS client of this
/// process makes one, over an object that it built and a key that it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KbsDigest([u8; 48]);

impl KbsDigest {
    /// The digest of an object that the KBS client built.
    #[must_use]
    pub(crate) const fn new(digest: [u8; 48]) -> Self {
        Self(digest)
    }

    /// The digest alone, for evidence that has no field of 64 bytes.
    pub(crate) const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

/// Who asked: socket, user and control group, as the kernel tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadIdentity([u8; 32]);

impl WorkloadIdentity {
    /// The identity of a peer on the socket `socket` with user id `uid` in the control group `cgroup`.
    #[must_use]
    pub fn of(socket: &str, uid: u32, cgroup: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(WORKLOAD_IDENTITY);
        length_prefixed(&mut hash, socket.as_bytes());
        hash.update(uid.to_le_bytes());
        length_prefixed(&mut hash, cgroup.as_bytes());
        Self(hash.finalize().into())
    }

    /// The 32 bytes, for verifiers and records.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Up to 64 bytes from a peer that bound initdata lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReportData([u8; REPORT_DATA_BYTES]);

impl RawReportData {
    /// `bytes`, followed by zeros. The permission is used up.
    ///
    /// # Errors
    /// The number of bytes, if there are more than 64.
    pub fn new(permission: RawPermission, bytes: &[u8]) -> Result<Self, usize> {
        permission.use_up();
        let mut data = [0; REPORT_DATA_BYTES];
        let Some(front) = data.get_mut(..bytes.len()) else { return Err(bytes.len()) };
        front.copy_from_slice(bytes);
        Ok(Self(data))
    }
}

/// The 64 bytes of a [`Claim`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData([u8; REPORT_DATA_BYTES]);

impl ReportData {
    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; REPORT_DATA_BYTES] {
        &self.0
    }
}

impl fmt::Debug for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Claim {
    /// The bytes that a verifier of this form recomputes.
    #[must_use]
    pub fn report_data(&self) -> ReportData {
        ReportData(match self {
            Self::AuditGenesis { digest } => labelled(AUDIT_GENESIS, &[digest]),
            Self::ChipSession { transcript } => labelled(CHIP_SESSION, &[transcript]),
            Self::Kbs(KbsDigest(digest)) => {
                let mut data = [0; REPORT_DATA_BYTES];
                data.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
                data
            }
            Self::OwnRegisters { nonce } => labelled(OWN_REGISTERS, &[nonce]),
            Self::RaTls { spki } => labelled(RA_TLS, &[&Sha512::digest(spki)]),
            Self::Raw(RawReportData(data)) => *data,
            Self::Workload { identity, runtime_data } => {
                labelled(WORKLOAD, &[&identity.0, &Sha512::digest(runtime_data)])
            }
        })
    }

    /// The form's name in the specification.
    #[must_use]
    pub const fn form(&self) -> &'static str {
        match self {
            Self::AuditGenesis { .. } => "audit",
            Self::ChipSession { .. } => "chip-session",
            Self::Kbs(_) => "kbs",
            Self::OwnRegisters { .. } => "own-registers",
            Self::RaTls { .. } => "ra-tls",
            Self::Raw(_) => "raw",
            Self::Workload { .. } => "workload",
        }
    }
}

/// SHA-512 over a label and fields of fixed length.
fn labelled(label: &[u8], fields: &[&[u8]]) -> [u8; REPORT_DATA_BYTES] {
    let mut hash = Sha512::new();
    hash.update(label);
    fields.iter().for_each(|field| hash.update(field));
    hash.finalize().into()
}

fn length_prefixed(hash: &mut Sha256, bytes: &[u8]) {
    hash.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> [&'static [u8]; 6] {
        [CHIP_SESSION, RA_TLS, AUDIT_GENESIS, WORKLOAD, WORKLOAD_IDENTITY, OWN_REGISTERS]
    }

    /// The forms with everything in them that an attacker may choose set to the same bytes.
    fn forms() -> Vec<Claim> {
        let bytes = [0x5a; 64];
        vec![
            Claim::AuditGenesis { digest: bytes },
            Claim::ChipSession { transcript: bytes },
            Claim::Kbs(KbsDigest::new([0x5a; 48])),
            Claim::OwnRegisters { nonce: [0x5a; 32] },
            Claim::RaTls { spki: bytes.to_vec() },
            Claim::Raw(RawReportData::new(RawPermission::for_tests(), &bytes).unwrap()),
            Claim::Workload { identity: WorkloadIdentity([0x5a; 32]), runtime_data: bytes.to_vec() },
        ]
    }

    #[test]
    fn no_label_is_a_prefix_of_another() {
        for (index, label) in labels().into_iter().enumerate() {
            let others = labels().into_iter().enumerate().filter(|(other, _)| *other != index);
            for (_, other) in others {
                assert!(!other.starts_with(label), "{}", String::from_utf8_lossy(other));
            }
        }
    }

    #[test]
    fn forms_never_meet() {
        let forms = forms();
        for (index, claim) in forms.iter().enumerate() {
            for other in forms.iter().skip(index + 1) {
                assert_ne!(claim.report_data(), other.report_data(), "{} {}", claim.form(), other.form());
            }
        }
    }

    #[test]
    fn every_form_has_its_known_bytes() {
        // Computed from the table of the specification, by another implementation.
        let known = [
            (
                "audit",
                "524f469b59a0a0f144d9715fa4080b6cf0854685c0dbf2ae591069ae62e49318\
                 5fd9807b4a3d2795fa05cae9a3c0621597b6aba7e1005d40ef97ee6a37a78a37",
            ),
            (
                "chip-session",
                "3df2350d41045a14f62b02c0e6d63f65c1a8dd692f3b97f7b680528f87a57555\
                 59fae7633fdf172c8cca63cb55973df4b93845e0c36294943f67b2ac6ab2be78",
            ),
            (
                "kbs",
                "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\
                 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a00000000000000000000000000000000",
            ),
            (
                "own-registers",
                "f28cca65a93043e332d64c20476a40d7f7dcd688e9d0569b9c4d663719ccf368\
                 aa01c58d8ed3b0067076862a7f67e5d34b5ba6a501cc51d18bd1756dd4cf925e",
            ),
            (
                "ra-tls",
                "aeee8f4f2d3ad40de9c407c62b59ad67f2420467c6dc03d85faa1c9250e9718e\
                 2b3b8c0f317112fa7d6457ca79c733d6be46e64d585b36e308a42f8ff5dd6e87",
            ),
            (
                "raw",
                "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\
                 5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
            ),
            (
                "workload",
                "cc6748ddf5f37eed49241d5f3dda4f7337e2b2d4c2d132791a9328e1a3399a00\
                 0ab0b711191bb17a4489fc7adbaed2bd4f2632bd2506594790958afbd1b60944",
            ),
        ];
        let forms = forms();
        assert_eq!(forms.len(), known.len(), "a form without a known answer");
        for (claim, (form, expected)) in forms.iter().zip(known) {
            assert_eq!(claim.form(), form);
            assert_eq!(hex::encode(claim.report_data().as_bytes()), expected, "{form}");
        }
    }

    #[test]
    fn identity_has_its_known_bytes_and_fields_do_not_shift() {
        let identity = WorkloadIdentity::of("/run/aa.sock", 1000, "/pod/c1");
        let expected = "97b4a99ddd474a15c1e93cac7097eafc0b8de00781e4e9c0918b89aa092f3c54";
        assert_eq!(hex::encode(identity.as_bytes()), expected);
        assert_ne!(WorkloadIdentity::of("ab", 0, "c"), WorkloadIdentity::of("a", 0, "bc"));
    }

    #[test]
    fn raw_report_data_is_padded_and_never_cut() {
        let raw = RawReportData::new(RawPermission::for_tests(), b"abc").unwrap();
        let data = Claim::Raw(raw).report_data();
        assert_eq!(data.as_bytes().first_chunk(), Some(b"abc"));
        assert!(data.as_bytes().iter().skip(3).all(|byte| *byte == 0));
        assert_eq!(RawReportData::new(RawPermission::for_tests(), &[1; 65]), Err(65));
    }
}
