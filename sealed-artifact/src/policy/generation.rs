//! Generations of AMD processors, and where the components of a TCB version stand.

use std::fmt;

use super::choice::{Choice, ChoiceValue, Hex};
use crate::error::{ArtifactError, Found};
use crate::json::Value;

/// Generation of an AMD processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Generation {
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 7003.
    Milan,
    /// EPYC 9005.
    Turin,
}

impl Generation {
    /// Parses the name in policies.
    ///
    /// # Errors
    /// `MALFORMED`.
    pub fn parse(text: &str) -> Result<Self, ArtifactError> {
        match text {
            "genoa" => Ok(Self::Genoa),
            "milan" => Ok(Self::Milan),
            "turin" => Ok(Self::Turin),
            other => Err(ArtifactError::Malformed {
                what: "generation",
                expected: "genoa, milan or turin",
                found: Found::text(other),
            }),
        }
    }

    /// The name in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Genoa => "genoa",
            Self::Milan => "milan",
            Self::Turin => "turin",
        }
    }

    /// Where the components of its TCB versions stand.
    #[must_use]
    pub const fn tcb_layout(self) -> TcbLayout {
        match self {
            Self::Genoa | Self::Milan => TcbLayout::Milan,
            Self::Turin => TcbLayout::Turin,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ChoiceValue for Generation {
    fn from_value(what: &'static str, value: Value) -> Result<Self, ArtifactError> {
        Self::parse(&value.into_text(what)?)
    }

    fn to_value(&self) -> Value {
        Value::text(self.as_str())
    }
}

/// Which component each of the eight bytes of a TCB version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcbLayout {
    /// Milan, Genoa: bootloader, tee, four unused, snp, microcode.
    Milan,
    /// Turin: fmc, bootloader, tee, snp, three unused, microcode.
    Turin,
}

impl TcbLayout {
    /// The one layout of all generations of a choice; `None` for "any", and for generations of different layouts.
    #[must_use]
    pub fn of(generation: &Choice<Generation>) -> Option<Self> {
        match generation {
            Choice::Any => None,
            Choice::Exactly(only) => Some(only.tcb_layout()),
            Choice::OneOf(all) => {
                let first = all.first()?.tcb_layout();
                all.iter().all(|one| one.tcb_layout() == first).then_some(first)
            }
        }
    }

    /// Whether the bytes that this layout does not use are zero.
    #[must_use]
    pub fn fits(self, tcb: &Hex<8>) -> bool {
        let [_, _, b2, b3, b4, b5, b6, _] = tcb.0;
        match self {
            Self::Milan => [b2, b3, b4, b5] == [0; 4],
            Self::Turin => [b4, b5, b6] == [0; 3],
        }
    }
}
