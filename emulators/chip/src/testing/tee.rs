//! Emulated TEEs and what their guests present.

use evidence::Octets;
use evidence::abi::presentation::{Presentation, PresentedEvidence};
use evidence::abi::snp::{Generation, SnpReport};
use evidence::abi::tdx::TdBody;
use evidence::mint::snp::{RsaKey, SnpPlatform};
use evidence::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use evidence::verify::roots::{Roots, SnpRoots, TdxRoot};
use evidence::verify::snp::{SnpCollateral, VekKind};
use sealed_artifact::policy::{PolicyDocument, TEMPLATE};
use sha2::{Digest, Sha512};

use super::Guest;

pub(crate) const ISSUED: u64 = 1_790_000_000;
pub(crate) const EXPIRES: u64 = ISSUED + 2_000_000;

/// One platform of each kind.
pub(crate) struct Tees {
    pub(crate) tdx: TdxPlatform,
    pub(crate) snp: SnpPlatform,
}

impl Tees {
    pub(crate) fn new() -> Self {
        Self { tdx: TdxPlatform::new("chip", ISSUED, EXPIRES).unwrap(), snp: snp(VekKind::Vcek) }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots {
            snp: SnpRoots::danger_emulator(vec![self.snp.root().unwrap()]),
            tdx: Some(TdxRoot::danger_emulator(self.tdx.root_der().unwrap())),
        }
    }

    /// What a guest of this session presents, TDX.
    pub(crate) fn of_tdx(&self, guest: &Guest, change: impl FnOnce(&mut TdBody)) -> Presentation {
        let mut body = TdBody {
            td_attributes: SEPT_VE_DISABLE,
            mr_td: Octets([0x11; 48]),
            mr_config_id: Octets([0x22; 48]),
            report_data: Octets(report_data(guest)),
            ..TdBody::default()
        };
        change(&mut body);
        let quote = self.tdx.quote(body).unwrap().encode();
        let collateral = self.tdx.collateral().unwrap().encode();
        Presentation { evidence: PresentedEvidence::Tdx { quote, collateral }, event_log: None }
    }

    /// What a guest of this session presents, SNP.
    pub(crate) fn of_snp(&self, guest: &Guest, change: impl FnOnce(&mut SnpReport)) -> Presentation {
        let mut report = SnpReport {
            report_data: Octets(report_data(guest)),
            measurement: Octets([0x11; 48]),
            host_data: Octets([0x22; 32]),
            ..self.snp.report(3)
        };
        change(&mut report);
        let report = self.snp.sign(report).unwrap().encode();
        let SnpCollateral { ask, crl, kind, vek, .. } = self.snp.collateral().unwrap();
        Presentation { evidence: PresentedEvidence::Snp { report, kind, vek, ask, crl }, event_log: None }
    }
}

pub(crate) fn snp(kind: VekKind) -> SnpPlatform {
    let ark = include_bytes!("../../../../tests/vectors/evidence/keys/insecure-test-ark.pk8");
    let ask = include_bytes!("../../../../tests/vectors/evidence/keys/insecure-test-ask.pk8");
    let keys = (RsaKey::from_pkcs8(ark).unwrap(), RsaKey::from_pkcs8(ask).unwrap());
    SnpPlatform::new(keys, (Generation::Milan, kind), "chip", ISSUED, EXPIRES).unwrap()
}

/// The form of the specification, made beside the chip.
pub(crate) fn report_data(guest: &Guest) -> [u8; 64] {
    form(&[b"innerkeep chip session v1", &guest.transcript])
}

pub(crate) fn form(parts: &[&[u8]]) -> [u8; 64] {
    Sha512::digest(parts.concat()).into()
}

/// The template of policies for measured guests; each change is a whole line, found by its member.
pub(crate) fn demanding(changes: &[&str]) -> PolicyDocument {
    let measured = format!("{{ exactly = \"{}\" }}", "11".repeat(48));
    let initdata = format!("initdata = {{ exactly = \"{}\" }}", "22".repeat(48));
    let first = [
        "environment = \"any\"".to_owned(),
        "family = \"any\"".to_owned(),
        initdata,
        format!("mrtd = {measured}"),
        format!("measurement = {measured}"),
    ];
    let mut text = TEMPLATE.to_owned();
    for change in first.iter().map(String::as_str).chain(changes.iter().copied()) {
        let member = change.split('=').next().unwrap();
        let line = text.lines().find(|line| line.starts_with(member)).unwrap().to_owned();
        text = text.replacen(&line, change, 1);
    }
    PolicyDocument::from_toml(&text).unwrap()
}
