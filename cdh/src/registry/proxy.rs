//! Proxies, as bound configuration names them (`image.image_pull_proxy`). The environment is not looked at.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::error::RegistryError;
use super::url::{Origin, Url};

const TEXT_MAX: usize = 4_096;
const EXCEPTIONS_MAX: usize = 256;

/// Which proxy for what. Connections to this machine never use one.
#[derive(Debug, Default)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    except: Vec<Exception>,
}

/// A proxy that is spoken to in plain HTTP; what goes through to https registries is TLS end to end.
pub(super) struct Proxy {
    pub(super) origin: Origin,
    /// Value of `Proxy-Authorization`.
    pub(super) authorization: Option<Zeroizing<String>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.origin)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    /// A name, and what is below it.
    Name(String),
}

impl Proxies {
    /// Reads the three keys. A proxy is `http://[user:password@]host[:port]`; `no_proxy` is a list with commas of names (with all
    /// names below them), addresses, networks (`10.0.0.0/8`) and `*`.
    ///
    /// # Errors
    ///
    /// `REGISTRY_CONFIG`.
    pub fn new(
        https: Option<&str>,
        http: Option<&str>,
        no_proxy: Option<&str>,
    ) -> Result<Self, RegistryError> {
        let except = no_proxy.unwrap_or_default();
        // GUARD: proxy-size -> evil_proxies_are_refused
        if except.len() > TEXT_MAX || except.split(',').count() > EXCEPTIONS_MAX {
            return Err(bad("no_proxy", "at most 256 entries in 4096 bytes"));
        }
        let except = except.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Ok(Self {
            https: https.map(|text| proxy("https_proxy", text)).transpose()?,
            http: http.map(|text| proxy("http_proxy", text)).transpose()?,
            except: except.map(exception).collect::<Result<_, _>>()?,
        })
    }

    /// The proxy for an origin.
    pub(super) fn of(&self, origin: &Origin) -> Option<&Proxy> {
        if origin.is_loopback() || self.except.iter().any(|exception| exception.covers(origin)) {
            return None;
        }
        if origin.is_tls() { self.https.as_ref() } else { self.http.as_ref() }
    }
}

impl Exception {
    fn covers(&self, origin: &Origin) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => {
                origin.address().is_some_and(|address| shares(*network, address, *bits))
            }
            Self::Name(name) => {
                let below = origin.host().strip_suffix(name.as_str());
                below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
        }
    }
}

fn shares(left: IpAddr, right: IpAddr, bits: u8) -> bool {
    let (left, right, width) = match (left, right) {
        (IpAddr::V4(left), IpAddr::V4(right)) => {
            (u128::from(left.to_bits()), u128::from(right.to_bits()), 32)
        }
        (IpAddr::V6(left), IpAddr::V6(right)) => (left.to_bits(), right.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::from(width - bits.min(width));
    left.checked_shr(shift) == right.checked_shr(shift)
}

fn exception(entry: &str) -> Result<Exception, RegistryError> {
    if entry == "*" {
        return Ok(Exception::All);
    }
    let (address, bits) =
        entry.split_once('/').map_or((entry, None), |(address, bits)| (address, Some(bits)));
    if let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(width), |bits| bits.parse().ok().filter(|bits| *bits <= width));
        return bits
            .map(|bits| Exception::Network(address, bits))
            .ok_or_else(|| bad("no_proxy", "a network"));
    }
    let name = entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.')).unwrap_or(entry);
    let name = Origin::parse(name, true).filter(|_| !name.contains(':') && bits.is_none());
    name.map(|origin| Exception::Name(origin.host().to_owned()))
        .ok_or_else(|| bad("no_proxy", "names, addresses and networks"))
}

fn proxy(what: &'static str, text: &str) -> Result<Proxy, RegistryError> {
    let refused = || bad(what, "http://[user:password@]host[:port]");
    if text.len() > TEXT_MAX {
        return Err(refused());
    }
    let rest = text.strip_prefix("http://").ok_or_else(refused)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, rest),
    };
    let url =
        Url::parse(&format!("http://{host}"), None).filter(|url| url.path == "/").ok_or_else(refused)?;
    let authorization = user.map(|user| {
        let decoded = unescape(user).filter(|user| user.contains(&b':')).ok_or_else(refused)?;
        Ok::<_, RegistryError>(Zeroizing::new(format!("Basic {}", STANDARD.encode(&*decoded))))
    });
    Ok(Proxy { origin: url.origin, authorization: authorization.transpose()? })
}

/// Resolves `%xx`.
fn unescape(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let ([high, low], tail) = rest.split_first_chunk::<2>().map(|(pair, tail)| (*pair, tail))?;
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            bytes.push(digit(high)? << 4 | digit(low)?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

/// Never says what was found: there may be a password in it.
fn bad(what: &'static str, expected: &'static str) -> RegistryError {
    RegistryError::Config { what, expected, found: "something else".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(authority: &str, tls: bool) -> Origin {
        Origin::parse(authority, tls).unwrap()
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_exception() {
        let proxies = Proxies::new(
            Some("http://u:p%40w@proxy.example:3128/"),
            Some("http://10.1.1.1"),
            Some("internal.example, .svc,10.0.0.0/8, 192.0.2.7,fd00::/8"),
        )
        .unwrap();
        let chosen =
            |authority, tls| proxies.of(&origin(authority, tls)).map(|proxy| proxy.origin.to_string());
        assert_eq!(chosen("r.example", true).as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(chosen("r.example", false).as_deref(), Some("http://10.1.1.1"));
        for direct in [
            "internal.example",
            "a.internal.example:5000",
            "x.svc",
            "10.2.3.4",
            "192.0.2.7",
            "[fd00::7]",
            "localhost:5000",
            "127.0.0.1:5000",
        ] {
            assert_eq!(chosen(direct, true), None, "{direct}");
        }
        for proxied in ["notinternal.example", "192.0.2.8", "11.0.0.1", "[fe00::1]"] {
            assert!(chosen(proxied, true).is_some(), "{proxied}");
        }
        let authorization = proxies.https.as_ref().unwrap().authorization.as_ref().unwrap();
        assert_eq!(authorization.as_str(), format!("Basic {}", STANDARD.encode("u:p@w")));
        assert!(!format!("{proxies:?}").contains("Basic"), "credentials are not printed");
        assert!(
            Proxies::new(Some("http://p"), None, Some("*")).unwrap().of(&origin("r.example", true)).is_none()
        );
    }

    #[test]
    fn evil_proxies_are_refused() {
        let long = "a,".repeat(300);
        for (https, except) in [
            ("https://proxy.example", ""),
            ("socks5://p", ""),
            ("http://", ""),
            ("http://p/path", ""),
            ("http://alice@p", ""),
            ("http://a:%4@p", ""),
            ("http://p", "10.0.0.0/33"),
            ("http://p", "a b"),
            ("http://p", "x:80"),
            ("http://p", &long),
        ] {
            let error = Proxies::new(Some(https), None, Some(except)).unwrap_err();
            assert_eq!(error.code(), "REGISTRY_CONFIG", "{https} {except}");
            assert!(!error.to_string().contains("alice"), "{error}");
        }
    }
}
