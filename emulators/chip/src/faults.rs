//! The fault plan: how the chip misbehaves, at which event. Without a plan it never does.

use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use chip_client::abi::Opcode;

/// Largest plan that is read.
pub(crate) const MAX_PLAN_BYTES: u64 = 65_536;

/// What goes wrong. Names in the file are these in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    // At the fetch of a command.
    Stall,
    Reset,
    Gone,
    Disconnect,
    ForgedCompletion,
    LostCompletion,
    // At a completion.
    WrongLength,
    WrongStatus,
    WrongCid,
    WrongHead,
    BadTag,
    CorruptOutput,
    ReplayCompletion,
    DuplicateCompletion,
    RewriteAfterCompletion,
    // At the interrupt of a completion.
    MissingInterrupt,
    SpuriousInterrupt,
    InterruptStorm,
    // At the segments of UNSEAL.
    CorruptData,
    // At power-up.
    PufNoise,
    // At a DMA_UNMAP.
    HoldAfterUnmap,
    WriteAfterUnmap,
    // At OPEN and FINISH.
    WrongChain,
    WrongStaticKey,
    DowngradeSuite,
    LiePath,
    WrongSignature,
}

impl Kind {
    /// Whether the event belongs to a command, so that `command` can select it.
    fn takes_command(self) -> bool {
        !matches!(
            self,
            Self::PufNoise
                | Self::HoldAfterUnmap
                | Self::WriteAfterUnmap
                | Self::WrongChain
                | Self::WrongStaticKey
                | Self::DowngradeSuite
                | Self::LiePath
                | Self::WrongSignature
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
    command: Option<String>,
    #[serde(default = "one")]
    nth: u64,
    #[serde(default = "one")]
    times: u64,
    milliseconds: Option<u64>,
    value: Option<u64>,
}

fn one() -> u64 {
    1
}

/// The parameters of a fault that happens now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) milliseconds: Option<u64>,
    pub(crate) value: Option<u64>,
}

/// A plan that this program does not understand.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Not TOML of the known form.
    #[error("fault plan: {0}")]
    Form(#[from] Box<toml::de::Error>),
    /// A command that does not exist, or a fault that no command selects.
    #[error("fault plan: {kind}: command {command:?} selects nothing")]
    Command {
        /// The fault.
        kind: String,
        /// What the plan says.
        command: String,
    },
    /// Events are counted from 1.
    #[error("fault plan: {kind}: nth counts from 1")]
    Nth {
        /// The fault.
        kind: String,
    },
}

#[derive(Debug)]
struct Armed {
    kind: Kind,
    command: Option<Opcode>,
    nth: u64,
    times: u64,
    fault: Fault,
    seen: u64,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
}

impl Faults {
    /// Parses a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Plan = toml::from_str(text).map_err(Box::new)?;
        let armed = plan.fault.into_iter().map(Armed::new).collect::<Result<_, _>>()?;
        Ok(Self { armed: Mutex::new(armed) })
    }

    /// Counts one event of this kind and tells whether a fault happens at it.
    pub(crate) fn take(&self, kind: Kind, command: Option<Opcode>) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = None;
        for entry in armed.iter_mut().filter(|e| e.kind == kind) {
            if entry.command.is_some() && entry.command != command {
                continue;
            }
            entry.seen = entry.seen.saturating_add(1);
            let last = entry.nth.saturating_add(entry.times.wrapping_sub(1));
            if entry.seen >= entry.nth && (entry.times == 0 || entry.seen <= last) && result.is_none() {
                result = Some(entry.fault);
            }
        }
        if result.is_some() {
            crate::log::note(&format!("FAULT {kind:?} at {}", command.map_or("an event", Opcode::name)));
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

impl Armed {
    fn new(entry: Entry) -> Result<Self, PlanError> {
        let kind = format!("{:?}", entry.kind);
        if entry.nth == 0 {
            return Err(PlanError::Nth { kind });
        }
        let command = match entry.command {
            None => None,
            Some(name) => match Opcode::ALL.into_iter().find(|o| o.name() == name) {
                Some(opcode) if entry.kind.takes_command() => Some(opcode),
                _ => return Err(PlanError::Command { kind, command: name }),
            },
        };
        let fault = Fault { milliseconds: entry.milliseconds, value: entry.value };
        Ok(Self { kind: entry.kind, command, nth: entry.nth, times: entry.times, fault, seen: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_matching_event_is_hit() {
        let plan = "[[fault]]\nkind = \"bad-tag\"\ncommand = \"UNWRAP\"\nnth = 2\ntimes = 2\nvalue = 7\n";
        let faults = Faults::parse(plan).unwrap();
        let unwrap = Some(Opcode::Unwrap);
        assert_eq!(faults.take(Kind::BadTag, unwrap), None);
        assert_eq!(faults.take(Kind::BadTag, Some(Opcode::Present)), None);
        assert_eq!(faults.take(Kind::Stall, unwrap), None);
        assert_eq!(faults.take(Kind::BadTag, unwrap), Some(Fault { milliseconds: None, value: Some(7) }));
        assert!(faults.take(Kind::BadTag, unwrap).is_some());
        assert_eq!(faults.take(Kind::BadTag, unwrap), None);
    }

    #[test]
    fn zero_times_is_for_ever() {
        let faults = Faults::parse("[[fault]]\nkind = \"gone\"\ntimes = 0\n").unwrap();
        assert!((0..100).all(|_| faults.take(Kind::Gone, None).is_some()));
    }

    #[test]
    fn plans_that_select_nothing_are_refused() {
        for text in [
            "[[fault]]\nkind = \"no-such\"\n",
            "[[fault]]\nkind = \"stall\"\nnth = 0\n",
            "[[fault]]\nkind = \"stall\"\ncommand = \"unwrap\"\n",
            "[[fault]]\nkind = \"puf-noise\"\ncommand = \"OPEN\"\n",
            "[[fault]]\nkind = \"stall\"\nunknown = 1\n",
            "fault = 3\n",
        ] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
        assert!(Faults::parse("").unwrap().is_empty());
    }
}
