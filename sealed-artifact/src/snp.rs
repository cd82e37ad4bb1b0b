//! SEV-SNP guests as recipients of their own grants: what a guest is, and which key it asks the processor for.

use crate::digest::{RecipientKeyDigest, sha256};
use crate::error::{ArtifactError, Found, limit};
use crate::grant::RecipientId;
use crate::json::Value;
use crate::policy::Hex;

const RECIPIENT_LABEL: &[u8] = b"innerkeep snp recipient v1";

/// Root of a derived key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnpRootKey {
    /// The chip's endorsement key: `ROOT_KEY_SELECT` 0.
    Vcek,
    /// The VM root key, which moves with the guest: `ROOT_KEY_SELECT` 1.
    Vmrk,
}

impl SnpRootKey {
    /// The value of `ROOT_KEY_SELECT`.
    #[must_use]
    pub const fn value(self) -> u32 {
        match self {
            Self::Vcek => 0,
            Self::Vmrk => 1,
        }
    }
}

crate::secret::secret! {
    /// Key that the processor derived for this guest (`MSG_KEY_RSP`).
    SnpDerivedKey, "a derived key of 32 bytes, not all zero"
}

/// A guest as its own report, just received from the firmware, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpGuest {
    /// CHIP_ID; zeros where it is masked.
    pub chip_id: [u8; 64],
    /// POLICY.
    pub guest_policy: u64,
    /// HOST_DATA: the initdata digest, fitted to 32 bytes.
    pub host_data: [u8; 32],
    /// MEASUREMENT.
    pub measurement: [u8; 48],
}

impl SnpGuest {
    /// The recipient id. The chip is part of it only where the key is the chip's.
    #[must_use]
    pub fn recipient_id(&self, root: SnpRootKey) -> RecipientId {
        let policy = self.guest_policy.to_be_bytes();
        let chip: &[u8] = match root {
            SnpRootKey::Vcek => &self.chip_id,
            SnpRootKey::Vmrk => &[],
        };
        let mut bytes = RECIPIENT_LABEL.to_vec();
        for part in [self.measurement.as_slice(), &policy, chip] {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        RecipientId::new(sha256(&bytes))
    }

    /// There is no public key: the digest of no bytes.
    pub(crate) fn recipient_key() -> RecipientKeyDigest {
        RecipientKeyDigest::of(b"")
    }
}

/// What a derived key was asked for with (`MSG_KEY_REQ`), so that the guest can ask for the same key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnpSelection {
    fields: u64,
    guest_svn: u32,
    root: SnpRootKey,
    tcb_version: Hex<8>,
}

impl SnpSelection {
    /// Bit of the guest policy.
    pub const GUEST_POLICY: u64 = 1;
    /// Bit of the image id.
    pub const IMAGE_ID: u64 = 1 << 1;
    /// Bit of the family id.
    pub const FAMILY_ID: u64 = 1 << 2;
    /// Bit of the launch measurement.
    pub const MEASUREMENT: u64 = 1 << 3;
    /// Bit of the guest's security version.
    pub const GUEST_SVN: u64 = 1 << 4;
    /// Bit of the TCB version.
    pub const TCB_VERSION: u64 = 1 << 5;
    /// The bits that every selection has.
    pub const REQUIRED: u64 = Self::GUEST_POLICY | Self::MEASUREMENT | Self::TCB_VERSION;
    /// VMPL that is mixed into every key.
    pub const VMPL: u32 = 0;
    const KNOWN: u64 = 0x3f;

    /// A selection. `tcb_version` is in the byte order of reports; take the report's COMMITTED_TCB.
    ///
    /// # Errors
    /// `MALFORMED` for missing or unknown bits, and for a guest SVN that is not selected.
    pub fn new(
        root: SnpRootKey,
        fields: u64,
        guest_svn: u32,
        tcb_version: Hex<8>,
    ) -> Result<Self, ArtifactError> {
        let found = || Found::value(format_args!("{fields:#x}, guest SVN {guest_svn}"));
        // GUARD: snp-required-fields -> evil_snp_key_without_measurement_policy_or_tcb_is_refused
        if fields & Self::REQUIRED != Self::REQUIRED {
            let expected = "measurement, guest policy and TCB version selected";
            return Err(ArtifactError::Malformed { what: "guest_field_select", expected, found: found() });
        }
        // GUARD: snp-unknown-fields -> evil_snp_selection_of_unknown_fields_is_refused
        if fields & !Self::KNOWN != 0 {
            let expected = "only bits 0 to 5";
            return Err(ArtifactError::Malformed { what: "guest_field_select", expected, found: found() });
        }
        if fields & Self::GUEST_SVN == 0 && guest_svn != 0 {
            let expected = "0 where the guest SVN is not selected";
            return Err(ArtifactError::Malformed { what: "guest_svn", expected, found: found() });
        }
        Ok(Self { fields, guest_svn, root, tcb_version })
    }

    /// `GUEST_FIELD_SELECT`.
    #[must_use]
    pub const fn fields(&self) -> u64 {
        self.fields
    }

    /// `GUEST_SVN`.
    #[must_use]
    pub const fn guest_svn(&self) -> u32 {
        self.guest_svn
    }

    /// The root key.
    #[must_use]
    pub const fn root(&self) -> SnpRootKey {
        self.root
    }

    /// `TCB_VERSION`, in the byte order of reports.
    #[must_use]
    pub const fn tcb_version(&self) -> Hex<8> {
        self.tcb_version
    }

    pub(crate) fn from_value(value: Value) -> Result<(Self, [u8; 32]), ArtifactError> {
        let mut members = value.into_members("grant.snp")?;
        let fields = members.take("guest_field_select")?.into_integer("guest_field_select")?;
        let guest_svn = members.take("guest_svn")?.into_integer("guest_svn")?;
        let root = members.take("root_key_select")?.into_integer("root_key_select")?;
        let salt = members.take("salt")?.into_hex("salt")?;
        let tcb_version = Hex(members.take("tcb_version")?.into_hex("tcb_version")?);
        let vmpl = members.take("vmpl")?.into_integer("vmpl")?;
        members.finish()?;
        limit("guest_svn", 0, u64::from(u32::MAX), guest_svn)?;
        // GUARD: snp-vmpl -> evil_snp_key_of_another_vmpl_is_refused
        if vmpl != u64::from(Self::VMPL) {
            let found = Found::value(vmpl);
            return Err(ArtifactError::Malformed { what: "vmpl", expected: "0", found });
        }
        let root =
            [SnpRootKey::Vcek, SnpRootKey::Vmrk].into_iter().find(|key| u64::from(key.value()) == root);
        let root = root.ok_or(ArtifactError::Malformed {
            what: "root_key_select",
            expected: "0 or 1",
            found: Found::text("another number"),
        })?;
        let guest_svn = u32::try_from(guest_svn).unwrap_or(u32::MAX);
        Ok((Self::new(root, fields, guest_svn, tcb_version)?, salt))
    }

    pub(crate) fn to_value(self, salt: &[u8; 32]) -> Value {
        Value::object([
            ("guest_field_select", Value::integer(self.fields)),
            ("guest_svn", Value::integer(u64::from(self.guest_svn))),
            ("root_key_select", Value::integer(u64::from(self.root.value()))),
            ("salt", Value::hex(salt)),
            ("tcb_version", Value::hex(&self.tcb_version.0)),
            ("vmpl", Value::integer(u64::from(Self::VMPL))),
        ])
    }
}
