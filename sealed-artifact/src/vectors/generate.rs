//! Makes all vectors.

mod carriers;
mod grants;
mod kinds;
mod objects;
mod origin;
mod segments;

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::format::Writer;
use crate::fixture::{Artifact, Recipe, plaintext, sealer_public, sign};

/// File names and texts, `INDEX.md` included.
pub(super) fn files() -> BTreeMap<String, String> {
    let mut set = Set::default();
    segments::add(&mut set);
    grants::add(&mut set);
    kinds::add(&mut set);
    origin::add(&mut set);
    objects::add(&mut set);
    carriers::add(&mut set);
    set.finish()
}

/// All vectors so far.
#[derive(Default)]
struct Set {
    files: BTreeMap<String, String>,
    index: BTreeMap<String, String>,
}

impl Set {
    fn fixture(&mut self, name: &str, writer: Writer) -> String {
        let file = format!("fixture-{name}.txt");
        assert!(self.files.insert(file.clone(), writer.text()).is_none(), "{name} twice");
        file
    }

    fn vector(&mut self, name: &str, writer: Writer) {
        let text = writer.text();
        let value = |member: &str| {
            text.lines().find_map(|line| line.strip_prefix(member)).unwrap_or_default().to_owned()
        };
        let row = format!("| `{name}` | {} | {} |", value("comment: "), value("expect: "));
        assert!(self.index.insert(name.to_owned(), row).is_none(), "{name} twice");
        self.files.insert(format!("{name}.txt"), text);
    }

    fn finish(mut self) -> BTreeMap<String, String> {
        let mut index = "# Vectors of sealed artifacts\n\nForm and procedure: `docs/spec/sealed-artifact-v1.md`, section 12. \
            Made by `cargo test -p sealed-artifact --profile ci -- --ignored write_vectors`; do not edit.\n\n\
            | vector | rule | expected |\n|---|---|---|\n"
            .to_owned();
        for row in self.index.values() {
            index += row;
            index.push('\n');
        }
        self.files.insert("INDEX.md".to_owned(), index);
        self.files
    }
}

/// SHA-256 of pieces of plaintext, as `released`.
fn released(pieces: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    hex::encode(hash.finalize())
}

/// All plaintext of an artifact.
fn whole(artifact: &Artifact) -> String {
    let plaintexts: Vec<Vec<u8>> =
        artifact.plaintexts.iter().map(|(seed, length)| plaintext(*seed, *length)).collect();
    released(&plaintexts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn pin_core(artifact: &Artifact) -> String {
    format!("core {}", artifact.core.digest())
}

fn pin_sealer(seed: u64, family: &str, counter: u64) -> String {
    format!("sealer {} family {family} min-counter {counter}", sealer_public(seed).digest())
}

/// Members that carry an artifact directly, without key and pins.
fn direct(mut writer: Writer, artifact: &Artifact) -> Writer {
    writer = writer.line("kind", "artifact").bytes("core", artifact.core.bytes());
    for (index, (seed, length)) in artifact.plaintexts.iter().enumerate() {
        writer = writer.line(&format!("plaintext.{index}"), &format!("seed {seed} length {length}"));
        writer = writer.bytes(&format!("payload.{index}"), &artifact.payloads[index]);
        writer = writer.bytes(&format!("tags.{index}"), &artifact.tags[index]);
    }
    writer
}

/// As [`direct`], with content key and pin.
fn openable(writer: Writer, artifact: &Artifact) -> Writer {
    direct(writer, artifact).line("content_key", &hex::encode(artifact.key)).line("pin", &pin_core(artifact))
}

fn success(artifact: &Artifact, comment: &str) -> Writer {
    openable(Writer::new(comment, "success"), artifact).line("released", &whole(artifact))
}

/// The artifact of most vectors: two small payloads with digests, signed by sealer 1.
fn small() -> Artifact {
    let mut recipe = Recipe::new(10, &[100, 100]);
    recipe.sealer = Some(1);
    recipe.seal()
}

/// The small artifact with its signature, content key and a pin by key.
fn small_fixture(set: &mut Set) -> String {
    let artifact = small();
    let writer = direct(Writer::default(), &artifact)
        .bytes("signature", &sign(&artifact.core, 1))
        .line("content_key", &hex::encode(artifact.key))
        .line("pin", &pin_sealer(1, "acme/ranker", 7));
    set.fixture("small", writer)
}
