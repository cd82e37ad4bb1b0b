//! Parameters of responses, one type a command.

use super::public::sized_public;
use super::{ALG_SHA256, HIERARCHY_ENDORSEMENT, Name, Public, Reader, WireError};
use crate::tpm::pcr::PcrSelection;

const PRIVATE_MAX_BYTES: usize = 1024;
const CREATION_MAX_BYTES: usize = 1024;
const DIGEST_MAX_BYTES: usize = 64;
/// Digests that one PCR_Read returns at most.
const DIGESTS_MAX: usize = 8;
const BANKS_MAX: usize = 16;
/// What one GetCapability returns at most in our questions.
const CAPABILITY_MAX: usize = 254;
const CAP_HANDLES: u32 = 1;
const CAP_PCRS: u32 = 5;
const CAP_TPM_PROPERTIES: u32 = 6;

/// CreatePrimary.
#[derive(Clone, Debug)]
pub struct CreatedPrimary {
    /// The key.
    pub public: Public,
}

impl CreatedPrimary {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form, or a name that is not that of the public area.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("CreatePrimary", bytes);
        let public = sized_public(&mut reader)?;
        creation(&mut reader)?;
        named(&mut reader, &public)?;
        reader.finish()?;
        Ok(Self { public })
    }
}

/// Create.
#[derive(Clone, Debug)]
pub struct Created {
    /// TPM2B_PRIVATE without its length: encrypted by the parent.
    pub private: Vec<u8>,
    /// The object.
    pub public: Public,
}

impl Created {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("Create", bytes);
        let private = reader.sized(PRIVATE_MAX_BYTES)?.to_vec();
        let public = sized_public(&mut reader)?;
        creation(&mut reader)?;
        reader.finish()?;
        Ok(Self { private, public })
    }
}

impl Public {
    /// Parses the parameters of ReadPublic.
    ///
    /// # Errors
    ///
    /// Not of their form, or a name that is not that of the public area.
    pub fn parse_read_public(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("ReadPublic", bytes);
        let public = sized_public(&mut reader)?;
        named(&mut reader, &public)?;
        Name::parse(reader.sized(DIGEST_MAX_BYTES)?)?;
        reader.finish()?;
        Ok(public)
    }
}

/// PCR_Read: some of the registers that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrRead {
    /// Which registers follow.
    pub selection: PcrSelection,
    /// Their values, in ascending order.
    pub digests: Vec<[u8; 32]>,
}

impl PcrRead {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form: as many digests of 32 bytes as registers, one at least.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new("PCR_Read", bytes);
        let _update_counter = reader.u32()?;
        let selection = PcrSelection::read(&mut reader)?;
        let count = reader.count(DIGESTS_MAX)?;
        // GUARD: pcr-read-count -> evil_pcr_read_with_other_counts
        if count == 0 || count != selection.count() {
            return Err(WireError::unexpected("values of PCR_Read", "one a register", count as u64));
        }
        let mut digests = Vec::with_capacity(count);
        for _ in 0..count {
            let mut digest = Reader::new("value of a PCR", reader.sized(DIGEST_MAX_BYTES)?);
            digests.push(digest.array()?);
            digest.finish()?;
        }
        reader.finish()?;
        Ok(Self { selection, digests })
    }
}

/// GetCapability of PCR banks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrBanks {
    /// Hash algorithms (TPM_ALG) with at least one register.
    pub algorithms: Vec<u16>,
    /// Whether the SHA-256 bank has PCR 0 to 23.
    pub sha256: bool,
}

impl PcrBanks {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = capability(bytes, CAP_PCRS)?;
        let mut banks = Self { algorithms: Vec::new(), sha256: false };
        for _ in 0..reader.count(BANKS_MAX)? {
            let algorithm = reader.u16()?;
            let length = usize::from(reader.u8()?);
            let bitmap = reader.take(length)?;
            if bitmap.iter().any(|byte| *byte != 0) {
                banks.algorithms.push(algorithm);
            }
            banks.sha256 |= algorithm == ALG_SHA256 && bitmap.starts_with(&[0xff; 3]);
        }
        reader.finish()?;
        Ok(banks)
    }
}

/// GetCapability of handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handles(pub Vec<u32>);

impl Handles {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = capability(bytes, CAP_HANDLES)?;
        let count = reader.count(CAPABILITY_MAX)?;
        let handles = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self(handles))
    }
}

/// GetCapability of TPM properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties(pub Vec<(u32, u32)>);

impl Properties {
    /// Parses the parameters.
    ///
    /// # Errors
    ///
    /// Not of their form.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = capability(bytes, CAP_TPM_PROPERTIES)?;
        let count = reader.count(CAPABILITY_MAX)?;
        let properties = (0..count).map(|_| Ok((reader.u32()?, reader.u32()?))).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self(properties))
    }

    /// The value of a property (TPM_PT).
    pub fn value(&self, property: u32) -> Option<u32> {
        self.0.iter().find(|(found, _)| *found == property).map(|(_, value)| *value)
    }
}

/// moreData and TPMS_CAPABILITY_DATA up to the list.
fn capability(bytes: &[u8], expected: u32) -> Result<Reader<'_>, WireError> {
    let mut reader = Reader::new("GetCapability", bytes);
    let more = reader.u8()?;
    if more > 1 {
        return Err(WireError::unexpected("moreData", "0 or 1", more));
    }
    let found = reader.u32()?;
    // GUARD: capability-kind -> evil_capability_of_another_kind
    if found != expected {
        return Err(WireError::unexpected("capability", "the one asked for", found));
    }
    Ok(reader)
}

/// Creation data, hash and ticket: nothing here uses them, and so nothing believes them.
fn creation(reader: &mut Reader<'_>) -> Result<(), WireError> {
    reader.sized(CREATION_MAX_BYTES)?;
    reader.sized(DIGEST_MAX_BYTES)?;
    reader.expect_u16("tag of a creation ticket", "TPM_ST_CREATION", 0x8021)?;
    let hierarchy = reader.u32()?;
    if !(0x4000_0001..=HIERARCHY_ENDORSEMENT + 1).contains(&hierarchy) {
        return Err(WireError::unexpected("hierarchy of a creation ticket", "a hierarchy", hierarchy));
    }
    reader.sized(DIGEST_MAX_BYTES)?;
    Ok(())
}

/// A name that has to be that of `public`.
fn named(reader: &mut Reader<'_>, public: &Public) -> Result<(), WireError> {
    let name = Name::parse(reader.sized(DIGEST_MAX_BYTES)?)?;
    // GUARD: object-name -> evil_tpm_public_area_under_another_name
    if name != public.name() {
        return Err(WireError::unexpected("name of an object", "the hash of its public area", 0_u8));
    }
    Ok(())
}
