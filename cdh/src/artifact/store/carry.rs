//! From one carrier to another: the same core, signature and grants, the same ciphertext. Nothing is decrypted, and nobody is asked for a key.

use std::os::unix::fs::FileExt as _;

use sealed_artifact::oci::image_payloads;
use sealed_artifact::tags::TagTable;

use super::{Finished, Reference, Store, Writer};
use crate::Error;

const PIECE: usize = 1 << 20;

/// Writes an artifact into another carrier. There must be none in its place.
///
/// # Errors
///
/// The artifact cannot be read, its parts are not of the lengths and digests that its core says, or the new one cannot be written: nothing of
/// it is there then. Where a grant is what cannot be written, the artifact is there with those before it.
pub fn carry(from: &Reference, to: &Reference) -> Result<(), Error> {
    let store = Store::open(from)?;
    let core = &store.core;
    if image_payloads(core).is_ok() {
        let expected = "an artifact: an image with sealed layers lives in an image layout";
        return Err(Error::Usage { argument: "REFERENCE", expected, found: from.to_string() });
    }
    let payloads = core.parameters().payloads();
    let mut writer = Writer::create(to, payloads.iter().map(|payload| payload.layout.size()))?;
    let mut tag_tables = Vec::new();
    for (index, (payload, seal)) in payloads.iter().zip(core.payloads()).enumerate() {
        copy(&store, index, &writer)?;
        writer.payload_done(index)?;
        tag_tables.push(TagTable::verify(&store.tag_table(index)?, &payload.layout, seal.tags)?);
    }
    let signature = store.signature.as_ref();
    writer.finish(&Finished { core, tag_tables: &tag_tables, signature, image: None })?;
    if store.grants.is_empty() {
        return Ok(());
    }
    let mut carried = Store::open(to)?;
    for stored in &store.grants {
        carried.add_grant(&stored.grant)?;
    }
    Ok(())
}

fn copy(store: &Store, index: usize, writer: &Writer) -> Result<(), Error> {
    let blob = store.payload(index)?;
    let (file, at, path) = writer.sink(index)?;
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < blob.length {
        let room = usize::try_from(blob.length.saturating_sub(offset)).unwrap_or(PIECE).min(PIECE);
        let part = buffer.get_mut(..room).unwrap_or_default();
        let from = blob.offset.saturating_add(offset);
        blob.file.read_exact_at(part, from).map_err(Error::file("read the ciphertext", &blob.path))?;
        let to = at.saturating_add(offset);
        file.write_all_at(part, to).map_err(Error::file("write ciphertext to", path))?;
        offset = offset.saturating_add(u64::try_from(room).unwrap_or(u64::MAX));
    }
    Ok(())
}
