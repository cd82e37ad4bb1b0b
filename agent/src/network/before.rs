//! What was there before a request, and how it comes back.

use rustix::io::Errno;

use super::link::{IFF_NOARP, IFF_UP, Link, LinkAddress, addresses, links};
use super::netlink::{Message, Netlink};
use super::route::{Neighbour, Route, neighbours, routes};

/// What is brought back when a request fails, or came too late.
#[derive(Debug)]
pub(super) enum Before {
    /// Links with all that hangs on them.
    Links(Vec<LinkBefore>),
    /// The main table.
    Routes(Vec<Route>),
    /// Changes that undo what was done, in the order of what was done.
    Neighbours(Vec<Message>),
}

/// A link with what is lost when it goes down.
#[derive(Debug)]
pub(super) struct LinkBefore {
    link: Link,
    addresses: Vec<LinkAddress>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

/// The first error of many steps, all of which are tried.
struct First(Result<(), Errno>);

impl First {
    fn note(&mut self, outcome: Result<(), Errno>) {
        if self.0.is_ok() {
            self.0 = outcome;
        }
    }
}

/// What is there already is no error.
pub(super) fn or_there(outcome: Result<(), Errno>) -> Result<(), Errno> {
    if outcome == Err(Errno::EXIST) { Ok(()) } else { outcome }
}

/// What is gone already is no error.
fn or_gone(outcome: Result<(), Errno>) -> Result<(), Errno> {
    match outcome {
        Err(Errno::NOENT | Errno::SRCH | Errno::ADDRNOTAVAIL) => Ok(()),
        other => other,
    }
}

/// Routes of the link itself first: gateways are behind them.
fn in_order(routes: &[Route]) -> impl Iterator<Item = &Route> {
    let direct = routes.iter().filter(|route| route.gateway().is_none());
    direct.chain(routes.iter().filter(|route| route.gateway().is_some()))
}

impl LinkBefore {
    /// Looks at these links.
    pub(super) fn take(netlink: &mut Netlink, of: &[&Link]) -> Result<Vec<Self>, Errno> {
        let (addresses, routes, neighbours) = (addresses(netlink)?, routes(netlink)?, neighbours(netlink)?);
        let take = |link: &&Link| Self {
            link: (*link).clone(),
            addresses: addresses.iter().filter(|address| address.index == link.index).cloned().collect(),
            routes: routes.iter().filter(|route| is_kept(route, link.index)).cloned().collect(),
            neighbours: neighbours
                .iter()
                .filter(|neighbour| is_lasting(neighbour, link.index))
                .cloned()
                .collect(),
        };
        Ok(of.iter().map(take).collect())
    }

    /// Brings back what went with the link when it was down.
    pub(super) fn refill(&self, netlink: &mut Netlink) -> Result<(), Errno> {
        let mut first = First(Ok(()));
        let there = addresses(netlink)?;
        for address in
            self.addresses.iter().filter(|address| !there.iter().any(|other| other.is_same(address)))
        {
            first.note(or_there(netlink.change(&address.add())));
        }
        let there = routes(netlink)?;
        for route in in_order(&self.routes).filter(|route| !there.contains(route)) {
            first.note(or_there(netlink.change(&route.add())));
        }
        for neighbour in &self.neighbours {
            first.note(netlink.change(&neighbour.replace()));
        }
        first.0
    }

    fn restore(&self, netlink: &mut Netlink, now: &Link) -> Result<(), Errno> {
        let was = &self.link;
        let mut first = First(Ok(()));
        if now.name != was.name || now.hardware != was.hardware {
            first.note(netlink.change(&now.set_flags(0, IFF_UP)));
            if now.hardware != was.hardware {
                first.note(netlink.change(&now.set_hardware(&was.hardware)));
            }
            first.note(netlink.change(&now.set_name(&was.name)));
        }
        if now.mtu != was.mtu {
            first.note(netlink.change(&now.set_mtu(was.mtu)));
        }
        for address in addresses(netlink)?.iter().filter(|address| address.index == was.index) {
            if !self.addresses.iter().any(|other| other.is_same(address)) {
                first.note(or_gone(netlink.change(&address.remove())));
            }
        }
        first.note(netlink.change(&now.set_flags(was.flags, IFF_UP | IFF_NOARP)));
        first.note(self.refill(netlink));
        first.0
    }
}

/// Routes of a link that do not come back by themselves.
fn is_kept(route: &Route, link: u32) -> bool {
    route.link() == Some(link) && !route.is_of_the_kernel()
}

fn is_lasting(neighbour: &Neighbour, link: u32) -> bool {
    neighbour.link == link && neighbour.state & Neighbour::PERMANENT != 0
}

impl Before {
    /// Brings it back. Every step is tried; the first error is told.
    pub(super) fn restore(&self, netlink: &mut Netlink) -> Result<(), Errno> {
        match self {
            Self::Links(before) => restore_links(netlink, before),
            Self::Routes(before) => restore_routes(netlink, before),
            Self::Neighbours(undo) => {
                let mut first = First(Ok(()));
                for message in undo.iter().rev() {
                    first.note(or_gone(netlink.change(message)));
                }
                first.0
            }
        }
    }
}

fn restore_links(netlink: &mut Netlink, before: &[LinkBefore]) -> Result<(), Errno> {
    let mut first = First(Ok(()));
    // Names may have been swapped: each is put aside before any is given.
    let now = links(netlink)?;
    let found = |index: u32, all: &[Link]| all.iter().find(|link| link.index == index).cloned();
    for was in before {
        if let Some(link) = found(was.link.index, &now).filter(|link| link.name != was.link.name) {
            first.note(netlink.change(&link.set_flags(0, IFF_UP)));
            first.note(netlink.change(&link.set_name(&format!("undo{}", link.index))));
        }
    }
    let now = links(netlink)?;
    for was in before {
        // The host took the device away meanwhile: nothing of it is left.
        if let Some(link) = found(was.link.index, &now) {
            first.note(was.restore(netlink, &link));
        }
    }
    first.0
}

fn restore_routes(netlink: &mut Netlink, before: &[Route]) -> Result<(), Errno> {
    let mut first = First(Ok(()));
    let now = routes(netlink)?;
    for route in now.iter().filter(|route| route.is_ours() && !before.contains(route)) {
        first.note(or_gone(netlink.change(&route.remove())));
    }
    for route in in_order(before).filter(|route| !now.contains(route)) {
        first.note(or_there(netlink.change(&route.add())));
    }
    first.0
}
