//! Containers ask the REST front of the agent's own process, by plain HTTP at upstream's address.

use sha2::{Digest as _, Sha256, Sha512};
use tests::agent_client::requests::{exec, rootfs};

use super::{AgentClient, Duration, Instant, SECRET, Stage, Value, create, ok, read, remove, shell, start};

const PASSWORD: &str = "/cdh/resource/default/db/password";
const NAME: &str = "io.kubernetes.cri.container-name";
/// Readers of requests, and what the kernel says of each.
const READERS: &str = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = rest-reader ] || continue; \
                       echo pid ${p#/proc/}; grep -E '^(Uid|Gid|Groups|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' $p/status; \
                       cat $p/cgroup; for f in $p/fd/*; do busybox readlink $f; done; done; true";

/// A line of shell that asks and prints the whole answer. Its side of the connection stays open: busybox gives up with its input.
fn line(path: &str) -> String {
    format!(
        "busybox rm -f /asked; busybox mkfifo /asked; {{ busybox rm /asked; printf 'GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1:8006\\r\\n\\r\\n'; \
         busybox sleep 30; }} > /asked 2>/dev/null & exec busybox nc 127.0.0.1 8006 < /asked"
    )
}

/// Status, and body.
#[track_caller]
fn parsed(stage: &Stage, answer: &[u8]) -> (u16, Vec<u8>) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| {
        panic!("no answer: {:?}\n{}", String::from_utf8_lossy(answer), stage.guest.serial())
    });
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

/// Runs a line in a container to its end.
#[track_caller]
fn run_in(stage: &Stage, client: &AgentClient, container: &str, number: &str, line: &str) -> Vec<u8> {
    ok(stage, client.exec_process(&exec(container, number, &["sh", "-c", line])));
    let mut all = Vec::new();
    while let Ok(answer) = client.read_stdout(&read(container, number, 65_536)) {
        if answer.data.is_empty() {
            break;
        }
        all.extend_from_slice(&answer.data);
    }
    all
}

#[track_caller]
fn ask(stage: &Stage, client: &AgentClient, container: &str, number: &str, path: &str) -> (u16, Vec<u8>) {
    parsed(stage, &run_in(stage, client, container, number, &line(path)))
}

/// Status, and the code of a refusal.
fn code((status, body): (u16, Vec<u8>)) -> (u16, String) {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

fn refused(code: &str) -> (u16, String) {
    (403, code.to_owned())
}

/// In the container that bound configuration names and lists routes for.
pub(super) fn a_container_reads_its_secret(stage: &Stage, client: &AgentClient) {
    let guest = &stage.guest;
    let (status, body) = ask(stage, client, "server", "ask-1", PASSWORD);
    assert_eq!(
        (status, body.as_slice()),
        (200, SECRET),
        "{}\n{}",
        String::from_utf8_lossy(&body),
        guest.serial()
    );
    let other = ask(stage, client, "server", "ask-2", "/cdh/resource/default/seal-key/vec");
    assert_eq!(code(other), refused("REST_NOT_LISTED"));
    let (status, evidence) = ask(stage, client, "server", "ask-3", "/aa/evidence?runtime_data=abc");
    assert_eq!(status, 200, "{}\n{}", String::from_utf8_lossy(&evidence), guest.serial());
    let quote: Value = serde_json::from_slice(&evidence).unwrap();
    let quote = base64(quote["quote"].as_str().unwrap());
    let expected = report_data("server", b"abc");
    assert!(quote.windows(64).any(|part| part == expected), "the container's own identity");
    let foreign = report_data("layers", b"abc");
    assert!(!quote.windows(64).any(|part| part == foreign));
    // A process of the guest that is no container's.
    let witness = shell(guest, &line(PASSWORD));
    assert_eq!(code(parsed(stage, witness.as_bytes())), refused("REST_PEER_UNKNOWN"));
    requests_are_read_by_nobody(stage, client);
}

/// HTTP is parsed by a process without rights, one for each connection; one that dies takes its connection along and nothing else.
fn requests_are_read_by_nobody(stage: &Stage, client: &AgentClient) {
    let guest = &stage.guest;
    let slow = "(printf 'GET /in'; busybox sleep 6) | busybox nc 127.0.0.1 8006";
    ok(stage, client.exec_process(&exec("server", "slow", &["sh", "-c", slow])));
    let until = Instant::now() + Duration::from_secs(8);
    let seen = loop {
        let seen = shell(guest, READERS);
        if seen.contains("Seccomp:\t2") {
            break seen;
        }
        assert!(Instant::now() < until, "no reader: {seen:?}\n{}", guest.serial());
        std::thread::sleep(Duration::from_millis(100));
    };
    for (field, value) in [
        ("Uid", "65534\t65534\t65534\t65534"),
        ("Gid", "65534\t65534\t65534\t65534"),
        ("Groups", " "),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        assert!(seen.contains(&format!("\n{field}:\t{value}\n")), "{field}: {seen}");
    }
    assert!(seen.contains("0::/innerkeep/"), "in a pen of its own: {seen}");
    // Its socket to the agent, the connection, and what a runtime is made of: no file.
    assert!(seen.contains("socket:"), "{seen}");
    let files = seen.lines().filter(|line| line.starts_with('/')).filter(|line| *line != "/dev/null");
    assert_eq!(files.count(), 0, "{seen}");
    let number = seen.lines().find_map(|line| line.strip_prefix("pid ")).unwrap();
    shell(guest, &format!("kill -9 {number}"));
    let (status, body) = ask(stage, client, "server", "ask-4", PASSWORD);
    assert_eq!((status, body.as_slice()), (200, SECRET), "the next connection has a reader of its own");
}

/// Another container of the pod.
pub(super) fn another_container_reads_nothing(stage: &Stage, client: &AgentClient, container: &str) {
    for (number, path) in [("ask-1", PASSWORD), ("ask-2", "/aa/evidence?runtime_data=abc")] {
        let answer = ask(stage, client, container, number, path);
        assert_eq!(code(answer), refused("REST_NOT_LISTED"), "{path}");
    }
}

/// By its name it is the one that is listed, and the host wrote its files.
pub(super) fn evil_host_container_with_the_name_of_another(stage: &Stage, client: &AgentClient) {
    let root = rootfs(&stage.guest, "impostor");
    let mut request = create("impostor", &root, &["sh", "-c", "while :; do sleep 0.1; done"]);
    let annotations = &mut request.OCI.as_mut().unwrap().Annotations;
    annotations.insert(NAME.to_owned(), "server".to_owned());
    annotations.insert("test/index".to_owned(), "4".to_owned());
    ok(stage, client.create_container(&request));
    ok(stage, client.start_container(&start("impostor")));
    for (number, path) in [("ask-1", PASSWORD), ("ask-2", "/aa/evidence?runtime_data=abc")] {
        let answer = ask(stage, client, "impostor", number, path);
        assert_eq!(code(answer), refused("SEALED_VALUE_ROOT"), "{path}");
    }
    ok(stage, client.remove_container(&remove("impostor")));
    // Device nodes are among its files.
    shell(&stage.guest, &format!("rm -rf {root}"));
}

/// SHA-512 of label, identity of the container and runtime data, from nothing but the specification.
fn report_data(container: &str, data: &[u8]) -> [u8; 64] {
    let mut identity = Sha256::new();
    identity.update(b"innerkeep workload identity v1");
    for part in ["container", container] {
        identity.update(u32::try_from(part.len()).unwrap().to_le_bytes());
        identity.update(part);
        if part == "container" {
            identity.update(0_u32.to_le_bytes());
        }
    }
    let hash = Sha512::new_with_prefix(b"innerkeep workload evidence v1");
    hash.chain_update(identity.finalize()).chain_update(Sha512::digest(data)).finalize().into()
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
