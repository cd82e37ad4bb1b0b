//! Routes and neighbours, as the kernel tells and takes them.

use std::net::IpAddr;

use rustix::io::Errno;

use super::link::{address, bytes, family};
use super::netlink::{Attributes, Body, Message, NLM_F_CREATE, NLM_F_REPLACE, Netlink, number};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const RT_TABLE_MAIN: u8 = 254;
/// Routes that an administrator's program made.
const RTPROT_BOOT: u8 = 3;
/// Routes that the kernel makes by itself: redirects, its own, and those that a router announces.
const OF_THE_KERNEL: [u8; 3] = [1, 2, 9];
const RTN_UNICAST: u8 = 1;
/// The gateway is behind the link, whatever its addresses say.
const RTNH_F_ONLINK: u32 = 4;
/// What the kernel says about a route, and does not want to be told.
const RTNH_F_TOLD: u32 = 1 | 8 | 16 | 32 | 64;
/// `rtmsg`.
const ROUTE: usize = 12;
/// `ndmsg`.
const NEIGHBOUR: usize = 12;

/// A network: address and prefix length.
pub(super) type Network = (IpAddr, u8);

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route(Body);

/// What a route is to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) family: u8,
    pub(super) destination: Option<Network>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) link: u32,
    pub(super) source: Option<Network>,
    pub(super) scope: u8,
    pub(super) flags: u32,
    pub(super) mtu: u32,
}

impl Wanted {
    /// Sets it, in place of one to the same destination.
    pub(super) fn replace(&self) -> Message {
        let (source, preferred) = match self.source {
            Some((address, 0)) => (None, Some(address)),
            source => (source, None),
        };
        let length = |network: Option<Network>| network.map_or(0, |(_, prefix)| prefix);
        let fixed = [
            self.family,
            length(self.destination),
            length(source),
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            self.scope,
            RTN_UNICAST,
        ];
        let flags = self.flags & RTNH_F_ONLINK;
        let mut body = Body::new(&[&fixed, &flags.to_ne_bytes()]).with(RTA_OIF, &self.link.to_ne_bytes());
        let addresses = [
            (RTA_DST, self.destination.map(|(address, _)| address)),
            (RTA_SRC, source.map(|(address, _)| address)),
            (RTA_PREFSRC, preferred),
            (RTA_GATEWAY, self.gateway),
        ];
        for (kind, address) in addresses {
            if let Some(address) = address {
                body = body.with(kind, &bytes(address));
            }
        }
        if self.mtu != 0 {
            let mtu = Body::default().with(RTAX_MTU, &self.mtu.to_ne_bytes());
            body = body.with_nested(RTA_METRICS, &mtu);
        }
        Message { kind: RTM_NEWROUTE, flags: NLM_F_CREATE | NLM_F_REPLACE, body }
    }
}

impl Route {
    /// A route that can be compared with another and set again: without what the kernel counts.
    fn read(message: Message) -> Option<Self> {
        let table = message.body.attribute(ROUTE, RTA_TABLE).map_or(0, number);
        let fixed = message.body.0.get(..ROUTE - 4)?;
        let flags = message.body.u32(ROUTE - 4) & !RTNH_F_TOLD;
        let mut body = Body::new(&[fixed, &flags.to_ne_bytes()]);
        for (kind, value) in message.body.attributes(ROUTE) {
            if kind != RTA_CACHEINFO {
                body = body.with(kind, value);
            }
        }
        (message.kind == RTM_NEWROUTE && table == u32::from(RT_TABLE_MAIN)).then_some(Self(body))
    }

    /// Sets it as it was told.
    pub(super) fn add(&self) -> Message {
        Message { kind: RTM_NEWROUTE, flags: NLM_F_CREATE, body: self.0.clone() }
    }

    pub(super) fn remove(&self) -> Message {
        Message { kind: RTM_DELROUTE, flags: 0, body: self.0.clone() }
    }

    pub(super) fn is_of_the_kernel(&self) -> bool {
        OF_THE_KERNEL.contains(&self.0.byte(5))
    }

    /// Whether a request of the host may have made it.
    pub(super) fn is_ours(&self) -> bool {
        self.0.byte(5) == RTPROT_BOOT
    }

    fn network(&self, kind: u16, length: usize) -> Option<Network> {
        let found = self.0.attribute(ROUTE, kind).and_then(address)?;
        Some((found, self.0.byte(length)))
    }

    /// Where it leads to; `None` is everywhere.
    pub(super) fn destination(&self) -> Option<Network> {
        self.network(RTA_DST, 1)
    }

    pub(super) fn source(&self) -> Option<Network> {
        self.network(RTA_SRC, 2)
    }

    pub(super) fn preferred_source(&self) -> Option<IpAddr> {
        self.0.attribute(ROUTE, RTA_PREFSRC).and_then(address)
    }

    pub(super) fn gateway(&self) -> Option<IpAddr> {
        self.0.attribute(ROUTE, RTA_GATEWAY).and_then(address)
    }

    /// The link that it leaves by.
    pub(super) fn link(&self) -> Option<u32> {
        self.0.attribute(ROUTE, RTA_OIF).map(number)
    }

    pub(super) fn is_ipv6(&self) -> bool {
        self.0.byte(0) == 10
    }

    pub(super) fn scope(&self) -> u32 {
        u32::from(self.0.byte(6))
    }

    pub(super) fn flags(&self) -> u32 {
        self.0.u32(ROUTE - 4)
    }

    pub(super) fn mtu(&self) -> u32 {
        let mut metrics = Attributes(self.0.attribute(ROUTE, RTA_METRICS).unwrap_or_default());
        metrics.find(|(kind, _)| *kind == RTAX_MTU).map_or(0, |(_, value)| number(value))
    }
}

/// The main table.
pub(super) fn routes(netlink: &mut Netlink) -> Result<Vec<Route>, Errno> {
    Ok(netlink.list(RTM_GETROUTE, 0, ROUTE)?.into_iter().filter_map(Route::read).collect())
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) link: u32,
    pub(super) address: IpAddr,
    pub(super) hardware: Vec<u8>,
    pub(super) state: u16,
    pub(super) flags: u8,
}

impl Neighbour {
    /// It stays until it is removed.
    pub(super) const PERMANENT: u16 = 0x80;

    fn read(message: &Message) -> Option<Self> {
        let body = &message.body;
        let found = Self {
            link: body.u32(4),
            address: body.attribute(NEIGHBOUR, NDA_DST).and_then(address)?,
            hardware: body.attribute(NEIGHBOUR, NDA_LLADDR).unwrap_or_default().to_vec(),
            state: body.u16(8),
            flags: body.byte(10),
        };
        (message.kind == RTM_NEWNEIGH).then_some(found)
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let fixed: [&[u8]; 5] = [
            &[family(self.address), 0, 0, 0],
            &self.link.to_ne_bytes(),
            &self.state.to_ne_bytes(),
            &[self.flags],
            &[RTN_UNICAST],
        ];
        let mut body = Body::new(&fixed).with(NDA_DST, &bytes(self.address));
        if !self.hardware.is_empty() {
            body = body.with(NDA_LLADDR, &self.hardware);
        }
        Message { kind, flags, body }
    }

    /// Sets it, in place of one with the same address.
    pub(super) fn replace(&self) -> Message {
        self.message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
    }

    pub(super) fn remove(&self) -> Message {
        self.message(RTM_DELNEIGH, 0)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.link, self.address) == (other.link, other.address)
    }
}

/// All neighbours.
pub(super) fn neighbours(netlink: &mut Netlink) -> Result<Vec<Neighbour>, Errno> {
    Ok(netlink.list(RTM_GETNEIGH, 0, NEIGHBOUR)?.iter().filter_map(Neighbour::read).collect())
}
