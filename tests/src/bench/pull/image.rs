//! An image layout with many files, the same each time: ten layers, three quarters of it files of 1 to 128 KiB, the rest of 32 MiB.
//!
//! Written without any of the product's code: tar headers by hand, compression by `gzip`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::payload::Random;

/// Layers of small files, and of large ones.
const SMALL_LAYERS: u64 = 8;
const LARGE_LAYERS: u64 = 2;
const LARGE_FILE: u64 = 32 << 20;
/// Files of one directory.
const DIRECTORY: u64 = 200;

/// A file of the image that is looked at afterwards.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sample {
    pub(crate) path: String,
    pub(crate) sha256: String,
}

/// What was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) files: u64,
    /// Bytes of all files, and of all layers as they are transferred.
    pub(crate) bytes: u64,
    pub(crate) compressed: u64,
    pub(crate) layers: usize,
    pub(crate) samples: Vec<Sample>,
}

/// Makes a layout with the tag `v1` whose files have about `size` bytes.
pub(crate) fn make(layout: &Path, size: u64) -> anyhow::Result<Made> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let mut made = Made { files: 0, bytes: 0, compressed: 0, layers: 0, samples: Vec::new() };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for index in 0..SMALL_LAYERS + LARGE_LAYERS {
        let large = index >= SMALL_LAYERS;
        let share = if large { size / 4 / LARGE_LAYERS } else { size / 4 * 3 / SMALL_LAYERS };
        let (layer, diff_id) = layer(&blobs, index, share, large, &mut made)?;
        made.compressed += layer.get("size").and_then(Value::as_u64).unwrap_or(0);
        layers.push(layer);
        diff_ids.push(diff_id);
    }
    made.layers = layers.len();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let text = json!({"schemaVersion": 2, "mediaType": manifest, "config": config, "layers": layers});
    let mut entry = put(&blobs, manifest, text.to_string().as_bytes())?;
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".to_owned(), json!({"org.opencontainers.image.ref.name": "v1"}));
    }
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(made)
}

fn put(blobs: &Path, media_type: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    let digest = hex::encode(Sha256::digest(bytes));
    fs::write(blobs.join(&digest), bytes)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
}

/// One layer: its descriptor, and the digest of its archive.
fn layer(
    blobs: &Path,
    index: u64,
    share: u64,
    large: bool,
    made: &mut Made,
) -> anyhow::Result<(Value, String)> {
    let unnamed = blobs.join("unnamed");
    let mut gzip = Command::new("gzip");
    gzip.args(["-6", "-n", "-c"]).stdin(Stdio::piped()).stdout(File::create(&unnamed)?);
    let mut child = gzip.spawn().context("start gzip")?;
    let to = child.stdin.take().context("no standard input")?;
    let mut archive = Archive { to: BufWriter::with_capacity(1 << 20, to), hash: Sha256::new() };
    let mut random = Random::new(index);
    let top = format!("layer-{index}");
    archive.header(&format!("{top}/"), 0, b'5')?;
    let (mut number, mut bytes) = (0_u64, 0);
    let mut content = Vec::new();
    while bytes < share {
        let directory = format!("{top}/directory-{:03}", number / DIRECTORY);
        if number.is_multiple_of(DIRECTORY) {
            archive.header(&format!("{directory}/"), 0, b'5')?;
        }
        let size = if large { LARGE_FILE.min(share) } else { (1 << 10) + random.draw() % (127 << 10) };
        fill(&mut random, &mut content, size)?;
        let path = format!("{directory}/file-{number:05}");
        archive.header(&path, size, b'0')?;
        archive.write_all(&content)?;
        let padding = (512 - size % 512) % 512;
        archive.write_all(&vec![0; usize::try_from(padding)?])?;
        if number.is_multiple_of(997) {
            made.samples.push(Sample { path, sha256: hex::encode(Sha256::digest(&content)) });
        }
        number += 1;
        bytes += size;
    }
    archive.write_all(&[0; 1024])?;
    let Archive { to, hash } = archive;
    drop(to.into_inner().context("write to gzip")?);
    ensure!(child.wait()?.success(), "gzip failed");
    made.files += number;
    made.bytes += bytes;
    let (digest, size) = digest_of(&unnamed)?;
    fs::rename(&unnamed, blobs.join(&digest))?;
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let descriptor = json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size});
    Ok((descriptor, format!("sha256:{}", hex::encode(hash.finalize()))))
}

/// Content of which about two fifths remain after compression: random bytes among words that repeat.
fn fill(random: &mut Random, content: &mut Vec<u8>, size: u64) -> anyhow::Result<()> {
    content.clear();
    let size = usize::try_from(size)?;
    while content.len() < size {
        let draw = random.draw();
        if draw.is_multiple_of(4) {
            for _ in 0..8 {
                content.extend(random.draw().to_le_bytes());
            }
        } else {
            for word in draw.to_le_bytes() {
                content.extend(format!("word-{:02x} of {:x};", word, word & 15).bytes());
            }
        }
    }
    content.truncate(size);
    Ok(())
}

/// A tar archive, hashed as it is written.
struct Archive<W: Write> {
    to: BufWriter<W>,
    hash: Sha256,
}

impl<W: Write> Write for Archive<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Archive<W> {
    /// A header of the ustar form.
    fn header(&mut self, path: &str, size: u64, kind: u8) -> anyhow::Result<()> {
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        let mut header = Vec::with_capacity(512);
        let mut field = |text: &str, length: usize| {
            header.extend(text.bytes());
            header.extend(vec![0; length - text.len()]);
        };
        ensure!(path.len() <= 100, "a name that is too long");
        field(path, 100);
        field(&format!("{mode:07o}"), 8);
        field("0000000", 8);
        field("0000000", 8);
        field(&format!("{size:011o}"), 12);
        field("14000000000", 12);
        field("        ", 8);
        header.push(kind);
        header.extend([0; 100]);
        header.extend(b"ustar\x0000");
        header.resize(512, 0);
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        if let Some(place) = header.get_mut(148..156) {
            place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        self.write_all(&header)?;
        Ok(())
    }
}

fn digest_of(path: &Path) -> anyhow::Result<(String, u64)> {
    let (mut file, mut hash, mut buffer, mut size) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hash.finalize()), size));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
}

/// Looks at files of an unpacked image; the clock does not run.
pub(crate) fn verify(root: &Path, samples: &[Sample]) -> anyhow::Result<()> {
    ensure!(!samples.is_empty(), "no samples");
    for sample in samples {
        let (found, _) = digest_of(&root.join(&sample.path)).with_context(|| sample.path.clone())?;
        ensure!(found == sample.sha256, "{}: {found} instead of {}", sample.path, sample.sha256);
    }
    Ok(())
}
