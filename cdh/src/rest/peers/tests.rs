//! Against directories with the form of `/proc`, and against the real one.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;

const HEADER: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const PEER: &str = "127.0.0.1:45231";
const LOCAL: &str = "127.0.0.1:8006";
const POD: &str = "/kubepods/pod1";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn hex4(address: &str) -> String {
    let address: SocketAddr = at(address);
    let std::net::IpAddr::V4(ip) = address.ip() else { panic!("IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
}

/// A row as the kernel prints it.
fn row(local: &str, remote: &str, state: &str, socket: u64) -> String {
    format!(
        "   3: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  1000        0 {socket} 1 0000 20 4 30 10 -1\n"
    )
}

fn both(socket: u64) -> String {
    let (peer, local) = (hex4(PEER), hex4(LOCAL));
    HEADER.to_owned() + &row(&local, &peer, "01", 1) + &row(&peer, &local, "01", socket)
}

/// A directory with the form of `/proc`.
struct Proc(tempfile::TempDir);

impl Proc {
    fn new(table: &str) -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        fs::create_dir(proc.path().join("net")).unwrap();
        proc.table(table);
        fs::write(proc.path().join("net/tcp6"), HEADER).unwrap();
        proc
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn table(&self, table: &str) {
        fs::write(self.path().join("net/tcp"), table).unwrap();
    }

    fn process(&self, number: u32, cgroup: &str, descriptors: &[&str]) {
        let process = self.path().join(number.to_string());
        fs::create_dir_all(process.join("fd")).unwrap();
        fs::write(process.join("cgroup"), cgroup).unwrap();
        for (index, target) in descriptors.iter().enumerate() {
            symlink(target, process.join(format!("fd/{index}"))).unwrap();
        }
    }

    fn found(&self) -> Option<String> {
        self.found_by(Arc::new(known()))
    }

    fn found_by(&self, containers: Arc<dyn Containers>) -> Option<String> {
        let found = ProcPeers::new(self.path(), containers).container_of(at(PEER), at(LOCAL));
        found.map(|container| container.name().to_owned())
    }
}

fn known() -> KnownContainers {
    let known = KnownContainers::default();
    for name in ["app", "other"] {
        known.insert(ContainerId::new(&format!("{name}-1"), name).unwrap(), &format!("{POD}/{name}"));
    }
    known
}

fn group(name: &str) -> String {
    format!("0::{POD}/{name}\n")
}

#[test]
fn a_connection_leads_to_its_container() {
    let proc = Proc::new(&both(77));
    proc.process(1, "0::/\n", &["/dev/null", "socket:[1]"]);
    proc.process(20, &group("app"), &["/dev/null", "socket:[77]", "socket:[78]"]);
    proc.process(21, &group("other"), &["socket:[78]", "socket:[777]", "/tmp/socket:[77]"]);
    assert_eq!(proc.found().as_deref(), Some("app"));
    proc.process(22, &group("app/below"), &["socket:[77]"]);
    assert_eq!(proc.found().as_deref(), Some("app"), "two processes of one container");
    let container = ContainerId::new("app-1", "app").unwrap();
    assert_eq!((container.id(), container.name()), ("app-1", "app"));
}

#[test]
fn groups_of_version_1_count_as_well() {
    let proc = Proc::new(&both(77));
    let text =
        format!("9:name=systemd:/system.slice/agent.service\n8:pids:{POD}/app\n4:memory:{POD}/app\n0::/\n");
    proc.process(20, &text, &["socket:[77]"]);
    assert_eq!(proc.found().as_deref(), Some("app"));
}

#[test]
fn an_address_of_version_6_is_found() {
    let mapped = |address: &str| {
        let SocketAddr::V4(address) = at(address) else { panic!("IPv4") };
        let octets = address.ip().to_ipv6_mapped().octets();
        let words = octets.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
        let words: String = words.map(|word| format!("{word:08X}")).collect();
        format!("{words}:{:04X}", address.port())
    };
    let table = HEADER.to_owned() + &row(&mapped(PEER), &mapped(LOCAL), "01", 5);
    assert_eq!(socket_of(&["", &table], at(PEER), at(LOCAL)), Some(5));
    assert_eq!(socket_of(&["", &table], at("127.0.0.2:45231"), at(LOCAL)), None);
    let one = HEADER.to_owned()
        + &row(
            &format!("{:024X}{:08X}:0001", 0, u32::from_ne_bytes([0, 0, 0, 1])),
            &format!("{:024X}{:08X}:1F46", 0, u32::from_ne_bytes([0, 0, 0, 1])),
            "01",
            6,
        );
    assert_eq!(socket_of(&[&one], at("[::1]:1"), at("[::1]:8006")), Some(6));
}

#[test]
fn what_is_no_connection_is_nobody() {
    let (peer, local) = (hex4(PEER), hex4(LOCAL));
    for table in [
        String::new(),
        HEADER.to_owned(),
        HEADER.to_owned() + &row(&local, &peer, "01", 77),
        HEADER.to_owned() + &row(&peer, &local, "06", 77),
        HEADER.to_owned() + &row(&peer, &local, "0A", 77),
        HEADER.to_owned() + &row(&peer, &local, "01", 0),
        HEADER.to_owned() + &row("zz", &local, "01", 77),
        HEADER.to_owned() + &format!("   3: {peer} {local} 01"),
    ] {
        assert_eq!(socket_of(&[&table], at(PEER), at(LOCAL)), None, "{table}");
    }
}

#[test]
fn evil_container_two_sockets_of_one_address() {
    let (peer, local) = (hex4(PEER), hex4(LOCAL));
    let proc = Proc::new(&(both(77) + &row(&peer, &local, "01", 78)));
    proc.process(20, &group("app"), &["socket:[77]", "socket:[78]"]);
    assert_eq!(proc.found(), None);
    proc.table(&(both(77) + &row(&peer, &local, "01", 77)));
    assert_eq!(proc.found().as_deref(), Some("app"), "a row that is repeated is one");
}

#[test]
fn evil_container_shares_its_socket() {
    for other in [group("other"), "0::/system.slice/agent.service\n".to_owned(), "0::/\n".to_owned()] {
        let proc = Proc::new(&both(77));
        proc.process(20, &group("app"), &["socket:[77]"]);
        assert_eq!(proc.found().as_deref(), Some("app"));
        proc.process(21, &other, &["socket:[77]"]);
        assert_eq!(proc.found(), None, "{other}");
    }
    // One process in groups of two.
    let proc = Proc::new(&both(77));
    proc.process(20, &format!("8:pids:{POD}/app\n0::{POD}/other\n"), &["socket:[77]"]);
    assert_eq!(proc.found(), None);
}

#[test]
fn evil_container_group_that_is_like_anothers() {
    for cgroup in [
        "/",
        "/kubepods",
        POD,
        "/kubepods/pod1/ap",
        "/kubepods/pod1/appx",
        "/x/kubepods/pod1/app",
        "/kubepods/pod1/x/../app",
        "/../kubepods/pod1/app",
    ] {
        let proc = Proc::new(&both(77));
        proc.process(20, &format!("0::{cgroup}\n"), &["socket:[77]"]);
        assert_eq!(proc.found(), None, "{cgroup}");
    }
    for text in ["", "\n", "0:", "kubepods/pod1/app"] {
        let proc = Proc::new(&both(77));
        proc.process(20, text, &["socket:[77]"]);
        assert_eq!(proc.found(), None, "{text:?}");
    }
    let nobody = Proc::new(&both(77));
    assert_eq!(nobody.found(), None);
}

#[test]
fn evil_container_many_descriptors() {
    let proc = Proc::new(&both(77));
    proc.process(20, &group("app"), &["/a", "/b", "/c", "socket:[77]"]);
    let mut peers = ProcPeers::new(proc.path(), Arc::new(known()));
    assert!(peers.container_of(at(PEER), at(LOCAL)).is_some());
    proc.process(21, &group("other"), &["/a", "/b", "/c", "/d"]);
    // The four of the second process, and at least one of the first.
    peers.limit(4);
    assert_eq!(peers.container_of(at(PEER), at(LOCAL)), None);
    peers.limit(8);
    assert!(peers.container_of(at(PEER), at(LOCAL)).is_some());
}

/// Containers that do something at the moment at which they are asked for.
struct Meanwhile<F>(KnownContainers, Mutex<Option<F>>);

impl<F: FnOnce() + Send> Containers for Meanwhile<F> {
    fn of_cgroup(&self, cgroup: &str) -> Vec<ContainerId> {
        if let Some(act) = self.1.lock().unwrap().take() {
            act();
        }
        self.0.of_cgroup(cgroup)
    }
}

#[test]
fn evil_container_socket_leaves_its_process() {
    let proc = Proc::new(&both(77));
    proc.process(20, &group("app"), &["socket:[77]"]);
    let link = proc.path().join("20/fd/0");
    let replace = move || {
        fs::remove_file(&link).unwrap();
        symlink("socket:[99]", &link).unwrap();
    };
    assert_eq!(proc.found_by(Arc::new(Meanwhile(known(), Mutex::new(Some(replace))))), None);
}

#[test]
fn evil_container_connection_is_another() {
    let proc = Proc::new(&both(77));
    proc.process(20, &group("app"), &["socket:[77]"]);
    let table = proc.path().join("net/tcp");
    let replace = move || fs::write(&table, both(99)).unwrap();
    assert_eq!(proc.found_by(Arc::new(Meanwhile(known(), Mutex::new(Some(replace))))), None);
}

#[test]
fn evil_container_takes_the_number_of_a_process() {
    // The process that had the socket ends, and its number is that of another container's process, before its group is read.
    let proc = Proc::new(&both(77));
    proc.process(20, &group("app"), &["socket:[77]"]);
    proc.process(21, &group("app"), &["socket:[77]"]);
    let path = proc.path().to_owned();
    let (kept, other) = (path.clone(), group("other"));
    let replace = move || {
        for number in ["20", "21"] {
            fs::rename(kept.join(number), kept.join(format!("ended-{number}"))).unwrap();
            fs::create_dir_all(kept.join(number).join("fd")).unwrap();
            fs::write(kept.join(number).join("cgroup"), &other).unwrap();
        }
    };
    let found = proc.found_by(Arc::new(Meanwhile(known(), Mutex::new(Some(replace)))));
    assert_eq!(found.as_deref(), Some("app"), "a number leads nobody to the process that has it now");
}

#[test]
fn evil_container_process_that_cannot_be_seen() {
    let unseen = |group: Option<&str>| {
        let proc = Proc::new(&both(77));
        proc.process(20, &self::group("app"), &["socket:[77]"]);
        fs::create_dir(proc.path().join("21")).unwrap();
        assert_eq!(proc.found().as_deref(), Some("app"), "a process that ended is not there");
        // No directory: root would see through every other obstacle.
        fs::write(proc.path().join("21/fd"), "").unwrap();
        if let Some(group) = group {
            fs::write(proc.path().join("21/cgroup"), group).unwrap();
        }
        proc.found()
    };
    assert_eq!(unseen(None), None);
    assert_eq!(unseen(Some("")), None);
    assert_eq!(unseen(Some(&group("other"))), None);
    assert_eq!(unseen(Some(&group("app"))), None);
    assert_eq!(unseen(Some("0::/../x\n")), None);
    assert_eq!(unseen(Some("0::/system.slice/agent.service\n")).as_deref(), Some("app"));
}

#[test]
fn containers_are_forgotten_when_they_are_gone() {
    let known = known();
    let names =
        |cgroup: &str| known.of_cgroup(cgroup).iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("/kubepods/pod1/app/x"), ["app"]);
    known.remove("app-1");
    assert!(names("/kubepods/pod1/app/x").is_empty());
    assert_eq!(names("/kubepods/pod1/other"), ["other"]);
    let root = KnownContainers::default();
    root.insert(ContainerId::new("x", "x").unwrap(), "/");
    assert!(root.of_cgroup("/").is_empty() && root.of_cgroup("/a").is_empty());
}

#[test]
fn containers_of_upstreams_agent_are_read_from_their_bundles() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = |id: &str, text: &str| {
        fs::create_dir(directory.path().join(id)).unwrap();
        fs::write(directory.path().join(id).join("config.json"), text).unwrap();
    };
    let name = |name: &str| format!("\"annotations\":{{\"io.kubernetes.cri.container-name\":{name:?}}}");
    bundle("c1", &format!("{{{},\"linux\":{{\"cgroupsPath\":\"/kubepods/pod1/c1\"}}}}", name("app")));
    bundle("c2", &format!("{{{},\"linux\":{{\"cgroupsPath\":\"pod.slice:cri:c2\"}}}}", name("db")));
    bundle("c3", &format!("{{{},\"linux\":{{}}}}", name("id")));
    bundle("c4", "{\"linux\":{\"cgroupsPath\":\"/kubepods/pod1/c4\"}}");
    bundle("c5", "{");
    bundle("c6", &format!("{{{},\"linux\":{{\"cgroupsPath\":\"/kubepods/pod1/c6\"}}}}", name("two words")));
    symlink(directory.path().join("c1"), directory.path().join("c7")).unwrap();
    fs::remove_file(directory.path().join("c5/config.json")).unwrap();
    symlink("../c1/config.json", directory.path().join("c5/config.json")).unwrap();
    fs::remove_file(directory.path().join("c7")).unwrap();
    let bundles = Bundles::new(directory.path());
    let found =
        |cgroup: &str| bundles.of_cgroup(cgroup).iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
    assert_eq!(found("/kubepods/pod1/c1"), ["app"]);
    assert_eq!(found("/pod.slice/cri/c2/x"), ["db"]);
    assert_eq!(found("/c3"), ["id"]);
    for cgroup in ["/kubepods/pod1/c4", "/kubepods/pod1/c6", "/kubepods/pod1", "/", ""] {
        assert!(found(cgroup).is_empty(), "{cgroup}");
    }
    assert!(Bundles::new("/nowhere").of_cgroup("/c3").is_empty());
}

#[test]
fn evil_host_calls_a_container_by_the_name_of_an_entry() {
    assert!(ContainerId::new("c1", "rest:0").is_none() && ContainerId::new("c1", "rest:").is_none());
    let of_entry = ContainerId::of_entry("c1", 0).unwrap();
    assert_eq!((of_entry.id(), of_entry.name()), ("c1", "rest:0"));
    assert!(ContainerId::new("c1", "rest").is_some() && ContainerId::of_entry("", 0).is_none());
}
