//! Ring entries (spec §3) and opcodes (§5).

use super::codec::{Reader, WireError};

/// Bytes of a submission entry.
pub const SUBMISSION_LEN: usize = 64;
/// Bytes of a completion entry.
pub const COMPLETION_LEN: usize = 32;
/// Offset of the phase field inside a completion entry.
pub const PHASE_OFFSET: usize = 6;
/// Largest input and largest output capacity of a command.
pub const MAX_TRANSFER: u32 = 1_048_576;

/// A submission entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Submission {
    /// Opcode; any byte, so that a device can refuse it by name.
    pub opcode: u8,
    /// Flags: 0.
    pub flags: u8,
    /// Command id, unique among the outstanding commands of the queue.
    pub cid: u16,
    /// Session id; 0 outside a session.
    pub session: u32,
    /// Address of the input.
    pub in_iova: u64,
    /// Length of the input.
    pub in_len: u32,
    /// Capacity of the output.
    pub out_cap: u32,
    /// Address of the output.
    pub out_iova: u64,
    /// Sequence number in the session; 0 outside.
    pub seq: u64,
}

impl Submission {
    /// The 64 bytes in the ring.
    pub fn encode(&self) -> [u8; SUBMISSION_LEN] {
        let mut out = [0; SUBMISSION_LEN];
        let [o0, o1] = self.cid.to_le_bytes();
        let fields: [&[u8]; 7] = [
            &[self.opcode, self.flags, o0, o1],
            &self.session.to_le_bytes(),
            &self.in_iova.to_le_bytes(),
            &self.in_len.to_le_bytes(),
            &self.out_cap.to_le_bytes(),
            &self.out_iova.to_le_bytes(),
            &self.seq.to_le_bytes(),
        ];
        let source = fields.into_iter().flatten();
        out.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        out
    }

    /// Takes an entry apart; refuses flags and reserved bytes that are not zero.
    pub fn parse(bytes: &[u8; SUBMISSION_LEN]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let entry = Self {
            opcode: r.u8("opcode")?,
            flags: r.u8("flags")?,
            cid: r.u16("cid")?,
            session: r.u32("session id")?,
            in_iova: r.u64("in_iova")?,
            in_len: r.u32("in_len")?,
            out_cap: r.u32("out_cap")?,
            out_iova: r.u64("out_iova")?,
            seq: r.u64("seq")?,
        };
        r.reserved::<24>("reserved bytes of a submission")?;
        r.finish("submission")?;
        if entry.flags != 0 {
            return Err(WireError::Field { what: "submission flags", found: entry.flags.into() });
        }
        Ok(entry)
    }
}

/// A completion entry as it lies in the ring; nothing in it is believed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Status code (§9).
    pub status: u16,
    /// The command.
    pub cid: u16,
    /// Head of the submission ring as the device sees it.
    pub sq_head: u16,
    /// Phase in bit 0.
    pub phase: u16,
    /// Bytes written to the output.
    pub out_len: u32,
    /// Detail of the status.
    pub detail: u32,
    /// Authentication tag in a session, else zero.
    pub tag: [u8; 16],
}

impl Completion {
    /// The 32 bytes in the ring.
    pub fn encode(&self) -> [u8; COMPLETION_LEN] {
        let mut out = [0; COMPLETION_LEN];
        let fields: [&[u8]; 7] = [
            &self.status.to_le_bytes(),
            &self.cid.to_le_bytes(),
            &self.sq_head.to_le_bytes(),
            &self.phase.to_le_bytes(),
            &self.out_len.to_le_bytes(),
            &self.detail.to_le_bytes(),
            &self.tag,
        ];
        let source = fields.into_iter().flatten();
        out.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        out
    }

    /// Takes an entry apart.
    pub fn parse(bytes: &[u8; COMPLETION_LEN]) -> Self {
        let [s0, s1, c0, c1, h0, h1, p0, p1, l0, l1, l2, l3, d0, d1, d2, d3, tag @ ..] = *bytes;
        Self {
            status: u16::from_le_bytes([s0, s1]),
            cid: u16::from_le_bytes([c0, c1]),
            sq_head: u16::from_le_bytes([h0, h1]),
            phase: u16::from_le_bytes([p0, p1]),
            out_len: u32::from_le_bytes([l0, l1, l2, l3]),
            detail: u32::from_le_bytes([d0, d1, d2, d3]),
            tag,
        }
    }

    /// The phase bit.
    pub const fn phase_bit(&self) -> bool {
        self.phase & 1 == 1
    }
}

/// Commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Identity record.
    Identify = 0x01,
    /// Certificates.
    Chain = 0x02,
    /// Give the chip its certificates, once.
    Provision = 0x03,
    /// Abort a command.
    Abort = 0x04,
    /// First half of the handshake.
    Open = 0x10,
    /// Second half of the handshake.
    Finish = 0x11,
    /// Evidence and policy preimage.
    Present = 0x20,
    /// Open a grant.
    Unwrap = 0x21,
    /// Load a tag table.
    LoadTags = 0x22,
    /// Register private destination ranges.
    Register = 0x23,
    /// Unseal segments.
    Unseal = 0x24,
    /// What is left of the session's budget.
    Status = 0x25,
    /// Floors of rollback counters.
    Floors = 0x26,
    /// End the session.
    Close = 0x27,
    /// Drop every key in volatile memory.
    Zeroize = 0x30,
}

impl Opcode {
    /// All commands.
    pub const ALL: [Self; 15] = [
        Self::Identify,
        Self::Chain,
        Self::Provision,
        Self::Abort,
        Self::Open,
        Self::Finish,
        Self::Present,
        Self::Unwrap,
        Self::LoadTags,
        Self::Register,
        Self::Unseal,
        Self::Status,
        Self::Floors,
        Self::Close,
        Self::Zeroize,
    ];

    /// The command with this number.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_u8() == value)
    }

    /// The number.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// Whether the command belongs into a session (FINISH carries an id but is not yet protected).
    pub const fn in_session(self) -> bool {
        matches!(
            self,
            Self::Present
                | Self::Unwrap
                | Self::LoadTags
                | Self::Register
                | Self::Unseal
                | Self::Status
                | Self::Floors
                | Self::Close
        )
    }

    /// Whether queue pair `queue` carries the command.
    pub const fn on_queue(self, queue: u16) -> bool {
        match self {
            Self::LoadTags => queue <= 1,
            Self::Unseal => queue == 1,
            _ => queue == 0,
        }
    }

    /// Name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identify => "IDENTIFY",
            Self::Chain => "CHAIN",
            Self::Provision => "PROVISION",
            Self::Abort => "ABORT",
            Self::Open => "OPEN",
            Self::Finish => "FINISH",
            Self::Present => "PRESENT",
            Self::Unwrap => "UNWRAP",
            Self::LoadTags => "LOAD_TAGS",
            Self::Register => "REGISTER",
            Self::Unseal => "UNSEAL",
            Self::Status => "STATUS",
            Self::Floors => "FLOORS",
            Self::Close => "CLOSE",
            Self::Zeroize => "ZEROIZE",
        }
    }
}
