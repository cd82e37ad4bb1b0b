//! Unpacking in a process of its own, and what the process that asked for it believes.
//!
//! ```text
//!  parent                                                   child: fresh, no network, no privileges, ends after one image
//!   Job, one read-only file for each layer,     ──────▶      run: Unpacker ─▶ objects into the directory, the tree as bytes
//!   an empty directory for objects, a pipe                     │
//!   receive: form and limits of the tree        ◀── answer ────┘
//! ```
//!
//! Who starts such a child is told in [`unpacking`](crate::image::unpacking). Its objects are nobody's until it has ended and each was hashed, which
//! [`Verified::in_memory`](crate::composefs::mount::Verified::in_memory) does when nobody can write any more.
//!
//! A child that an image has taken over can give a tree of its choice: for this image, which it was to unpack. It has no other one's files,
//! and what it gives is checked like foreign bytes. Where the digest of the metadata image is pinned, such a tree is found out, too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::error::CODES;
use super::{Compression, DiffId, LayerError, Limits, Unpacker, codec, transform_for_oci};
use crate::image::objects::Store;
use crate::image::tree::Tree;

/// In front of a tree.
const TREE: u8 = 0;
/// In front of the length of a code, the code, and words.
const REFUSAL: u8 = 1;
/// Most bytes of an error's words.
const WORDS_MAX: usize = 1024;

/// One image to unpack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its layers, the lowest first.
    pub layers: Vec<JobLayer>,
    /// What it may take.
    pub limits: Limits,
    /// Bytes of the objects' file system that are left alone.
    pub reserve: u64,
    /// Whether the tree gets the form in which composefs takes digests of images: [`transform_for_oci`].
    pub transform: bool,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobLayer {
    /// From its media type.
    pub compression: Compression,
    /// From the image's configuration.
    pub diff_id: DiffId,
}

/// Unpacks layers, here and now. `inputs` gives a file or pipe for each layer when it is its turn, open for reading only, at its beginning:
/// authenticated bytes, decrypted where the layer was encrypted. Each is read once.
///
/// # Errors
///
/// See [`LayerError`].
pub fn unpack(
    job: &Job,
    inputs: impl IntoIterator<Item = std::io::Result<File>>,
    store: &Store,
) -> Result<Tree, LayerError> {
    let unfit = |what| LayerError::Read(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
    let mut inputs = inputs.into_iter();
    let mut unpacker = Unpacker::new(store, job.limits);
    for layer in &job.layers {
        let input = inputs.next().ok_or_else(|| unfit("expected one file for each layer"))?;
        let input = input.map_err(LayerError::Read)?;
        let flags = rustix::fs::fcntl_getfl(&input).map_err(|error| LayerError::Read(error.into()))?;
        // GUARD: layer-input-read-only -> evil_layer_that_could_be_written
        if flags.contains(OFlags::WRONLY) || flags.contains(OFlags::RDWR) {
            return Err(unfit("expected files that are open for reading only"));
        }
        unpacker = unpacker.layer(input, layer.compression, &layer.diff_id)?;
    }
    let mut tree = unpacker.finish();
    if job.transform {
        transform_for_oci(&mut tree)?;
    }
    Ok(tree)
}

/// What the child does: unpacks into `objects`, an empty directory, and writes its answer. Whatever happens with the image is in the answer.
///
/// # Errors
///
/// If the answer could not be written.
pub fn run(
    job: &Job,
    inputs: impl IntoIterator<Item = std::io::Result<File>>,
    objects: OwnedFd,
    answer: &mut impl Write,
) -> std::io::Result<()> {
    let store = Store::new(objects, job.reserve);
    match unpack(job, inputs, &store).and_then(|tree| codec::encode(&tree)) {
        Ok(tree) => {
            answer.write_all(&[TREE])?;
            answer.write_all(&tree)?;
            answer.flush()
        }
        Err(error) => refuse(&error, answer),
    }
}

/// Answers that there is no tree, and why.
pub(crate) fn refuse(error: &LayerError, answer: &mut impl Write) -> std::io::Result<()> {
    let code = error.code().as_bytes();
    let mut words = error.to_string().into_bytes();
    words.truncate(WORDS_MAX);
    answer.write_all(&[REFUSAL, u8::try_from(code.len()).unwrap_or(0)])?;
    answer.write_all(code)?;
    answer.write_all(&words)?;
    answer.flush()
}

/// Reads a child's answer to its end, and checks that it is a tree within the limits of the job. Its objects are still nobody's.
///
/// # Errors
///
/// `LAYER_TREE_FORM`, `LAYER_CHILD` if the answer is none, `LAYER_READ`, or the error of the child, with its code.
pub fn receive(answer: impl Read, job: &Job) -> Result<Tree, LayerError> {
    let limit = job.limits.tree_bytes().saturating_add(1);
    let mut bytes = Vec::new();
    answer.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(LayerError::Read)?;
    // GUARD: layer-answer-bounded -> evil_answers
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(LayerError::ChildAnswer { expected: "an answer within the limits of the image" });
    }
    match bytes.split_first() {
        Some((&TREE, tree)) => codec::decode(tree, &job.limits),
        Some((&REFUSAL, rest)) => Err(refusal(rest)),
        _ => Err(LayerError::ChildAnswer { expected: "a tree or a refusal, not its end" }),
    }
}

/// A child's error: its code if there is one like that, and its words without anything that is not printable.
fn refusal(rest: &[u8]) -> LayerError {
    let found = rest.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
    let Some((code, words)) = found else {
        return LayerError::ChildAnswer { expected: "a code in its refusal" };
    };
    let Some(code) = CODES.into_iter().find(|known| known.as_bytes() == code) else {
        return LayerError::ChildAnswer { expected: "a code that there is in its refusal" };
    };
    let words = words.get(..WORDS_MAX).unwrap_or(words);
    LayerError::Child { code, text: String::from_utf8_lossy(words).escape_debug().to_string() }
}

#[cfg(test)]
mod tests;
