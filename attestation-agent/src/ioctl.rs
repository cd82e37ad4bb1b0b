//! The ioctls of the guest drivers: the only unsafe code of this crate. Messages are encoded and decoded elsewhere; here
//! they are arrays of the sizes that the kernel's headers give (`linux/tdx-guest.h`, `linux/sev-guest.h`).
#![expect(unsafe_code, reason = "guest drivers are spoken to by ioctl")]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct tdx_report_req`: report data, TDREPORT.
pub(crate) const TDX_REPORT_BYTES: usize = 64 + 1024;
/// `struct snp_report_req`.
pub(crate) const SNP_REPORT_REQUEST_BYTES: usize = 96;
/// `struct snp_report_resp`.
pub(crate) const SNP_REPORT_RESPONSE_BYTES: usize = 4000;
/// `struct snp_derived_key_req`.
pub(crate) const SNP_KEY_REQUEST_BYTES: usize = 32;
/// `struct snp_derived_key_resp`.
pub(crate) const SNP_KEY_RESPONSE_BYTES: usize = 64;

const TDX_GET_REPORT0: Opcode = opcode::read_write::<[u8; TDX_REPORT_BYTES]>(b'T', 1);
const SNP_GET_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 0);
const SNP_GET_DERIVED_KEY: Opcode = opcode::read_write::<GuestRequest>(b'S', 1);
const SNP_GET_EXT_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);
const MESSAGE_VERSION: u8 = 1;

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    exit_info: u64,
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedReportRequest {
    request: [u8; SNP_REPORT_REQUEST_BYTES],
    certificates: u64,
    certificates_length: u32,
}

const _: () = assert!(size_of::<GuestRequest>() == 32, "as the kernel has it");
const _: () = assert!(size_of::<ExtendedReportRequest>() == 112, "as the kernel has it");

/// Why the SNP driver failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnpFailure {
    /// The system's answer.
    pub(crate) errno: Errno,
    /// Lower half: status of the firmware; upper half: of the hypervisor.
    pub(crate) exit_info: u64,
    /// Bytes of certificates that the host wants to deliver.
    pub(crate) wanted: u32,
}

/// `TDX_CMD_GET_REPORT0`: the TDREPORT is put behind the report data.
pub(crate) fn tdx_report(device: impl AsFd, message: &mut [u8; TDX_REPORT_BYTES]) -> Result<(), Errno> {
    // SAFETY: the driver reads and writes exactly the array that the opcode's size names.
    unsafe { ioctl(device, Updater::<TDX_GET_REPORT0, _>::new(message)) }
}

/// `SNP_GET_REPORT`.
pub(crate) fn snp_report(
    device: impl AsFd,
    request: &[u8; SNP_REPORT_REQUEST_BYTES],
    response: &mut [u8; SNP_REPORT_RESPONSE_BYTES],
) -> Result<(), SnpFailure> {
    let mut message = guest_request(request.as_ptr().addr(), response.as_mut_ptr().addr());
    expose(request.as_ptr(), response.as_mut_ptr());
    // SAFETY: the driver reads 96 bytes of the request and writes 4000 of the response, which both live until here.
    let result = unsafe { ioctl(device, Updater::<SNP_GET_REPORT, _>::new(&mut message)) };
    result.map_err(|errno| SnpFailure { errno, exit_info: message.exit_info, wanted: 0 })
}

/// `SNP_GET_DERIVED_KEY`.
pub(crate) fn snp_derived_key(
    device: impl AsFd,
    request: &[u8; SNP_KEY_REQUEST_BYTES],
    response: &mut [u8; SNP_KEY_RESPONSE_BYTES],
) -> Result<(), SnpFailure> {
    let mut message = guest_request(request.as_ptr().addr(), response.as_mut_ptr().addr());
    expose(request.as_ptr(), response.as_mut_ptr());
    // SAFETY: the driver reads 32 bytes of the request and writes 64 of the response, which both live until here.
    let result = unsafe { ioctl(device, Updater::<SNP_GET_DERIVED_KEY, _>::new(&mut message)) };
    result.map_err(|errno| SnpFailure { errno, exit_info: message.exit_info, wanted: 0 })
}

/// `SNP_GET_EXT_REPORT`: the certificates of the host are put into `certificates`.
pub(crate) fn snp_extended_report(
    device: impl AsFd,
    request: &[u8; SNP_REPORT_REQUEST_BYTES],
    certificates: &mut [u8],
    response: &mut [u8; SNP_REPORT_RESPONSE_BYTES],
) -> Result<(), SnpFailure> {
    let length = u32::try_from(certificates.len()).unwrap_or_default();
    let mut extended = ExtendedReportRequest {
        request: *request,
        certificates: u64::try_from(certificates.as_mut_ptr().expose_provenance()).unwrap_or_default(),
        certificates_length: length,
    };
    let pointer = &raw mut extended;
    let mut message = guest_request(pointer.expose_provenance(), response.as_mut_ptr().addr());
    expose(certificates.as_ptr(), response.as_mut_ptr());
    // SAFETY: the driver reads and writes the 112 bytes of the request, writes at most `certificates_length` bytes of
    // certificates and 4000 of the response; all three live until here.
    let result = unsafe { ioctl(device, Updater::<SNP_GET_EXT_REPORT, _>::new(&mut message)) };
    // SAFETY: `pointer` is of `extended`, which lives and which nothing else refers to.
    let wanted = unsafe { (*pointer).certificates_length };
    result.map_err(|errno| SnpFailure { errno, exit_info: message.exit_info, wanted })
}

fn guest_request(request: usize, response: usize) -> GuestRequest {
    let address = |address: usize| u64::try_from(address).unwrap_or_default();
    GuestRequest {
        message_version: MESSAGE_VERSION,
        request: address(request),
        response: address(response),
        exit_info: 0,
    }
}

/// The kernel reaches these through numbers: the compiler must not assume that nobody does.
fn expose(request: *const u8, response: *mut u8) {
    let _ = request.expose_provenance();
    let _ = response.expose_provenance();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let numbers = [TDX_GET_REPORT0, SNP_GET_REPORT, SNP_GET_DERIVED_KEY, SNP_GET_EXT_REPORT];
        assert_eq!(numbers, [0xc440_5401, 0xc020_5300, 0xc020_5301, 0xc020_5302]);
    }
}
