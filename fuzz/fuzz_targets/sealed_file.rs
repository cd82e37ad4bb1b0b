//! Whole `.sealed` files: slots, directory, regions. With digests put right, so that what they cover is reached.
//!
//! Input: 4 bytes (which slots and digests are mended), then two slots of 72 bytes each, then what follows the header.

#![no_main]

use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use sealed_artifact::ArtifactError;
use sealed_artifact::sealed_file::{BLOCK, Current, HEADER, Region};
use sha2::{Digest, Sha256};

const SIGNED: usize = 72;
const BLOCK_LEN: usize = BLOCK as usize;
const HEADER_LEN: usize = HEADER as usize;

fuzz_target!(|data: &[u8]| {
    let Some((mend, rest)) = data.split_first_chunk::<4>() else { return };
    if mend[0] & 0x80 != 0 {
        return check(rest);
    }
    let Some((slots, body)) = rest.split_at_checked(2 * SIGNED) else { return };
    let mut file = vec![0; HEADER_LEN];
    file.extend_from_slice(body);
    for (i, slot) in slots.chunks(SIGNED).enumerate() {
        let mut slot = slot.to_vec();
        if mend[i] & 1 != 0 {
            mend_slot(&mut slot, body, mend[2]);
        }
        let digest = Sha256::digest(&slot);
        let at = i * BLOCK_LEN;
        file[at..at + SIGNED].copy_from_slice(&slot);
        file[at + SIGNED..at + SIGNED + 32].copy_from_slice(&digest);
    }
    check(&file);
});

/// Magic, version, and a directory that is all that follows the header from some offset on, with its digest.
fn mend_slot(slot: &mut [u8], body: &[u8], skip: u8) {
    let skip = usize::from(skip).min(body.len());
    slot[..8].copy_from_slice(b"IKSEALED");
    slot[8..16].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
    slot[24..32].copy_from_slice(&((HEADER_LEN + skip) as u64).to_be_bytes());
    slot[32..40].copy_from_slice(&((body.len() - skip) as u64).to_be_bytes());
    slot[40..72].copy_from_slice(&Sha256::digest(&body[skip..]));
}

fn check(file: &[u8]) {
    let header = &file[..file.len().min(HEADER_LEN)];
    let read = |region: Region| {
        let start = usize::try_from(region.offset).expect("inside the file");
        let length = usize::try_from(region.length).expect("inside the file");
        Ok::<_, ArtifactError>(file[start..start + length].to_vec())
    };
    let found = bounded(file.len(), || Current::find(header, file.len() as u64, read));
    let Ok(current) = found else { return };
    let directory = current.slot.directory;
    current.directory.require_inside(file.len() as u64, directory).expect("regions that were accepted");
    assert_eq!(current.directory.encode(), read(directory).expect("inside the file"));
    // A writer's next step gives a file whose other slot is the current one.
    let mut next = file.to_vec();
    let offset = next.len() as u64;
    let encoded = current.directory.encode();
    next.extend_from_slice(&encoded);
    let (position, slot) = current.next_slot(offset, &encoded);
    assert_ne!(position, current.position);
    let at = usize::try_from(position.offset()).expect("a slot");
    next[at..at + BLOCK_LEN].copy_from_slice(&slot.encode());
    let again = Current::find(&next[..HEADER_LEN], next.len() as u64, |region| {
        let start = usize::try_from(region.offset).expect("inside the file");
        Ok::<_, ArtifactError>(next[start..start + region.length as usize].to_vec())
    });
    let again = again.expect("the file that was extended");
    if current.slot.sequence < u64::MAX {
        assert_eq!((again.position, again.directory), (position, current.directory));
    }
}
