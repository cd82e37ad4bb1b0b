//! Programs that the kernel asks about devices, on a control group.
#![expect(unsafe_code, reason = "rustix does not wrap bpf(2)")]

use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// How often a program is given to the verifier, which stops at a signal, such as the end of a child.
const LOADS: u32 = 16;
/// Programs of one control group that are listed: the kernel attaches no more than 64.
const MAXIMUM_PROGRAMS: usize = 64;

/// One instruction: the kernel's `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// What it does.
    pub code: u8,
    /// Destination in the lower four bits, source in the upper four.
    pub registers: u8,
    /// Of jumps and of memory.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct InfoAttributes {
    object: u32,
    length: u32,
    info: u64,
}

/// The beginning of the kernel's `struct bpf_prog_info`.
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// A descriptor as the kernel wants it in this call.
fn number(descriptor: BorrowedFd<'_>) -> Result<u32, Errno> {
    u32::try_from(descriptor.as_raw_fd()).map_err(|_| Errno::BADF)
}

/// An address as the kernel wants it in this call.
fn address<T>(place: *const T) -> u64 {
    u64::try_from(place.addr()).unwrap_or(0)
}

/// # Safety
/// `T` is the layout of the attributes of `command`, and the addresses in it are of memory that is as long as it says.
unsafe fn call<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the size goes with the address, the kernel reads and writes no more; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// Loads a program about devices.
///
/// # Errors
/// Those of bpf(2): `EACCES` or `EINVAL` for a program that the kernel's verifier refuses.
pub(crate) fn load_device_program(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let mut attributes = LoadAttributes {
        kind: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: address(program.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"innerkeep_device",
        interface: 0,
        expected_attach_type: ATTACH_CGROUP_DEVICE,
    };
    // At most 15 characters, and a zero.
    attributes.name[15] = 0;
    let mut load = || {
        // SAFETY: the layout is that of this command; the instructions are a slice of that length, the license is a terminated text.
        unsafe { call(PROG_LOAD, &mut attributes) }
    };
    let mut loaded = load();
    for _ in 1..LOADS {
        if loaded != Err(Errno::AGAIN) {
            break;
        }
        loaded = load();
    }
    let descriptor = loaded?;
    let descriptor = i32::try_from(descriptor).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel made this descriptor for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches a program to a control group, in the place of `replaced` if there is one.
///
/// # Errors
/// Those of bpf(2).
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attributes = AttachAttributes {
        target: number(group)?,
        program: number(program)?,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: if replaced.is_some() { ALLOW_MULTI | REPLACE } else { ALLOW_MULTI },
        replaced: replaced.map(number).transpose()?.unwrap_or(0),
    };
    // SAFETY: the layout is that of this command, without addresses.
    unsafe { call(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// The number of a loaded program.
///
/// # Errors
/// Those of bpf(2).
pub(crate) fn program_id(program: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut info = Info { kind: 0, id: 0, tag: [0; 8] };
    let mut attributes = InfoAttributes {
        object: number(program)?,
        length: u32::try_from(size_of::<Info>()).map_err(|_| Errno::INVAL)?,
        info: address(&raw mut info),
    };
    // SAFETY: the layout is that of this command; the kernel writes at most `length` bytes to `info`, which is that long.
    unsafe { call(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.id)
}

/// Numbers of the programs about devices that are attached to a control group itself.
///
/// # Errors
/// Those of bpf(2).
pub(crate) fn attached_device_programs(group: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut ids = [0_u32; MAXIMUM_PROGRAMS];
    let mut attributes = QueryAttributes {
        target: number(group)?,
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: address(ids.as_mut_ptr()),
        count: u32::try_from(MAXIMUM_PROGRAMS).map_err(|_| Errno::INVAL)?,
        padding: 0,
    };
    // SAFETY: the layout is that of this command; the kernel writes at most `count` numbers to `ids`, which is that long.
    unsafe { call(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.count).map_err(|_| Errno::INVAL)?;
    Ok(ids.iter().copied().take(count).collect())
}
