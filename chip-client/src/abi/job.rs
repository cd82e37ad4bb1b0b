//! Bodies of the commands inside a session (spec §5, §8).

use super::codec::{Reader, WireError, put_lp, put_u16, put_u32, put_u64};
use super::identity::text;
use super::identity_const::MAX_SPKI;
use super::limits::{
    MAX_COLLATERAL_FLOORS, MAX_CORE, MAX_ENC, MAX_EVIDENCE, MAX_FAMILY, MAX_FLOORS, MAX_PREIMAGE,
    MAX_SEGMENTS, TAG, WRAPPED,
};
use super::session::SIGNATURE_LEN;
use super::sgl::Sgl;

/// Input of ABORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Queue of the command.
    pub queue: u16,
    /// The command.
    pub cid: u16,
}

impl Abort {
    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, self.queue);
        put_u16(&mut out, self.cid);
        out
    }

    /// Takes the input apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let body = Self { queue: r.u16("queue")?, cid: r.u16("cid")? };
        r.finish("abort")?;
        Ok(body)
    }
}

/// Input of PRESENT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'a> {
    /// Evidence; may be empty.
    pub evidence: &'a [u8],
    /// Policy preimage.
    pub preimage: &'a [u8],
}

impl<'a> Present<'a> {
    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_lp(&mut out, self.evidence);
        put_lp(&mut out, self.preimage);
        out
    }

    /// Takes the input apart.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let body = Self {
            evidence: r.lp("evidence", MAX_EVIDENCE)?,
            preimage: r.lp("policy preimage", MAX_PREIMAGE)?,
        };
        r.finish("presentation")?;
        Ok(body)
    }
}

/// Input of UNWRAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwrap<'a> {
    /// Grant suite: 1 P-384, 2 X-Wing.
    pub suite: u16,
    /// Key epoch of the grant.
    pub key_epoch: u64,
    /// The core's bytes.
    pub core: &'a [u8],
    /// HPKE encapsulated key.
    pub enc: &'a [u8],
    /// Wrapped content key (48).
    pub wrapped: &'a [u8],
    /// Sealer's SubjectPublicKeyInfo, or empty.
    pub sealer_spki: &'a [u8],
    /// Sealer's signature (96), or empty.
    pub sealer_signature: &'a [u8],
}

impl<'a> Unwrap<'a> {
    /// Suite number of P-384 grants.
    pub const SUITE_P384: u16 = 1;
    /// Suite number of X-Wing grants.
    pub const SUITE_X_WING: u16 = 2;

    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, self.suite);
        put_u16(&mut out, 0);
        put_u64(&mut out, self.key_epoch);
        put_lp(&mut out, self.core);
        put_lp(&mut out, self.enc);
        put_lp(&mut out, self.wrapped);
        put_lp(&mut out, self.sealer_spki);
        put_lp(&mut out, self.sealer_signature);
        out
    }

    /// Takes the input apart. Key and signature of the sealer are present together or not at all.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let suite = r.u16("grant suite")?;
        if suite != Self::SUITE_P384 && suite != Self::SUITE_X_WING {
            return Err(WireError::Field { what: "grant suite", found: suite.into() });
        }
        r.reserved::<2>("reserved bytes of an unwrap")?;
        let body = Self {
            suite,
            key_epoch: r.u64("key epoch")?,
            core: r.lp("core", MAX_CORE)?,
            enc: r.lp("encapsulated key", MAX_ENC)?,
            wrapped: r.lp("wrapped key", WRAPPED)?,
            sealer_spki: r.lp("sealer key", MAX_SPKI)?,
            sealer_signature: r.lp("sealer signature", SIGNATURE_LEN)?,
        };
        r.finish("unwrap")?;
        if body.wrapped.len() != WRAPPED {
            return Err(WireError::Length {
                what: "wrapped key",
                expected: WRAPPED,
                found: body.wrapped.len(),
            });
        }
        if body.sealer_spki.is_empty() != body.sealer_signature.is_empty() {
            return Err(WireError::Length {
                what: "sealer signature",
                expected: if body.sealer_spki.is_empty() { 0 } else { SIGNATURE_LEN },
                found: body.sealer_signature.len(),
            });
        }
        Ok(body)
    }
}

/// The handle that UNWRAP returns on the DMA paths.
pub fn parse_handle(bytes: &[u8]) -> Result<u32, WireError> {
    let mut r = Reader::new(bytes);
    let handle = r.u32("handle")?;
    r.finish("handle")?;
    Ok(handle)
}

/// Input of LOAD_TAGS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTags {
    /// Handle of UNWRAP.
    pub handle: u32,
    /// Payload index.
    pub payload: u32,
    /// Where the tag table lies.
    pub table: Sgl,
}

impl LoadTags {
    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, self.handle);
        put_u32(&mut out, self.payload);
        self.table.put(&mut out);
        out
    }

    /// Takes the input apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let body = Self { handle: r.u32("handle")?, payload: r.u32("payload")?, table: Sgl::take(&mut r)? };
        r.finish("tag table command")?;
        Ok(body)
    }
}

/// The ranges in the input of REGISTER; its encoding is [`Sgl::put`].
pub fn parse_register(bytes: &[u8]) -> Result<Sgl, WireError> {
    let mut r = Reader::new(bytes);
    let ranges = Sgl::take(&mut r)?;
    r.finish("registration")?;
    Ok(ranges)
}

/// Input of UNSEAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseal {
    /// Handle of UNWRAP.
    pub handle: u32,
    /// Payload index.
    pub payload: u32,
    /// First segment.
    pub first: u64,
    /// Number of segments, 1 … 1,024.
    pub count: u32,
    /// Ciphertext.
    pub source: Sgl,
    /// Destination.
    pub destination: Sgl,
}

impl Unseal {
    /// The bytes of the input.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, self.handle);
        put_u32(&mut out, self.payload);
        put_u64(&mut out, self.first);
        put_u32(&mut out, self.count);
        put_u32(&mut out, 0);
        self.source.put(&mut out);
        self.destination.put(&mut out);
        out
    }

    /// Takes the input apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let handle = r.u32("handle")?;
        let payload = r.u32("payload")?;
        let first = r.u64("first segment")?;
        let count = r.u32("number of segments")?;
        if count == 0 || count > MAX_SEGMENTS {
            return Err(WireError::Field { what: "number of segments", found: count.into() });
        }
        r.reserved::<4>("reserved bytes of an unseal")?;
        let body = Self {
            handle,
            payload,
            first,
            count,
            source: Sgl::take(&mut r)?,
            destination: Sgl::take(&mut r)?,
        };
        r.finish("unseal")?;
        Ok(body)
    }
}

/// Output of UNSEAL in `dma-sealed`: bulk counter of the first segment, and the tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedReply {
    /// Bulk counter of the first segment; one more for each that follows.
    pub first_counter: u64,
    /// One tag a segment.
    pub tags: Vec<[u8; TAG]>,
}

impl SealedReply {
    /// The bytes of the output.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.first_counter);
        self.tags.iter().for_each(|tag| out.extend_from_slice(tag));
        out
    }

    /// Takes the output of a command of `count` segments apart.
    pub fn parse(bytes: &[u8], count: u32) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let first_counter = r.u64("bulk counter")?;
        let mut tags = Vec::new();
        for _ in 0..count {
            tags.push(r.array("segment tag")?);
        }
        r.finish("unseal output")?;
        Ok(Self { first_counter, tags })
    }
}

/// Output of STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Bulk bytes left.
    pub bytes_left: u64,
    /// Submissions left on the queue that has fewer left.
    pub submissions_left: u64,
    /// Key epoch.
    pub key_epoch: u64,
    /// Live handles.
    pub handles: u32,
}

impl SessionStatus {
    /// The bytes of the output.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.bytes_left);
        put_u64(&mut out, self.submissions_left);
        put_u64(&mut out, self.key_epoch);
        put_u32(&mut out, self.handles);
        put_u32(&mut out, 0);
        out
    }

    /// Takes the output apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let body = Self {
            bytes_left: r.u64("bytes left")?,
            submissions_left: r.u64("submissions left")?,
            key_epoch: r.u64("key epoch")?,
            handles: r.u32("live handles")?,
        };
        r.reserved::<4>("reserved bytes of a status")?;
        r.finish("session status")?;
        Ok(body)
    }
}

/// One floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// SHA-256 of the sealer's SubjectPublicKeyInfo.
    pub sealer: [u8; 32],
    /// Rollback family.
    pub family: String,
    /// Smallest counter that is still accepted.
    pub counter: u64,
}

/// The highest number seen of one series of collateral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollateralFloor {
    /// What is counted: 1 TCB evaluations, 2 PCK lists, 3 lists of Intel's root, 4 SNP lists.
    pub kind: u16,
    /// SHA-256 of the issuer's SubjectPublicKeyInfo.
    pub issuer: [u8; 32],
    /// Smallest number that is still accepted.
    pub number: u64,
}

/// Output of FLOORS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    /// All floors that the chip keeps.
    pub floors: Vec<Floor>,
    /// The highest number of each series of collateral that the chip accepted.
    pub collateral: Vec<CollateralFloor>,
}

impl Floors {
    /// The bytes of the output.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u32(&mut out, u32::try_from(self.floors.len()).unwrap_or(u32::MAX));
        for floor in &self.floors {
            out.extend_from_slice(&floor.sealer);
            put_lp(&mut out, floor.family.as_bytes());
            put_u64(&mut out, floor.counter);
        }
        put_u32(&mut out, u32::try_from(self.collateral.len()).unwrap_or(u32::MAX));
        for floor in &self.collateral {
            put_u16(&mut out, floor.kind);
            out.extend_from_slice(&floor.issuer);
            put_u64(&mut out, floor.number);
        }
        out
    }

    /// Takes the output apart.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let n = r.u32("number of floors")?;
        if n > MAX_FLOORS {
            return Err(WireError::Field { what: "number of floors", found: n.into() });
        }
        let mut floors = Vec::new();
        for _ in 0..n {
            floors.push(Floor {
                sealer: r.array("sealer key digest")?,
                family: text(r.lp("family", MAX_FAMILY)?, "family")?,
                counter: r.u64("counter")?,
            });
        }
        let n = r.u32("number of collateral floors")?;
        if n > MAX_COLLATERAL_FLOORS {
            return Err(WireError::Field { what: "number of collateral floors", found: n.into() });
        }
        let mut collateral = Vec::new();
        for _ in 0..n {
            collateral.push(CollateralFloor {
                kind: r.u16("kind of a series")?,
                issuer: r.array("issuer of a series")?,
                number: r.u64("number of a series")?,
            });
        }
        r.finish("floors")?;
        Ok(Self { floors, collateral })
    }
}
