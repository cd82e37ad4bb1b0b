//! What tests of policies share: real signers, and places in memory where signatures and keys lie.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use async_trait::async_trait;
use tempfile::TempDir;

use super::cosign::CosignLayer;
use super::{Cause, Digest, ImageName, Material, MaterialUri, SignatureSource};

/// Runs a program to its end with these bytes on its standard input.
pub(super) fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// GnuPG with a directory of its own.
pub(super) struct Gpg(TempDir);

impl Gpg {
    pub(super) fn new() -> Self {
        let home = tempfile::Builder::new().prefix("gpg").tempdir().unwrap();
        Self(home)
    }

    pub(super) fn home(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.home());
        command.args(["--batch", "--quiet", "--no-tty", "--yes", "--trust-model", "always"]);
        command.args(["--pinentry-mode", "loopback", "--passphrase", ""]).args(arguments);
        command
    }

    pub(super) fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        run(&mut self.command(arguments), input)
    }

    /// Makes a key for this name and gives its fingerprint.
    pub(super) fn key(&self, name: &str, algorithm: &str, usage: &str) -> String {
        self.key_with(&[], name, algorithm, usage)
    }

    pub(super) fn key_with(&self, options: &[&str], name: &str, algorithm: &str, usage: &str) -> String {
        self.run(&[options, &["--quick-generate-key", name, algorithm, usage, "never"]].concat(), b"");
        self.fingerprints(name).remove(0)
    }

    /// Fingerprints of the key and its subkeys.
    pub(super) fn fingerprints(&self, name: &str) -> Vec<String> {
        let list = String::from_utf8(self.run(&["--with-colons", "--list-keys", name], b"")).unwrap();
        let lines = list.lines().filter(|line| line.starts_with("fpr:"));
        lines.map(|line| line.split(':').nth(9).unwrap().to_owned()).collect()
    }

    pub(super) fn export(&self, name: &str) -> Vec<u8> {
        self.run(&["--export", name], b"")
    }

    pub(super) fn sign(&self, key: &str, options: &[&str], text: &[u8]) -> Vec<u8> {
        self.run(&[options, &["--local-user", key, "--sign", "--output", "-"]].concat(), text)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.home()).args(["--kill", "all"]).output();
    }
}

/// A key pair of openssl.
pub(super) struct Openssl(TempDir);

impl Openssl {
    /// `arguments` are those of `openssl genpkey`.
    pub(super) fn new(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("openssl");
        command.current_dir(directory.path()).arg("genpkey").args(arguments).args(["-out", "key.pem"]);
        run(&mut command, b"");
        Self(directory)
    }

    pub(super) fn p256() -> Self {
        Self::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    pub(super) fn public(&self) -> String {
        String::from_utf8(run(&mut self.command(&["pkey", "-in", "key.pem", "-pubout"]), b"")).unwrap()
    }

    pub(super) fn private(&self) -> Vec<u8> {
        std::fs::read(self.0.path().join("key.pem")).unwrap()
    }

    /// A payload with its signature, as cosign would push them.
    pub(super) fn layer(&self, payload: &[u8], hash: &str) -> CosignLayer {
        let arguments = ["dgst", hash, "-sign", "key.pem"];
        let signature = run(&mut self.command(&arguments), payload);
        CosignLayer { payload: payload.to_vec(), signature: base64(&signature) }
    }

    /// The same for Ed25519, which signs no hash.
    pub(super) fn raw_layer(&self, payload: &[u8]) -> CosignLayer {
        std::fs::write(self.0.path().join("payload"), payload).unwrap();
        let arguments = ["pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "payload"];
        let signature = run(&mut self.command(&arguments), b"");
        CosignLayer { payload: payload.to_vec(), signature: base64(&signature) }
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub(super) fn payload(kind: &str, digest: &Digest, reference: &str) -> Vec<u8> {
    let critical = serde_json::json!({
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    });
    serde_json::to_vec(&serde_json::json!({"critical": critical, "optional": null})).unwrap()
}

pub(super) fn cosign_payload(digest: &Digest, reference: &str) -> Vec<u8> {
    payload("cosign container image signature", digest, reference)
}

pub(super) fn atomic_payload(digest: &Digest, reference: &str) -> Vec<u8> {
    payload("atomic container signature", digest, reference)
}

/// Signatures and keys in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) cosign: BTreeMap<Digest, Vec<CosignLayer>>,
    pub(super) lookaside: BTreeMap<Digest, Vec<Vec<u8>>>,
    pub(super) material: BTreeMap<String, Vec<u8>>,
    pub(super) asked: std::sync::Mutex<Vec<String>>,
}

#[async_trait]
impl SignatureSource for Memory {
    async fn cosign(&self, name: &ImageName, digest: &Digest) -> Result<Vec<CosignLayer>, Cause> {
        self.asked.lock().unwrap().push(format!("cosign {name} {digest}"));
        Ok(self.cosign.get(digest).cloned().unwrap_or_default())
    }

    async fn lookaside(&self, name: &ImageName, digest: &Digest) -> Result<Vec<Vec<u8>>, Cause> {
        self.asked.lock().unwrap().push(format!("lookaside {name} {digest}"));
        Ok(self.lookaside.get(digest).cloned().unwrap_or_default())
    }
}

#[async_trait]
impl Material for Memory {
    async fn read(&self, uri: &MaterialUri, maximum: usize) -> Result<Vec<u8>, Cause> {
        let bytes = self.material.get(&uri.to_string()).ok_or("no such thing")?;
        if bytes.len() > maximum {
            return Err("too long".into());
        }
        Ok(bytes.clone())
    }
}
