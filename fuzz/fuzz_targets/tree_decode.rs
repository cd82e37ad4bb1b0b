//! Trees in serial form, as a process that was taken over would send them. Accepted bytes are the one form of their tree.

#![no_main]

use cdh::image::layer::{Limits, codec, confine};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(tree) = bounded(data.len(), || codec::decode(data, &limits)) {
        assert_eq!(codec::encode(&tree).expect("a decoded tree has a serial form"), data);
    }
    let job = confine::Job { layers: Vec::new(), limits, reserve: 0, transform: false };
    // An answer is a tree or an error that has a code.
    if let Err(error) = bounded(data.len(), || confine::receive(data, &job)) {
        assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
    }
});
