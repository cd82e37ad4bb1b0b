//! Registers of the SHA-256 bank.

use std::fmt;

use sha2::{Digest, Sha256};

use super::TpmError;
use super::wire::{ALG_SHA256, Reader, WireError, Writer};

/// Registers 0 to 23.
pub const PCR_COUNT: usize = 24;
/// The register that carries initdata.
pub const INITDATA_PCR: PcrIndex = PcrIndex(8);

/// A register, 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// `None`: there is no such register.
    pub fn new(index: u32) -> Option<Self> {
        u8::try_from(index).ok().filter(|index| usize::from(*index) < PCR_COUNT).map(Self)
    }

    /// 0 to 23.
    pub fn value(self) -> u8 {
        self.0
    }
}

/// A set of registers, not empty on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PcrSelection(u32);

impl PcrSelection {
    /// All 24.
    pub const ALL: Self = Self(0x00ff_ffff);

    /// The registers named.
    pub fn of(registers: impl IntoIterator<Item = PcrIndex>) -> Self {
        Self(registers.into_iter().fold(0, |bits, index| bits | 1 << index.0))
    }

    /// From bit i = register i; `None` if a bit above 23 is set.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & !Self::ALL.0 == 0).then_some(Self(bits))
    }

    /// Bit i = register i.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether it has the register.
    pub fn contains(self, index: PcrIndex) -> bool {
        self.0 & 1 << index.0 != 0
    }

    /// How many registers.
    pub fn count(self) -> usize {
        self.indices().count()
    }

    /// The registers, ascending.
    pub fn indices(self) -> impl Iterator<Item = PcrIndex> {
        (0..24).map(PcrIndex).filter(move |index| self.contains(*index))
    }

    /// Reads a TPML_PCR_SELECTION of one bank, SHA-256.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let banks = reader.count(16)?;
        if banks != 1 {
            return Err(WireError::unexpected("PCR banks", "one", banks as u64));
        }
        reader.expect_u16("PCR bank", "SHA-256", ALG_SHA256)?;
        let length = reader.u8()?;
        if length != 3 {
            return Err(WireError::unexpected("length of a PCR selection", "3", length));
        }
        let [low, middle, high] = reader.array()?;
        Ok(Self(u32::from_le_bytes([low, middle, high, 0])))
    }

    pub(super) fn marshal(self) -> Vec<u8> {
        let [low, middle, high, _] = self.0.to_le_bytes();
        Writer::new().u32(1).u16(ALG_SHA256).u8(3).raw(&[low, middle, high]).done().to_vec()
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.indices().map(|index| index.0.to_string()).collect();
        write!(f, "sha256:{}", names.join(","))
    }
}

impl fmt::Debug for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Values of all 24 registers.
#[derive(Clone, PartialEq, Eq)]
pub struct Pcrs([[u8; 32]; PCR_COUNT]);

impl Pcrs {
    /// From values in order.
    pub fn new(values: [[u8; 32]; PCR_COUNT]) -> Self {
        Self(values)
    }

    /// The value of one register.
    pub fn value(&self, index: PcrIndex) -> [u8; 32] {
        self.0.get(usize::from(index.0)).copied().unwrap_or_default()
    }

    /// The same with another value in one register: what a machine will have that is yet to be started.
    #[must_use]
    pub fn with(mut self, index: PcrIndex, value: [u8; 32]) -> Self {
        self.set(index, value);
        self
    }

    /// All, in order.
    pub fn values(&self) -> &[[u8; 32]; PCR_COUNT] {
        &self.0
    }

    /// SHA-256 over the selected registers, ascending (Part 1 §17.5): what a quote and PolicyPCR carry.
    pub fn digest(&self, selection: PcrSelection) -> [u8; 32] {
        let mut hash = Sha256::new();
        selection.indices().for_each(|index| hash.update(self.value(index)));
        hash.finalize().into()
    }

    pub(super) fn set(&mut self, index: PcrIndex, value: [u8; 32]) {
        if let Some(to) = self.0.get_mut(usize::from(index.0)) {
            *to = value;
        }
    }
}

impl fmt::Debug for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(hex::encode)).finish()
    }
}

/// What a register holds after `digest` was extended into `value`.
pub fn extended(value: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(value).chain_update(digest).finalize().into()
}

/// What PCR 8 has to hold: SHA-256(32 zeros ‖ initdata digest).
///
/// # Errors
///
/// A digest that is not exactly 32 bytes long: initdata for a TPM is digested by SHA-256, and nothing is cut.
pub fn initdata_pcr(digest: &[u8]) -> Result<[u8; 32], TpmError> {
    let digest = <&[u8; 32]>::try_from(digest)
        .map_err(|_| TpmError::InitdataLength { expected: 32, found: digest.len() })?;
    Ok(extended(&[0; 32], digest))
}
