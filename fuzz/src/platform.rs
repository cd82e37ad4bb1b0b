//! Emulated platforms, made once: what honest guests present, and the roots that believe them.

use std::sync::LazyLock;

use evidence::Octets;
use evidence::abi::aael::AaelEvent;
use evidence::abi::event_log::{EV_EVENT_TAG, EventLog, LogEntry, LogHeader};
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::abi::snp::{Generation, SIGNED_BYTES, SnpReport};
use evidence::abi::tdx::{TdBody, TdxQuote};
use evidence::mint::MintError;
use evidence::mint::snp::{RsaKey, SnpPlatform};
use evidence::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use evidence::verify::collateral::TdxCollateral;
use evidence::verify::replay::extend;
use evidence::verify::roots::{Roots, TrustBundle};
use evidence::verify::snp::{SnpCollateral, VekKind};
use evidence::verify::tdx::Appraisal;
use evidence::verify::{Clock, VerifiedEvidence, verify_presentation};

const ISSUED: u64 = 1_790_000_000;
const EXPIRES: u64 = ISSUED + 2_000_000;
const ARK: &[u8] = include_bytes!("../../tests/vectors/evidence/keys/insecure-test-ark.pk8");
const ASK: &[u8] = include_bytes!("../../tests/vectors/evidence/keys/insecure-test-ask.pk8");

/// One TDX and one SNP platform, and a guest on each.
#[derive(Debug)]
pub struct Platforms {
    /// The quote of the TDX guest.
    pub quote: TdxQuote,
    /// Its collateral.
    pub tdx: TdxCollateral,
    /// Its log, which leads to the registers of the quote.
    pub log: EventLog,
    /// The report of the SNP guest.
    pub report: SnpReport,
    /// Its collateral.
    pub snp: SnpCollateral,
    /// The roots of both.
    pub bundle: TrustBundle,
    /// The same, believed.
    pub roots: Roots,
    /// What TDX evidence says, as [`facts`] has it.
    pub tdx_facts: VerifiedEvidence,
    /// What SNP evidence says.
    pub snp_facts: VerifiedEvidence,
}

/// The platforms of this process.
pub static PLATFORMS: LazyLock<Platforms> = LazyLock::new(|| platforms().expect("emulated platforms"));

impl Platforms {
    /// What the TDX guest presents.
    pub fn tdx_presentation(&self) -> Presentation {
        tdx_presentation(self.quote.encode(), &self.tdx, Some(self.log.encode()))
    }

    /// What the SNP guest presents.
    pub fn snp_presentation(&self) -> Presentation {
        snp_presentation(self.report.encode(), &self.snp)
    }
}

/// A TDX presentation of these parts.
pub fn tdx_presentation(quote: Vec<u8>, collateral: &TdxCollateral, log: Option<Vec<u8>>) -> Presentation {
    let evidence = PresentedEvidence::Tdx { quote, collateral: collateral.encode() };
    Presentation { evidence, event_log: log }
}

/// An SNP presentation of these parts.
pub fn snp_presentation(report: Vec<u8>, collateral: &SnpCollateral) -> Presentation {
    let SnpCollateral { ask, crl, kind, vek, .. } = collateral.clone();
    Presentation { evidence: PresentedEvidence::Snp { report, kind, vek, ask, crl }, event_log: None }
}

/// What verified evidence says: all that is signed. ECDSA is malleable, and a PEM text may be written anew, so bytes of
/// signatures and chains may differ where nothing else does.
pub fn facts(verified: VerifiedEvidence) -> VerifiedEvidence {
    match verified {
        VerifiedEvidence::Tdx(mut tdx) => {
            tdx.quote.signature = Octets::default();
            tdx.quote.qe_report_signature = Octets::default();
            tdx.quote.pck_chain.clear();
            tdx.certificate_chain = Octets::default();
            VerifiedEvidence::Tdx(tdx)
        }
        VerifiedEvidence::Snp(mut snp) => {
            snp.report.signature_r = Octets::default();
            snp.report.signature_s = Octets::default();
            snp.certificate_chain = Octets::default();
            VerifiedEvidence::Snp(snp)
        }
    }
}

/// Verifies a presentation under the emulated roots. Whatever was altered, what is accepted says what was signed.
pub fn says_what_was_signed(presentation: &Presentation, roots: &Roots) {
    let made = &*PLATFORMS;
    let verified = verify_presentation(presentation, roots, Clock::LatestIssueDate, &Appraisal::strict());
    let Ok(verified) = verified else { return };
    match (&verified, &presentation.evidence) {
        (VerifiedEvidence::Tdx(tdx), PresentedEvidence::Tdx { quote, .. }) => {
            assert!(quote.starts_with(&made.quote.signed_bytes()));
            assert_eq!(tdx.quote.signed_bytes(), made.quote.signed_bytes());
            assert_eq!(facts(verified), made.tdx_facts);
            if let Some(log) = &presentation.event_log {
                same_measurements(&EventLog::parse(log).expect("a verified log"), &made.log);
            }
        }
        (VerifiedEvidence::Snp(snp), PresentedEvidence::Snp { report, crl, .. }) => {
            assert_eq!(report[..SIGNED_BYTES], made.report.encode()[..SIGNED_BYTES]);
            assert_eq!(snp.report.encode(), *report);
            let has_list = crl.is_some();
            assert_eq!(snp.crl_number.is_some(), has_list);
            // Without a list its number and dates are missing, which the verifier's floors see.
            if has_list {
                assert_eq!(facts(verified), made.snp_facts);
            }
        }
        _ => unreachable!("evidence of another kind than was presented"),
    }
}

/// Two logs that lead to the same registers have the same digests in each register.
fn same_measurements(left: &EventLog, right: &EventLog) {
    for index in 1..=4 {
        let digests = |log: &EventLog| -> Vec<Vec<u8>> {
            let mut entries = log.entries.clone();
            entries.retain(|entry| entry.index == index);
            let sha384 = evidence::abi::event_log::LogAlgorithm::Sha384;
            entries.iter().map(|entry| entry.digest(sha384).expect("SHA-384").to_vec()).collect()
        };
        assert_eq!(digests(left), digests(right));
        // The agent's own events are vouched for with their data.
        let events = |log: &EventLog| -> Vec<AaelEvent> {
            let of_register = log.entries.iter().filter(|entry| entry.index == index);
            of_register.filter_map(LogEntry::aael).collect()
        };
        assert!(events(left).iter().all(|event| events(right).contains(event)));
    }
}

fn platforms() -> Result<Platforms, MintError> {
    let tdx = TdxPlatform::new("fuzz", ISSUED, EXPIRES)?;
    let keys = (RsaKey::from_pkcs8(ARK)?, RsaKey::from_pkcs8(ASK)?);
    let snp = SnpPlatform::new(keys, (Generation::Milan, VekKind::Vcek), "fuzz", ISSUED, EXPIRES)?;
    let (log, rtmr) = log();
    let body = TdBody {
        td_attributes: SEPT_VE_DISABLE,
        xfam: Octets([0xe7, 0, 6, 0, 0, 0, 0, 0]),
        mr_td: Octets([0x11; 48]),
        mr_config_id: Octets([0x22; 48]),
        rtmr,
        report_data: Octets([0x5a; 64]),
        ..TdBody::default()
    };
    let report = SnpReport {
        report_data: Octets([0x5a; 64]),
        measurement: Octets([0x11; 48]),
        host_data: Octets([0x22; 32]),
        guest_svn: 3,
        ..snp.report(3)
    };
    let bundle = TrustBundle { snp: vec![snp.root()?], tdx: Some(tdx.root_der()?) };
    let roots = bundle.danger_roots();
    let (quote, tdx) = (tdx.quote(body)?, tdx.collateral()?);
    let (report, snp) = (snp.sign(report)?, snp.collateral()?);
    let verified = |presentation: &Presentation| {
        verify_presentation(presentation, &roots, Clock::LatestIssueDate, &Appraisal::strict())
            .map(facts)
            .expect("the fixed evidence")
    };
    let tdx_facts = verified(&tdx_presentation(quote.encode(), &tdx, Some(log.encode())));
    let snp_facts = verified(&snp_presentation(report.encode(), &snp));
    Ok(Platforms { quote, tdx, log, report, snp, bundle, roots, tdx_facts, snp_facts })
}

/// A log of firmware, boot loader and agent, and the registers that it leads to.
fn log() -> (EventLog, [Octets<48>; 4]) {
    let event = AaelEvent::new("example.org/fuzz", "pull", "{\"image\":\"ranker\"}").expect("an event");
    let entries = vec![
        LogEntry::new(0, 3, b"firmware".to_vec()),
        LogEntry::new(1, 1, b"volume".to_vec()),
        LogEntry::new(2, 13, b"kernel".to_vec()),
        LogEntry::new(4, EV_EVENT_TAG, event.encode()),
    ];
    let mut rtmr = [Octets::default(); 4];
    for entry in entries.iter().filter(|entry| entry.index > 0) {
        let register = &mut rtmr[entry.index as usize - 1];
        *register = extend(register, &entry.digests[0].1);
    }
    (EventLog { header: LogHeader::fallback(), entries, terminated: true }, rtmr)
}
