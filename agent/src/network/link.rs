//! Links (network interfaces) and their addresses, as the kernel tells and takes them.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;

use super::netlink::{Body, Message, NLM_F_CREATE, NLM_F_REPLACE, Netlink, number};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// `ifinfomsg`.
const LINK: usize = 16;
/// `ifaddrmsg`.
const ADDRESS: usize = 8;

/// The link is up.
pub(super) const IFF_UP: u32 = 1;
/// The link is a loopback.
pub(super) const IFF_LOOPBACK: u32 = 8;
/// No neighbours are looked for on the link.
pub(super) const IFF_NOARP: u32 = 0x80;

/// Number of an address family (socket(2)).
pub(super) const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// The bytes of an address.
pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address from its bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) name: String,
    pub(super) hardware: Vec<u8>,
    pub(super) mtu: u32,
}

impl Link {
    fn read(message: &Message) -> Option<Self> {
        let body = &message.body;
        let name = body.attribute(LINK, IFLA_IFNAME)?;
        (message.kind == RTM_NEWLINK).then(|| Self {
            index: body.u32(4),
            flags: body.u32(8),
            name: String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default())
                .into_owned(),
            hardware: body.attribute(LINK, IFLA_ADDRESS).unwrap_or_default().to_vec(),
            mtu: body.attribute(LINK, IFLA_MTU).map_or(0, number),
        })
    }

    pub(super) const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// A change of this link.
    fn change(&self, flags: u32, mask: u32) -> Message {
        let body =
            Body::new(&[&[0; 4], &self.index.to_ne_bytes(), &flags.to_ne_bytes(), &mask.to_ne_bytes()]);
        Message { kind: RTM_SETLINK, flags: 0, body }
    }

    /// Sets the flags of the mask.
    pub(super) fn set_flags(&self, flags: u32, mask: u32) -> Message {
        self.change(flags, mask)
    }

    fn set(&self, attribute: u16, value: &[u8]) -> Message {
        let mut message = self.change(0, 0);
        message.body = message.body.with(attribute, value);
        message
    }

    pub(super) fn set_name(&self, name: &str) -> Message {
        self.set(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat())
    }

    pub(super) fn set_hardware(&self, address: &[u8]) -> Message {
        self.set(IFLA_ADDRESS, address)
    }

    pub(super) fn set_mtu(&self, mtu: u32) -> Message {
        self.set(IFLA_MTU, &mtu.to_ne_bytes())
    }
}

/// All links of the guest.
pub(super) fn links(netlink: &mut Netlink) -> Result<Vec<Link>, Errno> {
    Ok(netlink.list(RTM_GETLINK, 0, LINK)?.iter().filter_map(Link::read).collect())
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkAddress {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    /// As the kernel tells it, to bring it back.
    told: Body,
}

impl LinkAddress {
    /// An address that a link is to have.
    pub(super) fn new(index: u32, address: IpAddr, prefix: u8) -> Self {
        let fixed = [family(address), prefix, 0, 0];
        let own = bytes(address);
        let mut told =
            Body::new(&[&fixed, &index.to_ne_bytes()]).with(IFA_LOCAL, &own).with(IFA_ADDRESS, &own);
        if let IpAddr::V4(own) = address {
            told = told.with(IFA_BROADCAST, &broadcast(own, prefix).octets());
        }
        Self { index, address, prefix, told }
    }

    fn read(message: &Message) -> Option<Self> {
        let body = &message.body;
        // Behind a point-to-point link the other attribute is the peer's.
        let own = body.attribute(ADDRESS, IFA_LOCAL).or_else(|| body.attribute(ADDRESS, IFA_ADDRESS))?;
        let found =
            Self { index: body.u32(4), address: address(own)?, prefix: body.byte(1), told: body.clone() };
        (message.kind == RTM_NEWADDR).then_some(found)
    }

    /// The link gets it, or it is set anew.
    pub(super) fn add(&self) -> Message {
        Message { kind: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_REPLACE, body: self.told.clone() }
    }

    /// The link loses it.
    pub(super) fn remove(&self) -> Message {
        Message { kind: RTM_DELADDR, flags: 0, body: self.told.clone() }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.index, self.address, self.prefix) == (other.index, other.address, other.prefix)
    }
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() | hosts)
}

/// All addresses of all links.
pub(super) fn addresses(netlink: &mut Netlink) -> Result<Vec<LinkAddress>, Errno> {
    Ok(netlink.list(RTM_GETADDR, 0, ADDRESS)?.iter().filter_map(LinkAddress::read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_addresses_are_the_last_of_their_network() {
        let of = |address: [u8; 4], prefix| broadcast(address.into(), prefix).octets();
        assert_eq!(of([10, 1, 2, 3], 24), [10, 1, 2, 255]);
        assert_eq!(of([10, 1, 2, 3], 32), [10, 1, 2, 3]);
        assert_eq!(of([10, 1, 2, 3], 0), [255; 4]);
    }
}
