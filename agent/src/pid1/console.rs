//! Standard input, output and error of a process that the kernel may have started without them.

use std::fs::File;
use std::os::fd::{IntoRawFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};
use rustix::io::{Errno, fcntl_getfd};
use rustix::stdio::{stderr, stdin, stdout};

/// Where the node is, and its numbers.
const CONSOLE: (&str, u32, u32) = ("/dev/console", 5, 1);
const NULL: (&str, u32, u32) = ("/dev/null", 1, 3);

/// Opens the console for each of the three that is closed: else the next file that is opened would be standard output.
pub(crate) fn open_missing() {
    let are_closed =
        || [fcntl_getfd(stdin()), fcntl_getfd(stdout()), fcntl_getfd(stderr())].contains(&Err(Errno::BADF));
    while are_closed() {
        // The lowest number that is free is one of the three.
        let Some(file) = console().or_else(nowhere) else { return };
        let _ = file.into_raw_fd();
    }
}

/// The console, or nothing where the kernel has none.
fn console() -> Option<OwnedFd> {
    device(CONSOLE).or_else(|| device(NULL))
}

fn device((path, major, minor): (&str, u32, u32)) -> Option<OwnedFd> {
    let opened = || open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    if let Ok(file) = opened() {
        return Some(file);
    }
    let _ = rustix::fs::mkdir("/dev", Mode::from_raw_mode(0o755));
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, path, FileType::CharacterDevice, mode, makedev(major, minor)).ok()?;
    opened().ok()
}

/// A pipe that nobody reads: what is written is refused.
fn nowhere() -> Option<OwnedFd> {
    let (reader, writer) = rustix::pipe::pipe().ok()?;
    // The reader may have the number that was free; then the writer takes its place.
    drop(reader);
    let copy = rustix::io::dup(&writer).ok()?;
    drop(writer);
    Some(File::from(copy).into())
}
