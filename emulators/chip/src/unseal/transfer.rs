//! Planned faults in the middle of UNSEAL's output: at a position in bytes.

use std::time::{Duration, Instant};

use chip_client::abi::{Opcode, Status};

use super::job::Job;
use super::scatter::Cursor;
use crate::faults::{Fault, Faults, Kind};
use crate::firmware::{Context, Failure};

/// What may happen inside the output, in the order in which plans are asked.
const KINDS: [Kind; 5] = [
    Kind::StallInTransfer,
    Kind::ResetInTransfer,
    Kind::DisconnectInTransfer,
    Kind::DieInTransfer,
    Kind::ShortTransfer,
];

/// How the output of one job goes out.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    written: u64,
    planned: Option<(Kind, Fault, u64)>,
}

impl Transfer {
    /// The first fault of the plan for this job, at `value` bytes or in the middle.
    pub(super) fn planned(faults: &Faults, job: &Job<'_>) -> Self {
        let middle = job.body.destination.total().unwrap_or(0) / 2;
        let planned = KINDS.into_iter().find_map(|kind| {
            let fault = faults.take(kind, Some(Opcode::Unseal))?;
            Some((kind, fault, fault.value.unwrap_or(middle)))
        });
        Self { written: 0, planned }
    }

    /// Writes the next bytes of the output, or lets happen what is planned at one of them.
    pub(super) fn write(
        &mut self,
        faults: &Faults,
        context: &Context<'_>,
        destination: &mut Cursor<'_>,
        data: &[u8],
    ) -> Result<(), Failure> {
        let Some((kind, fault, at)) = self.planned else {
            return Ok(destination.write(&context.bus, data)?);
        };
        let left = usize::try_from(at.saturating_sub(self.written)).unwrap_or(usize::MAX);
        let (before, rest) = data.split_at_checked(left).unwrap_or((data, &[]));
        destination.write(&context.bus, before)?;
        self.written = self.written.saturating_add(before.len() as u64);
        if rest.is_empty() {
            return Ok(());
        }
        match kind {
            Kind::DieInTransfer => faults.die(),
            Kind::ShortTransfer => {
                destination.skip(rest.len() as u64);
                Ok(())
            }
            Kind::StallInTransfer => {
                self.planned = None;
                stall(context, fault)?;
                Ok(destination.write(&context.bus, rest)?)
            }
            _ => Err(Failure::Planned(kind)),
        }
    }
}

/// Waits for the stated time, or, without one, until the job is aborted or the controller reset.
fn stall(context: &Context<'_>, fault: Fault) -> Result<(), Failure> {
    let until = fault.milliseconds.map(|ms| Instant::now() + Duration::from_millis(ms));
    while !context.cancel.is_cancelled() {
        if until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Status::Aborted.into())
}
