//! A device inside the test process: memory, registers and rings in safe Rust, and a firmware that lies on command.

mod chip;
mod memory;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use protected_memory::dma::{DmaRegion, SharedMemoryProvider};

pub(crate) use chip::{Chip, World};
pub(crate) use memory::Memory;

use crate::abi::{
    BAR0_SIZE, CTRL_EN, CTRL_RESET, Cap, Completion, DEVICE_ID, MAGIC, PHASE_OFFSET, QREG_CQ_BASE,
    QREG_CQ_SIZE, QREG_SQ_BASE, QREG_SQ_SIZE, REG_CAP, REG_CTRL, REG_FATAL_CODE, REG_MAGIC, REG_STATUS,
    REG_VERSION, STATUS_FATAL, STATUS_RDY, SUBMISSION_LEN, Submission, VENDOR_ID, VERSION, cq_head_doorbell,
    queue_register, sq_tail_doorbell,
};
use crate::backing::{DeviceBacking, DmaAccess, DmaSpace, Interrupt, Iova, PciIdentity, Registers};
use crate::driver::{Driver, DriverOptions, RingMemory};
use crate::error::{ChipError, DeviceError};

/// What a command does.
pub(crate) trait Firmware: Send {
    fn execute(&mut self, memory: &Memory, entry: &[u8; SUBMISSION_LEN], input: Vec<u8>) -> Reply;
    fn reset(&mut self) {}
}

/// An answer before anyone lies about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) detail: u32,
    pub(crate) output: Vec<u8>,
    pub(crate) tag: [u8; 16],
}

/// What goes into the completion ring. A lie changes it.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) opcode: u8,
    pub(crate) completion: Completion,
    pub(crate) output: Vec<u8>,
    /// How many times it is written to the ring.
    pub(crate) copies: usize,
    /// Whether the phase bit is the wrong one.
    pub(crate) stale_phase: bool,
    /// Whether an interrupt follows.
    pub(crate) interrupt: bool,
}

pub(crate) type Lie = Box<dyn FnMut(&mut Posted) + Send>;

/// Lies about rings, registers and memory. The firmware has its own.
#[derive(Default)]
pub(crate) struct Lies {
    /// Changes completions and outputs.
    pub(crate) completion: Option<Lie>,
    /// All registers read all ones from the next command on.
    pub(crate) gone_at_command: bool,
    /// The controller stops with this code at the next command.
    pub(crate) fatal_at_command: Option<u32>,
    /// The controller resets itself at the next command and says nothing more.
    pub(crate) reset_at_command: bool,
    /// After the driver took a completion, its entry and its output are overwritten with this.
    pub(crate) rewrite_after_head: Option<u8>,
    /// Unmapping memory of this length is not confirmed.
    pub(crate) refuse_unmap_of: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct Ring {
    head: u32,
    tail: u32,
    lap: u32,
    last_output: (u64, usize),
}

pub(crate) struct State {
    registers: BTreeMap<u32, u32>,
    rings: [Ring; 2],
    events: Vec<OwnedFd>,
    pub(crate) memory: Memory,
    pub(crate) lies: Lies,
    pub(crate) gone: bool,
    pub(crate) resets: u32,
    pub(crate) vendor: u16,
    /// Opcodes of executed commands.
    pub(crate) seen: Vec<u8>,
    firmware: Box<dyn Firmware>,
}

/// The device, shared by the driver under test and the test.
#[derive(Clone)]
pub(crate) struct FakeDevice {
    state: Arc<Mutex<State>>,
}

impl FakeDevice {
    pub(crate) fn new(firmware: impl Firmware + 'static) -> Self {
        let cap = Cap { max_entries: 64, queues: 2, paths: 7, ready_units: 1, window_pages: 0 }.to_bits();
        let low = u32::try_from(cap & 0xFFFF_FFFF).unwrap();
        let high = u32::try_from(cap >> 32).unwrap();
        let registers =
            BTreeMap::from([(REG_MAGIC, MAGIC), (REG_VERSION, VERSION), (REG_CAP, low), (REG_CAP + 4, high)]);
        let state = State {
            registers,
            rings: [Ring::default(); 2],
            events: Vec::new(),
            memory: Memory::default(),
            lies: Lies::default(),
            gone: false,
            resets: 0,
            vendor: VENDOR_ID,
            seen: Vec::new(),
            firmware: Box::new(firmware),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn lie(&self, lie: impl FnMut(&mut Posted) + Send + 'static) {
        self.state().lies.completion = Some(Box::new(lie));
    }

    pub(crate) fn set_register(&self, offset: u32, value: u32) {
        self.state().registers.insert(offset, value);
    }

    /// A descriptor that fires the interrupt of a queue.
    pub(crate) fn interrupt(&self, queue: usize) -> OwnedFd {
        self.state().events[queue].try_clone().unwrap()
    }

    pub(crate) fn options() -> DriverOptions {
        let mut options = DriverOptions::new(RingMemory::Shared(SharedMemoryProvider::Emulated));
        options.command_timeout = Duration::from_millis(300);
        options.ready_timeout = Duration::from_millis(300);
        options.poll_interval = Duration::from_millis(5);
        options
    }

    pub(crate) fn driver(&self) -> Driver {
        Driver::open(Arc::new(self.clone()), Self::options()).unwrap()
    }
}

impl State {
    fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn register64(&self, offset: u32) -> u64 {
        u64::from(self.register(offset)) | u64::from(self.register(offset + 4)) << 32
    }

    fn write(&mut self, offset: u32, value: u32) {
        if offset == REG_CTRL {
            if value & CTRL_RESET != 0 || value & CTRL_EN == 0 {
                self.rings = [Ring::default(); 2];
                self.registers.insert(REG_STATUS, 0);
                self.firmware.reset();
                self.resets += 1;
            } else {
                self.registers.insert(REG_STATUS, STATUS_RDY);
            }
            return;
        }
        self.registers.insert(offset, value);
        for queue in 0..2u16 {
            if offset == sq_tail_doorbell(queue) {
                self.run(queue, value);
            }
            if offset == cq_head_doorbell(queue) {
                self.rewrite(queue);
            }
        }
    }

    fn run(&mut self, queue: u16, tail: u32) {
        let base = queue_register(queue);
        let size = self.register(base + QREG_SQ_SIZE);
        while self.rings[usize::from(queue)].head != tail {
            let head = self.rings[usize::from(queue)].head;
            let at = self.register64(base + QREG_SQ_BASE) + u64::from(head) * SUBMISSION_LEN as u64;
            self.rings[usize::from(queue)].head = (head + 1) % size;
            let entry: [u8; SUBMISSION_LEN] =
                self.memory.read(at, SUBMISSION_LEN).unwrap().try_into().unwrap();
            self.execute(queue, &entry);
        }
    }

    fn execute(&mut self, queue: u16, entry: &[u8; SUBMISSION_LEN]) {
        let submission = Submission::parse(entry).unwrap();
        self.seen.push(submission.opcode);
        if self.lies.gone_at_command {
            self.gone = true;
            return;
        }
        if self.lies.reset_at_command {
            self.registers.insert(REG_STATUS, 0);
            return;
        }
        if let Some(code) = self.lies.fatal_at_command {
            self.registers.insert(REG_STATUS, STATUS_RDY | STATUS_FATAL);
            self.registers.insert(REG_FATAL_CODE, code);
            return;
        }
        let input = self.memory.read(submission.in_iova, submission.in_len as usize).unwrap();
        let reply = self.firmware.execute(&self.memory, entry, input);
        let mut posted = Posted {
            opcode: submission.opcode,
            completion: Completion {
                status: reply.status,
                cid: submission.cid,
                sq_head: u16::try_from(self.rings[usize::from(queue)].head).unwrap(),
                phase: 0,
                out_len: u32::try_from(reply.output.len()).unwrap(),
                detail: reply.detail,
                tag: reply.tag,
            },
            output: reply.output,
            copies: 1,
            stale_phase: false,
            interrupt: true,
        };
        if let Some(lie) = &mut self.lies.completion {
            lie(&mut posted);
        }
        self.memory.write(submission.out_iova, &posted.output);
        self.rings[usize::from(queue)].last_output = (submission.out_iova, posted.output.len());
        for _ in 0..posted.copies {
            self.post(queue, &posted);
        }
    }

    fn post(&mut self, queue: u16, posted: &Posted) {
        let base = queue_register(queue);
        let size = self.register(base + QREG_CQ_SIZE);
        let ring = self.rings[usize::from(queue)];
        let phase = ring.lap.is_multiple_of(2) != posted.stale_phase;
        let mut completion = posted.completion;
        completion.phase = phase.into();
        let bytes = completion.encode();
        let at = self.register64(base + QREG_CQ_BASE) + u64::from(ring.tail) * bytes.len() as u64;
        self.memory.write(at + 8, &bytes[8..]);
        self.memory.write(at, &bytes[..PHASE_OFFSET]);
        self.memory.write(at + PHASE_OFFSET as u64, &bytes[PHASE_OFFSET..8]);
        let ring = &mut self.rings[usize::from(queue)];
        ring.tail = (ring.tail + 1) % size;
        ring.lap += u32::from(ring.tail == 0);
        if posted.interrupt {
            rustix::io::write(&self.events[usize::from(queue)], &1u64.to_ne_bytes()).unwrap();
        }
    }

    fn rewrite(&self, queue: u16) {
        if let Some(byte) = self.lies.rewrite_after_head {
            let ring = self.rings[usize::from(queue)];
            let (iova, len) = ring.last_output;
            self.memory.write(iova, &vec![byte; len]);
            let base = queue_register(queue);
            let size = self.register(base + QREG_CQ_SIZE);
            let last = (ring.tail + size - 1) % size;
            let at = self.register64(base + QREG_CQ_BASE) + u64::from(last) * 32;
            self.memory.write(at, &[byte; 6]);
            self.memory.write(at + 8, &[byte; 24]);
        }
    }
}

impl Registers for FakeDevice {
    fn size(&self) -> u64 {
        BAR0_SIZE
    }

    fn read32(&self, offset: u32) -> Result<u32, ChipError> {
        let state = self.state();
        Ok(if state.gone { u32::MAX } else { state.register(offset) })
    }

    fn write32(&self, offset: u32, value: u32) -> Result<(), ChipError> {
        let mut state = self.state();
        if !state.gone {
            state.write(offset, value);
        }
        Ok(())
    }
}

impl DmaSpace for FakeDevice {
    fn map(&self, iova: Iova, region: &DmaRegion<'_>, _: DmaAccess) -> Result<(), ChipError> {
        self.state().memory.map(iova.0, region);
        Ok(())
    }

    fn unmap(&self, iova: Iova, len: u64) -> Result<(), ChipError> {
        let mut state = self.state();
        if state.lies.refuse_unmap_of == Some(len) {
            return Err(DeviceError::Timeout { what: "unmap", after_ms: 0 }.into());
        }
        state.memory.unmap(iova.0, len);
        Ok(())
    }
}

impl DeviceBacking for FakeDevice {
    fn presence(&self) -> Result<PciIdentity, ChipError> {
        Ok(PciIdentity { vendor: self.state().vendor, device: DEVICE_ID })
    }

    fn map_bar(&self, _: u8) -> Result<Box<dyn Registers>, ChipError> {
        Ok(Box::new(self.clone()))
    }

    fn dma(&self) -> &dyn DmaSpace {
        self
    }

    fn interrupts(&self, count: u16) -> Result<Vec<Interrupt>, ChipError> {
        let interrupts: Vec<Interrupt> = (0..count).map(|_| Interrupt::new().unwrap()).collect();
        self.state().events =
            interrupts.iter().map(|i| std::os::fd::AsFd::as_fd(i).try_clone_to_owned().unwrap()).collect();
        Ok(interrupts)
    }

    fn reset(&self) -> Result<(), ChipError> {
        self.state().write(REG_CTRL, CTRL_RESET);
        Ok(())
    }
}

/// Fails the test unless this is the error with this code.
#[track_caller]
pub(crate) fn assert_code<T>(result: Result<T, ChipError>, code: &str) -> ChipError {
    match result {
        Ok(_) => panic!("expected {code}, found success"),
        Err(e) => {
            assert_eq!(e.code(), code, "{e}");
            e
        }
    }
}
