//! The fault plan: how the broker misbehaves, at which request. Without a plan it never does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use crate::error::Variant;

/// Largest plan that is read.
pub(crate) const MAX_PLAN_BYTES: u64 = 65_536;

/// What goes wrong. Names in the file are these in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    // Any request, before it is looked at.
    Slow,
    Reset,
    Status,
    Error,
    Redirect,
    OversizedBody,
    EndlessBody,
    // Any request that was answered with 200.
    TruncatedBody,
    DripBody,
    NotJson,
    // At auth.
    WrongNonce,
    CookieOmitted,
    // At attest.
    ExpiredToken,
    // At a resource that is released.
    WrongCurveEpk,
    OffCurveEpk,
    BadTag,
    BadWrappedKey,
    ReorderedHeader,
    MalformedMember,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    Auth,
    Attest,
    Resource,
    Admin,
}

impl Kind {
    /// The one place where it can happen; nothing for all places.
    const fn only_at(self) -> Option<Place> {
        match self {
            Self::WrongNonce | Self::CookieOmitted => Some(Place::Auth),
            Self::ExpiredToken => Some(Place::Attest),
            Self::WrongCurveEpk
            | Self::OffCurveEpk
            | Self::BadTag
            | Self::BadWrappedKey
            | Self::ReorderedHeader
            | Self::MalformedMember => Some(Place::Resource),
            _ => None,
        }
    }

    const fn takes_milliseconds(self) -> bool {
        matches!(self, Self::Slow | Self::DripBody)
    }

    const fn takes_value(self) -> bool {
        matches!(self, Self::Status | Self::OversizedBody | Self::Redirect)
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
    at: Option<Place>,
    #[serde(default = "one")]
    nth: u64,
    #[serde(default = "one")]
    times: u64,
    milliseconds: Option<u64>,
    value: Option<u64>,
    error: Option<String>,
    member: Option<String>,
    location: Option<String>,
}

const fn one() -> u64 {
    1
}

/// The parameters of a fault that happens now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) delay: Option<Duration>,
    pub(crate) value: Option<u64>,
    pub(crate) error: Option<Variant>,
    pub(crate) member: Option<String>,
    pub(crate) location: Option<String>,
}

/// A plan that this program does not understand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// Not TOML of the known form.
    #[error("fault plan: {0}")]
    Form(#[from] Box<toml::de::Error>),
    /// A parameter that the fault does not take, lacks, or that has no such value.
    #[error("fault plan: {kind:?}: {what}")]
    Parameter {
        /// The fault.
        kind: Kind,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Debug)]
struct Armed {
    kind: Kind,
    at: Option<Place>,
    nth: u64,
    times: u64,
    fault: Fault,
    seen: u64,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: Mutex<Vec<Armed>>,
    length: usize,
}

impl Faults {
    /// Parses a plan.
    pub(crate) fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Plan = toml::from_str(text).map_err(Box::new)?;
        let armed: Vec<Armed> = plan.fault.into_iter().map(Armed::new).collect::<Result<_, _>>()?;
        Ok(Self { length: armed.len(), armed: Mutex::new(armed) })
    }

    /// Counts one event of this kind and tells whether a fault happens at it.
    pub(crate) fn take(&self, kind: Kind, place: Place) -> Option<Fault> {
        if self.length == 0 {
            return None;
        }
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = None;
        for entry in armed.iter_mut().filter(|entry| entry.kind == kind) {
            if entry.at.is_some_and(|at| at != place) {
                continue;
            }
            entry.seen = entry.seen.saturating_add(1);
            let last = entry.nth.saturating_add(entry.times.wrapping_sub(1));
            if entry.seen >= entry.nth && (entry.times == 0 || entry.seen <= last) && result.is_none() {
                result = Some(entry.fault.clone());
            }
        }
        if result.is_some() {
            crate::log::note(&format!("FAULT {kind:?} at {place:?}"));
        }
        result
    }

    /// How many faults the plan holds.
    pub(crate) const fn len(&self) -> usize {
        self.length
    }
}

impl Armed {
    fn new(entry: Entry) -> Result<Self, PlanError> {
        let kind = entry.kind;
        let refuse = |what| Err(PlanError::Parameter { kind, what });
        if entry.nth == 0 {
            return refuse("nth counts from 1");
        }
        if let (Some(at), Some(only)) = (entry.at, kind.only_at())
            && at != only
        {
            return refuse("it never happens there");
        }
        if entry.milliseconds.is_some() && !kind.takes_milliseconds() {
            return refuse("it takes no milliseconds");
        }
        if entry.value.is_some() && !kind.takes_value() {
            return refuse("it takes no value");
        }
        if entry.location.is_some() != (kind == Kind::Redirect) {
            return refuse("a redirect, and nothing else, needs a location");
        }
        if entry.member.is_some() && kind != Kind::MalformedMember {
            return refuse("it takes no member");
        }
        if entry.member.as_deref().is_some_and(|member| !crate::jwe::MEMBERS.contains(&member)) {
            return refuse("an answer has no such member");
        }
        if entry.error.is_some() != (kind == Kind::Error) {
            return refuse("an error, and nothing else, needs the name of an error type");
        }
        let error = entry.error.as_deref().and_then(Variant::of_name);
        if entry.error.is_some() && error.is_none() {
            return refuse("the protocol has no such error type");
        }
        let statuses = matches!(kind, Kind::Status | Kind::Redirect);
        if statuses && entry.value.is_some_and(|value| !(200..=599).contains(&value)) {
            return refuse("value is a status from 200 to 599");
        }
        let fault = Fault {
            delay: entry.milliseconds.map(Duration::from_millis),
            value: entry.value,
            error,
            member: entry.member,
            location: entry.location,
        };
        Ok(Self { kind, at: entry.at, nth: entry.nth, times: entry.times, fault, seen: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_matching_event_is_hit() {
        let plan =
            "[[fault]]\nkind = \"error\"\nerror = \"TokenNotFound\"\nat = \"resource\"\nnth = 2\ntimes = 2\n";
        let faults = Faults::parse(plan).unwrap();
        assert_eq!(faults.take(Kind::Error, Place::Resource), None);
        assert_eq!(faults.take(Kind::Error, Place::Auth), None);
        assert_eq!(faults.take(Kind::Slow, Place::Resource), None);
        let hit = Fault { error: Some(Variant::TokenNotFound), ..Fault::default() };
        assert_eq!(faults.take(Kind::Error, Place::Resource), Some(hit));
        assert!(faults.take(Kind::Error, Place::Resource).is_some());
        assert_eq!(faults.take(Kind::Error, Place::Resource), None);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn zero_times_is_for_ever() {
        let faults = Faults::parse("[[fault]]\nkind = \"reset\"\ntimes = 0\n").unwrap();
        assert!((0..100).all(|_| faults.take(Kind::Reset, Place::Admin).is_some()));
        assert_eq!(Faults::parse("").unwrap().take(Kind::Reset, Place::Auth), None);
    }

    #[test]
    fn plans_that_select_nothing_are_refused() {
        for text in [
            "kind = \"no-such\"",
            "kind = \"slow\"\nnth = 0",
            "kind = \"slow\"\nat = \"nowhere\"",
            "kind = \"slow\"\nvalue = 1",
            "kind = \"slow\"\nunknown = 1",
            "kind = \"reset\"\nmilliseconds = 1",
            "kind = \"bad-tag\"\nat = \"auth\"",
            "kind = \"error\"",
            "kind = \"error\"\nerror = \"NoSuchError\"",
            "kind = \"slow\"\nerror = \"PolicyDeny\"",
            "kind = \"redirect\"",
            "kind = \"status\"\nvalue = 99",
            "kind = \"status\"\nlocation = \"/\"",
            "kind = \"malformed-member\"\nmember = \"header\"",
            "kind = \"bad-tag\"\nmember = \"tag\"",
        ] {
            assert!(Faults::parse(&format!("[[fault]]\n{text}\n")).is_err(), "{text}");
        }
        assert!(Faults::parse("fault = 3\n").is_err());
    }
}
