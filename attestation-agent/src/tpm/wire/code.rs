//! Response codes (Part 2 §6.6).

use std::fmt;

/// Why a TPM refused, as far as this crate tells reasons apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// AUTH_FAIL, BAD_AUTH: an authorisation that does not match.
    Auth,
    /// The command code is not implemented.
    CommandCode,
    /// FAILURE: the TPM is in failure mode.
    Failure,
    /// HANDLE: nothing has that handle.
    Handle,
    /// INITIALIZE: no TPM2_Startup yet.
    Initialize,
    /// INTEGRITY: a private part that this TPM did not make under this key.
    Integrity,
    /// LOCKOUT: too many wrong authorisations.
    Lockout,
    /// OBJECT_MEMORY, OBJECT_HANDLES, SESSION_MEMORY, SESSION_HANDLES, MEMORY: no slot is free.
    NoSlots,
    /// Anything else.
    Other,
    /// PCR_CHANGED: a register was extended after the policy looked at it.
    PcrChanged,
    /// POLICY_FAIL: the session does not satisfy the object's policy.
    PolicyFail,
    /// RETRY, YIELDED, TESTING, NV_RATE: the same command may be accepted later.
    Retry,
    /// VALUE: a parameter is out of range, or not what a policy demands.
    Value,
}

/// A response code other than success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResponseCode(u32);

impl ResponseCode {
    /// From the wire; `None` is TPM_RC_SUCCESS.
    pub fn new(value: u32) -> Option<Self> {
        (value != 0).then_some(Self(value))
    }

    /// The 32 bits.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The reason.
    pub fn refusal(self) -> Refusal {
        match self.base() {
            0x08e | 0x0a2 => Refusal::Auth,
            0x143 => Refusal::CommandCode,
            0x101 => Refusal::Failure,
            0x08b => Refusal::Handle,
            0x100 => Refusal::Initialize,
            0x09f => Refusal::Integrity,
            0x921 => Refusal::Lockout,
            0x902..=0x906 => Refusal::NoSlots,
            0x128 => Refusal::PcrChanged,
            0x09d => Refusal::PolicyFail,
            0x908 | 0x90a | 0x920 | 0x922 => Refusal::Retry,
            0x084 => Refusal::Value,
            _ => Refusal::Other,
        }
    }

    /// The code without the number of the handle, session or parameter that format 1 adds.
    fn base(self) -> u32 {
        if self.0 & 0xffff_f080 == 0x80 { self.0 & 0xbf } else { self.0 }
    }

    fn name(self) -> &'static str {
        match self.base() {
            0x081 => "ASYMMETRIC",
            0x082 => "ATTRIBUTES",
            0x083 => "HASH",
            0x084 => "VALUE",
            0x085 => "HIERARCHY",
            0x087 => "KEY_SIZE",
            0x08b => "HANDLE",
            0x08e => "AUTH_FAIL",
            0x092 => "SCHEME",
            0x095 => "SIZE",
            0x096 => "SYMMETRIC",
            0x09a => "INSUFFICIENT",
            0x09c => "KEY",
            0x09d => "POLICY_FAIL",
            0x09f => "INTEGRITY",
            0x0a2 => "BAD_AUTH",
            0x0a7 => "ECC_POINT",
            0x100 => "INITIALIZE",
            0x101 => "FAILURE",
            0x120 => "DISABLED",
            0x125 => "AUTH_MISSING",
            0x127 => "PCR",
            0x128 => "PCR_CHANGED",
            0x142 => "COMMAND_SIZE",
            0x143 => "COMMAND_CODE",
            0x902 => "OBJECT_MEMORY",
            0x903 => "SESSION_MEMORY",
            0x904 => "MEMORY",
            0x905 => "SESSION_HANDLES",
            0x906 => "OBJECT_HANDLES",
            0x907 => "LOCALITY",
            0x908 => "YIELDED",
            0x909 => "CANCELED",
            0x90a => "TESTING",
            0x920 => "NV_RATE",
            0x921 => "LOCKOUT",
            0x922 => "RETRY",
            0x923 => "NV_UNAVAILABLE",
            _ => "no name here",
        }
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#05x} ({})", self.0, self.name())
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
