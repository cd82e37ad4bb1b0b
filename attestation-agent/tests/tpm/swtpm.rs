//! A TPM of its own for each test.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use attestation_agent::tpm::wire::{EccPoint, KeyKind, Public};
use attestation_agent::tpm::{Tpm, TpmLocation};
use tempfile::TempDir;

/// A running `swtpm`. It ends with this value, its state too.
pub struct Swtpm {
    child: Child,
    directory: TempDir,
}

impl Swtpm {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", directory.path().display()))
            .args(["--server", &format!("type=unixio,path={}", path("tpm"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("stderr")).unwrap())
            .spawn()
            .expect("swtpm is not installed: `cargo xtask setup` installs it");
        let swtpm = Self { child, directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        // The socket exists a moment before somebody listens.
        while UnixStream::connect(swtpm.socket()).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not listen: {}", swtpm.complaint());
            sleep(Duration::from_millis(2));
        }
        swtpm
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("tpm")
    }

    pub fn tpm(&self) -> Tpm {
        Tpm::new(TpmLocation::danger_socket(self.socket()))
    }

    /// Sends one command by hand, from its code on, and gives back the whole response.
    pub fn raw(&self, tag: u16, body: &[u8]) -> Vec<u8> {
        raw(&self.socket(), tag, body)
    }

    /// Makes a primary key by hand and leaves it loaded.
    pub fn primary(&self, hierarchy: u32, template: &Public) -> u32 {
        let template = template.marshal();
        let mut body = [0x131, hierarchy].map(u32::to_be_bytes).concat();
        body.extend(PASSWORD);
        body.extend([0, 4, 0, 0, 0, 0]);
        body.extend(sized(&template));
        body.extend([0; 6]);
        let response = self.raw(0x8002, &body);
        assert_eq!(response[6..10], [0; 4], "CreatePrimary: {}", hex::encode(&response[6..10]));
        u32::from_be_bytes(response[10..14].try_into().unwrap())
    }

    /// Keeps a loaded key under a persistent handle of the owner.
    pub fn persist(&self, key: u32, handle: u32) {
        let mut body = [0x120, 0x4000_0001, key].map(u32::to_be_bytes).concat();
        body.extend(PASSWORD);
        body.extend(handle.to_be_bytes());
        assert_eq!(self.raw(0x8002, &body)[6..10], [0; 4], "EvictControl");
        assert_eq!(
            self.raw(0x8001, &[0x165, key].map(u32::to_be_bytes).concat())[6..10],
            [0; 4],
            "FlushContext"
        );
    }

    fn complaint(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authorisation area of an empty password, with its length.
pub const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

/// The template that a key was made from.
pub fn template_of(public: &Public) -> Public {
    let mut template = public.clone();
    match &mut template.kind {
        KeyKind::Rsa { modulus, .. } => modulus.clear(),
        KeyKind::Ecc { point, .. } => *point = EccPoint { x: Vec::new(), y: Vec::new() },
        KeyKind::Data { unique } => unique.clear(),
    }
    template
}

pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn raw(socket: &Path, tag: u16, body: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    let size = u32::try_from(6 + body.len()).unwrap();
    stream.write_all(&[&tag.to_be_bytes()[..], &size.to_be_bytes(), body].concat()).unwrap();
    message(&mut stream).unwrap()
}

/// Reads one command or response; `None` at the end of the stream.
pub fn message(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 10];
    stream.read_exact(&mut bytes).ok()?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(size).unwrap(), 0);
    stream.read_exact(&mut bytes[10..]).ok()?;
    Some(bytes)
}
