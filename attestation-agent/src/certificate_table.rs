//! The table of certificates that the host delivers beside an SNP report: GUID, offset, length; an entry of zeros
//! ends it. Every byte of it is the host's.

use evidence::abi::json::{MAXIMUM_CERTIFICATES, SnpCertificate, SnpCertificateKind};

use crate::error::TeeError;

/// Longest table, certificates included.
pub(crate) const MAXIMUM_TABLE_BYTES: usize = 64 * 1024;
const ENTRY_BYTES: usize = 24;

const ARK: [u8; 16] = *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";
const ASK: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";
const CRL: [u8; 16] = *b"\x92\xf8\x1b\xc3\x58\x11\x4d\x3d\x97\xff\xd1\x9f\x88\xdc\x67\xea";
const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
const VLEK: [u8; 16] = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";

/// The certificates of a table; nothing where the host delivered none.
///
/// # Errors
/// `ATTEST_CERTIFICATE_TABLE`, `ATTEST_TOO_LARGE`.
pub(crate) fn parse(table: &[u8]) -> Result<Option<Vec<SnpCertificate>>, TeeError> {
    // GUARD: certificate-table-cap -> evil_host_certificate_table_oversize
    if table.len() > MAXIMUM_TABLE_BYTES {
        return Err(TeeError::TooLarge { what: "certificate table", maximum: MAXIMUM_TABLE_BYTES });
    }
    if table.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let entries = entries(table)?;
    let header = (entries.len() + 1) * ENTRY_BYTES;
    let mut certificates: Vec<SnpCertificate> = Vec::with_capacity(entries.len());
    let mut spans: Vec<(usize, usize)> = Vec::with_capacity(entries.len());
    for (guid, start, length) in entries {
        let end = start.saturating_add(length);
        let data = table.get(start..end).ok_or_else(|| refused("an entry beyond the end of the table"))?;
        // GUARD: certificate-table-header -> evil_host_certificate_table_names_its_own_header
        if start < header || data.is_empty() {
            return Err(refused("an entry that is empty or lies inside the entries"));
        }
        // GUARD: certificate-table-overlap -> evil_host_certificate_table_overlaps
        if spans.iter().any(|(other, other_end)| start < *other_end && *other < end) {
            return Err(refused("entries that overlap"));
        }
        let kind = kind(guid);
        // GUARD: certificate-table-duplicate -> evil_host_certificate_table_repeats
        if certificates.iter().any(|certificate| certificate.kind == kind) {
            return Err(refused("two certificates of a kind"));
        }
        spans.push((start, end));
        certificates.push(SnpCertificate { kind, data: data.to_vec() });
    }
    Ok((!certificates.is_empty()).then_some(certificates))
}

/// The entries before the one of zeros.
fn entries(table: &[u8]) -> Result<Vec<([u8; 16], usize, usize)>, TeeError> {
    let mut entries = Vec::new();
    let mut rest = table;
    loop {
        let (guid, tail) = rest.split_first_chunk::<16>().ok_or_else(unterminated)?;
        let (offset, tail) = tail.split_first_chunk::<4>().ok_or_else(unterminated)?;
        let (length, tail) = tail.split_first_chunk::<4>().ok_or_else(unterminated)?;
        let [offset, length] =
            [offset, length].map(|field| usize::try_from(u32::from_le_bytes(*field)).unwrap_or(usize::MAX));
        if *guid == [0; 16] {
            // GUARD: certificate-table-end -> evil_host_certificate_table_end_is_not_zero
            if offset != 0 || length != 0 {
                return Err(refused("an ending entry that is not zero"));
            }
            return Ok(entries);
        }
        // GUARD: certificate-table-count -> evil_host_certificate_table_oversize
        if entries.len() >= MAXIMUM_CERTIFICATES {
            return Err(refused("more than 8 entries"));
        }
        entries.push((*guid, offset, length));
        rest = tail;
    }
}

fn kind(guid: [u8; 16]) -> SnpCertificateKind {
    match guid {
        ARK => SnpCertificateKind::Ark,
        ASK => SnpCertificateKind::Ask,
        CRL => SnpCertificateKind::Crl,
        VCEK => SnpCertificateKind::Vcek,
        VLEK => SnpCertificateKind::Vlek,
        other => {
            let text = hex::encode(other);
            let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
            let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
            SnpCertificateKind::Other(parts.join("-"))
        }
    }
}

fn unterminated() -> TeeError {
    refused("no ending entry")
}

fn refused(reason: &'static str) -> TeeError {
    TeeError::CertificateTable { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[([u8; 16], u32, u32)], data: &[u8]) -> Vec<u8> {
        let mut table = Vec::new();
        for (guid, offset, length) in entries.iter().chain([&([0; 16], 0, 0)]) {
            table.extend(guid);
            table.extend(offset.to_le_bytes());
            table.extend(length.to_le_bytes());
        }
        table.extend(data);
        table
    }

    fn code(table: &[u8]) -> &'static str {
        parse(table).map_or_else(|error| error.code(), |_| "OK")
    }

    #[test]
    fn certificates_are_found_and_sorted_by_their_guid() {
        let other = [0x11; 16];
        let bytes = table(&[(VCEK, 120, 3), (ASK, 123, 2), (other, 125, 1), (CRL, 96 + 24, 0)], b"abcdef");
        assert_eq!(code(&bytes), "ATTEST_CERTIFICATE_TABLE", "an empty one");
        let bytes = table(&[(VCEK, 96, 3), (ASK, 99, 2), (other, 101, 1)], b"abcdef");
        let found = parse(&bytes).unwrap().unwrap();
        let kinds: Vec<_> = found.iter().map(|certificate| certificate.kind.clone()).collect();
        let uuid = "11111111-1111-1111-1111-111111111111".to_owned();
        let expected = [SnpCertificateKind::Vcek, SnpCertificateKind::Ask, SnpCertificateKind::Other(uuid)];
        assert_eq!(kinds, expected);
        assert_eq!(found.first().unwrap().data, b"abc");
    }

    #[test]
    fn no_table_is_no_certificates() {
        assert_eq!(parse(&[]).unwrap(), None);
        assert_eq!(parse(&[0; 4096]).unwrap(), None);
    }

    #[test]
    fn evil_host_certificate_table_oversize() {
        let mut long = table(&[(VCEK, 48, 3)], b"abc");
        long.resize(MAXIMUM_TABLE_BYTES + 1, 0);
        assert_eq!(code(&long), "ATTEST_TOO_LARGE");
        let many: Vec<_> = (1..=9).map(|index| ([index; 16], 240 + u32::from(index), 1)).collect();
        assert_eq!(code(&table(&many, &[1; 16])), "ATTEST_CERTIFICATE_TABLE");
    }

    #[test]
    fn evil_host_certificate_table_reaches_beyond_its_end() {
        for (offset, length) in [(48, 4), (51, 1), (u32::MAX, 1), (48, u32::MAX), (u32::MAX, u32::MAX)] {
            assert_eq!(code(&table(&[(VCEK, offset, length)], b"abc")), "ATTEST_CERTIFICATE_TABLE");
        }
    }

    #[test]
    fn evil_host_certificate_table_names_its_own_header() {
        assert_eq!(code(&table(&[(VCEK, 0, 3)], b"abc")), "ATTEST_CERTIFICATE_TABLE");
        assert_eq!(code(&table(&[(VCEK, 47, 3)], b"abc")), "ATTEST_CERTIFICATE_TABLE");
        assert_eq!(code(&table(&[(VCEK, 48, 0)], b"abc")), "ATTEST_CERTIFICATE_TABLE");
    }

    #[test]
    fn evil_host_certificate_table_overlaps() {
        assert_eq!(code(&table(&[(VCEK, 72, 3), (ASK, 74, 2)], b"abcdef")), "ATTEST_CERTIFICATE_TABLE");
    }

    #[test]
    fn evil_host_certificate_table_repeats() {
        assert_eq!(code(&table(&[(VCEK, 72, 3), (VCEK, 75, 2)], b"abcdef")), "ATTEST_CERTIFICATE_TABLE");
    }

    #[test]
    fn evil_host_certificate_table_end_is_not_zero() {
        for offset_or_length in [40, 44] {
            let mut bytes = table(&[(VCEK, 48, 3)], b"abc");
            assert_eq!(code(&bytes), "OK");
            *bytes.get_mut(offset_or_length).unwrap() = 1;
            assert_eq!(code(&bytes), "ATTEST_CERTIFICATE_TABLE");
        }
    }

    #[test]
    fn evil_host_certificate_table_without_an_end() {
        let bytes = table(&[(VCEK, 24, 3)], b"");
        assert_eq!(code(bytes.get(..24).unwrap()), "ATTEST_CERTIFICATE_TABLE");
        assert_eq!(code(bytes.get(..47).unwrap()), "ATTEST_CERTIFICATE_TABLE");
    }
}
