//! The chip at the other end: brought up, identified, and a session with it in which this guest presented what it has.

use chip_client::abi::InsecureFlags;
use chip_client::chain::{ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, RingMemory};
use chip_client::error::{ChipError, SessionError};
use chip_client::session::{ExpectedChip, Presented, Requirement, Session, SuiteRequirement};
use sealed_artifact::grant::Grant;

use super::guest::Guest;
use super::source::Source;
use super::{Prepared, data_path};
use crate::args::{PathArg, UnsealArgs};
use crate::cmd::chip;
use crate::error::Failure;

/// A chip that is up, and who it is.
pub(super) struct Chip<'a> {
    driver: Driver,
    root: &'a TrustRoot,
    /// Its certified identity.
    pub(super) identity: ChipIdentity,
    guest: InsecureFlags,
}

impl<'a> Chip<'a> {
    /// Connects, and verifies who it is; `None` where the key comes from something else.
    pub(super) fn open(
        arguments: &UnsealArgs,
        prepared: &'a Prepared,
        guest: InsecureFlags,
    ) -> Result<Option<Self>, Failure> {
        let Source::Chip { address, root } = &prepared.source else { return Ok(None) };
        let rings =
            if arguments.path == PathArg::DmaDirect { RingMemory::Private } else { chip::SHARED_RINGS };
        let mut driver = chip::open(address, rings)?;
        let identity = ChipIdentity::verify(root, &driver.chain()?).map_err(ChipError::from)?;
        Ok(Some(Self { driver, root, identity, guest }))
    }

    /// How many of its interrupts came while something was waited for.
    pub(super) fn notifications(&self) -> u64 {
        self.driver.notifications()
    }

    /// A session in which the grant's policy, and evidence about this very session, were presented.
    pub(super) fn session(
        &mut self,
        arguments: &UnsealArgs,
        guest: &Guest,
        grant: &Grant,
    ) -> Result<Session<'_, Presented>, Failure> {
        let requirement = Requirement {
            root: self.root,
            chip: ExpectedChip::Exactly(self.identity.id()),
            path: data_path(arguments.path),
            suite: if arguments.allow_classical {
                SuiteRequirement::AtLeastClassical
            } else {
                SuiteRequirement::Hybrid
            },
            guest_insecure: self.guest,
            accepted_insecure: guest.accepted(arguments),
        };
        let session = Session::open(&mut self.driver, &requirement)?;
        session.present(grant.preimage(), |session| guest.evidence(session)).map_err(own_cause)
    }
}

/// Evidence that could not be made is a failure of the TEE, with its own code, not of the session.
fn own_cause(error: ChipError) -> Failure {
    let ChipError::Session(SessionError::EvidenceFailed { source }) = error else { return error.into() };
    match source.downcast() {
        Ok(cause) => Failure::Attestation(*cause),
        Err(source) => ChipError::Session(SessionError::EvidenceFailed { source }).into(),
    }
}
