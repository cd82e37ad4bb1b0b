//! Switches of the kernel that keep memory inside, and end the machine when nobody else can.

use std::fs;
use std::io;

use crate::error::AgentError;
use crate::log::Key;
use crate::pid1::Notes;

/// File and value. A file that the kernel lacks is a function that it lacks.
const SWITCHES: [(&str, &str); 11] = [
    // Core dumps go nowhere: an empty pattern names no file.
    ("/proc/sys/kernel/core_uses_pid", "0"),
    ("/proc/sys/kernel/core_pattern", ""),
    ("/proc/sys/fs/suid_dumpable", "0"),
    // The host types on the console.
    ("/proc/sys/kernel/sysrq", "0"),
    ("/proc/sys/kernel/ctrl-alt-del", "0"),
    // No other kernel, no programs in this one.
    ("/proc/sys/kernel/kexec_load_disabled", "1"),
    ("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
    ("/proc/sys/kernel/io_uring_disabled", "2"),
    // Addresses of the kernel are not for containers.
    ("/proc/sys/kernel/kptr_restrict", "2"),
    ("/proc/sys/kernel/dmesg_restrict", "1"),
    // When process 1 is gone in spite of everything the kernel panics: then it ends at once, and does not hang.
    ("/proc/sys/kernel/panic", "-1"),
];

/// Sets all of them, and reads each one back.
pub(crate) fn harden(notes: &mut Notes) -> Result<(), AgentError> {
    for (path, value) in SWITCHES {
        match fs::write(path, format!("{value}\n")) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                notes.add("the kernel has no such switch", Key::Device, path.into());
                continue;
            }
            // Some can only be set once; what they hold is looked at below.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(AgentError::io("write", path)(error)),
        }
        let found = fs::read_to_string(path).map_err(AgentError::io("read", path))?;
        if found.trim() != value {
            return Err(AgentError::Hardening { path, expected: value, found: found.trim().to_owned() });
        }
    }
    Ok(())
}
