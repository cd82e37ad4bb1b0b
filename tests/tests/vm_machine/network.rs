//! Links, addresses, routes, neighbours: set over vsock, seen by `ip`, and used.

use super::{ok, refused, until};
use protocol::agent::{
    ARPNeighbors, AddARPNeighborsRequest, ListInterfacesRequest, ListRoutesRequest, Routes,
    UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocol::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use serde_json::Value;
use tests::agent_client::AgentClient;
use tests::vm::shell;
use xtask::vm::Guest;

/// Of the device that is there from the start.
pub const COLD: &str = "52:54:00:00:00:01";
/// Of the device that comes.
const HOT: &str = "52:54:00:00:00:02";
/// Where it comes: behind the port at 1c.0, in its only slot.
const HOT_PATH: &str = "1c/00";

fn ip(guest: &Guest, words: &str) -> Vec<Value> {
    let text = shell(guest, &format!("/bin/ip -j {words}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
}

/// Everything that requests change. Neighbours that the kernel finds by itself come and go.
fn everything(guest: &Guest) -> String {
    shell(
        guest,
        "/bin/ip -o link | sed 's/ qdisc .*link/ link/'; /bin/ip -o addr | sed 's/ valid_lft.*//; s/ tentative//'; /bin/ip route; \
         /bin/ip -6 route | grep -v fe80; /bin/ip neigh show nud permanent",
    )
}

fn address(text: &str) -> IPAddress {
    let (address, mask) = text.split_once('/').unwrap_or((text, ""));
    let family = if address.contains(':') { IPFamily::v6 } else { IPFamily::v4 };
    IPAddress { family: family.into(), address: address.into(), mask: mask.into(), ..IPAddress::default() }
}

fn interface(name: &str, hardware: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.into(),
        device: name.into(),
        hwAddr: hardware.into(),
        IPAddresses: addresses.iter().map(|text| address(text)).collect(),
        ..Interface::default()
    }
}

fn link(interface: Interface) -> UpdateInterfaceRequest {
    UpdateInterfaceRequest { interface: Some(interface).into(), ..UpdateInterfaceRequest::default() }
}

fn route(dest: &str, gateway: &str, device: &str) -> Route {
    Route { dest: dest.into(), gateway: gateway.into(), device: device.into(), ..Route::default() }
}

fn routes(routes: &[Route]) -> UpdateRoutesRequest {
    let routes = Routes { Routes: routes.to_vec(), ..Routes::default() };
    UpdateRoutesRequest { routes: Some(routes).into(), ..UpdateRoutesRequest::default() }
}

fn neighbour(of: &str, hardware: &str, device: &str) -> ARPNeighbor {
    ARPNeighbor {
        toIPAddress: Some(address(of)).into(),
        device: device.into(),
        lladdr: hardware.into(),
        ..ARPNeighbor::default()
    }
}

fn neighbours(neighbours: &[ARPNeighbor]) -> AddARPNeighborsRequest {
    let neighbors = ARPNeighbors { ARPNeighbors: neighbours.to_vec(), ..ARPNeighbors::default() };
    AddARPNeighborsRequest { neighbors: Some(neighbors).into(), ..AddARPNeighborsRequest::default() }
}

pub fn links_and_routes(guest: &Guest, client: &AgentClient) {
    let listed = ok(guest, client.list_interfaces(&ListInterfacesRequest::default())).Interfaces;
    let cold = listed.iter().find(|link| link.hwAddr == COLD).unwrap_or_else(|| panic!("{listed:?}"));
    let seen = ip(guest, "link");
    let seen = seen.iter().find(|link| link["address"] == COLD).unwrap();
    assert_eq!((seen["ifname"].as_str(), seen["mtu"].as_u64()), (Some(&*cold.name), Some(cold.mtu)));
    assert_eq!(listed.len(), ip(guest, "link").len());

    let wanted = Interface { mtu: 1400, ..interface("net7", COLD, &["10.0.2.15/24", "fd00:7::15/64"]) };
    let answer = ok(guest, client.update_interface(&link(wanted.clone())));
    assert_eq!(answer, wanted, "the answer is the request's interface");
    let shown = ip(guest, "addr show dev net7").remove(0);
    assert_eq!((&shown["mtu"], &shown["address"]), (&1400.into(), &COLD.into()), "{shown}");
    assert!(shown["flags"].as_array().unwrap().contains(&"UP".into()), "{shown}");
    let has = |local: &str, length: u64| {
        let addresses = shown["addr_info"].as_array().unwrap();
        addresses.iter().any(|found| found["local"] == local && found["prefixlen"] == length)
    };
    assert!(has("10.0.2.15", 24) && has("fd00:7::15", 64), "{shown}");
    // The other end of the cable answers.
    until(guest, "ping -c 1 -W 1 10.0.2.2");

    let wanted = [route("0.0.0.0/0", "10.0.2.2", "net7"), route("192.0.2.0/24", "", "net7")];
    let answer = ok(guest, client.update_routes(&routes(&wanted))).Routes;
    assert_eq!(answer, ok(guest, client.list_routes(&ListRoutesRequest::default())).Routes);
    assert!(answer.iter().any(|route| route.gateway == "10.0.2.2" && route.dest == "0.0.0.0"), "{answer:?}");
    let seen = ip(guest, "route");
    assert!(seen.iter().any(|route| route["dst"] == "default" && route["gateway"] == "10.0.2.2"), "{seen:?}");
    assert!(seen.iter().any(|route| route["dst"] == "192.0.2.0/24" && route["dev"] == "net7"), "{seen:?}");

    let given = [
        neighbour("10.0.2.77", "02:00:00:00:00:77", "net7"),
        neighbour("fd00:7::77", "02:00:00:00:00:78", "net7"),
    ];
    ok(guest, client.add_arp_neighbors(&neighbours(&given)));
    let seen = shell(guest, "/bin/ip neigh show nud permanent");
    for line in
        ["10.0.2.77 dev net7 lladdr 02:00:00:00:00:77", "fd00:7::77 dev net7 lladdr 02:00:00:00:00:78"]
    {
        assert!(seen.contains(line), "{seen}");
    }
}

pub fn failures(guest: &Guest, client: &AgentClient) {
    let before = everything(guest);
    let none = UpdateInterfaceRequest::default();
    refused(client.update_interface(&none), "INVALID_ARGUMENT", "empty update interface request");
    refused(
        client.update_interface(&link(interface("nobody", "02:00:00:00:00:99", &[]))),
        "INTERNAL",
        "Link not found",
    );
    // Addresses were added and the link was renamed before the kernel refuses the last step.
    let huge = Interface { mtu: 1 << 30, ..interface("other", COLD, &["10.9.9.9/24"]) };
    refused(client.update_interface(&link(huge)), "INTERNAL", "NETWORK_KERNEL");
    let bad = interface("net7", COLD, &["10.9.9.9/33"]);
    refused(client.update_interface(&link(bad)), "INTERNAL", "NETWORK_VALUE");
    // The first route would do.
    let half = [route("198.51.100.0/24", "", "net7"), route("203.0.113.0/24", "10.77.77.77", "net7")];
    refused(client.update_routes(&routes(&half)), "INTERNAL", "Failed to update routes: ");
    let half = [neighbour("10.0.2.88", "02:00:00:00:00:88", "net7"), neighbour("10.0.2.89", "", "nobody")];
    assert!(client.add_arp_neighbors(&neighbours(&half)).is_err());
    evil_host_takes_the_loopback_interface(client);
    assert_eq!(everything(guest), before);
}

fn evil_host_takes_the_loopback_interface(client: &AgentClient) {
    for evil in [
        interface("lo", "", &["192.0.2.66/24"]),
        interface("lo", COLD, &[]),
        interface("evil0", "00:00:00:00:00:00", &[]),
        interface("net7", COLD, &["127.0.0.9/8"]),
        interface("net7", COLD, &["::1/128"]),
    ] {
        refused(client.update_interface(&link(evil)), "INTERNAL", "NETWORK_LOOPBACK");
    }
}

pub fn hot_plugged(guest: &mut Guest, client: &AgentClient) {
    let before = everything(guest);
    let wanted = |name: &str| Interface {
        devicePath: HOT_PATH.into(),
        ..interface(name, "02:00:00:00:00:09", &["10.0.3.9/24"])
    };
    refused(client.update_interface(&link(wanted("net9"))), "INTERNAL", "interface not available: ");
    let path = Interface { devicePath: "../../1c".into(), ..wanted("net9") };
    refused(client.update_interface(&link(path)), "INTERNAL", "interface not available: ");
    assert_eq!(everything(guest), before);
    guest.add_network("hot", "plug", HOT).unwrap();
    until(guest, &format!("grep -q {HOT} /sys/class/net/*/address"));
    ok(guest, client.update_interface(&link(wanted("net9"))));
    let shown = ip(guest, "addr show dev net9").remove(0);
    // The device is named by its place on the bus, and got the address that was asked for.
    assert_eq!(
        (&shown["address"], &shown["permaddr"]),
        (&"02:00:00:00:00:09".into(), &HOT.into()),
        "{shown}"
    );
    assert!(
        shown["addr_info"].as_array().unwrap().iter().any(|found| found["local"] == "10.0.3.9"),
        "{shown}"
    );
    // It takes the other one's name, which keeps all that it has.
    ok(guest, client.update_interface(&link(wanted("net7"))));
    let shown = ip(guest, "addr show dev net7").remove(0);
    assert_eq!(shown["address"], "02:00:00:00:00:09", "{shown}");
    let shown = ip(guest, "addr show dev net9").remove(0);
    assert_eq!(shown["address"], COLD, "{shown}");
    until(guest, "ping -c 1 -W 1 10.0.2.2");
    // And back.
    ok(guest, client.update_interface(&link(interface("net7", COLD, &[]))));
    assert_eq!(ip(guest, "addr show dev net7").remove(0)["address"], COLD);
}
