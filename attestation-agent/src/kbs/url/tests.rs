use proptest::prelude::*;

use super::*;

#[test]
fn urls_read_and_lose_slashes_at_the_end() {
    for (url, shown, authority, prefix) in [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1:8080", ""),
        ("https://kbs.example/", "https://kbs.example", "kbs.example", ""),
        ("https://kbs.example:443/a/b//", "https://kbs.example/a/b", "kbs.example", "/a/b"),
        ("http://[::1]:80", "http://[::1]", "[::1]", ""),
        ("https://my_kbs.pod-1:8443/~k", "https://my_kbs.pod-1:8443/~k", "my_kbs.pod-1:8443", "/~k"),
    ] {
        let read = KbsUrl::parse(url).unwrap();
        assert_eq!(read.to_string(), shown);
        assert_eq!(read.authority(), authority);
        assert_eq!(read.prefix(), prefix);
        assert_eq!(KbsUrl::parse(shown).unwrap(), read);
    }
}

#[test]
fn evil_url_is_refused() {
    for url in [
        "",
        "kbs.example",
        "ftp://kbs",
        "http://",
        "http:///",
        "https://user@kbs",
        "https://user:pass@kbs",
        "https://kbs?x",
        "https://kbs/?x",
        "https://kbs/#f",
        "https://kbs/../x",
        "https://kbs/a//b",
        "https://kbs/%2e",
        "https://KBS",
        "https://k b",
        "https://kbs:",
        "https://kbs:0",
        "https://kbs:080",
        "https://kbs:65536",
        "https://kbs:8080x",
        "https://kbs:+80",
        "https://::1",
        "https://[::1",
        "https://[::1]x",
        "https://[kbs]",
        "https://1.2.3",
        "https://1.2.3.4.5",
        "https://256.1.1.1",
        "https://-kbs",
        "https://kbs.",
        "https://k..b",
        "https://kbs\r\nX: y",
        "https://kb\u{e9}s",
        "HTTPS://kbs",
    ] {
        assert!(KbsUrl::parse(url).is_err_and(|fault| fault.code() == "KBS_URL_INVALID"), "{url}");
    }
    assert!(KbsUrl::parse(&format!("https://kbs/{}", "a".repeat(1_024))).is_err());
    assert!(KbsUrl::parse(&format!("https://{}", "a".repeat(64))).is_err());
}

#[test]
fn loopback_is_this_machine_only() {
    for (url, expected) in [
        ("http://127.0.0.1", true),
        ("http://127.9.8.7", true),
        ("http://[::1]", true),
        ("http://localhost:1", true),
        ("http://10.0.0.1", false),
        ("http://0.0.0.0", false),
        ("http://[::]", false),
        ("http://[::ffff:10.0.0.1]", false),
        ("http://localhost.example", false),
        ("http://127.0.0.1.example", false),
    ] {
        assert_eq!(KbsUrl::parse(url).unwrap().is_loopback(), expected, "{url}");
    }
}

proptest! {
    #[test]
    fn what_is_accepted_reads_back(url in "https?://[a-z0-9.:\\[\\]-]{0,12}(/[a-z.~]{0,3}){0,3}") {
        if let Ok(read) = KbsUrl::parse(&url) {
            prop_assert_eq!(KbsUrl::parse(&read.to_string()).unwrap(), read);
        }
    }
}
