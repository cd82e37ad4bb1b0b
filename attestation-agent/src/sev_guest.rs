//! SNP reports and derived keys by the ioctls of `/dev/sev-guest`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use evidence::abi::snp::REPORT_BYTES;
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::certificate_table;
use crate::derived_key::DerivedKeyRequest;
use crate::error::TeeError;
use crate::ioctl::{
    SNP_KEY_REQUEST_BYTES, SNP_KEY_RESPONSE_BYTES, SNP_REPORT_REQUEST_BYTES, SNP_REPORT_RESPONSE_BYTES,
    SnpFailure, snp_derived_key, snp_extended_report, snp_report,
};
use crate::received::Evidence;
use crate::report_data::ReportData;

/// Most bytes of certificates that the driver passes on, and the unit of that.
const MAXIMUM_CERTIFICATE_BYTES: usize = 0x4000;
const PAGE: usize = 4096;
/// What the hypervisor answers if the room for certificates is too small (upper half of the exit information).
const INVALID_LENGTH: u64 = 1;
const MESSAGE_HEADER_BYTES: usize = 32;
/// Exit information of the driver itself: the firmware was not asked (0xff; minus one where it failed on the way).
const FIRMWARE_NOT_ASKED: [u64; 4] = [0, 0xff, 0xffff_ffff, u64::MAX];

/// The device of the SNP guest driver.
#[derive(Clone, Debug)]
pub(crate) struct SevGuest {
    path: PathBuf,
}

impl SevGuest {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Whether the device is there.
    ///
    /// # Errors
    /// `ATTEST_TEE_IO`.
    pub(crate) fn is_there(&self) -> Result<(), TeeError> {
        match std::fs::metadata(&self.path) {
            Ok(_) => Ok(()),
            Err(source) => Err(self.io("look for", source)),
        }
    }

    /// A report about `report_data` for VMPL 0, with the certificates of the host.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub(crate) fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        let device = self.open()?;
        let request = encode_report_request(report_data);
        let mut response = [0; SNP_REPORT_RESPONSE_BYTES];
        let mut certificates = Vec::new();
        let mut result = snp_extended_report(&device, &request, &mut certificates, &mut response);
        if let Err(failure) = result
            && let Some(room) = room_for(failure)?
        {
            certificates.resize(room, 0);
            result = snp_extended_report(&device, &request, &mut certificates, &mut response);
        }
        if result.is_err() {
            // A host without support for extended reports still passes plain ones on.
            certificates.clear();
            result = snp_report(&device, &request, &mut response);
        }
        result.map_err(|failure| self.failed("ask for a report from", failure))?;
        let report = decode_report_response(&response)?;
        Evidence::snp(report, certificate_table::parse(&certificates)?, report_data)
    }

    /// 32 bytes that the firmware derives; they are moved into protected memory by the caller.
    ///
    /// # Errors
    /// See [`TeeError`].
    pub(crate) fn derive(&self, request: &DerivedKeyRequest) -> Result<Zeroizing<[u8; 32]>, TeeError> {
        let device = self.open()?;
        let request = encode_key_request(request);
        let mut response = Zeroizing::new([0; SNP_KEY_RESPONSE_BYTES]);
        let result = snp_derived_key(&device, &request, &mut response);
        result.map_err(|failure| self.failed("ask for a derived key from", failure))?;
        decode_key_response(&response)
    }

    fn open(&self) -> Result<File, TeeError> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        opened.map_err(|source| self.io("open", source))
    }

    fn failed(&self, action: &'static str, failure: SnpFailure) -> TeeError {
        if !FIRMWARE_NOT_ASKED.contains(&failure.exit_info) {
            return TeeError::Firmware { operation: action, status: failure.exit_info };
        }
        self.io(action, failure.errno.into())
    }

    fn io(&self, action: &'static str, source: io::Error) -> TeeError {
        let path = self.path.display().to_string();
        let advice = match source.kind() {
            io::ErrorKind::NotFound => "no guest driver of SEV-SNP has made it",
            _ => "only root may use the guest driver of SEV-SNP; look at the kernel log",
        };
        TeeError::Io { action, path, advice, source }
    }
}

/// The room that certificates need, if too little of it was the failure.
fn room_for(failure: SnpFailure) -> Result<Option<usize>, TeeError> {
    if failure.errno != Errno::IO && failure.errno != Errno::NOSPC {
        return Ok(None);
    }
    if failure.exit_info >> 32 != INVALID_LENGTH {
        return Ok(None);
    }
    let wanted = usize::try_from(failure.wanted).unwrap_or(usize::MAX);
    // GUARD: certificate-room -> evil_host_certificate_table_wants_too_much
    if wanted > MAXIMUM_CERTIFICATE_BYTES || wanted == 0 {
        return Err(TeeError::TooLarge { what: "certificate table", maximum: MAXIMUM_CERTIFICATE_BYTES });
    }
    Ok(Some(wanted.next_multiple_of(PAGE)))
}

/// `struct snp_report_req`: report data, VMPL 0, reserved.
fn encode_report_request(report_data: &ReportData) -> [u8; SNP_REPORT_REQUEST_BYTES] {
    let mut request = [0; SNP_REPORT_REQUEST_BYTES];
    request.iter_mut().zip(report_data.as_bytes()).for_each(|(to, from)| *to = *from);
    request
}

/// `MSG_REPORT_RSP`: status, size, reserved, report.
fn decode_report_response(response: &[u8]) -> Result<&[u8], TeeError> {
    let (status, rest) = split_status("SNP report", response)?;
    let size = rest.first_chunk::<4>().map(|size| u32::from_le_bytes(*size)).unwrap_or_default();
    if status != 0 {
        return Err(TeeError::Firmware { operation: "SNP report", status: status.into() });
    }
    let report = response.get(MESSAGE_HEADER_BYTES..MESSAGE_HEADER_BYTES + REPORT_BYTES);
    match report {
        Some(report) if usize::try_from(size) == Ok(REPORT_BYTES) => Ok(report),
        _ => Err(TeeError::Empty {
            what: "SNP report",
            found: format!("{size} bytes"),
            cause: "the firmware answers in another format",
        }),
    }
}

/// `struct snp_derived_key_req`: root key, reserved, fields, VMPL, guest SVN, TCB version.
fn encode_key_request(request: &DerivedKeyRequest) -> [u8; SNP_KEY_REQUEST_BYTES] {
    let mut out = [0; SNP_KEY_REQUEST_BYTES];
    let fields = [
        request.root_key.select().to_le_bytes().to_vec(),
        vec![0; 4],
        request.fields.bits().to_le_bytes().to_vec(),
        request.vmpl.to_le_bytes().to_vec(),
        request.guest_svn.to_le_bytes().to_vec(),
        request.tcb_version.to_vec(),
    ];
    out.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = from);
    out
}

/// `MSG_KEY_RSP`: status, reserved, key.
fn decode_key_response(response: &[u8; SNP_KEY_RESPONSE_BYTES]) -> Result<Zeroizing<[u8; 32]>, TeeError> {
    let (status, _) = split_status("derived key", response)?;
    // GUARD: derived-key-status -> evil_host_derived_key_of_a_failed_request
    if status != 0 {
        return Err(TeeError::Firmware { operation: "derived key", status: status.into() });
    }
    let mut key = Zeroizing::new([0; 32]);
    key.iter_mut().zip(response.iter().skip(MESSAGE_HEADER_BYTES)).for_each(|(to, from)| *to = *from);
    // GUARD: derived-key-not-zero -> evil_host_derived_key_of_zeros
    if key.iter().all(|byte| *byte == 0) {
        return Err(TeeError::Empty {
            what: "derived key",
            found: "zeros".to_owned(),
            cause: "the firmware derived nothing",
        });
    }
    Ok(key)
}

fn split_status<'a>(what: &'static str, response: &'a [u8]) -> Result<(u32, &'a [u8]), TeeError> {
    let short = TeeError::Empty { what, found: "nothing".to_owned(), cause: "the driver answered nothing" };
    let (status, rest) = response.split_first_chunk::<4>().ok_or(short)?;
    Ok((u32::from_le_bytes(*status), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derived_key::{GuestFields, RootKey};
    use crate::report_data::Claim;

    #[test]
    fn report_requests_are_byte_exact() {
        let report_data = Claim::ChipSession { transcript: [3; 64] }.report_data();
        let request = encode_report_request(&report_data);
        assert_eq!(request.get(..64).unwrap(), report_data.as_bytes());
        assert_eq!(request.get(64..).unwrap(), [0; 32], "VMPL 0, then reserved bytes");
    }

    #[test]
    fn key_requests_are_byte_exact() {
        let request = DerivedKeyRequest {
            root_key: RootKey::Vmrk,
            vmpl: 2,
            fields: GuestFields::of([GuestFields::MEASUREMENT, GuestFields::TCB_VERSION]),
            guest_svn: 7,
            tcb_version: [8, 7, 6, 5, 4, 3, 2, 1],
        };
        let expected =
            ["01000000", "00000000", "2900000000000000", "02000000", "07000000", "0807060504030201"];
        let found = encode_key_request(&request);
        assert_eq!(hex::encode(found), expected.concat(), "guest policy is always selected");
    }

    #[test]
    fn responses_are_decoded_by_their_status_and_size() {
        let mut response = vec![0; SNP_REPORT_RESPONSE_BYTES];
        response.splice(4..8, 1184u32.to_le_bytes());
        response.splice(32..36, *b"abcd");
        let report = decode_report_response(&response).unwrap();
        assert_eq!((report.len(), report.get(..4).unwrap()), (1184, b"abcd".as_slice()));
        response.splice(4..8, 1183u32.to_le_bytes());
        assert_eq!(decode_report_response(&response).unwrap_err().code(), "ATTEST_EVIDENCE_EMPTY");
        response.splice(0..4, 0x16u32.to_le_bytes());
        assert_eq!(decode_report_response(&response).unwrap_err().code(), "ATTEST_FIRMWARE_REFUSED");
    }

    #[test]
    fn evil_host_derived_key_of_a_failed_request() {
        let mut response = [7; SNP_KEY_RESPONSE_BYTES];
        let code = |response| decode_key_response(response).map(|_| ()).map_err(|error| error.code());
        assert_eq!(code(&response), Err("ATTEST_FIRMWARE_REFUSED"));
        response.first_chunk_mut::<4>().unwrap().fill(0);
        assert_eq!(*decode_key_response(&response).unwrap(), [7; 32]);
    }

    #[test]
    fn evil_host_derived_key_of_zeros() {
        let error = decode_key_response(&[0; SNP_KEY_RESPONSE_BYTES]).unwrap_err();
        assert_eq!(error.code(), "ATTEST_EVIDENCE_EMPTY");
    }

    #[test]
    fn an_error_of_the_driver_is_no_status_of_the_firmware() {
        let device = SevGuest::new("/dev/sev-guest".into());
        let code =
            |exit_info| device.failed("ask", SnpFailure { errno: Errno::NOTTY, exit_info, wanted: 0 }).code();
        for own in [0, 0xff, 0xffff_ffff, u64::MAX] {
            assert_eq!(code(own), "ATTEST_TEE_IO");
        }
        for answered in [0x16, 2 << 32] {
            assert_eq!(code(answered), "ATTEST_FIRMWARE_REFUSED");
        }
    }

    #[test]
    fn evil_host_certificate_table_wants_too_much() {
        let failure = |wanted| SnpFailure { errno: Errno::IO, exit_info: INVALID_LENGTH << 32, wanted };
        assert_eq!(room_for(failure(0x1001)).unwrap(), Some(0x2000));
        assert_eq!(room_for(failure(0x4001)).unwrap_err().code(), "ATTEST_TOO_LARGE");
        assert_eq!(room_for(failure(u32::MAX)).unwrap_err().code(), "ATTEST_TOO_LARGE");
        assert_eq!(
            room_for(failure(0)).unwrap_err().code(),
            "ATTEST_TOO_LARGE",
            "no room would be asked for again"
        );
        assert_eq!(room_for(SnpFailure { exit_info: 2, ..failure(1) }).unwrap(), None);
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        let error = SevGuest::new("/nowhere/sev-guest".into())
            .evidence(&Claim::ChipSession { transcript: [0; 64] }.report_data())
            .unwrap_err();
        assert_eq!(error.code(), "ATTEST_TEE_IO");
        assert!(error.to_string().contains("/nowhere/sev-guest"), "{error}");
    }
}
