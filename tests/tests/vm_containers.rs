//! The life of containers, as a runtime drives it over vsock and as the guest's kernel shows it: and what a hostile runtime makes of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{StringUser, TtyWinResizeRequest};
use std::time::{Duration, Instant};
use tests::agent_client::checks::{ok, refused};
use tests::agent_client::requests::{
    create, exec, read, remove, rootfs, sandbox, signal, start, wait, write,
};
use tests::agent_client::{ALLOW_ALL, AgentClient, serving, spec};
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use xtask::vm::{End, Guest};

/// Where the cgroup of a container of these tests is.
const PODS: &str = "/sys/fs/cgroup/kubepods/besteffort/pod1";
/// Until something is as it was that takes a moment to get there.
const SETTLE: Duration = Duration::from_secs(30);

/// What may leak: mounts, descriptors of process 1, user processes, control groups, entries of our directories.
fn state(guest: &Guest) -> String {
    shell(
        guest,
        "echo mounts; cut -d' ' -f5 /proc/1/mountinfo | sort; echo descriptors; ls /proc/1/fd | wc -l; \
         echo processes; for p in /proc/[0-9]*; do readlink $p/exe 2>/dev/null; done | sort | uniq -c; \
         echo groups; find /sys/fs/cgroup -mindepth 1 -type d | sort; \
         echo entries; ls -A /run/kata-containers /run/innerkeep /run/innerkeep/* | sort",
    )
}

#[track_caller]
fn assert_settles(guest: &Guest, expected: &str, after: &str) {
    let until = Instant::now() + SETTLE;
    loop {
        let found = state(guest);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "after {after}:\n{found}\nexpected:\n{expected}\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Reads a stream until it has this in it, or ends.
fn read_until(client: &AgentClient, container: &str, exec: &str, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let data = client.read_stdout(&read(container, exec, 4096)).unwrap().data;
        if data.is_empty() {
            break;
        }
        all.push_str(&String::from_utf8_lossy(&data));
    }
    all
}

fn status(guest: &Guest, client: &AgentClient, container: &str, exec: &str) -> i32 {
    ok(guest, client.wait_process(&wait(container, exec))).status
}

/// A container that runs until it is told to end: its answer to SIGTERM is 7.
const PATIENT: &str = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";

fn run(guest: &Guest, client: &AgentClient, container: &str, script: &str) {
    let root = rootfs(guest, container);
    ok(guest, client.create_container(&create(container, &root, &["sh", "-c", script])));
    ok(guest, client.start_container(&start(container)));
}

fn end(guest: &Guest, client: &AgentClient, container: &str) {
    ok(guest, client.remove_container(&remove(container)));
    shell(guest, &format!("rm -rf /run/kata-containers/shared/containers/{container}"));
}

// COMPAT: CreateContainer, StartContainer, SignalProcess, RemoveContainer, DestroySandbox same
// COMPAT: ExecProcess stricter: only in a running container
// COMPAT: ExecProcess same: starts at once, with a terminal or pipes; `exec_id 'X' already exists`; HOME of the container's passwd
// COMPAT: WaitProcess better: the status stays until the container is removed
#[test]
fn a_container_lives_and_leaves_nothing() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let mut guest = serving(spec(&programs, &work, ALLOW_ALL));
    let client = AgentClient::connect(&guest);
    client.assert_healthy();
    ok(&guest, client.create_sandbox(&sandbox("pod1")));

    // What is made once is made now.
    run(&guest, &client, "warm", "exit 3");
    assert_eq!(status(&guest, &client, "warm", ""), 3);
    end(&guest, &client, "warm");
    shell(&guest, "mkdir -p /run/kata-containers/shared/containers");
    let before = state(&guest);

    // Created: there, in its group, and its program has not run.
    let root = rootfs(&guest, "c1");
    let script = "touch /ran; echo out; echo err >&2; read line; echo got $line; trap 'exit 7' TERM; \
                  while :; do sleep 0.05; done";
    ok(&guest, client.create_container(&create("c1", &root, &["sh", "-c", script])));
    let first = shell(&guest, &format!("cat {PODS}/c1/cgroup.procs"));
    assert_eq!(first.lines().count(), 1, "{first}");
    shell(&guest, "test ! -e /run/kata-containers/shared/containers/c1/rootfs/ran");
    let root_mounts = "grep -c ' /run/kata-containers/c1/rootfs ' /proc/1/mountinfo";
    assert_eq!(shell(&guest, root_mounts).trim(), "1");
    refused(client.exec_process(&exec("c1", "early", &["true"])), "FAILED_PRECONDITION", "CONTAINER_STATE");

    // Started: the same process, with its streams.
    ok(&guest, client.start_container(&start("c1")));
    refused(client.start_container(&start("c1")), "FAILED_PRECONDITION", "CONTAINER_STATE");
    assert_eq!(read_until(&client, "c1", "", "out\n"), "out\n");
    assert_eq!(ok(&guest, client.read_stderr(&read("c1", "c1", 4096))).data, b"err\n");
    ok(&guest, client.write_stdin(&write("c1", "", b"hello\n")));
    assert_eq!(read_until(&client, "c1", "", "hello\n"), "got hello\n");
    assert!(shell(&guest, &format!("cat {PODS}/c1/cgroup.procs")).contains(first.trim()));
    let seen = shell(&guest, &format!("cat /proc/{}/status", first.trim()));
    for line in ["NoNewPrivs:\t1", "CapEff:\t00000000a80425fb", "Seccomp:\t0"] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    let pid = first.trim();
    let namespaces = |kind: &str| {
        shell(&guest, &format!("for p in 1 {pid}; do readlink /proc/$p/ns/{kind}; done | uniq | wc -l"))
    };
    for (kind, different) in
        [("mnt", "2"), ("pid", "2"), ("uts", "2"), ("ipc", "2"), ("cgroup", "2"), ("net", "1")]
    {
        assert_eq!(namespaces(kind).trim(), different, "{kind}");
    }

    // Another process, with a terminal.
    let mut request = exec("c1", "term", &["sh"]);
    request.process.as_mut().unwrap().Terminal = true;
    ok(&guest, client.exec_process(&request));
    refused(client.exec_process(&request), "INTERNAL", "exec_id 'term' already exists");
    let size = TtyWinResizeRequest {
        container_id: "c1".to_owned(),
        exec_id: "term".to_owned(),
        row: 41,
        column: 101,
        ..TtyWinResizeRequest::default()
    };
    ok(&guest, client.tty_win_resize(&size));
    ok(&guest, client.write_stdin(&write("c1", "term", b"stty size; tty; echo $HOME $((40 + 2)); exit 5\n")));
    let said = read_until(&client, "c1", "term", "/root 42");
    assert!(said.contains("41 101") && said.contains("/dev/pts/"), "{said:?}");
    assert_eq!(status(&guest, &client, "c1", "term"), 5);
    // Nobody needs the id any more.
    ok(&guest, client.exec_process(&exec("c1", "term", &["sh", "-c", "exit 6"])));
    assert_eq!(status(&guest, &client, "c1", "term"), 6);
    refused(client.exec_process(&exec("c1", "gone", &["no-such-program"])), "INTERNAL", "ENGINE_");
    refused(client.wait_process(&wait("c1", "gone")), "NOT_FOUND", "InvalidExecId");
    refused(client.wait_process(&wait("none", "")), "INVALID_ARGUMENT", "InvalidContainerId");
    refused(client.start_container(&start("none")), "INTERNAL", "Invalid container id");
    // As another user, by numbers.
    let mut request = exec("c1", "user", &["sh", "-c", "id -u; id -g"]);
    let process = request.process.as_mut().unwrap();
    (process.User.as_mut().unwrap().UID, process.User.as_mut().unwrap().GID) = (1000, 1000);
    request.string_user = Some(StringUser { uid: "7".to_owned(), ..StringUser::default() }).into();
    ok(&guest, client.exec_process(&request));
    assert_eq!(read_until(&client, "c1", "user", "1000\n1000\n"), "1000\n1000\n");
    assert_eq!(status(&guest, &client, "c1", "user"), 0);

    // Signals, and two who wait.
    let both = [(); 2].map(|()| {
        client.spawn(|service| async move {
            service.wait_process(ttrpc::context::Context::default(), &wait("c1", "")).await
        })
    });
    ok(&guest, client.signal_process(&signal("c1", "", 0)));
    assert!(both.iter().all(|pending| !pending.is_answered()));
    ok(&guest, client.signal_process(&signal("c1", "", 15)));
    for pending in both {
        assert_eq!(ok(&guest, client.join(pending)).status, 7);
    }
    // It is told as long as the container is there, and a signal that comes too late is none.
    assert_eq!(status(&guest, &client, "c1", "c1"), 7);
    ok(&guest, client.signal_process(&signal("c1", "", 15)));
    ok(&guest, client.signal_process(&signal("c1", "", 9)));
    assert!(ok(&guest, client.read_stdout(&read("c1", "", 4096))).data.is_empty());
    end(&guest, &client, "c1");
    refused(client.wait_process(&wait("c1", "")), "INVALID_ARGUMENT", "InvalidContainerId");
    refused(client.remove_container(&remove("c1")), "INTERNAL", "Invalid container id");
    assert_settles(&guest, &before, "the life of a container");

    // A first process that does not handle SIGTERM is killed by it; SIGKILL without an exec id kills everybody.
    run(&guest, &client, "c2", "while :; do sleep 0.05; done");
    ok(&guest, client.signal_process(&signal("c2", "", 15)));
    assert_eq!(status(&guest, &client, "c2", ""), 137);
    end(&guest, &client, "c2");
    run(&guest, &client, "c3", "(setsid sleep 600 &) ; echo ready; while :; do sleep 0.05; done");
    read_until(&client, "c3", "", "ready\n");
    ok(&guest, client.signal_process(&signal("c3", "", 9)));
    assert_eq!(status(&guest, &client, "c3", ""), 137);
    assert_eq!(shell(&guest, &format!("cat {PODS}/c3/cgroup.procs")), "");
    end(&guest, &client, "c3");
    // One that runs is removed as it is.
    run(&guest, &client, "c4", PATIENT);
    read_until(&client, "c4", "", "ready\n");
    end(&guest, &client, "c4");
    assert_settles(&guest, &before, "signals");

    for round in 0..20 {
        let name = format!("loop{round}");
        run(&guest, &client, &name, "read line; exit 9");
        ok(&guest, client.exec_process(&exec(&name, "e1", &["sh", "-c", "exit 2"])));
        assert_eq!(status(&guest, &client, &name, "e1"), 2);
        ok(&guest, client.write_stdin(&write(&name, "", b"go\n")));
        assert_eq!(status(&guest, &client, &name, ""), 9);
        end(&guest, &client, &name);
    }
    assert_settles(&guest, &before, "twenty containers");

    // The end of the sandbox is that of its containers, and of the machine.
    run(&guest, &client, "last", PATIENT);
    read_until(&client, "last", "", "ready\n");
    let _ = client.destroy_sandbox(&protocol::agent::DestroySandboxRequest::default());
    assert_eq!(guest.wait_end(Duration::from_secs(60)).unwrap(), End::PoweredOff, "{}", guest.serial());
}

// COMPAT: CreateContainer stricter: everything is taken back when a step fails or the caller's time is over
// COMPAT: RemoveContainer same: code and text where there is no such container
#[test]
fn containers_that_fail_and_hosts_that_are_evil() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let guest = serving(spec(&programs, &work, ALLOW_ALL));
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    let root = rootfs(&guest, "shared1");
    run(&guest, &client, "warm", "exit 0");
    assert_eq!(status(&guest, &client, "warm", ""), 0);
    end(&guest, &client, "warm");
    let before = state(&guest);

    failures(&guest, &client, &root, &before);
    evil_host_id_collision(&guest, &client, &root);
    assert_settles(&guest, &before, "collisions of ids");
    evil_host_deadline_mid_create(&guest, &root, &before);
    evil_host_environment_injection(&guest, &client, &root);
    assert_settles(&guest, &before, "variables of the host");
    evil_host_swaps_a_source_under_the_mount(&guest, &client, &root);
    evil_image_links_a_mount_onto_proc(&guest, &client, &root);
    assert_settles(&guest, &before, "sources that were swapped");
    shared_process_ids(&guest, &client, &root);
    assert_settles(&guest, &before, "shared process ids");
    guest.power_off().unwrap();
}

/// Each step's failure leaves nothing.
fn failures(guest: &Guest, client: &AgentClient, root: &str, before: &str) {
    let missing = create("f1", "/run/kata-containers/shared/containers/none/rootfs", &["true"]);
    refused(client.create_container(&missing), "INTERNAL", "CONTAINER_ROOT");
    refused(client.create_container(&create("f1", "/", &["true"])), "INTERNAL", "CONTAINER_ROOT");
    let mut request = create("f1", root, &["true"]);
    request.OCI.as_mut().unwrap().Linux.as_mut().unwrap().Namespaces.clear();
    refused(client.create_container(&request), "INTERNAL", "SPEC_");
    let mut request = create("f1", root, &["true"]);
    request.storages.push(protocol::agent::Storage { driver: "floppy".to_owned(), ..Default::default() });
    refused(client.create_container(&request), "INTERNAL", "Failed to find the storage handler floppy");
    let mut request = create("f1", root, &["true"]);
    request.OCI.as_mut().unwrap().Mounts.push(protocol::oci::Mount {
        destination: "/data".to_owned(),
        source: "none".to_owned(),
        type_: "no-such-filesystem".to_owned(),
        ..Default::default()
    });
    assert!(client.create_container(&request).is_err());
    let mut request = create("f1", root, &["true"]);
    request.OCI = None.into();
    refused(client.create_container(&request), "INTERNAL", "EINVAL");
    let mut request = create("f1", root, &["true"]);
    request.OCI.as_mut().unwrap().Process.as_mut().unwrap().Env.push("KEY=sealed.x.y".to_owned());
    refused(client.create_container(&request), "INTERNAL", "CDH_ABSENT");
    assert_settles(guest, before, "containers that were not made");

    // The program is not there: the container is, until it is removed.
    let request = create("f1", root, &["/no-such-program"]);
    let made = client.create_container(&request);
    let started = made.and_then(|_| client.start_container(&start("f1")));
    refused(started, "INTERNAL", "ENGINE_");
    let _ = client.remove_container(&remove("f1"));
    refused(client.start_container(&start("f1")), "INTERNAL", "Invalid container id");
    assert_settles(guest, before, "a program that is not there");
}

fn evil_host_id_collision(guest: &Guest, client: &AgentClient, root: &str) {
    run(guest, client, "taken", PATIENT);
    read_until(client, "taken", "", "ready\n");
    let processes = format!("head -n1 {PODS}/taken/cgroup.procs");
    let running = shell(guest, &processes);
    refused(client.create_container(&create("taken", root, &["sh"])), "INTERNAL", "CONTAINER_ID_TAKEN");
    // Another id in the same group of processes.
    let mut request = create("other", root, &["sh"]);
    request.OCI.as_mut().unwrap().Linux.as_mut().unwrap().CgroupsPath =
        "/kubepods/besteffort/pod1/taken".to_owned();
    assert!(client.create_container(&request).is_err());
    let listing = "ls /run/kata-containers /run/kata-containers/shared | sort";
    let before = shell(guest, listing);
    for name in ["shared", "sandbox", "image"] {
        refused(client.create_container(&create(name, root, &["sh"])), "INTERNAL", "CONTAINER_ID_RESERVED");
        refused(client.remove_container(&remove(name)), "INTERNAL", "Invalid container id");
    }
    for name in ["../x", "x", "a/b", ""] {
        refused(client.create_container(&create(name, root, &["sh"])), "INVALID_ARGUMENT", "REQUEST_ID");
    }
    shell(guest, "mkdir /run/kata-containers/occupied && touch /run/kata-containers/occupied/file");
    let request = create("occupied", root, &["sh"]);
    refused(client.create_container(&request), "INTERNAL", "CONTAINER_DIRECTORY_TAKEN");
    shell(guest, "rm /run/kata-containers/occupied/file && rmdir /run/kata-containers/occupied");
    assert_eq!(shell(guest, listing), before);
    assert_eq!(shell(guest, &processes), running, "the first one goes on");
    end(guest, client, "taken");
}

/// Nobody waits for the answer any more, whichever step is under way: nothing is left, and the id is free.
fn evil_host_deadline_mid_create(guest: &Guest, root: &str, before: &str) {
    let patient = AgentClient::connect(guest);
    let with_two = state(guest);
    let mut late = 0;
    for milliseconds in [1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130] {
        let hasty = AgentClient::connect(guest).limit(Duration::from_millis(milliseconds));
        let answer = hasty.create_container(&create("late", root, &["sh", "-c", "touch /ran"]));
        drop(hasty);
        if let Err(refused) = answer {
            late += 1;
            assert!(refused.code == "DEADLINE_EXCEEDED" || refused.code == "CONNECTION", "{refused}");
        } else {
            ok(guest, patient.remove_container(&remove("late")));
        }
        // The agent itself may have been in time: then the container is there as a whole.
        let until = Instant::now() + SETTLE;
        while state(guest) != with_two && Instant::now() < until {
            if patient.remove_container(&remove("late")).is_err() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        assert_settles(guest, &with_two, "a deadline");
    }
    assert!(late > 0, "no deadline was short enough");
    shell(guest, &format!("test ! -e {root}/ran"));
    ok(guest, patient.create_container(&create("late", root, &["true"])));
    ok(guest, patient.remove_container(&remove("late")));
    drop(patient);
    assert_settles(guest, before, "deadlines");
}

/// Variables of a container are the container's: no process of the agent has them, nor does its loader see them.
fn evil_host_environment_injection(guest: &Guest, client: &AgentClient, root: &str) {
    let evil = [
        "LD_PRELOAD=/evil-marker.so",
        "LD_AUDIT=/evil-marker.so",
        "GLIBC_TUNABLES=glibc.evil-marker=1",
        "RUST_LOG=evil-marker",
        "TOKIO_WORKER_THREADS=99",
        "YOUKI_MODE=evil-marker",
        "_LIBCONTAINER_INITPIPE=3",
    ];
    let sampler = "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do \
                   if grep -q evil-marker $p/environ 2>/dev/null; then readlink $p/exe; fi; done; done | sort -u";
    let sampling = guest.spawn(&["/bin/sh", "-c", sampler]).unwrap();
    for round in 0..5 {
        let name = format!("env{round}");
        let mut request = create(&name, root, &["sh", "-c", "echo $LD_PRELOAD; read x"]);
        let process = request.OCI.as_mut().unwrap().Process.as_mut().unwrap();
        process.Env.extend(evil.map(str::to_owned));
        ok(guest, client.create_container(&request));
        ok(guest, client.start_container(&start(&name)));
        assert_eq!(read_until(client, &name, "", "so\n"), "/evil-marker.so\n");
        let mut request = exec(&name, "e1", &["sh", "-c", "echo $LD_PRELOAD; read x"]);
        request.process.as_mut().unwrap().Env.extend(evil.map(str::to_owned));
        ok(guest, client.exec_process(&request));
        assert_eq!(read_until(client, &name, "e1", "so\n"), "/evil-marker.so\n");
        ok(guest, client.remove_container(&remove(&name)));
    }
    shell(guest, "touch /tmp/stop");
    let said = sampling.wait(Duration::from_secs(60)).unwrap();
    // The container's own program, and nobody else.
    assert!(!said.stdout.contains("innerkeep"), "{said:?}");
    assert_eq!(shell(guest, "wc -c < /proc/1/environ").trim(), "0");
    assert_eq!(shell(guest, "grep -c evil /proc/1/maps || true").trim(), "0");
}

/// CVE-2025-52881 and those before it: the image's own links lead mounts and writes to the kernel's files.
fn evil_image_links_a_mount_onto_proc(guest: &Guest, client: &AgentClient, root: &str) {
    let switches = "cat /proc/sys/kernel/core_pattern /proc/sys/kernel/sysrq /proc/sys/kernel/hostname /proc/sys/kernel/shm_rmid_forced";
    let before = shell(guest, switches);
    for target in ["/proc/self/attr", "/proc/sys/kernel", "/proc/sysrq-trigger", "/proc"] {
        shell(guest, &format!("rm -rf {root}/data && ln -s {target} {root}/data"));
        let mut request = create("proc1", root, &["sh", "-c", "echo evil > /tmp/ran"]);
        let spec = request.OCI.as_mut().unwrap();
        spec.Mounts.push(protocol::oci::Mount {
            destination: "/data".to_owned(),
            source: "tmpfs".to_owned(),
            type_: "tmpfs".to_owned(),
            ..Default::default()
        });
        // What the engine writes for the container has to reach the container's own switch.
        spec.Linux.as_mut().unwrap().Sysctl.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
        let answer = client.create_container(&request);
        assert!(answer.is_err(), "{target}: made");
        assert_eq!(shell(guest, switches), before, "{target}");
    }
    // Where the kernel's files are somewhere else by the image's word, what is hidden is hidden there.
    shell(
        guest,
        &format!(
            "rm -rf {root}/data {root}/proc && mkdir -p {root}/elsewhere && ln -s /elsewhere {root}/proc"
        ),
    );
    let line = "wc -c < /proc/kcore; echo evil > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; echo ran";
    let request = create("proc2", root, &["sh", "-c", line]);
    if client.create_container(&request).is_ok() {
        if client.start_container(&start("proc2")).is_ok() {
            let said = read_until(client, "proc2", "", "ran\n");
            assert!(said.starts_with("0\n"), "{said}");
        }
        ok(guest, client.remove_container(&remove("proc2")));
    }
    assert_eq!(shell(guest, switches), before);
    shell(
        guest,
        &format!("rm {root}/proc && rmdir {root}/elsewhere && mkdir {root}/proc && test ! -e {root}/tmp/ran"),
    );
}

/// The host's directory is what was permitted when it is looked at, and a link to the guest's own files when it is mounted: what came of it is looked
/// at before the program runs.
fn evil_host_swaps_a_source_under_the_mount(guest: &Guest, client: &AgentClient, root: &str) {
    let shared = "/run/kata-containers/shared/containers/swap";
    shell(
        guest,
        &format!(
            "mkdir -p {shared}/data {shared}/none && echo shared > {shared}/data/file && echo guest > /etc/file"
        ),
    );
    let request = |name: &str| {
        let mut request = create(name, root, &["sh", "-c", "cat /mnt/file > /tmp/seen"]);
        request.OCI.as_mut().unwrap().Mounts.push(protocol::oci::Mount {
            destination: "/mnt".to_owned(),
            source: format!("{shared}/data"),
            type_: "bind".to_owned(),
            options: vec!["bind".to_owned()],
            ..Default::default()
        });
        request
    };
    // A host that is as it should be.
    ok(guest, client.create_container(&request("honest")));
    let seen = |name: &str| {
        shell(guest, &format!("cd /proc/$(head -n1 {PODS}/{name}/cgroup.procs)/root && cat mnt/file"))
    };
    assert_eq!(seen("honest").trim(), "shared");
    ok(guest, client.remove_container(&remove("honest")));
    // Without a race: it is a link already when it is looked at.
    shell(guest, &format!("mv {shared}/data {shared}/kept && ln -s /etc {shared}/data"));
    refused(client.create_container(&request("linked")), "INTERNAL", "SPEC_FLOOR");
    shell(guest, &format!("rm {shared}/data && mv {shared}/kept {shared}/data"));
    // As soon as somebody is there to mount it. Whether this comes between the look and the mount is chance, so there are more attempts than one.
    let swapper = format!(
        "cd {shared}; while [ ! -e /tmp/stop-swapping ]; do \
         mv data kept; ln -s /etc data; sleep 0.02; rm data; mv kept data; sleep 0.02; done"
    );
    shell(guest, "rm -f /tmp/stop-swapping");
    let swapping = guest.spawn(&["/bin/sh", "-c", &swapper]).unwrap();
    let mut caught = 0;
    for attempt in 0..60 {
        let name = format!("swap{attempt}");
        match client.create_container(&request(&name)) {
            Ok(_) => {
                assert_ne!(seen(&name).trim(), "guest", "the container sees the guest's own files");
                ok(guest, client.remove_container(&remove(&name)));
            }
            Err(refused) => {
                assert_eq!(refused.code, "INTERNAL", "{refused}");
                caught += usize::from(refused.says("SPEC_FLOOR: mounts of the container"));
            }
        }
        if caught > 1 {
            break;
        }
    }
    shell(guest, "touch /tmp/stop-swapping");
    swapping.wait(Duration::from_secs(60)).unwrap();
    assert!(caught > 0, "no swap came between the look and the mount");
    shell(guest, &format!("test ! -e {root}/tmp/seen; rm -rf {shared} /etc/file"));
}

/// Who asks for it has the process ids of the sandbox's first container; nobody has the agent's.
fn shared_process_ids(guest: &Guest, client: &AgentClient, root: &str) {
    let namespace = |container: &str| {
        let line = format!("readlink /proc/$(head -n1 {PODS}/{container}/cgroup.procs)/ns/pid");
        shell(guest, &line)
    };
    // `warm` was the sandbox's first container, and is gone.
    let mut request = create("p1", root, &["sh", "-c", PATIENT]);
    request.sandbox_pidns = true;
    refused(client.create_container(&request), "INTERNAL", "Sandbox does not have sandbox_pidns");
    ok(guest, client.create_container(&create("p1", root, &["sh", "-c", PATIENT])));
    assert_ne!(namespace("p1"), shell(guest, "readlink /proc/1/ns/pid"));
    ok(guest, client.remove_container(&remove("p1")));
}

/// Exec is denied, streams are denied, and the policy may not be replaced.
const NO_EXEC: &str = "default ExecProcessRequest := false\ndefault SetPolicyRequest := false\n\
                       default ReadStreamRequest := false\n";

fn without_exec() -> String {
    let denied = ["ExecProcessRequest", "SetPolicyRequest", "ReadStreamRequest"];
    let kept =
        ALLOW_ALL.lines().filter(|line| !denied.iter().any(|name| line.contains(&format!(" {name} "))));
    let kept = kept.collect::<Vec<_>>().join("\n");
    let ours = "default CreateContainerRequest := false\n\
                CreateContainerRequest if { input.container_id in {\"c1\", \"c2\"} }\n";
    let kept = kept.replace("default CreateContainerRequest := true", ours);
    format!("{kept}\n{NO_EXEC}")
}

// COMPAT: ExecProcess, StartContainer, CreateContainer stricter: what policy denies is not reached by another method
/// The policy denies ExecProcess: no other way leads to a process in the container, and nobody has to read what it writes.
#[test]
fn evil_host_exec_by_another_endpoint() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let guest = serving(spec(&programs, &work, &without_exec()));
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    run(&guest, &client, "c1", PATIENT);
    let processes =
        format!("cat /sys/fs/cgroup/kubepods/besteffort/pod1/c1/cgroup.procs | head -n1; ls {PODS}");
    let before = shell(&guest, &processes);
    let mark = "touch /tmp/evil";
    let request = exec("c1", "e1", &["sh", "-c", mark]);
    refused(client.exec_process(&request), "PERMISSION_DENIED", "ExecProcessRequest is blocked by policy");
    // The id of the first process, a second start, a container inside of it.
    refused(client.exec_process(&exec("c1", "c1", &["sh"])), "PERMISSION_DENIED", "is blocked by policy");
    refused(client.start_container(&start("c1")), "FAILED_PRECONDITION", "CONTAINER_STATE");
    let root = "/run/kata-containers/shared/containers/c1/rootfs";
    refused(
        client.create_container(&create("c9", root, &["sh", "-c", mark])),
        "PERMISSION_DENIED",
        "blocked by policy",
    );
    let pid = before.lines().next().unwrap().to_owned();
    let mut request = create("c2", root, &["sh", "-c", mark]);
    let linux = request.OCI.as_mut().unwrap().Linux.as_mut().unwrap();
    linux.CgroupsPath = "/kubepods/besteffort/pod1/c1/inner".to_owned();
    for namespace in &mut linux.Namespaces {
        let file = if namespace.Type == "mount" { "mnt" } else { namespace.Type.as_str() };
        namespace.Path = format!("/proc/{pid}/ns/{file}");
    }
    assert!(client.create_container(&request).is_err());
    let policy = protocol::agent::SetPolicyRequest { policy: ALLOW_ALL.to_owned(), ..Default::default() };
    refused(client.set_policy(&policy), "PERMISSION_DENIED", "SetPolicyRequest is blocked by policy");
    refused(client.exec_process(&exec("c1", "e2", &["sh"])), "PERMISSION_DENIED", "is blocked by policy");
    refused(client.wait_process(&wait("c1", "e1")), "NOT_FOUND", "InvalidExecId");
    assert_eq!(shell(&guest, &processes), before);
    shell(&guest, &format!("test ! -e {root}/tmp/evil"));

    // What nobody may read nobody has to: more than a pipe holds is written, and the program goes on. It has the process ids of the
    // sandbox's first container, as it asked for.
    let root = rootfs(&guest, "c2");
    let script = "dd if=/dev/zero bs=65536 count=64 2>/dev/null; echo x >&2; exit 4";
    let mut request = create("c2", &root, &["sh", "-c", script]);
    request.sandbox_pidns = true;
    ok(&guest, client.create_container(&request));
    let namespace = |container: &str| {
        shell(&guest, &format!("readlink /proc/$(head -n1 {PODS}/{container}/cgroup.procs)/ns/pid"))
    };
    assert_eq!(namespace("c2"), namespace("c1"));
    assert_ne!(namespace("c2"), shell(&guest, "readlink /proc/1/ns/pid"));
    ok(&guest, client.start_container(&start("c2")));
    assert_eq!(status(&guest, &client, "c2", ""), 4);
    assert!(ok(&guest, client.read_stdout(&read("c2", "", 4096))).data.is_empty());
    end(&guest, &client, "c2");
    assert!(ok(&guest, client.read_stdout(&read("c1", "", 4096))).data.is_empty());
    ok(&guest, client.signal_process(&signal("c1", "", 15)));
    assert_eq!(status(&guest, &client, "c1", ""), 7);
    end(&guest, &client, "c1");
    guest.power_off().unwrap();
}
