//! Which roots are believed: those of the makers of the processors, or those of an emulator, by explicit choice.

mod bundle;

use sev::certs::snp::{Certificate, builtin};

use crate::abi::snp::Generation;
use crate::error::EvidenceError;
use crate::verify::certificate::invalid;

pub use bundle::{MAXIMUM_BUNDLE_BYTES, TrustBundle};

/// Intel's SGX root CA for production, as Intel publishes it.
const INTEL_ROOT: &[u8] = include_bytes!("roots/intel-sgx-root-ca.der");

/// Whose roots a verification believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootSet {
    /// The roots of AMD or Intel, built in.
    Builtin,
    /// Roots of an emulator: the evidence proves nothing about hardware.
    InsecureEmulator,
}

/// The roots that a verifier believes.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Roots for SEV-SNP.
    pub snp: SnpRoots,
    /// Root for TDX; without one every quote is refused.
    pub tdx: Option<TdxRoot>,
}

impl Roots {
    /// The roots of AMD and Intel.
    ///
    /// # Errors
    /// As [`SnpRoots::amd`].
    pub fn builtin() -> Result<Self, EvidenceError> {
        Ok(Self { snp: SnpRoots::amd()?, tdx: Some(TdxRoot::intel()) })
    }

    /// Whether any of them is an emulator's: evidence may then prove nothing about hardware.
    #[must_use]
    pub fn are_emulated(&self) -> bool {
        let tdx = self.tdx.as_ref().map(|root| root.set);
        self.snp.set == RootSet::InsecureEmulator || tdx == Some(RootSet::InsecureEmulator)
    }
}

/// The root that TDX evidence has to end at.
#[derive(Clone, Debug)]
pub struct TdxRoot {
    pub(crate) der: Vec<u8>,
    pub(crate) set: RootSet,
}

impl TdxRoot {
    /// Intel's root for production.
    #[must_use]
    pub fn intel() -> Self {
        Self { der: INTEL_ROOT.to_vec(), set: RootSet::Builtin }
    }

    /// The root of an emulator, DER. Evidence under it proves nothing about hardware.
    #[must_use]
    pub const fn danger_emulator(der: Vec<u8>) -> Self {
        Self { der, set: RootSet::InsecureEmulator }
    }
}

/// Root and intermediate of one generation of AMD processors, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpRoot {
    /// Which processors.
    pub generation: Generation,
    /// Root.
    pub ark: Vec<u8>,
    /// Intermediate that signs VCEKs. That for VLEKs comes with the evidence.
    pub ask: Vec<u8>,
}

/// The roots that SNP evidence may end at.
#[derive(Clone, Debug)]
pub struct SnpRoots {
    pub(crate) roots: Vec<SnpRoot>,
    pub(crate) set: RootSet,
}

impl SnpRoots {
    /// AMD's roots for Milan, Genoa and Turin.
    ///
    /// # Errors
    /// `EVIDENCE_CERTIFICATE_INVALID` if one of the built-in certificates does not parse.
    pub fn amd() -> Result<Self, EvidenceError> {
        let der = |certificate: std::io::Result<Certificate>| {
            certificate
                .and_then(|certificate| certificate.to_der())
                .map_err(|error| invalid("built-in AMD certificate", "a certificate", error))
        };
        let roots = vec![
            SnpRoot {
                generation: Generation::Milan,
                ark: der(builtin::milan::ark())?,
                ask: der(builtin::milan::ask())?,
            },
            SnpRoot {
                generation: Generation::Genoa,
                ark: der(builtin::genoa::ark())?,
                ask: der(builtin::genoa::ask())?,
            },
            SnpRoot {
                generation: Generation::Turin,
                ark: der(builtin::turin::ark())?,
                ask: der(builtin::turin::ask())?,
            },
        ];
        Ok(Self { roots, set: RootSet::Builtin })
    }

    /// The roots of an emulator. Evidence under them proves nothing about hardware.
    #[must_use]
    pub const fn danger_emulator(roots: Vec<SnpRoot>) -> Self {
        Self { roots, set: RootSet::InsecureEmulator }
    }

    pub(crate) fn of(&self, generation: Generation) -> Result<&SnpRoot, EvidenceError> {
        self.roots.iter().find(|root| root.generation == generation).ok_or(EvidenceError::CollateralMissing {
            what: "a trusted root for this generation of processors",
        })
    }
}
