//! The thief's tools: an OCI image layout copied and altered with plain file operations.

use super::actors::Innerkeep;
use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Copies a layout; blobs are linked, since nobody writes into a blob.
pub fn copy_layout(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to.join("blobs/sha256")).context("create the copy")?;
    for name in ["oci-layout", "index.json"] {
        std::fs::copy(from.join(name), to.join(name)).with_context(|| format!("copy {name}"))?;
    }
    for entry in std::fs::read_dir(from.join("blobs/sha256")).context("list the blobs")? {
        let entry = entry?;
        std::fs::hard_link(entry.path(), to.join("blobs/sha256").join(entry.file_name()))
            .context("link a blob")?;
    }
    Ok(())
}

/// Changes one byte of the policy preimage inside the first grant and mends every digest on the way up, as a registry could.
pub fn alter_preimage(layout: &Path) -> anyhow::Result<()> {
    let (position, manifest_blob) = find(layout, "application/vnd.innerkeep.grant.v1")?;
    let mut manifest = json(&manifest_blob)?;
    let mut grant = json(&blob(layout, &manifest["layers"][0])?)?;
    let mut preimage = STANDARD
        .decode(grant["policy"].as_str().context("the grant has no policy")?)
        .context("the policy is not base64")?;
    let text = String::from_utf8(preimage.clone()).context("the policy is not text")?;
    let at =
        text.find("\"min_counter\":5").context("the policy has no min_counter 5")? + "\"min_counter\":".len();
    preimage[at] = b'6';
    grant["policy"] = Value::String(STANDARD.encode(&preimage));
    // Replacing a value keeps the members where they were, and no white space is written: the canonical form for these objects.
    manifest["layers"][0] = put(layout, manifest["layers"][0].clone(), &serde_json::to_vec(&grant)?)?;
    let mut index = json(&layout.join("index.json"))?;
    index["manifests"][position] =
        put(layout, index["manifests"][position].clone(), &serde_json::to_vec(&manifest)?)?;
    std::fs::write(layout.join("index.json"), serde_json::to_vec(&index)?).context("write the index")
}

/// Removes every grant with the real command.
pub fn remove_grants(innerkeep: &Innerkeep, layout: &Path) -> anyhow::Result<()> {
    let listed = innerkeep.run(&["grant".as_ref(), "list".as_ref(), layout.as_os_str()])?;
    for grant in listed["grants"].as_array().context("no list of grants")? {
        let digest = grant["digest"].as_str().context("a grant without digest")?;
        innerkeep.run(&["grant".as_ref(), "remove".as_ref(), layout.as_os_str(), digest.as_ref()])?;
    }
    Ok(())
}

/// One ciphertext bit of the largest blob, flipped in place.
pub struct FlippedBit {
    path: PathBuf,
    offset: u64,
}

impl FlippedBit {
    /// Flips the lowest bit of the byte in the middle.
    pub fn flip(layout: &Path) -> anyhow::Result<Self> {
        let mut largest = (0, PathBuf::new());
        for entry in std::fs::read_dir(layout.join("blobs/sha256")).context("list the blobs")? {
            let entry = entry?;
            largest = largest.max((entry.metadata()?.len(), entry.path()));
        }
        ensure!(largest.0 > 0, "there is no ciphertext to flip a bit of");
        let bit = Self { path: largest.1, offset: largest.0 / 2 };
        bit.xor()?;
        Ok(bit)
    }

    /// Flips it back.
    pub fn restore(&self) -> anyhow::Result<()> {
        self.xor()
    }

    fn xor(&self) -> anyhow::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .context("open the ciphertext")?;
        let mut byte = [0];
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_exact(&mut byte)?;
        byte[0] ^= 1;
        file.seek(SeekFrom::Start(self.offset))?;
        file.write_all(&byte)?;
        Ok(())
    }
}

/// Position in the index and blob path of the first manifest of an artifact type.
fn find(layout: &Path, artifact_type: &str) -> anyhow::Result<(usize, PathBuf)> {
    let index = json(&layout.join("index.json"))?;
    for (position, descriptor) in
        index["manifests"].as_array().context("the index has no manifests")?.iter().enumerate()
    {
        let path = blob(layout, descriptor)?;
        if json(&path)?["artifactType"] == artifact_type {
            return Ok((position, path));
        }
    }
    anyhow::bail!("no manifest of type {artifact_type}")
}

fn blob(layout: &Path, descriptor: &Value) -> anyhow::Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor without digest")?;
    Ok(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").context("not a SHA-256 digest")?))
}

fn json(path: &Path) -> anyhow::Result<Value> {
    serde_json::from_slice(&std::fs::read(path).with_context(|| format!("read {}", path.display()))?)
        .with_context(|| format!("parse {}", path.display()))
}

/// Stores a blob and returns the descriptor with its new digest and size.
fn put(layout: &Path, mut descriptor: Value, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(layout.join("blobs/sha256").join(&digest), bytes).context("write a blob")?;
    descriptor["digest"] = Value::String(format!("sha256:{digest}"));
    descriptor["size"] = bytes.len().into();
    Ok(descriptor)
}
