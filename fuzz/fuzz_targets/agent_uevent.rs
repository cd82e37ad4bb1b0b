//! Events about devices: what is accepted says one thing, about a device below `/sys`.

#![no_main]

use agent::uevent::{MAXIMUM_BYTES, Uevent};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(event) = bounded(data.len(), || Uevent::parse(data)) else { return };
    assert!(data.len() <= MAXIMUM_BYTES && data.ends_with(b"\0"));
    assert!(event.device_path.starts_with('/') && event.device_path.split('/').all(|part| part != ".."));
    let text = std::str::from_utf8(data).expect("accepted");
    let says = |key: &str, value: &str| {
        let line = format!("{key}={value}");
        text.split('\0').filter(|part| **part == line).count() == 1
    };
    assert!(says("DEVPATH", &event.device_path) && says("SUBSYSTEM", &event.subsystem));
    if let Some(name) = &event.device_name {
        assert!(says("DEVNAME", name));
    }
    // Said twice it is no event of the kernel.
    let twice = [data, b"SUBSYSTEM=block\0"].concat();
    assert_eq!(Uevent::parse(&twice), None);
});
