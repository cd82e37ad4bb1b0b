//! UpdateInterface and ListInterfaces.

use std::net::IpAddr;
use std::path::Path;

use protocol::types::{IPAddress, IPFamily, Interface};

use super::before::{Before, LinkBefore};
use super::error::NetworkError;
use super::link::{IFF_LOOPBACK, IFF_NOARP, IFF_UP, Link, LinkAddress, addresses, links};
use super::netlink::{Message, Netlink};
use super::value;

/// The most addresses that a list of links has.
const MAXIMUM_ADDRESSES: usize = 8192;
/// The most links that a list has.
const MAXIMUM_LINKS: usize = 1024;

/// What a link is to be: a request, checked.
#[derive(Debug)]
pub(super) struct Wanted {
    name: String,
    hardware: Option<[u8; 6]>,
    addresses: Vec<(IpAddr, u8)>,
    mtu: Option<u32>,
    is_without_arp: bool,
    /// The name that the kernel gave to the device which the host means.
    device: Option<String>,
}

impl Wanted {
    /// Reads a request. `device` is the link of the device that it names, where it names one. Nothing has been changed yet.
    pub(super) fn read(request: &Interface, device: Option<&str>) -> Result<Self, NetworkError> {
        let address = |wire: &IPAddress| {
            let address = value::address("address of the link", &wire.address)?;
            // GUARD: loopback-address -> evil_host_takes_the_loopback_interface
            if address.is_loopback() {
                return Err(NetworkError::Loopback { what: "one of its addresses for a link" });
            }
            Ok((address, value::prefix(&wire.mask, address)?))
        };
        let mtu = u32::try_from(request.mtu);
        let mtu = mtu.map_err(|_| NetworkError::Value { what: "mtu", expected: "a number of 32 bits" })?;
        Ok(Self {
            name: value::link_name(&request.name)?.to_owned(),
            hardware: value::hardware(&request.hwAddr)?,
            addresses: request.IPAddresses.iter().map(address).collect::<Result<_, _>>()?,
            mtu: Some(mtu).filter(|mtu| *mtu != 0),
            is_without_arp: request.raw_flags & IFF_NOARP != 0,
            device: device.map(str::to_owned),
        })
    }

    /// The link: that of the device, else the one with the hardware address, else the one with the name.
    fn find<'a>(&self, links: &'a [Link]) -> Result<&'a Link, NetworkError> {
        let named = |name: &str| links.iter().find(|link| link.name == name);
        let found = match &self.device {
            Some(device) => named(device),
            None => {
                let by_hardware =
                    self.hardware.and_then(|own| links.iter().find(|link| link.hardware == own));
                by_hardware.or_else(|| named(&self.name))
            }
        };
        found.ok_or(NetworkError::LinkNotFound)
    }
}

/// Makes a link what it is to be. What was before is the answer, or there again.
pub(super) fn update(netlink: &mut Netlink, wanted: &Wanted, proc: &Path) -> Result<Before, NetworkError> {
    let links = links(netlink).map_err(NetworkError::kernel("list links"))?;
    let link = wanted.find(&links)?;
    let other = links.iter().find(|other| other.name == wanted.name && other.index != link.index);
    let is_loopback = link.is(IFF_LOOPBACK) || other.is_some_and(|other| other.is(IFF_LOOPBACK));
    // GUARD: loopback-link -> evil_host_takes_the_loopback_interface
    if is_loopback {
        return Err(NetworkError::Loopback { what: "the interface as a link" });
    }
    let touched: Vec<_> = [Some(link), other].into_iter().flatten().collect();
    let before = LinkBefore::take(netlink, &touched).map_err(NetworkError::kernel("look at the link"))?;
    let mut change = Change { netlink, wanted, link, other, before: &before };
    let outcome = change.all(has_ipv6(proc), &links);
    let before = Before::Links(before);
    match outcome {
        Ok(()) => Ok(before),
        Err(cause) => Err(super::undone(netlink, &before, cause)),
    }
}

/// Whether addresses of version 6 are set: not where the image switched it off.
fn has_ipv6(proc: &Path) -> bool {
    let is_off = |which: &str| {
        let switch = proc.join("sys/net/ipv6/conf").join(which).join("disable_ipv6");
        std::fs::read_to_string(switch).is_ok_and(|text| text.trim() == "1")
    };
    !(is_off("all") && is_off("default"))
}

struct Change<'a> {
    netlink: &'a mut Netlink,
    wanted: &'a Wanted,
    link: &'a Link,
    other: Option<&'a Link>,
    before: &'a [LinkBefore],
}

impl Change<'_> {
    fn step(&mut self, what: &'static str, message: &Message) -> Result<(), NetworkError> {
        self.netlink.change(message).map_err(NetworkError::kernel(what))
    }

    fn all(&mut self, has_ipv6: bool, links: &[Link]) -> Result<(), NetworkError> {
        let (link, wanted) = (self.link, self.wanted);
        let new_hardware = wanted.hardware.filter(|wanted| link.hardware != wanted);
        let is_renamed = link.name != wanted.name;
        if link.is(IFF_UP) && (is_renamed || new_hardware.is_some()) {
            self.step("take the link down", &link.set_flags(0, IFF_UP))?;
        }
        if let Some(hardware) = new_hardware {
            self.step("set the hardware address", &link.set_hardware(&hardware))?;
        }
        if is_renamed {
            self.rename(links)?;
        }
        if let Some(mtu) = wanted.mtu {
            self.step("set the mtu", &link.set_mtu(mtu))?;
        }
        for (address, prefix) in &wanted.addresses {
            if address.is_ipv4() || has_ipv6 {
                let address = LinkAddress::new(link.index, *address, *prefix);
                self.step("add an address", &address.add())?;
            }
        }
        let flags = IFF_UP | if wanted.is_without_arp { IFF_NOARP } else { 0 };
        self.step("bring the link up", &link.set_flags(flags, IFF_UP | IFF_NOARP))
    }

    /// Gives the link its name. Who had the name gets the link's old one, and is as it was otherwise.
    fn rename(&mut self, links: &[Link]) -> Result<(), NetworkError> {
        let (link, name) = (self.link, &self.wanted.name);
        let Some(other) = self.other else {
            return self.step("name the link", &link.set_name(name));
        };
        if other.is(IFF_UP) {
            self.step("take the other link down", &other.set_flags(0, IFF_UP))?;
        }
        self.step("name the other link", &other.set_name(&aside(name, links)))?;
        self.step("name the link", &link.set_name(name))?;
        self.step("name the other link", &other.set_name(&link.name))?;
        if other.is(IFF_UP) {
            self.step("bring the other link up", &other.set_flags(IFF_UP, IFF_UP))?;
            if let [_, before] = self.before {
                let refilled = before.refill(self.netlink);
                refilled.map_err(NetworkError::kernel("bring back what the other link had"))?;
            }
        }
        Ok(())
    }
}

/// A name for a moment: `NAME_temp`, cut to what a name may be, that nobody has.
fn aside(name: &str, links: &[Link]) -> String {
    let kept = name.get(..name.floor_char_boundary(10)).unwrap_or_default();
    let is_free = |name: &String| !links.iter().any(|link| link.name == *name);
    let wanted = format!("{kept}_temp");
    let kept = name.get(..name.floor_char_boundary(6)).unwrap_or_default();
    let mut others = (0..=links.len()).map(|number| format!("{kept}_temp{:x}", number & 0xffff));
    if is_free(&wanted) { wanted } else { others.find(is_free).unwrap_or(wanted) }
}

/// Every link with its addresses.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<Interface>, NetworkError> {
    let links = links(netlink).map_err(NetworkError::kernel("list links"))?;
    let addresses = addresses(netlink).map_err(NetworkError::kernel("list addresses"))?;
    super::at_most("links", MAXIMUM_LINKS, links.len())?;
    super::at_most("addresses", MAXIMUM_ADDRESSES, addresses.len())?;
    let of = |link: u32| addresses.iter().filter(move |address| address.index == link).map(wire_address);
    let wire = |link: Link| Interface {
        IPAddresses: of(link.index).collect(),
        mtu: u64::from(link.mtu),
        hwAddr: value::hardware_text(&link.hardware),
        name: link.name,
        ..Interface::default()
    };
    Ok(links.into_iter().map(wire).collect())
}

fn wire_address(address: &LinkAddress) -> IPAddress {
    let family = if address.address.is_ipv4() { IPFamily::v4 } else { IPFamily::v6 };
    IPAddress {
        family: family.into(),
        address: address.address.to_string(),
        mask: address.prefix.to_string(),
        ..IPAddress::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_a_moment_is_one_that_nobody_has() {
        let link = |name: &str| Link { index: 1, flags: 0, name: name.to_owned(), hardware: vec![], mtu: 0 };
        assert_eq!(aside("eth0", &[]), "eth0_temp");
        assert_eq!(aside("123456789012345", &[]), "1234567890_temp");
        let links = [link("eth0_temp"), link("eth0_temp0")];
        assert_eq!(aside("eth0", &links), "eth0_temp1");
    }
}
