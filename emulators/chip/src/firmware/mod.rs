//! What runs on the chip: one command in, one reply out. Rings, registers and interrupts are the controller's.

mod execute;
mod identify;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chip_client::abi::{Sgl, Status, TdispState, WireError};
use evidence::verify::roots::Roots;
use zeroize::Zeroizing;

use crate::dma::{Bus, DmaError};
use crate::faults::{Faults, Kind};
use crate::identity::{Keys, Nvm};
use crate::session::Sessions;

pub(crate) use execute::{Cancel, Context, Interrupted, Reply};

/// Insecure modes that this chip was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// The chip does not demand evidence by itself.
    pub no_evidence: bool,
    /// The chip believes that DMA reaches private memory without TDISP.
    pub emulated_dma: bool,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The completion says so.
    Status(Status, u32),
    /// The controller was reset: there is no completion.
    Stopped,
    /// A planned fault of the controller hits in the middle of the command: there is no completion.
    Planned(Kind),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status, 0)
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Length { .. } => Status::BadLength.into(),
            _ => Status::BadField.into(),
        }
    }
}

impl From<DmaError> for Failure {
    fn from(error: DmaError) -> Self {
        match error {
            DmaError::Fault => Status::DmaFault.into(),
            DmaError::Stopped => Self::Stopped,
        }
    }
}

/// Output of a command; may be key material.
pub(crate) type Output = Result<Zeroizing<Vec<u8>>, Failure>;

/// The powered-up chip: keys, sessions, memory. Dropped, wiped, when the controller is reset.
#[derive(Debug)]
pub(crate) struct Firmware {
    pub(crate) keys: Keys,
    pub(crate) modes: Modes,
    /// What evidence of guests has to lead to.
    pub(crate) roots: Arc<Roots>,
    pub(crate) sessions: Sessions,
    pub(crate) faults: Arc<Faults>,
    nvm: Arc<Mutex<Nvm>>,
    /// Where the last UNSEAL wrote, for faults that write there or beside it.
    last_destination: Mutex<Option<Sgl>>,
    #[cfg(test)]
    without_emulated_dma: std::sync::atomic::AtomicBool,
}

impl Firmware {
    pub(crate) fn new(
        keys: Keys,
        nvm: Arc<Mutex<Nvm>>,
        modes: Modes,
        roots: Arc<Roots>,
        faults: Arc<Faults>,
    ) -> Self {
        Self {
            keys,
            modes,
            roots,
            sessions: Sessions::default(),
            faults,
            nvm,
            last_destination: Mutex::new(None),
            #[cfg(test)]
            without_emulated_dma: std::sync::atomic::AtomicBool::new(false),
        }
    }

    pub(crate) fn nvm(&self) -> MutexGuard<'_, Nvm> {
        self.nvm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_destination(&self, list: &Sgl) {
        if !self.faults.is_empty() {
            *self.last_destination.lock().unwrap_or_else(PoisonError::into_inner) = Some(list.clone());
        }
    }

    /// Where the last UNSEAL wrote, told once.
    pub(crate) fn take_destination(&self) -> Sgl {
        self.last_destination.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Fault: overwrites what the last UNSEAL wrote.
    pub(crate) fn scribble_on_destination(&self, bus: &Bus<'_>) {
        for entry in self.take_destination().entries {
            let _ =
                bus.write(entry.iova, &vec![0xa5; usize::try_from(entry.length.min(1 << 20)).unwrap_or(0)]);
        }
    }

    /// Whether the chip was started to believe that DMA reaches private memory.
    pub(crate) fn emulated_dma(&self) -> bool {
        #[cfg(test)]
        if self.without_emulated_dma.load(std::sync::atomic::Ordering::Acquire) {
            return false;
        }
        self.modes.emulated_dma
    }

    /// A session that was opened while the mode was on, and the mode off.
    #[cfg(test)]
    pub(crate) fn forget_emulated_dma(&self) {
        self.without_emulated_dma.store(true, std::sync::atomic::Ordering::Release);
    }

    /// The chip's own view of its interface. TDISP is not emulated: the interface is never locked.
    pub(crate) fn tdisp(&self) -> TdispState {
        TdispState::ConfigUnlocked
    }
}
