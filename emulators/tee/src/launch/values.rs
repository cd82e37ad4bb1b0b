//! Values of the launch file that TOML has no type for.

use anyhow::bail;
use evidence::Octets;
use evidence::abi::snp::Generation;
use evidence::verify::snp::VekKind;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::value::{Datetime, Offset};

const STATUSES: [&str; 7] = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
];

/// Up to 64 bytes in hex.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match hex::decode(&text) {
        Ok(bytes) if bytes.len() <= 64 => Ok(bytes),
        _ => Err(D::Error::custom("expected hex of at most 64 bytes")),
    }
}

/// Exactly `N` bytes in hex.
pub(super) fn octets<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<Octets<N>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let decoded = hex::decode(&text).ok().and_then(|bytes| <[u8; N]>::try_from(bytes).ok());
    decoded.map(Octets).ok_or_else(|| D::Error::custom(format_args!("expected hex of {N} bytes")))
}

/// As [`octets`], for a member that may be absent.
pub(super) fn option_octets<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<Option<Octets<N>>, D::Error> {
    octets(deserializer).map(Some)
}

/// Status of a TCB level, one of Intel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbStatus(pub(crate) &'static str);

impl<'de> Deserialize<'de> for TcbStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let status = STATUSES.into_iter().find(|status| *status == text);
        let refused = || D::Error::custom(format_args!("expected one of {}", STATUSES.join(", ")));
        status.map(Self).ok_or_else(refused)
    }
}

pub(super) fn generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Generation, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "milan" => Ok(Generation::Milan),
        "genoa" => Ok(Generation::Genoa),
        "turin" => Ok(Generation::Turin),
        _ => Err(D::Error::custom("expected milan, genoa or turin")),
    }
}

pub(super) fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VekKind, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "vcek" => Ok(VekKind::Vcek),
        "vlek" => Ok(VekKind::Vlek),
        _ => Err(D::Error::custom("expected vcek or vlek")),
    }
}

/// Seconds since 1970 of a date-time in UTC, 1970 to 2049.
pub(super) fn seconds(datetime: &Datetime) -> anyhow::Result<u64> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(Offset::Z) } = datetime else {
        bail!("launch file: {datetime}: expected a date-time as 2026-01-02T03:04:05Z");
    };
    if !(1970..=2049).contains(&date.year) {
        bail!("launch file: {datetime}: expected a year from 1970 to 2049");
    }
    let year = u64::from(date.year);
    let leap = |year: u64| u64::from(year.is_multiple_of(4));
    let lengths = [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    // No year from 1970 to 2049 is one of a full century but 2000, which has its leap day.
    let years: u64 = (1970..year).map(|year| 365 + leap(year)).sum();
    let months: u64 = lengths.iter().take(usize::from(date.month.saturating_sub(1))).sum();
    let days = years + months + u64::from(date.day.saturating_sub(1));
    let minutes = (days * 24 + u64::from(time.hour)) * 60 + u64::from(time.minute);
    Ok(minutes * 60 + u64::from(time.second.unwrap_or(0)))
}
