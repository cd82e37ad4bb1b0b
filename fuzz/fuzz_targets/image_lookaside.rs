//! Configurations of signatures beside a registry. What is accepted leads into directories with absolute paths.

#![no_main]

use cdh::image::policy::{ImageName, LookasideConfig};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = bounded(data.len(), || LookasideConfig::parse(data)) else { return };
    for name in ["registry.example:5000/team/app:v1", "busybox:1"] {
        let name = ImageName::parse(name).expect("a name");
        let Some(base) = config.base(&name) else { continue };
        assert!(base.is_absolute() && base.components().all(|part| part.as_os_str() != ".."));
    }
    // The same twice repeats its keys.
    if config != LookasideConfig::default() {
        let text = [data, b"\n", data].concat();
        assert!(LookasideConfig::parse(&text).is_err());
    }
});
