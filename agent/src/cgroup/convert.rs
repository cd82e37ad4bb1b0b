//! Amounts of version 1, which the wire speaks, as amounts of version 2: as runc converts them, and the engine at creation.

use crate::cgroup::CgroupError;

/// The period of the processor's quota where none is given, in µs: the kernel's own.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// CPU shares (2 to 262144, 1024 by default) as a weight (1 to 10000, 100 by default); the fit goes through all three. 0 is none.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            rounded_up(10_f64.powf(exponent))
        }
    }
}

/// Of a small positive number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there is no other conversion, and the number is cut to what fits"
)]
fn rounded_up(number: f64) -> u64 {
    number.ceil().clamp(1.0, 10_000.0) as u64
}

/// A weight of version 1 for block devices (10 to 1000) as `io.weight` (1 to 10000).
pub(super) const fn io_weight(weight: u32) -> u32 {
    1 + weight.saturating_sub(10).saturating_mul(9999) / 990
}

/// A limit of memory and swap together as a limit of swap alone: `None` is none. `memory` is the limit of memory alone.
pub(super) fn swap_of_both(both: i64, memory: Option<u64>) -> Result<Option<u64>, CgroupError> {
    const FIELD: &str = "Memory.Swap";
    if both == -1 {
        return Ok(None);
    }
    let both = u64::try_from(both)
        .map_err(|_| CgroupError::Value { field: FIELD, reason: "expected -1 or a number of bytes" })?;
    let memory = memory.ok_or(CgroupError::Value {
        field: FIELD,
        reason: "expected a limit of memory beside it, found none",
    })?;
    both.checked_sub(memory).map(Some).ok_or(CgroupError::Value {
        field: FIELD,
        reason: "expected memory and swap together, found less than memory alone",
    })
}

/// A limit of the wire: 0 is absent, -1 no limit.
pub(super) fn limit(field: &'static str, value: i64) -> Result<Option<Option<u64>>, CgroupError> {
    match value {
        0 => Ok(None),
        -1 => Ok(Some(None)),
        value => u64::try_from(value)
            .map(|value| Some(Some(value)))
            .map_err(|_| CgroupError::Value { field, reason: "expected -1 or a positive number" }),
    }
}

/// A limit as the kernel's files have it.
pub(super) fn written(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}
