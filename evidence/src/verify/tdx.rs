//! TDX quotes: `dcap-qvl` for signatures, chains, revocation and TCB levels; here what it leaves open.

use dcap_qvl::configs::RustCryptoConfig;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{Policy as _, QuoteClaims, QuotePolicy};

use crate::abi::tdx::{TdExtension, TdxQuote};
use crate::bytes::Octets;
use crate::error::{EvidenceError, Found};
use crate::verify::certificate::{Parsed, RevocationList, Window};
use crate::verify::chain_fingerprint;
use crate::verify::collateral::{SignedInfo, TdxCollateral};
use crate::verify::pem::parse_chain;
use crate::verify::roots::{RootSet, TdxRoot};

pub use dcap_qvl::TcbStatus;

/// What is accepted of the platform, beside signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// TCB statuses that are accepted beside `UpToDate`. `Revoked` never is.
    pub accepted_statuses: Vec<TcbStatus>,
    /// Whether keys cached by the registration service are accepted.
    pub cached_keys: bool,
    /// Whether TDs that the host can debug pass, so that a later rule judges them.
    pub debug: bool,
    /// Whether platforms to which packages can be added are accepted.
    pub dynamic_platform: bool,
    /// Whether platforms with several threads a core are accepted.
    pub smt: bool,
}

impl Appraisal {
    /// `UpToDate` only, no debug; several threads a core, which is how servers run, are accepted.
    #[must_use]
    pub const fn strict() -> Self {
        Self {
            accepted_statuses: Vec::new(),
            cached_keys: false,
            debug: false,
            dynamic_platform: false,
            smt: true,
        }
    }

    /// As [`strict`](Self::strict), for servers as Intel registers them: of several packages, with keys that its
    /// registration service caches. A strict appraisal refuses every one of them.
    #[must_use]
    pub const fn servers() -> Self {
        Self {
            accepted_statuses: Vec::new(),
            cached_keys: true,
            debug: false,
            dynamic_platform: true,
            smt: true,
        }
    }

    fn as_library(&self, now: u64) -> QuotePolicy {
        let policy = QuotePolicy::strict(now)
            .allow_cached_keys(self.cached_keys)
            .allow_dynamic_platform(self.dynamic_platform)
            .allow_smt(self.smt);
        // A status that was accepted by name is not judged a second time by its age.
        let grace = std::time::Duration::from_secs(u64::MAX);
        self.accepted_statuses
            .iter()
            .fold(policy, |policy, status| policy.allow_status(*status))
            .platform_grace_period(grace)
            .qe_grace_period(grace)
    }
}

/// A quote whose signatures, chain and collateral were verified. Only [`verify`] and [`verify_without_clock`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedTdx {
    /// The quote.
    pub quote: TdxQuote,
    /// Whose root was believed.
    pub roots: RootSet,
    /// TCB status of platform, module and quoting enclave together.
    pub tcb_status: TcbStatus,
    /// Advisories that this status leaves open.
    pub advisory_ids: Vec<String>,
    /// The lower TCB-evaluation number of TCB info and QE identity.
    pub tcb_evaluation_number: u32,
    /// Number of the PCK revocation list.
    pub pck_crl_number: u64,
    /// Number of the root's revocation list.
    pub root_crl_number: u64,
    /// Family, model, stepping, platform and custom SKU of the platform.
    pub fmspc: Octets<6>,
    /// Id of the provisioning certification enclave.
    pub pce_id: Octets<2>,
    /// Its security version.
    pub pce_svn: u16,
    /// Security versions of the processor.
    pub cpu_svn: Octets<16>,
    /// Provisioning id of the platform.
    pub ppid: Octets<16>,
    /// Fingerprint of PCK certificate, its CA and root.
    pub certificate_chain: Octets<32>,
    /// SHA-384 of the root's public key.
    pub root_key_id: Octets<48>,
    /// SHA-256 of the SubjectPublicKeyInfo of the root, which numbers its list and TCB evaluations.
    pub root_key_digest: Octets<32>,
    /// SHA-256 of the SubjectPublicKeyInfo of the PCK CA, which numbers its list.
    pub pck_ca_key_digest: Octets<32>,
    /// Latest issue date of all that was verified.
    pub latest_issue_date: u64,
    /// Earliest end of all that was verified.
    pub earliest_expiration_date: u64,
}

struct Prepared {
    quote: TdxQuote,
    chain: [Parsed; 3],
    windows: Vec<Window>,
    pce_id: String,
    pck_crl_number: u64,
    root_crl_number: u64,
    root_key_digest: Octets<32>,
    pck_ca_key_digest: Octets<32>,
}

/// Verifies one quote at the trusted time `now`, in seconds since 1970.
///
/// # Errors
/// All codes but `EVIDENCE_LOG_MISMATCH` and `EVIDENCE_POLICY_DENIED`.
pub fn verify(
    quote: &[u8],
    collateral: &TdxCollateral,
    root: &TdxRoot,
    appraisal: &Appraisal,
    now: u64,
) -> Result<VerifiedTdx, EvidenceError> {
    let prepared = prepare(quote, collateral, root)?;
    for window in &prepared.windows {
        window.holds_at(now)?;
    }
    let claims = QuoteVerifier::<RustCryptoConfig>::new_with_config(root.der.clone())
        .allow_debug(appraisal.debug)
        .verify_with_policy(quote, collateral.as_library(), now, &QuotePolicy::claims_only(now))
        .map_err(|error| EvidenceError::SignatureInvalid {
            what: "TDX quote",
            reason: Found::text(&format!("{error:#}")),
        })?;
    // GUARD: tcb-status -> evil_tcb_status_out_of_date_is_refused
    appraisal
        .as_library(now)
        .validate(&claims)
        .map_err(|error| EvidenceError::TcbRefused { reason: Found::text(&format!("{error:#}")) })?;
    // GUARD: pce-id -> evil_tcb_info_of_another_pce_is_refused
    if !hex::encode(&claims.platform.pck.pce_id).eq_ignore_ascii_case(&prepared.pce_id) {
        return Err(EvidenceError::PlatformMismatch {
            field: "pceId of the TCB info",
            expected: Found::hex(&claims.platform.pck.pce_id),
            found: Found::text(&prepared.pce_id),
        });
    }
    both_parsers_agree(&prepared.quote, &claims)?;
    Ok(result(prepared, root, claims))
}

/// Verifies one quote where there is no clock: at the latest issue date of what is presented.
///
/// # Errors
/// As [`verify`].
pub fn verify_without_clock(
    quote: &[u8],
    collateral: &TdxCollateral,
    root: &TdxRoot,
    appraisal: &Appraisal,
) -> Result<VerifiedTdx, EvidenceError> {
    let now = latest_issue_date(quote, collateral, root)?;
    let verified = verify(quote, collateral, root, appraisal, now)?;
    // Every date that went into `now` is one of a verified object, so this cannot differ; it must not, ever.
    if verified.latest_issue_date != now {
        return Err(EvidenceError::NotInTime {
            what: "collateral without a clock",
            not_before: verified.latest_issue_date,
            not_after: verified.latest_issue_date,
            now,
        });
    }
    Ok(verified)
}

/// The latest issue date inside what is presented: certificates of all chains, revocation lists, TCB info, QE
/// identity. It may be used as the time of a verification, which then checks every signature; before that it is the
/// word of whoever presents.
///
/// # Errors
/// As [`verify`], for bytes that do not parse or another root.
pub fn latest_issue_date(
    quote: &[u8],
    collateral: &TdxCollateral,
    root: &TdxRoot,
) -> Result<u64, EvidenceError> {
    let prepared = prepare(quote, collateral, root)?;
    Ok(prepared.windows.iter().map(|window| window.not_before).max().unwrap_or_default())
}

fn prepare(quote: &[u8], collateral: &TdxCollateral, root: &TdxRoot) -> Result<Prepared, EvidenceError> {
    // The library takes bytes after the quote; the parser here does not.
    let quote = TdxQuote::parse(quote)?;
    collateral.complete()?;
    let [leaf, ca, quote_root] = parse_chain("PCK certificate chain", &quote.pck_chain)?;
    let [tcb_signer, tcb_root] =
        parse_chain("TCB info issuer chain", collateral.tcb_info_issuer_chain.as_bytes())?;
    let [qe_signer, qe_root] =
        parse_chain("QE identity issuer chain", collateral.qe_identity_issuer_chain.as_bytes())?;
    for presented in [&quote_root, &tcb_root, &qe_root] {
        // GUARD: tdx-root-pin -> evil_tdx_evidence_under_another_root_is_refused
        if *presented != root.der {
            return Err(EvidenceError::RootUntrusted {
                expected: Found::value(chain_fingerprint([root.der.as_slice()])),
                found: Found::value(chain_fingerprint([presented.as_slice()])),
            });
        }
    }
    let chain = [
        Parsed::parse("PCK certificate", &leaf)?,
        Parsed::parse("PCK CA certificate", &ca)?,
        Parsed::parse("Intel root certificate", &root.der)?,
    ];
    let [leaf, ca, root_certificate] = &chain;
    leaf.named_as_issuer(ca)?;
    ca.named_as_issuer(root_certificate)?;
    let root_crl = RevocationList::parse("root revocation list", &collateral.root_ca_crl)?;
    let pck_crl = RevocationList::parse("PCK revocation list", &collateral.pck_crl)?;
    // The library takes either list in either place; their numbers count by the place.
    root_crl.named_as_issuer("root revocation list", root_certificate)?;
    pck_crl.named_as_issuer("PCK revocation list", ca)?;
    let (root_key_digest, pck_ca_key_digest) = (root_certificate.key_digest()?, ca.key_digest()?);
    let tcb_info = SignedInfo::parse("TCB info", &collateral.tcb_info)?;
    let qe_identity = SignedInfo::parse("QE identity", &collateral.qe_identity)?;
    let windows = vec![
        root_certificate.window(),
        ca.window(),
        leaf.window(),
        Parsed::parse("TCB info signer", &tcb_signer)?.window(),
        Parsed::parse("QE identity signer", &qe_signer)?.window(),
        root_crl.window,
        pck_crl.window,
        tcb_info.window("TCB info")?,
        qe_identity.window("QE identity")?,
    ];
    Ok(Prepared {
        quote,
        chain,
        windows,
        pce_id: tcb_info.pce_id.unwrap_or_default(),
        pck_crl_number: pck_crl.number,
        root_crl_number: root_crl.number,
        root_key_digest,
        pck_ca_key_digest,
    })
}

/// Two parsers read the same quote; what they say about the guest has to be the same.
fn both_parsers_agree(quote: &TdxQuote, claims: &QuoteClaims) -> Result<(), EvidenceError> {
    let body = &quote.body;
    let td10 = claims.report.as_td10();
    let same = td10.is_some_and(|report| {
        report.report_data == body.report_data.0
            && report.mr_td == body.mr_td.0
            && report.mr_config_id == body.mr_config_id.0
            && report.td_attributes == body.td_attributes.0
            && report.tee_tcb_svn == body.tee_tcb_svn.0
            && [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3] == body.rtmr.map(|rtmr| rtmr.0)
    });
    let same15 = match (&body.extension, claims.report.as_td15()) {
        (TdExtension::Td10, None) => true,
        (TdExtension::Td15(ours) | TdExtension::Td15Extended(ours, _), Some(theirs)) => {
            theirs.tee_tcb_svn2 == ours.tee_tcb_svn2.0 && theirs.mr_service_td == ours.mr_service_td.0
        }
        _ => false,
    };
    if !(same && same15) {
        return Err(EvidenceError::Malformed {
            what: "TDX quote",
            expected: "two parsers to read the same",
            found: Found::text("different fields"),
        });
    }
    Ok(())
}

fn result(prepared: Prepared, root: &TdxRoot, claims: QuoteClaims) -> VerifiedTdx {
    let pck = &claims.platform.pck;
    VerifiedTdx {
        quote: prepared.quote,
        roots: root.set,
        tcb_status: claims.tcb.status,
        tcb_evaluation_number: claims.tcb.eval_data_number,
        pck_crl_number: prepared.pck_crl_number,
        root_crl_number: prepared.root_crl_number,
        fmspc: Octets(pck.fmspc),
        pce_id: Octets::fitted(&pck.pce_id),
        pce_svn: pck.pce_svn,
        cpu_svn: Octets(pck.cpu_svn),
        ppid: Octets::fitted(&pck.ppid),
        certificate_chain: chain_fingerprint(prepared.chain.iter().map(|parsed| parsed.der.as_slice())),
        root_key_id: Octets::fitted(&claims.platform.root_key_id),
        root_key_digest: prepared.root_key_digest,
        pck_ca_key_digest: prepared.pck_ca_key_digest,
        latest_issue_date: claims.latest_issue_date,
        earliest_expiration_date: claims.earliest_expiration_date,
        advisory_ids: claims.tcb.advisory_ids,
    }
}
