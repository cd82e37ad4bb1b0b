//! Packet filters: the programs of the image, the tables of the kernel.

use super::{ok, refused, until};
use protocol::agent::{GetIPTablesRequest, SetIPTablesRequest};
use tests::agent_client::AgentClient;
use tests::vm::shell;
use xtask::vm::Guest;

fn set(text: &str, is_ipv6: bool) -> SetIPTablesRequest {
    SetIPTablesRequest { is_ipv6, data: text.as_bytes().to_vec(), ..SetIPTablesRequest::default() }
}

fn get(is_ipv6: bool) -> GetIPTablesRequest {
    GetIPTablesRequest { is_ipv6, ..GetIPTablesRequest::default() }
}

/// All rules, as the kernel's tables are. Counters move.
fn rules(guest: &Guest) -> String {
    shell(
        guest,
        "for n in iptables ip6tables; do /usr/sbin/$n-save | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'; done",
    )
}

pub fn filters(guest: &Guest, client: &AgentClient) {
    refused(client.get_ip_tables(&get(false)), "FAILED_PRECONDITION", "IPTABLES_MISSING");
    refused(
        client.set_ip_tables(&set("*filter\nCOMMIT\n", false)),
        "FAILED_PRECONDITION",
        "IPTABLES_MISSING",
    );
    shell(
        guest,
        "for n in iptables ip6tables; do for v in save restore; do ln -s xtables-nft-multi /usr/sbin/$n-$v; done; done",
    );
    let text = "*filter\n:INPUT ACCEPT [0:0]\n:MESH - [0:0]\n-A INPUT -p tcp -m tcp --dport 4444 -j DROP\n-A MESH -j RETURN\nCOMMIT\n\
                *nat\n:OUTPUT ACCEPT [0:0]\n\
                -A OUTPUT -d 10.0.2.99/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.2.2:8080\nCOMMIT\n";
    ok(guest, client.set_ip_tables(&set(text, false)));
    let seen = rules(guest);
    for line in [
        "-A INPUT -p tcp -m tcp --dport 4444 -j DROP",
        "-A OUTPUT -d 10.0.2.99/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.2.2:8080",
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    let listed = String::from_utf8(ok(guest, client.get_ip_tables(&get(false))).data).unwrap();
    assert!(
        listed.contains("--dport 4444 -j DROP") && listed.contains("--to-destination 10.0.2.2:8080"),
        "{listed}"
    );
    let six = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 2001:db8::/32 -j DROP\nCOMMIT\n";
    ok(guest, client.set_ip_tables(&set(six, true)));
    assert!(
        String::from_utf8(ok(guest, client.get_ip_tables(&get(true))).data)
            .unwrap()
            .contains("2001:db8::/32")
    );

    // What the program says is set back as a whole, tables before the one that fails, too.
    let before = rules(guest);
    let bad = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -m tcp --dport noport -j ACCEPT\nCOMMIT\n";
    refused(client.set_ip_tables(&set(bad, false)), "INTERNAL", "IPTABLES_FAILED");
    assert_eq!(rules(guest), before);
    evil_host_redirects_guest_components(guest, client);
    assert_eq!(rules(guest), before);
    // What it takes back it can list, and set again.
    ok(guest, client.set_ip_tables(&set(&listed, false)));
    assert_eq!(rules(guest), before);
    ok(guest, client.set_ip_tables(&set("*filter\nCOMMIT\n*nat\nCOMMIT\n", false)));
    ok(guest, client.set_ip_tables(&set("*filter\nCOMMIT\n", true)));
}

/// Policy lets it set filters. What a workload says to a component of the guest stays between them.
fn evil_host_redirects_guest_components(guest: &Guest, client: &AgentClient) {
    let component = "while :; do echo component | nc -l -p 8006; done";
    let honest = guest.spawn(&["/bin/sh", "-c", component]).unwrap();
    let evil = guest.spawn(&["/bin/sh", "-c", "while :; do echo evil | nc -l -p 9999; done"]).unwrap();
    until(guest, "nc 127.0.0.1 9999 </dev/null | grep -q evil");
    for (text, code) in [
        (
            "-A OUTPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 8006 -j REDIRECT --to-ports 9999",
            "IPTABLES_LOOPBACK",
        ),
        ("-A OUTPUT -p tcp -m tcp --dport 8006 -j DNAT --to-destination 10.0.2.2:80", "IPTABLES_LOOPBACK"),
        ("-A PREROUTING -i net7 -p tcp -j DNAT --to-destination 127.0.0.1:8006", "IPTABLES_LOOPBACK"),
        ("-A OUTPUT -d 10.0.2.0/24 -j TEE --gateway 10.0.2.2", "IPTABLES_TARGET"),
        ("-A OUTPUT -M /bin/touch -j ACCEPT", "IPTABLES_FORM"),
        ("-A OUTPUT -t nat -j ACCEPT", "IPTABLES_FORM"),
    ] {
        let text = format!("*nat\n:OUTPUT ACCEPT [0:0]\n:PREROUTING ACCEPT [0:0]\n{text}\nCOMMIT\n");
        refused(client.set_ip_tables(&set(&text, false)), "INTERNAL", code);
    }
    let six = "*mangle\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -d ::1/128 -j MARK --set-mark 1\nCOMMIT\n";
    refused(client.set_ip_tables(&set(six, true)), "INTERNAL", "IPTABLES_LOOPBACK");
    until(guest, "test \"$(nc 127.0.0.1 8006 </dev/null)\" = component");
    evil.signal(9).unwrap();
    honest.signal(9).unwrap();
}
