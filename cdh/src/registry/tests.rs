//! Against registries that lie: real HTTP over loopback, and what must not happen did not.

mod auth;
mod blobs;
mod carry;
mod evil;
mod image;
mod manifests;
mod push;
mod redirects;

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use evil::{Evil, Reply, Seen};
use image::Image;

/// Patience for tests; a deadline far away.
fn options(evil: &[&Evil]) -> RegistryOptions {
    let mut sources = Sources::default();
    for evil in evil {
        sources.insert_insecure(&evil.authority()).unwrap();
    }
    let patience = Patience {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        window: Duration::from_secs(5),
        window_bytes: 1_000,
    };
    RegistryOptions { sources, patience, ..RegistryOptions::default() }
}

fn client(evil: &Evil) -> Registry {
    Registry::new(options(&[evil]))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn linux() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

fn reference(evil: &Evil, rest: &str) -> Reference {
    Reference::parse(&format!("{}/acme/x{rest}", evil.authority())).unwrap()
}
