//! Registries are spoken to by a process that they may take over: what it can do then. The process is the one that ships. Needs root.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "all of it is for pulls")]
#[path = "cdh_pull/fixture.rs"]
mod fixture;

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cdh::image::pull::PullerOptions;
use cdh::worker::{Executed, Workers};
use serde_json::{Value, json};
use tests::programs::{Programs, as_root};

use fixture::{Guest, Image, Server, workers};

const IMAGE: &str = "acme/ranker";

fn anything() -> Value {
    json!({"default": [{"type": "insecureAcceptAnything"}], "transports": {}})
}

fn guest_of(authority: &str, workers: Arc<dyn Workers>) -> Guest {
    Guest::of(authority, &anything(), ("", false), PullerOptions::default(), workers, |puller| puller)
}

/// Children of this process of this name.
fn children(name: &str) -> Vec<u32> {
    let own = std::process::id();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |number: &u32| {
        let read = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
        let (words, status) = (read("cmdline"), read("status"));
        let status = String::from_utf8_lossy(&status).into_owned();
        words.split(|byte| *byte == 0).next() == Some(name.as_bytes())
            && field(&status, "PPid") == [own.to_string()]
    };
    numbers.filter(is_one).collect()
}

fn field(status: &str, name: &str) -> Vec<String> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// Whether a process has the socket that is connected to this port of loopback.
fn is_connected(process: u32, port: u16) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let peer = format!("0100007F:{port:04X}");
    let inodes: Vec<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2) == Some(&peer.as_str()))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let found: Vec<_> = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    found.iter().any(|found| inodes.iter().any(|inode| found == Path::new(inode)))
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"GET ");
    stream
}

/// What the kernel says of a child while a registry lets it wait.
fn look(child: u32) {
    let at = |name: &str| format!("/proc/{child}/{name}");
    let status = fs::read_to_string(at("status")).unwrap();
    let [user, group] = ["Uid", "Gid"].map(|name| field(&status, name));
    assert!(user == group && user[0].parse::<u32>().unwrap() > 0x7ffe_0000, "{user:?}");
    assert!(field(&status, "Groups").is_empty());
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), ["0000000000000000"], "{set}");
    }
    assert_eq!(
        (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
        (vec!["1".into()], vec!["2".into()])
    );
    // All the files that there are for it: those by which names are looked up, and nobody's but root's.
    let root = fs::read_dir(at("root")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(root.collect::<Vec<_>>(), ["etc"]);
    for entry in fs::read_dir(at("root/etc")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(["hosts", "nsswitch.conf", "resolv.conf"].contains(&name.as_str()), "{name}");
    }
    let descriptors =
        fs::read_dir(at("fd")).unwrap().map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    for open in descriptors {
        let name = open.to_str().unwrap();
        let is_harmless = ["socket:", "anon_inode:", "/dev/null", "pipe:"];
        assert!(is_harmless.iter().any(|harmless| name.starts_with(harmless)), "{name}");
    }
}

#[test]
fn evil_registry_takes_over_the_process_that_fetches() {
    as_root(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let guest = Arc::new(guest_of(&format!("127.0.0.1:{port}"), workers()));
        let (name, own) = (format!("127.0.0.1:{port}/{IMAGE}:v1"), Arc::clone(&guest));
        let pull = tokio::spawn(async move { own.pull(&name).await });
        let connection = tokio::task::spawn_blocking(move || accept(&listener)).await.unwrap();
        let found = children("innerkeep-fetch");
        assert_eq!(found.len(), 1, "{found:?}");
        look(found[0]);
        assert!(is_connected(found[0], port), "the child speaks to the registry");
        assert!(!is_connected(std::process::id(), port), "and nobody else");
        // Given up, it is gone.
        pull.abort();
        let _ = pull.await;
        let end = Instant::now() + Duration::from_secs(10);
        while !children("innerkeep-fetch").is_empty() {
            assert!(Instant::now() < end, "the child lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(connection);
    });
}

#[test]
fn a_name_is_looked_up_where_nothing_else_can_be_read() {
    as_root(async {
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        let name = hosts
            .lines()
            .filter_map(|line| line.strip_prefix("127."))
            .flat_map(|line| line.split_whitespace().skip(1))
            .find(|name| *name != "localhost" && !name.contains('_'))
            .map(str::to_owned);
        let Some(host) = name else {
            eprintln!("skipped: no other name of this machine in /etc/hosts");
            return;
        };
        let server = Server::start();
        let port = server.authority.rsplit(':').next().unwrap();
        server.skopeo(&Image::new(b"short").layout(), &format!("{IMAGE}:v1"));
        let authority = format!("{host}:{port}");
        let guest = guest_of(&authority, workers());
        guest.pull(&format!("{authority}/{IMAGE}:v1")).await.unwrap();
        // Nobody has this one.
        let authority = format!("no-such-name.invalid:{port}");
        let guest = guest_of(&authority, workers());
        assert_eq!(guest.refused(&format!("{authority}/{IMAGE}:v1")).await, "REGISTRY_CONNECT");
    });
}

#[test]
fn evil_host_keeps_registries_from_being_spoken_to_apart() {
    as_root(async {
        let server = Server::start();
        server.skopeo(&Image::new(b"short").layout(), &format!("{IMAGE}:v1"));
        let name = server.name(&format!("{IMAGE}:v1"));
        let program = Programs::built().path("confidential-data-hub").into_os_string();
        let setpriv = ["--bounding-set=-all", "--inh-caps=-all"].map(Into::into).into_iter().chain([program]);
        for (program, words) in [
            ("/usr/bin/setpriv", setpriv.collect()),
            ("/no/such/program", Vec::new()),
            ("/bin/true", Vec::new()),
        ] {
            let workers = Arc::new(Executed::of(program.into(), words));
            let guest = guest_of(&server.authority, workers);
            assert_eq!(guest.refused(&name).await, "REGISTRY_FETCHER", "{program}");
        }
    });
}

#[test]
fn a_killed_process_is_replaced_in_the_middle_of_a_blob() {
    as_root(async {
        let server = Server::start();
        let mut content = vec![0; 64 << 20];
        aws_lc_rs::rand::fill(&mut content).unwrap();
        server.skopeo(&Image::new(&content).layout(), &format!("{IMAGE}:v1"));
        let name = server.name(&format!("{IMAGE}:v1"));
        let guest = Arc::new(guest_of(&server.authority, workers()));
        let (own, done) = (Arc::clone(&guest), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let ended = Arc::clone(&done);
        let killer = std::thread::spawn(move || {
            let mut killed = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) && killed < 3 {
                for child in children("innerkeep-fetch") {
                    std::thread::sleep(Duration::from_millis(20));
                    let status = Command::new("kill").arg("-9").arg(child.to_string()).status().unwrap();
                    killed += u32::from(status.success());
                }
            }
            killed
        });
        let pulled = own.pull(&name).await.unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(killer.join().unwrap() > 0, "nobody was killed");
        let bundle = pulled.mount(&guest.bundle()).unwrap();
        assert!(fs::read(bundle.root().join("usr/second")).unwrap() == content);
    });
}
