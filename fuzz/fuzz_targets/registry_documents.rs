//! Everything that a registry, the process that speaks to it, a pod or a configuration of registries writes; the first byte chooses. What a reference says, it says again.

#![no_main]

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use cdh::registry::challenge::Challenge;
use cdh::registry::fetching::understood;
use cdh::registry::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Document, ImageConfig, OCI_INDEX, OCI_MANIFEST};
use cdh::registry::{Credentials, Proxies, Reference, Sources};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = std::str::from_utf8(rest).unwrap_or_default();
    bounded(data.len(), || match kind % 9 {
        0 => {
            if let Ok(reference) = Reference::parse(text) {
                assert_eq!(Reference::parse(&reference.to_string()).ok(), Some(reference));
            }
        }
        1 => drop(Document::parse(rest, OCI_MANIFEST)),
        2 => drop(Document::parse(rest, OCI_INDEX)),
        3 => drop((Document::parse(rest, DOCKER_MANIFEST), Document::parse(rest, DOCKER_INDEX))),
        4 => drop(ImageConfig::parse(rest, 1)),
        5 => drop(Challenge::parse(text)),
        6 => drop((Credentials::parse(rest), Proxies::new(Some(text), None, Some(text)))),
        7 => {
            // It never waits.
            let said = pin!(understood(rest)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(said.is_ready());
        }
        _ => {
            if let Ok(sources) = Sources::parse(text) {
                let reference = Reference::parse("registry.example/acme/x:v1").expect("a reference");
                drop(sources.of(&reference));
            }
        }
    });
});
