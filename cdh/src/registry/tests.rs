//! Against registries that lie: real HTTP over loopback, and what must not happen did not.

mod auth;
mod beside;
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
    RegistryOptions { sources, patience, workers: apart(), ..RegistryOptions::default() }
}

/// As root by another process, as it is in a guest; as anybody else by this one.
fn apart() -> Option<Arc<dyn Workers>> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| Arc::new(fetching::tests::Honest) as _)
}

/// Who also sends.
fn pusher(evil: &Evil) -> Registry {
    Registry::new(RegistryOptions { workers: None, ..options(&[evil]) })
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

#[test]
fn every_code_is_in_the_table_and_nothing_else() {
    let between = |text: &str, before: char, after: &str| {
        let starts = text.match_indices(before).map(|(at, _)| &text[at + before.len_utf8()..]);
        starts
            .filter_map(|rest| rest.split_once(after).map(|(code, _)| code.to_owned()))
            .filter(|code| code.starts_with("REGISTRY_") || code.starts_with("STORE_"))
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let table = include_str!("../registry.rs").lines().filter(|line| line.starts_with("//! | `"));
    let told = between(&table.collect::<Vec<_>>().join("\n"), '`', "`");
    let used = between(include_str!("error.rs"), '"', "\",");
    assert_eq!(told, used);
    assert!(used.len() > 20, "{used:?}");
}
