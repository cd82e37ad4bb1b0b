//! Errors of the KBS client: which hop, which layer, who was at fault.

mod fault;

use std::error::Error;
use std::fmt;

pub use fault::{AnswerFault, Cause, ConfigFault, JweFault, LocalFault, TransportFault};

use super::refusal::Refusal;

/// Which step of the conversation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hop {
    /// `POST /kbs/v0/attest`, and the evidence for it.
    Attest,
    /// `POST /kbs/v0/auth`.
    Auth,
    /// `GET /kbs/v0/<plugin>/…`, and opening its answer.
    Resource,
    /// Before anything was sent.
    Setup,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attest => "attest",
            Self::Auth => "auth",
            Self::Resource => "resource",
            Self::Setup => "setup",
        })
    }
}

/// Who misbehaved. The class alone decides about another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The broker, or who stands in for it, broke the protocol. Final.
    BrokerFault,
    /// A mistake of this program. Final.
    Bug,
    /// Something that was configured or asked for cannot work. Final.
    Config,
    /// The broker decided against this guest. Final.
    Denied,
    /// This guest could not make evidence, memory or randomness. Final.
    HostFault,
    /// The session or token is not known any more: one new handshake.
    Reattest,
    /// May work when tried again.
    Transient,
}

/// An error of the KBS client. The codes are listed in [`crate::kbs`].
#[derive(Clone, Debug)]
pub struct KbsError {
    hop: Hop,
    fault: Fault,
}

/// What happened, by who misbehaved.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An answer that is not what the protocol says.
    #[error(transparent)]
    Answer(#[from] AnswerFault),
    /// A configuration that is refused.
    #[error(transparent)]
    Config(#[from] ConfigFault),
    /// An encrypted answer that is refused.
    #[error(transparent)]
    Jwe(#[from] JweFault),
    /// Something of this guest failed.
    #[error(transparent)]
    Local(#[from] LocalFault),
    /// The broker said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The way to the broker failed.
    #[error(transparent)]
    Transport(#[from] TransportFault),
}

impl Fault {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Answer(fault) => fault.code(),
            Self::Config(fault) => fault.code(),
            Self::Jwe(fault) => fault.code(),
            Self::Local(fault) => fault.code(),
            Self::Refused(refusal) => refusal.code(),
            Self::Transport(fault) => fault.code(),
        }
    }

    /// Which layer failed: `connect`, `tls`, `http`, `json`, `token`, `jwe`, `broker`, `guest` or `config`.
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Answer(fault) => fault.layer(),
            Self::Config(_) => "config",
            Self::Jwe(_) => "jwe",
            Self::Local(_) => "guest",
            Self::Refused(_) => "broker",
            Self::Transport(fault) => fault.layer(),
        }
    }
}

impl KbsError {
    /// An error of one hop.
    pub fn new(hop: Hop, fault: impl Into<Fault>) -> Self {
        Self { hop, fault: fault.into() }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// Which step failed.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// What happened.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Who misbehaved.
    pub fn class(&self) -> Class {
        match &self.fault {
            Fault::Answer(_) | Fault::Jwe(_) => Class::BrokerFault,
            Fault::Config(_) => Class::Config,
            Fault::Local(fault) => fault.class(),
            Fault::Refused(refusal) => refusal.class(self.hop),
            Fault::Transport(fault) => fault.class(),
        }
    }

    /// Puts faults of one hop into its error.
    pub(crate) fn at<F: Into<Fault>>(hop: Hop) -> impl FnOnce(F) -> Self {
        move |fault| Self::new(hop, fault)
    }
}

impl fmt::Display for KbsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key broker: {}: {}: {}", self.hop, self.fault.layer(), self.fault)
    }
}

impl Error for KbsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault.source()
    }
}

#[cfg(test)]
mod tests;
