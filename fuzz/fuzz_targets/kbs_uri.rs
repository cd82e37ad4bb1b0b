//! URIs of resources, URLs of brokers. What is accepted reads back as itself and names nothing outside its path.

#![no_main]

use std::sync::LazyLock;

use attestation_agent::kbs::rcar::{Credential, resource};
use attestation_agent::kbs::{KbsUrl, ResourceUri, Token, fuzzing};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

static TOKEN: LazyLock<Token> =
    LazyLock::new(|| Token::parse("e30.eyJleHAiOjl9.AA".to_owned().into()).expect("a token"));

fuzz_target!(|data: &[u8]| {
    let uri = bounded(data.len(), || fuzzing::resource_uri(data));
    let url = bounded(data.len(), || fuzzing::url(data));
    assert!(!(uri && url));
    let Ok(text) = std::str::from_utf8(data) else { return assert!(!uri && !url) };
    if let Ok(uri) = ResourceUri::parse(text) {
        let request = resource(&uri, Credential::Bearer(&TOKEN));
        let path = request.path();
        assert!(path.starts_with("/kbs/v0/") && path.bytes().all(|byte| byte.is_ascii_graphic()));
        let (path, _) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        assert!(segments.iter().all(|segment| !segment.is_empty() && !segment.starts_with('.')));
        assert!(!path.contains(['%', '#', '\\', ';']));
        // The host is dropped: it chooses nothing.
        let (scheme, rest) = text.split_once("://").expect("a scheme");
        let (_, rest) = rest.split_once('/').expect("a path");
        assert_eq!(ResourceUri::parse(&format!("{scheme}:///{rest}")).ok(), Some(uri));
    }
    if let Ok(url) = KbsUrl::parse(text) {
        let shown = url.to_string();
        assert_eq!(shown.starts_with("https://"), url.is_tls());
        assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!shown.contains(['@', '?', '#', '%', '\\']));
        assert!(
            !url.is_loopback()
                || ["//127.", "//[::1]", "//localhost"].iter().any(|host| shown.contains(host))
        );
    }
});
