//! What is sealed beside the model: a secret, the layers of an image, and two artifacts that no guest of this initdata takes.

use super::super::actors::Innerkeep;
use super::super::scene::{Policy, Scene};
use super::images::Images;
use super::pod::PLACE;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The artifact whose counter is below what initdata demands, and its container.
pub const STALE: &str = "stale";
/// The artifact that somebody else sealed, and its container.
pub const STRANGER: &str = "stranger";
const SECRET: &str = "a secret of the demo, forty-two";
/// Families are what tells one thing from another that the same sealer sealed.
const SECRETS: &str = "demo/password";
const LAYERS: &str = "demo/layers";

/// All of it.
pub struct Beside {
    secret: PathBuf,
    strangers: PathBuf,
    layers: PathBuf,
    layers_core: String,
    sealer: String,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
}

/// Sealed secrets as texts, for the environment of a container.
pub struct Secrets {
    /// For the container.
    pub own: String,
    /// The same with a bit of its ciphertext turned.
    pub altered: String,
    /// Sealed by somebody else, who granted it to the same chip.
    pub strangers: String,
}

impl Beside {
    /// Seals it; `image` is the one whose layers are sealed, `offered` where the host offers artifacts.
    pub fn seal(
        innerkeep: &Innerkeep,
        scene: &Scene<'_>,
        image: &str,
        offered: &Path,
    ) -> anyhow::Result<Self> {
        let at = |name: &str| scene.work.join(name);
        let file = |name: &str, text: &str| {
            let path = at(name);
            std::fs::write(&path, text).with_context(|| format!("write {name}")).map(|()| path)
        };
        let (input, small) = (file("password", SECRET)?, file("small", "a small model")?);
        let stranger = at("stranger.pem");
        innerkeep.run(&["key".as_ref(), "new".as_ref(), "--output".as_ref(), stranger.as_os_str()])?;
        let seal = |what: &[&OsStr], to: &Path, family: &str, by: &Path| {
            scene.seal_what(innerkeep, what, to, family, Some(by))
        };
        let (secret, strangers, layers) =
            (at("password.sealed"), at("strangers.sealed"), at("layers-sealed"));
        seal(&[input.as_os_str()], &secret, SECRETS, scene.sealer)?;
        seal(&[input.as_os_str()], &strangers, SECRETS, &stranger)?;
        seal(&[small.as_os_str()], &offered.join(STALE), "demo/model", scene.sealer)?;
        seal(&[small.as_os_str()], &offered.join(STRANGER), "demo/model", &stranger)?;
        let sealed = seal(&["--image".as_ref(), image.as_ref()], &layers, LAYERS, scene.sealer)?;
        let sealer = public_digest(innerkeep, scene.sealer)?;
        let layers_core = sealed["core"].as_str().context("the core of the layers")?.to_owned();
        let secret_sha256 = Sha256::digest(SECRET).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { secret, strangers, layers, layers_core, sealer, secret_sha256 })
    }

    /// Grants it to the chip, under the policy of the model, each for its family.
    pub fn grant(
        &self,
        innerkeep: &Innerkeep,
        scene: &Scene<'_>,
        policy: &Policy,
    ) -> anyhow::Result<Secrets> {
        let of = |family: &str| policy.with("family", &format!("{{ exactly = \"{family}\" }}"));
        for (store, family) in [(&self.secret, SECRETS), (&self.strangers, SECRETS), (&self.layers, LAYERS)] {
            scene.grant(innerkeep, store, &of(family)?)?;
        }
        let text = |file: &Path| {
            let said = innerkeep.run(&["secret".as_ref(), file.as_os_str()])?;
            said["text"].as_str().map(str::to_owned).context("the text of a secret")
        };
        let own = text(&self.secret)?;
        let altered = altered(&own).context("a text with a payload")?;
        Ok(Secrets { altered, strangers: text(&self.strangers)?, own })
    }

    /// The layout of the image with sealed layers.
    pub fn layers(&self) -> &Path {
        &self.layers
    }

    /// Its part of `cdh.toml`.
    pub fn config(&self, images: &Images) -> String {
        let image = images.sealed();
        let repository = image.rsplit_once(':').map_or(image.as_str(), |(repository, _)| repository);
        format!(
            "[[innerkeep.sealed_images]]\nimage = \"{repository}\"\nenvironment = \"development\"\ncore = \"{}\"\n\n\
             [[innerkeep.sealed_secrets]]\nenvironment = \"development\"\nsealer = {}\n",
            self.layers_core,
            self.by_sealer(SECRETS, 7)
        )
    }

    /// Its part of `sealed.toml`.
    pub fn artifacts(&self, images: &Images) -> String {
        let entry = |name: &str, counter: u64, container: u32| {
            format!(
                "[[artifact]]\nname = \"{name}\"\nreference = \"registry.example/demo/{name}:latest\"\nsealer = {}\npath = \"{PLACE}\"\n\
                 container = {{ image = \"{}\", policy_container = {container} }}\n\n",
                self.by_sealer("demo/model", counter),
                images.digest
            )
        };
        // What the host offers has counter 7.
        [entry(STALE, 8, 2), entry(STRANGER, 1, 3)].concat()
    }

    fn by_sealer(&self, family: &str, counter: u64) -> String {
        format!("{{ key = \"{}\", family = \"{family}\", min_counter = {counter} }}", self.sealer)
    }
}

/// The digest by which initdata names a sealer.
fn public_digest(innerkeep: &Innerkeep, private: &Path) -> anyhow::Result<String> {
    let mut public = private.as_os_str().to_owned();
    public.push(".pub");
    let shown = innerkeep.run(&["key".as_ref(), "show".as_ref(), &public])?;
    shown["digest"].as_str().map(str::to_owned).context("the digest of a key")
}

/// Turns a bit in the first byte of the payload, which begins behind both slots of the file, in base64.
fn altered(text: &str) -> Option<String> {
    const SLOTS: usize = 8192;
    let start = text.rfind('.')?.checked_add(1)?;
    let at = start.checked_add((SLOTS * 8 + 2) / 6)?;
    let mut bytes = text.as_bytes().to_vec();
    let letter = bytes.get_mut(at)?;
    *letter = if *letter == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).ok()
}
