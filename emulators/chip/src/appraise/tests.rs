use chip_client::abi::*;
use evidence::abi::event_log::{EventLog, LogEntry, LogHeader};
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::abi::snp::GuestPolicy;
use evidence::abi::tdx::{Td15, TdExtension, TdxQuote};
use evidence::validate::Floors as Minima;
use evidence::verify::replay::extend;
use evidence::verify::roots::Roots;
use evidence::verify::snp::VekKind;
use evidence::verify::{VerifiedEvidence, verify_presentation};
use evidence::{EvidenceError, Octets};
use sealed_artifact::policy::{EvidenceRules, Policy, PolicyDocument};
use sealed_artifact::signature::SealerSigningKey;

use super::{Appraisal, Clock, EvidenceDetail as Detail, judge, of_code};
use crate::firmware::Modes;
use crate::identity::Minimums;
use crate::testing::tee::{EXPIRES, ISSUED, Tees, demanding, form, report_data, snp};
use crate::testing::{Artifact, ArtifactOptions, Bench, Guest, GuestOptions, INSECURE, policy};

mod collateral;

type Refused = (Status, u32);

const fn refused(detail: Detail) -> Refused {
    (Status::EvidenceRefused, detail.as_u32())
}

/// A chip that demands evidence and believes these platforms, and a signed artifact.
struct World {
    bench: Bench,
    artifact: Artifact,
    tees: Tees,
}

impl World {
    fn new() -> Self {
        Self::provisioned(Minimums::default())
    }

    fn provisioned(minimums: Minimums) -> Self {
        let tees = Tees::new();
        let bench = Bench::with_roots(Modes::default(), tees.roots(), minimums);
        Self::of(bench, tees)
    }

    fn of(bench: Bench, tees: Tees) -> Self {
        let sealer = SealerSigningKey::generate().unwrap();
        let options = ArtifactOptions { sealer: Some(&sealer), ..ArtifactOptions::default() };
        Self { bench, artifact: Artifact::seal(&options), tees }
    }

    fn guest(&mut self) -> Guest {
        self.guest_that_says(InsecureFlags::EMULATED_TEE)
    }

    fn guest_that_says(&mut self, insecure: InsecureFlags) -> Guest {
        Guest::open(&mut self.bench, GuestOptions { insecure, ..GuestOptions::default() }).unwrap()
    }

    fn present(
        &mut self,
        guest: &mut Guest,
        evidence: &[u8],
        policy: &PolicyDocument,
    ) -> Result<(), Refused> {
        let input = Present { evidence, preimage: policy.preimage() }.encode();
        let digest = guest.ask(&mut self.bench, Opcode::Present, &input)?;
        assert_eq!(digest, policy.digest().as_bytes());
        Ok(())
    }

    fn unwrap(&mut self, guest: &mut Guest, policy: &PolicyDocument) -> Result<(), Refused> {
        let grant = self.artifact.grant(&self.bench.keys(), policy, Unwrap::SUITE_P384).encode();
        let key = guest.ask(&mut self.bench, Opcode::Unwrap, &grant)?;
        assert_eq!(key, self.artifact.key.expose_bytes());
        Ok(())
    }

    /// Presents and asks for the key.
    fn release(
        &mut self,
        guest: &mut Guest,
        evidence: &Presentation,
        policy: &PolicyDocument,
    ) -> Result<(), Refused> {
        self.present(guest, &evidence.encode().unwrap(), policy)?;
        self.unwrap(guest, policy)
    }

    fn floors(&mut self) -> Floors {
        let mut guest = self.guest_that_says(InsecureFlags::NONE);
        let floors = Floors::parse(&guest.ask(&mut self.bench, Opcode::Floors, &[]).unwrap()).unwrap();
        guest.ask(&mut self.bench, Opcode::Close, &[]).unwrap();
        floors
    }

    /// At PRESENT: refused, nothing is presented then, no key leaves, no floor rises.
    fn refused_at_present(&mut self, guest: &mut Guest, evidence: &Presentation, expected: Refused) {
        let (policy, before) = (demanding(&[]), self.floors());
        let evidence = evidence.encode().unwrap();
        assert_eq!(self.present(guest, &evidence, &policy), Err(expected));
        assert_eq!(self.unwrap(guest, &policy), Err((Status::PolicyMalformed, 0)));
        assert_eq!(self.floors(), before);
        guest.ask(&mut self.bench, Opcode::Close, &[]).unwrap();
    }

    /// At UNWRAP: verified, but refused by a rule; no key leaves, no floor rises.
    fn refused_at_unwrap(
        &mut self,
        guest: &mut Guest,
        evidence: &Presentation,
        policy: &PolicyDocument,
        detail: Detail,
    ) {
        let before = self.floors();
        let evidence = evidence.encode().unwrap();
        assert_eq!(self.present(guest, &evidence, policy), Ok(()));
        assert_eq!(self.unwrap(guest, policy), Err(refused(detail)), "{}", detail.name());
        assert_eq!(self.floors(), before);
        guest.ask(&mut self.bench, Opcode::Close, &[]).unwrap();
    }
}

fn numbers(floors: &Floors) -> Vec<(u16, u64)> {
    floors.collateral.iter().map(|floor| (floor.kind, floor.number)).collect()
}

#[test]
fn right_evidence_of_every_kind_releases_and_raises_the_floors() {
    let mut world = World::new();
    let policy = demanding(&["min_tcb_evaluation = 17", "min_pck_crl_number = 9", "min_crl_number = 5"]);
    let td15 = TdExtension::Td15(Td15::default());
    let extended = TdExtension::Td15Extended(Td15::default(), Octets([0; 237]));
    for extension in [TdExtension::Td10, td15, extended] {
        let mut guest = world.guest();
        let evidence = world.tees.of_tdx(&guest, |body| body.extension = extension);
        assert_eq!(world.release(&mut guest, &evidence, &policy), Ok(()));
    }
    assert_eq!(numbers(&world.floors()), [(1, 17), (2, 9), (3, 7)]);
    for kind in [VekKind::Vcek, VekKind::Vlek] {
        world.tees.snp = snp(kind);
        let mut guest = world.guest();
        let evidence = world.tees.of_snp(&guest, |_| {});
        assert_eq!(world.release(&mut guest, &evidence, &policy), Ok(()));
    }
    let floors = world.floors();
    assert_eq!(numbers(&floors), [(1, 17), (2, 9), (3, 7), (4, 5)]);
    assert_eq!(floors.floors.len(), 1);
    // Also where the policy demands nothing of the guest: the chip does.
    let any = crate::testing::policy(&[]);
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |_| {});
    assert_eq!(world.release(&mut guest, &evidence, &any), Ok(()));
}

#[test]
fn evil_guest_replayed_report() {
    let mut world = World::new();
    let former = world.guest();
    for of_snp in [false, true] {
        let mut guest = world.guest();
        let replayed =
            if of_snp { world.tees.of_snp(&former, |_| {}) } else { world.tees.of_tdx(&former, |_| {}) };
        world.refused_at_present(&mut guest, &replayed, refused(Detail::ReportData));
    }
    // Whatever the policy says: here it demands nothing of the guest.
    let mut guest = world.guest();
    let replayed = world.tees.of_tdx(&former, |_| {}).encode().unwrap();
    let any = policy(&[]);
    assert_eq!(world.present(&mut guest, &replayed, &any), Err(refused(Detail::ReportData)));
    assert_eq!(world.unwrap(&mut guest, &any), Err((Status::PolicyMalformed, 0)));
}

#[test]
fn evil_workload_replays_chip_transcript() {
    let mut world = World::new();
    for attempt in 0..6 {
        let mut guest = world.guest();
        let t = guest.transcript;
        let session_form = [b"innerkeep chip session v1".as_slice(), &t].concat();
        let workload = |runtime_data: &[u8]| {
            form(&[b"innerkeep workload evidence v1", &[7; 32], &form(&[runtime_data])])
        };
        let mut padded = [0; 64];
        padded[..32].copy_from_slice(&t[..32]);
        let data = match attempt {
            // What a workload is given for the transcript, for the form itself, and for its hash.
            0 => workload(&t),
            1 => workload(&session_form),
            2 => workload(&report_data(&guest)),
            // Other forms over the transcript, and bytes that a raw peer chooses.
            3 => form(&[b"innerkeep ra-tls v1", &t]),
            4 => t,
            _ => padded,
        };
        let evidence = world.tees.of_tdx(&guest, |body| body.report_data = Octets(data));
        world.refused_at_present(&mut guest, &evidence, refused(Detail::ReportData));
    }
}

#[test]
fn evil_guest_other_measurement() {
    let mut world = World::new();
    let policy = demanding(&[]);
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |body| body.mr_td = Octets([0x12; 48]));
    world.refused_at_unwrap(&mut guest, &evidence, &policy, Detail::Mrtd);
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |report| report.measurement = Octets([0x12; 48]));
    world.refused_at_unwrap(&mut guest, &evidence, &policy, Detail::Measurement);
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |body| body.rtmr[2] = Octets([1; 48]));
    let rtmr = format!("rtmr2 = {{ exactly = \"{}\" }}", "00".repeat(48));
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[&rtmr]), Detail::Rtmr2);
}

#[test]
fn evil_guest_other_initdata() {
    let mut world = World::new();
    let policy = demanding(&[]);
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |body| body.mr_config_id.0[47] ^= 1);
    world.refused_at_unwrap(&mut guest, &evidence, &policy, Detail::Initdata);
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |report| report.host_data = Octets([0; 32]));
    world.refused_at_unwrap(&mut guest, &evidence, &policy, Detail::Initdata);
}

#[test]
fn evil_guest_debug() {
    let mut world = World::new();
    for of_snp in [false, true] {
        let make = |world: &World, guest: &Guest| {
            if of_snp {
                world.tees.of_snp(guest, |report| report.policy = GuestPolicy(0xb_0000))
            } else {
                world.tees.of_tdx(guest, |body| body.td_attributes.0[0] |= 1)
            }
        };
        // Forbidden by the policy, and where no rule says anything.
        for policy in [demanding(&[]), policy(&[])] {
            let mut guest = world.guest();
            let evidence = make(&world, &guest);
            world.refused_at_unwrap(&mut guest, &evidence, &policy, Detail::Debug);
        }
        let mut guest = world.guest();
        let evidence = make(&world, &guest);
        assert_eq!(world.release(&mut guest, &evidence, &demanding(&["debug = \"any\""])), Ok(()));
    }
}

#[test]
fn evil_guest_old_tcb() {
    let mut world = World::new();
    for status in ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"] {
        world.tees.tdx.tcb_status = status;
        let mut guest = world.guest();
        let evidence = world.tees.of_tdx(&guest, |_| {});
        world.refused_at_present(&mut guest, &evidence, refused(Detail::TcbRefused));
    }
    world.tees.tdx.tcb_status = "UpToDate";
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    let svn = format!("min_tee_tcb_svn = \"01{}\"", "00".repeat(15));
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[&svn]), Detail::MinTeeTcbSvn);
    let milan = "generation = { exactly = \"milan\" }";
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |_| {});
    let newer = demanding(&[milan, "min_tcb = \"00000000000015d1\""]);
    world.refused_at_unwrap(&mut guest, &evidence, &newer, Detail::MinTcb);
    let mut guest = world.guest();
    let other = demanding(&["generation = { one_of = [\"genoa\", \"turin\"] }"]);
    let evidence = world.tees.of_snp(&guest, |_| {});
    world.refused_at_unwrap(&mut guest, &evidence, &other, Detail::Generation);
}

fn made(tees: &Tees, of_snp: bool, guest: &Guest) -> Presentation {
    if of_snp { tees.of_snp(guest, |_| {}) } else { tees.of_tdx(guest, |_| {}) }
}

#[test]
fn evil_guest_tampered_event_log() {
    let mut world = World::new();
    let entry = |data: &[u8]| LogEntry::new(3, 13, data.to_vec());
    let log =
        |entry| EventLog { header: LogHeader::fallback(), entries: vec![entry], terminated: true }.encode();
    let measured = entry(b"command line");
    let register = extend(&Octets([0; 48]), &measured.digests[0].1);
    let with_log = |world: &World, guest: &Guest, log| {
        let evidence = world.tees.of_tdx(guest, |body| body.rtmr[2] = register);
        Presentation { event_log: Some(log), ..evidence }
    };
    let mut guest = world.guest();
    let evidence = with_log(&world, &guest, log(entry(b"other command line")));
    world.refused_at_present(&mut guest, &evidence, refused(Detail::LogMismatch));
    let mut guest = world.guest();
    let evidence = with_log(&world, &guest, [log(measured.clone()), vec![0]].concat());
    world.refused_at_present(&mut guest, &evidence, refused(Detail::TrailingBytes));
    let mut guest = world.guest();
    let evidence =
        Presentation { event_log: Some(log(measured.clone())), ..world.tees.of_snp(&guest, |_| {}) };
    world.refused_at_present(&mut guest, &evidence, refused(Detail::Unsupported));
    let mut guest = world.guest();
    let evidence = with_log(&world, &guest, log(measured));
    assert_eq!(world.release(&mut guest, &evidence, &demanding(&[])), Ok(()));
}

#[test]
fn evil_guest_below_roots_that_the_chip_does_not_believe() {
    let tees = Tees::new();
    let bench = Bench::with_roots(Modes::default(), Roots::builtin().unwrap(), Minimums::default());
    let mut world = World::of(bench, tees);
    let emulated = GuestOptions { insecure: InsecureFlags::EMULATED_TEE, ..GuestOptions::default() };
    assert_eq!(Guest::open(&mut world.bench, emulated).err(), Some(Status::InsecureRefused));
    let mut guest = world.guest_that_says(InsecureFlags::NONE);
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::RootUntrusted));
    let mut guest = world.guest_that_says(InsecureFlags::NONE);
    let evidence = world.tees.of_snp(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::CertificateInvalid));
}

#[test]
fn evil_guest_genuine_evidence_of_another_guest() {
    // Signed by Intel and AMD, believed without a clock, and of no session of this chip.
    let bench = Bench::with_roots(Modes::default(), Roots::builtin().unwrap(), Minimums::default());
    let mut world = World::of(bench, Tees::new());
    let genuine = |name: &str| {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/evidence/genuine/");
        std::fs::read(format!("{directory}{name}")).unwrap()
    };
    let quote = genuine("tdx-v4-quote.bin");
    let quote = TdxQuote::without_padding(&quote).unwrap().to_vec();
    let collateral = String::from_utf8(genuine("tdx-v4-collateral.json")).unwrap();
    let report = hex::decode(genuine("snp-milan-v2-report.hex").trim_ascii()).unwrap();
    let vek = genuine("vcek_milan.der");
    for evidence in [
        PresentedEvidence::Tdx { quote, collateral },
        PresentedEvidence::Snp { report, kind: VekKind::Vcek, vek, ask: None, crl: None },
    ] {
        let mut guest = world.guest_that_says(InsecureFlags::NONE);
        let evidence = Presentation { evidence, event_log: None };
        world.refused_at_present(&mut guest, &evidence, refused(Detail::ReportData));
    }
}

#[test]
fn evil_guest_emulated_tee_that_it_does_not_name() {
    let mut world = World::new();
    for of_snp in [false, true] {
        let mut guest = world.guest_that_says(InsecureFlags::NONE);
        let evidence = made(&world.tees, of_snp, &guest);
        world.refused_at_present(&mut guest, &evidence, (Status::InsecureRefused, 0));
    }
}

#[test]
fn evil_guest_collateral_that_never_held_at_one_time() {
    let mut world = World::new();
    // The chip's time is the latest issue date presented: what ended before it is refused.
    world.tees.tdx.pck_crl.next_update = ISSUED + 10;
    world.tees.tdx.tcb_info_window = (ISSUED + 11, EXPIRES);
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::NotInTime));
    world.tees.snp.crl.this_update = EXPIRES + 1;
    world.tees.snp.crl.next_update = EXPIRES + 2;
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::NotInTime));
}

#[test]
fn evil_guest_collateral_of_another_platform() {
    let mut world = World::new();
    world.tees.tdx.tcb_info_pce_id = [1, 0];
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::PlatformMismatch));
    world.tees = Tees::new();
    world.tees.tdx.fmspc = [9; 6];
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_present(&mut guest, &evidence, refused(Detail::SignatureInvalid));
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |report| report.chip_id = Octets([0x55; 64]));
    world.refused_at_present(&mut guest, &evidence, refused(Detail::PlatformMismatch));
}

#[test]
fn evil_guest_altered_evidence() {
    let mut world = World::new();
    let mut guest = world.guest();
    let mut evidence = world.tees.of_tdx(&guest, |_| {});
    if let PresentedEvidence::Tdx { quote, .. } = &mut evidence.evidence {
        quote[200] ^= 1;
    }
    world.refused_at_present(&mut guest, &evidence, refused(Detail::SignatureInvalid));
    let mut guest = world.guest();
    let good = world.tees.of_snp(&guest, |_| {}).encode().unwrap();
    for (bytes, detail) in [
        ([good.clone(), vec![0]].concat(), Detail::TrailingBytes),
        (good[..good.len() - 1].to_vec(), Detail::Malformed),
        (vec![9, 9, 9, 9], Detail::Unsupported),
    ] {
        assert_eq!(world.present(&mut guest, &bytes, &demanding(&[])), Err(refused(detail)));
    }
    assert_eq!(world.unwrap(&mut guest, &demanding(&[])), Err((Status::PolicyMalformed, 0)));
    // A refusal does not take the place of what was accepted before.
    assert_eq!(world.present(&mut guest, &good, &demanding(&[])), Ok(()));
    assert_eq!(
        world.present(&mut guest, &[1, 0], &demanding(&["debug = \"any\""])),
        Err(refused(Detail::Malformed))
    );
    assert_eq!(world.unwrap(&mut guest, &demanding(&[])), Ok(()));
}

#[test]
fn evil_guest_of_a_tee_or_level_that_is_not_accepted() {
    let mut world = World::new();
    let only = |change: fn(&mut EvidenceRules)| {
        let Policy::Rules(mut rules) = demanding(&[]).policy().clone() else { panic!() };
        change(rules.evidence.as_mut().unwrap());
        PolicyDocument::new(&Policy::Rules(rules)).unwrap()
    };
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |_| {});
    world.refused_at_unwrap(&mut guest, &evidence, &only(|rules| rules.snp = None), Detail::TeeType);
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_unwrap(&mut guest, &evidence, &only(|rules| rules.tdx = None), Detail::TeeType);
    let mut guest = world.guest();
    let evidence = world.tees.of_snp(&guest, |report| report.vmpl = 1);
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[]), Detail::MaxVmpl);
    let manifest = format!("unsigned_manifest = {{ exactly = \"{}\" }}", "00".repeat(32));
    let mut guest = world.guest();
    let evidence = world.tees.of_tdx(&guest, |_| {});
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[&manifest]), Detail::UnsignedManifest);
}

#[test]
fn evil_guest_without_evidence_that_does_not_say_so() {
    let bench = Bench::with_roots(INSECURE, Roots::builtin().unwrap(), Minimums::default());
    let mut world = World::of(bench, Tees::new());
    let any = policy(&[]);
    for (says, released) in [
        (InsecureFlags::NO_EVIDENCE, Ok(())),
        (InsecureFlags::NONE, Err((Status::EvidenceRequired, 0))),
        (InsecureFlags::NO_TEE, Err((Status::EvidenceRequired, 0))),
    ] {
        let mut guest = world.guest_that_says(says);
        assert_eq!(world.present(&mut guest, b"", &any), Ok(()));
        assert_eq!(world.unwrap(&mut guest, &any), released);
    }
}

#[test]
fn evil_guest_evidence_is_judged_in_insecure_modes_too() {
    let tees = Tees::new();
    let bench = Bench::with_roots(INSECURE, tees.roots(), Minimums::default());
    let mut world = World::of(bench, tees);
    let says = InsecureFlags::EMULATED_TEE.union(InsecureFlags::NO_EVIDENCE);
    let mut guest = world.guest_that_says(says);
    let evidence = world.tees.of_tdx(&guest, |body| body.mr_td = Octets([0; 48]));
    world.refused_at_unwrap(&mut guest, &evidence, &demanding(&[]), Detail::Mrtd);
    let mut guest = world.guest_that_says(says);
    assert_eq!(world.present(&mut guest, b"", &demanding(&[])), Ok(()));
    assert_eq!(world.unwrap(&mut guest, &demanding(&[])), Err((Status::EvidenceRequired, 0)));
}

#[test]
fn every_refusal_has_its_own_detail() {
    for code in EvidenceError::CODES {
        let detail = of_code(code);
        assert_eq!(detail.is_none(), code == "EVIDENCE_POLICY_DENIED", "{code}");
        assert!(detail.is_none_or(|detail| !detail.is_rule()));
    }
    let mut world = World::new();
    let guest = world.guest();
    let floors = Minima::default();
    let mut rules = Vec::new();
    for evidence in [world.tees.of_tdx(&guest, |_| {}), world.tees.of_snp(&guest, |_| {})] {
        let roots = world.tees.roots();
        let verified: VerifiedEvidence =
            verify_presentation(&evidence, &roots, Clock::LatestIssueDate, &Appraisal::strict()).unwrap();
        let judgement = judge(None, &verified, &[0; 64], &floors);
        rules.extend(judgement.findings().iter().map(|finding| finding.rule));
    }
    for rule in &rules {
        assert!(Detail::of_name(rule).is_some_and(Detail::is_rule), "{rule} has no number");
    }
    for detail in Detail::ALL.iter().filter(|detail| detail.is_rule()) {
        assert!(rules.contains(&detail.name()), "{} is no rule", detail.name());
    }
}
