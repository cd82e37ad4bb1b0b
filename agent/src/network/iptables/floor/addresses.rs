//! Which addresses and links a rule means, and whether those of loopback are among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::network::value;

/// Whether a network, or with `!` everything but it, leaves the loopback addresses out. What cannot be read leaves nothing out.
pub(super) fn spares_network(text: &str, is_ipv6: bool, negated: bool) -> bool {
    let family = if is_ipv6 { 10 } else { 2 };
    let Ok(Some((address, length))) = value::network("network", text, family) else { return false };
    let (own, own_length): (IpAddr, u8) =
        if is_ipv6 { (Ipv6Addr::LOCALHOST.into(), 128) } else { (Ipv4Addr::new(127, 0, 0, 0).into(), 8) };
    let begins_alike = |bits: u8| first_bits(address, bits) == first_bits(own, bits);
    if negated { length <= own_length && begins_alike(length) } else { !begins_alike(length.min(own_length)) }
}

/// Whether `lo` is left out. `eth+` is every link whose name begins with `eth`.
pub(super) fn spares_link(name: &str, negated: bool) -> bool {
    let means_loopback = match name.strip_suffix('+') {
        Some(beginning) => "lo".starts_with(beginning),
        None => name == "lo",
    };
    // `! -o lo+` leaves `lo` out as well, and `! -o l` does not.
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name && means_loopback == negated
}

/// The goals of DNAT and SNAT, `A`, `A-B`, `A:80`, `[A]:80`: all readable, and none of them this machine's own.
pub(super) fn is_elsewhere(value: &str) -> bool {
    let addresses = match value.strip_prefix('[') {
        // `[::2]:80`, `[::2]-[::9]:80`.
        Some(rest) => match rest.rsplit_once(']') {
            Some((addresses, port)) if port.is_empty() || is_port(port) => addresses.replace("]-[", "-"),
            _ => return false,
        },
        // Only one of IPv4 has its port behind a single colon.
        None => match value.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                if !is_port(&format!(":{port}")) {
                    return false;
                }
                address.to_owned()
            }
            _ => value.to_owned(),
        },
    };
    if addresses.is_empty() {
        // The port alone.
        return true;
    }
    let (first, last) = addresses.split_once('-').unwrap_or((&addresses, &addresses));
    match (first.parse::<IpAddr>(), last.parse::<IpAddr>()) {
        (Ok(IpAddr::V4(first)), Ok(IpAddr::V4(last))) => {
            let own = Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255);
            !first.is_unspecified() && first <= last && (last < *own.start() || first > *own.end())
        }
        (Ok(IpAddr::V6(first)), Ok(IpAddr::V6(last))) => {
            // `::`, `::1`, and addresses of IPv4 in another coat.
            let own = Ipv6Addr::UNSPECIFIED..=Ipv4Addr::BROADCAST.to_ipv6_mapped();
            first <= last && first > *own.end()
        }
        _ => false,
    }
}

fn is_port(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'/');
    text.strip_prefix(':').is_some_and(|port| !port.is_empty() && port.bytes().all(is_letter))
}

fn first_bits(address: IpAddr, bits: u8) -> u128 {
    let (value, all) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    value.checked_shr(u32::from(u8::saturating_sub(all, bits))).unwrap_or(0)
}
