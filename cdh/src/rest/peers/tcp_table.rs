//! `/proc/net/tcp` and `/proc/net/tcp6` (`tcp4_seq_show`, `tcp6_seq_show` of the kernel): which socket is the other end of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ESTABLISHED: &str = "01";

/// The number of the socket at `peer` that is connected to `local`. None if there is not exactly one, or nobody has it any more. A row that
/// comes twice is one: the kernel repeats rows when the table changes while it is read.
#[must_use]
pub fn socket_of(tables: &[&str], peer: SocketAddr, local: SocketAddr) -> Option<u64> {
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let ours = rows.filter_map(row).filter(|row| row.0 == canonical(peer) && row.1 == canonical(local));
    let mut found = ours.map(|(_, _, socket)| socket);
    let socket = found.next()?;
    // GUARD: rest-peer-one-socket -> evil_container_two_sockets_of_one_address
    if found.any(|other| other != socket) {
        return None;
    }
    (socket != 0).then_some(socket)
}

/// Both ends and the number of a connection that is established.
fn row(line: &str) -> Option<(SocketAddr, SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    if fields.next()? != ESTABLISHED {
        return None;
    }
    // Queues, timer, retransmissions, user, timeout.
    let socket = fields.nth(5)?.parse().ok()?;
    Some((local, remote, socket))
}

/// The kernel prints each word of an address as a number of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = ip.as_bytes().chunks(8).map(word).collect();
    let ip = match words?.as_slice() {
        [word] => IpAddr::V4(Ipv4Addr::from(*word)),
        words => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

fn word(digits: &[u8]) -> Option<[u8; 4]> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 8)?;
    Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
}

/// An address of IPv4 is the same in clothes of IPv6; scope and flow do not count.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
