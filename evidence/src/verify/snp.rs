//! SEV-SNP reports: `sev` for signatures; names, dates, keys, extensions, root and revocation here.

use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use crate::abi::json::{SnpCertificate, SnpCertificateKind};
use crate::abi::snp::{Generation, SnpReport, Tcb};
use crate::bytes::{Octets, limit};
use crate::error::{EvidenceError, Found};
use crate::verify::certificate::{Parsed, RevocationList, Window};
use crate::verify::chain_fingerprint;
use crate::verify::roots::{RootSet, SnpRoots};
use crate::verify::vek;

pub use crate::verify::vek::VekKind;

/// Longest certificate.
pub const MAXIMUM_CERTIFICATE_BYTES: usize = 8 * 1024;
/// Longest revocation list.
pub const MAXIMUM_LIST_BYTES: usize = 64 * 1024;
const SIGNATURE_P384: u32 = 1;

/// Certificates and list, DER, as they came with a report. Unauthenticated until a report is verified with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpCollateral {
    /// Root. Never believed: compared with the one that is.
    pub ark: Option<Vec<u8>>,
    /// Intermediate: ASK beside a VCEK, where absent the built-in one; ASVK beside a VLEK.
    pub ask: Option<Vec<u8>>,
    /// Revocation list of the root.
    pub crl: Option<Vec<u8>>,
    /// Which key signed the report.
    pub kind: VekKind,
    /// VCEK or VLEK.
    pub vek: Vec<u8>,
}

/// A report whose signature and chain were verified. Only [`verify`] and [`verify_without_clock`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedSnp {
    /// The report.
    pub report: SnpReport,
    /// Whose root was believed.
    pub roots: RootSet,
    /// Which processors.
    pub generation: Generation,
    /// Which key signed.
    pub kind: VekKind,
    /// TCB of that key, the same as the report's reported TCB.
    pub vek_tcb: Tcb,
    /// Number of the revocation list, where one was presented.
    pub crl_number: Option<u64>,
    /// SHA-256 of the SubjectPublicKeyInfo of the root, which numbers its list.
    pub ark_key_digest: Octets<32>,
    /// Fingerprint of VEK, intermediate and root.
    pub certificate_chain: Octets<32>,
    /// Latest issue date of all that was verified.
    pub latest_issue_date: u64,
    /// Earliest end of all that was verified.
    pub earliest_expiration_date: u64,
}

impl SnpCollateral {
    /// Sorts the certificates of an evidence text; DER or PEM.
    ///
    /// # Errors
    /// `EVIDENCE_COLLATERAL_MISSING` without VCEK and VLEK; `EVIDENCE_CERTIFICATE_INVALID` for two of a kind;
    /// `EVIDENCE_TOO_LARGE`, `EVIDENCE_MALFORMED`.
    pub fn sort(certificates: &[SnpCertificate]) -> Result<Self, EvidenceError> {
        let one = |kind: &SnpCertificateKind| {
            let mut of_kind = certificates.iter().filter(|certificate| certificate.kind == *kind);
            let first = of_kind.next();
            if of_kind.next().is_some() {
                return Err(EvidenceError::CertificateInvalid {
                    which: "certificates beside an SNP report",
                    expected: "one of a kind",
                    found: Found::text("a second one"),
                });
            }
            first.map(|certificate| der(&certificate.data)).transpose()
        };
        let (kind, vek) = match (one(&SnpCertificateKind::Vcek)?, one(&SnpCertificateKind::Vlek)?) {
            (Some(vcek), None) => (VekKind::Vcek, vcek),
            (None, Some(vlek)) => (VekKind::Vlek, vlek),
            (None, None) => {
                return Err(EvidenceError::CollateralMissing { what: "a VCEK or VLEK certificate" });
            }
            (Some(_), Some(_)) => {
                return Err(EvidenceError::CertificateInvalid {
                    which: "certificates beside an SNP report",
                    expected: "a VCEK or a VLEK",
                    found: Found::text("both"),
                });
            }
        };
        let ark = one(&SnpCertificateKind::Ark)?;
        let ask = one(&SnpCertificateKind::Ask)?;
        Ok(Self { ark, ask, crl: one(&SnpCertificateKind::Crl)?, kind, vek })
    }
}

fn der(data: &[u8]) -> Result<Vec<u8>, EvidenceError> {
    if !data.starts_with(b"-----BEGIN CERTIFICATE-----") {
        return Ok(data.to_vec());
    }
    crate::verify::pem::parse_chain("certificate beside an SNP report", data).map(|[certificate]| certificate)
}

struct Prepared {
    report: SnpReport,
    generation: Generation,
    vek: Parsed,
    ask: Parsed,
    ark: Parsed,
    list: Option<RevocationList>,
    windows: Vec<Window>,
}

/// Verifies one report of exactly 1184 bytes at the trusted time `now`, in seconds since 1970.
///
/// # Errors
/// All codes but `EVIDENCE_LOG_MISMATCH`, `EVIDENCE_POLICY_DENIED` and `EVIDENCE_TCB_REFUSED`.
pub fn verify(
    report: &[u8],
    collateral: &SnpCollateral,
    roots: &SnpRoots,
    now: u64,
) -> Result<VerifiedSnp, EvidenceError> {
    let prepared = prepare(report, collateral, roots)?;
    for window in &prepared.windows {
        window.holds_at(now)?;
    }
    let Prepared { vek, ask, ark, .. } = &prepared;
    signing_rules(&prepared.report, collateral.kind)?;
    vek::authority(ark, &format!("ARK-{}", prepared.generation))?;
    vek::authority(ask, &authority_name(collateral.kind, prepared.generation))?;
    vek::end_entity(vek, collateral.kind)?;
    ask.named_as_issuer(ark)?;
    vek.named_as_issuer(ask)?;
    signatures(report, &prepared)?;
    if let Some(list) = &prepared.list {
        vek::revocation(list, "SNP revocation list", ark, ask)?;
    }
    let vek_tcb = vek::matches_report(vek, collateral.kind, prepared.generation, &prepared.report)?;
    Ok(VerifiedSnp {
        roots: roots.set,
        generation: prepared.generation,
        kind: collateral.kind,
        vek_tcb,
        crl_number: prepared.list.as_ref().map(|list| list.number),
        ark_key_digest: ark.key_digest()?,
        certificate_chain: chain_fingerprint([vek, ask, ark].map(|parsed| parsed.der.as_slice())),
        latest_issue_date: latest(&prepared.windows),
        earliest_expiration_date: prepared.windows.iter().map(|window| window.not_after).min().unwrap_or(0),
        report: prepared.report,
    })
}

/// Verifies one report where there is no clock: at the latest issue date of what is presented.
///
/// # Errors
/// As [`verify`].
pub fn verify_without_clock(
    report: &[u8],
    collateral: &SnpCollateral,
    roots: &SnpRoots,
) -> Result<VerifiedSnp, EvidenceError> {
    verify(report, collateral, roots, latest_issue_date(report, collateral, roots)?)
}

/// The latest issue date inside what is presented; [`verify`] then checks every signature under it.
///
/// # Errors
/// As [`verify`], for bytes that do not parse or another root.
pub fn latest_issue_date(
    report: &[u8],
    collateral: &SnpCollateral,
    roots: &SnpRoots,
) -> Result<u64, EvidenceError> {
    prepare(report, collateral, roots).map(|prepared| latest(&prepared.windows))
}

fn latest(windows: &[Window]) -> u64 {
    windows.iter().map(|window| window.not_before).max().unwrap_or_default()
}

fn authority_name(kind: VekKind, generation: Generation) -> String {
    match kind {
        VekKind::Vcek => format!("SEV-{generation}"),
        VekKind::Vlek => format!("SEV-VLEK-{generation}"),
    }
}

fn prepare(report: &[u8], collateral: &SnpCollateral, roots: &SnpRoots) -> Result<Prepared, EvidenceError> {
    let report = SnpReport::parse(report)?;
    limit("VEK certificate", MAXIMUM_CERTIFICATE_BYTES, collateral.vek.len())?;
    let which = match collateral.kind {
        VekKind::Vcek => "VCEK certificate",
        VekKind::Vlek => "VLEK certificate",
    };
    let vek = Parsed::parse(which, &collateral.vek)?;
    let generation = vek::product(&vek)?;
    let stated = report.generation();
    // GUARD: generation-of-report -> evil_vek_of_another_generation_is_refused
    if stated.is_some_and(|stated| stated != generation) {
        return Err(EvidenceError::PlatformMismatch {
            field: "processor generation",
            expected: Found::value(generation),
            found: Found::value(stated.map_or("", Generation::name)),
        });
    }
    let root = roots.of(generation)?;
    let ark = Parsed::parse("ARK certificate", &root.ark)?;
    if let Some(presented) = &collateral.ark {
        limit("ARK certificate", MAXIMUM_CERTIFICATE_BYTES, presented.len())?;
        let presented = Parsed::parse("ARK certificate", presented)?;
        // GUARD: ark-pin -> evil_presented_root_is_compared_never_believed
        if presented.public_key() != ark.public_key() {
            return Err(EvidenceError::RootUntrusted {
                expected: Found::value(chain_fingerprint([ark.der.as_slice()])),
                found: Found::value(chain_fingerprint([presented.der.as_slice()])),
            });
        }
    }
    let ask = match (&collateral.ask, collateral.kind) {
        (Some(ask), _) => ask,
        (None, VekKind::Vcek) => &root.ask,
        (None, VekKind::Vlek) => {
            return Err(EvidenceError::CollateralMissing { what: "an ASVK certificate" });
        }
    };
    limit("ASK certificate", MAXIMUM_CERTIFICATE_BYTES, ask.len())?;
    let ask = Parsed::parse("ASK certificate", ask)?;
    limit("SNP revocation list", MAXIMUM_LIST_BYTES, collateral.crl.as_ref().map_or(0, Vec::len))?;
    let list =
        collateral.crl.as_ref().map(|crl| RevocationList::parse("SNP revocation list", crl)).transpose()?;
    let mut windows = vec![ark.window(), ask.window(), vek.window()];
    windows.extend(list.as_ref().map(|list| list.window));
    Ok(Prepared { report, generation, vek, ask, ark, list, windows })
}

/// What the report says about its own signature.
fn signing_rules(report: &SnpReport, kind: VekKind) -> Result<(), EvidenceError> {
    // GUARD: report-signature-algorithm -> evil_report_without_signature_algorithm_is_refused
    if report.signature_algorithm != SIGNATURE_P384 {
        return Err(EvidenceError::Unsupported {
            what: "SNP signature algorithm",
            expected: "1 (ECDSA P-384 with SHA-384)",
            found: Found::value(report.signature_algorithm),
        });
    }
    // GUARD: chip-key-masked -> evil_report_with_masked_chip_key_is_refused
    if report.key_info.chip_key_masked() {
        return Err(EvidenceError::Unsupported {
            what: "SNP key info",
            expected: "a chip key that is not masked",
            found: Found::value(report.key_info.0),
        });
    }
    let expected = match kind {
        VekKind::Vcek => 0,
        VekKind::Vlek => 1,
    };
    // GUARD: signing-key -> evil_report_of_another_signing_key_is_refused
    if report.key_info.signing_key() != expected {
        return Err(EvidenceError::PlatformMismatch {
            field: "signing key of the report",
            expected: Found::value(expected),
            found: Found::value(report.key_info.signing_key()),
        });
    }
    Ok(())
}

fn signatures(report: &[u8], prepared: &Prepared) -> Result<(), EvidenceError> {
    let invalid = |error: std::io::Error| EvidenceError::SignatureInvalid {
        what: "SNP report and chain",
        reason: Found::value(error),
    };
    let Prepared { vek, ask, ark, .. } = prepared;
    let chain = Chain::from_der(&ark.der, &ask.der, &vek.der).map_err(invalid)?;
    let parsed = AttestationReport::from_bytes(report).map_err(|error| EvidenceError::Malformed {
        what: "SNP report",
        expected: "two parsers to take it",
        found: Found::value(error),
    })?;
    // GUARD: snp-signatures -> evil_any_changed_byte_of_a_report_is_refused, evil_chain_signed_by_another_root_is_refused
    (&chain, &parsed).verify().map_err(invalid)?;
    Ok(())
}
