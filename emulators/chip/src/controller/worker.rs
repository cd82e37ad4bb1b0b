//! The worker of one queue pair: fetch, execute, complete, interrupt.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chip_client::abi::{Abort, Completion, Opcode, PHASE_OFFSET, SUBMISSION_LEN, Status, Submission};

use super::Controller;
use super::queue::Running;
use crate::dma::{Bus, DmaError};
use crate::faults::Kind;
use crate::firmware::{Cancel, Firmware, Reply};

/// One fetched command.
pub(super) struct Command {
    pub(super) generation: u64,
    pub(super) firmware: Arc<Firmware>,
    pub(super) queue: u16,
    pub(super) iova: u64,
    pub(super) cancel: Arc<Cancel>,
}

/// The entry of a command, and what it selects faults by.
pub(super) struct Fetched {
    pub(super) bytes: [u8; SUBMISSION_LEN],
    pub(super) cid: u16,
    pub(super) opcode: Option<Opcode>,
}

/// The controller was reset under a command: there is no completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

impl Controller {
    pub(super) fn work(&self, queue: u16) {
        let mut previous = None;
        while let Some(command) = self.next_command(queue) {
            // Err: the controller was reset under the command; whoever did that has forgotten it.
            let _ = self.process(&command, &mut previous);
            self.finished(&command);
        }
    }

    fn next_command(&self, queue: u16) -> Option<Command> {
        let mut state = self.state();
        loop {
            if state.ending {
                return None;
            }
            let (generation, ready) = (state.generation, state.ready && !state.gone);
            let firmware = state.firmware.clone().filter(|_| ready);
            if let (Some(firmware), Some(pair)) = (firmware, state.queues.get_mut(usize::from(queue)))
                && let Some(iova) = pair.fetch()
            {
                let cancel = Arc::new(Cancel::default());
                pair.running = Some(Running { cid: None, cancel: Arc::clone(&cancel) });
                return Some(Command { generation, firmware, queue, iova, cancel });
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finished(&self, command: &Command) {
        let mut state = self.state();
        if state.generation == command.generation
            && let Some(pair) = state.queues.get_mut(usize::from(command.queue))
        {
            pair.running = None;
            if pair.is_idle() {
                pair.aborts.clear();
            }
        }
    }

    fn process(&self, command: &Command, previous: &mut Option<Completion>) -> Result<(), Stopped> {
        let bus = Bus::new(&self.memory, command.generation);
        let mut bytes = [0; SUBMISSION_LEN];
        self.reach(command, bus.read(command.iova, &mut bytes))?;
        let [opcode, _, cid_low, cid_high, ..] = bytes;
        let cid = u16::from_le_bytes([cid_low, cid_high]);
        let fetched = Fetched { bytes, cid, opcode: Opcode::from_u8(opcode) };
        self.announce(command, cid)?;
        if let Some(reply) = self.faulty_start(command, &fetched)? {
            return self.complete(command, &fetched, reply, previous);
        }
        let reply = if fetched.opcode == Some(Opcode::Abort) && command.queue == 0 {
            self.abort(&bus, &bytes)?
        } else {
            let executed = command.firmware.execute(bus, command.queue, &bytes, &command.cancel);
            executed.map_err(|interrupted| self.interrupted(interrupted))?
        };
        self.complete(command, &fetched, reply, previous)
    }

    /// Ring memory that cannot be reached is fatal: there is no way to tell the driver otherwise.
    fn reach(&self, command: &Command, result: Result<(), DmaError>) -> Result<(), Stopped> {
        match result {
            Ok(()) => Ok(()),
            Err(DmaError::Stopped) => Err(Stopped),
            Err(DmaError::Fault) => {
                self.fail(command.generation, Status::DmaFault);
                Err(Stopped)
            }
        }
    }

    /// Makes the command one that ABORT finds; one that was to be aborted before it was fetched is cancelled now.
    fn announce(&self, command: &Command, cid: u16) -> Result<(), Stopped> {
        let mut state = self.state();
        if state.generation != command.generation {
            return Err(Stopped);
        }
        if let Some(pair) = state.queues.get_mut(usize::from(command.queue)) {
            if let Some(running) = &mut pair.running {
                running.cid = Some(cid);
            }
            if let Some(at) = pair.aborts.iter().position(|aborted| *aborted == cid) {
                pair.aborts.swap_remove(at);
                command.cancel.cancel();
            }
        }
        Ok(())
    }

    fn abort(&self, bus: &Bus<'_>, bytes: &[u8; SUBMISSION_LEN]) -> Result<Reply, Stopped> {
        let Ok(entry) = Submission::parse(bytes) else { return Ok(Reply::failed(Status::BadField)) };
        if entry.session != 0 || entry.seq != 0 {
            return Ok(Reply::failed(Status::BadField));
        }
        let mut input = [0; 4];
        if entry.in_len != 4 {
            return Ok(Reply::failed(Status::BadLength));
        }
        match bus.read(entry.in_iova, &mut input) {
            Ok(()) => {}
            Err(DmaError::Fault) => return Ok(Reply::failed(Status::DmaFault)),
            Err(DmaError::Stopped) => return Err(Stopped),
        }
        let Ok(target) = Abort::parse(&input) else { return Ok(Reply::failed(Status::BadLength)) };
        let mut state = self.state();
        let Some(pair) = state.queues.get_mut(usize::from(target.queue)) else {
            return Ok(Reply::failed(Status::BadField));
        };
        match &pair.running {
            Some(running) if running.cid == Some(target.cid) => running.cancel.cancel(),
            _ if !pair.is_idle() => pair.aborts.push(target.cid),
            // It has completed in the meantime.
            _ => {}
        }
        Ok(Reply::failed(Status::Ok))
    }

    fn complete(
        &self,
        command: &Command,
        fetched: &Fetched,
        reply: Reply,
        previous: &mut Option<Completion>,
    ) -> Result<(), Stopped> {
        let bus = Bus::new(&self.memory, command.generation);
        let take = |kind| self.faults.take(kind, fetched.opcode);
        let entry = Submission::parse(&fetched.bytes).unwrap_or_default();
        let mut completion = Completion {
            status: reply.status.as_u16(),
            cid: fetched.cid,
            sq_head: 0,
            phase: 0,
            out_len: reply.out_len,
            detail: reply.detail,
            tag: reply.tag,
        };
        completion = self.faulty_completion(fetched, entry.out_cap, completion, previous);
        if take(Kind::CorruptOutput).is_some() && reply.out_len > 0 {
            let mut byte = [0];
            self.reach(command, bus.read(entry.out_iova, &mut byte))?;
            self.reach(command, bus.write(entry.out_iova, &[byte[0] ^ 1]))?;
        }
        self.write_elsewhere(command, fetched);
        self.faults.executed(fetched.opcode);
        let wrong_head = take(Kind::WrongHead).is_some();
        let iova = self.post(command, completion, wrong_head)?;
        if take(Kind::DuplicateCompletion).is_some() {
            self.post(command, completion, false)?;
        }
        self.interrupt(command, fetched);
        if let Some(fault) = take(Kind::RewriteAfterCompletion) {
            std::thread::sleep(Duration::from_millis(fault.milliseconds.unwrap_or(0)));
            let garbage = vec![0xa5; entry.out_cap.min(chip_client::abi::MAX_TRANSFER) as usize];
            let _ = bus.write(entry.out_iova, &garbage);
            // Everything of the completion but its phase.
            let _ = bus.write(iova, &[0xa5; PHASE_OFFSET]);
            let _ = bus.write(iova.saturating_add(8), &[0xa5; 24]);
            command.firmware.scribble_on_destination(&bus);
        }
        Ok(())
    }

    /// Writes a completion, its phase last. Returns where.
    fn post(&self, command: &Command, completion: Completion, wrong_head: bool) -> Result<u64, Stopped> {
        let bus = Bus::new(&self.memory, command.generation);
        let mut state = self.state();
        if state.generation != command.generation {
            return Err(Stopped);
        }
        let Some(pair) = state.queues.get_mut(usize::from(command.queue)) else { return Err(Stopped) };
        // Room was made sure of at the fetch; only a duplicate can find none.
        if !pair.completion_fits() {
            return Ok(command.iova);
        }
        let slot = pair.complete();
        drop(state);
        let sq_head = if wrong_head { u16::MAX } else { slot.sq_head };
        let bytes = Completion { sq_head, phase: slot.phase, ..completion }.encode();
        let (head, rest) = bytes.split_at_checked(PHASE_OFFSET).unwrap_or_default();
        let (phase, tail) = rest.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        self.reach(command, bus.write(slot.iova, head))?;
        self.reach(command, bus.write(slot.iova.saturating_add(8), tail))?;
        self.reach(command, bus.publish(slot.iova.saturating_add(PHASE_OFFSET as u64), *phase))?;
        Ok(slot.iova)
    }
}
