//! SEV-SNP: report, certificates from the evidence or from files, rules that Trustee has.

use evidence::Octets;
use evidence::abi::json::SnpEvidence;
use evidence::abi::snp::{Generation, SnpReport};
use evidence::verify::snp::{SnpCollateral, VerifiedSnp, verify as verify_report};
use serde_json::{Value, json};

use super::{Bound, Claims, Untrusted, Verifier, form, require_init_data, require_report_data, root_set};

pub(super) fn verify(verifier: &Verifier, evidence: &[u8], bound: Bound<'_>) -> Result<Claims, Untrusted> {
    let evidence = SnpEvidence::parse(evidence)?;
    rules(&evidence.report)?;
    let verified = chained(verifier, &evidence, bound.now)?;
    let report = &verified.report;
    require_report_data(&Octets::<64>::fitted(bound.report_data).0, &report.report_data.0)?;
    require_init_data(bound.init_data, &report.host_data)?;
    Ok(Claims {
        init_data: Some(report.host_data.to_string()),
        report_data: report.report_data.to_string(),
        claims: claims(&verified),
    })
}

/// What Trustee demands of a report beside signatures.
fn rules(report: &SnpReport) -> Result<(), Untrusted> {
    // GUARD: broker-snp-version -> evil_guest_sends_an_old_snp_report
    if report.version < 3 {
        return Err(form("SNP report version", "3, 4 or 5", report.version));
    }
    // GUARD: broker-snp-vmpl -> evil_guest_asks_from_another_vmpl
    if report.vmpl != 0 {
        return Err(form("SNP report VMPL", "0", report.vmpl));
    }
    Ok(())
}

/// Verifies the report with the certificates of a file, or with those beside it. All are checked against the roots that are believed;
/// a revocation list of the operator replaces the one that the host delivers.
fn chained(verifier: &Verifier, evidence: &SnpEvidence, now: u64) -> Result<VerifiedSnp, Untrusted> {
    let report = evidence.report.encode();
    let list = verifier.collateral.snp_list(evidence.report.generation());
    let attempt = |certificates: &[_]| {
        let mut collateral = SnpCollateral::sort(certificates)?;
        if let Some(list) = list {
            collateral.crl = Some(list.to_vec());
        }
        verify_report(&report, &collateral, &verifier.roots.snp, now)
    };
    let mut refusal = None;
    for certificates in verifier.collateral.snp_certificates() {
        match attempt(certificates) {
            Ok(verified) => return Ok(verified),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    match (&evidence.certificates, refusal) {
        (Some(certificates), _) => Ok(attempt(certificates)?),
        (None, Some(refusal)) => Err(refusal.into()),
        (None, None) => Err(evidence::EvidenceError::CollateralMissing {
            what: "a VCEK or VLEK certificate, in the evidence or in a file",
        }
        .into()),
    }
}

fn claims(verified: &VerifiedSnp) -> Value {
    let report = &verified.report;
    let policy = |bit: u32| report.policy.0 >> bit & 1 == 1;
    let platform = |bit: u32| report.platform_info >> bit & 1 == 1;
    json!({
        "policy_abi_major": report.policy.0 >> 8 & 0xff,
        "policy_abi_minor": report.policy.0 & 0xff,
        "policy_smt_allowed": policy(16),
        "policy_migrate_ma": policy(18),
        "policy_debug_allowed": policy(19),
        "policy_single_socket": policy(20),
        "reported_tcb_bootloader": report.reported_tcb.bootloader,
        "reported_tcb_tee": report.reported_tcb.tee,
        "reported_tcb_snp": report.reported_tcb.snp,
        "reported_tcb_microcode": report.reported_tcb.microcode,
        "platform_smt_enabled": platform(0),
        "platform_tsme_enabled": platform(1),
        "measurement": report.measurement.to_string(),
        "chip_id": report.chip_id.to_string(),
        "generation": Generation::name(verified.generation),
        "crl_num": verified.crl_number,
        "trust_roots": root_set(verified.roots),
    })
}
