//! Certificates, revocation lists, signed texts and roots beside good evidence. Whatever was altered, what verifies says
//! what was signed.
//!
//! Input: one byte (which part; above 127 the rest takes its place), then edits of the part or the part itself.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::abi::json::{SnpCertificate, SnpCertificateKind};
use evidence::verify::roots::TrustBundle;
use evidence::verify::snp::SnpCollateral;
use evidence::verify::{VerifiedEvidence, snp, tdx};
use fuzz::bounded;
use fuzz::platform::{PLATFORMS, facts, says_what_was_signed, snp_presentation, tdx_presentation};
use fuzz::stream::Choices;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let which = choices.u8();
    let mut change = |part: &mut Vec<u8>| {
        if which & 0x80 == 0 { choices.edit(part) } else { *part = choices.rest().to_vec() }
    };
    bounded(data.len() + 65_536, || match which & 0x0F {
        kind @ 0..=7 => of_tdx(kind, &mut change),
        kind @ 8..=11 => of_snp(kind, &mut change),
        12 => roots(&mut change),
        _ => sorted(which & 0x0F, &mut change),
    });
});

fn of_tdx(kind: u8, change: &mut dyn FnMut(&mut Vec<u8>)) {
    let (mut quote, mut collateral) = (PLATFORMS.quote.clone(), PLATFORMS.tdx.clone());
    match kind {
        0 => change(&mut collateral.pck_crl),
        1 => change(&mut collateral.root_ca_crl),
        2 => in_text(&mut collateral.tcb_info, change),
        3 => in_text(&mut collateral.qe_identity, change),
        4 => collateral.tcb_info_issuer_chain = in_chain(&collateral.tcb_info_issuer_chain, 0, change),
        5 => collateral.qe_identity_issuer_chain = in_chain(&collateral.qe_identity_issuer_chain, 1, change),
        which => {
            let chain = String::from_utf8(quote.pck_chain).expect("a chain in PEM");
            quote.pck_chain = in_chain(&chain, usize::from(which - 6), change).into_bytes();
        }
    }
    let quote = quote.encode();
    let _ = tdx::latest_issue_date(&quote, &collateral, PLATFORMS.roots.tdx.as_ref().expect("a root"));
    says_what_was_signed(&tdx_presentation(quote, &collateral, None), &PLATFORMS.roots);
}

fn of_snp(kind: u8, change: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut collateral = PLATFORMS.snp.clone();
    match kind {
        8 => change(&mut collateral.vek),
        9 => collateral.ask.iter_mut().for_each(change),
        10 => collateral.crl.iter_mut().for_each(change),
        _ => collateral.ark.iter_mut().for_each(change),
    }
    let report = PLATFORMS.report.encode();
    let _ = snp::latest_issue_date(&report, &collateral, &PLATFORMS.roots.snp);
    if let Ok(verified) = snp::verify_without_clock(&report, &collateral, &PLATFORMS.roots.snp) {
        // Of a root that comes with evidence only the key is looked at, and the root that is believed is used.
        assert_eq!(verified.report, PLATFORMS.report);
        assert_eq!(facts(VerifiedEvidence::Snp(Box::new(verified))), PLATFORMS.snp_facts);
    }
    says_what_was_signed(&snp_presentation(report, &collateral), &PLATFORMS.roots);
}

/// Roots that an operator names.
fn roots(change: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut text = PLATFORMS.bundle.encode().into_bytes();
    change(&mut text);
    let Ok(bundle) = TrustBundle::parse(&text) else { return };
    let roots = bundle.danger_roots();
    says_what_was_signed(&PLATFORMS.snp_presentation(), &roots);
    if bundle.tdx == PLATFORMS.bundle.tdx {
        says_what_was_signed(&PLATFORMS.tdx_presentation(), &roots);
    }
}

/// Certificates as a host delivers them beside a report, in DER or PEM.
fn sorted(which: u8, change: &mut dyn FnMut(&mut Vec<u8>)) {
    let one = |kind, data: &[u8]| SnpCertificate { kind, data: data.to_vec() };
    let made = &PLATFORMS.snp;
    let mut vek = if which & 1 == 0 { made.vek.clone() } else { pem(&made.vek).into_bytes() };
    change(&mut vek);
    let ask = made.ask.as_ref().expect("an ASK");
    let certificates = [one(SnpCertificateKind::Vcek, &vek), one(SnpCertificateKind::Ask, ask)];
    let Ok(collateral) = SnpCollateral::sort(&certificates) else { return };
    says_what_was_signed(&snp_presentation(PLATFORMS.report.encode(), &collateral), &PLATFORMS.roots);
}

fn in_text(text: &mut String, change: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut bytes = std::mem::take(text).into_bytes();
    change(&mut bytes);
    *text = String::from_utf8_lossy(&bytes).into_owned();
}

/// A chain in PEM with one certificate changed in its DER.
fn in_chain(chain: &str, which: usize, change: &mut dyn FnMut(&mut Vec<u8>)) -> String {
    let mut chain: Vec<Vec<u8>> = chain
        .trim_end_matches('\0')
        .split_terminator("-----END CERTIFICATE-----\n")
        .map(|one| one.replace("-----BEGIN CERTIFICATE-----", "").replace('\n', ""))
        .map(|body| STANDARD.decode(body).expect("a certificate"))
        .collect();
    change(&mut chain[which]);
    chain.iter().map(|der| pem(der)).collect()
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines = body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
