//! Waiting for completions: interrupts as a hint, polling as the truth, a bound on both.

use std::time::Instant;

use super::{Driver, Finished, Ticket};
use crate::abi::{COMPLETION_LEN, Completion, STATUS_RDY, cq_head_doorbell};
use crate::error::{ChipError, DeviceError};

/// Notifications without a completion that one wait listens to; after that it only polls.
const FRUITLESS_NOTIFICATIONS: u32 = 32;
const HEAD_LEN: usize = 8;

impl Driver {
    /// Waits for this command, or for any of the queue when none is named.
    pub(crate) fn wait(
        &mut self,
        queue: u16,
        wanted: Option<Ticket>,
        what: &'static str,
    ) -> Result<(Ticket, Finished), ChipError> {
        let timeout = self.options.command_timeout;
        let deadline = Instant::now() + timeout;
        let mut fruitless = 0;
        loop {
            // The clock is read before the ring, so that the last look comes after the deadline.
            let now = Instant::now();
            let outcome = self.look(queue, wanted);
            match outcome.map_err(|e| self.fault(e))? {
                Some(finished) => return Ok(finished),
                None if now >= deadline => {
                    let late = self.read_status().err().unwrap_or_else(|| {
                        let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                        DeviceError::Timeout { what, after_ms }.into()
                    });
                    return Err(self.fault(late));
                }
                None => {}
            }
            let pause = self.options.poll_interval.min(deadline.saturating_duration_since(now));
            let interrupt = self.interrupts.get(usize::from(queue));
            // GUARD: notification-storm -> evil_notification_storm_costs_bounded_looks
            let interrupt = interrupt.filter(|_| fruitless < FRUITLESS_NOTIFICATIONS);
            let notified = match interrupt {
                Some(interrupt) => interrupt.wait(pause).map_err(|e| self.fault(e))?,
                None => {
                    std::thread::sleep(pause);
                    false
                }
            };
            if notified {
                self.notifications = self.notifications.saturating_add(1);
                fruitless += 1;
            } else {
                let alive = self.require_ready();
                alive.map_err(|e| self.fault(e))?;
            }
        }
    }

    /// A controller that reset itself under a command will never complete it.
    fn require_ready(&self) -> Result<(), ChipError> {
        // GUARD: ready-under-command -> evil_controller_resets_itself_under_a_command
        if self.read_status()? & STATUS_RDY == 0 {
            return Err(DeviceError::Gone { what: "STATUS is not ready under a command" }.into());
        }
        Ok(())
    }

    /// Takes what finished before, or looks at the ring.
    fn look(&mut self, queue: u16, wanted: Option<Ticket>) -> Result<Option<(Ticket, Finished)>, ChipError> {
        if let Some(finished) = self.queue_mut(queue)?.take(wanted) {
            return Ok(Some(finished));
        }
        self.drain(queue)?;
        Ok(self.queue_mut(queue)?.take(wanted))
    }

    /// Takes all new completions, at most one ring full.
    fn drain(&mut self, queue: u16) -> Result<(), ChipError> {
        let mut taken = false;
        for _ in 0..self.queue_mut(queue)?.size().entries() {
            let offset = self.queue_mut(queue)?.completion_offset();
            let Some(entry) = self.fetch(queue, offset)? else { break };
            let accepted = self.queue_mut(queue)?.accept(&entry)?;
            let mut output = vec![0; usize::try_from(entry.out_len).unwrap_or(0)];
            self.arena.copy_out(accepted.output, &mut output)?;
            self.queue_mut(queue)?.finish(&accepted, entry, output);
            taken = true;
        }
        if taken {
            let head = self.queue_mut(queue)?.head();
            self.registers.write32(cq_head_doorbell(queue), head.into())?;
        }
        Ok(())
    }

    /// Reads an entry if it is new. Each byte is fetched once, the phase in one load with what was written before it.
    fn fetch(&mut self, queue: u16, offset: usize) -> Result<Option<Completion>, ChipError> {
        self.looks = self.looks.saturating_add(1);
        let mut bytes = [0; COMPLETION_LEN];
        let head = self.arena.load_u64(offset)?.to_le_bytes();
        bytes.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        if !self.queue_mut(queue)?.is_new(&Completion::parse(&bytes)) {
            return Ok(None);
        }
        let (_, tail) = bytes.split_at_mut(HEAD_LEN);
        self.arena.copy_out(offset + HEAD_LEN, tail)?;
        Ok(Some(Completion::parse(&bytes)))
    }
}
