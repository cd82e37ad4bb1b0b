//! What a platform does for the agent.

use std::fmt;

use evidence::Octets;

use crate::error::TeeError;
use crate::received::Evidence;
use crate::report_data::ReportData;
use crate::tee::Tee;

/// A platform that gives evidence. Blocking; the service calls it on threads of their own.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Which platform.
    fn tee(&self) -> Tee;

    /// Evidence about `report_data`: received, parsed and its report data compared. Event logs are added by
    /// [`Attester`](crate::Attester).
    ///
    /// # Errors
    /// See [`TeeError`].
    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError>;

    /// The register that initdata is bound to, from the firmware or the kernel, never from a quote.
    ///
    /// # Errors
    /// See [`TeeError`].
    fn initdata_register(&self) -> Result<Option<InitdataRegister>, TeeError>;

    /// The registers that this guest can extend, where it can.
    fn runtime_registers(&self) -> Option<&dyn RuntimeRegisters>;
}

/// The register that the digest of initdata was launched into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitdataRegister {
    /// `MRCONFIGID` or `HOST_DATA`.
    pub name: &'static str,
    /// Its value: 48 or 32 bytes.
    pub value: Vec<u8>,
}

impl InitdataRegister {
    /// Whether nothing was launched into it.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.value.iter().all(|byte| *byte == 0)
    }

    /// Whether it holds `digest`, cut or followed by zeros as registers take longer and shorter digests.
    #[must_use]
    pub fn holds(&self, digest: &[u8]) -> bool {
        let fitted = digest.iter().copied().chain(std::iter::repeat(0)).take(self.value.len());
        !digest.is_empty() && fitted.eq(self.value.iter().copied())
    }
}

/// Runtime measurement registers of a TDX guest, which hold SHA-384.
pub trait RuntimeRegisters: fmt::Debug + Send + Sync {
    /// What a register holds.
    ///
    /// # Errors
    /// See [`TeeError`].
    fn read(&self, register: LogIndex) -> Result<Octets<48>, TeeError>;

    /// Extends a register: the platform puts SHA-384(register ‖ digest) into it.
    ///
    /// # Errors
    /// See [`TeeError`].
    fn extend(&self, register: LogIndex, digest: &Octets<48>) -> Result<(), TeeError>;

    /// Whether this kernel can extend.
    fn can_extend(&self) -> bool;
}

/// A register as event logs number it: 1 to 4 for RTMR 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIndex(u32);

impl LogIndex {
    /// All of them.
    pub const ALL: [Self; 4] = [Self(1), Self(2), Self(3), Self(4)];

    /// The register that stands for a PCR.
    #[must_use]
    pub const fn of_pcr(pcr: u64) -> Self {
        Self(match pcr {
            1 | 7 => 1,
            2..=6 => 2,
            8..=15 => 3,
            _ => 4,
        })
    }

    /// The register with this number in a log.
    #[must_use]
    pub fn of_log(index: u32) -> Option<Self> {
        (1..=4).contains(&index).then_some(Self(index))
    }

    /// The number in a log.
    #[must_use]
    pub const fn log(self) -> u32 {
        self.0
    }

    /// The number of the RTMR.
    #[must_use]
    pub const fn rtmr(self) -> u32 {
        self.0 - 1
    }

    /// The name of the RTMR.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            1 => "RTMR0",
            2 => "RTMR1",
            3 => "RTMR2",
            _ => "RTMR3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcrs_map_to_registers_as_the_table_says() {
        let expected = [4, 1, 2, 2, 2, 2, 2, 1, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4];
        let found: Vec<u32> = (0..24).map(|pcr| LogIndex::of_pcr(pcr).log()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn registers_hold_fitted_digests() {
        let register = |value: &[u8]| InitdataRegister { name: "HOST_DATA", value: value.to_vec() };
        assert!(register(&[1, 2, 0, 0]).holds(&[1, 2]));
        assert!(register(&[1, 2]).holds(&[1, 2, 3]));
        assert!(!register(&[1, 2]).holds(&[1, 3]));
        assert!(!register(&[0, 0]).holds(&[]));
        assert!(register(&[0, 0]).is_zero());
    }
}
