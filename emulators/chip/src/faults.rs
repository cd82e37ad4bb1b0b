//! The fault plan: how the chip misbehaves, at which event. Without a plan it never does.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    Die,
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
    WriteOutsideMap,
    WriteBesideMap,
    // At the interrupt of a completion.
    MissingInterrupt,
    SpuriousInterrupt,
    InterruptStorm,
    // At the segments of UNSEAL.
    CorruptData,
    // Inside the output of UNSEAL.
    StallInTransfer,
    ResetInTransfer,
    DisconnectInTransfer,
    DieInTransfer,
    ShortTransfer,
    // At power-up.
    PufNoise,
    // At a DMA_UNMAP.
    HoldAfterUnmap,
    WriteAfterUnmap,
    StaleMap,
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
                | Self::StaleMap
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
    after: Option<String>,
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
    /// A fault that does not know where.
    #[error("fault plan: {kind}: value is needed")]
    Value {
        /// The fault.
        kind: String,
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
    /// Events do not count before a command of this name was executed.
    after: Option<Opcode>,
    nth: u64,
    times: u64,
    fault: Fault,
    seen: u64,
}

/// The faults that are still to come.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<Vec<Armed>>,
    death: fn() -> !,
}

impl Default for Faults {
    fn default() -> Self {
        Self { armed: Mutex::default(), death: || std::process::abort() }
    }
}

impl Faults {
    /// Parses a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let faults = Self::default();
        faults.replace(text)?;
        Ok(faults)
    }

    /// Takes another plan instead; one that is not understood changes nothing.
    pub fn replace(&self, text: &str) -> Result<(), PlanError> {
        let plan: Plan = toml::from_str(text).map_err(Box::new)?;
        let armed = plan.fault.into_iter().map(Armed::new).collect::<Result<_, _>>()?;
        *self.armed() = armed;
        Ok(())
    }

    fn armed(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process as a power cut would: nothing is cleaned up.
    pub(crate) fn die(&self) -> ! {
        (self.death)()
    }

    /// Dies in another way, for tests that want to live.
    #[cfg(test)]
    pub(crate) fn dying_by(self, death: fn() -> !) -> Self {
        Self { death, ..self }
    }

    /// A command was executed, and its completion is about to be seen.
    pub(crate) fn executed(&self, command: Option<Opcode>) {
        for entry in self.armed().iter_mut().filter(|entry| entry.after == command) {
            entry.after = None;
        }
    }

    /// Counts one event of this kind and tells whether a fault happens at it.
    pub(crate) fn take(&self, kind: Kind, command: Option<Opcode>) -> Option<Fault> {
        let mut armed = self.armed();
        let mut result = None;
        for entry in armed.iter_mut().filter(|e| e.kind == kind && e.after.is_none()) {
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
        self.armed().len()
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
        if entry.kind == Kind::WriteOutsideMap && entry.value.is_none() {
            return Err(PlanError::Value { kind });
        }
        let named = |name: Option<String>, may: bool| match name {
            None => Ok(None),
            Some(name) => match Opcode::ALL.into_iter().find(|o| o.name() == name) {
                Some(opcode) if may => Ok(Some(opcode)),
                _ => Err(PlanError::Command { kind: kind.clone(), command: name }),
            },
        };
        let command = named(entry.command, entry.kind.takes_command())?;
        let after = named(entry.after, true)?;
        let fault = Fault { milliseconds: entry.milliseconds, value: entry.value };
        Ok(Self { kind: entry.kind, command, after, nth: entry.nth, times: entry.times, fault, seen: 0 })
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
    fn events_before_the_named_command_do_not_count() {
        let faults = Faults::parse("[[fault]]\nkind = \"stale-map\"\nafter = \"UNSEAL\"\n").unwrap();
        assert!(faults.take(Kind::StaleMap, None).is_none());
        faults.executed(Some(Opcode::Unwrap));
        faults.executed(None);
        assert!(faults.take(Kind::StaleMap, None).is_none());
        faults.executed(Some(Opcode::Unseal));
        assert!(faults.take(Kind::StaleMap, None).is_some());
        assert!(faults.take(Kind::StaleMap, None).is_none(), "once");
    }

    #[test]
    fn a_plan_is_replaced_whole_or_not_at_all() {
        let faults = Faults::parse("[[fault]]\nkind = \"gone\"\ntimes = 0\n").unwrap();
        assert!(faults.replace("[[fault]]\nkind = \"no-such\"\n").is_err());
        assert!(faults.take(Kind::Gone, None).is_some(), "the old one holds");
        faults.replace("[[fault]]\nkind = \"stall\"\n").unwrap();
        assert!(faults.take(Kind::Gone, None).is_none());
        assert!(faults.take(Kind::Stall, None).is_some());
        faults.replace("").unwrap();
        assert!(faults.is_empty());
    }

    /// The table is where whoever writes a plan looks.
    #[test]
    fn the_readme_lists_every_fault() {
        let readme = include_str!("../README.md");
        let table = readme.split("| kind | event |").nth(1).unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let listed: std::collections::BTreeSet<_> = rows.collect();
        let error = Faults::parse("[[fault]]\nkind = \"no-such\"\n").unwrap_err().to_string();
        let known = error.split("expected one of").nth(1).unwrap();
        let known: std::collections::BTreeSet<_> = known.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, known);
        assert!(known.contains("write-outside-map") && known.len() > 30);
    }

    #[test]
    fn plans_that_select_nothing_are_refused() {
        for text in [
            "[[fault]]\nkind = \"no-such\"\n",
            "[[fault]]\nkind = \"stall\"\nnth = 0\n",
            "[[fault]]\nkind = \"stall\"\ncommand = \"unwrap\"\n",
            "[[fault]]\nkind = \"puf-noise\"\ncommand = \"OPEN\"\n",
            "[[fault]]\nkind = \"stale-map\"\ncommand = \"UNSEAL\"\n",
            "[[fault]]\nkind = \"stale-map\"\nafter = \"unseal\"\n",
            "[[fault]]\nkind = \"write-outside-map\"\n",
            "[[fault]]\nkind = \"stall\"\nunknown = 1\n",
            "fault = 3\n",
        ] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
        assert!(Faults::parse("").unwrap().is_empty());
    }
}
