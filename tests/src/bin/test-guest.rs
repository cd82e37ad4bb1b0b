//! A guest that lies: `test-guest TASK --store LAYOUT --chip SOCKET --chip-root PEM --insecure-tee-root DIR --collateral FILE [--path PATH]`.
//!
//! It opens a session as `innerkeep unseal` does and presents what that program never would: the chip alone has to see through it. A refusal
//! is told as `innerkeep --json` tells it; what the chip releases is dropped, and `{"released":true}` printed.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test program")]

use attestation_agent::{Attester, Claim, Collateral, Options, TeeRoot, WorkloadIdentity};
use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::chain::{ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::error::{ChipError, Class};
use chip_client::session::{
    ExpectedChip, Open, Presented, ReportData, Requirement, Session, SuiteRequirement, UnwrapRequest,
};
use chip_client::vfio_user::{VfioUserDevice, VfioUserTimeouts};
use clap::{Parser, ValueEnum};
use evidence::abi::event_log::{EventLog, LogHeader};
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use protected_memory::dma::SharedMemoryProvider;
use sealed_artifact::core::Core;
use sealed_artifact::grant::Grant;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tests::layout::{ARTIFACT, GRANT, Layout};

/// What is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// What `innerkeep` presents.
    Honest,
    /// Evidence of an earlier session with this chip.
    Replayed,
    /// A quote that a workload asked for, with the chip's 64 bytes as its data.
    Workload,
    /// Evidence about this transcript under another form.
    OtherForm,
    /// One bit of quote or report is flipped.
    Forged,
    /// One byte of the event log is changed; a guest without a log brings one.
    TamperedLog,
    /// The last entry of the event log is missing.
    CutLog,
    /// No event log: what the registers hold counts, and nothing else ever did.
    NoLog,
    /// A byte behind the presentation.
    Trailing,
    /// Nothing, though the session does not say so.
    Nothing,
}

/// A guest that lies.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is presented.
    task: Task,
    /// The artifact: an OCI image layout.
    #[arg(long)]
    store: PathBuf,
    /// The chip's socket.
    #[arg(long)]
    chip: PathBuf,
    /// Root of the chip's certificates.
    #[arg(long)]
    chip_root: PathBuf,
    /// Where the TEE is.
    #[arg(long)]
    insecure_tee_root: PathBuf,
    /// The platform's collateral.
    #[arg(long)]
    collateral: PathBuf,
    /// Data path.
    #[arg(long, default_value = "key-release")]
    path: String,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => {
            println!("{}", json!({ "released": true }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let status = if error.class() == Class::PolicyDenied { 77 } else { 69 };
            let class = if status == 77 { "refused" } else { "device" };
            let message = error.to_string();
            let refused =
                json!({ "code": error.code(), "class": class, "status": status, "message": message });
            eprintln!("{}", json!({ "error": refused }));
            ExitCode::from(status)
        }
    }
}

/// The TEE and its collateral.
struct Tee {
    attester: Attester,
    collateral: Collateral,
}

impl Tee {
    fn present(&self, claim: &Claim) -> Vec<u8> {
        let evidence = self.attester.evidence(claim).expect("the emulated TEE makes evidence");
        evidence.present(&self.collateral).expect("evidence is presented")
    }

    fn honest(&self, session: &ReportData) -> Vec<u8> {
        self.present(&Claim::ChipSession { transcript: *session.transcript() })
    }

    fn lie(&self, task: Task, session: &ReportData) -> Vec<u8> {
        match task {
            Task::Honest | Task::Replayed => self.honest(session),
            Task::Workload => {
                let identity = WorkloadIdentity::of("workload", 1000, "/pod/container");
                self.present(&Claim::Workload { identity, runtime_data: session.as_bytes().to_vec() })
            }
            Task::OtherForm => self.present(&Claim::AuditGenesis { digest: *session.transcript() }),
            Task::Nothing => Vec::new(),
            Task::Trailing => [self.honest(session), vec![0]].concat(),
            Task::Forged | Task::TamperedLog | Task::CutLog | Task::NoLog => {
                let mut presentation =
                    Presentation::parse(&self.honest(session)).expect("our own presentation");
                alter(task, &mut presentation);
                presentation.encode().expect("an altered presentation")
            }
        }
    }
}

fn alter(task: Task, presentation: &mut Presentation) {
    if task == Task::Forged {
        let signed = match &mut presentation.evidence {
            PresentedEvidence::Snp { report, .. } => report,
            PresentedEvidence::Tdx { quote, .. } => quote,
        };
        // Inside the report data of a TDX quote, inside the measurement of an SNP report: whatever it is, it was signed.
        *signed.get_mut(0x90).expect("evidence is longer") ^= 1;
        return;
    }
    let Some(bytes) = &presentation.event_log else {
        let log = EventLog { header: LogHeader::fallback(), entries: Vec::new(), terminated: true };
        presentation.event_log = (task != Task::NoLog).then(|| log.encode());
        return;
    };
    let mut log = EventLog::parse(bytes).expect("our own log");
    match task {
        Task::TamperedLog => {
            let entry = log.entries.iter_mut().find(|entry| entry.index != 0).expect("a measured entry");
            let (_, digest) = entry.digests.first_mut().expect("a digest");
            *digest.first_mut().expect("a digest has bytes") ^= 1;
        }
        Task::CutLog => drop(log.entries.pop()),
        _ => {
            presentation.event_log = None;
            return;
        }
    }
    presentation.event_log = Some(log.encode());
}

fn run(arguments: &Arguments) -> Result<(), ChipError> {
    let root = TeeRoot::insecure(&arguments.insecure_tee_root);
    let tee = Tee {
        attester: Attester::detect(&root, Options::default()).expect("the emulated TEE is there"),
        collateral: Collateral::load(&arguments.collateral).expect("the collateral can be read"),
    };
    let layout = Layout::at(&arguments.store);
    let core = Core::parse(&layout.blob(&layout.manifest(ARTIFACT)["config"]))?;
    let path = match arguments.path.as_str() {
        "key-release" => DataPath::KeyRelease,
        "dma-sealed" => DataPath::DmaSealed,
        _ => DataPath::DmaDirect,
    };
    let trust = std::fs::read(&arguments.chip_root).expect("read the root of the chip");
    let trust = TrustRoot::from_trusted(&trust)?;
    let mut driver = connect(arguments, path)?;
    let identity = ChipIdentity::verify(&trust, &driver.chain()?)?;
    let grant = grant(&layout, identity.id().as_bytes());
    let emulated = InsecureFlags::EMULATED_TEE;
    let dma = if path == DataPath::DmaDirect { InsecureFlags::EMULATED_DMA } else { InsecureFlags::NONE };
    let requirement = Requirement {
        root: &trust,
        chip: ExpectedChip::Exactly(identity.id()),
        path,
        suite: SuiteRequirement::Hybrid,
        guest_insecure: emulated.union(dma),
        // Whoever lies is not particular about the chip.
        accepted_insecure: emulated.union(InsecureFlags::EMULATED_CHIP).union(InsecureFlags::EMULATED_DMA),
    };
    let earlier = (arguments.task == Task::Replayed).then(|| -> Result<Vec<u8>, ChipError> {
        let session = Session::open(&mut driver, &requirement)?;
        let presented = tee.honest(&session.report_data());
        session.close()?;
        Ok(presented)
    });
    let earlier = earlier.transpose()?;
    let session = Session::open(&mut driver, &requirement)?;
    let mut session =
        present(session, &grant, |data| earlier.unwrap_or_else(|| tee.lie(arguments.task, data)))?;
    let request = UnwrapRequest::new(&core, &grant, None);
    if path == DataPath::KeyRelease {
        drop(session.release_key(&request)?);
    } else {
        session.unwrap_grant(&request)?;
    }
    session.close()
}

fn present<'d>(
    session: Session<'d, Open>,
    grant: &Grant,
    evidence: impl FnOnce(&ReportData) -> Vec<u8>,
) -> Result<Session<'d, Presented>, ChipError> {
    session.present(grant.preimage(), |data| Ok(evidence(data)))
}

fn connect(arguments: &Arguments, path: DataPath) -> Result<Driver, ChipError> {
    let device = VfioUserDevice::connect(&arguments.chip, VfioUserTimeouts::default())?;
    let rings = match path {
        DataPath::DmaDirect => RingMemory::Private,
        _ => RingMemory::Shared(SharedMemoryProvider::Emulated),
    };
    Driver::open(Arc::new(device), DriverOptions::new(rings))
}

/// The grant for this chip.
fn grant(layout: &Layout, chip: &[u8; 32]) -> Grant {
    let grants = layout.descriptors(GRANT).into_iter().map(|descriptor| {
        let manifest: Value = layout.json(&descriptor);
        Grant::parse(&layout.blob(&manifest["layers"][0])).expect("a grant")
    });
    let mut fitting = grants.filter(|grant| grant.recipient().as_bytes() == chip);
    fitting.next().expect("a grant for this chip")
}
