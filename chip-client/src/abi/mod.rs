//! What both ends of the chip's interface agree on: numbers and bytes, nothing else.
//!
//! Constants, wire structs and their strict encoding, as `docs/spec/chip-interface-v1.md` writes them down. No logic and
//! no cryptography lives here: the driver and the emulator are written separately above this module, so that a mistake in
//! one is seen by the other.
//!
//! Parsing never panics, refuses trailing bytes and reserved fields that are not zero, and checks every length against
//! its cap before anything is copied.

mod codec;
mod evidence;
mod identity;
mod job;
mod regs;
mod ring;
mod session;
mod sgl;
mod status;

pub use codec::{Reader, WireError, put_lp, put_u16, put_u32, put_u64};
pub use evidence::EvidenceDetail;
pub use identity::{CertificateList, IdentityFlags, IdentityRecord, Provision};
pub use job::{
    Abort, CollateralFloor, Floor, Floors, LoadTags, Present, SealedReply, SessionStatus, Unseal, Unwrap,
    parse_handle, parse_register,
};
pub use regs::{
    BAR_MSIX, BAR_REGISTERS, BAR0_SIZE, BAR4_SIZE, CLASS_CODE, CTRL_EN, CTRL_RESET, Cap, DEVICE_ID, MAGIC,
    MSIX_PBA_OFFSET, MSIX_VECTORS, QUEUE_BULK, QUEUE_CONTROL, QUEUES, READY_UNIT_MS, REG_CAP, REG_CTRL,
    REG_FATAL_CODE, REG_MAGIC, REG_STATUS, REG_VERSION, REVISION, STATUS_FATAL, STATUS_PROVISIONED,
    STATUS_RDY, STATUS_TDISP_SHIFT, TdispState, VENDOR_ID, VERSION, cq_head_doorbell, queue_register,
    sq_tail_doorbell,
};
pub use regs::{QREG_CQ_BASE, QREG_CQ_SIZE, QREG_SQ_BASE, QREG_SQ_SIZE};
pub use ring::{COMPLETION_LEN, Completion, MAX_TRANSFER, Opcode, PHASE_OFFSET, SUBMISSION_LEN, Submission};
pub use session::{
    Accept, DataPath, InsecureFlags, LABEL_BULK_AAD, LABEL_COMPLETION_AAD, LABEL_KEY, LABEL_KEY_BULK,
    LABEL_KEY_COMPLETION, LABEL_KEY_SUBMISSION, LABEL_PROLOGUE, LABEL_REPORT_DATA, LABEL_SIGNATURE,
    LABEL_SUBMISSION_AAD, LABEL_TRANSCRIPT, MLKEM768_CIPHERTEXT, MLKEM768_PUBLIC, NOISE_NAME, OFFER_LEN,
    Offer, SIGNATURE_LEN, SessionSuite, SessionSuites, parse_finish, put_finish,
};
pub use sgl::{MAX_SGL_ENTRIES, Sgl, SglEntry};
pub use status::Status;

/// Names of identity (spec §6) and the sizes of its parts.
pub mod identity_const {
    /// First bytes of the hash input of a chip id (§6.2).
    pub const LABEL_CHIP_ID: &[u8] = b"innerkeep chip id v1";
    /// Object identifier of the chip extension of the leaf certificate (§6.3).
    pub const CHIP_EXTENSION_OID: &str = "1.3.6.1.4.1.59999.1.1";
    /// `@type` of the JSON object in that extension.
    pub const CHIP_EXTENSION_TYPE: &str = "innerkeep chip certificate v1";
    /// Start of the validity of each certificate, as seconds since 1970.
    pub const NOT_BEFORE_UNIX: u64 = 0;
    /// End of the validity of each certificate (99991231235959Z), as seconds since 1970.
    pub const NOT_AFTER_UNIX: u64 = 253_402_300_799;
    /// Largest DER certificate.
    pub const MAX_CERTIFICATE: usize = 8_192;
    /// Certificates of a presented chain: model CA, chip.
    pub const CHAIN_LEN: u32 = 2;
    /// Longest environment name (artifact spec §1).
    pub const MAX_ENVIRONMENT: usize = 128;
    /// Largest DER SubjectPublicKeyInfo that is looked at.
    pub const MAX_SPKI: usize = 256;
    /// Bytes of a chip id.
    pub const CHIP_ID_LEN: usize = 32;
    /// Bytes of the Noise static public key.
    pub const NOISE_PUBLIC_LEN: usize = 32;
    /// Bytes of the P-384 grant public key (uncompressed point).
    pub const P384_PUBLIC_LEN: usize = 97;
    /// Bytes of the X-Wing grant public key.
    pub const X_WING_PUBLIC_LEN: usize = 1_216;
}

/// Caps of the interface (spec §3, §5, §7.5, §8).
pub mod limits {
    /// Largest evidence of PRESENT.
    pub const MAX_EVIDENCE: usize = 262_144;
    /// Largest policy preimage of PRESENT.
    pub const MAX_PREIMAGE: usize = 65_536;
    /// Bytes of a policy digest.
    pub const POLICY_DIGEST: usize = 64;
    /// Largest core of UNWRAP (artifact spec §1).
    pub const MAX_CORE: usize = 262_144;
    /// Largest HPKE encapsulated key.
    pub const MAX_ENC: usize = 2_048;
    /// Bytes of a wrapped content key.
    pub const WRAPPED: usize = 48;
    /// Bytes of a content key.
    pub const CONTENT_KEY: usize = 32;
    /// Largest tag table.
    pub const MAX_TAGS: usize = 4_194_304;
    /// Bytes of one tag.
    pub const TAG: usize = 16;
    /// Live sessions.
    pub const MAX_SESSIONS: usize = 8;
    /// Live handles.
    pub const MAX_HANDLES: usize = 64;
    /// Segments of one UNSEAL.
    pub const MAX_SEGMENTS: u32 = 1_024;
    /// Submissions of one session on one queue.
    pub const MAX_SUBMISSIONS: u64 = 1 << 32;
    /// Bulk bytes of one session.
    pub const MAX_BULK_BYTES: u64 = 1 << 40;
    /// First word of the nonce of a `dma-sealed` segment, to which the queue number is added.
    pub const BULK_NONCE_BASE: u32 = 0x8000_0000;
    /// Floors of one FLOORS answer.
    pub const MAX_FLOORS: u32 = 4_096;
    /// Series of collateral in one FLOORS answer.
    pub const MAX_COLLATERAL_FLOORS: u32 = 64;
    /// Longest family name (artifact spec §1).
    pub const MAX_FAMILY: usize = 128;
}

#[cfg(test)]
mod tests;
