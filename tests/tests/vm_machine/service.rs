//! The agent as a service beside another process 1, in a confidential guest: initdata counts as it does for process 1, and so do the rules for
//! a host that is not believed.

use super::machine::{assert_soon_after, date, entropy, now};
use super::sandbox::{MARK, is_hooked, module, traces};
use super::{ok, refused, until};
use initdata::{Algorithm, Package};
use protocol::agent::CreateSandboxRequest;
use std::time::Duration;
use tests::agent_client::requests::{create, rootfs, sandbox, start};
use tests::agent_client::{ALLOW_ALL, AgentClient};
use tests::programs::{Programs, User};
use tests::tee::Kind;
use tests::vm::{self, boot, shell};
use tests::work::Work;

/// The release of the program: nothing is believed to be earlier.
const RELEASED: i64 = agent::machine::RELEASED;

// COMPAT: SetGuestDateTime stricter: a machine that begins before this release is set to it
#[test]
fn a_service_in_a_confidential_guest() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let mut package = Package::new(Algorithm::Sha384);
    package.insert("policy.rego", ALLOW_ALL).unwrap();
    let packed = package.pack().unwrap();
    let disk = work.write("initdata.img", packed.image());
    let digest = Kind::Tdx.initdata_digest(packed.text().as_bytes());
    let spec = vm::spec(&programs, &["innerkeep-agent", "innerkeep-tee-emulator"]);
    let spec = vm::with_tee(spec, &programs, &work, Kind::Tdx, &digest)
        .vsock()
        .disk(&disk)
        .offered_modules(&["dummy", "loop"])
        .file("/etc/innerkeep/kernel-modules", 0o644, "# what this image needs\ndummy\n")
        .file("/etc/innerkeep/guest-hooks", 0o644, "/hooks\n")
        .file("/hooks/poststart/mark", 0o755, MARK)
        .file("/others/poststart/mark", 0o755, MARK)
        .keep_serial(&work.join("serial.log"))
        // The host's clock: it begins long ago.
        .qemu(&["-rtc", "base=2001-01-01T00:00:00"]);
    let guest = boot(spec);
    // What a service manager has done.
    shell(
        &guest,
        "mount -t tmpfs none /run && mount -t cgroup2 none /sys/fs/cgroup && cd /sys/fs/cgroup && \
         for c in $(cat cgroup.controllers); do echo +$c > cgroup.subtree_control; done",
    );
    let begun = now(&guest);
    assert!(begun < RELEASED, "{begun}");
    let version = shell(&guest, "/bin/innerkeep-agent --version");
    assert!(
        version.starts_with("kata-agent version 4.1.0 (api version: 0.0.1, commit version: "),
        "{version}"
    );
    assert!(shell(&guest, "/bin/innerkeep-agent --help").contains("--server-addr"));

    let running = guest.spawn(&["/bin/innerkeep-agent"]).unwrap();
    let client = AgentClient::connect(&guest);
    client.assert_healthy();
    let pids = "cat /proc/[0-9]*/stat | sed -n 's/ (innerkeep-agent).*//p' | sort -n | head -n 1";
    let agent = shell(&guest, pids).trim().to_owned();
    let limits = shell(&guest, &format!("grep 'Max open files' /proc/{agent}/limits"));
    assert_eq!(limits.split_whitespace().nth(3), Some("65536"), "{limits}");

    // evil_host_clock_that_begins_in_the_past, evil_host_sets_the_clock_back
    assert_soon_after(now(&guest), RELEASED);
    for seconds in [0, 978_307_200, RELEASED - 1] {
        refused(client.set_guest_date_time(&date(seconds, 999_999)), "INTERNAL", "MACHINE_CLOCK_BACK");
    }
    assert_soon_after(now(&guest), RELEASED);
    ok(&guest, client.set_guest_date_time(&date(RELEASED + 86_400, 0)));
    assert_soon_after(now(&guest), RELEASED + 86_400);
    // evil_host_gives_entropy_that_it_knows
    entropy(&guest, &client, false);

    evil_host_modules_and_hooks(&guest, &client);

    // SIGTERM: containers end, and what they share; the machine goes on.
    let root = rootfs(&guest, "last");
    ok(&guest, client.create_container(&create("last", &root, &["sh", "-c", "exec sleep 4321"])));
    ok(&guest, client.start_container(&start("last")));
    let process =
        shell(&guest, "cat /sys/fs/cgroup/kubepods/besteffort/pod1/last/cgroup.procs").trim().to_owned();
    assert!(shell(&guest, &format!("cat /proc/{process}/cmdline")).contains("4321"));
    // The main process alone, as `KillMode=mixed` has it.
    shell(&guest, &format!("kill -TERM {agent}"));
    let said = running.wait(Duration::from_secs(60)).unwrap();
    assert_eq!(said.status, 0, "{said:?}");
    for line in [
        "\"tee\":\"tdx\"",
        "\"msg\":\"initdata bound\"",
        "\"register\":\"MRCONFIGID\"",
        "\"msg\":\"stopping\"",
    ] {
        assert!(said.stdout.contains(line), "{line} in {}", said.stdout);
    }
    assert!(said.stdout.contains("the clock was before the release of this program"), "{}", said.stdout);
    assert_eq!(said.stdout.matches("SANDBOX_HOOKS").count(), 2, "{}", said.stdout);
    until(&guest, &format!("! test -e /proc/{process} && ! grep -q sandbox-ns /proc/1/mountinfo"));
    until(&guest, "test -z \"$(find /sys/fs/cgroup/kubepods -name last 2>/dev/null)\"");
    until(&guest, "! for p in /proc/[0-9]*; do readlink $p/exe; done 2>/dev/null | grep -q innerkeep-agent");
    guest.power_off().unwrap();
}

/// The image lists which modules and which directories of hooks a host may name.
fn evil_host_modules_and_hooks(guest: &xtask::vm::Guest, client: &AgentClient) {
    let before = traces(guest);
    let asks = |modules: &[&str], hooks: &str| CreateSandboxRequest {
        kernel_modules: modules.iter().map(|name| module(name, &[])).collect(),
        guest_hook_path: hooks.to_owned(),
        ..sandbox("pod1")
    };
    refused(
        client.create_sandbox(&asks(&["dummy", "loop"], "")),
        "INTERNAL",
        "the measured image does not list it",
    );
    assert_eq!(traces(guest), before, "none of them is loaded");
    // A directory of the host's, and one of the image that nobody listed: a sandbox without hooks.
    let shared = "/run/kata-containers/shared/containers/evil";
    shell(guest, &format!("mkdir -p {shared}/poststart && cp /hooks/poststart/mark {shared}/poststart/"));
    for (directory, container) in [(shared, "first"), ("/others", "second")] {
        ok(guest, client.create_sandbox(&asks(&[], directory)));
        assert!(!is_hooked(guest, client, container), "{directory}");
    }
    ok(guest, client.create_sandbox(&asks(&["dummy"], "/hooks")));
    shell(guest, "test -e /sys/class/net/dummy0 && ! test -e /sys/module/loop");
    assert!(is_hooked(guest, client, "third"));
}
