//! A hostile host between the driver and a chip that behaves: everything that either side says goes through memory that the host alters.
//!
//! The chip has memory of its own, a shadow of the driver's. At each doorbell entry and input go to the shadow, at each completion
//! entry and output come back, both edited as the input says: per command a byte for the number of edits (0 to 3) each way, then
//! per edit: place (1), offset (2), change (1). Whatever is altered: no panic, every wait ends, and what comes out of the session is
//! the truth or an error. Most of all: no other content key.

#![no_main]
#![allow(dead_code, missing_docs, unfulfilled_lint_expectations, unreachable_pub, unused_imports)]

#[path = "../../emulators/chip/src/appraise/mod.rs"]
mod appraise;
#[path = "../../emulators/chip/src/controller/mod.rs"]
mod controller;
#[path = "../../emulators/chip/src/dma/mod.rs"]
mod dma;
#[path = "../../emulators/chip/src/faults.rs"]
mod faults;
#[path = "../../emulators/chip/src/firmware/mod.rs"]
mod firmware;
#[path = "../../emulators/chip/src/identity/mod.rs"]
mod identity;
#[path = "../../emulators/chip/src/puf/mod.rs"]
mod puf;
#[path = "../../emulators/chip/src/release.rs"]
mod release;
#[path = "../../emulators/chip/src/session/mod.rs"]
mod session;
#[path = "../../emulators/chip/src/sys/mod.rs"]
mod sys;
#[path = "../../emulators/chip/src/unseal/mod.rs"]
mod unseal;
#[path = "../../emulators/chip/src/vfio_user/mod.rs"]
mod vfio_user;

/// The emulator's log, silent here.
mod log {
    pub(crate) fn note(_line: &str) {}
}

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chip_client::ChipError;
use chip_client::abi::{
    BAR0_SIZE, COMPLETION_LEN, Completion, DEVICE_ID, DataPath, InsecureFlags, Provision, SUBMISSION_LEN, Submission,
    VENDOR_ID, WireError,
};
use chip_client::backing::{DeviceBacking, DmaAccess, DmaSpace, Interrupt, Iova, PciIdentity, Registers};
use chip_client::chain::{Authority, ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::error::DeviceError;
use chip_client::session::{ExpectedChip, Requirement, Session, SuiteRequirement, UnwrapRequest};
use controller::{Controller, Power};
use dma::MapRequest;
use evidence::verify::roots::Roots;
use faults::Faults;
use firmware::Modes;
use fuzz::fixed::{ARTIFACT, POLICY};
use identity::StateDirectory;
use libfuzzer_sys::fuzz_target;
use protected_memory::dma::{DmaRegion, SharedMemoryProvider};
use puf::noise::Probability;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use sealed_artifact::grant::{Grant, GrantSuite};

#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    fn u8(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }
}

/// A mapping of the driver's memory and its shadow.
struct Pair {
    driver: OwnedFd,
    chip: OwnedFd,
    offset: u64,
    length: u64,
}

#[derive(Default)]
struct State {
    script: Script,
    pairs: BTreeMap<u64, Pair>,
    registers: BTreeMap<u32, u32>,
    head: u16,
    tail: u16,
}

impl State {
    fn pair(&self, iova: u64, length: usize) -> Option<(&Pair, u64)> {
        let (start, pair) = self.pairs.range(..=iova).next_back()?;
        let skip = iova - start;
        (skip.checked_add(length as u64)? <= pair.length).then_some((pair, pair.offset + skip))
    }

    /// Bytes on their way, altered by the host.
    fn edit(&mut self, parts: &mut [&mut [u8]]) {
        for _ in 0..self.script.u8() % 4 {
            let place = usize::from(self.script.u8()) % parts.len();
            let at = usize::from(u16::from_le_bytes([self.script.u8(), self.script.u8()]));
            let change = self.script.u8();
            let part = &mut *parts[place];
            let at = at % part.len().max(1);
            part.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change);
        }
    }

    fn register64(&self, offset: u32) -> u64 {
        let half = |offset| u64::from(self.registers.get(&offset).copied().unwrap_or(0));
        half(offset + 4) << 32 | half(offset)
    }
}

struct Host {
    controller: Arc<Controller>,
    state: Mutex<State>,
    vectors: Mutex<Vec<OwnedFd>>,
}

#[derive(Clone)]
struct Device(Arc<Host>);

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one command of queue 0 to the chip and its completion back.
    fn relay(&self, tail: u16) {
        let mut state = self.state();
        let size = state.registers.get(&0x110).copied().unwrap_or(0) as u16;
        if size == 0 {
            return;
        }
        let (ring, completions) = (state.register64(0x100), state.register64(0x108));
        let at = ring + u64::from(tail.wrapping_sub(1) & (size - 1)) * SUBMISSION_LEN as u64;
        let mut entry = [0; SUBMISSION_LEN];
        if let Some((pair, offset)) = state.pair(at, SUBMISSION_LEN) {
            let _ = pread(&pair.driver, &mut entry, offset);
        }
        let Ok(truth) = Submission::parse(&entry) else { return };
        let mut input = vec![0; truth.in_len as usize];
        if let Some((pair, offset)) = state.pair(truth.in_iova, input.len()) {
            let _ = pread(&pair.driver, &mut input, offset);
        }
        state.edit(&mut [&mut entry, &mut input]);
        if let Some((pair, offset)) = state.pair(at, SUBMISSION_LEN) {
            let _ = pwrite(&pair.chip, &entry, offset);
        }
        if let Some((pair, offset)) = state.pair(truth.in_iova, input.len()) {
            let _ = pwrite(&pair.chip, &input, offset);
        }
        let _ = self.0.controller.write_registers(0x1000, &u32::from(tail).to_le_bytes());

        // The chip's answer, when its phase says that it is there.
        let at = completions + u64::from(state.head) * COMPLETION_LEN as u64;
        let mut completion = [0; COMPLETION_LEN];
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            if let Some((pair, offset)) = state.pair(at, COMPLETION_LEN) {
                let _ = pread(&pair.chip, &mut completion, offset);
            }
            let expected = state.tail & 1 == 0;
            if Completion::parse(&completion).phase_bit() == expected {
                break;
            }
            let mut status = [0; 4];
            let _ = self.0.controller.read_registers(0x14, &mut status);
            if status[0] & 1 == 0 || Instant::now() > deadline {
                return;
            }
            std::thread::yield_now();
        }
        let found = Completion::parse(&completion);
        let mut output = vec![0; found.out_len.min(truth.out_cap) as usize];
        if let Some((pair, offset)) = state.pair(truth.out_iova, output.len()) {
            let _ = pread(&pair.chip, &mut output, offset);
        }
        state.edit(&mut [&mut completion, &mut output]);
        if let Some((pair, offset)) = state.pair(truth.out_iova, output.len()) {
            let _ = pwrite(&pair.driver, &output, offset);
        }
        if let Some((pair, offset)) = state.pair(at, COMPLETION_LEN) {
            let _ = pwrite(&pair.driver, &completion, offset);
        }
        state.head += 1;
        if state.head == size {
            (state.head, state.tail) = (0, state.tail + 1);
        }
        drop(state);
        if let Some(event) = self.0.vectors.lock().unwrap_or_else(PoisonError::into_inner).first() {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

impl DeviceBacking for Device {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        Ok(PciIdentity { vendor: VENDOR_ID, device: DEVICE_ID })
    }

    fn map_bar(&self, _bar: u8) -> Result<Box<dyn Registers>, ChipError> {
        Ok(Box::new(self.clone()))
    }

    fn dma(&self) -> &dyn DmaSpace {
        self
    }

    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError> {
        let interrupts = (0..count).map(|_| Interrupt::new()).collect::<Result<Vec<_>, _>>()?;
        let events = interrupts.iter().filter_map(|i| i.as_fd().try_clone_to_owned().ok()).collect();
        *self.0.vectors.lock().unwrap_or_else(PoisonError::into_inner) = events;
        Ok(interrupts)
    }

    fn reset(&self) -> Result<(), ChipError> {
        self.0.controller.reset();
        Ok(())
    }
}

fn refused() -> ChipError {
    DeviceError::Malformed { what: "register", source: WireError::Field { what: "register", found: 0 } }.into()
}

impl Registers for Device {
    fn size(&self) -> u64 {
        BAR0_SIZE
    }

    fn read32(&self, offset: u32) -> Result<u32, ChipError> {
        let mut bytes = [0; 4];
        self.0.controller.read_registers(offset.into(), &mut bytes).map_err(|_| refused())?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write32(&self, offset: u32, value: u32) -> Result<(), ChipError> {
        if offset == 0x1000 {
            self.relay(value as u16);
            return Ok(());
        }
        {
            let mut state = self.state();
            state.registers.insert(offset, value);
            if offset == 0x10 {
                (state.head, state.tail) = (0, 0);
                // The driver cleared its rings: the shadow's are cleared too.
                for base in [0x100, 0x108, 0x140, 0x148] {
                    let at = state.register64(base);
                    if let Some((pair, offset)) = state.pair(at, 4_096) {
                        let _ = pwrite(&pair.chip, &[0; 4_096], offset);
                    }
                }
            }
        }
        self.0.controller.write_registers(offset.into(), &value.to_le_bytes()).map_err(|_| refused())
    }
}

impl DmaSpace for Device {
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, access: DmaAccess) -> Result<(), ChipError> {
        let chip = memfd_create("shadow", MemfdFlags::CLOEXEC).expect("a memory file");
        ftruncate(&chip, region.offset() + region.len()).expect("its size");
        let request = MapRequest {
            iova: iova.0,
            length: region.len(),
            readable: true,
            writable: access == DmaAccess::ReadWrite,
            offset: region.offset(),
            file: chip.try_clone().ok(),
        };
        self.0.controller.memory.map(request).map_err(|_| refused())?;
        let driver = region.fd().try_clone_to_owned().expect("a descriptor");
        let pair = Pair { driver, chip, offset: region.offset(), length: region.len() };
        self.state().pairs.insert(iova.0, pair);
        Ok(())
    }

    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError> {
        self.0.controller.memory.unmap(iova.0, len, false);
        self.state().pairs.remove(&iova.0);
        Ok(())
    }
}

struct Stage {
    device: Device,
    driver: Driver,
    root: TrustRoot,
    identity: ChipIdentity,
    grants: [Grant; 2],
    _directory: tempfile::TempDir,
}

fn stage() -> Stage {
    let directory = tempfile::tempdir().expect("a directory");
    let state = StateDirectory::open(directory.path()).expect("a state directory");
    state.manufacture().expect("a chip");
    let (silicon, helper) = (state.silicon(Probability::new(0.0).expect("a rate")), state.helper());
    let modes = Modes { no_evidence: true, emulated_dma: false };
    let nvm = state.nvm().expect("memory");
    let roots = Arc::new(Roots::builtin().expect("roots"));
    let power = Power::new(silicon.expect("silicon"), helper.expect("helper data"), nvm, modes, roots);
    let (controller, _workers) = Controller::start(power, Arc::new(Faults::default()));
    let device = Device(Arc::new(Host { controller, state: Mutex::default(), vectors: Mutex::default() }));
    let options = DriverOptions {
        command_timeout: Duration::from_millis(3),
        ready_timeout: Duration::from_millis(500),
        poll_interval: Duration::from_micros(500),
        ..DriverOptions::new(RingMemory::Shared(SharedMemoryProvider::Emulated))
    };
    let mut driver = Driver::open(Arc::new(device.clone()), options).expect("a chip that behaves");
    let record = driver.identify().expect("an identity");
    let authority = Authority::create_root("fuzz root").expect("a root");
    let model = authority.create_model("fuzz model").expect("a model CA");
    let chip = model.issue_chip(&record, "test", 1, "fuzz").expect("a chip certificate");
    let certificates = chip_client::abi::CertificateList { model: model.certificate().to_vec(), chip };
    let root = TrustRoot::from_trusted(authority.certificate()).expect("a root");
    let identity = ChipIdentity::verify(&root, &certificates).expect("the chain itself");
    let body = Provision {
        environment: "test".to_owned(),
        key_epoch: 1,
        certificates,
        root: authority.certificate().to_vec(),
        min_tcb_evaluation: 0,
        min_pck_crl: 0,
        min_root_crl: 0,
        min_snp_crl: 0,
    };
    driver.provision(&body).expect("a chip that is not provisioned");
    let grants = [GrantSuite::P384, GrantSuite::XWing].map(|suite| {
        let to = identity.recipient(suite).expect("a recipient");
        Grant::seal(&ARTIFACT.core, &ARTIFACT.key, &to, &ARTIFACT.policy).expect("a grant")
    });
    Stage { device, driver, root, identity, grants, _directory: directory }
}

thread_local! {
    static STAGE: std::cell::RefCell<Option<Stage>> = const { std::cell::RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some((plan, script)) = data.split_first() else { return };
    STAGE.with_borrow_mut(|kept| {
        let stage = kept.get_or_insert_with(stage);
        stage.device.state().script = Script::default();
        stage.driver.recover().expect("a chip that behaves");
        stage.device.state().script = Script { bytes: script.to_vec(), at: 0 };
        let honest = script.is_empty();
        let outcome = session(stage, *plan);
        assert!(!honest || outcome.is_ok(), "nothing was altered: {outcome:?}");
    });
});

fn session(stage: &mut Stage, plan: u8) -> Result<(), ChipError> {
    let hybrid = plan & 1 != 0;
    let guest = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE);
    let requirement = Requirement {
        root: &stage.root,
        chip: ExpectedChip::Exactly(stage.identity.id()),
        path: DataPath::KeyRelease,
        suite: if hybrid { SuiteRequirement::Hybrid } else { SuiteRequirement::ClassicalOnly },
        guest_insecure: guest,
        accepted_insecure: InsecureFlags::EMULATED_CHIP.union(InsecureFlags::NO_EVIDENCE),
    };
    let session = Session::open(&mut stage.driver, &requirement)?;
    assert_eq!(session.agreement().chip, stage.identity);
    let mut session = session.present(POLICY, |_| Ok(Vec::new()))?;
    let grant = &stage.grants[usize::from(hybrid)];
    let signature = (plan & 2 != 0).then_some(&ARTIFACT.signature);
    let key = session.release_key(&UnwrapRequest::new(&ARTIFACT.core, grant, signature))?;
    assert_eq!(key.expose_bytes(), ARTIFACT.key.expose_bytes(), "another content key");
    if plan & 4 != 0 {
        assert_eq!(session.status()?.key_epoch, 1);
        for floor in session.floors()?.floors {
            assert_eq!((floor.family.as_str(), floor.counter), ("acme/ranker", 3));
        }
    }
    session.close()
}
