//! Keys that the secure processor of an SNP guest derives: by the guest driver, or from an emulator over a socket
//! (specification §6).

use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use protected_memory::secret::SecretKey;
use zeroize::Zeroizing;

use crate::error::TeeError;
use crate::root::TeeRoot;
use crate::sev_guest::SevGuest;

const MAGIC: &[u8; 8] = b"IKDKv1\0\0";
const TIMEOUT: Duration = Duration::from_secs(10);

/// What derives keys.
pub trait DerivedKey: fmt::Debug + Send + Sync {
    /// The key of this guest for a request: the same for the same guest, chip, request and selected fields.
    ///
    /// # Errors
    /// See [`TeeError`].
    fn derive(&self, request: &DerivedKeyRequest) -> Result<SecretKey<32>, TeeError>;
}

/// From what a key is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivedKeyRequest {
    /// The root of the derivation.
    pub root_key: RootKey,
    /// Privilege level that the key belongs to, 0 to 3.
    pub vmpl: u32,
    /// Which properties of the guest are mixed in.
    pub fields: GuestFields,
    /// Guest SVN, mixed in where it is selected; at most the guest's own.
    pub guest_svn: u32,
    /// TCB version that is mixed in, in the byte order of reports; at most the committed one.
    pub tcb_version: [u8; 8],
}

/// The root of a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootKey {
    /// The key of the chip at this TCB, VCEK or VLEK.
    Vek,
    /// The root key that migrates with the guest.
    Vmrk,
}

impl RootKey {
    /// The number in requests.
    #[must_use]
    pub const fn select(self) -> u32 {
        match self {
            Self::Vek => 0,
            Self::Vmrk => 1,
        }
    }
}

/// Properties of the guest that are mixed into a key. Guest policy, measurement and TCB always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFields(u64);

impl GuestFields {
    /// Guest policy.
    pub const GUEST_POLICY: Self = Self(1);
    /// Image id.
    pub const IMAGE_ID: Self = Self(1 << 1);
    /// Family id.
    pub const FAMILY_ID: Self = Self(1 << 2);
    /// Launch measurement.
    pub const MEASUREMENT: Self = Self(1 << 3);
    /// Guest SVN.
    pub const GUEST_SVN: Self = Self(1 << 4);
    /// TCB version.
    pub const TCB_VERSION: Self = Self(1 << 5);

    /// Guest policy, measurement, TCB, and `more`.
    #[must_use]
    pub fn of(more: impl IntoIterator<Item = Self>) -> Self {
        let always = Self::GUEST_POLICY.0 | Self::MEASUREMENT.0 | Self::TCB_VERSION.0;
        Self(more.into_iter().fold(always, |bits, field| bits | field.0))
    }

    /// The bits in requests.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// What derives keys below `root`: the guest driver, or below an insecure root the emulator's socket where it exists.
#[must_use]
pub fn derived_keys(root: &TeeRoot) -> Box<dyn DerivedKey> {
    match root.derived_key_socket() {
        Some(socket) => Box::new(SocketKeys { socket }),
        None => Box::new(DeviceKeys { device: SevGuest::new(root.sev_guest()) }),
    }
}

/// The guest driver.
#[derive(Debug)]
struct DeviceKeys {
    device: SevGuest,
}

impl DerivedKey for DeviceKeys {
    fn derive(&self, request: &DerivedKeyRequest) -> Result<SecretKey<32>, TeeError> {
        let mut key = self.device.derive(request)?;
        SecretKey::take_from(&mut key).map_err(TeeError::Memory)
    }
}

/// An emulator.
#[derive(Debug)]
struct SocketKeys {
    socket: PathBuf,
}

impl DerivedKey for SocketKeys {
    fn derive(&self, request: &DerivedKeyRequest) -> Result<SecretKey<32>, TeeError> {
        let failed = |action, source| TeeError::Io {
            action,
            path: self.socket.display().to_string(),
            advice: "the emulated SEV-SNP guest derives keys there",
            source,
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(|source| failed("connect to", source))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)))
            .map_err(|source| failed("set timeouts of", source))?;
        stream.write_all(&encode(request)).map_err(|source| failed("write to", source))?;
        let mut answer = Zeroizing::new([0; 36]);
        stream.read_exact(answer.as_mut_slice()).map_err(|source| failed("read from", source))?;
        let (status, key) = answer.split_first_chunk::<4>().unwrap_or((&[0xff; 4], &[]));
        let status = u32::from_le_bytes(*status);
        let zeros = key.iter().all(|byte| *byte == 0);
        // GUARD: emulated-key-status -> evil_host_emulated_key_of_a_failed_request
        if status != 0 || zeros {
            return Err(TeeError::Firmware { operation: "derived key", status: status.into() });
        }
        let mut secret = Zeroizing::new([0; 32]);
        secret.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        SecretKey::take_from(&mut secret).map_err(TeeError::Memory)
    }
}

fn encode(request: &DerivedKeyRequest) -> [u8; 40] {
    let mut out = [0; 40];
    let fields = [
        MAGIC.to_vec(),
        request.root_key.select().to_le_bytes().to_vec(),
        request.vmpl.to_le_bytes().to_vec(),
        request.fields.bits().to_le_bytes().to_vec(),
        request.guest_svn.to_le_bytes().to_vec(),
        vec![0; 4],
        request.tcb_version.to_vec(),
    ];
    out.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = from);
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn request() -> DerivedKeyRequest {
        DerivedKeyRequest {
            root_key: RootKey::Vek,
            vmpl: 0,
            fields: GuestFields::of([GuestFields::IMAGE_ID]),
            guest_svn: 3,
            tcb_version: [3, 2, 0, 0, 0, 0, 20, 209],
        }
    }

    /// Asks an emulator that answers `answer`; its request and our result.
    fn ask(answer: Vec<u8>) -> (Vec<u8>, Result<SecretKey<32>, TeeError>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let listener = UnixListener::bind(root.path().join("dev/sev-guest.sock")).unwrap();
        let emulator = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 40];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
            request.to_vec()
        });
        let result = derived_keys(&TeeRoot::insecure(root.path())).derive(&request());
        (emulator.join().unwrap(), result)
    }

    #[test]
    fn emulated_keys_come_over_the_socket() {
        let (request, key) = ask([vec![0; 4], vec![7; 32]].concat());
        let expected = "494b444b763100000000000000000000\
                        2b000000000000000300000000000000\
                        03020000000014d1";
        assert_eq!(hex::encode(request), expected);
        assert_eq!(key.unwrap().expose(), &[7; 32]);
    }

    #[test]
    fn evil_host_emulated_key_of_a_failed_request() {
        for answer in [[vec![1, 0, 0, 0], vec![7; 32]].concat(), vec![0; 36]] {
            assert_eq!(ask(answer).1.unwrap_err().code(), "ATTEST_FIRMWARE_REFUSED");
        }
        assert_eq!(ask(vec![0; 4]).1.unwrap_err().code(), "ATTEST_TEE_IO", "cut short");
    }

    #[test]
    fn the_system_root_has_no_socket() {
        assert_eq!(TeeRoot::system().derived_key_socket(), None);
    }
}
