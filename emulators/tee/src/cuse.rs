//! Character devices that this process serves: the protocol of `/dev/cuse`, as much of it as ioctls need.
//!
//! The driver may reach any memory of its caller, as a real one may (unrestricted ioctls): it answers first with the
//! addresses that it wants to read and write, and the kernel calls again with the bytes.

pub(crate) mod wire;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::io::Errno;

use crate::log;
use wire::{Request, Span};

const CUSE: &str = "/dev/cuse";
/// Longer requests the kernel is told not to send; it refuses to be read from with a buffer below 8 KiB.
const REQUEST_BYTES: usize = 16 * 1024;

/// A call of `ioctl`, as far as it is known by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) command: u32,
    /// The third argument: an address, as a rule.
    pub(crate) argument: u64,
    /// The bytes of all spans that were asked for, one after the other.
    pub(crate) input: &'a [u8],
    /// How many bytes all spans together take that are to be written.
    pub(crate) room: usize,
}

/// What a driver says to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It wants to read these spans of the caller's memory and to write those.
    Again { input: Vec<Span>, output: Vec<Span> },
    /// The call is over. `output` goes into the spans to be written, in their order, whatever the result.
    Done { result: i32, output: Vec<u8> },
}

impl Answer {
    /// An error without a word.
    pub(crate) const fn refused(error: Errno) -> Self {
        Self::Done { result: -error.raw_os_error(), output: Vec::new() }
    }
}

/// What stands behind a node.
pub(crate) trait Driver: Send + 'static {
    /// One call; more than once for one of the caller's, with more bytes each time.
    fn ioctl(&self, call: &Call<'_>) -> Answer;
}

/// Makes `/dev/NAME` and serves it until this process ends, which removes it.
pub(crate) fn serve(name: &str, driver: impl Driver) -> anyhow::Result<()> {
    let node = PathBuf::from("/dev").join(name);
    ensure!(!node.exists(), "{}: there is one already", node.display());
    let mut device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CUSE)
        .with_context(|| format!("{CUSE}: a node needs the kernel module cuse, and root"))?;
    introduce(&mut device, name).with_context(|| format!("{CUSE}: making {name}"))?;
    let kind = node.symlink_metadata().map(|metadata| metadata.file_type());
    if !kind.is_ok_and(|kind| kind.is_char_device()) {
        bail!("{}: expected a node, which devtmpfs makes; is it mounted?", node.display());
    }
    let serve = move || {
        if let Err(error) = serve_requests(&mut device, &driver) {
            log::note(&format!("{}: {error}", node.display()));
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(serve).context("thread")?;
    Ok(())
}

fn introduce(device: &mut File, name: &str) -> anyhow::Result<()> {
    let mut buffer = vec![0; REQUEST_BYTES];
    let length = device.read(&mut buffer)?;
    let request = Request::parse(buffer.get(..length).unwrap_or_default())?;
    device.write_all(&wire::introduction(&request, name)?)?;
    Ok(())
}

fn serve_requests(device: &mut File, driver: &impl Driver) -> anyhow::Result<()> {
    let mut buffer = vec![0; REQUEST_BYTES];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // A signal, or a caller that was killed before its request was read.
            Err(error) if is(&error, Errno::INTR) || is(&error, Errno::NOENT) => continue,
            Err(error) if is(&error, Errno::NODEV) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let request = Request::parse(buffer.get(..length).unwrap_or_default())?;
        let Some(reply) = reply(&request, driver) else { continue };
        match device.write_all(&reply) {
            Err(error) if is(&error, Errno::NODEV) => return Ok(()),
            // A caller that is gone, or an answer that the kernel does not take: it tells the caller so.
            Err(error) => log::note(&format!("{}: {error}", Path::new(CUSE).display())),
            Ok(()) => {}
        }
    }
}

/// `None` where the kernel waits for nothing.
fn reply(request: &Request<'_>, driver: &impl Driver) -> Option<Vec<u8>> {
    match request.operation {
        wire::OPEN => Some(wire::opened(request)),
        wire::RELEASE | wire::FLUSH => Some(wire::done(request)),
        wire::IOCTL => Some(match request.ioctl() {
            Some(call) => wire::answered(request, &driver.ioctl(&call)),
            None => wire::failed(request, Errno::NOTTY),
        }),
        // As a driver whose only operation is ioctl.
        wire::READ | wire::WRITE => Some(wire::failed(request, Errno::INVAL)),
        wire::INTERRUPT | wire::FORGET => None,
        _ => Some(wire::failed(request, Errno::NOSYS)),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}
