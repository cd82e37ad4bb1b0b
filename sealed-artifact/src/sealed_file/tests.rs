use proptest::prelude::*;

use super::*;
use crate::carrier::{file_of, from_file};
use crate::fixture::{Artifact, Recipe, sign};

fn artifact() -> Artifact {
    Recipe { sealer: Some(1), ..Recipe::new(1, &[100, 0, 5_000]) }.seal()
}

fn directory() -> Directory {
    Directory::plan(700, &[5_000, 0, 1], &[16, 16, 16], Some(400), &[900, 901])
}

fn code(result: Result<(), ArtifactError>) -> &'static str {
    result.map_or_else(|error| error.code(), |()| "accepted")
}

#[test]
fn file_carries_everything() {
    let artifact = artifact();
    let (signature, grants) = (sign(&artifact.core, 1), vec![b"one".to_vec(), b"two".to_vec()]);
    let carried = from_file(&file_of(&artifact, Some(&signature), &grants)).unwrap();
    assert_eq!(carried.core, artifact.core.bytes());
    assert_eq!(carried.payloads, artifact.payloads);
    assert_eq!(carried.tags, artifact.tags);
    assert_eq!(carried.grants, grants);
    assert_eq!(carried.signature, Some(signature));
}

#[test]
fn planned_directory_is_sound() {
    let planned = directory();
    let region = Region { length: 300, offset: planned.end() };
    assert_eq!(planned.require_inside(planned.end() + 300, region), Ok(()));
    assert_eq!(Directory::parse(&planned.encode()), Ok(planned));
}

#[test]
fn every_update_writes_the_other_slot() {
    let bytes = directory().encode();
    let mut current =
        Current { directory: directory(), position: SlotPosition::A, slot: Slot::new(1, 9_000, &bytes) };
    for (sequence, expected) in (2..).zip([SlotPosition::B, SlotPosition::A, SlotPosition::B]) {
        let (position, slot) = current.next_slot(9_000, &bytes);
        assert_eq!((position, slot.sequence), (expected, sequence));
        assert_eq!(Slot::parse(&slot.encode()), Some(slot));
        current = Current { position, slot, ..current };
    }
}

#[test]
fn evil_torn_slot_is_passed_over() {
    let slot = Slot::new(1, 9_000, b"{}").encode();
    assert_eq!(slot.len(), 4_096);
    for bit in 0..104 * 8 {
        let mut torn = slot.clone();
        torn[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Slot::parse(&torn), None, "bit {bit}");
    }
    assert_eq!(Slot::parse(&slot[..103]), None);
    assert_eq!(Slot::parse(&[]), None);
}

#[test]
fn evil_directory_with_another_digest_is_passed_over() {
    let mut file = file_of(&artifact(), None, &[]);
    let last = file.len() - 2;
    file[last] = b' ';
    assert_eq!(from_file(&file).err().unwrap().code(), "CARRIER_CORRUPT");
}

#[test]
fn evil_region_outside_the_file_is_refused() {
    let planned = directory();
    let end = planned.end();
    let directory = Region { length: 10, offset: end };
    assert_eq!(code(planned.require_inside(end + 9, directory)), "CARRIER_CORRUPT");
    for offset in [0, 4_096, 8_191, u64::MAX] {
        let mut other = planned.clone();
        other.grants[0].offset = offset;
        assert_eq!(code(other.require_inside(end + 10, directory)), "CARRIER_CORRUPT", "{offset}");
    }
}

#[test]
fn evil_overlapping_regions_are_refused() {
    let planned = directory();
    let end = planned.end();
    let mut other = planned.clone();
    other.tags[1].offset -= 1;
    assert_eq!(code(other.require_inside(end + 10, Region { length: 10, offset: end })), "CARRIER_CORRUPT");
    assert_eq!(
        code(planned.require_inside(end + 10, Region { length: 10, offset: end - 1 })),
        "CARRIER_CORRUPT"
    );
}

#[test]
fn evil_unaligned_payload_is_refused() {
    let mut planned = Directory::plan(700, &[100], &[16], None, &[]);
    planned.payloads[0].offset = HEADER + 5_000;
    assert_eq!(
        code(planned.require_inside(1 << 20, Region { length: 10, offset: 1 << 16 })),
        "CARRIER_CORRUPT"
    );
}

#[test]
fn evil_directory_with_fewer_payloads_is_refused() {
    let core = artifact().core;
    assert_eq!(code(directory().require_payloads(&core)), "accepted");
    let fewer = Directory::plan(700, &[100, 0], &[16, 16], None, &[]);
    assert_eq!(code(fewer.require_payloads(&core)), "CARRIER_CORRUPT");
}

#[test]
fn evil_directory_above_its_limit_is_not_read() {
    let mut slot = Slot::new(1, HEADER, b"");
    slot.directory.length = MAXIMUM_DIRECTORY + 1;
    let header = [slot.encode(), vec![0; 4_096]].concat();
    let found = Current::find(&header, 1 << 30, |_| -> Result<Vec<u8>, ArtifactError> { panic!("read") });
    assert_eq!(found.unwrap_err().code(), "CARRIER_CORRUPT");
}

proptest! {
    #[test]
    fn one_byte_altered_is_refused_or_another_directory(place: prop::sample::Index, byte: u8) {
        let mut altered = directory().encode();
        let place = place.index(altered.len());
        altered[place] = byte;
        if let Ok(parsed) = Directory::parse(&altered) {
            prop_assert_eq!(parsed.encode(), altered);
        }
    }

    #[test]
    fn no_header_makes_the_reader_panic(header in proptest::collection::vec(any::<u8>(), 0..300), length: u64) {
        let _ = Current::find(&header, length, |_| Ok::<_, ArtifactError>(Vec::new()));
    }
}
