//! What runs on the chip: one command in, one reply out. Rings, registers and interrupts are the controller's.

mod execute;
mod identify;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chip_client::abi::{Status, TdispState, WireError};
use zeroize::Zeroizing;

use crate::dma::{Bus, DmaError};
use crate::faults::Faults;
use crate::identity::{Keys, Nvm};
use crate::session::Sessions;

pub(crate) use execute::{Cancel, Context, Reply, Stopped};

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
    pub(crate) sessions: Sessions,
    pub(crate) faults: Arc<Faults>,
    nvm: Arc<Mutex<Nvm>>,
    /// Where the last UNSEAL wrote, for the fault that rewrites it.
    last_destination: Mutex<Option<chip_client::abi::Sgl>>,
}

impl Firmware {
    pub(crate) fn new(keys: Keys, nvm: Arc<Mutex<Nvm>>, modes: Modes, faults: Arc<Faults>) -> Self {
        Self { keys, modes, sessions: Sessions::default(), faults, nvm, last_destination: Mutex::new(None) }
    }

    pub(crate) fn nvm(&self) -> MutexGuard<'_, Nvm> {
        self.nvm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note_destination(&self, list: &chip_client::abi::Sgl) {
        if !self.faults.is_empty() {
            *self.last_destination.lock().unwrap_or_else(PoisonError::into_inner) = Some(list.clone());
        }
    }

    /// Fault: overwrites what the last UNSEAL wrote.
    pub(crate) fn scribble_on_destination(&self, bus: &Bus<'_>) {
        let list = self.last_destination.lock().unwrap_or_else(PoisonError::into_inner).take();
        for entry in list.unwrap_or_default().entries {
            let _ = bus.write(entry.iova, &vec![0xa5; usize::try_from(entry.length.min(1 << 20)).unwrap_or(0)]);
        }
    }

    /// The chip's own view of its interface. TDISP is not emulated: the interface is never locked.
    pub(crate) fn tdisp(&self) -> TdispState {
        TdispState::ConfigUnlocked
    }
}
