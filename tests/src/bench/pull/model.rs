//! A SafeTensors file, sealed and pushed; fetched and landed by the shipped programs.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Map, Value, json};
use tests::args;
use tests::payload::Random;
use tests::registry::RegistryServer;
use tests::scene::{Artifact, Scene, SealSpec, UnsealSpec};

use super::measured::{Measured, run};

/// Bytes of one tensor.
const TENSOR: u64 = 64 << 20;

/// Writes a file of this many bytes of tensors, always the same; returns the first bytes of the first tensor, hex.
pub(crate) fn write(path: &Path, size: u64) -> anyhow::Result<String> {
    let count = (size / TENSOR).max(1);
    let mut members = Map::new();
    for index in 0..count {
        let tensor =
            json!({"dtype": "U8", "shape": [TENSOR], "data_offsets": [index * TENSOR, (index + 1) * TENSOR]});
        members.insert(format!("tensor-{index:04}"), tensor);
    }
    let mut header = Value::Object(members).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&u64::try_from(header.len())?.to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut random = Random::new(17);
    let mut head = Vec::new();
    for word in 0..count * TENSOR / 8 {
        let bytes = random.draw().to_le_bytes();
        if word < 4 {
            head.extend(bytes);
        }
        file.write_all(&bytes)?;
    }
    file.flush()?;
    Ok(hex::encode(head))
}

/// An artifact in the registry, and the chip that opens it.
pub(crate) struct Sealed {
    scene: Scene,
    artifact: Artifact,
    name: String,
}

impl Sealed {
    /// Seals a file and pushes it. The programs are those beside this one.
    pub(crate) fn push(model: &Path, registry: &RegistryServer) -> anyhow::Result<Self> {
        let scene = Scene::start();
        // As a user has it: the segments of tests are smaller.
        let artifact = scene.seal("model", &[model], &SealSpec { more: Vec::new(), ..SealSpec::default() });
        scene.grant_usual(&artifact);
        let name = registry.name("acme/model:v1");
        let mut push = Self::innerkeep(&scene);
        run(push.args(args!["push", "--insecure-plain-http", &artifact.reference, &name]))?;
        // What is pulled comes from the registry alone.
        let stored = artifact.reference.clone();
        let removed = if stored.is_dir() { fs::remove_dir_all(&stored) } else { fs::remove_file(&stored) };
        removed.with_context(|| stored.display().to_string())?;
        Ok(Self { scene, artifact, name })
    }

    fn innerkeep(scene: &Scene) -> Command {
        let mut command = scene.programs.command("innerkeep", &scene.work.join("tmp"));
        command.arg("--json");
        command
    }

    /// Fetches it into `room`, every blob compared with its digest.
    pub(crate) fn fetch(&self, room: &Path) -> anyhow::Result<Measured> {
        let to = format!("{}:v1", room.join("fetched").display());
        run(Self::innerkeep(&self.scene).args(args!["pull", "--insecure-plain-http", &self.name, &to]))
    }

    /// Lands what was fetched; a program sees it, and ends.
    pub(crate) fn land(&self, room: &Path) -> anyhow::Result<Measured> {
        let fetched = format!("{}:v1", room.join("fetched").display());
        let artifact = self.artifact.at(Path::new(&fetched));
        let mut options = self.scene.unseal_options(&artifact, &UnsealSpec::default());
        options.extend(args!["--", "/bin/sh", "-c", "test -s \"$0\" && echo \"$0\"", "{}"]);
        let landed = run(Self::innerkeep(&self.scene).args(options))?;
        ensure!(!landed.stdout.trim().is_empty(), "nothing was seen");
        Ok(landed)
    }

    /// The same bytes by the tool that everybody has, without a word about what they are.
    pub(crate) fn skopeo(&self, room: &Path) -> anyhow::Result<Measured> {
        let to = format!("oci:{}:v1", room.join("skopeo").display());
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        run(command.arg(format!("docker://{}", self.name)).arg(to))
    }
}
