//! Where the broker is.
//!
//! A narrow reading of URLs: what cannot be said here cannot hide credentials, queries or another host.

use std::fmt;
use std::net::IpAddr;

use super::error::ConfigFault;

const URL_MAX: usize = 1_024;
const HOST_MAX: usize = 253;

/// The URL of a broker: `http` or `https`, host, port, and a path in front of `/kbs/v0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KbsUrl {
    tls: bool,
    host: Host,
    port: u16,
    prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl KbsUrl {
    /// Reads a URL. Slashes at the end are removed.
    ///
    /// # Errors
    ///
    /// `KBS_URL_INVALID`, saying what was expected.
    pub fn parse(url: &str) -> Result<Self, ConfigFault> {
        let bad = |expected| ConfigFault::Url { expected };
        // GUARD: kbs-url-size -> evil_url_is_refused
        if url.len() > URL_MAX {
            return Err(bad("at most 1024 bytes"));
        }
        let (tls, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(bad("http:// or https://")),
        };
        let rest = rest.trim_end_matches('/');
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // GUARD: kbs-url-path -> evil_url_is_refused
        if !prefix.split('/').skip(1).all(is_segment) {
            return Err(bad("a path of letters, digits, '-', '_', '~' and '.', not starting with '.'"));
        }
        let (host, port) = split_port(authority).ok_or(bad("host, or host:port"))?;
        let port = match port {
            None if tls => 443,
            None => 80,
            Some(port) => parse_port(port).ok_or(bad("a port from 1 to 65535 without leading zeros"))?,
        };
        let host = Host::parse(host).ok_or(bad("a DNS name in lower case, or an address ([…] for IPv6)"))?;
        Ok(Self { tls, host, port, prefix: prefix.to_owned() })
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether this can only be the same machine: a loopback address, or the name `localhost`, which is not looked up.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The path in front of `/kbs/v0`, without a slash at its end.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Header `Host`.
    pub(super) fn authority(&self) -> String {
        match (&self.host, self.tls, self.port) {
            (host, true, 443) | (host, false, 80) => host.to_string(),
            (host, _, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for KbsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return Some(Self::Address(IpAddr::V6(inner.strip_suffix(']')?.parse().ok()?)));
        }
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if digits {
            return Some(Self::Address(IpAddr::V4(text.parse().ok()?)));
        }
        let valid = text.len() <= HOST_MAX && text.split('.').all(is_label);
        valid.then(|| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Host and port; a bracketed host keeps its brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_end = match authority.find(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at_checked(host_end)?;
    match rest {
        "" => Some((host, None)),
        rest => Some((host, Some(rest.strip_prefix(':')?))),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| digits)
}

fn is_label(label: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-')
}

fn is_segment(segment: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
    !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
