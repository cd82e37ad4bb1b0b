//! Commands outside a session.

use super::{Driver, Finished, Lengths};
use crate::abi::{Abort, CertificateList, IdentityRecord, Opcode, Provision, QUEUE_CONTROL, Status};
use crate::error::{ChipError, DeviceError};

const IDENTITY_CAP: u32 = 4_096;
const CHAIN_CAP: u32 = 32_768;

impl Driver {
    /// Who the device says it is. Not authenticated.
    ///
    /// # Errors
    ///
    /// The device refuses, breaks the interface or is gone.
    pub fn identify(&mut self) -> Result<IdentityRecord, ChipError> {
        let finished = self.plain(Opcode::Identify, 0, &[], IDENTITY_CAP)?;
        let parsed = IdentityRecord::parse(&finished.output);
        parsed.map_err(ChipError::malformed(Opcode::Identify)).map_err(|e| self.fault(e))
    }

    /// The device's certificates. Nothing is verified here.
    ///
    /// # Errors
    ///
    /// As [`Self::identify`]; `NOT_PROVISIONED`.
    pub fn chain(&mut self) -> Result<CertificateList, ChipError> {
        let finished = self.plain(Opcode::Chain, 0, &[], CHAIN_CAP)?;
        let parsed = CertificateList::parse(&finished.output);
        parsed.map_err(ChipError::malformed(Opcode::Chain)).map_err(|e| self.fault(e))
    }

    /// Gives the chip its certificates, once, in a controlled place.
    ///
    /// # Errors
    ///
    /// As [`Self::identify`]; `ALREADY_PROVISIONED`; `BAD_FIELD` when the leaf is not the chip's own.
    pub fn provision(&mut self, body: &Provision) -> Result<(), ChipError> {
        self.plain(Opcode::Provision, 0, &body.encode(), 0).map(drop)
    }

    /// Drops every session, handle and key in the chip's volatile memory.
    ///
    /// # Errors
    ///
    /// As [`Self::identify`].
    pub fn zeroize(&mut self) -> Result<(), ChipError> {
        self.plain(Opcode::Zeroize, 0, &[], 0).map(drop)
    }

    /// Aborts a command by queue and id; the command itself completes with `ABORTED`.
    ///
    /// # Errors
    ///
    /// As [`Self::identify`].
    pub fn abort(&mut self, target: Abort) -> Result<(), ChipError> {
        self.plain(Opcode::Abort, 0, &target.encode(), 0).map(drop)
    }

    /// A command that no session protects.
    pub(crate) fn plain(
        &mut self,
        opcode: Opcode,
        session: u32,
        input: &[u8],
        out_cap: u32,
    ) -> Result<Finished, ChipError> {
        let lengths = Lengths { input: u32::try_from(input.len()).unwrap_or(u32::MAX), output: out_cap };
        let reserved = self.reserve(QUEUE_CONTROL, opcode, session, 0, lengths)?.ok_or(DeviceError::Down)?;
        self.launch(&reserved, input)?;
        let (_, finished) = self.wait(QUEUE_CONTROL, Some(reserved.ticket), opcode.name())?;
        match finished.status {
            Status::Ok => Ok(finished),
            status => Err(ChipError::Refused { command: opcode, status, detail: finished.completion.detail }),
        }
    }
}
