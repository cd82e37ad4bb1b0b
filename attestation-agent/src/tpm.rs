//! TPM 2.0 in its own bytes: no library, no C.
//!
//! ```text
//!  Tpm ──▶ channel ──▶ device        one open device an operation; contexts flushed however it ends
//!           │  └─ wire               commands out, hostile responses in
//!           └─ session ─ kdf         secrets cross the bus encrypted and authenticated
//!  quote: evidence · verify: judging it · seal: a secret under registers
//! ```
//!
//! A TPM **never counts as a TEE**: it attests what was started, not that memory is kept from the host, and a TPM of
//! a virtual machine is a program of that host. Its evidence stands beside a TEE's, or alone in a mode that says
//! `insecure`.
//!
//! All calls block, an RSA key in slow hardware for seconds: use them where blocking is allowed.

mod channel;
mod commands;
mod device;
mod error;
mod kdf;
pub mod pcr;
pub mod quote;
pub mod seal;
mod session;
mod spki;
pub mod verify;
pub mod wire;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use protected_memory::secret::SecretKey;

pub use device::{DeviceError, TpmLocation};
pub use error::{QuoteError, SealError, TpmError};
pub use pcr::{PcrIndex, PcrSelection, Pcrs};
pub use quote::{AkAlgorithm, AttestationKey, TpmEvidence};
pub use seal::{Sealed, StorageKey};
pub use verify::{AkDigest, Expected, ExpectedInitdata, VerifiedQuote};

use channel::Channel;
use wire::Public;

/// How long one operation may take, waiting for others included.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A TPM. Nothing is open between two calls; calls from several threads wait for each other.
#[derive(Debug)]
pub struct Tpm {
    location: TpmLocation,
    attestation_key: AttestationKey,
    deadline: Duration,
    one_at_a_time: Mutex<()>,
}

/// What [`Tpm::bind_initdata`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// PCR 8 carried this initdata already, since an earlier start of this program.
    AlreadyBound,
    /// PCR 8 was zero and carries it now.
    Bound,
}

/// What a TPM says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmInfo {
    /// Specification, `2.0`.
    pub family: String,
    /// Revision of the specification times 100.
    pub revision: u32,
    /// Vendor, four characters.
    pub manufacturer: String,
    /// Firmware version, as the vendor counts.
    pub firmware_version: u64,
    /// Hash algorithms (TPM_ALG) of PCR banks.
    pub banks: Vec<u16>,
    /// Whether PCR 0 to 23 exist in the SHA-256 bank, without which nothing here works.
    pub sha256_bank: bool,
    /// Contexts that are loaded: keys, objects and sessions. Between operations there are none.
    pub contexts: Vec<u32>,
}

impl Tpm {
    /// A TPM at a place, with the default attestation key and deadline.
    pub fn new(location: TpmLocation) -> Self {
        let attestation_key = AttestationKey::default();
        Self { location, attestation_key, deadline: DEADLINE, one_at_a_time: Mutex::new(()) }
    }

    /// The same with another attestation key.
    #[must_use]
    pub fn with_attestation_key(self, attestation_key: AttestationKey) -> Self {
        Self { attestation_key, ..self }
    }

    /// The same with another deadline for each operation.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Where it is.
    pub fn location(&self) -> &TpmLocation {
        &self.location
    }

    /// What the TPM says about itself. Nothing of it is proven.
    ///
    /// # Errors
    ///
    /// The TPM cannot be reached or does not speak TPM 2.0.
    pub fn info(&self) -> Result<TpmInfo, TpmError> {
        self.with(|channel| {
            let properties = channel.properties()?;
            let value = |property| properties.value(property).unwrap_or(0);
            let banks = channel.banks()?;
            let mut contexts = channel.handles(0x8000_0000)?;
            contexts.extend(channel.handles(0x0200_0000)?);
            Ok(TpmInfo {
                family: printable(value(0x100)),
                revision: value(0x102),
                manufacturer: printable(value(0x105)),
                firmware_version: u64::from(value(0x10b)) << 32 | u64::from(value(0x10c)),
                sha256_bank: banks.sha256,
                banks: banks.algorithms,
                contexts,
            })
        })
    }

    /// All 24 registers of the SHA-256 bank.
    ///
    /// # Errors
    ///
    /// As [`Self::info`]; `TPM_NO_BANK`.
    pub fn read_pcrs(&self) -> Result<Pcrs, TpmError> {
        self.with(Channel::read_pcrs)
    }

    /// Extends a register of the SHA-256 bank.
    ///
    /// # Errors
    ///
    /// As [`Self::info`]; the TPM refuses registers that only other localities may extend.
    pub fn extend(&self, register: PcrIndex, digest: &[u8; 32]) -> Result<(), TpmError> {
        self.with(|channel| channel.extend(register, digest))
    }

    /// Extends PCR 8 by the digest of initdata, once since the machine was started: a second start of this program
    /// finds it done.
    ///
    /// # Errors
    ///
    /// `TPM_INITDATA_TAKEN`: the register has yet another value; it is left alone.
    pub fn bind_initdata(&self, digest: &[u8; 32]) -> Result<Binding, TpmError> {
        self.with(|channel| {
            let expected = pcr::initdata_pcr(digest)?;
            let taken = |found| TpmError::InitdataTaken {
                expected: hex::encode(expected),
                found: hex::encode(found),
            };
            let found = channel.read_pcrs()?.value(pcr::INITDATA_PCR);
            if found == expected {
                return Ok(Binding::AlreadyBound);
            }
            // GUARD: initdata-once -> evil_other_initdata_after_the_first
            if found != [0; 32] {
                return Err(taken(found));
            }
            channel.extend(pcr::INITDATA_PCR, digest)?;
            let found = channel.read_pcrs()?.value(pcr::INITDATA_PCR);
            // GUARD: initdata-bound -> evil_host_tpm_drops_the_extension
            if found != expected {
                return Err(taken(found));
            }
            Ok(Binding::Bound)
        })
    }

    /// A quote of all registers for report data (cut to 32 bytes, or followed by zeros), verified against the values
    /// that it comes with.
    ///
    /// # Errors
    ///
    /// As [`Self::info`]; [`QuoteError`] if quote, values and key do not belong together; `TPM_PCRS_CHANGING`.
    pub fn evidence(&self, report_data: &[u8]) -> Result<TpmEvidence, TpmError> {
        let nonce = verify::nonce(report_data);
        self.with(|channel| TpmEvidence::take(channel, self.attestation_key, &nonce))
    }

    /// The public area of the key that signs quotes, to pin it by [`AkDigest::of_public`]. Pin it only if the way to
    /// the TPM is trusted.
    ///
    /// # Errors
    ///
    /// As [`Self::info`].
    pub fn attestation_public(&self) -> Result<Public, TpmError> {
        self.with(|channel| Ok(quote::attestation_key(channel, self.attestation_key)?.public))
    }

    /// The public area of the storage key, to pin it by its [`Public::name`]. As with the attestation key.
    ///
    /// # Errors
    ///
    /// As [`Self::info`].
    pub fn storage_public(&self) -> Result<Public, TpmError> {
        self.with(|channel| Ok(seal::storage_key(channel)?.public))
    }

    /// Seals a secret: this TPM alone gives it back, and only while `selection` has the values in `pcrs`. They may be
    /// values of a later start ([`Pcrs::with`], [`pcr::initdata_pcr`]).
    ///
    /// # Errors
    ///
    /// `TPM_SELECTION` without PCR 8, `TPM_STORAGE_KEY_FOREIGN`, `TPM_SESSION_FORGED`, and as [`Self::info`].
    pub fn seal(
        &self,
        secret: &SecretKey<32>,
        selection: PcrSelection,
        pcrs: &Pcrs,
        storage_key: StorageKey,
    ) -> Result<Sealed, TpmError> {
        self.with(|channel| Sealed::seal(channel, secret, selection, pcrs, storage_key))
    }

    /// The secret of a sealed object.
    ///
    /// # Errors
    ///
    /// `TPM_SEALED_PCRS`, `TPM_STORAGE_KEY_FOREIGN`, `TPM_SESSION_FORGED`, and as [`Self::info`].
    pub fn unseal(&self, sealed: &Sealed) -> Result<SecretKey<32>, TpmError> {
        self.with(|channel| sealed.unseal(channel))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Channel) -> Result<T, TpmError>) -> Result<T, TpmError> {
        let deadline = Instant::now() + self.deadline;
        // The lock guards no data that a panic could have left half written.
        let _one = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        Channel::with(&self.location, deadline, work)
    }
}

/// A property of four characters.
fn printable(value: u32) -> String {
    let bytes = value.to_be_bytes().into_iter();
    bytes
        .filter(|byte| *byte != 0)
        .map(|byte| if byte.is_ascii_graphic() { char::from(byte) } else { '?' })
        .collect()
}
