//! Levels by the names that upstream's log and command line give them.

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The machine ends.
    Critical,
    /// Something failed.
    Error,
    /// Something is weaker than it could be.
    Warning,
    /// What happens.
    Info,
    /// In detail.
    Debug,
    /// In every detail.
    Trace,
}

impl Level {
    const ALL: [Self; 6] = [Self::Critical, Self::Error, Self::Warning, Self::Info, Self::Debug, Self::Trace];

    /// A word of the kernel command line.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "fatal" | "panic" | "critical" => Self::Critical,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    /// The name in a line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "CRIT",
            Self::Error => "ERRO",
            Self::Warning => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBG",
            Self::Trace => "TRCE",
        }
    }

    /// Graver levels have lower ranks.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Critical => 0,
            Self::Error => 1,
            Self::Warning => 2,
            Self::Info => 3,
            Self::Debug => 4,
            Self::Trace => 5,
        }
    }

    pub(crate) fn of_rank(rank: u8) -> Self {
        Self::ALL.into_iter().find(|level| level.rank() == rank).unwrap_or(Self::Trace)
    }
}
