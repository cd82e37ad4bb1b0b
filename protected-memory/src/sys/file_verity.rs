//! fs-verity: a file becomes read-only for good, and each block that is read from it is held against its digest (`linux/fsverity.h`).

#![expect(unsafe_code, reason = "rustix does not wrap the ioctls of fs-verity")]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// Bytes of a block of data, and of hashes.
const BLOCK: u32 = 4096;
/// `FS_VERITY_HASH_ALG_SHA256`.
const SHA256: u32 = 1;
/// Longest digest that the kernel knows (`FS_VERITY_MAX_DIGEST_SIZE`).
const DIGEST_MAX: u16 = 64;

const FS_IOC_ENABLE_VERITY: Opcode = opcode::write::<EnableArgument>(b'f', 133);
const FS_IOC_MEASURE_VERITY: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArgument {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved1: u32,
    signature: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest` with room for every digest.
#[repr(C)]
struct DigestArgument {
    algorithm: u16,
    size: u16,
    digest: [u8; DIGEST_MAX as usize],
}

const _: () = assert!(size_of::<EnableArgument>() == 128, "as the kernel has it");
const _: () = assert!(size_of::<DigestArgument>() == 4 + DIGEST_MAX as usize, "as the kernel has it");

/// What the kernel says of a file with fs-verity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Number of the hash: 1 is SHA-256, 2 is SHA-512.
    pub algorithm: u16,
    /// The digest.
    pub digest: Vec<u8>,
}

/// Turns fs-verity on: SHA-256, blocks of 4096 bytes, no salt. The file has to be open for reading only, and by nobody for writing.
///
/// # Errors
///
/// The system's: `EXIST` where it is on, `TXTBSY` with a writer, `OPNOTSUPP` or `NOTTY` where the file system has none.
pub fn enable(file: impl AsFd) -> Result<(), Errno> {
    let argument = EnableArgument {
        version: 1,
        hash_algorithm: SHA256,
        block_size: BLOCK,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved1: 0,
        signature: 0,
        reserved2: [0; 11],
    };
    // SAFETY: the kernel reads the structure that the opcode's size names, and with both sizes 0 neither address in it.
    unsafe { ioctl(file, Setter::<FS_IOC_ENABLE_VERITY, _>::new(argument)) }
}

/// The digest against which reads are held; `None` for a file without fs-verity, on whatever file system.
///
/// # Errors
///
/// The system's.
pub fn measure(file: impl AsFd) -> Result<Option<Measured>, Errno> {
    let mut argument = DigestArgument { algorithm: 0, size: DIGEST_MAX, digest: [0; DIGEST_MAX as usize] };
    // SAFETY: the kernel reads `size`, which is how many bytes are behind it in the same structure, and writes at most those.
    match unsafe { ioctl(file, Updater::<FS_IOC_MEASURE_VERITY, _>::new(&mut argument)) } {
        Ok(()) => {
            let digest = argument.digest.get(..usize::from(argument.size)).ok_or(Errno::OVERFLOW)?;
            Ok(Some(Measured { algorithm: argument.algorithm, digest: digest.to_vec() }))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOTTY) => Ok(None),
        Err(error) => Err(error),
    }
}
