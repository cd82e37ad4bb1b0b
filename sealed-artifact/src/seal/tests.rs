use super::*;
use crate::fixture::{Recipe, segment};
use crate::layout::{MAXIMUM_PAYLOAD_SIZE, choose_segment_size};

#[test]
fn evil_sealing_a_segment_twice_is_refused() {
    let sealer = Sealer::new(&Recipe::new(1, &[10]).request()).unwrap();
    let payload = &sealer.payloads()[0];
    let mut first = [1; 10];
    payload.seal_in_place(segment(0), &mut first).unwrap();
    let mut second = [2; 10];
    let refused = payload.seal_in_place(segment(0), &mut second).unwrap_err();
    assert_eq!(refused, ArtifactError::SegmentReused { payload: 0, segment: 0 });
    assert_eq!(second, [2; 10], "nothing was encrypted a second time");
    let mut third = [0; 10];
    assert_eq!(payload.seal_into(segment(0), &[3; 10], &mut third).unwrap_err().code(), "SEGMENT_REUSED");
    assert_eq!(third, [0; 10]);
}

#[test]
fn evil_unfinished_seal_has_no_core() {
    let sealer = Sealer::new(&Recipe::new(1, &[70_000]).request()).unwrap();
    sealer.payloads()[0].seal_in_place(segment(0), &mut vec![0; 65_536]).unwrap();
    assert_eq!(sealer.finish().err().unwrap().code(), "PAYLOAD_INCOMPLETE");
}

#[test]
fn interrupted_seal_repeats_no_key_id_or_ciphertext() {
    let request = Recipe::new(1, &[64]).request();
    let seal = || {
        let sealer = Sealer::new(&request).unwrap();
        let mut blob = [0; 64];
        sealer.payloads()[0].seal_in_place(segment(0), &mut blob).unwrap();
        let sealed = sealer.finish().unwrap();
        (*sealed.content_key.expose_bytes(), sealed.core.parameters().id(), blob)
    };
    let (first, second) = (seal(), seal());
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    assert_ne!(first.2, second.2);
}

#[test]
fn both_ways_to_seal_agree() {
    let recipe = Recipe::new(3, &[65_636]);
    let artifact = recipe.seal();
    let key = artifact.content_key();
    let sealer = Sealer::with_material(&recipe.request(), key, artifact.core.parameters().id()).unwrap();
    let text = crate::fixture::plaintext(3_000, 65_636);
    let mut blob = vec![0; 65_636];
    for span in sealer.payloads()[0].layout().spans() {
        let range =
            usize::try_from(span.offset).unwrap()..usize::try_from(span.offset).unwrap() + span.length;
        sealer.payloads()[0].seal_into(span.segment, &text[range.clone()], &mut blob[range]).unwrap();
    }
    assert_eq!(blob, artifact.payloads[0]);
    assert_eq!(sealer.finish().unwrap().core, artifact.core);
}

#[test]
fn segment_size_is_raised_then_the_input_is_split() {
    let minimum = SegmentSize::MINIMUM;
    assert_eq!(choose_segment_size(1 << 34, minimum), Some(minimum));
    assert_eq!(choose_segment_size((1 << 34) + 1, minimum).map(SegmentSize::bytes), Some(131_072));
    assert_eq!(choose_segment_size(MAXIMUM_PAYLOAD_SIZE, minimum), Some(SegmentSize::MAXIMUM));
    assert_eq!(choose_segment_size(MAXIMUM_PAYLOAD_SIZE + 1, minimum), None);
    assert_eq!(split(5, minimum), (vec![5], minimum));
    assert_eq!(split(0, minimum), (vec![0], minimum));
    let mut request = Recipe::new(1, &[0]).request();
    request.inputs[0].size = 2 * MAXIMUM_PAYLOAD_SIZE + 3;
    let sizes = split(request.inputs[0].size, minimum);
    assert_eq!(sizes, (vec![MAXIMUM_PAYLOAD_SIZE, MAXIMUM_PAYLOAD_SIZE, 3], SegmentSize::MAXIMUM));
    let sealer = Sealer::new(&request).unwrap();
    let names: Vec<&str> =
        sealer.parameters().payloads().iter().map(|payload| payload.name.as_str()).collect();
    assert_eq!(names, ["part-0.bin.00000", "part-0.bin.00001", "part-0.bin.00002"]);
    let range = sealer.payloads()[2].input_range();
    assert_eq!(range, InputRange { input: 0, offset: 2 * MAXIMUM_PAYLOAD_SIZE, length: 3 });
}
