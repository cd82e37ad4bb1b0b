//! Requests for keys of image layers, and the packets in annotations.

#![no_main]

use cdh::key_provider::{Packet, parse_request};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let request = bounded(data.len(), || parse_request(data));
    let packet = bounded(data.len(), || Packet::parse(data));
    for packet in [request, packet].into_iter().flatten() {
        assert!(packet.kid.to_string().starts_with("kbs"));
    }
});
