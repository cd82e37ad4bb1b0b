//! SEV-SNP attestation reports, versions 2 to 5, of Milan, Genoa and Turin.

use std::fmt;

use crate::bytes::{Octets, Reader};
use crate::error::{EvidenceError, Found};

/// Size of a report.
pub const REPORT_BYTES: usize = 1184;
/// Bytes of a report that its signature covers.
pub const SIGNED_BYTES: usize = 0x2a0;
const POLICY_RESERVED_ONE: u64 = 1 << 17;
const POLICY_DEBUG: u64 = 1 << 19;

/// A report. What it says is true only after [`verify`](crate::verify::snp).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpReport {
    /// 2 to 5.
    pub version: u32,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: GuestPolicy,
    /// Family of the guest, chosen by its owner.
    pub family_id: Octets<16>,
    /// Image of the guest, chosen by its owner.
    pub image_id: Octets<16>,
    /// Privilege level that asked.
    pub vmpl: u32,
    /// Signature algorithm.
    pub signature_algorithm: u32,
    /// TCB that runs.
    pub current_tcb: Tcb,
    /// Features of the platform.
    pub platform_info: u64,
    /// Which key signed, and what is masked.
    pub key_info: KeyInfo,
    /// What the guest had attested.
    pub report_data: Octets<64>,
    /// Launch measurement.
    pub measurement: Octets<48>,
    /// Chosen by the host at launch: here, the initdata digest.
    pub host_data: Octets<32>,
    /// Digest of the id key.
    pub id_key_digest: Octets<48>,
    /// Digest of the author key.
    pub author_key_digest: Octets<48>,
    /// Id of this guest.
    pub report_id: Octets<32>,
    /// Id of its migration agent.
    pub report_id_ma: Octets<32>,
    /// TCB that the signing key is derived for.
    pub reported_tcb: Tcb,
    /// Family, model, stepping of the processor; absent in version 2.
    pub cpuid: Option<[u8; 3]>,
    /// Id of the chip.
    pub chip_id: Octets<64>,
    /// TCB that cannot be left downward.
    pub committed_tcb: Tcb,
    /// Firmware version that runs.
    pub current: FirmwareVersion,
    /// Firmware version that cannot be left downward.
    pub committed: FirmwareVersion,
    /// TCB at launch.
    pub launch_tcb: Tcb,
    /// Mitigations at launch and now; absent before version 5.
    pub mitigations: Option<[u64; 2]>,
    /// First half of the signature, little-endian.
    pub signature_r: Octets<72>,
    /// Second half of the signature, little-endian.
    pub signature_s: Octets<72>,
}

/// Generation of the processor: decides the layout of TCB versions and which root signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// Family 19h, models 00h to 0Fh.
    Milan,
    /// Family 19h, models 10h to 1Fh and A0h to AFh.
    Genoa,
    /// Family 1Ah, models 00h to 11h.
    Turin,
}

impl Generation {
    /// The name in certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The generation of a processor.
    #[must_use]
    pub const fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Security versions of the parts of an SNP platform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcb {
    /// Firmware of the microcontroller; Turin only.
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// Trusted operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// Parses the eight bytes of a report or policy.
    ///
    /// # Errors
    /// `EVIDENCE_RESERVED_NOT_ZERO`.
    pub fn parse(raw: Octets<8>, generation: Generation) -> Result<Self, EvidenceError> {
        let (tcb, reserved, start) = if generation == Generation::Turin {
            let [fmc, bootloader, tee, snp, a, b, c, microcode] = raw.0;
            (Self { fmc: Some(fmc), bootloader, tee, snp, microcode }, [a, b, c, 0], 4)
        } else {
            let [bootloader, tee, a, b, c, d, snp, microcode] = raw.0;
            (Self { fmc: None, bootloader, tee, snp, microcode }, [a, b, c, d], 2)
        };
        let set = reserved.iter().enumerate().find(|(_, byte)| **byte != 0);
        // GUARD: tcb-reserved-zero -> evil_report_reserved_bytes_are_refused
        if let Some((index, found)) = set {
            return Err(EvidenceError::ReservedNotZero {
                what: "SNP TCB version",
                offset: start + index,
                found: *found,
            });
        }
        Ok(tcb)
    }

    /// The eight bytes of a report or policy.
    #[must_use]
    pub const fn encode(self) -> Octets<8> {
        Octets(match self.fmc {
            Some(fmc) => [fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
            None => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
        })
    }

    /// Whether every part is at least that of `minimum`.
    #[must_use]
    pub fn is_at_least(self, minimum: Self) -> bool {
        self.fmc.unwrap_or(0) >= minimum.fmc.unwrap_or(0)
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        let Self { bootloader, tee, snp, microcode, .. } = self;
        write!(f, "bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
    }
}

/// Version of the SNP firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirmwareVersion {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// Policy of the guest, fixed at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Whether the host may debug the guest.
    #[must_use]
    pub const fn is_debug(self) -> bool {
        self.0 & POLICY_DEBUG != 0
    }
}

impl fmt::Display for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which key signed a report, and what is masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyInfo(pub u32);

impl KeyInfo {
    /// Whether the digest of the author key is present.
    #[must_use]
    pub const fn author_key_present(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether the firmware does not sign with the chip's key.
    #[must_use]
    pub const fn chip_key_masked(self) -> bool {
        self.0 & 2 != 0
    }

    /// 0: VCEK, 1: VLEK, 7: none.
    #[must_use]
    pub const fn signing_key(self) -> u32 {
        (self.0 >> 2) & 7
    }
}

impl SnpReport {
    /// Parses a report of exactly 1184 bytes.
    ///
    /// # Errors
    /// `EVIDENCE_MALFORMED`, `EVIDENCE_RESERVED_NOT_ZERO`, `EVIDENCE_TRAILING_BYTES`, `EVIDENCE_UNSUPPORTED`.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        Reader::new("SNP report", bytes).take(REPORT_BYTES)?;
        let mut reader = Reader::new("SNP report", bytes);
        let version = reader.u32()?;
        // GUARD: report-version -> evil_report_versions_outside_the_list_are_refused
        if !(2..=5).contains(&version) {
            return Err(unsupported("SNP report version", "2, 3, 4 or 5", version));
        }
        let layout = layout_generation(version, bytes)?;
        let guest_svn = reader.u32()?;
        let policy = GuestPolicy(reader.u64()?);
        // GUARD: guest-policy-reserved-one -> evil_guest_policy_without_its_fixed_bit_is_refused
        if policy.0 & POLICY_RESERVED_ONE == 0 {
            return Err(EvidenceError::Malformed {
                what: "SNP guest policy",
                expected: "bit 17 to be one",
                found: Found::value(policy),
            });
        }
        let family_id = reader.octets()?;
        let image_id = reader.octets()?;
        let vmpl = reader.u32()?;
        let signature_algorithm = reader.u32()?;
        let current_tcb = Tcb::parse(reader.octets()?, layout)?;
        let platform_info = reader.u64()?;
        let key_info = KeyInfo(reader.u32()?);
        // GUARD: key-info-reserved-zero -> evil_report_reserved_bytes_are_refused
        if key_info.0 >> 5 != 0 {
            return Err(EvidenceError::ReservedNotZero { what: "SNP key info", offset: 0x48, found: 0xff });
        }
        reader.reserved(4)?;
        let report_data = reader.octets()?;
        let measurement = reader.octets()?;
        let host_data = reader.octets()?;
        let id_key_digest = reader.octets()?;
        let author_key_digest = reader.octets()?;
        let report_id = reader.octets()?;
        let report_id_ma = reader.octets()?;
        let reported_tcb = Tcb::parse(reader.octets()?, layout)?;
        let cpuid = if version == 2 { None } else { Some(reader.array()?) };
        reader.reserved(if version == 2 { 24 } else { 21 })?;
        let chip_id = reader.octets()?;
        let committed_tcb = Tcb::parse(reader.octets()?, layout)?;
        let current = firmware_version(reader.array()?);
        reader.reserved(1)?;
        let committed = firmware_version(reader.array()?);
        reader.reserved(1)?;
        let launch_tcb = Tcb::parse(reader.octets()?, layout)?;
        let mitigations = if version < 5 { None } else { Some([reader.u64()?, reader.u64()?]) };
        reader.reserved(if version < 5 { 168 } else { 152 })?;
        let signature_r = signature_half(reader.octets()?, SIGNED_BYTES)?;
        let signature_s = signature_half(reader.octets()?, SIGNED_BYTES + 72)?;
        reader.reserved(368)?;
        reader.finish()?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            signature_algorithm,
            current_tcb,
            platform_info,
            key_info,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            cpuid,
            chip_id,
            committed_tcb,
            current,
            committed,
            launch_tcb,
            mitigations,
            signature_r,
            signature_s,
        })
    }

    /// The report's 1184 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(REPORT_BYTES);
        out.extend(self.version.to_le_bytes());
        out.extend(self.guest_svn.to_le_bytes());
        out.extend(self.policy.0.to_le_bytes());
        out.extend(self.family_id.0);
        out.extend(self.image_id.0);
        out.extend(self.vmpl.to_le_bytes());
        out.extend(self.signature_algorithm.to_le_bytes());
        out.extend(self.current_tcb.encode().0);
        out.extend(self.platform_info.to_le_bytes());
        out.extend(self.key_info.0.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.report_data.0);
        out.extend(self.measurement.0);
        out.extend(self.host_data.0);
        out.extend(self.id_key_digest.0);
        out.extend(self.author_key_digest.0);
        out.extend(self.report_id.0);
        out.extend(self.report_id_ma.0);
        out.extend(self.reported_tcb.encode().0);
        out.extend(self.cpuid.unwrap_or_default());
        out.extend([0; 21]);
        out.extend(self.chip_id.0);
        out.extend(self.committed_tcb.encode().0);
        let version = |v: FirmwareVersion| [v.build, v.minor, v.major, 0];
        out.extend(version(self.current));
        out.extend(version(self.committed));
        out.extend(self.launch_tcb.encode().0);
        let mitigations = self.mitigations.unwrap_or_default();
        mitigations.iter().for_each(|vector| out.extend(vector.to_le_bytes()));
        out.extend([0; 152]);
        out.extend(self.signature_r.0);
        out.extend(self.signature_s.0);
        out.extend([0; 368]);
        out
    }

    /// The generation, where the report says it: not in version 2, which does not tell Milan from Genoa.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        let [family, model, _] = self.cpuid?;
        Generation::of_cpuid(family, model)
    }
}

/// The generation that decides the layout of TCB versions; Milan and Genoa share theirs.
fn layout_generation(version: u32, bytes: &[u8]) -> Result<Generation, EvidenceError> {
    if version == 2 {
        let chip_id = Octets::<64>::fitted(bytes.get(0x1a0..0x1e0).unwrap_or_default());
        // GUARD: masked-chip-id-version-2 -> evil_version_2_with_masked_chip_id_is_refused
        if chip_id.is_zero() {
            return Err(unsupported("SNP report version 2", "a chip id that is not masked", chip_id));
        }
        let tail = chip_id.0.iter().skip(8).any(|byte| *byte != 0);
        return Ok(if tail { Generation::Genoa } else { Generation::Turin });
    }
    let cpuid = Octets::<2>::fitted(bytes.get(0x188..0x18a).unwrap_or_default());
    let [family, model] = cpuid.0;
    Generation::of_cpuid(family, model)
        .ok_or_else(|| unsupported("SNP processor family and model", "Milan, Genoa or Turin", cpuid))
}

/// 48 bytes of P-384 in a field of 72. The others are not signed and not looked at by whoever verifies.
fn signature_half(half: Octets<72>, start: usize) -> Result<Octets<72>, EvidenceError> {
    let set = half.0.iter().enumerate().skip(48).find(|(_, byte)| **byte != 0);
    // GUARD: signature-padding-zero -> evil_report_reserved_bytes_are_refused
    if let Some((index, found)) = set {
        return Err(EvidenceError::ReservedNotZero {
            what: "SNP report",
            offset: start + index,
            found: *found,
        });
    }
    Ok(half)
}

const fn firmware_version([build, minor, major]: [u8; 3]) -> FirmwareVersion {
    FirmwareVersion { major, minor, build }
}

fn unsupported(what: &'static str, expected: &'static str, found: impl fmt::Display) -> EvidenceError {
    EvidenceError::Unsupported { what, expected, found: Found::value(found) }
}
