//! Status codes (spec §9).

macro_rules! statuses {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Status of a completion, and of FATAL_CODE.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Status { $($(#[$doc])* $variant = $code,)* }

        impl Status {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The status with this code.
            pub const fn from_u16(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Name in the specification.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The stable error code that a client reports for this status.
            pub const fn client_code(self) -> &'static str {
                match self { $(Self::$variant => concat!("CHIP_", $name),)* }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0x00, "OK";
    /// No such command.
    BadOpcode = 0x01, "BAD_OPCODE";
    /// A length that does not fit the command.
    BadLength = 0x02, "BAD_LENGTH";
    /// A field that does not fit the command.
    BadField = 0x03, "BAD_FIELD";
    /// A range that is not mapped with the needed direction.
    DmaFault = 0x04, "DMA_FAULT";
    /// Too many sessions, handles or commands.
    NoResources = 0x05, "NO_RESOURCES";
    /// The chip has no certificates yet.
    NotProvisioned = 0x06, "NOT_PROVISIONED";
    /// The chip has its certificates already.
    AlreadyProvisioned = 0x07, "ALREADY_PROVISIONED";
    /// Ended by ABORT.
    Aborted = 0x08, "ABORTED";
    /// A fault inside the chip.
    Internal = 0x09, "INTERNAL";
    /// No such session.
    NoSession = 0x10, "NO_SESSION";
    /// The handshake failed.
    Handshake = 0x11, "HANDSHAKE";
    /// A submission was not authentic.
    Auth = 0x12, "AUTH";
    /// A sequence number other than the next one.
    Sequence = 0x13, "SEQUENCE";
    /// The suite is not allowed.
    Suite = 0x14, "SUITE";
    /// The data path is not allowed.
    Path = 0x15, "PATH";
    /// The session's budget is used up.
    Budget = 0x16, "BUDGET";
    /// An insecure mode of the guest that the chip was not started for.
    InsecureRefused = 0x17, "INSECURE_REFUSED";
    /// No policy, or not one of the known form.
    PolicyMalformed = 0x20, "POLICY_MALFORMED";
    /// A condition of the policy is false.
    PolicyDenied = 0x21, "POLICY_DENIED";
    /// Evidence is demanded and none was verified.
    EvidenceRequired = 0x22, "EVIDENCE_REQUIRED";
    /// The evidence does not hold.
    EvidenceRefused = 0x23, "EVIDENCE_REFUSED";
    /// The core is not one.
    CoreMalformed = 0x24, "CORE_MALFORMED";
    /// The wrapped key does not open.
    UnwrapFailed = 0x25, "UNWRAP_FAILED";
    /// The counter is below the chip's floor.
    Rollback = 0x26, "ROLLBACK";
    /// The sealer's signature does not hold.
    SignatureInvalid = 0x27, "SIGNATURE_INVALID";
    /// The key does not fit the core.
    CommitmentMismatch = 0x28, "COMMITMENT_MISMATCH";
    /// A grant for another key epoch.
    Epoch = 0x29, "EPOCH";
    /// No such handle.
    NoHandle = 0x30, "NO_HANDLE";
    /// The tag table is not the core's.
    TagsMismatch = 0x31, "TAGS_MISMATCH";
    /// A segment is not authentic.
    SegmentAuth = 0x32, "SEGMENT_AUTH";
    /// A destination outside the registered ranges.
    Range = 0x33, "RANGE";
    /// No tag table is loaded for this payload.
    TagsNotLoaded = 0x34, "TAGS_NOT_LOADED";
    /// The PUF did not give its key.
    PufFailed = 0x40, "PUF_FAILED";
}

impl Status {
    /// The code.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }
}
