//! Derived keys of the emulated SNP guest (`docs/spec/attestation-v1.md`, section 6): the answer of the firmware, and
//! the socket in front of it.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use evidence::abi::snp::SnpReport;
use sha2::{Digest, Sha256};

use crate::faults::{Faults, Kind};
use crate::log;
use crate::tee::Tee;

/// Length of a request.
pub(crate) const REQUEST_BYTES: usize = 40;
/// Length of an answer.
pub(crate) const ANSWER_BYTES: usize = 36;
const MAGIC: [u8; 8] = *b"IKDKv1\0\0";
/// The firmware's status for a request that it does not take.
const INVALID_PARAMETERS: u32 = 0x16;
const PATIENCE: Duration = Duration::from_secs(5);
/// Fields of the guest that a request can select.
const POLICY: u64 = 1 << 0;
const IMAGE_ID: u64 = 1 << 1;
const FAMILY_ID: u64 = 1 << 2;
const MEASUREMENT: u64 = 1 << 3;
const GUEST_SVN: u64 = 1 << 4;
const TCB: u64 = 1 << 5;
const ALL_FIELDS: u64 = POLICY | IMAGE_ID | FAMILY_ID | MEASUREMENT | GUEST_SVN | TCB;

/// What derives keys for one guest.
pub(crate) struct DerivedKeys {
    secret: [u8; 32],
    chip_id: [u8; 64],
    policy: u64,
    image_id: [u8; 16],
    family_id: [u8; 16],
    measurement: [u8; 48],
    guest_svn: u32,
    tcb: [u8; 8],
}

/// What a key is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRequest {
    root: u32,
    vmpl: u32,
    fields: u64,
    svn: u32,
    tcb: [u8; 8],
}

impl KeyRequest {
    /// From the 40 bytes of the socket.
    pub(crate) fn of_socket(request: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let (magic, rest) = request.split_first_chunk()?;
        let (root, rest) = number(rest)?;
        let (vmpl, rest) = number(rest)?;
        let (fields, rest) = rest.split_first_chunk()?;
        let (svn, rest) = number(rest)?;
        let (reserved, tcb) = number(rest)?;
        let fields = u64::from_le_bytes(*fields);
        let tcb = tcb.try_into().ok()?;
        (*magic == MAGIC && reserved == 0).then_some(Self { root, vmpl, fields, svn, tcb })
    }

    /// From the `struct snp_derived_key_req` of `/dev/sev-guest`, whose reserved bytes the firmware ignores.
    pub(crate) fn of_device(request: &[u8]) -> Option<Self> {
        let (root, rest) = number(request)?;
        let (_reserved, rest) = number(rest)?;
        let (fields, rest) = rest.split_first_chunk()?;
        let (vmpl, rest) = number(rest)?;
        let (svn, tcb) = number(rest)?;
        let fields = u64::from_le_bytes(*fields);
        Some(Self { root, vmpl, fields, svn, tcb: tcb.try_into().ok()? })
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_le_bytes(*number), rest))
}

impl fmt::Debug for DerivedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKeys")
    }
}

impl DerivedKeys {
    pub(crate) fn new(secret: [u8; 32], report: &SnpReport) -> Self {
        Self {
            secret,
            chip_id: report.chip_id.0,
            policy: report.policy.0,
            image_id: report.image_id.0,
            family_id: report.family_id.0,
            measurement: report.measurement.0,
            guest_svn: report.guest_svn,
            tcb: report.committed_tcb.encode().0,
        }
    }

    /// The key, or the firmware's status; no request is one that could not be parsed.
    pub(crate) fn key(&self, request: Option<KeyRequest>, faults: &Faults) -> Result<[u8; 32], u32> {
        match faults.take(Kind::DerivedKeyRefused) {
            Some(fault) => Err(fault.value.unwrap_or(INVALID_PARAMETERS)),
            None => request.and_then(|request| self.derive(&request)).ok_or(INVALID_PARAMETERS),
        }
    }

    /// The answer to a request on the socket: status, then the key or zeros.
    pub(crate) fn answer(&self, request: &[u8; REQUEST_BYTES], faults: &Faults) -> [u8; ANSWER_BYTES] {
        let mut answer = [0; ANSWER_BYTES];
        let (status, rest) = answer.split_at_mut(4);
        match self.key(KeyRequest::of_socket(request), faults) {
            Ok(key) => rest.copy_from_slice(&key),
            Err(number) => status.copy_from_slice(&number.to_le_bytes()),
        }
        answer
    }

    fn derive(&self, request: &KeyRequest) -> Option<[u8; 32]> {
        let KeyRequest { root, vmpl, fields, svn, tcb } = *request;
        let known = root <= 1 && vmpl <= 3 && fields & !ALL_FIELDS == 0;
        // A guest may not ask for a key of a later version of itself or of its platform.
        let earlier = tcb.iter().zip(&self.tcb).all(|(asked, committed)| asked <= committed);
        if !known || svn > self.guest_svn || !earlier {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update("innerkeep emulated derived key\0");
        hash.update(self.secret);
        hash.update(self.chip_id);
        hash.update([root, vmpl].map(u32::to_le_bytes).concat());
        hash.update(fields.to_le_bytes());
        let parts: [(u64, &[u8]); 6] = [
            (POLICY, &self.policy.to_le_bytes()),
            (IMAGE_ID, &self.image_id),
            (FAMILY_ID, &self.family_id),
            (MEASUREMENT, &self.measurement),
            (GUEST_SVN, &svn.to_le_bytes()),
            (TCB, &tcb),
        ];
        for (_, part) in parts.iter().filter(|(field, _)| fields & field != 0) {
            hash.update(part);
        }
        Some(hash.finalize().into())
    }
}

/// The socket, removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Socket(PathBuf);

impl Socket {
    /// Binds the socket and answers on it until the process ends. One left behind by a process that is gone is replaced.
    pub(crate) fn serve(path: &Path, tee: Arc<Tee>) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        if UnixStream::connect(path).is_ok() {
            anyhow::bail!("{}: another process listens here", name());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(name),
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(name)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(name)?;
        std::thread::Builder::new()
            .name("derived-keys".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    if let Err(error) = converse(stream, &tee) {
                        log::note(&format!("derived key: {error}"));
                    }
                }
            })
            .context("thread")?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// One request, one answer.
fn converse(mut stream: UnixStream, tee: &Tee) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; REQUEST_BYTES];
    stream.read_exact(&mut request)?;
    match tee.derived_keys() {
        Some(keys) => stream.write_all(&keys.answer(&request, tee.faults())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
