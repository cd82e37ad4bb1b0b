//! BAR0.

use chip_client::abi::{
    BAR0_SIZE, CTRL_EN, CTRL_RESET, Cap, MAGIC, QREG_CQ_BASE, QREG_CQ_SIZE, QREG_SQ_BASE, QREG_SQ_SIZE,
    QUEUES, REG_CAP, REG_CTRL, REG_FATAL_CODE, REG_MAGIC, REG_STATUS, REG_VERSION, STATUS_FATAL,
    STATUS_PROVISIONED, STATUS_RDY, STATUS_TDISP_SHIFT, Status, TdispState, VERSION, cq_head_doorbell,
    queue_register, sq_tail_doorbell,
};
use rustix::io::Errno;

use super::queue::{MAX_ENTRIES, QueuePair};
use super::{Controller, State};

const CAP: Cap = Cap {
    max_entries: MAX_ENTRIES,
    queues: 2,
    paths: 0b111,
    // Five seconds: generous for a machine that runs everything at once.
    ready_units: 10,
    window_pages: 0,
};

impl Controller {
    /// Reads bytes of registers: any number at any place, as a bus may ask for them.
    pub(crate) fn read_registers(&self, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
        let mut at = window(offset, out.len())?;
        let state = self.state();
        let mut rest = out;
        while !rest.is_empty() {
            let inside = (at % 4) as usize;
            let value = if state.gone { u32::MAX } else { self.read_register(&state, at & !3) };
            let bytes = value.to_le_bytes();
            let bytes = bytes.get(inside..).unwrap_or_default();
            let (now, later) = rest.split_at_mut(bytes.len().min(rest.len()));
            now.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            at = at.saturating_add(u32::try_from(now.len()).unwrap_or(4));
            rest = later;
        }
        Ok(())
    }

    /// Writes whole registers, low half of wide ones first. Anything else has no effect.
    pub(crate) fn write_registers(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let first = window(offset, bytes.len())?;
        // GUARD: whole-registers -> evil_client_writes_parts_of_registers
        if !first.is_multiple_of(4) || !bytes.len().is_multiple_of(4) {
            return Err(Errno::INVAL);
        }
        for (at, word) in (first..).step_by(4).zip(bytes.chunks(4)) {
            if let Ok(word) = word.try_into() {
                self.write_register(at, u32::from_le_bytes(word));
            }
        }
        Ok(())
    }

    fn read_register(&self, state: &State, offset: u32) -> u32 {
        match offset {
            REG_MAGIC => MAGIC,
            REG_VERSION => VERSION,
            REG_CTRL => u32::from(state.enabled) * CTRL_EN,
            REG_STATUS => {
                let bits = [
                    (state.ready, STATUS_RDY),
                    (state.fatal.is_some(), STATUS_FATAL),
                    (self.power.is_provisioned(), STATUS_PROVISIONED),
                ];
                let bits = bits.into_iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
                bits | u32::from(TdispState::ConfigUnlocked.as_u8()) << STATUS_TDISP_SHIFT
            }
            REG_FATAL_CODE => state.fatal.map_or(0, |code| code.as_u16().into()),
            _ if offset == REG_CAP => low(CAP.to_bits()),
            _ if offset == REG_CAP + 4 => high(CAP.to_bits()),
            _ => match queue_of(offset) {
                Some((queue, register)) => state.queues.get(queue).map_or(0, |q| read_queue(q, register)),
                None => 0,
            },
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        let mut state = self.state();
        if state.gone {
            return;
        }
        if offset == REG_CTRL {
            drop(state);
            return self.control(value);
        }
        if let Some((queue, register)) = queue_of(offset) {
            if !state.enabled
                && let Some(queue) = state.queues.get_mut(queue)
            {
                write_queue(queue, register, value);
            }
            return;
        }
        if !state.ready {
            return;
        }
        let generation = state.generation;
        for (number, queue) in (0..QUEUES).zip(state.queues.iter_mut()) {
            let rung = if offset == sq_tail_doorbell(number) {
                queue.submit(value)
            } else if offset == cq_head_doorbell(number) {
                queue.consume(value)
            } else {
                continue;
            };
            drop(state);
            if rung.is_err() {
                self.fail(generation, Status::BadField);
            } else {
                self.wake.notify_all();
            }
            return;
        }
    }

    fn control(&self, value: u32) {
        if value & CTRL_RESET != 0 {
            self.reset();
        }
        let enable = value & CTRL_EN != 0;
        let mut state = self.state();
        if enable == state.enabled {
            return;
        }
        self.stop(&mut state);
        state.fatal = None;
        state.enabled = enable;
        if !enable {
            return;
        }
        if !state.queues.iter().all(QueuePair::is_valid) {
            state.fatal = Some(Status::BadField);
            return;
        }
        match self.power.up(&self.faults) {
            Ok(firmware) => {
                state.firmware = Some(firmware);
                state.ready = true;
            }
            Err(code) => {
                crate::log::note(&format!("FATAL {}", code.name()));
                state.fatal = Some(code);
            }
        }
    }
}

fn window(offset: u64, length: usize) -> Result<u32, Errno> {
    let end = offset.checked_add(length as u64).ok_or(Errno::INVAL)?;
    if end > BAR0_SIZE {
        return Err(Errno::INVAL);
    }
    u32::try_from(offset).map_err(|_large| Errno::INVAL)
}

/// Queue number and register within the queue.
fn queue_of(offset: u32) -> Option<(usize, u32)> {
    let span = queue_register(1) - queue_register(0);
    let relative = offset.checked_sub(queue_register(0))?;
    let queue = relative / span;
    (queue < u32::from(QUEUES)).then_some((queue as usize, relative % span))
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}

fn read_queue(queue: &QueuePair, register: u32) -> u32 {
    const SQ_BASE_HIGH: u32 = QREG_SQ_BASE + 4;
    const CQ_BASE_HIGH: u32 = QREG_CQ_BASE + 4;
    match register {
        QREG_SQ_BASE => low(queue.sq_base),
        SQ_BASE_HIGH => high(queue.sq_base),
        QREG_CQ_BASE => low(queue.cq_base),
        CQ_BASE_HIGH => high(queue.cq_base),
        QREG_SQ_SIZE => queue.sq_size,
        QREG_CQ_SIZE => queue.cq_size,
        _ => 0,
    }
}

fn write_queue(queue: &mut QueuePair, register: u32, value: u32) {
    const SQ_BASE_HIGH: u32 = QREG_SQ_BASE + 4;
    const CQ_BASE_HIGH: u32 = QREG_CQ_BASE + 4;
    let set_low = |old: u64| old & !u64::from(u32::MAX) | u64::from(value);
    let set_high = |old: u64| old & u64::from(u32::MAX) | u64::from(value) << 32;
    match register {
        QREG_SQ_BASE => queue.sq_base = set_low(queue.sq_base),
        SQ_BASE_HIGH => queue.sq_base = set_high(queue.sq_base),
        QREG_CQ_BASE => queue.cq_base = set_low(queue.cq_base),
        CQ_BASE_HIGH => queue.cq_base = set_high(queue.cq_base),
        QREG_SQ_SIZE => queue.sq_size = value,
        QREG_CQ_SIZE => queue.cq_size = value,
        _ => {}
    }
}
