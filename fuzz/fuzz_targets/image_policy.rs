//! Image policies and names of images. What is accepted has no member that is not known, and each name reads back as itself.

#![no_main]

use cdh::image::policy::{ImageName, ImagePolicy};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if bounded(data.len(), || ImagePolicy::parse(data)).is_ok() {
        // The same with a member that nobody knows, and with one of its own twice.
        let mut value: Value = serde_json::from_slice(data).expect("JSON");
        value["nobody-knows-this"] = Value::Null;
        assert!(ImagePolicy::parse(value.to_string().as_bytes()).is_err());
        let text = String::from_utf8_lossy(data).replacen('{', "{\"default\":[{\"type\":\"reject\"}],", 1);
        assert!(ImagePolicy::parse(text.as_bytes()).is_err());
    }
    let Some(name) = std::str::from_utf8(data).ok().and_then(|text| ImageName::parse(text).ok()) else {
        return;
    };
    assert_eq!(ImageName::parse(&name.to_string()).as_ref(), Ok(&name));
    let again = ImageName::new(
        name.registry(),
        name.repository(),
        name.tag().map(str::to_owned),
        name.digest().cloned(),
    );
    assert_eq!(again, Ok(name));
});
