//! Emulated platforms whose evidence holds now.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evidence::Octets;
use evidence::abi::aael::AaelEvent;
use evidence::abi::event_log::{EV_EVENT_TAG, EventLog, LogEntry, LogHeader};
use evidence::abi::json::{SnpCertificate, SnpCertificateKind, SnpEvidence, TdxEvidence};
use evidence::abi::snp::{Generation, SnpReport};
use evidence::abi::tdx::TdBody;
use evidence::mint::snp::{RsaKey, SnpPlatform};
use evidence::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use evidence::verify::replay::extend;
use evidence::verify::roots::TrustBundle;
use evidence::verify::snp::VekKind;
use serde_json::{Value, json};

use crate::client::Guest;
use crate::process::Setup;

pub(crate) const MEASUREMENT: [u8; 48] = [0x11; 48];

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn tdx() -> TdxPlatform {
    TdxPlatform::new("key broker tests", now() - 1000, now() + 100_000).unwrap()
}

pub(crate) fn snp() -> SnpPlatform {
    let ark = include_bytes!("../../../../tests/vectors/evidence/keys/insecure-test-ark.pk8");
    let ask = include_bytes!("../../../../tests/vectors/evidence/keys/insecure-test-ask.pk8");
    let keys = (RsaKey::from_pkcs8(ark).unwrap(), RsaKey::from_pkcs8(ask).unwrap());
    let kind = (Generation::Milan, VekKind::Vcek);
    SnpPlatform::new(keys, kind, "key broker tests", now() - 1000, now() + 100_000).unwrap()
}

impl Setup {
    /// Believes a TDX platform, with its collateral.
    pub(crate) fn tdx(platform: &TdxPlatform) -> Self {
        Self::trusting_tdx(platform).file("--collateral", platform.collateral().unwrap().encode())
    }

    pub(crate) fn trusting_tdx(platform: &TdxPlatform) -> Self {
        let bundle = TrustBundle { snp: Vec::new(), tdx: Some(platform.root_der().unwrap()) };
        Self::default().file("--insecure-trust-roots", bundle.encode())
    }

    /// Believes an SNP platform, without collateral.
    pub(crate) fn snp(platform: &SnpPlatform) -> Self {
        let bundle = TrustBundle { snp: vec![platform.root().unwrap()], tdx: None };
        Self::default().file("--insecure-trust-roots", bundle.encode())
    }
}

/// The body of a TD that is bound to a guest, with the log that its registers follow from.
pub(crate) fn body(guest: &Guest<'_>, log: Option<&EventLog>) -> TdBody {
    let mut rtmr = [Octets([0; 48]); 4];
    for entry in log.iter().flat_map(|log| &log.entries) {
        let register = &mut rtmr[entry.index as usize - 1];
        *register = extend(register, &entry.digests[0].1);
    }
    TdBody {
        td_attributes: SEPT_VE_DISABLE,
        xfam: Octets([0xe7, 0, 6, 0, 0, 0, 0, 0]),
        mr_td: Octets(MEASUREMENT),
        rtmr,
        report_data: Octets::fitted(&guest.report_data()),
        ..TdBody::default()
    }
}

pub(crate) fn tdx_evidence(platform: &TdxPlatform, body: TdBody, log: Option<&EventLog>) -> Value {
    let quote = platform.quote(body).unwrap().encode();
    let evidence = TdxEvidence { event_log: log.map(EventLog::encode), quote };
    serde_json::from_str(&evidence.encode()).unwrap()
}

pub(crate) fn log() -> EventLog {
    let event = AaelEvent::new("example.org", "PullImage", r#"{"image":"registry.example/app:1"}"#).unwrap();
    let entries =
        vec![LogEntry::new(2, 0xd, b"kernel".to_vec()), LogEntry::new(4, EV_EVENT_TAG, event.encode())];
    EventLog { header: LogHeader::fallback(), entries, terminated: true }
}

pub(crate) fn report(platform: &SnpPlatform, guest: &Guest<'_>, version: u32) -> SnpReport {
    SnpReport {
        report_data: Octets::fitted(&guest.report_data()),
        measurement: Octets(MEASUREMENT),
        ..platform.report(version)
    }
}

pub(crate) fn certificates(platform: &SnpPlatform) -> Vec<SnpCertificate> {
    let collateral = platform.collateral().unwrap();
    vec![SnpCertificate { kind: SnpCertificateKind::Vcek, data: collateral.vek }]
}

pub(crate) fn snp_evidence(platform: &SnpPlatform, report: SnpReport, with_chain: bool) -> Value {
    let report = platform.sign(report).unwrap();
    let certificates = with_chain.then(|| certificates(platform));
    serde_json::from_str(&SnpEvidence { report, certificates }.encode()).unwrap()
}

/// Collateral of an SNP platform as a file has it.
pub(crate) fn snp_file(platform: &SnpPlatform, with_list: bool) -> String {
    let crl = with_list.then(|| STANDARD.encode(platform.collateral().unwrap().crl.unwrap()));
    json!({"certificates": certificates(platform), "crl": crl}).to_string()
}
