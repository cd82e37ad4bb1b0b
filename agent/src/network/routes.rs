//! UpdateRoutes, ListRoutes and AddARPNeighbors.

use std::net::IpAddr;

use protocol::types::{ARPNeighbor, IPFamily, Route as WireRoute};

use super::before::{Before, or_there};
use super::error::NetworkError;
use super::link::{Link, links};
use super::netlink::Netlink;
use super::route::{Neighbour, Wanted, neighbours, routes};
use super::value::{self, longest};

/// The most routes that a list has.
const MAXIMUM_ROUTES: usize = 8192;
/// What the kernel takes as flags of a neighbour: use, self, master, proxy, learned by another, offloaded, sticky, router.
const NEIGHBOUR_FLAGS: i32 = 0xff;

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// A route of a request: the link by its name.
#[derive(Debug)]
pub(super) struct NamedRoute {
    link: String,
    route: Wanted,
}

impl NamedRoute {
    /// Reads one. Nothing has been changed yet.
    pub(super) fn read(wire: &WireRoute) -> Result<Self, NetworkError> {
        let family = if wire.family.enum_value() == Ok(IPFamily::v6) { IPV6 } else { IPV4 };
        let value = |what, expected| NetworkError::Value { what, expected };
        let gateway = value::network("gateway", &wire.gateway, family)?;
        let gateway = match gateway {
            Some((address, length)) if length == longest(address) => Some(address),
            None => None,
            Some(_) => return Err(value("gateway", "an address")),
        };
        // A route to everywhere has no destination.
        let destination = value::network("dest", &wire.dest, family)?.filter(|(_, length)| *length > 0);
        let source = match value::network("source", &wire.source, family)? {
            // An address is the one to speak from; the kernel knows networks to speak from for IPv6 alone.
            Some((address, length)) if length == longest(address) => Some((address, 0)),
            Some((address, length)) if length > 0 && address.is_ipv4() => {
                return Err(value("source", "an address"));
            }
            source => source,
        };
        let scope = u8::try_from(wire.scope).map_err(|_| value("scope", "a number of 8 bits"))?;
        let route =
            Wanted { family, destination, gateway, link: 0, source, scope, flags: wire.flags, mtu: wire.mtu };
        Ok(Self { link: value::link_name(&wire.device)?.to_owned(), route })
    }
}

fn index(links: &[Link], name: &str) -> Result<u32, NetworkError> {
    let found = links.iter().find(|link| link.name == name);
    found.map(|link| link.index).ok_or(NetworkError::LinkNotFound)
}

/// Sets the routes, those without a gateway first. What was before is the answer, or there again.
pub(super) fn update(netlink: &mut Netlink, wanted: &[NamedRoute]) -> Result<Before, NetworkError> {
    let links = links(netlink).map_err(NetworkError::kernel("list links"))?;
    let resolve = |named: &NamedRoute| {
        let link = index(&links, &named.link)?;
        Ok(Wanted { link, ..named.route.clone() })
    };
    let wanted = wanted.iter().map(resolve).collect::<Result<Vec<_>, NetworkError>>()?;
    let before = Before::Routes(routes(netlink).map_err(NetworkError::kernel("list routes"))?);
    let direct = wanted.iter().filter(|route| route.gateway.is_none());
    let others = wanted.iter().filter(|route| route.gateway.is_some());
    for route in direct.chain(others) {
        if let Err(source) = or_there(netlink.change(&route.replace())) {
            let cause = NetworkError::Kernel { what: "set a route", source };
            return Err(super::undone(netlink, &before, cause));
        }
    }
    Ok(before)
}

/// The main table as upstream tells it: without routes to everywhere that have no gateway, and with a gateway the destination is everywhere.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<WireRoute>, NetworkError> {
    let links = links(netlink).map_err(NetworkError::kernel("list links"))?;
    let routes = routes(netlink).map_err(NetworkError::kernel("list routes"))?;
    super::at_most("routes", MAXIMUM_ROUTES, routes.len())?;
    let text = |(address, length): (IpAddr, u8)| format!("{address}/{length}");
    let wire = |route: &super::route::Route| {
        let dest = match (route.gateway(), route.destination()) {
            (Some(_), _) if route.is_ipv6() => "::1".to_owned(),
            (Some(_), _) => "0.0.0.0".to_owned(),
            (None, Some(network)) => text(network),
            (None, None) => return None,
        };
        let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let preferred = || route.preferred_source().map(|address| address.to_string());
        Some(WireRoute {
            dest,
            gateway: route.gateway().map(|address| address.to_string()).unwrap_or_default(),
            device: route.link().and_then(name).unwrap_or_default(),
            source: route.source().map(text).or_else(preferred).unwrap_or_default(),
            scope: route.scope(),
            family: (if route.is_ipv6() { IPFamily::v6 } else { IPFamily::v4 }).into(),
            flags: route.flags(),
            mtu: route.mtu(),
            ..WireRoute::default()
        })
    };
    Ok(routes.iter().filter_map(wire).collect())
}

/// A neighbour of a request: the link by its name.
#[derive(Debug)]
pub(super) struct NamedNeighbour {
    link: String,
    neighbour: Neighbour,
}

impl NamedNeighbour {
    /// Reads one. Nothing has been changed yet.
    pub(super) fn read(wire: &ARPNeighbor) -> Result<Self, NetworkError> {
        let value = |what, expected| NetworkError::Value { what, expected };
        let address = value::address("address of the neighbour", &wire.toIPAddress.address)?;
        let state = u16::try_from(wire.state).map_err(|_| value("state", "a number of 16 bits"))?;
        let flags = u8::try_from(wire.flags & NEIGHBOUR_FLAGS).unwrap_or_default();
        let neighbour = Neighbour {
            link: 0,
            address,
            hardware: value::hardware(&wire.lladdr)?.map(Vec::from).unwrap_or_default(),
            state: if state == 0 { Neighbour::PERMANENT } else { state },
            flags,
        };
        Ok(Self { link: value::link_name(&wire.device)?.to_owned(), neighbour })
    }
}

/// Sets the neighbours. What was before is the answer, or there again.
pub(super) fn add_neighbours(
    netlink: &mut Netlink,
    wanted: &[NamedNeighbour],
) -> Result<Before, NetworkError> {
    let links = links(netlink).map_err(NetworkError::kernel("list links"))?;
    let resolve = |named: &NamedNeighbour| {
        let link = index(&links, &named.link)?;
        Ok(Neighbour { link, ..named.neighbour.clone() })
    };
    let wanted = wanted.iter().map(resolve).collect::<Result<Vec<_>, NetworkError>>()?;
    let there = neighbours(netlink).map_err(NetworkError::kernel("list neighbours"))?;
    let mut undo = Vec::new();
    for neighbour in wanted {
        if let Err(source) = netlink.change(&neighbour.replace()) {
            let cause = NetworkError::Kernel { what: "set a neighbour", source };
            return Err(super::undone(netlink, &Before::Neighbours(undo), cause));
        }
        let was = there.iter().find(|other| other.is_same(&neighbour));
        undo.push(was.map_or_else(|| neighbour.remove(), Neighbour::replace));
    }
    Ok(Before::Neighbours(undo))
}
