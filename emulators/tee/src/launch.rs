//! The launch file: what the emulated host started, on a platform of which state. Strict TOML; every member has a
//! default.

mod values;

use anyhow::{Context, bail};
use clap::ValueEnum;
use evidence::Octets;
use evidence::abi::snp::{Generation, Tcb};
use evidence::verify::snp::VekKind;
use serde::Deserialize;
use toml::value::Datetime;

pub use values::TcbStatus;
use values::{bytes, generation, key, octets, option_octets, seconds};

/// Largest launch file that is read.
pub const MAXIMUM_LAUNCH_BYTES: u64 = 65_536;
const DAY: u64 = 86_400;
/// Certificates hold from 2020-01-01 …
pub(crate) const CERTIFICATES_ISSUED: u64 = 1_577_836_800;
/// … to 2049-12-31, unless the launch file says otherwise about those of keys that sign evidence.
pub(crate) const CERTIFICATES_EXPIRE: u64 = 2_524_521_600;

/// Kind of the emulated TEE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TeeKind {
    /// Intel TDX.
    #[default]
    Tdx,
    /// AMD SEV-SNP.
    Snp,
}

/// A launch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Launch {
    /// Kind of the guest.
    pub tee: TeeKind,
    /// Digest of initdata, any length up to 64 bytes; cut or padded into MRCONFIGID or HOST_DATA.
    #[serde(deserialize_with = "bytes")]
    pub initdata_digest: Vec<u8>,
    /// Whether the host may debug the guest.
    pub debug: bool,
    /// Dates of what signs and is signed.
    pub dates: Dates,
    /// A TDX guest and its platform.
    pub tdx: TdxLaunch,
    /// An SNP guest and its platform.
    pub snp: SnpLaunch,
}

/// Dates; each a TOML date-time in UTC.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dates {
    /// Issue of revocation lists, TCB info and QE identity; default: a day ago.
    pub issued: Option<Datetime>,
    /// Their end; default: in 30 days.
    pub expires: Option<Datetime>,
    /// First second of the certificates of signing keys (PCK, TCB signer, VCEK, VLEK); default: 2020-01-01.
    pub certificates_issued: Option<Datetime>,
    /// Their end; default: 2049-12-31.
    pub certificates_expire: Option<Datetime>,
}

/// A TDX guest and its platform.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxLaunch {
    /// Version of quotes, 4 or 5.
    pub quote: u16,
    /// Body of quotes, `1.0`, `1.5` or `1.5-extended`; beyond 1.0 only in version 5.
    pub body: TdxBody,
    /// Build-time measurement.
    #[serde(deserialize_with = "octets")]
    pub mrtd: Octets<48>,
    /// Owner.
    #[serde(deserialize_with = "octets")]
    pub mrowner: Octets<48>,
    /// Configuration of the owner.
    #[serde(deserialize_with = "octets")]
    pub mrownerconfig: Octets<48>,
    /// Measurement of the TDX module.
    #[serde(deserialize_with = "octets")]
    pub mr_seam: Octets<48>,
    /// Extended features.
    #[serde(deserialize_with = "octets")]
    pub xfam: Octets<8>,
    /// What the firmware, the loader and the kernel measure: the kernel's command line, in RTMR 2.
    pub command_line: String,
    /// Security versions of the TDX module. The second byte is 0: the collateral has no module identities.
    #[serde(deserialize_with = "octets")]
    pub tee_tcb_svn: Octets<16>,
    /// Status of the platform's TCB level in the TCB info.
    pub tcb_status: TcbStatus,
    /// TCB-evaluation number of TCB info and QE identity.
    pub tcb_evaluation: u32,
    /// Number of the PCK CA's revocation list.
    pub pck_crl: u64,
    /// Number of the root's revocation list.
    pub root_crl: u64,
    /// Whether the PCK certificate is revoked.
    pub pck_revoked: bool,
}

/// Body of quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TdxBody {
    /// TDX 1.0.
    #[default]
    #[serde(rename = "1.0")]
    Td10,
    /// TDX 1.5.
    #[serde(rename = "1.5")]
    Td15,
    /// TDX 1.5, extended.
    #[serde(rename = "1.5-extended")]
    Td15Extended,
}

/// An SNP guest and its platform.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpLaunch {
    /// Which processor: `milan`, `genoa`, `turin`.
    #[serde(deserialize_with = "generation")]
    pub generation: Generation,
    /// Version of reports, 2 to 5.
    pub report_version: u32,
    /// Which key signs: `vcek` or `vlek`.
    #[serde(deserialize_with = "key")]
    pub key: VekKind,
    /// Launch measurement.
    #[serde(deserialize_with = "octets")]
    pub measurement: Octets<48>,
    /// Guest policy; bit 17 has to be one.
    pub guest_policy: u64,
    /// Security version of the guest.
    pub guest_svn: u32,
    /// Family, by the guest's owner.
    #[serde(deserialize_with = "octets")]
    pub family_id: Octets<16>,
    /// Image, by the guest's owner.
    #[serde(deserialize_with = "octets")]
    pub image_id: Octets<16>,
    /// Digest of the id key.
    #[serde(deserialize_with = "octets")]
    pub id_key_digest: Octets<48>,
    /// Digest of the author key; zero: none.
    #[serde(deserialize_with = "octets")]
    pub author_key_digest: Octets<48>,
    /// Chip id; default: follows from the state directory's seed. On Turin its first 8 bytes.
    #[serde(deserialize_with = "option_octets")]
    pub chip_id: Option<Octets<64>>,
    /// TCB: current, committed, launch and reported alike.
    pub tcb: SnpTcb,
    /// Number of the revocation list.
    pub crl: u64,
    /// Whether the intermediate (ASK, ASVK) is revoked.
    pub ask_revoked: bool,
}

/// A TCB version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnpTcb {
    /// Firmware of the microcontroller; used on Turin.
    pub fmc: u8,
    /// Boot loader.
    pub bootloader: u8,
    /// Trusted operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Default for TdxLaunch {
    fn default() -> Self {
        Self {
            quote: 4,
            body: TdxBody::Td10,
            mrtd: Octets([0x11; 48]),
            mrowner: Octets::default(),
            mrownerconfig: Octets::default(),
            mr_seam: Octets([0x5e; 48]),
            xfam: Octets([0xe7, 0, 6, 0, 0, 0, 0, 0]),
            command_line: "console=hvc0 root=/dev/mapper/root ro".to_owned(),
            tee_tcb_svn: Octets([5, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            tcb_status: TcbStatus("UpToDate"),
            tcb_evaluation: 17,
            pck_crl: 9,
            root_crl: 7,
            pck_revoked: false,
        }
    }
}

impl Default for SnpLaunch {
    fn default() -> Self {
        Self {
            generation: Generation::Milan,
            report_version: 3,
            key: VekKind::Vcek,
            measurement: Octets([0x11; 48]),
            guest_policy: 0x3_0000,
            guest_svn: 0,
            family_id: Octets::default(),
            image_id: Octets::default(),
            id_key_digest: Octets::default(),
            author_key_digest: Octets::default(),
            chip_id: None,
            tcb: SnpTcb::default(),
            crl: 5,
            ask_revoked: false,
        }
    }
}

impl Default for SnpTcb {
    fn default() -> Self {
        Self { fmc: 1, bootloader: 3, tee: 2, snp: 20, microcode: 209 }
    }
}

impl Launch {
    /// Parses a launch file.
    ///
    /// # Errors
    /// For text of another form and for combinations that no platform has.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let launch: Self = toml::from_str(text).context("launch file")?;
        let (tdx, snp) = (&launch.tdx, &launch.snp);
        if !matches!((tdx.quote, tdx.body), (4, TdxBody::Td10) | (5, _)) {
            bail!("launch file: tdx: version 4 has body 1.0, version 5 any; found version {}", tdx.quote);
        }
        let [_, module, ..] = tdx.tee_tcb_svn.0;
        if module != 0 {
            bail!("launch file: tdx.tee_tcb_svn: expected 0 in the second byte, found {module}");
        }
        if !(2..=5).contains(&snp.report_version) {
            bail!("launch file: snp.report_version: expected 2 to 5, found {}", snp.report_version);
        }
        if snp.guest_policy & (1 << 17) == 0 {
            bail!("launch file: snp.guest_policy: expected bit 17 to be one, found {:#x}", snp.guest_policy);
        }
        let chip_id = snp.chip_id.map_or([0; 64], |id| id.0);
        let longer = chip_id.iter().skip(8).any(|byte| *byte != 0);
        if snp.chip_id.is_some() && longer == (snp.generation == Generation::Turin) {
            bail!("launch file: snp.chip_id: expected 64 bytes, on Turin 8 and zeros");
        }
        Ok(launch)
    }

    /// The launch file of a new platform: everything at its default, as comments.
    #[must_use]
    pub fn template(tee: TeeKind) -> String {
        let text = include_str!("launch/default.toml");
        match tee {
            TeeKind::Tdx => text.to_owned(),
            TeeKind::Snp => text.replacen("tee = \"tdx\"", "tee = \"snp\"", 1),
        }
    }
}

impl Dates {
    /// Dates of lists and collateral.
    pub(crate) fn collateral(&self, now: u64) -> anyhow::Result<(u64, u64)> {
        let issued = self.issued.as_ref().map_or(Ok(now.saturating_sub(DAY)), seconds)?;
        let expires = self.expires.as_ref().map_or(Ok(now.saturating_add(30 * DAY)), seconds)?;
        Ok((issued, expires))
    }

    /// Dates of the certificates of signing keys.
    pub(crate) fn certificates(&self) -> anyhow::Result<(u64, u64)> {
        let issued = self.certificates_issued.as_ref().map_or(Ok(CERTIFICATES_ISSUED), seconds)?;
        let expires = self.certificates_expire.as_ref().map_or(Ok(CERTIFICATES_EXPIRE), seconds)?;
        Ok((issued, expires))
    }
}

impl SnpTcb {
    /// As reports of a generation have it.
    pub(crate) fn of(self, generation: Generation) -> Tcb {
        Tcb {
            fmc: (generation == Generation::Turin).then_some(self.fmc),
            bootloader: self.bootloader,
            tee: self.tee,
            snp: self.snp,
            microcode: self.microcode,
        }
    }
}

#[cfg(test)]
mod tests;
