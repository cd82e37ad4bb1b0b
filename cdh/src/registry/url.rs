//! Where a request goes. Only what a registry needs: scheme, host, port, path and query.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

use super::error::{RegistryError, shown};
use super::reference::{DOCKER, normal_host, split_port};

/// Longest URL of a redirect, realm or upload.
const URL_MAX: usize = 8_192;
/// Where the registry that is called `docker.io` listens.
const DOCKER_HOST: &str = "registry-1.docker.io";

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of a registry's normalised `host[:port]`.
    pub(super) fn of_registry(registry: &str, tls: bool) -> Result<Self, RegistryError> {
        let name = if registry == DOCKER { DOCKER_HOST } else { registry };
        Self::parse(name, tls).ok_or_else(|| RegistryError::Reference {
            expected: "a host name or address, and a port",
            found: shown(registry),
        })
    }

    pub(super) fn parse(authority: &str, tls: bool) -> Option<Self> {
        let (host, port) = split_port(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, host: normal_host(host)?, port })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host; an IPv6 address in brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The host, if it is an address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether this can only be the same machine: a loopback address, or the name `localhost`, which is not looked up.
    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }

    /// Header `Host`.
    pub(super) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// An origin and what is asked of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) origin: Origin,
    /// Path and query, from the slash on.
    pub(super) path: String,
}

/// Queries are left out: they carry signatures of stores and uploads.
impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}{}", self.origin, shown(path).trim_matches('"'))
    }
}

impl Url {
    pub(super) fn new(origin: Origin, path: String) -> Self {
        Self { origin, path }
    }

    /// Reads an absolute URL, or a path on `base`. No user, no fragment, no other scheme.
    pub(super) fn parse(text: &str, base: Option<&Origin>) -> Option<Self> {
        // GUARD: registry-url-size -> evil_urls_are_refused
        if text.len() > URL_MAX {
            return None;
        }
        if text.contains(['#', '@', '\\']) && text.split('?').next()?.contains(['#', '@', '\\']) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let origin = match (uri.scheme_str(), uri.authority()) {
            (Some("https"), Some(authority)) => Origin::parse(authority.as_str(), true)?,
            (Some("http"), Some(authority)) => Origin::parse(authority.as_str(), false)?,
            (None, None) if text.starts_with('/') && !text.starts_with("//") => base?.clone(),
            _ => return None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { origin, path: path.to_owned() })
    }

    /// The same with one more parameter, whose value needs no escaping beyond `:` and `/`.
    pub(super) fn with_query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
                self.path.push(char::from(byte));
            } else {
                self.path.push_str(&format!("%{byte:02X}"));
            }
        }
        self
    }
}

/// Whether a stranger's word may lead to this address: not to this machine, its links or groups of machines.
pub(super) fn is_reachable_for_strangers(address: IpAddr) -> bool {
    let address = match address {
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let [.., a, b, c, d] = octets;
            let embedded = octets.starts_with(&[0, 0x64, 0xff, 0x9b]) || octets.starts_with(&[0; 12]);
            match v6.to_ipv4_mapped() {
                Some(v4) => IpAddr::V4(v4),
                None if embedded && !v6.is_loopback() && !v6.is_unspecified() => IpAddr::from([a, b, c, d]),
                None => address,
            }
        }
        IpAddr::V4(_) => address,
    };
    match address {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            !(v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || first == 0)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_absolute_or_paths() {
        let base = Origin::parse("r.example:5000", true).unwrap();
        let read = |text| Url::parse(text, Some(&base)).map(|url| format!("{}{}", url.origin, url.path));
        assert_eq!(read("/v2/x?a=b@c").as_deref(), Some("https://r.example:5000/v2/x?a=b@c"));
        assert_eq!(read("https://CDN.example/a?b").as_deref(), Some("https://cdn.example/a?b"));
        assert_eq!(read("http://[::1]:80").as_deref(), Some("http://[::1]/"));
        let url = Url::parse("/u?s=1", Some(&base)).unwrap().with_query("digest", "sha256:0 f");
        assert_eq!(url.path, "/u?s=1&digest=sha256:0%20f");
        assert_eq!(url.to_string(), "https://r.example:5000/u", "queries are not shown");
        assert_eq!(
            Origin::of_registry("docker.io", true).unwrap().to_string(),
            "https://registry-1.docker.io"
        );
    }

    #[test]
    fn evil_urls_are_refused() {
        let base = Origin::parse("r.example", true).unwrap();
        let long = format!("/{}", "a".repeat(URL_MAX));
        for refused in [
            "",
            "x",
            "//evil.example/x",
            "ftp://r.example/",
            "https://user:pass@r.example/",
            "https://user@r.example/",
            "https:///x",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://r.example:0/",
            "https://r.example\\@evil.example/",
            "file:///etc/passwd",
            "https://r.example:99999/",
            long.as_str(),
        ] {
            assert_eq!(Url::parse(refused, Some(&base)).map(|url| url.to_string()), None, "{refused}");
        }
        assert_eq!(Url::parse("/x", None), None);
    }

    #[test]
    fn evil_addresses_are_told_from_others() {
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.1.1",
            "64:ff9b::7f00:1",
            "::127.0.0.1",
        ] {
            assert!(!is_reachable_for_strangers(refused.parse().unwrap()), "{refused}");
        }
        for taken in [
            "10.0.0.1",
            "192.168.1.1",
            "8.8.8.8",
            "2001:db8::1",
            "fd00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_reachable_for_strangers(taken.parse().unwrap()), "{taken}");
        }
    }
}
