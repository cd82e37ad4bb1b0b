//! The driver against a device that lies: registers, completions, outputs, interrupts, handshake, mappings.
//!
//! The device behaves where the script is empty and lies where it is not. Whatever it says: no panic, every wait ends, no
//! identity other than the certified one is accepted, and no key comes out of a session that the device did not earn.

#![no_main]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chip_client::ChipError;
use chip_client::abi::{
    Abort, Accept, BAR0_SIZE, CTRL_EN, CTRL_RESET, Cap, CertificateList, Completion, DEVICE_ID, DataPath,
    IdentityFlags, IdentityRecord, InsecureFlags, LABEL_PROLOGUE, MAGIC, NOISE_NAME, Offer, Opcode,
    Provision, REG_CAP, REG_CTRL, REG_MAGIC, REG_STATUS, REG_VERSION, STATUS_RDY, SUBMISSION_LEN,
    SessionSuite, Submission, TdispState, VENDOR_ID, VERSION,
};
use chip_client::backing::{DeviceBacking, DmaAccess, DmaSpace, Interrupt, Iova, PciIdentity, Registers};
use chip_client::chain::{Authority, ChipId, TrustRoot};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::session::{ExpectedChip, Requirement, Session, SuiteRequirement};
use fuzz::fixed::ARTIFACT;
use libfuzzer_sys::fuzz_target;
use protected_memory::dma::{DmaRegion, SharedMemoryProvider};
use rustix::io::{pread, pwrite};

/// Certificates of the chip that the device pretends to be, and its Noise key.
struct Made {
    root: TrustRoot,
    record: IdentityRecord,
    chain: CertificateList,
    noise_secret: Vec<u8>,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let noise =
        snow::Builder::new(NOISE_NAME.parse().expect("a name")).generate_keypair().expect("a key pair");
    let spki = ARTIFACT.sealer.public_key().spki_der().to_vec();
    let record = IdentityRecord {
        flags: IdentityFlags(IdentityFlags::PROVISIONED | IdentityFlags::EMULATED),
        id: *ChipId::of_signing_key(&spki).as_bytes(),
        key_epoch: 1,
        environment: "test".to_owned(),
        signing_spki: spki,
        noise: noise.public.try_into().expect("32 bytes"),
        p384: [4; 97],
        x_wing: Box::new([5; 1_216]),
        suites: 3,
        paths: 7,
    };
    let authority = Authority::create_root("fuzz root").expect("a root");
    let model = authority.create_model("fuzz model").expect("a model CA");
    let chip = model.issue_chip(&record, "test", 1, "fuzz").expect("a chip certificate");
    Made {
        root: TrustRoot::from_trusted(authority.certificate()).expect("a root"),
        chain: CertificateList { model: model.certificate().to_vec(), chip },
        record,
        noise_secret: noise.private,
    }
});

/// The script of one run; zeros when it is over.
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

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// One lie in eight, or less where the fuzzer so chooses.
    fn lies(&mut self) -> bool {
        self.u8() & 0x87 == 0x87
    }
}

#[derive(Default)]
struct State {
    script: Script,
    registers: BTreeMap<u32, u32>,
    mappings: BTreeMap<u64, (OwnedFd, u64, u64)>,
    submission_head: [u16; 2],
    completion_tail: [u16; 2],
    phase: [bool; 2],
}

struct Liar {
    state: Mutex<State>,
    vectors: Mutex<Vec<OwnedFd>>,
}

#[derive(Clone)]
struct Device(Arc<Liar>);

impl Device {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt(&self, vector: usize) {
        if let Some(event) = self.0.vectors.lock().unwrap_or_else(PoisonError::into_inner).get(vector) {
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

impl State {
    fn reset(&mut self) {
        self.submission_head = [0; 2];
        self.completion_tail = [0; 2];
        self.phase = [true; 2];
    }

    /// Memory of the driver that is mapped at an address.
    fn place(&self, iova: u64, len: usize) -> Option<(&OwnedFd, u64)> {
        let (start, (file, offset, size)) = self.mappings.range(..=iova).next_back()?;
        let skip = iova - start;
        (skip.checked_add(len as u64)? <= *size).then_some((file, offset + skip))
    }

    fn load(&self, iova: u64, to: &mut [u8]) {
        if let Some((file, at)) = self.place(iova, to.len()) {
            let _ = pread(file, to, at);
        }
    }

    fn store(&self, iova: u64, from: &[u8]) {
        if let Some((file, at)) = self.place(iova, from.len()) {
            let _ = pwrite(file, from, at);
        }
    }

    fn register64(&self, offset: u32) -> u64 {
        let half = |offset| u64::from(self.registers.get(&offset).copied().unwrap_or(0));
        half(offset + 4) << 32 | half(offset)
    }

    /// Takes entries from the submission ring up to `tail` and completes each, as the script says.
    fn doorbell(&mut self, queue: usize, tail: u16) {
        let base = 0x100 + 0x40 * queue as u32;
        let size = self.registers.get(&(base + 0x10)).copied().unwrap_or(0) as u16;
        if size == 0 || tail >= size {
            return;
        }
        while self.submission_head[queue] != tail {
            let mut entry = [0; SUBMISSION_LEN];
            self.load(self.register64(base) + u64::from(self.submission_head[queue]) * 64, &mut entry);
            self.submission_head[queue] = (self.submission_head[queue] + 1) % size;
            if let Ok(entry) = Submission::parse(&entry) {
                self.complete(queue, &entry);
            }
        }
    }

    fn complete(&mut self, queue: usize, entry: &Submission) {
        let mut input = vec![0; entry.in_len as usize];
        self.load(entry.in_iova, &mut input);
        let mut output = self.answer(entry, &input);
        for _ in 0..self.script.u8() % 4 {
            let at = usize::from(self.script.u16());
            let change = self.script.u8();
            output.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= change);
        }
        output.truncate(entry.out_cap as usize);
        self.store(entry.out_iova, &output);
        let base = 0x100 + 0x40 * queue as u32;
        let size = self.registers.get(&(base + 0x14)).copied().unwrap_or(1).max(1) as u16;
        let copies = match self.script.u8() {
            0xFF => 0,
            0xFE => 2,
            0xFD => usize::from(size) * 2,
            _ => 1,
        };
        for _ in 0..copies {
            let truth = Completion {
                status: 0,
                cid: entry.cid,
                sq_head: self.submission_head[queue],
                phase: u16::from(self.phase[queue]),
                out_len: output.len() as u32,
                detail: 0,
                tag: [0; 16],
            };
            let lie = self.script.u8();
            let completion = if lie & 0x80 == 0 {
                truth
            } else {
                Completion {
                    status: if lie & 1 != 0 { self.script.u16() } else { truth.status },
                    cid: if lie & 2 != 0 { self.script.u16() } else { truth.cid },
                    sq_head: if lie & 4 != 0 { self.script.u16() } else { truth.sq_head },
                    phase: if lie & 8 != 0 { self.script.u16() } else { truth.phase },
                    out_len: if lie & 16 != 0 { self.script.u32() } else { truth.out_len },
                    detail: if lie & 32 != 0 { self.script.u32() } else { 0 },
                    tag: [lie; 16],
                }
            };
            let ring = self.register64(base + 8);
            self.store(ring + u64::from(self.completion_tail[queue]) * 32, &completion.encode());
            self.completion_tail[queue] = (self.completion_tail[queue] + 1) % size;
            if self.completion_tail[queue] == 0 {
                self.phase[queue] = !self.phase[queue];
            }
        }
    }

    fn answer(&mut self, entry: &Submission, input: &[u8]) -> Vec<u8> {
        match Opcode::from_u8(entry.opcode) {
            Some(Opcode::Identify) => MADE.record.encode(),
            Some(Opcode::Chain) => MADE.chain.encode(),
            Some(Opcode::Open) => self.accept(input).unwrap_or_default(),
            Some(Opcode::Finish) => vec![self.script.u8(); 96 + 16],
            _ => vec![self.script.u8(); usize::from(self.script.u16())],
        }
    }

    /// Message 2, made with the certified key and then altered before it is sealed: what the guest must judge itself.
    fn accept(&mut self, message_1: &[u8]) -> Option<Vec<u8>> {
        let builder = snow::Builder::new(NOISE_NAME.parse().ok()?).prologue(LABEL_PROLOGUE).ok()?;
        let mut noise = builder.local_private_key(&MADE.noise_secret).ok()?.build_responder().ok()?;
        let mut buffer = vec![0; 65_535];
        let length = noise.read_message(message_1, &mut buffer).ok()?;
        let offer = Offer::parse(&buffer[..length]).expect("the driver's own offer");
        let mut payload = Accept {
            suite: SessionSuite::Classical,
            path: offer.path,
            tdisp: TdispState::ConfigUnlocked,
            insecure: InsecureFlags::EMULATED_CHIP,
            session: 1,
            key_epoch: 1,
            interface_report: [0; 48],
            nonce: [9; 32],
            encapsulation_key: Vec::new(),
            certificates: MADE.chain.clone(),
        }
        .encode();
        for _ in 0..self.script.u8() % 4 {
            let at = usize::from(self.script.u16()) % payload.len();
            payload[at] ^= self.script.u8();
        }
        let length = noise.write_message(&payload, &mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

impl DeviceBacking for Device {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        let mut state = self.state();
        let lie = state.script.lies();
        Ok(PciIdentity { vendor: if lie { state.script.u16() } else { VENDOR_ID }, device: DEVICE_ID })
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
        self.state().reset();
        Ok(())
    }
}

impl Registers for Device {
    fn size(&self) -> u64 {
        BAR0_SIZE
    }

    fn read32(&self, offset: u32) -> Result<u32, ChipError> {
        let mut state = self.state();
        if state.script.lies() {
            return Ok(state.script.u32());
        }
        let cap = Cap { max_entries: 64, queues: 2, paths: 7, ready_units: 1, window_pages: 0 }.to_bits();
        let enabled = state.registers.get(&REG_CTRL).copied().unwrap_or(0) & CTRL_EN != 0;
        Ok(match offset {
            REG_MAGIC => MAGIC,
            REG_VERSION => VERSION,
            REG_CAP => cap as u32,
            offset if offset == REG_CAP + 4 => (cap >> 32) as u32,
            REG_STATUS if enabled => STATUS_RDY,
            REG_STATUS => 0,
            _ => 0,
        })
    }

    fn write32(&self, offset: u32, value: u32) -> Result<(), ChipError> {
        let mut state = self.state();
        match offset {
            REG_CTRL => {
                state.reset();
                state.registers.insert(REG_CTRL, if value & CTRL_RESET != 0 { 0 } else { value });
            }
            0x1000 | 0x1008 => {
                let queue = usize::from(offset == 0x1008);
                state.doorbell(queue, value as u16);
                let interrupts = match state.script.u8() {
                    0xFF => 0,
                    0xFE => 50,
                    _ => 1,
                };
                drop(state);
                (0..interrupts).for_each(|_| self.interrupt(queue));
            }
            _ => {
                state.registers.insert(offset, value);
            }
        }
        Ok(())
    }
}

impl DmaSpace for Device {
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, _access: DmaAccess) -> Result<(), ChipError> {
        let file = region.fd().try_clone_to_owned().expect("a descriptor");
        self.state().mappings.insert(iova.0, (file, region.offset(), region.len()));
        Ok(())
    }

    fn unmap(&self, iova: Iova, _len: u64) -> Result<(), ChipError> {
        self.state().mappings.remove(&iova.0);
        Ok(())
    }
}

fn options() -> DriverOptions {
    DriverOptions {
        command_timeout: Duration::from_millis(2),
        ready_timeout: Duration::from_millis(2),
        poll_interval: Duration::from_micros(300),
        ..DriverOptions::new(RingMemory::Shared(SharedMemoryProvider::Emulated))
    }
}

thread_local! {
    // Bringing a driver up costs a memory file of 2 MiB: most runs reset the one that is there.
    static KEPT: std::cell::RefCell<Option<(Device, Driver)>> = const { std::cell::RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some((plan, script)) = data.split_first() else { return };
    let script = Script { bytes: script.to_vec(), at: 0 };
    KEPT.with_borrow_mut(|kept| {
        if kept.is_none() || plan & 0xF0 == 0xF0 {
            let device = Device(Arc::new(Liar { state: Mutex::default(), vectors: Mutex::default() }));
            device.state().reset();
            if plan & 0xF0 == 0xF0 {
                device.state().script = script;
                if let Ok(mut driver) = Driver::open(Arc::new(device.clone()), options()) {
                    drive(&mut driver, *plan);
                }
                return;
            }
            let driver = Driver::open(Arc::new(device.clone()), options()).expect("a device that behaves");
            *kept = Some((device, driver));
        }
        let Some((device, driver)) = kept else { return };
        device.state().script = Script::default();
        driver.function_reset().expect("a device that behaves");
        device.state().script = script;
        drive(driver, *plan);
    });
});

fn drive(driver: &mut Driver, plan: u8) {
    let _ = driver.link_state();
    if plan & 1 != 0 {
        let _ = driver.identify();
    }
    if plan & 2 != 0 {
        let _ = driver.chain();
        let body = Provision {
            environment: "test".to_owned(),
            key_epoch: 1,
            certificates: MADE.chain.clone(),
            root: MADE.root.der().to_vec(),
            min_tcb_evaluation: 0,
            min_pck_crl: 0,
            min_root_crl: 0,
            min_snp_crl: 0,
        };
        let _ = driver.provision(&body);
    }
    if plan & 4 != 0 {
        let _ = driver.abort(Abort { queue: 1, cid: 3 });
        let _ = driver.zeroize();
    }
    if driver.is_down() {
        let _ = driver.recover();
    }
    let requirement = Requirement {
        root: &MADE.root,
        chip: ExpectedChip::Exactly(ChipId::new(MADE.record.id)),
        path: if plan & 8 != 0 { DataPath::DmaSealed } else { DataPath::KeyRelease },
        suite: SuiteRequirement::ClassicalOnly,
        guest_insecure: InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE),
        accepted_insecure: InsecureFlags::EMULATED_CHIP,
    };
    // The device has the Noise key and not the signing key: no session may come out.
    assert!(Session::open(driver, &requirement).is_err(), "a session without the chip's signature");
}
