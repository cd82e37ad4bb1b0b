//! Faults of a plan that are the controller's: at fetches, completions, interrupts and changes of the map.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chip_client::abi::{Completion, Status};

use super::Controller;
use super::worker::{Command, Fetched, Stopped};
use crate::dma::Leftover;
use crate::faults::{Fault, Kind};
use crate::firmware::{Interrupted, Reply};

impl Controller {
    /// Faults at the fetch of a command. A reply means that the command is not executed.
    pub(super) fn faulty_start(
        &self,
        command: &Command,
        fetched: &Fetched,
    ) -> Result<Option<Reply>, Stopped> {
        let take = |kind| self.faults.take(kind, fetched.opcode);
        if take(Kind::SpuriousInterrupt).is_some() {
            self.interrupts.raise(command.queue);
        }
        if let Some(fault) = take(Kind::Stall) {
            self.stall(command, fault)?;
        }
        if take(Kind::Reset).is_some() {
            self.reset();
            return Err(Stopped);
        }
        if take(Kind::Gone).is_some() {
            let mut state = self.state();
            self.stop(&mut state);
            state.gone = true;
            return Err(Stopped);
        }
        if take(Kind::Disconnect).is_some() {
            self.disconnect();
            return Err(Stopped);
        }
        if take(Kind::Die).is_some() {
            self.faults.die();
        }
        if take(Kind::LostCompletion).is_some() {
            return Err(Stopped);
        }
        let forged = take(Kind::ForgedCompletion);
        Ok(forged.map(|fault| Reply {
            out_len: fault.value.and_then(|v| u32::try_from(v).ok()).unwrap_or(0),
            tag: [0x5a; 16],
            ..Reply::failed(Status::Ok)
        }))
    }

    /// Waits for the stated time, or, without one, until the command is aborted or the controller reset.
    fn stall(&self, command: &Command, fault: Fault) -> Result<(), Stopped> {
        let until = fault.milliseconds.map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut state = self.state();
        loop {
            if state.generation != command.generation || state.ending {
                return Err(Stopped);
            }
            if command.cancel.is_cancelled() || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            let wait = Duration::from_millis(5);
            state = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What a command that was interrupted asks of the controller.
    pub(super) fn interrupted(&self, interrupted: Interrupted) -> Stopped {
        match interrupted {
            Interrupted::Planned(Kind::ResetInTransfer) => self.reset(),
            Interrupted::Planned(_) => self.disconnect(),
            Interrupted::Stopped => {}
        }
        Stopped
    }

    /// Alters a completion before it is posted.
    pub(super) fn faulty_completion(
        &self,
        fetched: &Fetched,
        out_cap: u32,
        genuine: Completion,
        previous: &mut Option<Completion>,
    ) -> Completion {
        let take = |kind| self.faults.take(kind, fetched.opcode);
        let mut completion = genuine;
        if let (Some(_), Some(old)) = (take(Kind::ReplayCompletion), *previous) {
            completion = Completion { cid: fetched.cid, ..old };
        }
        *previous = Some(completion);
        if let Some(fault) = take(Kind::WrongLength) {
            let wrong = out_cap.saturating_add(1);
            completion.out_len = fault.value.and_then(|v| u32::try_from(v).ok()).unwrap_or(wrong);
        }
        if let Some(fault) = take(Kind::WrongStatus) {
            completion.status = fault.value.and_then(|v| u16::try_from(v).ok()).unwrap_or(0);
        }
        if take(Kind::WrongCid).is_some() {
            completion.cid ^= 0x8000;
        }
        if take(Kind::BadTag).is_some() {
            completion.tag[15] ^= 1;
        }
        completion
    }

    /// Writes to the client's memory where nothing is mapped for the device, before the completion is posted.
    pub(super) fn write_elsewhere(&self, command: &Command, fetched: &Fetched) {
        const BESIDE: u64 = 4_096;
        let take = |kind| self.faults.take(kind, fetched.opcode);
        let mut written = 0u64;
        if let Some(offset) = take(Kind::WriteOutsideMap).and_then(|fault| fault.value) {
            // The file of the ring is the guest's memory when there is a guest.
            let ring = self.state().queues.get(usize::from(command.queue)).map_or(0, |pair| pair.cq_base);
            written = written.saturating_add(self.memory.write_outside(ring, offset));
        }
        if let Some(fault) = take(Kind::WriteBesideMap) {
            let list = command.firmware.take_destination();
            written = written.saturating_add(self.memory.write_beside(&list, fault.value.unwrap_or(BESIDE)));
        }
        if written > 0 {
            crate::log::note(&format!("{written} bytes written outside the map"));
        }
    }

    pub(super) fn interrupt(&self, command: &Command, fetched: &Fetched) {
        if self.faults.take(Kind::MissingInterrupt, fetched.opcode).is_some() {
            return;
        }
        self.interrupts.raise(command.queue);
        if let Some(fault) = self.faults.take(Kind::InterruptStorm, fetched.opcode) {
            let until = Instant::now() + Duration::from_millis(fault.milliseconds.unwrap_or(500));
            let mut left = fault.value.unwrap_or(100_000);
            while left > 0 && Instant::now() < until {
                self.interrupts.raise(command.queue);
                left -= 1;
            }
        }
    }

    /// Removes a range from the map, and whatever a plan lets happen with it. Only what was mapped counts as an event.
    pub(crate) fn unmap(self: &Arc<Self>, iova: u64, length: u64) {
        if self.faults.is_empty() || !self.memory.has_part_of(iova, length) {
            return self.memory.unmap(iova, length, Leftover::Nothing);
        }
        let held = self.faults.take(Kind::HoldAfterUnmap, None);
        let condemned = self.faults.take(Kind::WriteAfterUnmap, None);
        let stale = self.faults.take(Kind::StaleMap, None);
        let leftover = match (condemned, stale, held) {
            (Some(_), ..) => Leftover::Condemned,
            (_, Some(_), _) => Leftover::Stale,
            (.., Some(_)) => Leftover::Held,
            _ => Leftover::Nothing,
        };
        self.memory.unmap(iova, length, leftover);
        // One that waits already will find this range too.
        if let Some(fault) = condemned
            && !self.scribbling.swap(true, Ordering::AcqRel)
        {
            let controller = Arc::clone(self);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(fault.milliseconds.unwrap_or(0)));
                controller.scribbling.store(false, Ordering::Release);
                let written = controller.memory.scribble();
                crate::log::note(&format!("{written} bytes written after their unmap"));
            });
        }
    }
}
