//! The fault plan: how the emulated TEE misbehaves, at which event. Without a plan it never does.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::state::read_limited;

/// Largest plan that is read.
pub const MAXIMUM_PLAN_BYTES: u64 = 65_536;

/// What goes wrong. Names in the file are these in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    // At the making of an entry.
    /// ENXIO, as without a provider.
    NoProvider,
    // At the making of a report, in this order.
    /// It takes `milliseconds`.
    Slow,
    /// An error number instead of a report.
    IoError,
    /// A signed report over other report data.
    OtherReportData,
    /// The report that was made before this one.
    ReplayedQuote,
    /// A byte is changed.
    FlippedByte,
    /// All bytes are zero.
    ZeroQuote,
    /// The end is missing.
    ShortQuote,
    /// Nothing.
    EmptyQuote,
    /// Zero bytes behind.
    PaddedQuote,
    /// Far more bytes than a report has.
    OversizeQuote,
    /// The generation counts one write more than there was.
    GenerationRace,
    // At the making of an SNP report's certificate table.
    /// The first entry is longer than the table.
    CertificateLength,
    /// The first entry begins behind the end.
    CertificateOffset,
    /// The second entry begins inside the first.
    CertificateOverlap,
    /// No VCEK or VLEK.
    CertificateMissing,
    /// No end of the entries.
    CertificateUnterminated,
    /// No table.
    CertificatesAbsent,
    // Elsewhere.
    /// A byte of the log is changed for whoever opens it.
    CcelTampered,
    /// EIO at the extension of a register, which keeps its value.
    RegisterIoError,
    /// A derived key is refused.
    DerivedKeyRefused,
    // At an ioctl of a driver's node, in this order.
    /// The driver fails with an error number, before the firmware is asked.
    DeviceError,
    /// The firmware refuses the request as a whole: EIO, and a status in the exit information.
    FirmwareError,
    /// The firmware's answer to the request for a report is a status.
    ReportStatus,
    /// The hypervisor wants room for so many pages of certificates, however much there is.
    CertificateRoom,
    /// Only the first bytes of the answer arrive.
    DeviceShortAnswer,
    /// The answer is a byte longer than there is room for.
    DeviceLongAnswer,
    /// A TDREPORT about other report data.
    TdReportOtherData,
}

impl Kind {
    fn takes_milliseconds(self) -> bool {
        self == Self::Slow
    }

    fn takes_value(self) -> bool {
        matches!(
            self,
            Self::IoError
                | Self::FlippedByte
                | Self::ShortQuote
                | Self::PaddedQuote
                | Self::OversizeQuote
                | Self::CertificateLength
                | Self::CertificateOffset
                | Self::CcelTampered
                | Self::DerivedKeyRefused
                | Self::DeviceError
                | Self::FirmwareError
                | Self::ReportStatus
                | Self::CertificateRoom
                | Self::DeviceShortAnswer
        )
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    #[serde(default)]
    fault: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    #[serde(default = "one")]
    nth: u64,
    #[serde(default = "one")]
    times: u64,
    milliseconds: Option<u64>,
    value: Option<u32>,
}

fn one() -> u64 {
    1
}

/// The parameters of a fault that happens now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long.
    pub milliseconds: Option<u64>,
    /// What the kind takes.
    pub value: Option<u32>,
}

impl Fault {
    /// The value as a length or an offset.
    pub(crate) fn length_or(self, default: usize) -> usize {
        self.value.map_or(default, |value| usize::try_from(value).unwrap_or(usize::MAX))
    }
}

#[derive(Debug)]
struct Armed {
    entry: Entry,
    seen: u64,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
}

impl Faults {
    /// Parses a plan.
    ///
    /// # Errors
    /// For text of another form, and for members that mean nothing to their kind.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let plan: Plan = toml::from_str(text).context("fault plan")?;
        for entry in &plan.fault {
            let kind = entry.kind;
            if entry.nth == 0 {
                bail!("fault plan: {kind:?}: nth counts from 1");
            }
            if entry.milliseconds.is_some() != kind.takes_milliseconds() {
                bail!("fault plan: {kind:?}: milliseconds belong to slow, which needs them");
            }
            if entry.value.is_some() && !kind.takes_value() {
                bail!("fault plan: {kind:?}: takes no value");
            }
        }
        let armed = plan.fault.into_iter().map(|entry| Armed { entry, seen: 0 }).collect();
        Ok(Self { armed: Mutex::new(armed) })
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// As [`Self::parse`], and for what the file system says.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let text = String::from_utf8(read_limited(path, MAXIMUM_PLAN_BYTES)?).with_context(name)?;
        Self::parse(&text).with_context(name)
    }

    /// From now on these are the faults that are still to come.
    pub(crate) fn replace(&self, plan: Self) {
        let plan = plan.armed.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Counts one event of this kind and tells whether a fault happens at it.
    pub(crate) fn take(&self, kind: Kind) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = None;
        for Armed { entry, seen } in armed.iter_mut().filter(|armed| armed.entry.kind == kind) {
            *seen = seen.saturating_add(1);
            let last = entry.nth.saturating_add(entry.times.wrapping_sub(1));
            let now = *seen >= entry.nth && (entry.times == 0 || *seen <= last);
            if now && result.is_none() {
                result = Some(Fault { milliseconds: entry.milliseconds, value: entry.value });
            }
        }
        if result.is_some() {
            crate::log::note(&format!("FAULT {kind:?}"));
        }
        result
    }

    /// How many faults the plan holds.
    pub fn len(&self) -> usize {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether the plan is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_event_is_hit() {
        let plan = "[[fault]]\nkind = \"short-quote\"\nnth = 2\ntimes = 2\nvalue = 7\n";
        let faults = Faults::parse(plan).unwrap();
        assert_eq!(faults.take(Kind::ShortQuote), None);
        assert_eq!(faults.take(Kind::EmptyQuote), None);
        assert_eq!(faults.take(Kind::ShortQuote), Some(Fault { milliseconds: None, value: Some(7) }));
        assert!(faults.take(Kind::ShortQuote).is_some());
        assert_eq!(faults.take(Kind::ShortQuote), None);
    }

    #[test]
    fn a_new_plan_counts_from_one() {
        let faults = Faults::parse("[[fault]]\nkind = \"no-provider\"\ntimes = 0\n").unwrap();
        assert!(faults.take(Kind::NoProvider).is_some());
        faults.replace(Faults::parse("[[fault]]\nkind = \"empty-quote\"\nnth = 2\n").unwrap());
        let found =
            [Kind::NoProvider, Kind::EmptyQuote, Kind::EmptyQuote].map(|kind| faults.take(kind).is_some());
        assert_eq!(found, [false, false, true]);
    }

    #[test]
    fn zero_times_is_for_ever() {
        let faults = Faults::parse("[[fault]]\nkind = \"no-provider\"\ntimes = 0\n").unwrap();
        assert!((0..100).all(|_| faults.take(Kind::NoProvider).is_some()));
    }

    #[test]
    fn plans_that_mean_nothing_are_refused() {
        for text in [
            "[[fault]]\nkind = \"no-such\"\n",
            "[[fault]]\nkind = \"empty-quote\"\nnth = 0\n",
            "[[fault]]\nkind = \"empty-quote\"\nvalue = 1\n",
            "[[fault]]\nkind = \"empty-quote\"\nmilliseconds = 1\n",
            "[[fault]]\nkind = \"slow\"\n",
            "[[fault]]\nkind = \"slow\"\nunknown = 1\n",
            "fault = 3\n",
        ] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
        assert!(Faults::parse("").unwrap().is_empty());
    }
}
