//! Directories of `.sealed` files. Accepted bytes are the canonical encoding; accepted regions are inside and disjoint.

#![no_main]

use fuzz::{bounded, canonical};
use libfuzzer_sys::fuzz_target;
use sealed_artifact::sealed_file::{BLOCK, Directory, HEADER, Region};

fuzz_target!(|data: &[u8]| {
    check(data);
    if let Some(text) = canonical(data) {
        check(&text);
    }
});

fn check(data: &[u8]) {
    let Ok(directory) = bounded(data.len(), || Directory::parse(data)) else { return };
    assert_eq!(directory.encode(), data);
    assert_eq!(directory.payloads.len(), directory.tags.len());
    let end = directory.end();
    let own = Region { length: data.len() as u64, offset: end };
    let Some(file_length) = end.checked_add(data.len() as u64) else { return };
    if directory.require_inside(file_length, own).is_err() {
        return;
    }
    let mut regions: Vec<Region> = [directory.core, own].into_iter().chain(directory.signature).collect();
    regions.extend(directory.grants.iter().chain(&directory.payloads).chain(&directory.tags));
    regions.retain(|region| region.length > 0);
    regions.sort_by_key(|region| region.offset);
    assert!(
        regions
            .iter()
            .all(|r| r.offset >= HEADER && r.offset.checked_add(r.length).is_some_and(|e| e <= file_length))
    );
    assert!(regions.windows(2).all(|pair| pair[0].offset + pair[0].length <= pair[1].offset));
    assert!(directory.payloads.iter().all(|payload| payload.offset % BLOCK == 0));
}
