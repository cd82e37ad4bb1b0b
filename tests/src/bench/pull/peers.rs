//! What users have today: `skopeo` and `umoci`, the Python package `cryptotensors`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::image::{Sample, verify};
use super::measured::{Measured, run};

/// What is installed, exactly.
const PACKAGES: [&str; 2] = ["cryptotensors==0.2.3", "numpy==2.4.6"];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench/pull/cryptotensors_peer.py");

/// `skopeo copy` into a layout, `umoci unpack` of it: a directory that anybody who is root can change.
pub(crate) fn image(
    name: &str,
    room: &Path,
    samples: Option<&[Sample]>,
) -> anyhow::Result<(Measured, Measured)> {
    let (layout, bundle) = (room.join("layout"), room.join("bundle"));
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    copy.arg(format!("docker://{name}")).arg(format!("oci:{}:v1", layout.display()));
    let copied = run(&mut copy)?;
    let mut unpack = Command::new("umoci");
    unpack.args(["unpack", "--image"]).arg(format!("{}:v1", layout.display())).arg(&bundle);
    let unpacked = run(&mut unpack)?;
    if let Some(samples) = samples {
        verify(&bundle.join("rootfs"), samples)?;
    }
    Ok((copied, unpacked))
}

/// The package with a model that it encrypted and signed itself.
pub(crate) struct CryptoTensors {
    python: PathBuf,
    file: PathBuf,
    keys: PathBuf,
    bytes: u64,
    head: String,
}

impl CryptoTensors {
    /// Installs the package beside the results, once, and gives it the model. `head` is what the first tensor begins with.
    pub(crate) fn prepare(
        out: &Path,
        directory: &Path,
        model: &Path,
        bytes: u64,
        head: &str,
    ) -> anyhow::Result<Self> {
        let venv = out.join("venv");
        let python = venv.join("bin/python");
        if !python.is_file() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
        let (file, keys) = (directory.join("model.cryptotensors"), directory.join("keys.json"));
        run(Command::new(&python).arg(SCRIPT).arg("protect").arg(model).arg(&file).arg(&keys))?;
        Ok(Self { python, file, keys, bytes, head: head.to_owned() })
    }

    /// Loads all tensors, decrypted and verified: the whole process, and what it says of the loading alone.
    pub(crate) fn load(&self) -> anyhow::Result<(Measured, f64)> {
        let measured =
            run(Command::new(&self.python).arg(SCRIPT).arg("load").arg(&self.file).arg(&self.keys))?;
        let said: Value = serde_json::from_str(&measured.stdout)?;
        let is = (said.get("bytes").and_then(Value::as_u64), said.get("head").and_then(Value::as_str));
        ensure!(is == (Some(self.bytes), Some(&self.head)), "other tensors: {said}");
        let seconds = said.get("seconds").and_then(Value::as_f64).context("no time")?;
        Ok((measured, seconds))
    }

    /// So that it is in the page cache.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}
