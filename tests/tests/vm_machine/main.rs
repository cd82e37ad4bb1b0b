//! The network and the machine itself, as a runtime changes them over vsock and as the guest's kernel shows them; and the agent as a service
//! beside another process 1, in a confidential guest.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod filters;
mod machine;
mod network;
mod sandbox;
mod service;

use std::path::Path;
use std::time::{Duration, Instant};
use tests::agent_client::checks::{ok, refused};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::{Guest, Spec};

/// Until something is as the kernel makes it that takes a moment.
const SETTLE: Duration = Duration::from_secs(30);

/// Waits until a line of shell succeeds.
#[track_caller]
fn until(guest: &Guest, line: &str) {
    let end = Instant::now() + SETTLE;
    while guest.sh(line).unwrap().status != 0 {
        assert!(Instant::now() < end, "never: {line}\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What these tests look with: `ip` and the packet filters of this machine, and a place where ioctls are traced.
fn with_tools(spec: Spec) -> Spec {
    let filters = Path::new("/usr/sbin/xtables-nft-multi");
    let mut spec = spec
        .host_program(Path::new("/bin/ip"), "/bin/ip")
        .and_then(|spec| spec.host_program(filters, "/usr/sbin/xtables-nft-multi"))
        .unwrap_or_else(|error| panic!("{error:#}"));
    for extension in ["libxt_tcp", "libxt_standard", "libxt_DNAT", "libxt_REDIRECT", "libxt_comment"] {
        let file = format!("/usr/lib/x86_64-linux-gnu/xtables/{extension}.so");
        let real = Path::new(&file).canonicalize().unwrap_or_else(|error| panic!("{file}: {error}"));
        spec = spec.copy(&real, &file, 0o755);
    }
    spec
}

// COMPAT: UpdateInterface, UpdateRoutes, ListInterfaces, ListRoutes, AddARPNeighbors same: over vsock in a guest, as ip and ping show it
// COMPAT: GetIPTables, SetIPTables, OnlineCPUMem, GetGuestDetails, ReseedRandomDev same: over vsock in a guest, as its kernel shows it
// COMPAT: GetMetrics, MemAgentMemcgSet, MemAgentCompactSet, CreateSandbox same: over vsock in a guest
#[test]
fn network_and_machine_are_what_the_host_gives() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let spec = with_tools(spec(&programs, &work, ALLOW_ALL))
        .modules(&[
            "virtio_net",
            "nft_compat",
            "nft_chain_nat",
            "xt_tcpudp",
            "xt_nat",
            "xt_REDIRECT",
            "xt_comment",
        ])
        .offered_modules(&["dummy"])
        .file("/etc/resolv.conf", 0o644, "nameserver 192.0.2.1\n")
        .file("/hooks/poststart/mark", 0o755, sandbox::MARK)
        .room_for_memory(1, 256)
        .qemu(&["-netdev", "user,id=cold-net,restrict=on,ipv6=off"])
        .qemu(&["-device", &format!("virtio-net-pci,netdev=cold-net,mac={},romfile=", network::COLD)])
        .qemu(&["-device", "pcie-root-port,id=plug,chassis=20,slot=20,addr=1c.0"]);
    let mut guest = serving(spec);
    let client = AgentClient::connect(&guest);
    let limits = shell(&guest, "grep 'Max open files' /proc/1/limits");
    assert_eq!(limits.split_whitespace().nth(3), Some("65536"), "{limits}");

    // Before the sandbox, as runtimes do it.
    network::links_and_routes(&guest, &client);
    network::failures(&guest, &client);
    network::hot_plugged(&mut guest, &client);
    filters::filters(&guest, &client);
    machine::details(&guest, &client);
    machine::what_is_not_there(&guest, &client);
    machine::clock_outside_of_a_tee(&guest, &client);
    machine::entropy(&guest, &client, true);
    machine::processors(&guest, &client);
    machine::memory(&mut guest, &client);
    machine::figures(&guest, &client);
    sandbox::what_containers_share(&guest, &client);
    guest.power_off().unwrap();
}
