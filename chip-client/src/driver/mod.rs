//! The driver: brings a controller up, submits commands, waits for completions, and believes nothing.
//!
//! ```text
//!  command ─▶ Queue::reserve ─▶ input into the arena, entry into the ring ─▶ doorbell
//!                                                                              │
//!  output ◀─ copied out once ◀─ phase, cid, head, length verified ◀─ look at the ring ◀─ interrupt or poll
//! ```
//!
//! Any fault of the device resets the controller; [`Driver::recover`] brings it up again.

mod arena;
mod bring_up;
mod commands;
mod queue;
mod wait;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use protected_memory::dma::SharedMemoryProvider;

use crate::abi::{
    CTRL_RESET, Cap, Opcode, QUEUE_BULK, QUEUE_CONTROL, REG_CTRL, Submission, TdispState, sq_tail_doorbell,
};
use crate::backing::{DeviceBacking, Interrupt, Registers};
use crate::error::{ChipError, DeviceError, SessionError};
use crate::iova::DmaMapper;

use arena::Arena;
use queue::Queue;
pub(crate) use queue::{Finished, Ticket};

/// Where rings and command buffers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingMemory {
    /// In memory that the host sees, from this provider.
    Shared(SharedMemoryProvider),
    /// In private memory: needed for `dma-direct`.
    Private,
}

/// How long the driver waits, and for how much.
#[derive(Clone, Copy, Debug)]
pub struct DriverOptions {
    /// Where rings and command buffers lie.
    pub ring_memory: RingMemory,
    /// Longest wait for a command.
    pub command_timeout: Duration,
    /// Longest wait for readiness, whatever the device says it needs.
    pub ready_timeout: Duration,
    /// How often the ring is looked at when no interrupt comes.
    pub poll_interval: Duration,
    /// Bulk commands outstanding at once (1 … 16).
    pub bulk_depth: u16,
}

impl DriverOptions {
    /// The usual waits, with rings in this memory.
    pub const fn new(ring_memory: RingMemory) -> Self {
        Self {
            ring_memory,
            command_timeout: Duration::from_secs(30),
            ready_timeout: Duration::from_secs(60),
            poll_interval: Duration::from_millis(10),
            bulk_depth: 4,
        }
    }
}

/// A controller that is up.
pub struct Driver {
    // Order of drop: the arena is unmapped while the backing lives.
    arena: Arena,
    registers: Box<dyn Registers>,
    interrupts: Vec<Interrupt>,
    queues: [Queue; 2],
    cap: Cap,
    up: bool,
    looks: u64,
    notifications: u64,
    options: DriverOptions,
    mapper: DmaMapper,
    backing: Arc<dyn DeviceBacking>,
}

impl Driver {
    /// Finds the chip behind the backing and brings its controller up.
    ///
    /// # Errors
    ///
    /// Nobody there, something else there, or a controller that does not become ready.
    pub fn open(backing: Arc<dyn DeviceBacking>, options: DriverOptions) -> Result<Self, ChipError> {
        let found = bring_up::find(backing.as_ref())?;
        let mapper = DmaMapper::new(Arc::clone(&backing));
        let arena = Arena::allocate(&mapper, options.ring_memory)?;
        let interrupts = backing.interrupts(crate::abi::MSIX_VECTORS)?;
        let size = found.ring_size;
        let control = Queue::new(QUEUE_CONTROL, size, arena::CONTROL);
        let bulk = Queue::new(QUEUE_BULK, size, arena::bulk_slots(options.bulk_depth, size));
        let mut driver = Self {
            arena,
            registers: found.registers,
            interrupts,
            queues: [control, bulk],
            cap: found.cap,
            up: false,
            looks: 0,
            notifications: 0,
            options,
            mapper,
            backing,
        };
        driver.recover()?;
        Ok(driver)
    }

    /// Brings the controller up again after a fault. Every session is gone.
    ///
    /// # Errors
    ///
    /// The controller does not become ready.
    pub fn recover(&mut self) -> Result<(), ChipError> {
        self.up = false;
        self.start_controller()?;
        self.up = true;
        Ok(())
    }

    /// What the device says it can do.
    pub fn capabilities(&self) -> Cap {
        self.cap
    }

    /// The device's link state as its register says; not authenticated.
    ///
    /// # Errors
    ///
    /// The device is gone.
    pub fn link_state(&self) -> Result<Option<TdispState>, ChipError> {
        Ok(TdispState::from_status(self.read_status()?))
    }

    /// Maps memory for the device.
    pub fn mapper(&self) -> &DmaMapper {
        &self.mapper
    }

    /// Whether a bring-up is needed before the next command.
    pub fn is_down(&self) -> bool {
        !self.up
    }

    /// How often a completion ring was looked at since the driver was opened.
    pub fn ring_looks(&self) -> u64 {
        self.looks
    }

    /// How many interrupts were waited for and came since the driver was opened.
    pub fn notifications(&self) -> u64 {
        self.notifications
    }

    /// Where rings and command buffers lie.
    pub fn ring_memory(&self) -> RingMemory {
        self.options.ring_memory
    }

    /// Bulk commands that can be outstanding at once.
    pub(crate) fn bulk_depth(&self) -> u16 {
        let [_, bulk] = &self.queues;
        bulk.depth()
    }

    /// Function reset through the backing, then a bring-up.
    ///
    /// # Errors
    ///
    /// The way to the device failed, or the controller does not become ready.
    pub fn function_reset(&mut self) -> Result<(), ChipError> {
        self.up = false;
        self.backing.reset()?;
        self.recover()
    }

    /// Stops the controller: sessions, keys and DMA of the device end.
    pub(crate) fn stop(&mut self) {
        self.up = false;
        let _ = self.registers.write32(REG_CTRL, CTRL_RESET);
        let _ = self.wait_not_ready();
        self.queues.iter_mut().for_each(Queue::clear);
    }

    /// A fault: stops the controller and hands the error on.
    pub(crate) fn fault(&mut self, error: ChipError) -> ChipError {
        if self.up {
            self.stop();
        }
        error
    }

    /// Takes a command slot and fills the submission entry for it; `None` while all are taken.
    pub(crate) fn reserve(
        &mut self,
        queue: u16,
        opcode: Opcode,
        session: u32,
        seq: u64,
        lengths: Lengths,
    ) -> Result<Option<Reserved>, ChipError> {
        if !self.up {
            return Err(DeviceError::Down.into());
        }
        let address = |len: u32, offset: usize| if len == 0 { 0 } else { self.arena.iova(offset) };
        let queue = self.queues.get_mut(usize::from(queue)).ok_or(DeviceError::Down)?;
        if !queue.has_room(lengths) {
            let (what, found) = (opcode.name(), lengths.input.max(lengths.output) as usize);
            return Err(SessionError::TooLarge { what, expected: arena::CONTROL_INPUT, found }.into());
        }
        let Some((ticket, place)) = queue.reserve(lengths) else {
            return Ok(None);
        };
        let entry = Submission {
            opcode: opcode.as_u8(),
            flags: 0,
            cid: ticket.cid,
            session,
            in_iova: address(lengths.input, place.input),
            in_len: lengths.input,
            out_cap: lengths.output,
            out_iova: address(lengths.output, place.output),
            seq,
        };
        Ok(Some(Reserved { ticket, entry, input: place.input }))
    }

    /// Writes input and entry and rings the doorbell. The input has the length that was reserved.
    pub(crate) fn launch(&mut self, reserved: &Reserved, input: &[u8]) -> Result<(), ChipError> {
        let number = reserved.ticket.queue;
        if u32::try_from(input.len()) != Ok(reserved.entry.in_len) {
            self.queue_mut(number)?.give_back(reserved.ticket);
            let (expected, found) = (reserved.entry.in_len as usize, input.len());
            return Err(SessionError::TooLarge { what: "command input", expected, found }.into());
        }
        self.arena.copy_in(reserved.input, input)?;
        let queue = self.queue_mut(number)?;
        let offset = queue.push_entry().ok_or(DeviceError::Down)?;
        let tail = queue.tail();
        self.arena.copy_in(offset, &reserved.entry.encode())?;
        let rung = self.registers.write32(sq_tail_doorbell(number), tail.into());
        rung.map_err(|e| self.fault(e))
    }

    fn queue_mut(&mut self, queue: u16) -> Result<&mut Queue, ChipError> {
        self.queues.get_mut(usize::from(queue)).ok_or_else(|| DeviceError::Down.into())
    }
}

/// Lengths of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub(crate) input: u32,
    pub(crate) output: u32,
}

/// A command slot and the entry that will be submitted.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) ticket: Ticket,
    pub(crate) entry: Submission,
    input: usize,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("cap", &self.cap).field("up", &self.up).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
