//! What the demo's guest is launched with: policy, artifact, operator's key, insecure modes, packed by the shipped command.

use super::super::actors::Innerkeep;
use super::super::{DataPath, guest::Tee};
use super::{beside::Beside, images::Images, pod};
use anyhow::Context;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use xtask::vm::VerityRoot;

/// Initdata in its two carriers here.
pub struct Initdata {
    /// The text that is measured, a file.
    pub text: PathBuf,
    /// The disk that a runtime attaches.
    pub image: PathBuf,
    /// Digest of the text, hex, as the register has it.
    pub digest: String,
}

/// What goes into it.
pub struct Contents<'a> {
    /// What it is for: another word, another digest.
    pub tenant: &'a str,
    /// The core of the model.
    pub core: &'a str,
    /// Digest of the model, for the container to compare.
    pub model: &'a pod::Model,
    /// The root of the container that gets it.
    pub root: &'a VerityRoot,
    /// The image of the other container that gets it, and where it is pulled from.
    pub images: &'a Images,
    /// What else was sealed.
    pub beside: &'a Beside,
    /// The chip's root certificate.
    pub chip_root: &'a Path,
    /// `audit.toml`.
    pub audit: &'a Path,
}

/// Packs it in a directory; `name` tells files apart.
pub fn pack(
    innerkeep: &Innerkeep,
    tee: Tee,
    path: DataPath,
    directory: &Path,
    name: &str,
    contents: &Contents<'_>,
) -> anyhow::Result<Initdata> {
    let Contents { tenant, core, model, root, images, beside, chip_root, audit } = *contents;
    let algorithm = match tee {
        Tee::Tdx => "sha384",
        Tee::Snp => "sha256",
    };
    let modes = match path {
        DataPath::DmaDirect => "\"emulated-chip\", \"emulated-dma\", \"emulated-tee\"",
        _ => "\"emulated-chip\", \"emulated-tee\"",
    };
    let files = directory.join(format!("{name}.files"));
    std::fs::create_dir_all(&files).with_context(|| format!("make {}", files.display()))?;
    let write = |name: &str, text: &str| {
        let file = files.join(name);
        std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    };
    let certificate = std::fs::read_to_string(chip_root).context("read the chip's root certificate")?;
    let core = core.trim_start_matches("sha256:");
    write("innerkeep.toml", &format!("# {tenant}\ninsecure = [{modes}]\n"))?;
    let containers = pod::containers(model).to_string();
    write("policy.rego", &include_str!("policy.rego").replace("CONTAINERS", &containers))?;
    write("cdh.toml", &format!("{}\n{}", images.config(), beside.config(images)))?;
    write("audit.toml", &std::fs::read_to_string(audit).context("read the operator's public key")?)?;
    write(
        "sealed.toml",
        &format!(
            "environment = \"development\"\nchip_root = \"\"\"{certificate}\"\"\"\n\n[[artifact]]\nname = \"model\"\n\
             reference = \"{0}\"\ncore = \"sha256:{core}\"\npath = \"{1}\"\ncontainer = {{ {2}, policy_container = 0 }}\n\n\
             [[artifact]]\nname = \"pulled\"\nreference = \"{0}\"\ncore = \"sha256:{core}\"\npath = \"{1}\"\n\
             container = {{ image = \"{3}\", policy_container = 1 }}\n\n{4}",
            pod::REFERENCE,
            pod::PLACE,
            root.toml(),
            images.digest,
            beside.artifacts(images)
        ),
    )?;
    let at = |suffix: &str| directory.join(format!("{name}.{suffix}"));
    let (text, image, annotation) = (at("toml"), at("img"), at("annotation"));
    let arguments: [&OsStr; 11] = [
        "initdata".as_ref(),
        "pack".as_ref(),
        "--algorithm".as_ref(),
        algorithm.as_ref(),
        "--toml".as_ref(),
        text.as_os_str(),
        "--image".as_ref(),
        image.as_os_str(),
        "--output".as_ref(),
        annotation.as_os_str(),
        files.as_os_str(),
    ];
    innerkeep.run(&arguments)?;
    let bytes = std::fs::read(&text).with_context(|| format!("read {}", text.display()))?;
    Ok(Initdata { digest: tee.initdata_digest(&bytes), text, image })
}
