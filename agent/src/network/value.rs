//! Texts of a request about the network, checked once.

use std::net::IpAddr;

use super::error::NetworkError;
use super::link::family;
use super::route::Network;

/// `IFNAMSIZ` of Linux without its end.
const MAXIMUM_NAME_BYTES: usize = 15;

const fn value(what: &'static str, expected: &'static str) -> NetworkError {
    NetworkError::Value { what, expected }
}

/// The name of a link: letters that the kernel takes as they are (it fills in a `%d`).
pub(super) fn link_name(name: &str) -> Result<&str, NetworkError> {
    let is_letter = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    let is_name = !name.is_empty() && name.len() <= MAXIMUM_NAME_BYTES && name.bytes().all(is_letter);
    // GUARD: link-name -> evil_host_name_of_a_link
    if !is_name || matches!(name, "." | ".." | "all" | "default") {
        return Err(value("name of the link", "1 to 15 printable letters without '/', ':', '%'"));
    }
    Ok(name)
}

/// A hardware address of six bytes, `02:00:ca:fe:00:48`; `None` of an empty text.
pub(super) fn hardware(text: &str) -> Result<Option<[u8; 6]>, NetworkError> {
    if text.is_empty() {
        return Ok(None);
    }
    let byte = |part: &str| {
        let is_byte = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let bytes: Option<Vec<u8>> = text.split(':').take(7).map(byte).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes.map(Some).ok_or(value("hardware address", "six bytes in hexadecimal, with ':' between them"))
}

/// A hardware address as text.
pub(super) fn hardware_text(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

pub(super) fn address(what: &'static str, text: &str) -> Result<IpAddr, NetworkError> {
    text.parse().map_err(|_| value(what, "an IPv4 or IPv6 address"))
}

/// The length of a prefix.
pub(super) fn prefix(text: &str, of: IpAddr) -> Result<u8, NetworkError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|length| is_number && *length <= longest(of));
    length.ok_or(value("mask", "the length of the prefix: up to 32, or 128 for IPv6"))
}

/// The length of a prefix that is one address.
pub(super) const fn longest(of: IpAddr) -> u8 {
    if of.is_ipv4() { 32 } else { 128 }
}

/// `ADDRESS` or `ADDRESS/LENGTH`, of the family that the request names; `None` of an empty text.
pub(super) fn network(what: &'static str, text: &str, of: u8) -> Result<Option<Network>, NetworkError> {
    if text.is_empty() {
        return Ok(None);
    }
    let (base, length) = text.split_once('/').map_or((text, None), |(base, length)| (base, Some(length)));
    let base = address(what, base)?;
    if family(base) != of {
        return Err(value(what, "an address of the family that the request names"));
    }
    let length = length.map_or(Ok(longest(base)), |length| prefix(length, base))?;
    Ok(Some((base, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_host_name_of_a_link() {
        for name in ["eth0", "a", "en.p-0_1@x", "123456789012345"] {
            assert_eq!(link_name(name).unwrap(), name);
        }
        for name in [
            "",
            "..",
            ".",
            "a/b",
            "eth%d",
            "a:b",
            "a b",
            "a\n",
            "a\0",
            "é",
            "1234567890123456",
            "all",
            "default",
        ] {
            assert_eq!(link_name(name).unwrap_err().code(), "NETWORK_VALUE", "{name:?}");
        }
    }

    #[test]
    fn hardware_addresses_are_six_bytes() {
        let address = hardware("02:00:CA:fe:0:48").unwrap().unwrap();
        assert_eq!(hardware_text(&address), "02:00:ca:fe:00:48");
        assert_eq!(hardware("").unwrap(), None);
        for text in [
            "02:00:ca:fe:00",
            "02:00:ca:fe:00:48:49",
            "+2:00:ca:fe:00:48",
            "02-00-ca-fe-00-48",
            ":::::",
            "100:0:0:0:0:0",
        ] {
            assert!(hardware(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn networks_have_a_length_that_their_family_has() {
        assert_eq!(network("dest", "", 2).unwrap(), None);
        assert_eq!(network("dest", "10.0.0.0/8", 2).unwrap(), Some(([10, 0, 0, 0].into(), 8)));
        assert_eq!(network("dest", "10.0.0.1", 2).unwrap(), Some(([10, 0, 0, 1].into(), 32)));
        assert_eq!(network("dest", "::/0", 10).unwrap().unwrap().1, 0);
        for (text, of) in [
            ("10.0.0.0/33", 2),
            ("10.0.0.0/", 2),
            ("10.0.0.0/+8", 2),
            ("fd00::/8", 2),
            ("10/8", 2),
            ("x", 10),
        ] {
            assert_eq!(network("dest", text, of).unwrap_err().code(), "NETWORK_VALUE", "{text}");
        }
    }
}
