//! The certificate table that an SNP host hands to its guest, in the form of the GHCB specification: entries of GUID,
//! offset and length (little-endian), one of zeros, then the certificates.

use evidence::verify::snp::{SnpCollateral, VekKind};

use crate::faults::{Faults, Kind};

const ENTRY_BYTES: usize = 24;
/// GUIDs, their bytes in the order of their text.
const ARK: u128 = 0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae;
const ASK: u128 = 0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782;
const VCEK: u128 = 0x63da_758d_e664_4564_adc5_f4b9_3be8_accd;
const VLEK: u128 = 0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1;

struct Entry<'a> {
    guid: u128,
    offset: usize,
    length: usize,
    data: &'a [u8],
}

/// The table with the faults of the plan.
pub(super) fn table(collateral: &SnpCollateral, faults: &Faults) -> Vec<u8> {
    if faults.take(Kind::CertificatesAbsent).is_some() {
        return Vec::new();
    }
    let vek = match collateral.kind {
        VekKind::Vcek => VCEK,
        VekKind::Vlek => VLEK,
    };
    let vek = faults.take(Kind::CertificateMissing).is_none().then_some((vek, &collateral.vek));
    let others = [(ASK, &collateral.ask), (ARK, &collateral.ark)];
    let others = others.into_iter().filter_map(|(guid, data)| data.as_ref().map(|data| (guid, data)));
    let certificates: Vec<_> = vek.into_iter().chain(others).collect();
    let terminator = usize::from(faults.take(Kind::CertificateUnterminated).is_none());
    let mut end = ENTRY_BYTES * (certificates.len() + terminator);
    let mut entries = Vec::new();
    for (guid, data) in certificates {
        entries.push(Entry { guid, offset: end, length: data.len(), data });
        end += data.len();
    }
    if let [first, rest @ ..] = entries.as_mut_slice() {
        if let Some(fault) = faults.take(Kind::CertificateLength) {
            first.length = fault.length_or(end + 1);
        }
        if let (Some(_), [second, ..]) = (faults.take(Kind::CertificateOverlap), rest) {
            second.offset = first.offset + 1;
        }
        if let Some(fault) = faults.take(Kind::CertificateOffset) {
            first.offset = fault.length_or(end + 4096);
        }
    }
    encode(&entries, terminator)
}

fn encode(entries: &[Entry<'_>], terminator: usize) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    for entry in entries {
        out.extend(entry.guid.to_be_bytes());
        out.extend(number(entry.offset));
        out.extend(number(entry.length));
    }
    out.resize(out.len() + ENTRY_BYTES * terminator, 0);
    entries.iter().for_each(|entry| out.extend(entry.data));
    out
}
