//! Registers, rings, doorbells, completions, interrupts, reset (interface spec §2, §3).
//!
//! The socket thread reads and writes registers; two workers, one a queue pair, execute commands. A reset raises the
//! *generation*: whatever a worker still does for the former one touches no memory and posts no completion.

mod interrupts;
mod misbehave;
mod power;
mod queue;
mod registers;
mod worker;

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use chip_client::abi::{QUEUES, Status};

use crate::dma::DmaMemory;
use crate::faults::Faults;
use crate::firmware::Firmware;

pub(crate) use interrupts::Interrupts;
pub(crate) use power::Power;
use queue::QueuePair;

#[derive(Debug, Default)]
struct State {
    generation: u64,
    enabled: bool,
    ready: bool,
    fatal: Option<Status>,
    /// A fault: the device has fallen off the bus.
    gone: bool,
    ending: bool,
    queues: [QueuePair; QUEUES as usize],
    firmware: Option<Arc<Firmware>>,
}

/// The device behind the registers.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) memory: DmaMemory,
    pub(crate) interrupts: Interrupts,
    pub(crate) faults: Arc<Faults>,
    power: Power,
    state: Mutex<State>,
    wake: Condvar,
    /// The connection of the present client, so that a fault can cut it.
    client: Mutex<Option<OwnedFd>>,
    /// A fault waits for its time to write over memory.
    scribbling: AtomicBool,
}

impl Controller {
    /// The device and its two workers, which end after [`Self::end`].
    pub(crate) fn start(power: Power, faults: Arc<Faults>) -> (Arc<Self>, Vec<JoinHandle<()>>) {
        let controller = Arc::new(Self {
            memory: DmaMemory::default(),
            interrupts: Interrupts::default(),
            faults,
            power,
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            client: Mutex::new(None),
            scribbling: AtomicBool::new(false),
        });
        let workers = (0..QUEUES)
            .map(|queue| {
                let controller = Arc::clone(&controller);
                std::thread::spawn(move || controller.work(queue))
            })
            .collect();
        (controller, workers)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all work, drops and wipes sessions and keys, forgets rings. No DMA happens after this returns.
    fn stop(&self, state: &mut State) {
        state.ready = false;
        state.generation = state.generation.wrapping_add(1);
        self.memory.admit_only(state.generation);
        if let Some(firmware) = state.firmware.take() {
            firmware.sessions.end_all();
        }
        for queue in &mut state.queues {
            queue.forget_rings();
        }
        self.interrupts.forget_pending();
        self.wake.notify_all();
    }

    /// RESET, FLR and PCI reset: registers too have their first values again.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        self.stop(&mut state);
        state.enabled = false;
        state.fatal = None;
        state.queues = Default::default();
    }

    /// Stops the device with a code, unless it was reset in the meantime.
    fn fail(&self, generation: u64, code: Status) {
        let mut state = self.state();
        if state.generation == generation {
            crate::log::note(&format!("FATAL {}", code.name()));
            self.stop(&mut state);
            state.fatal = Some(code);
        }
    }

    /// A client is there: the device is as after power-on.
    pub(crate) fn attach(&self, client: OwnedFd) {
        self.reset();
        self.state().gone = false;
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    /// The client is gone: nothing of it is kept.
    pub(crate) fn detach(&self) {
        self.reset();
        self.interrupts.disarm_all();
        self.memory.clear();
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Fault: cuts the connection.
    fn disconnect(&self) {
        if let Some(client) = &*self.client.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = rustix::net::shutdown(client, rustix::net::Shutdown::Both);
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state().gone
    }

    /// Wipes everything and lets the workers end.
    pub(crate) fn end(&self) {
        self.detach();
        self.state().ending = true;
        self.wake.notify_all();
    }

    /// Keys as the chip derives them, for tests that play its maker or a sealer.
    #[cfg(test)]
    pub(crate) fn keys_for_tests(&self) -> crate::identity::Keys {
        self.power.keys(&Faults::default()).unwrap()
    }

    /// The powered-up chip, for tests that move it into states that take too long to reach.
    #[cfg(test)]
    pub(crate) fn firmware_for_tests(&self) -> Arc<Firmware> {
        self.state().firmware.clone().unwrap()
    }
}

#[cfg(test)]
mod tests;
