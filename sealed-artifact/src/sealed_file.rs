//! The single file `.sealed` as data: two slots, a directory, regions. Reading and writing the file is the caller's.
//!
//! A writer appends what is new and a new directory, syncs, then writes the *other* slot with the next sequence number
//! and syncs: at every moment one slot is whole.

use sha2::{Digest as _, Sha256};

use crate::core::{Core, MAXIMUM_CORE};
use crate::error::{ArtifactError, Found, length, limit};
use crate::grant::{MAXIMUM_GRANT, MAXIMUM_GRANTS};
use crate::json::Value;
use crate::layout::{MAXIMUM_PAYLOAD_SIZE, MAXIMUM_SEGMENTS};
use crate::parameters::{MAXIMUM_PAYLOADS, count};
use crate::signature::MAXIMUM_SIGNATURE;

#[cfg(test)]
mod tests;

const TYPE: &str = "innerkeep file v1";
const MAGIC: &[u8; 8] = b"IKSEALED";
const VERSION: u32 = 1;
/// Size of a slot, and alignment of payload regions.
pub const BLOCK: u64 = 4_096;
/// Size of both slots.
pub const HEADER: u64 = 2 * BLOCK;
/// Largest directory in bytes.
pub const MAXIMUM_DIRECTORY: u64 = 1_048_576;

/// A run of bytes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Number of bytes.
    pub length: u64,
    /// First byte.
    pub offset: u64,
}

impl Region {
    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }

    fn from_value(value: Value, what: &'static str, maximum: u64) -> Result<Self, ArtifactError> {
        let mut members = value.into_members(what)?;
        let region = Self {
            length: members.take("length")?.into_integer(what)?,
            offset: members.take("offset")?.into_integer(what)?,
        };
        members.finish()?;
        limit(what, 0, maximum, region.length)?;
        Ok(region)
    }

    fn to_value(self) -> Value {
        Value::object([("length", Value::integer(self.length)), ("offset", Value::integer(self.offset))])
    }
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The core.
    pub core: Region,
    /// Grants.
    pub grants: Vec<Region>,
    /// Ciphertext blobs in order.
    pub payloads: Vec<Region>,
    /// Signature object.
    pub signature: Option<Region>,
    /// Tag tables in order.
    pub tags: Vec<Region>,
}

impl Directory {
    /// Parses untrusted bytes. Whether the regions fit the file is [`Directory::require_inside`]'s question.
    ///
    /// # Errors
    /// `LIMIT_EXCEEDED`, `MALFORMED`, `NOT_CANONICAL`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut members = Value::parse("directory", bytes, MAXIMUM_DIRECTORY)?.into_members("directory")?;
        members.take_type(TYPE)?;
        let core = Region::from_value(members.take("core")?, "core", MAXIMUM_CORE)?;
        let grants = members.take("grants")?.into_array("directory.grants")?;
        let payloads = members.take("payloads")?.into_array("directory.payloads")?;
        let signature = members.take_optional("signature");
        let tags = members.take("tags")?.into_array("directory.tags")?;
        members.finish()?;
        limit("grants in the directory", 0, count(&[(); MAXIMUM_GRANTS]), count(&grants))?;
        limit("payloads in the directory", 1, MAXIMUM_PAYLOADS, count(&payloads))?;
        limit("tag tables in the directory", count(&payloads), count(&payloads), count(&tags))?;
        let regions = |values: Vec<Value>, what, maximum| -> Result<Vec<Region>, ArtifactError> {
            values.into_iter().map(|value| Region::from_value(value, what, maximum)).collect()
        };
        Ok(Self {
            core,
            grants: regions(grants, "grant", MAXIMUM_GRANT)?,
            payloads: regions(payloads, "payload size", MAXIMUM_PAYLOAD_SIZE)?,
            signature: match signature {
                Some(value) => Some(Region::from_value(value, "signature", MAXIMUM_SIGNATURE)?),
                None => None,
            },
            tags: regions(tags, "tag table", MAXIMUM_SEGMENTS * 16)?,
        })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let list = |regions: &[Region]| Value::Array(regions.iter().copied().map(Region::to_value).collect());
        Value::object_of([
            ("@type", Some(Value::text(TYPE))),
            ("core", Some(self.core.to_value())),
            ("grants", Some(list(&self.grants))),
            ("payloads", Some(list(&self.payloads))),
            ("signature", self.signature.map(Region::to_value)),
            ("tags", Some(list(&self.tags))),
        ])
        .encode()
    }

    /// Lays out a new file: slots, payloads, tag tables, core, signature, grants. The directory goes to [`Directory::end`].
    #[must_use]
    pub fn plan(core: u64, payloads: &[u64], tags: &[u64], signature: Option<u64>, grants: &[u64]) -> Self {
        let mut end = HEADER;
        let mut aligned = |length: &u64| {
            let offset = end.next_multiple_of(BLOCK);
            end = offset + length;
            Region { length: *length, offset }
        };
        let payloads = payloads.iter().map(&mut aligned).collect();
        let mut packed = |length: &u64| {
            let offset = end;
            end += length;
            Region { length: *length, offset }
        };
        let tags = tags.iter().map(&mut packed).collect();
        let core = packed(&core);
        let signature = signature.as_ref().map(&mut packed);
        let grants = grants.iter().map(&mut packed).collect();
        Self { core, grants, payloads, signature, tags }
    }

    /// The first byte after all regions.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.regions().filter_map(|region| region.end()).max().unwrap_or(HEADER).max(HEADER)
    }

    fn regions(&self) -> impl Iterator<Item = &Region> {
        let single = std::iter::once(&self.core).chain(&self.signature);
        single.chain(&self.grants).chain(&self.payloads).chain(&self.tags)
    }

    /// Refuses a directory with fewer payloads than `core` has; further ones are not looked at.
    ///
    /// # Errors
    /// `CARRIER_CORRUPT`.
    pub fn require_payloads(&self, core: &Core) -> Result<(), ArtifactError> {
        // GUARD: directory-payloads -> evil_directory_with_fewer_payloads_is_refused
        if self.payloads.len() < core.payloads().len() {
            return Err(ArtifactError::CarrierCorrupt {
                expected: "a region for each payload of the core",
                found: Found::value(format_args!("{} regions", self.payloads.len())),
            });
        }
        Ok(())
    }

    /// Refuses regions that leave the file, touch the slots or the directory, overlap, or payloads that are not aligned.
    ///
    /// # Errors
    /// `CARRIER_CORRUPT`.
    pub fn require_inside(&self, file_length: u64, directory: Region) -> Result<(), ArtifactError> {
        let corrupt = |expected, region: &Region| ArtifactError::CarrierCorrupt {
            expected,
            found: Found::value(format_args!("{} bytes at {}", region.length, region.offset)),
        };
        let mut taken = Vec::new();
        for region in self.regions().chain(std::iter::once(&directory)) {
            let end = region.end().unwrap_or(u64::MAX);
            // GUARD: region-inside -> evil_region_outside_the_file_is_refused
            if region.offset < HEADER || end > file_length {
                return Err(corrupt("regions behind the slots and inside the file", region));
            }
            if region.length > 0 {
                taken.push((region.offset, end, *region));
            }
        }
        taken.sort_unstable_by_key(|(offset, _, _)| *offset);
        for pair in taken.windows(2) {
            let [(_, end, _), (offset, _, region)] = pair else { continue };
            // GUARD: region-overlap -> evil_overlapping_regions_are_refused
            if offset < end {
                return Err(corrupt("regions that do not overlap", region));
            }
        }
        // GUARD: payload-alignment -> evil_unaligned_payload_is_refused
        if let Some(region) = self.payloads.iter().find(|region| !region.offset.is_multiple_of(BLOCK)) {
            return Err(corrupt("payloads at multiples of 4096", region));
        }
        Ok(())
    }
}

/// Which slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPosition {
    /// At offset 0.
    A,
    /// At offset 4,096.
    B,
}

impl SlotPosition {
    /// Offset in the file.
    #[must_use]
    pub const fn offset(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => BLOCK,
        }
    }

    /// The slot that is written next.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A slot: where the directory is, and what its digest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The slot with the highest sequence counts.
    pub sequence: u64,
    /// Where the directory is.
    pub directory: Region,
    /// SHA-256 of the directory.
    pub digest: [u8; 32],
}

impl Slot {
    /// The slot for `directory` at `offset`.
    #[must_use]
    pub fn new(sequence: u64, offset: u64, directory: &[u8]) -> Self {
        let region = Region { length: length(directory), offset };
        Self { sequence, directory: region, digest: Sha256::digest(directory).into() }
    }

    /// Bytes of the slot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut slot = Vec::with_capacity(usize::try_from(BLOCK).unwrap_or_default());
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&VERSION.to_be_bytes());
        slot.extend_from_slice(&[0; 4]);
        slot.extend_from_slice(&self.sequence.to_be_bytes());
        slot.extend_from_slice(&self.directory.offset.to_be_bytes());
        slot.extend_from_slice(&self.directory.length.to_be_bytes());
        slot.extend_from_slice(&self.digest);
        let digest = Sha256::digest(&slot);
        slot.extend_from_slice(&digest);
        slot.resize(usize::try_from(BLOCK).unwrap_or_default(), 0);
        slot
    }

    /// Parses a slot; `None` unless magic, version and digest are right.
    #[must_use]
    pub fn parse(slot: &[u8]) -> Option<Self> {
        let (signed, rest) = slot.split_first_chunk::<72>()?;
        let stated = rest.first_chunk::<32>()?;
        // GUARD: slot-digest -> evil_torn_slot_is_passed_over
        if <[u8; 32]>::from(Sha256::digest(signed)) != *stated {
            return None;
        }
        let (magic, rest) = signed.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (reserved, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (length, digest) = rest.split_first_chunk::<8>()?;
        if magic != MAGIC || u32::from_be_bytes(*version) != VERSION || *reserved != [0; 4] {
            return None;
        }
        Some(Self {
            sequence: u64::from_be_bytes(*sequence),
            directory: Region { length: u64::from_be_bytes(*length), offset: u64::from_be_bytes(*offset) },
            digest: *digest.first_chunk()?,
        })
    }
}

/// A file's current directory and the slot that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The directory.
    pub directory: Directory,
    /// Which slot.
    pub position: SlotPosition,
    /// The slot.
    pub slot: Slot,
}

impl Current {
    /// Finds the current directory of a file, given its first 8,192 bytes and its length; `read` fetches a region.
    ///
    /// # Errors
    /// `CARRIER_CORRUPT` when no slot is valid or a region does not fit, what [`Directory::parse`] returns, and what `read` returns.
    pub fn find<E: From<ArtifactError>>(
        header: &[u8],
        file_length: u64,
        mut read: impl FnMut(Region) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let block = usize::try_from(BLOCK).unwrap_or_default();
        let (a, b) = header.split_at_checked(block).unwrap_or((header, &[]));
        let mut slots: Vec<(SlotPosition, Slot)> = [(SlotPosition::A, a), (SlotPosition::B, b)]
            .into_iter()
            .filter_map(|(position, bytes)| Some((position, Slot::parse(bytes)?)))
            .collect();
        slots.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.sequence));
        for (position, slot) in slots {
            let end = slot.directory.end().unwrap_or(u64::MAX);
            let whole = slot.directory.offset >= HEADER && end <= file_length;
            if !whole || slot.directory.length > MAXIMUM_DIRECTORY {
                continue;
            }
            let bytes = read(slot.directory)?;
            // GUARD: directory-digest -> evil_directory_with_another_digest_is_passed_over
            if <[u8; 32]>::from(Sha256::digest(&bytes)) != slot.digest {
                continue;
            }
            let directory = Directory::parse(&bytes)?;
            directory.require_inside(file_length, slot.directory)?;
            return Ok(Self { directory, position, slot });
        }
        let expected = "a valid slot with a whole directory";
        Err(ArtifactError::CarrierCorrupt { expected, found: Found::text("none") }.into())
    }

    /// The slot to write after `directory` was appended at `offset` and synced: the other one, with the next sequence.
    #[must_use]
    pub fn next_slot(&self, offset: u64, directory: &[u8]) -> (SlotPosition, Slot) {
        (self.position.other(), Slot::new(self.slot.sequence.saturating_add(1), offset, directory))
    }
}
