//! Detail of EVIDENCE_REFUSED (spec §9.1): what did not hold.

macro_rules! details {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why evidence was refused. Numbers below 0x100 are verification, the others rules.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum EvidenceDetail { $($(#[$doc])* $variant = $number,)* }

        impl EvidenceDetail {
            /// All details.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The detail with this number.
            pub const fn from_u32(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Name in the specification: a rule, or what of verification failed.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

details! {
    /// A certificate or revocation list is not of the form of its role.
    CertificateInvalid = 0x01, "certificate_invalid";
    /// Something needed was not presented.
    CollateralMissing = 0x02, "collateral_missing";
    /// The event log does not lead to the registers.
    LogMismatch = 0x03, "log_mismatch";
    /// Bytes without the form of their format.
    Malformed = 0x04, "malformed";
    /// The objects presented do not hold at one time.
    NotInTime = 0x05, "not_in_time";
    /// Certificates or collateral of another platform.
    PlatformMismatch = 0x06, "platform_mismatch";
    /// Reserved bits are set.
    ReservedNotZero = 0x07, "reserved_not_zero";
    /// The issuer revoked a certificate.
    Revoked = 0x08, "revoked";
    /// The chain ends at a root that the chip does not believe.
    RootUntrusted = 0x09, "root_untrusted";
    /// A signature, or what binds signed objects, does not verify.
    SignatureInvalid = 0x0a, "signature_invalid";
    /// TCB status or configuration of the platform.
    TcbRefused = 0x0b, "tcb_refused";
    /// Above a cap.
    TooLarge = 0x0c, "too_large";
    /// Bytes behind a structure.
    TrailingBytes = 0x0d, "trailing_bytes";
    /// Unknown version, type or algorithm.
    Unsupported = 0x0e, "unsupported";
    /// The evidence is not of this session.
    ReportData = 0x101, "report_data";
    /// The policy has no rules for this TEE.
    TeeType = 0x102, "tee_type";
    /// Digest of the initdata.
    Initdata = 0x103, "initdata";
    /// The guest can be debugged.
    Debug = 0x104, "debug";
    /// Fingerprint of the platform's chain.
    CertificateChain = 0x105, "certificate_chain";
    /// Manifest of the unsigned layers, which nothing shows.
    UnsignedManifest = 0x106, "unsigned_manifest";
    /// Build-time measurement.
    Mrtd = 0x201, "mrtd";
    /// Runtime measurement register 0.
    Rtmr0 = 0x202, "rtmr0";
    /// Runtime measurement register 1.
    Rtmr1 = 0x203, "rtmr1";
    /// Runtime measurement register 2.
    Rtmr2 = 0x204, "rtmr2";
    /// Runtime measurement register 3.
    Rtmr3 = 0x205, "rtmr3";
    /// Extended features.
    Xfam = 0x206, "xfam";
    /// Owner.
    Mrowner = 0x207, "mrowner";
    /// Owner's configuration.
    Mrownerconfig = 0x208, "mrownerconfig";
    /// Security versions of the TDX module.
    MinTeeTcbSvn = 0x209, "min_tee_tcb_svn";
    /// TCB-evaluation number.
    MinTcbEvaluation = 0x20a, "min_tcb_evaluation";
    /// Number of the PCK revocation list.
    MinPckCrlNumber = 0x20b, "min_pck_crl_number";
    /// Number of the root's revocation list.
    MinRootCrlNumber = 0x20c, "min_root_crl_number";
    /// Launch measurement.
    Measurement = 0x301, "measurement";
    /// Guest policy.
    GuestPolicy = 0x302, "guest_policy";
    /// VMPL of the report.
    MaxVmpl = 0x303, "max_vmpl";
    /// Generation of the processor.
    Generation = 0x304, "generation";
    /// Reported TCB.
    MinTcb = 0x305, "min_tcb";
    /// Digest of the id key.
    IdKeyDigest = 0x306, "id_key_digest";
    /// Digest of the author key.
    AuthorKeyDigest = 0x307, "author_key_digest";
    /// Id of the processor.
    ChipId = 0x308, "chip_id";
    /// Security version of the guest.
    MinGuestSvn = 0x309, "min_guest_svn";
    /// Number of the SNP revocation list.
    MinCrlNumber = 0x30a, "min_crl_number";
}

impl EvidenceDetail {
    /// The number.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// The detail with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|detail| detail.name() == name)
    }

    /// Whether a rule of policy or chip was not met, rather than verification.
    pub const fn is_rule(self) -> bool {
        self.as_u32() >= 0x100
    }
}
