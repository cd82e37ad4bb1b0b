//! Numbers that tell old collateral from new where there is no clock.
//!
//! An issuer counts its revocation lists, and Intel counts TCB evaluations. Numbers compare only inside one series,
//! so a series is named by what is counted and by the issuer's key: two PCK CAs count apart, and so do the roots of
//! AMD's generations and an emulator. Who remembers the highest number of each series refuses what is older.

use crate::bytes::Octets;
use crate::verify::VerifiedEvidence;

/// What a series counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeriesKind {
    /// TCB evaluations of Intel: the lower number of TCB info and QE identity.
    TcbEvaluation,
    /// Revocation lists of one PCK CA.
    PckCrl,
    /// Revocation lists of Intel's root.
    RootCrl,
    /// Revocation lists of one root of AMD.
    SnpCrl,
}

/// One series that verified evidence belongs to, and its number in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// What is counted.
    pub kind: SeriesKind,
    /// SHA-256 of the issuer's SubjectPublicKeyInfo; for TCB evaluations of the root above their signer, which is renewed.
    pub issuer: Octets<32>,
    /// The number in the evidence; none where no list was presented.
    pub number: Option<u64>,
}

impl SeriesKind {
    /// The number in the chip's FLOORS.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        match self {
            Self::TcbEvaluation => 1,
            Self::PckCrl => 2,
            Self::RootCrl => 3,
            Self::SnpCrl => 4,
        }
    }
}

impl VerifiedEvidence {
    /// All series of this evidence.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        match self {
            Self::Tdx(tdx) => {
                let (root, ca) = (tdx.root_key_digest, tdx.pck_ca_key_digest);
                [
                    (SeriesKind::TcbEvaluation, root, u64::from(tdx.tcb_evaluation_number)),
                    (SeriesKind::PckCrl, ca, tdx.pck_crl_number),
                    (SeriesKind::RootCrl, root, tdx.root_crl_number),
                ]
                .map(|(kind, issuer, number)| Series { kind, issuer, number: Some(number) })
                .to_vec()
            }
            Self::Snp(snp) => {
                vec![Series { kind: SeriesKind::SnpCrl, issuer: snp.ark_key_digest, number: snp.crl_number }]
            }
        }
    }
}
