//! Loop devices: a file as a read-only block device, for file systems that cannot be mounted from a file (`linux/loop.h`).

#![expect(unsafe_code, reason = "rustix does not wrap the ioctls of loop devices")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, ioctl};

const LOOP_CTL_GET_FREE: Opcode = 0x4c82;
const LOOP_CONFIGURE: Opcode = 0x4c0a;
const LOOP_GET_STATUS64: Opcode = 0x4c05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const BLOCK: u32 = 4096;
/// Others look for free devices too.
const ATTEMPTS: u32 = 16;

/// `struct loop_config`, with `struct loop_info64` in it.
#[repr(C)]
struct Configuration {
    file: u32,
    block_size: u32,
    /// Device, inode, device number, offset, limit of size.
    places: [u64; 5],
    /// Number, type of encryption, size of its key.
    numbers: [u32; 3],
    flags: u32,
    /// File name, name of a cipher, key.
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Configuration>() == 304, "as the kernel has it");

/// `struct loop_info64`.
#[repr(C)]
struct Information {
    /// Device and inode of the file; device number, offset, limit of size.
    places: [u64; 5],
    numbers: [u32; 4],
    names: [u8; 160],
    init: [u64; 2],
}

const _: () = assert!(size_of::<Information>() == 232, "as the kernel has it");

/// Which file it is, for as long as its file system is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Of this one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let found = rustix::fs::fstat(file)?;
        Ok(Self { device: found.st_dev, inode: found.st_ino })
    }
}

/// Whether a loop device shows this file, whoever made it.
///
/// # Errors
///
/// The system's: devices that cannot be looked at.
pub fn is_shown(file: FileId) -> io::Result<bool> {
    for entry in std::fs::read_dir("/dev")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        if !number
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty())
        {
            continue;
        }
        let device =
            match open(Path::new("/dev").join(&name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(device) => device,
                // A node of a device that is not there any more.
                Err(Errno::NXIO | Errno::NOENT | Errno::NODEV) => continue,
                Err(error) => return Err(error.into()),
            };
        // SAFETY: the kernel writes the structure, whose size is fixed and of which every content is one.
        match unsafe { ioctl(&device, Getter::<LOOP_GET_STATUS64, Information>::new()) } {
            Ok(Information { places: [device, inode, ..], .. }) if (FileId { device, inode }) == file => {
                return Ok(true);
            }
            Ok(_) | Err(Errno::NXIO) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Asks for the number of a free device, which is what the call returns.
struct GetFree;

// SAFETY: the call takes no argument and its result is a number.
unsafe impl Ioctl for GetFree {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        output: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<Self::Output> {
        Ok(output)
    }
}

/// A device that shows a file. It goes when it is dropped and nothing has it mounted.
#[derive(Debug)]
pub struct LoopDevice {
    device: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Shows this file, which may be read only.
    ///
    /// # Errors
    ///
    /// The system's: no `/dev/loop-control`, no right to it.
    pub fn read_only(file: impl AsFd) -> io::Result<Self> {
        let control = open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let number = u32::try_from(file.as_fd().as_raw_fd()).map_err(io::Error::other)?;
        for _ in 0..ATTEMPTS {
            // SAFETY: no argument, a number as result.
            let free = unsafe { ioctl(&control, GetFree) }?;
            let path = PathBuf::from(format!("/dev/loop{free}"));
            let device = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let configuration = Configuration {
                file: number,
                block_size: BLOCK,
                places: [0; 5],
                numbers: [0; 3],
                flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
                names: [0; 160],
                init: [0; 2],
                reserved: [0; 8],
            };
            // SAFETY: the kernel reads the structure, whose size is fixed, and takes its own reference to the file, which is open here.
            match unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, _>::new(configuration)) } {
                Ok(()) => return Ok(Self { device, path }),
                Err(Errno::BUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}
