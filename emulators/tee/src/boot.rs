//! What the emulated firmware and kernel measured before the guest's first process: the log in CCEL and the registers
//! that it leads to.

use evidence::Octets;
use evidence::abi::event_log::{EV_EVENT_TAG, EV_NO_ACTION, EventLog, LogAlgorithm, LogEntry, LogHeader};
use evidence::verify::replay::extend;
use sha2::{Digest, Sha384};

/// Size of the area that the firmware reserves for the log.
const AREA_BYTES: usize = 64 * 1024;
/// Registers as the log counts them: RTMR 0, 1, 2.
const FIRMWARE: u32 = 1;
const LOADER: u32 = 2;
const SYSTEM: u32 = 3;
const EV_SEPARATOR: u32 = 4;
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
const EV_EFI_BOOT_SERVICES_APPLICATION: u32 = 0x8000_0003;
const EV_EFI_ACTION: u32 = 0x8000_0007;
const EV_EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
const GLOBAL_VARIABLE: [u8; 16] = *b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c";
/// Tags of the kernel's EFI stub.
const INITRD: u32 = 0x8f3b_22ec;
const LOAD_OPTIONS: u32 = 0x8f3b_22ed;

/// Length of the ACPI table that points to the log.
pub(crate) const CCEL_TABLE_BYTES: usize = 56;
/// Where the log lies in the guest's memory, as the table says.
const LOG_ADDRESS: u64 = 0x7f00_0000;
/// The table's type of a TDX guest.
const TYPE_TDX: u8 = 2;

/// The state of a guest when its first process starts.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// The CCEL table's data: the log, then ones.
    pub(crate) ccel: Vec<u8>,
    /// RTMR 0 to 3.
    pub(crate) registers: [Octets<48>; 4],
}

impl Boot {
    /// A boot with this kernel command line.
    pub(crate) fn new(command_line: &str) -> Self {
        let log = EventLog { header: header(), entries: entries(command_line), terminated: false };
        let mut registers = [Octets([0; 48]); 4];
        for entry in &log.entries {
            let register = usize::try_from(entry.index).ok().and_then(|index| index.checked_sub(1));
            let register = register.and_then(|index| registers.get_mut(index));
            if let (Some(register), Some(digest)) = (register, entry.digest(LogAlgorithm::Sha384)) {
                *register = extend(register, digest);
            }
        }
        let mut ccel = log.encode();
        ccel.resize(AREA_BYTES.max(ccel.len()), 0xff);
        Self { ccel, registers }
    }
}

/// The table CCEL: header, type of the guest, length and address of the log.
pub(crate) fn ccel_table(log_bytes: usize) -> [u8; CCEL_TABLE_BYTES] {
    let length = u64::try_from(log_bytes).unwrap_or(u64::MAX).to_le_bytes();
    let parts: [&[u8]; 12] = [
        b"CCEL",
        &[56, 0, 0, 0],
        // Revision, checksum.
        &[1, 0],
        b"INKEEP",
        b"EMULATED",
        &[1, 0, 0, 0],
        b"INKP",
        &[1, 0, 0, 0],
        // Type and subtype of the guest.
        &[TYPE_TDX, 0],
        &[0, 0],
        &length,
        &LOG_ADDRESS.to_le_bytes(),
    ];
    let mut table = [0; CCEL_TABLE_BYTES];
    table.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let [_, _, _, _, _, _, _, _, _, checksum, ..] = &mut table;
    *checksum = sum.wrapping_neg();
    table
}

fn header() -> LogHeader {
    LogHeader {
        index: 0,
        signed_spec_id: true,
        // Platform class 0; version 2.0, errata 0; words of 8 bytes.
        versions: [0, 0, 0, 0, 0, 2, 0, 2],
        algorithms: vec![LogAlgorithm::Sha384],
        vendor: Vec::new(),
    }
}

fn entries(command_line: &str) -> Vec<LogEntry> {
    let volume = [&[10][..], b"EmulatedFv", &0xffc0_0000_u64.to_le_bytes(), &0x40_0000_u64.to_le_bytes()];
    vec![
        // Vouched for by no register, as the log of real firmware begins with such an entry too.
        LogEntry::new(0, EV_NO_ACTION, b"emulated firmware".to_vec()),
        measured(FIRMWARE, EV_EFI_PLATFORM_FIRMWARE_BLOB2, volume.concat(), b"emulated firmware volume"),
        LogEntry::new(FIRMWARE, EV_EFI_VARIABLE_DRIVER_CONFIG, variable("SecureBoot", &[0])),
        LogEntry::new(FIRMWARE, EV_SEPARATOR, vec![0; 4]),
        measured(LOADER, EV_EFI_BOOT_SERVICES_APPLICATION, vec![0x5a; 32], b"emulated kernel image"),
        LogEntry::new(LOADER, EV_EFI_ACTION, b"Exit Boot Services Invocation".to_vec()),
        LogEntry::new(LOADER, EV_EFI_ACTION, b"Exit Boot Services Returned with Success".to_vec()),
        measured(
            SYSTEM,
            EV_EVENT_TAG,
            tagged(LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0"),
            &utf16(command_line),
        ),
        measured(SYSTEM, EV_EVENT_TAG, tagged(INITRD, b"Linux initrd\0"), b"emulated initial file system"),
    ]
}

/// An entry whose digest is over something that is not in the log, as for code and command lines.
fn measured(index: u32, event_type: u32, data: Vec<u8>, content: &[u8]) -> LogEntry {
    let digest = Sha384::digest(content).to_vec();
    LogEntry { index, event_type, digests: vec![(LogAlgorithm::Sha384, digest)], data }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// `UEFI_VARIABLE_DATA` of a variable of the firmware's own.
fn variable(name: &str, value: &[u8]) -> Vec<u8> {
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes();
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&GLOBAL_VARIABLE[..], &length(name.len() / 2), &length(value.len()), &name, value].concat()
}

/// `TCG_PCClientTaggedEvent`.
fn tagged(tag: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    [&tag.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evidence::verify::replay::replay;

    #[test]
    fn the_table_points_to_the_log() {
        let table = ccel_table(0x1_0000);
        assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        assert_eq!(table.get(..8).unwrap(), b"CCEL\x38\0\0\0");
        assert_eq!(table.get(36..48).unwrap(), [2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_log_leads_to_the_registers() {
        let boot = Boot::new("quiet");
        assert_eq!(boot.ccel.len(), AREA_BYTES);
        let log = EventLog::parse_ccel(&boot.ccel).unwrap();
        let vouched = replay(&log, &boot.registers).unwrap();
        assert_eq!(vouched.len() + 1, log.entries.len());
        let [firmware, loader, system, application] = boot.registers;
        assert!(application.is_zero() && ![firmware, loader, system].iter().any(Octets::is_zero));
        let other = Boot::new("quiet debug");
        assert_eq!(
            other.registers.map(|register| boot.registers.contains(&register)),
            [true, true, false, true]
        );
        assert_eq!(replay(&log, &other.registers).unwrap_err().code(), "EVIDENCE_LOG_MISMATCH");
    }
}
