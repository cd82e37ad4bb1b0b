//! Drivers of the guest: what `/dev/sev-guest` and `/dev/tdx_guest` answer, with the rules of the kernel's.

mod sev_guest;
mod tdx_guest;

pub(crate) use sev_guest::SevGuest;
pub(crate) use tdx_guest::TdxGuest;

use rustix::io::Errno;

use crate::cuse::Answer;
use crate::faults::{Faults, Kind};

/// Faults of the kernel's own, before the firmware is asked.
fn refusal(faults: &Faults) -> Option<Errno> {
    let fault = faults.take(Kind::DeviceError)?;
    let number = fault.value.and_then(|value| i32::try_from(value).ok());
    Some(number.filter(|number| *number > 0).map_or(Errno::IO, Errno::from_raw_os_error))
}

/// Faults of a finished answer.
fn delivered(faults: &Faults, result: i32, mut output: Vec<u8>) -> Answer {
    if let Some(fault) = faults.take(Kind::DeviceShortAnswer) {
        output.truncate(fault.length_or(output.len() / 2));
    }
    if faults.take(Kind::DeviceLongAnswer).is_some() {
        output.push(0xa5);
    }
    Answer::Done { result, output }
}
