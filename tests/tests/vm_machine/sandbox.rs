//! What a sandbox brings: names, name servers, kernel modules, hooks of the image.

use super::{ok, refused, until};
use protocol::agent::{CreateSandboxRequest, KernelModule};
use tests::agent_client::AgentClient;
use tests::agent_client::requests::{create, remove, rootfs, sandbox, start};
use tests::vm::shell;
use xtask::vm::Guest;

/// A hook: says that it ran, and for which container.
pub const MARK: &str = "#!/bin/sh\n/bin/cat > /tmp/hooked\n";
const MARKED: &str = "/tmp/hooked";

pub fn module(name: &str, parameters: &[&str]) -> KernelModule {
    KernelModule {
        name: name.to_owned(),
        parameters: parameters.iter().map(|&text| text.to_owned()).collect(),
        ..KernelModule::default()
    }
}

/// What a sandbox leaves behind.
pub fn traces(guest: &Guest) -> String {
    shell(
        guest,
        "cut -d' ' -f5 /proc/1/mountinfo | sort; cat /etc/resolv.conf; ls -A /run/sandbox-ns 2>/dev/null; lsmod | cut -d' ' -f1",
    )
}

/// Runs a container with these hooks of the sandbox in force; whether the mark is there.
pub fn is_hooked(guest: &Guest, client: &AgentClient, container: &str) -> bool {
    shell(guest, &format!("rm -f {MARKED}"));
    let root = rootfs(guest, container);
    let mut request = create(container, &root, &["sh", "-c", "ulimit -n; hostname; exec sleep 1000"]);
    request.OCI.as_mut().unwrap().Process.as_mut().unwrap().Rlimits.clear();
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start(container)));
    let hooked = guest.sh(&format!("grep -q {container} {MARKED}")).unwrap().status == 0;
    // The agent's own limit is not the container's: no specification raised it.
    let pid = format!("$(head -n 1 /sys/fs/cgroup/kubepods/besteffort/pod1/{container}/cgroup.procs)");
    let limits = shell(guest, &format!("grep 'Max open files' /proc/{pid}/limits"));
    assert_eq!(limits.split_whitespace().nth(3), Some("1024"), "{limits}");
    assert_eq!(shell(guest, &format!("nsenter -t {pid} -u hostname")).trim(), "sandbox-host");
    ok(guest, client.remove_container(&remove(container)));
    hooked
}

pub fn what_containers_share(guest: &Guest, client: &AgentClient) {
    let before = traces(guest);
    let with_modules =
        |modules: Vec<KernelModule>| CreateSandboxRequest { kernel_modules: modules, ..sandbox("pod1") };
    let answer = client.create_sandbox(&with_modules(vec![module("no_such_module", &[])]));
    refused(answer, "INTERNAL", "load_kernel_module return code: ");
    for evil in [module("-r", &[]), module("dummy", &["-C=/out"]), module("/out/evil.ko", &[])] {
        refused(client.create_sandbox(&with_modules(vec![evil])), "INTERNAL", "SANDBOX_MODULE");
    }
    let bad =
        CreateSandboxRequest { dns: vec!["search a\nnameserver 6.6.6.6".to_owned()], ..sandbox("pod1") };
    refused(client.create_sandbox(&bad), "INTERNAL", "DNS_LINE");
    let bad = CreateSandboxRequest { hostname: "a\nb".to_owned(), ..sandbox("pod1") };
    assert!(client.create_sandbox(&bad).is_err());
    assert_eq!(traces(guest), before, "nothing is left of those that failed");

    let request = CreateSandboxRequest {
        dns: vec!["nameserver 10.0.2.3".to_owned(), "options ndots:5".to_owned()],
        guest_hook_path: "/hooks".to_owned(),
        ..with_modules(vec![module("dummy", &["numdummies=2"])])
    };
    ok(guest, client.create_sandbox(&request));
    assert_eq!(shell(guest, "cat /etc/resolv.conf"), "nameserver 10.0.2.3\noptions ndots:5");
    shell(guest, "test -e /sys/class/net/dummy0 && test -e /sys/class/net/dummy1");
    let name = "nsenter --uts=/run/sandbox-ns/uts hostname";
    assert_eq!(shell(guest, name).trim(), "sandbox-host");
    assert_ne!(shell(guest, "hostname").trim(), "sandbox-host", "the machine keeps its own");
    assert!(is_hooked(guest, client, "hooked"));
    until(guest, "test -z \"$(ls -A /run/kata-containers/hooked 2>/dev/null)\"");
}
