//! Links, addresses, routes and neighbours of network namespaces that are made for one test each, looked at by `ip`.

use std::process::Command;

use protocol::types::{IPAddress, IPFamily};
use serde_json::Value;

use super::*;
use crate::namespaces::tests::in_namespaces;

const MAC: &str = "02:00:ca:fe:00:48";

/// `ip` says yes.
#[track_caller]
fn ip(words: &str) -> String {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn ip_json(words: &str) -> Vec<Value> {
    let text = ip(&format!("-j {words}"));
    if text.trim().is_empty() { vec![] } else { serde_json::from_str(&text).unwrap() }
}

/// Everything that requests change, but for what the kernel does by itself over time.
fn everything() -> [String; 3] {
    let of_time = [" tentative", " linkdown", " dadfailed", " nodad"];
    let sorted = |text: String| {
        let lines = text.lines().filter(|line| !line.contains("fe80:") && !line.contains("ff00:"));
        let line = |line: &str| {
            let kept = line.split(" valid_lft").next().unwrap().trim().to_owned();
            of_time.iter().fold(kept, |line, word| line.replace(word, ""))
        };
        let mut lines: Vec<_> = lines.map(line).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let link = |link: &Value| {
        let flags = link["flags"].as_array().unwrap();
        let flags = ["UP", "NOARP"].map(|flag| flags.contains(&flag.into()));
        format!("{} {} {} {} {flags:?}\n", link["ifindex"], link["ifname"], link["address"], link["mtu"])
    };
    let routes =
        ip("route show table main") + &ip("-6 route show table main") + &ip("neigh show nud permanent");
    [ip_json("link").iter().map(link).collect(), sorted(ip("-o addr")), sorted(routes)]
}

fn address(text: &str) -> IPAddress {
    let (address, mask) = text.split_once('/').unwrap();
    let family = if address.contains(':') { IPFamily::v6 } else { IPFamily::v4 };
    IPAddress { family: family.into(), address: address.into(), mask: mask.into(), ..Default::default() }
}

fn interface(name: &str, hardware: &str, addresses: &[&str]) -> Interface {
    Interface {
        name: name.into(),
        device: name.into(),
        hwAddr: hardware.into(),
        mtu: 1400,
        IPAddresses: addresses.iter().map(|text| address(text)).collect(),
        ..Default::default()
    }
}

fn route(dest: &str, gateway: &str, device: &str) -> Route {
    let family = if dest.contains(':') || gateway.contains(':') { IPFamily::v6 } else { IPFamily::v4 };
    Route {
        dest: dest.into(),
        gateway: gateway.into(),
        device: device.into(),
        family: family.into(),
        ..Default::default()
    }
}

fn neighbour(address_text: &str, hardware: &str, device: &str) -> ARPNeighbor {
    ARPNeighbor {
        toIPAddress: Some(IPAddress { address: address_text.into(), ..Default::default() }).into(),
        lladdr: hardware.into(),
        device: device.into(),
        ..Default::default()
    }
}

/// A test inside a network namespace with links `eth7` (of the address above), `spare` and `lo`.
#[track_caller]
fn with_links(body: impl FnOnce(&Network)) {
    ip("link set lo up");
    ip(&format!("link add eth7 address {MAC} type veth peer name other1"));
    ip("link add spare type veth peer name other2");
    ip("link set other1 up");
    ip("link set other2 up");
    body(&Network::new(Path::new("/proc")));
}

/// Waits for a call.
fn now<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(call)
}

// COMPAT: UpdateInterface, ListInterfaces same
#[test]
fn a_link_becomes_what_the_host_says() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            // By its hardware address, whatever its name.
            let wanted = interface("eth0", MAC, &["192.0.2.10/24", "2001:db8::10/64"]);
            let _kept = now(network.update_interface(&wanted, None)).unwrap();
            let found = &ip_json("addr show dev eth0")[0];
            assert_eq!((found["mtu"].as_u64(), found["address"].as_str()), (Some(1400), Some(MAC)));
            assert!(found["flags"].as_array().unwrap().contains(&"UP".into()));
            let has = |local: &str, prefix: u64, broadcast: &Value| {
                let mut all = found["addr_info"].as_array().unwrap().iter();
                all.any(|info| {
                    info["local"] == local && info["prefixlen"] == prefix && info["broadcast"] == *broadcast
                })
            };
            assert!(
                has("192.0.2.10", 24, &"192.0.2.255".into()) && has("2001:db8::10", 64, &Value::Null),
                "{found}"
            );
            assert!(ip("link").contains("eth0") && !ip("link").contains("eth7"));

            // By its name: it gets the hardware address. What it has stays.
            let mut wanted = interface("eth0", "02:00:ca:fe:00:99", &["192.0.2.11/24"]);
            wanted.raw_flags = 0x80;
            let _kept = now(network.update_interface(&wanted, None)).unwrap();
            let found = &ip_json("addr show dev eth0")[0];
            assert_eq!(found["address"], "02:00:ca:fe:00:99");
            assert!(found["flags"].as_array().unwrap().contains(&"NOARP".into()));
            let text = found["addr_info"].to_string();
            assert!(text.contains("192.0.2.10") && text.contains("192.0.2.11"), "{text}");

            // A second time is no error.
            let _kept = now(network.update_interface(&wanted, None)).unwrap();

            let listed = now(network.interfaces()).unwrap();
            let eth0 = listed.iter().find(|link| link.name == "eth0").unwrap();
            assert_eq!((eth0.mtu, &*eth0.hwAddr), (1400, "02:00:ca:fe:00:99"));
            let own = eth0.IPAddresses.iter().find(|own| own.address == "192.0.2.11").unwrap();
            assert_eq!((&*own.mask, own.family.enum_value()), ("24", Ok(IPFamily::v4)));
            assert!(listed.iter().any(|link| link.name == "lo"));
        });
    });
}

#[test]
fn the_device_that_is_named_is_the_link() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            // Another link has the address already.
            let wanted = interface("eth0", MAC, &["192.0.2.10/24"]);
            let _kept = now(network.update_interface(&wanted, Some("spare"))).unwrap();
            let found = ip_json("addr show dev eth0");
            assert_eq!(found[0]["address"], MAC);
            assert!(ip("link").contains("eth7") && !ip("link").contains("spare"));
            let error = now(network.update_interface(&wanted, Some("gone"))).unwrap_err();
            assert_eq!(error.code(), "NETWORK_LINK");
        });
    });
}

// COMPAT: UpdateInterface better: a link that is renamed for another keeps routes and neighbours
#[test]
fn two_links_swap_their_names() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("link set spare name eth0");
            ip("addr add 198.51.100.1/24 dev eth0");
            ip("link set eth0 up");
            ip("addr add 2001:db8:1::1/64 dev eth0");
            ip("route add 203.0.113.0/24 via 198.51.100.7");
            ip("neigh add 198.51.100.7 lladdr 02:00:00:00:00:07 dev eth0");
            let other = ip_json("link show dev eth0")[0]["address"].clone();
            let _kept =
                now(network.update_interface(&interface("eth0", MAC, &["192.0.2.10/24"]), None)).unwrap();
            assert_eq!(ip_json("link show dev eth0")[0]["address"], MAC);
            let swapped = &ip_json("addr show dev eth7")[0];
            assert_eq!(swapped["address"], other);
            // The other one has what it had.
            assert!(swapped["flags"].as_array().unwrap().contains(&"UP".into()));
            let text = swapped["addr_info"].to_string();
            assert!(text.contains("198.51.100.1") && text.contains("2001:db8:1::1"), "{text}");
            assert!(ip("route").contains("203.0.113.0/24 via 198.51.100.7 dev eth7"), "{}", ip("route"));
            assert!(ip("neigh").contains("198.51.100.7 dev eth7 lladdr 02:00:00:00:00:07 PERMANENT"));
            assert!(!ip("link").contains("temp"));
        });
    });
}

// COMPAT: UpdateInterface same: `Link not found`
#[test]
fn a_link_that_is_not_there_is_told_as_runtimes_expect() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            let before = everything();
            let error = now(network.update_interface(&interface("eth0", "02:00:00:00:00:01", &[]), None))
                .unwrap_err();
            assert_eq!((error.code(), &*error.to_string()), ("NETWORK_LINK", "Link not found"));
            let error = now(network.update_routes(&[route("10.0.0.0/8", "", "eth0")])).unwrap_err();
            assert_eq!(error.code(), "NETWORK_LINK");
            let error = now(network.add_neighbours(&[neighbour("10.0.0.1", MAC, "eth0")])).unwrap_err();
            assert_eq!(error.code(), "NETWORK_LINK");
            assert_eq!(everything(), before);
        });
    });
}

// COMPAT: UpdateInterface better: all of it or nothing
/// The last step fails: two swapped links, down in between, are as they were.
#[test]
fn a_link_that_cannot_become_it_is_as_before() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("link set spare name eth0");
            for (link, net) in [("eth0", "198.51.100"), ("eth7", "203.0.113")] {
                ip(&format!("addr add {net}.1/24 dev {link}"));
                ip(&format!("link set {link} up"));
                ip(&format!("addr add 2001:db8:{}::1/64 dev {link}", &link[3..]));
                ip(&format!("neigh add {net}.7 lladdr 02:00:00:00:00:07 dev {link}"));
            }
            ip("route add 10.1.0.0/16 via 198.51.100.7");
            ip("route add 10.2.0.0/16 via 203.0.113.7 metric 77");
            ip("route add 10.3.0.0/16 dev eth7 scope link");
            ip("-6 route add 2001:db8:ff::/48 via 2001:db8:7::7");
            let before = everything();
            // No link has an MTU of 2³¹.
            let mut wanted = interface("eth0", MAC, &["192.0.2.10/24", "2001:db8::10/64"]);
            wanted.mtu = 1 << 31;
            let error = now(network.update_interface(&wanted, None)).unwrap_err();
            assert_eq!(error.code(), "NETWORK_KERNEL", "{error}");
            assert!(error.to_string().starts_with("set the mtu"), "{error}");
            assert_eq!(everything(), before);

            // A multicast address is one that no link takes: after names, MTU, and another address.
            let wanted = interface("eth0", MAC, &["192.0.2.10/24", "ff02::1/128"]);
            let error = now(network.update_interface(&wanted, None)).unwrap_err();
            assert!(error.to_string().starts_with("add an address"), "{error}");
            assert_eq!(everything(), before);

            // The same when it all went well, and the caller was gone.
            let wanted = interface("eth0", "", &["192.0.2.10/24", "2001:db8::10/64"]);
            for wanted in [interface("eth0", MAC, &["192.0.2.10/24"]), wanted] {
                let changed = now(network.update_interface(&wanted, None)).unwrap();
                assert_ne!(everything(), before);
                now(network.undo(changed)).unwrap();
                assert_eq!(everything(), before);
            }
        });
    });
}

// COMPAT: UpdateInterface stricter: not the loopback interface, nor its addresses
#[test]
fn evil_host_takes_the_loopback_interface() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            let before = everything();
            let takes = [
                interface("lo", "", &["192.0.2.1/32"]),
                interface("eth9", "00:00:00:00:00:00", &[]),
                // By the swap of names.
                interface("lo", MAC, &["192.0.2.1/32"]),
                interface("eth0", MAC, &["127.0.0.1/32"]),
                interface("eth0", MAC, &["192.0.2.1/24", "::1/128"]),
                interface("eth0", MAC, &["127.9.9.9/8"]),
            ];
            for wanted in takes {
                let error = now(network.update_interface(&wanted, None)).unwrap_err();
                assert_eq!(error.code(), "NETWORK_LOOPBACK", "{wanted:?}");
                assert_eq!(everything(), before);
            }
        });
    });
}

// COMPAT: UpdateInterface stricter: names and numbers are checked before anything is changed
#[test]
fn evil_host_values_of_an_interface() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            let before = everything();
            let mut endless = interface("eth0", MAC, &[]);
            endless.mtu = u64::MAX;
            let bad = [
                endless,
                interface("", MAC, &[]),
                interface("eth%d", MAC, &[]),
                interface("../eth0", MAC, &[]),
                interface("eth0", "02:00", &[]),
                interface("eth0", MAC, &["192.0.2.1/33"]),
                interface("eth0", MAC, &["192.0.2.1/"]),
                interface("eth0", MAC, &["/24"]),
                interface("eth0", MAC, &["192.0.2.1/255.255.255.0"]),
            ];
            for wanted in bad {
                let error = now(network.update_interface(&wanted, None)).unwrap_err();
                assert_eq!(error.code(), "NETWORK_VALUE", "{wanted:?}");
                assert_eq!(everything(), before);
            }
        });
    });
}

// COMPAT: UpdateRoutes, ListRoutes same: with the two quirks of the list
#[test]
fn routes_are_set_and_listed_as_upstream_does() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("addr add 192.0.2.10/24 dev eth7");
            ip("addr add 192.0.2.11/24 dev eth7");
            ip("link set eth7 up");
            ip("addr add 2001:db8::10/64 dev eth7 nodad");
            ip("route add 10.99.0.0/16 dev eth7 scope link");
            // The one behind the gateway comes first, and is set last.
            let mut first = route("", "198.51.100.1", "eth7");
            first.mtu = 1300;
            let mut direct = route("198.51.100.1/32", "", "eth7");
            (direct.scope, direct.source) = (253, "192.0.2.11".into());
            let six = route("2001:db8:5::/48", "2001:db8::1", "eth7");
            let mut behind = route("10.7.0.0/16", "203.0.113.1", "eth7");
            behind.flags = 4;
            let wanted = [first, direct, six, behind];
            let _kept = now(network.update_routes(&wanted)).unwrap();
            let text = ip("route show table main");
            for expected in [
                "default via 198.51.100.1 dev eth7 mtu 1300",
                "198.51.100.1 dev eth7 scope link src 192.0.2.11",
                "10.7.0.0/16 via 203.0.113.1 dev eth7 onlink",
                // Others stay.
                "10.99.0.0/16 dev eth7 scope link",
            ] {
                assert!(text.contains(expected), "{expected}\n{text}");
            }
            assert!(
                ip("-6 route").contains("2001:db8:5::/48 via 2001:db8::1 dev eth7"),
                "{}",
                ip("-6 route")
            );

            // Again, and another gateway in place of the first.
            let _kept = now(network.update_routes(&wanted)).unwrap();
            let _kept = now(network.update_routes(&[route("0.0.0.0/0", "192.0.2.1", "eth7")])).unwrap();
            let defaults = ip("route show default");
            assert!(defaults.contains("via 192.0.2.1") && defaults.lines().count() == 1, "{defaults}");

            let listed = now(network.routes()).unwrap();
            let has = |dest: &str, gateway: &str| {
                listed.iter().any(|route| route.dest == dest && route.gateway == gateway)
            };
            assert!(
                has("0.0.0.0", "192.0.2.1") && has("::1", "2001:db8::1") && has("10.99.0.0/16", ""),
                "{listed:?}"
            );
            let direct = listed.iter().find(|route| route.dest == "198.51.100.1/32").unwrap();
            assert_eq!((&*direct.source, direct.scope, &*direct.device), ("192.0.2.11", 253, "eth7"));
            // Not of other tables.
            assert!(
                !listed.iter().any(|route| route.dest.starts_with("127.") || route.dest.contains("255/32"))
            );
        });
    });
}

// COMPAT: UpdateRoutes better: all or none
#[test]
fn routes_that_cannot_all_be_set_are_not_set() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("addr add 192.0.2.10/24 dev eth7");
            ip("link set eth7 up");
            ip("addr add 2001:db8::10/64 dev eth7 nodad");
            ip("route add 10.1.0.0/16 via 192.0.2.1");
            ip("route add default via 192.0.2.1");
            ip("-6 route add 2001:db8:ff::/48 via 2001:db8::7");
            let before = everything();
            let good = [
                route("", "192.0.2.66", "eth7"),
                route("10.1.0.0/16", "192.0.2.66", "eth7"),
                route("10.2.0.0/16", "", "eth7"),
            ];
            // Nobody knows the way to this gateway.
            let bad = route("10.3.0.0/16", "203.0.113.1", "eth7");
            let error = now(network.update_routes(&[&good[..], &[bad]].concat())).unwrap_err();
            assert_eq!(error.code(), "NETWORK_KERNEL");
            assert_eq!(everything(), before);
            for bad in [
                route("10.3.0.0", "192.0.2.0/24", "eth7"),
                route("10.3.0.0/40", "", "eth7"),
                route("10.3.0.0/16", "::1", "eth7"),
                Route { source: "192.0.2.0/24".into(), ..route("10.3.0.0/16", "", "eth7") },
                Route { scope: 256, ..route("10.3.0.0/16", "", "eth7") },
            ] {
                let error = now(network.update_routes(&[&good[..], &[bad]].concat())).unwrap_err();
                assert_eq!(error.code(), "NETWORK_VALUE", "{error}");
                assert_eq!(everything(), before);
            }
            let changed = now(network.update_routes(&good)).unwrap();
            assert_ne!(everything(), before);
            now(network.undo(changed)).unwrap();
            assert_eq!(everything(), before);
        });
    });
}

// COMPAT: AddARPNeighbors better: all or none
#[test]
fn neighbours_are_set_or_none_is() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("addr add 192.0.2.10/24 dev eth7");
            ip("link set eth7 up");
            ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev eth7");
            let before = everything();
            let good = [
                neighbour("192.0.2.2", "02:00:00:00:00:ff", "eth7"),
                neighbour("2001:db8::7", "02:00:00:00:00:07", "eth7"),
            ];
            let error =
                now(network.add_neighbours(&[&good[..], &[neighbour("nobody", MAC, "eth7")]].concat()))
                    .unwrap_err();
            assert_eq!((error.code(), everything()), ("NETWORK_VALUE", before.clone()));
            // Permanent, and without an address: the kernel takes no such neighbour.
            let error =
                now(network.add_neighbours(&[&good[..], &[neighbour("192.0.2.9", "", "eth7")]].concat()))
                    .unwrap_err();
            assert_eq!((error.code(), everything()), ("NETWORK_KERNEL", before.clone()));

            let changed = now(network.add_neighbours(&good)).unwrap();
            let text = ip("neigh");
            assert!(text.contains("192.0.2.2 dev eth7 lladdr 02:00:00:00:00:ff PERMANENT"), "{text}");
            assert!(text.contains("2001:db8::7 dev eth7 lladdr 02:00:00:00:00:07 PERMANENT"), "{text}");
            now(network.undo(changed)).unwrap();
            assert_eq!(everything(), before);

            let mut reachable = neighbour("192.0.2.3", "02:00:00:00:00:03", "eth7");
            (reachable.state, reachable.flags) = (2, i32::MIN);
            let _kept = now(network.add_neighbours(&[reachable])).unwrap();
            assert!(ip("neigh").contains("192.0.2.3 dev eth7 lladdr 02:00:00:00:00:03 REACHABLE"));
        });
    });
}

// COMPAT: UpdateInterface, UpdateRoutes, AddARPNeighbors better: taken back for a caller who has stopped waiting
/// What comes too late has no effect, whichever request it was.
#[test]
fn evil_host_is_gone_before_the_network_is_set() {
    in_namespaces(&["--net"], || {
        with_links(|network| {
            ip("link set eth7 up");
            ip("addr add 192.0.2.10/24 dev eth7");
            let before = everything();
            let late = |changed| now(network.settle(changed, true)).unwrap_err();
            let changed = now(network.update_interface(&interface("eth0", MAC, &["198.51.100.1/24"]), None));
            assert_eq!((late(changed.unwrap()), everything()), (RpcError::Deadline, before.clone()));
            let changed = now(network.update_routes(&[route("", "192.0.2.1", "eth7")]));
            assert_eq!((late(changed.unwrap()), everything()), (RpcError::Deadline, before.clone()));
            let changed = now(network.add_neighbours(&[neighbour("192.0.2.2", MAC, "eth7")]));
            assert_eq!((late(changed.unwrap()), everything()), (RpcError::Deadline, before.clone()));
            let changed = now(network.add_neighbours(&[neighbour("192.0.2.2", MAC, "eth7")]));
            now(network.settle(changed.unwrap(), false)).unwrap();
            assert_ne!(everything(), before);
        });
    });
}

// COMPAT: ListInterfaces stricter: at most 1,024 links and 8,192 addresses, else `NETWORK_TOO_MANY`
// COMPAT: ListRoutes stricter: at most 8,192 routes, else `NETWORK_TOO_MANY`
#[test]
fn a_list_for_the_host_has_an_end() {
    assert!(at_most("routes", 3, 3).is_ok());
    assert_eq!(at_most("routes", 3, 4).unwrap_err().code(), "NETWORK_TOO_MANY");
}
