//! Emulated platforms for the tests of this crate.

use crate::abi::snp::{Generation, SnpReport};
use crate::abi::tdx::TdBody;
use crate::bytes::Octets;
use crate::error::EvidenceError;
use crate::mint::snp::{RsaKey, SnpPlatform};
use crate::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use crate::verify::roots::{SnpRoots, TdxRoot};
use crate::verify::snp::VekKind;

pub(crate) const ISSUED: u64 = 1_790_000_000;
pub(crate) const NOW: u64 = ISSUED + 1000;
pub(crate) const EXPIRES: u64 = ISSUED + 2_000_000;

pub(crate) fn tdx() -> TdxPlatform {
    TdxPlatform::new("tests", ISSUED, EXPIRES).unwrap()
}

pub(crate) fn tdx_root(platform: &TdxPlatform) -> TdxRoot {
    TdxRoot::danger_emulator(platform.root_der().unwrap())
}

pub(crate) fn body() -> TdBody {
    TdBody {
        td_attributes: SEPT_VE_DISABLE,
        xfam: Octets([0xe7, 0, 6, 0, 0, 0, 0, 0]),
        mr_td: Octets([0x11; 48]),
        mr_config_id: Octets([0x22; 48]),
        rtmr: [Octets([1; 48]), Octets([2; 48]), Octets([3; 48]), Octets([4; 48])],
        report_data: Octets([0x5a; 64]),
        ..TdBody::default()
    }
}

pub(crate) fn keys() -> (RsaKey, RsaKey) {
    let ark = include_bytes!("../../tests/vectors/evidence/keys/insecure-test-ark.pk8");
    let ask = include_bytes!("../../tests/vectors/evidence/keys/insecure-test-ask.pk8");
    (RsaKey::from_pkcs8(ark).unwrap(), RsaKey::from_pkcs8(ask).unwrap())
}

pub(crate) fn snp(generation: Generation, kind: VekKind) -> SnpPlatform {
    SnpPlatform::new(keys(), (generation, kind), "tests", ISSUED, EXPIRES).unwrap()
}

pub(crate) fn milan() -> SnpPlatform {
    snp(Generation::Milan, VekKind::Vcek)
}

pub(crate) fn snp_roots(platform: &SnpPlatform) -> SnpRoots {
    SnpRoots::danger_emulator(vec![platform.root().unwrap()])
}

pub(crate) fn report(platform: &SnpPlatform, version: u32) -> SnpReport {
    SnpReport {
        report_data: Octets([0x5a; 64]),
        measurement: Octets([0x11; 48]),
        host_data: Octets([0x22; 32]),
        guest_svn: 3,
        ..platform.report(version)
    }
}

/// The code of the error, or `OK`.
pub(crate) fn code<T>(result: Result<T, EvidenceError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "OK")
}

pub(crate) fn genuine(name: &str) -> Vec<u8> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/evidence/genuine/");
    std::fs::read(format!("{directory}{name}")).unwrap()
}
