//! Power-up: silicon → root → keys → firmware.

use std::sync::{Arc, Mutex, PoisonError};

use chip_client::abi::Status;
use evidence::verify::roots::Roots;

use crate::faults::{Faults, Kind};
use crate::firmware::{Firmware, Modes};
use crate::identity::{Keys, Nvm};
use crate::puf::{Extractor, HelperData, Silicon};

/// What survives a reset: silicon, helper data, memory, and how the chip was started.
#[derive(Debug)]
pub(crate) struct Power {
    silicon: Mutex<Silicon>,
    helper: HelperData,
    extractor: Extractor,
    nvm: Arc<Mutex<Nvm>>,
    modes: Modes,
    roots: Arc<Roots>,
}

impl Power {
    pub(crate) fn new(
        silicon: Silicon,
        helper: HelperData,
        nvm: Nvm,
        modes: Modes,
        roots: Arc<Roots>,
    ) -> Self {
        let nvm = Arc::new(Mutex::new(nvm));
        Self { silicon: Mutex::new(silicon), helper, extractor: Extractor::new(), nvm, modes, roots }
    }

    pub(super) fn is_provisioned(&self) -> bool {
        self.nvm.lock().unwrap_or_else(PoisonError::into_inner).provisioned().is_some()
    }

    /// Reads the silicon and derives everything from it.
    pub(super) fn up(&self, faults: &Arc<Faults>) -> Result<Arc<Firmware>, Status> {
        let keys = self.keys(faults)?;
        let (nvm, roots) = (Arc::clone(&self.nvm), Arc::clone(&self.roots));
        Ok(Arc::new(Firmware::new(keys, nvm, self.modes, roots, Arc::clone(faults))))
    }

    pub(super) fn keys(&self, faults: &Faults) -> Result<Keys, Status> {
        let mut silicon = self.silicon.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = match faults.take(Kind::PufNoise, None) {
            None => silicon.read(),
            Some(_) => silicon.read_beyond_correction(),
        };
        drop(silicon);
        let root = self.extractor.reconstruct(&reading, &self.helper).map_err(|_puf| Status::PufFailed)?;
        let epoch = self.nvm.lock().unwrap_or_else(PoisonError::into_inner).key_epoch();
        Keys::derive(&root, epoch).map_err(|_derivation| Status::Internal)
    }
}
