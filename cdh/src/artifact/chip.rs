//! The chip at the other end: brought up, identified, and a session with it in which this guest presented what it has.

use std::fmt;

use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::address::DeviceAddress;
use chip_client::chain::{ChipIdentity, TrustRoot};
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use chip_client::error::{ChipError, SessionError};
use chip_client::session::{ExpectedChip, Presented, Requirement, Session};
use protected_memory::dma::SharedMemoryProvider;
use sealed_artifact::grant::Grant;

use super::guest::{Choices, Guest};
use crate::Error;

/// A chip that is up, and who it is.
pub struct Chip<'a> {
    driver: Driver,
    root: &'a TrustRoot,
    identity: ChipIdentity,
    guest: InsecureFlags,
}

impl fmt::Debug for Chip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chip").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl<'a> Chip<'a> {
    /// Connects, and verifies who it is. `guest` are the insecure modes of this guest.
    ///
    /// # Errors
    ///
    /// The device, or a chain that does not end at the root.
    pub fn open(
        address: &DeviceAddress,
        root: &'a TrustRoot,
        path: DataPath,
        guest: InsecureFlags,
    ) -> Result<Self, Error> {
        let rings = if path == DataPath::DmaDirect {
            RingMemory::Private
        } else {
            RingMemory::Shared(SharedMemoryProvider::Emulated)
        };
        let mut driver = Driver::open(address.open()?, DriverOptions::new(rings))?;
        let identity = ChipIdentity::verify(root, &driver.chain()?).map_err(ChipError::from)?;
        Ok(Self { driver, root, identity, guest })
    }

    /// Its certified identity.
    #[must_use]
    pub const fn identity(&self) -> &ChipIdentity {
        &self.identity
    }

    /// How many of its interrupts came while something was waited for.
    #[must_use]
    pub fn notifications(&self) -> u64 {
        self.driver.notifications()
    }

    /// A session in which the grant's policy, and evidence about this very session, were presented.
    ///
    /// # Errors
    ///
    /// The chip is another one or refuses; evidence that could not be made fails with the code of its cause.
    pub fn session(
        &mut self,
        choices: &Choices,
        guest: &Guest,
        grant: &Grant,
    ) -> Result<Session<'_, Presented>, Error> {
        let requirement = Requirement {
            root: self.root,
            chip: ExpectedChip::Exactly(self.identity.id()),
            path: choices.path,
            suite: choices.suite,
            guest_insecure: self.guest,
            accepted_insecure: guest.accepted(choices),
        };
        let session = Session::open(&mut self.driver, &requirement)?;
        session.present(grant.preimage(), |session| guest.evidence(session)).map_err(own_cause)
    }
}

/// Evidence that could not be made is a failure of the TEE, with its own code, not of the session.
fn own_cause(error: ChipError) -> Error {
    let ChipError::Session(SessionError::EvidenceFailed { source }) = error else { return error.into() };
    match source.downcast() {
        Ok(cause) => Error::Attestation(*cause),
        Err(source) => ChipError::Session(SessionError::EvidenceFailed { source }).into(),
    }
}
