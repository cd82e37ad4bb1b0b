//! Being asked for the device back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backing::Interrupt;
use crate::error::{ChipError, DeviceError};

/// Whether the kernel wants the device back: it is being unplugged, or its driver unbound. The kernel waits until the
/// last descriptor is closed; an answer of "no" is not possible.
#[derive(Debug)]
pub(super) struct Leave {
    request: Option<Interrupt>,
    asked: AtomicBool,
}

impl Leave {
    /// `request`: what the kernel signals, if it can.
    pub(super) fn new(request: Option<Interrupt>) -> Self {
        Self { request, asked: AtomicBool::new(false) }
    }

    /// Fails once the kernel has asked, for ever. `first` runs when it is noticed.
    pub(super) fn require_ours(&self, first: impl FnOnce()) -> Result<(), ChipError> {
        if !self.asked.load(Ordering::Relaxed) {
            let Some(request) = &self.request else { return Ok(()) };
            if request.wait(Duration::ZERO)? && !self.asked.swap(true, Ordering::Relaxed) {
                first();
            }
        }
        // GUARD: vfio-device-asked-back -> a_device_that_is_asked_back_is_gone
        if self.asked.load(Ordering::Relaxed) {
            return Err(DeviceError::Gone { what: "the kernel takes the device back" }.into());
        }
        Ok(())
    }
}
