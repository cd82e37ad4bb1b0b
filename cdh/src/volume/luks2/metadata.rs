//! The text of a header: the members that the one form has, and no others.

use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) keyslots: Only<Slot>,
    pub(super) tokens: Nothing,
    pub(super) segments: Only<Segment>,
    pub(super) digests: Only<Digest>,
    pub(super) config: Config,
}

/// An object with one member, `"0"`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Only<T> {
    #[serde(rename = "0")]
    pub(super) first: T,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) key_size: usize,
    pub(super) af: Split,
    pub(super) area: Area,
    pub(super) kdf: Pbkdf2,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Split {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) stripes: usize,
    pub(super) hash: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Area {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) offset: String,
    pub(super) size: String,
    pub(super) encryption: String,
    pub(super) key_size: usize,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pbkdf2 {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) hash: String,
    pub(super) iterations: u32,
    pub(super) salt: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) offset: String,
    pub(super) size: String,
    pub(super) iv_tweak: String,
    pub(super) encryption: String,
    pub(super) sector_size: u64,
    pub(super) integrity: Integrity,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Integrity {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) journal_encryption: String,
    pub(super) journal_integrity: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Digest {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) keyslots: Vec<String>,
    pub(super) segments: Vec<String>,
    pub(super) hash: String,
    pub(super) iterations: u32,
    pub(super) salt: String,
    pub(super) digest: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) json_size: String,
    pub(super) keyslots_size: String,
}
