//! Streams, limits, figures and events of containers, as a runtime uses them over vsock, held against what the guest's kernel shows.

#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use protocol::agent::{
    CgroupStats, CloseStdinRequest, CopyFileRequest, ExecProcessRequest, GetMetricsRequest,
    GetOOMEventRequest, PauseContainerRequest, ResumeContainerRequest, StatsContainerRequest,
    TtyWinResizeRequest, UpdateContainerRequest,
};
use protocol::oci::{LinuxHugepageLimit, LinuxResources};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tests::agent_client::checks::{ok, refused};
use tests::agent_client::requests::{
    SHARED, create, exec, read, remove, rootfs, sandbox, signal, start, wait, write,
};
use tests::agent_client::{ALLOW_ALL, AgentClient, Pending, serving, spec};
use tests::programs::{Programs, User};
use tests::vm::shell;
use tests::work::Work;
use ttrpc::context::with_duration;
use xtask::vm::Guest;

/// Where the control groups of these containers are.
const PODS: &str = "/sys/fs/cgroup/kubepods/besteffort/pod1";
const PASSFD: u32 = 1027;
/// What stays until it is told to end.
const PATIENT: &str = "echo ready; exec sleep 100000";
const LONG: Duration = Duration::from_secs(120);

fn make(guest: &Guest, client: &AgentClient, container: &str, script: &str) {
    let root = rootfs(guest, container);
    ok(guest, client.create_container(&create(container, &root, &["sh", "-c", script])));
}

fn run(guest: &Guest, client: &AgentClient, container: &str, script: &str) {
    make(guest, client, container, script);
    ok(guest, client.start_container(&start(container)));
}

/// A file of a control group, as the witness sees it.
fn group(guest: &Guest, container: &str, file: &str) -> String {
    shell(guest, &format!("cat {PODS}/{container}/{file}")).trim().to_owned()
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

fn close(container: &str, exec: &str) -> CloseStdinRequest {
    CloseStdinRequest { container_id: container.to_owned(), exec_id: exec.to_owned(), ..Default::default() }
}

fn resize(container: &str, exec: &str, row: u32, column: u32) -> TtyWinResizeRequest {
    let (container_id, exec_id) = (container.to_owned(), exec.to_owned());
    TtyWinResizeRequest { container_id, exec_id, row, column, ..Default::default() }
}

fn update(container: &str, change: impl FnOnce(&mut LinuxResources)) -> UpdateContainerRequest {
    let mut resources = LinuxResources::new();
    change(&mut resources);
    let container_id = container.to_owned();
    UpdateContainerRequest { container_id, resources: Some(resources).into(), ..Default::default() }
}

fn stats(guest: &Guest, client: &AgentClient, container: &str) -> CgroupStats {
    let request = StatsContainerRequest { container_id: container.to_owned(), ..Default::default() };
    let answer = ok(guest, client.stats_container(&request));
    assert!(answer.network_stats.is_empty());
    answer.cgroup_stats.into_option().unwrap()
}

fn pause(container: &str) -> PauseContainerRequest {
    PauseContainerRequest { container_id: container.to_owned(), ..Default::default() }
}

fn resume(container: &str) -> ResumeContainerRequest {
    ResumeContainerRequest { container_id: container.to_owned(), ..Default::default() }
}

/// A connection of the host, and the port that the guest sees it come from.
fn passfd(guest: &Guest) -> (UnixStream, u32) {
    let (stream, port) = guest.vsock_from(PASSFD).unwrap();
    assert_ne!(port, 0, "which would be no port");
    stream.set_read_timeout(Some(LONG)).unwrap();
    (stream, port)
}

fn with_terminal(mut request: ExecProcessRequest) -> ExecProcessRequest {
    request.process.mut_or_insert_default().Terminal = true;
    request
}

fn pipes(guest: &Guest, client: &AgentClient) {
    run(guest, client, "pipes", "cat; echo done >&2; exit 5");
    let line = vec![b'x'; 70_000];
    // More than a pipe holds: written and read at the same time.
    let sent = write("pipes", "", &line);
    let writing =
        client.spawn(|service| async move { service.write_stdin(with_duration(LONG), &sent).await });
    let mut found = Vec::new();
    while found.len() < line.len() {
        let data = ok(guest, client.read_stdout(&read("pipes", "", u32::MAX))).data;
        assert!(!data.is_empty() && data.len() <= 1 << 20);
        found.extend(data);
    }
    assert_eq!(found, line);
    assert_eq!(ok(guest, client.join(writing)).len, 70_000);
    // Without bytes it is the end, as runtime-rs says it.
    assert_eq!(ok(guest, client.write_stdin(&write("pipes", "", b""))).len, 0);
    assert_eq!(ok(guest, client.wait_process(&wait("pipes", ""))).status, 5);
    assert_eq!(ok(guest, client.read_stderr(&read("pipes", "", 100))).data, b"done\n");
    assert!(ok(guest, client.read_stdout(&read("pipes", "", 100))).data.is_empty());
    refused(client.write_stdin(&write("pipes", "", b"x")), "INTERNAL", "Cannot get writer");
    ok(guest, client.close_stdin(&close("pipes", "")));
    refused(client.tty_win_resize(&resize("pipes", "", 1, 1)), "UNAVAILABLE", "\"no tty\"");
    // Nobody of that name.
    refused(client.read_stdout(&read("nobody", "", 1)), "INVALID_ARGUMENT", "InvalidContainerId");
    refused(client.read_stderr(&read("pipes", "nobody", 1)), "NOT_FOUND", "InvalidExecId");
    refused(client.write_stdin(&write("pipes", "nobody", b"x")), "INTERNAL", "InvalidExecId");
    refused(client.close_stdin(&close("nobody", "")), "INVALID_ARGUMENT", "InvalidContainerId");
    refused(client.tty_win_resize(&resize("pipes", "nobody", 1, 1)), "NOT_FOUND", "InvalidExecId");
    ok(guest, client.remove_container(&remove("pipes")));
}

fn terminal(guest: &Guest, client: &AgentClient) {
    ok(guest, client.exec_process(&with_terminal(exec("patient", "tty", &["sh"]))));
    ok(guest, client.tty_win_resize(&resize("patient", "tty", 33, 111)));
    ok(guest, client.write_stdin(&write("patient", "tty", b"stty size\n")));
    assert!(read_until(client, "patient", "tty", "33 111").contains("33 111"));
    ok(guest, client.tty_win_resize(&resize("patient", "tty", 50, 20)));
    ok(guest, client.write_stdin(&write("patient", "tty", b"stty size\n")));
    assert!(read_until(client, "patient", "tty", "50 20").contains("50 20"));
    refused(
        client.tty_win_resize(&resize("patient", "tty", 70_000, 1)),
        "INVALID_ARGUMENT",
        "REQUEST_TERMINAL",
    );
    // Closing its input closes the terminal: the shell is hung up.
    ok(guest, client.close_stdin(&close("patient", "tty")));
    assert_eq!(ok(guest, client.wait_process(&wait("patient", "tty"))).status, 128 + 1);
    assert!(ok(guest, client.read_stdout(&read("patient", "tty", 100))).data.is_empty());
}

/// Requests and answers that are longer than what one packet, one pipe and the credit of a connection hold.
fn large(guest: &Guest, client: &AgentClient) {
    for (name, pieces, piece) in [("in-pieces", 3, 1 << 20), ("at-once", 1, (4 << 20) - 4096)] {
        let mut digest = Sha256::new();
        for index in 0_i64..pieces {
            let data: Vec<u8> = (0..piece / 4)
                .flat_map(|word: i64| (word * (index + 3)).to_le_bytes())
                .take(usize::try_from(piece).unwrap())
                .collect();
            digest.update(&data);
            let request = CopyFileRequest {
                path: format!("{SHARED}/{name}"),
                file_size: pieces * piece,
                file_mode: 0o10_0600,
                dir_mode: 0o4_0700,
                offset: index * piece,
                data,
                ..Default::default()
            };
            ok(guest, client.copy_file(&request));
        }
        let found = shell(guest, &format!("sha256sum {SHARED}/{name}"));
        assert!(found.starts_with(&hex::encode(digest.finalize())), "{name}: {found}");
    }
    ok(
        guest,
        client.exec_process(&exec("patient", "large", &["sh", "-c", "wc -c; head -c 300000 /dev/zero"])),
    );
    let sent = write("patient", "large", &vec![b'z'; 512 << 10]);
    assert_eq!(ok(guest, client.write_stdin(&sent)).len, 512 << 10);
    ok(guest, client.close_stdin(&close("patient", "large")));
    let mut found = Vec::new();
    loop {
        let data = ok(guest, client.read_stdout(&read("patient", "large", u32::MAX))).data;
        if data.is_empty() {
            break;
        }
        found.extend(data);
    }
    assert_eq!(found.len(), "524288\n".len() + 300_000);
    assert!(found.starts_with(b"524288\n"));
    assert_eq!(ok(guest, client.wait_process(&wait("patient", "large"))).status, 0);
}

fn sockets(guest: &Guest, client: &AgentClient) {
    let ((stdin, stdin_port), (mut stdout, stdout_port), (mut stderr, stderr_port)) =
        (passfd(guest), passfd(guest), passfd(guest));
    let script = "cat; echo bad >&2; exit 6";
    let request = ExecProcessRequest {
        stdin_port,
        stdout_port,
        stderr_port,
        ..exec("patient", "passfd", &["sh", "-c", script])
    };
    ok(guest, client.exec_process(&request));
    // More than a pipe holds, and than what one packet does.
    let sent = vec![b'y'; 200_000];
    let (mut feed, bytes) = (stdin.try_clone().unwrap(), sent.clone());
    let feeding = std::thread::spawn(move || feed.write_all(&bytes).unwrap());
    let mut found = vec![0; sent.len()];
    stdout.read_exact(&mut found).unwrap();
    assert!(found == sent);
    feeding.join().unwrap();
    stdin.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stdout.read_to_end(&mut found).unwrap(), 0);
    let mut complaint = String::new();
    stderr.read_to_string(&mut complaint).unwrap();
    assert_eq!(complaint, "bad\n");
    refused(client.read_stdout(&read("patient", "passfd", 1)), "INTERNAL", "cannot get stream reader");
    refused(client.write_stdin(&write("patient", "passfd", b"x")), "INTERNAL", "Cannot get writer");
    assert_eq!(ok(guest, client.wait_process(&wait("patient", "passfd"))).status, 6);
    // A port that nobody connected from is a stream that is not there; the others are.
    let (mut stdout, stdout_port) = passfd(guest);
    let request = ExecProcessRequest {
        stdin_port: u32::MAX - 1,
        stdout_port,
        ..exec("patient", "partly", &["sh", "-c", "cat; echo x"])
    };
    ok(guest, client.exec_process(&request));
    let mut found = String::new();
    stdout.read_to_string(&mut found).unwrap();
    assert_eq!(found, "x\n");
    assert_eq!(ok(guest, client.wait_process(&wait("patient", "partly"))).status, 0);
}

fn limits(guest: &Guest, client: &AgentClient) {
    let wanted = update("patient", |resources| {
        let memory = resources.Memory.mut_or_insert_default();
        (memory.Limit, memory.Swap, memory.Reservation) = (64 << 20, 64 << 20, 16 << 20);
        let cpu = resources.CPU.mut_or_insert_default();
        (cpu.Shares, cpu.Quota, cpu.Period, cpu.Cpus) = (2048, 50_000, 100_000, "0".to_owned());
        resources.Pids.mut_or_insert_default().Limit = 77;
    });
    ok(guest, client.update_container(&wanted));
    let limits = |file: &str| group(guest, "patient", file);
    assert_eq!(limits("memory.max"), (64 << 20).to_string());
    assert_eq!(limits("memory.low"), (16 << 20).to_string());
    assert_eq!(limits("cpu.max"), "50000 100000");
    assert_eq!(limits("cpuset.cpus"), "0");
    assert_eq!(limits("pids.max"), "77");
    let weight: u32 = limits("cpu.weight").parse().unwrap();
    assert!((101..400).contains(&weight), "{weight}");
    // One that the kernel does not take: the others are as before.
    let bad = update("patient", |resources| {
        resources.Memory.mut_or_insert_default().Limit = 32 << 20;
        resources.Pids.mut_or_insert_default().Limit = 5;
        let cpu = resources.CPU.mut_or_insert_default();
        (cpu.Quota, cpu.Cpus) = (10_000, "4000".to_owned());
    });
    refused(client.update_container(&bad), "INTERNAL", "CGROUP_FILE");
    assert_eq!(limits("memory.max"), (64 << 20).to_string());
    assert_eq!(limits("pids.max"), "77");
    assert_eq!(limits("cpu.max"), "50000 100000");
    assert_eq!(limits("cpuset.cpus"), "0");
    let pages = update("patient", |resources| {
        let limit = LinuxHugepageLimit { Pagesize: "../x".to_owned(), Limit: 1, ..Default::default() };
        resources.HugepageLimits.push(limit);
    });
    assert!(client.update_container(&pages).is_err());
    // No limit, and nothing at all.
    ok(guest, client.update_container(&update("patient", |all| all.Pids.mut_or_insert_default().Limit = -1)));
    assert_eq!(limits("pids.max"), "max");
    let nothing = UpdateContainerRequest { container_id: "patient".to_owned(), ..Default::default() };
    ok(guest, client.update_container(&nothing));
    refused(
        client.update_container(&update("nobody", |_| {})),
        "INVALID_ARGUMENT",
        "\"invalid container id\"",
    );
}

fn standing_still(guest: &Guest, client: &AgentClient) {
    refused(client.resume_container(&resume("patient")), "INTERNAL", "not paused");
    ok(guest, client.pause_container(&pause("patient")));
    assert_eq!(group(guest, "patient", "cgroup.freeze"), "1");
    assert!(group(guest, "patient", "cgroup.events").contains("frozen 1"));
    refused(
        client.pause_container(&pause("patient")),
        "INTERNAL",
        "failed to pause container: current status is: paused",
    );
    // Nothing changes now: the figures are exactly those of the files.
    let found = stats(guest, client, "patient");
    let number = |file: &str| group(guest, "patient", file).parse::<u64>().unwrap();
    assert_eq!(found.memory_stats.usage.usage, number("memory.current"));
    assert_eq!(found.memory_stats.usage.limit, number("memory.max"));
    assert_eq!(found.pids_stats.current, number("pids.current"));
    assert_eq!(found.pids_stats.limit, 0);
    let keyed = |file: &str, key: &str| {
        let text = group(guest, "patient", file);
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        lines.next().unwrap_or_else(|| panic!("{key} in {text}")).parse::<u64>().unwrap()
    };
    let usage = &found.cpu_stats.cpu_usage;
    assert_eq!(usage.total_usage, keyed("cpu.stat", "usage_usec") * 1000);
    assert_eq!(usage.usage_in_usermode, keyed("cpu.stat", "user_usec") * 1000);
    assert_eq!(found.memory_stats.stats["anon"], keyed("memory.stat", "anon"));
    assert_eq!(found.memory_stats.cache, keyed("memory.stat", "file"));
    assert!(usage.total_usage > 0 && found.memory_stats.usage.usage > 0 && found.pids_stats.current >= 1);
    ok(guest, client.resume_container(&resume("patient")));
    assert_eq!(group(guest, "patient", "cgroup.freeze"), "0");
    assert!(group(guest, "patient", "cgroup.events").contains("frozen 0"));
    for answer in [client.pause_container(&pause("nobody")), client.resume_container(&resume("nobody"))] {
        refused(answer, "INVALID_ARGUMENT", "\"invalid container id\"");
    }
}

/// Ends by running out of memory.
fn run_out_of_memory(guest: &Guest, client: &AgentClient, container: &str) {
    let root = rootfs(guest, container);
    let mut request = create(container, &root, &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
    linux.Resources.mut_or_insert_default().Memory.mut_or_insert_default().Limit = 32 << 20;
    ok(guest, client.create_container(&request));
    ok(guest, client.start_container(&start(container)));
    assert_eq!(ok(guest, client.wait_process(&wait(container, ""))).status, 128 + 9, "{}", guest.serial());
    ok(guest, client.remove_container(&remove(container)));
}

fn out_of_memory(guest: &Guest, client: &AgentClient) {
    let ask = |client: &AgentClient| -> Pending<_> {
        client.spawn(|service| async move {
            service.get_oom_event(with_duration(LONG), &GetOOMEventRequest::new()).await
        })
    };
    let event = ask(client);
    // Of the sandbox's own container nobody is told.
    run_out_of_memory(guest, client, "pod1");
    run_out_of_memory(guest, client, "hungry");
    assert_eq!(ok(guest, client.join(event)).container_id, "hungry");
    // One event of it, and no more.
    let event = ask(client);
    run_out_of_memory(guest, client, "thirsty");
    assert_eq!(ok(guest, client.join(event)).container_id, "thirsty");
}

// COMPAT: ReadStdout, ReadStderr, WriteStdin, CloseStdin same: pipes and terminals; no data is the end
// COMPAT: TtyWinResize same: code and text where there is no terminal
// COMPAT: UpdateContainer better: all limits or none
// COMPAT: StatsContainer, PauseContainer, ResumeContainer, GetOOMEvent, GetMetrics same
#[test]
fn streams_limits_figures_and_events() {
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let spec = spec(&programs, &work, ALLOW_ALL).cmdline(&format!("agent.passfd_listener_port={PASSFD}"));
    let guest = serving(spec);
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    pipes(&guest, &client);
    run(&guest, &client, "patient", PATIENT);
    assert_eq!(read_until(&client, "patient", "", "ready\n"), "ready\n");
    terminal(&guest, &client);
    large(&guest, &client);
    sockets(&guest, &client);
    limits(&guest, &client);
    standing_still(&guest, &client);
    out_of_memory(&guest, &client);
    let metrics = ok(&guest, client.get_metrics(&GetMetricsRequest::new())).metrics;
    for name in [
        "kata_agent_scrape_count 1\n",
        "kata_agent_total_rss ",
        "kata_guest_meminfo{item=\"mem_total\"} ",
        "kata_guest_cpu_time{cpu=\"total\",item=\"idle\"} ",
        "kata_guest_diskstat{disk=\"vda\",item=\"reads\"} ",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
    ok(&guest, client.signal_process(&signal("patient", "", 9)));
    assert_eq!(ok(&guest, client.wait_process(&wait("patient", ""))).status, 128 + 9);
    refused(client.pause_container(&pause("patient")), "INTERNAL", "current status is: stopped");
    ok(&guest, client.remove_container(&remove("patient")));
    // Nothing of the groups is left; the agent's own, with its helpers' in it, is empty.
    assert_eq!(shell(&guest, "find /sys/fs/cgroup -mindepth 1 -type d").trim(), "/sys/fs/cgroup/innerkeep");
    guest.power_off().unwrap();
}

// COMPAT: ReadStdout, ReadStderr better: what policy keeps is thrown away as it comes, and holds nobody up
#[test]
fn evil_host_reads_what_policy_keeps() {
    let policy = ALLOW_ALL
        .replace("default ReadStreamRequest := true", "default ReadStreamRequest := false")
        .replace("default WriteStreamRequest := true", "default WriteStreamRequest := false");
    assert_ne!(policy, ALLOW_ALL);
    let (programs, work) = (Programs::built(), Work::create(User::Same));
    let spec = spec(&programs, &work, &policy).cmdline(&format!("agent.passfd_listener_port={PASSFD}"));
    let guest = serving(spec);
    let client = AgentClient::connect(&guest);
    ok(&guest, client.create_sandbox(&sandbox("pod1")));
    // A hundred times what a pipe holds, and nobody who reads: it ends all the same.
    run(&guest, &client, "secret", "dd if=/dev/zero bs=65536 count=100; echo secret; exec sleep 100000");
    let flood = exec("secret", "flood", &["dd", "if=/dev/zero", "bs=65536", "count=100"]);
    ok(&guest, client.exec_process(&flood));
    assert_eq!(ok(&guest, client.wait_process(&wait("secret", "flood"))).status, 0);
    for process in ["", "flood"] {
        assert!(ok(&guest, client.read_stdout(&read("secret", process, 4096))).data.is_empty());
        assert!(ok(&guest, client.read_stderr(&read("secret", process, 4096))).data.is_empty());
    }
    let denied = client.write_stdin(&write("secret", "", b"evil\n"));
    refused(denied, "PERMISSION_DENIED", "WriteStreamRequest is blocked by policy");
    // Nor by sockets of its own.
    let ((mut stdin, stdin_port), (mut stdout, stdout_port)) = (passfd(&guest), passfd(&guest));
    let around = ExecProcessRequest {
        stdin_port,
        stdout_port,
        ..exec("secret", "around", &["sh", "-c", "echo secret; read line && touch /told; exit 4"])
    };
    ok(&guest, client.exec_process(&around));
    let mut found = Vec::new();
    stdout.read_to_end(&mut found).unwrap();
    assert!(found.is_empty(), "{}", String::from_utf8_lossy(&found));
    // It is closed, sooner or later in the eyes of the host.
    let until = Instant::now() + LONG;
    while stdin.write_all(b"evil\n").is_ok() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ok(&guest, client.wait_process(&wait("secret", "around"))).status, 4);
    shell(&guest, "test ! -e /run/kata-containers/shared/containers/secret/rootfs/told");
    guest.power_off().unwrap();
}
