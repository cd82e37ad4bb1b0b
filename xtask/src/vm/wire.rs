//! Frames between the harness and the witness inside the guest, over a virtio-serial port.
//!
//! `type: u8 ‖ id: u32 LE ‖ length: u32 LE ‖ payload`. The host sends EXEC, STDIN, SIGNAL and POWER_OFF; the guest answers with the rest. An id
//! is chosen by the host and names one command until its EXIT or FAILED.

use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The port's name in the guest.
pub const PORT: &str = "innerkeep.control";
/// Longest payload in bytes.
pub const MAXIMUM: usize = 1 << 20;

/// Host to guest: start a command; JSON of [`Exec`].
pub const EXEC: u8 = b'E';
/// Host to guest: bytes for its standard input; empty closes it.
pub const STDIN: u8 = b'I';
/// Host to guest: a signal number, one byte.
pub const SIGNAL: u8 = b'S';
/// Host to guest: switch the machine off.
pub const POWER_OFF: u8 = b'P';
/// Guest to host: the witness listens; JSON of [`Ready`].
pub const READY: u8 = b'R';
/// Guest to host: bytes of standard output.
pub const STDOUT: u8 = b'o';
/// Guest to host: bytes of standard error.
pub const STDERR: u8 = b'e';
/// Guest to host: the command ended; `i32` LE, 128 + signal where one killed it.
pub const EXIT: u8 = b'x';
/// Guest to host: the command could not be started; text.
pub const FAILED: u8 = b'f';

/// A command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables beside `PATH` and `HOME`.
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Whether standard input will come; else it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
}

/// What the witness says first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Seconds since the kernel started.
    pub uptime: f64,
    /// Kernel release.
    pub kernel: String,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// Which command it belongs to.
    pub id: u32,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Reads one frame; `None` at the end of the stream between two frames.
///
/// # Errors
///
/// The stream fails, ends inside a frame, or announces more than [`MAXIMUM`] bytes.
pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut kind = [0; 1];
    loop {
        match from.read(&mut kind) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (mut id, mut length) = ([0; 4], [0; 4]);
    from.read_exact(&mut id)?;
    from.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAXIMUM {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    let [kind] = kind;
    Ok(Some(Frame { kind, id: u32::from_le_bytes(id), payload }))
}

/// Writes frames; a payload longer than [`MAXIMUM`] goes out as several.
///
/// # Errors
///
/// The stream fails.
pub fn write(to: &mut impl Write, kind: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let mut pieces = payload.chunks(MAXIMUM);
    let first = pieces.next().unwrap_or_default();
    for piece in std::iter::once(first).chain(pieces) {
        let mut bytes = Vec::with_capacity(9 + piece.len());
        bytes.push(kind);
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(piece);
        to.write_all(&bytes)?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip() {
        let mut bytes = Vec::new();
        write(&mut bytes, STDOUT, 7, b"abc").unwrap();
        write(&mut bytes, STDIN, 8, b"").unwrap();
        write(&mut bytes, STDERR, 9, &vec![1; MAXIMUM + 1]).unwrap();
        let mut from = bytes.as_slice();
        let mut seen = Vec::new();
        while let Some(frame) = read(&mut from).unwrap() {
            seen.push((frame.kind, frame.id, frame.payload.len()));
        }
        assert_eq!(seen, [(STDOUT, 7, 3), (STDIN, 8, 0), (STDERR, 9, MAXIMUM), (STDERR, 9, 1)]);
    }

    #[test]
    fn a_length_above_the_cap_is_refused_before_it_is_allocated() {
        let mut bytes = vec![STDOUT, 0, 0, 0, 0];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&mut bytes.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
