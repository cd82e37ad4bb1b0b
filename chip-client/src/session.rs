//! The session with a chip: who it is, what both sides agreed on, and the protection of every command (spec §7).
//!
//! ```text
//!  Requirement ─▶ handshake ─▶ Session<Open> ── evidence over report_data, policy preimage ─▶ Session<Presented>
//!                  │ chain, static key, id, epoch,                                            │ release_key
//!                  │ suite, path, link state, insecure flags                                  │ unwrap, unseal
//!                  └ anything else than demanded: no message 3, controller reset              └ close
//! ```
//!
//! A session that is dropped without [`Session::close`], and every authentication failure, resets the controller.

mod commands;
mod handshake;
mod keys;
mod protect;
mod requirement;

use std::fmt;
use std::marker::PhantomData;

use crate::abi::{DataPath, InsecureFlags, SessionSuite, TdispState};
use crate::chain::ChipIdentity;
use crate::driver::{Driver, RingMemory};
use crate::error::{ChipError, SessionError};

pub use commands::{EvidenceFailure, SealerProof, UnwrapRequest};
pub use requirement::{ExpectedChip, Requirement, SuiteRequirement};

pub(crate) use protect::{Answer, Submitted, nonce};

use protect::Protection;

/// 64 bytes that evidence must carry to belong to one session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReportData {
    transcript: [u8; 64],
    bytes: [u8; 64],
}

impl ReportData {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.bytes
    }

    /// The transcript hash that the bytes are made of, for whoever makes this form itself: a requester of evidence
    /// names a form and its input, never 64 bytes.
    pub const fn transcript(&self) -> &[u8; 64] {
        &self.transcript
    }
}

impl fmt::Debug for ReportData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReportData({})", hex::encode(self.bytes))
    }
}

/// What both sides agreed on. All of it is in the transcript.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// The chip at the other end, verified.
    pub chip: ChipIdentity,
    /// The suite.
    pub suite: SessionSuite,
    /// The data path.
    pub path: DataPath,
    /// The chip's own link state.
    pub tdisp: TdispState,
    /// Insecure modes of the guest.
    pub guest_insecure: InsecureFlags,
    /// Insecure modes of the chip.
    pub chip_insecure: InsecureFlags,
}

/// State of a session in which nothing was presented yet.
#[derive(Debug)]
#[non_exhaustive]
pub enum Open {}

/// State of a session in which policy, and perhaps evidence, were presented.
#[derive(Debug)]
#[non_exhaustive]
pub enum Presented {}

/// A session with a chip.
pub struct Session<'d, S> {
    pub(crate) inner: Inner<'d>,
    state: PhantomData<fn() -> S>,
}

pub(crate) struct Inner<'d> {
    pub(crate) driver: &'d mut Driver,
    protection: Protection,
    id: u32,
    agreement: Agreement,
    report_data: ReportData,
    ended: bool,
}

impl<'d> Session<'d, Open> {
    /// Opens a session with the chip behind this driver.
    ///
    /// # Errors
    ///
    /// The chip refuses, is not who it should be, or agrees to less than was demanded. Nothing was presented then.
    pub fn open(driver: &'d mut Driver, requirement: &Requirement<'_>) -> Result<Self, ChipError> {
        requirement.validate()?;
        // GUARD: direct-private-rings -> dma_direct_needs_private_rings
        if requirement.path == DataPath::DmaDirect && driver.ring_memory() != RingMemory::Private {
            let what = "dma-direct needs rings and command buffers in private memory";
            return Err(SessionError::Requirement { what }.into());
        }
        if driver.is_down() {
            driver.recover()?;
        }
        match handshake::run(driver, requirement) {
            Ok(done) => {
                let inner = Inner {
                    driver,
                    protection: done.protection,
                    id: done.session,
                    agreement: done.agreement,
                    report_data: done.report_data,
                    ended: false,
                };
                Ok(Self { inner, state: PhantomData })
            }
            Err(e) => {
                // A half-open session does not stay in the chip.
                driver.stop();
                Err(e)
            }
        }
    }
}

impl<S> Session<'_, S> {
    /// What both sides agreed on.
    pub fn agreement(&self) -> &Agreement {
        &self.inner.agreement
    }

    /// What evidence for this session must carry.
    pub fn report_data(&self) -> ReportData {
        self.inner.report_data
    }
}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.driver.stop();
        }
    }
}

impl<S> fmt::Debug for Session<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("agreement", &self.inner.agreement).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
