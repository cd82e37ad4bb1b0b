//! The consumer: the program that gets the landed file's path, as a workload would.

use anyhow::Context;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// Files above this size are judged by digest alone.
const OPENED_UP_TO: u64 = 2 << 30;

/// Opens the landed file and prints what it saw as one JSON object.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let (size, sha256) = digest(path)?;
    let mut seen = json!({ "path": path, "size": size, "sha256": sha256 });
    match tensors(path, size)? {
        Ok(tensors) => seen["tensors"] = tensors,
        Err(reason) => seen["not_safetensors"] = Value::String(reason),
    }
    println!("{seen}");
    Ok(())
}

/// Size and SHA-256 of a file.
pub fn digest(path: &Path) -> anyhow::Result<(u64, String)> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        size += u64::try_from(count)?;
    }
    Ok((size, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn tensors(path: &Path, size: u64) -> anyhow::Result<Result<Value, String>> {
    if size > OPENED_UP_TO {
        return Ok(Err(format!("larger than {OPENED_UP_TO} bytes")));
    }
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(match SafeTensors::deserialize(&bytes) {
        Ok(file) => {
            let mut tensors = file.tensors();
            tensors.sort_by(|(left, _), (right, _)| left.cmp(right));
            Ok(tensors
                .into_iter()
                .map(|(name, view)| json!({ "name": name, "dtype": format!("{:?}", view.dtype()), "shape": view.shape() }))
                .collect())
        }
        Err(error) => Err(error.to_string()),
    })
}
