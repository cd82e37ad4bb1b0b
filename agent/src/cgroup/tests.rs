use std::fs;
use std::path::Path;

use proptest::prelude::*;
use protocol::ids::ContainerId;
use protocol::oci::{LinuxHugepageLimit, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};

use super::*;
use crate::log::Log;

fn path(path: &str) -> CgroupPath {
    CgroupPath::parse(path, &ContainerId::parse("c1").unwrap()).unwrap()
}

/// A tree of files that stands for the kernel's.
struct Fake(tempfile::TempDir);

impl Fake {
    /// With a group `/pod/c1` that has these files.
    fn new(files: &[(&str, &str)]) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(fake.0.path().join("pod/c1")).unwrap();
        for (name, text) in files {
            fs::write(fake.file(name), text).unwrap();
        }
        fake
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("pod/c1").join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap()
    }

    fn group(&self) -> Cgroup {
        Cgroup::open(self.0.path(), &path("/pod/c1")).unwrap()
    }
}

fn resources(change: impl FnOnce(&mut LinuxResources)) -> LinuxResources {
    let mut resources = LinuxResources::new();
    change(&mut resources);
    resources
}

#[tokio::test]
async fn a_group_is_made_with_its_parents_and_removed_with_them() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (path("/pods/p/c1"), path("/pods/c2"));
    let first = Cgroup::create(root.path(), &one).unwrap();
    let second = Cgroup::create(root.path(), &two).unwrap();
    fs::create_dir_all(root.path().join("pods/p/c1/a/b/c")).unwrap();
    first.remove().await.unwrap();
    assert!(!root.path().join("pods/p").exists());
    assert!(root.path().join("pods/c2").is_dir());
    // Gone is gone.
    first.remove().await.unwrap();
    second.remove().await.unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn controllers_are_handed_down_to_the_group() {
    let root = tempfile::tempdir().unwrap();
    for place in ["", "pod"] {
        let place = root.path().join(place);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(place.join("cgroup.subtree_control"), "cpu\n").unwrap();
    }
    Cgroup::create(root.path(), &path("/pod/c1")).unwrap();
    for place in ["", "pod"] {
        let handed = fs::read_to_string(root.path().join(place).join("cgroup.subtree_control")).unwrap();
        assert_eq!(handed, "+memory");
    }
}

#[test]
fn evil_host_uses_a_group_that_is_there() {
    let root = tempfile::tempdir().unwrap();
    Cgroup::create(root.path(), &path("/pod/c1")).unwrap();
    let error = Cgroup::create(root.path(), &path("/pod/c1")).unwrap_err();
    assert_eq!(error.code(), "CGROUP_TAKEN");
    assert_eq!(Cgroup::create(root.path(), &path("/pod")).unwrap_err().code(), "CGROUP_TAKEN");
}

#[test]
fn evil_host_cgroup_below_another_container() {
    let fake = Fake::new(&[("cgroup.procs", "12\n")]);
    let error = Cgroup::create(fake.0.path(), &path("/pod/c1/inner")).unwrap_err();
    assert_eq!(error.code(), "CGROUP_PARENT");
    assert!(!fake.file("inner").exists());
}

#[test]
fn evil_container_links_in_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("memory.max"), "kept").unwrap();
    let fake = Fake::new(&[]);
    std::os::unix::fs::symlink(outside.path(), fake.0.path().join("pod/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("memory.max"), fake.file("memory.max")).unwrap();
    let error = Cgroup::open(fake.0.path(), &path("/pod/link")).unwrap_err();
    assert_eq!(error.code(), "CGROUP_FILE");
    let wanted = resources(|resources| resources.Memory.mut_or_insert_default().Limit = 1);
    assert_eq!(fake.group().apply(&wanted).unwrap_err().code(), "CGROUP_FILE");
    assert_eq!(fs::read_to_string(outside.path().join("memory.max")).unwrap(), "kept");
}

#[test]
fn processes_of_inner_groups_count() {
    let fake = Fake::new(&[("cgroup.procs", "12\n34\n")]);
    fs::create_dir(fake.file("inner")).unwrap();
    fs::write(fake.file("inner/cgroup.procs"), "56\n").unwrap();
    let found: Vec<i32> =
        fake.group().processes().unwrap().iter().map(|process| process.as_raw_nonzero().get()).collect();
    assert_eq!(found, [12, 34, 56]);
}

#[test]
fn evil_container_huge_and_garbled_files() {
    let garbage = "x".repeat(2 << 20);
    for name in ["cgroup.procs", "cgroup.events", "memory.current", "memory.stat", "io.stat", "cpu.stat"] {
        let fake = Fake::new(&[("cgroup.procs", ""), ("cgroup.events", "populated 0\n"), (name, &garbage)]);
        let group = fake.group();
        let errors = [
            group.processes().map(drop).err(),
            group.is_populated().map(drop).err(),
            group.stats().map(drop).err(),
        ];
        let codes: Vec<&str> = errors.iter().flatten().map(CgroupError::code).collect();
        assert_eq!(codes, ["CGROUP_TOO_MANY"], "{name}");
    }
    for text in ["-1\n", "0\n", "12 13\n", "\u{7}\n", "99999999999999999999\n", "2147483648\n"] {
        let error = Fake::new(&[("cgroup.procs", text)]).group().processes().unwrap_err();
        assert_eq!(error.code(), "CGROUP_MALFORMED", "{text:?}");
    }
    let error = Fake::new(&[("memory.current", "many\n")]).group().stats().unwrap_err();
    assert_eq!(error.code(), "CGROUP_MALFORMED");
    // Lines that nobody knows are left out.
    let fake =
        Fake::new(&[("memory.stat", "anon 1\nnew x\n\n 5\nfile 7\n"), ("io.stat", "8:0\nx\n1: a=b\n")]);
    let stats = fake.group().stats().unwrap();
    assert_eq!(stats.cgroup_stats.memory_stats.cache, 7);
    assert_eq!(stats.cgroup_stats.blkio_stats.io_service_bytes_recursive.len(), 6);
}

#[tokio::test]
async fn evil_container_makes_groups_without_end() {
    let fake = Fake::new(&[]);
    for index in 0..=MAXIMUM_DESCENDANTS {
        fs::create_dir(fake.file(&format!("g{index}"))).unwrap();
    }
    assert_eq!(fake.group().processes().unwrap_err().code(), "CGROUP_TOO_MANY");
    let fake = Fake::new(&[]);
    fs::create_dir_all(fake.file(&"d/".repeat(MAXIMUM_DEPTH + 1))).unwrap();
    assert_eq!(fake.group().processes().unwrap_err().code(), "CGROUP_TOO_MANY");
    assert_eq!(fake.group().remove().await.unwrap_err().code(), "CGROUP_TOO_MANY");
    // The kernel is told, so that it does not come to this.
    let fake = Fake::new(&[("cgroup.max.depth", "max\n"), ("cgroup.max.descendants", "max\n")]);
    fake.group().bound().unwrap();
    assert_eq!(
        (fake.text("cgroup.max.depth"), fake.text("cgroup.max.descendants")),
        ("32".into(), "1024".into())
    );
}

// COMPAT: PauseContainer better: if not all stand still in time, all run again
#[tokio::test(start_paused = true)]
async fn processes_that_do_not_freeze_run_again() {
    let fake = Fake::new(&[("cgroup.freeze", "0\n"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
    assert_eq!(fake.group().freeze().await.unwrap_err().code(), "CGROUP_TIMEOUT");
    assert_eq!(fake.text("cgroup.freeze"), "0");
}

#[tokio::test(start_paused = true)]
async fn who_survives_is_an_error() {
    let fake = Fake::new(&[("cgroup.kill", ""), ("cgroup.events", "populated 1\nfrozen 0\n")]);
    assert_eq!(fake.group().kill_all().await.unwrap_err().code(), "CGROUP_TIMEOUT");
    assert_eq!(fake.text("cgroup.kill"), "1");
}

// COMPAT: StatsContainer better: `throttled_time` and `failcnt` are filled
#[test]
fn stats_are_those_of_the_files() {
    let fake = Fake::new(&[
        (
            "cpu.stat",
            "usage_usec 10\nuser_usec 7\nsystem_usec 3\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n",
        ),
        ("memory.current", "4096\n"),
        ("memory.peak", "8192\n"),
        ("memory.max", "max\n"),
        ("memory.events", "low 0\nmax 3\noom_kill 0\n"),
        ("memory.swap.current", "1\n"),
        ("memory.swap.max", "2\n"),
        ("memory.stat", "anon 5\nfile 6\nkernel 7\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.events", "max 9\n"),
        ("hugetlb.2MB.rsvd.current", "1\n"),
    ]);
    let stats = fake.group().stats().unwrap();
    assert!(stats.network_stats.is_empty());
    let stats = stats.cgroup_stats;
    let usage = &stats.cpu_stats.cpu_usage;
    assert_eq!((usage.total_usage, usage.usage_in_usermode, usage.usage_in_kernelmode), (10_000, 7000, 3000));
    let throttling = &stats.cpu_stats.throttling_data;
    assert_eq!((throttling.periods, throttling.throttled_periods, throttling.throttled_time), (4, 2, 5000));
    let memory = &stats.memory_stats;
    assert_eq!((memory.usage.usage, memory.usage.max_usage, memory.usage.failcnt), (4096, 8192, 3));
    assert_eq!((memory.usage.limit, memory.cache, memory.use_hierarchy), (u64::MAX, 6, true));
    assert_eq!((memory.swap_usage.usage, memory.swap_usage.limit), (1, 2));
    assert_eq!((memory.stats["anon"], memory.stats.len(), memory.kernel_usage.usage), (5, 3, 7));
    assert_eq!((stats.pids_stats.current, stats.pids_stats.limit), (3, 0));
    let io: Vec<_> =
        stats.blkio_stats.io_service_bytes_recursive.iter().map(|entry| (&*entry.op, entry.value)).collect();
    assert_eq!(io, [("read", 1), ("write", 2), ("rios", 3), ("wios", 4), ("dbytes", 5), ("dios", 6)]);
    assert_eq!(stats.blkio_stats.io_service_bytes_recursive[0].major, 254);
    let pages: Vec<_> =
        stats.hugetlb_stats.iter().map(|(size, pages)| (&**size, pages.usage, pages.failcnt)).collect();
    assert_eq!(pages, [("2MB", 2_097_152, 9)]);
}

#[test]
fn what_the_kernel_lacks_is_nothing() {
    let stats = Fake::new(&[]).group().stats().unwrap().cgroup_stats;
    assert_eq!(stats.cpu_stats.cpu_usage.total_usage, 0);
    assert_eq!(stats.memory_stats.usage.usage, 0);
    assert!(stats.hugetlb_stats.is_empty());
}

fn device(major: i64, minor: i64, rate: u64) -> LinuxThrottleDevice {
    LinuxThrottleDevice { Major: major, Minor: minor, Rate: rate, ..Default::default() }
}

#[test]
fn limits_are_written_as_version_2_has_them() {
    let fake = Fake::new(&[
        ("memory.max", "max\n"),
        ("memory.low", "0\n"),
        ("memory.swap.max", "max\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu.weight", "100\n"),
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
        ("pids.max", "max\n"),
        ("io.weight", "default 100\n"),
        ("io.max", ""),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.rsvd.max", "max\n"),
    ]);
    let wanted = resources(|resources| {
        let memory = resources.Memory.mut_or_insert_default();
        (memory.Limit, memory.Swap, memory.Reservation) = (1 << 20, 3 << 20, 1 << 19);
        let cpu = resources.CPU.mut_or_insert_default();
        (cpu.Shares, cpu.Quota, cpu.Cpus) = (1024, 50_000, "0-1".to_owned());
        resources.Pids.mut_or_insert_default().Limit = -1;
        let io = resources.BlockIO.mut_or_insert_default();
        io.Weight = 1000;
        io.ThrottleReadBpsDevice.push(device(8, 0, 1000));
        let pages = LinuxHugepageLimit { Pagesize: "2MB".to_owned(), Limit: 4096, ..Default::default() };
        resources.HugepageLimits.push(pages);
    });
    let applied = fake.group().apply(&wanted).unwrap();
    let expected = [
        ("memory.max", "1048576", "max\n"),
        ("memory.swap.max", "2097152", "max\n"),
        ("memory.low", "524288", "0\n"),
        ("cpu.weight", "100", "100\n"),
        ("cpu.max", "50000 100000", "max 100000\n"),
        ("cpuset.cpus", "0-1", "\n"),
        ("pids.max", "max", "max\n"),
        ("io.weight", "default 10000", "default 100"),
        ("io.max", "8:0 rbps=1000", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("hugetlb.2MB.max", "4096", "max\n"),
        ("hugetlb.2MB.rsvd.max", "4096", "max\n"),
    ];
    for (file, value, _) in expected {
        assert_eq!(fake.text(file), value, "{file}");
    }
    assert_eq!(fake.text("cpuset.mems"), "\n");
    fake.group().put_back(applied).unwrap();
    for (file, _, before) in expected {
        assert_eq!(fake.text(file), before, "{file}");
    }
}

// COMPAT: UpdateContainer better: -1 is no limit; quota and period alone leave the other as it is
#[test]
fn what_is_absent_stays() {
    let fake =
        Fake::new(&[("cpu.max", "5000 20000\n"), ("memory.max", "4096\n"), ("memory.swap.max", "0\n")]);
    let group = fake.group();
    let _ = group.apply(&LinuxResources::new()).unwrap();
    let _ = group.apply(&resources(|wanted| wanted.CPU.mut_or_insert_default().Period = 40_000)).unwrap();
    assert_eq!(fake.text("cpu.max"), "5000 40000");
    let _ = group.apply(&resources(|wanted| wanted.CPU.mut_or_insert_default().Quota = -1)).unwrap();
    assert_eq!(fake.text("cpu.max"), "max 40000");
    // Swap alone counts on top of the limit that is in force.
    let _ = group.apply(&resources(|wanted| wanted.Memory.mut_or_insert_default().Swap = 5000)).unwrap();
    assert_eq!((fake.text("memory.swap.max"), fake.text("memory.max")), ("904".into(), "4096\n".into()));
    let _ = group.apply(&resources(|wanted| wanted.Memory.mut_or_insert_default().Limit = -1)).unwrap();
    assert_eq!((fake.text("memory.swap.max"), fake.text("memory.max")), ("max".into(), "max".into()));
}

// COMPAT: UpdateContainer better: all limits or none
#[test]
fn one_limit_that_fails_takes_the_others_back() {
    let fake = Fake::new(&[("memory.max", "max\n"), ("pids.max", "10\n"), ("cpu.max", "max 100000\n")]);
    // A directory in place of a file: opening it to write fails, as a value does that the kernel does not take.
    fs::create_dir(fake.file("cpuset.cpus")).unwrap();
    let wanted = resources(|resources| {
        resources.Memory.mut_or_insert_default().Limit = 4096;
        resources.Pids.mut_or_insert_default().Limit = 5;
        let cpu = resources.CPU.mut_or_insert_default();
        (cpu.Quota, cpu.Cpus) = (1000, "0".to_owned());
    });
    let error = fake.group().apply(&wanted).unwrap_err();
    assert_eq!(error.code(), "CGROUP_FILE");
    assert_eq!(fake.text("memory.max"), "max\n");
    assert_eq!(fake.text("pids.max"), "10\n");
    assert_eq!(fake.text("cpu.max"), "max 100000\n");
}

// COMPAT: UpdateContainer stricter: limits that groups of version 2 do not have are refused
#[test]
fn what_no_file_holds_is_refused_before_anything_is_changed() {
    let fake = Fake::new(&[("pids.max", "10\n"), ("io.max", ""), ("memory.max", "max\n")]);
    type Change = fn(&mut LinuxResources);
    let refused: [(&str, Change); 12] = [
        ("CGROUP_UNSUPPORTED", |wanted| wanted.Memory.mut_or_insert_default().Swappiness = 10),
        ("CGROUP_UNSUPPORTED", |wanted| wanted.Memory.mut_or_insert_default().DisableOOMKiller = true),
        ("CGROUP_UNSUPPORTED", |wanted| wanted.CPU.mut_or_insert_default().RealtimeRuntime = 1),
        ("CGROUP_UNSUPPORTED", |wanted| wanted.Network.mut_or_insert_default().ClassID = 1),
        ("CGROUP_UNSUPPORTED", |wanted| wanted.CPU.mut_or_insert_default().Shares = 100),
        ("CGROUP_UNSUPPORTED", |wanted| wanted.BlockIO.mut_or_insert_default().LeafWeight = 100),
        ("CGROUP_VALUE", |wanted| wanted.Memory.mut_or_insert_default().Limit = -2),
        ("CGROUP_VALUE", |wanted| wanted.Memory.mut_or_insert_default().Swap = 10),
        ("CGROUP_VALUE", |wanted| {
            let memory = wanted.Memory.mut_or_insert_default();
            (memory.Limit, memory.Swap) = (100, 50);
        }),
        ("CGROUP_VALUE", |wanted| {
            let io = wanted.BlockIO.mut_or_insert_default();
            io.ThrottleWriteBpsDevice.push(device(-1, 0, 1));
        }),
        ("CGROUP_UNSUPPORTED", |wanted| {
            let io = wanted.BlockIO.mut_or_insert_default();
            io.WeightDevice.push(LinuxWeightDevice { LeafWeight: 1, ..Default::default() });
        }),
        ("CGROUP_VALUE", |wanted| wanted.Memory.mut_or_insert_default().Swap = -5),
    ];
    for (code, change) in refused {
        let wanted = resources(|wanted| {
            wanted.Pids.mut_or_insert_default().Limit = 5;
            change(wanted);
        });
        let error = fake.group().apply(&wanted).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(fake.text("pids.max"), "10\n");
    }
}

#[test]
fn evil_host_page_size_that_is_a_path() {
    let fake = Fake::new(&[("hugetlb.2MB.current", "0\n"), ("pids.max", "10\n")]);
    // `hugetlb.` + size + `.max` would be this file.
    fs::create_dir_all(fake.file("hugetlb.x")).unwrap();
    fs::write(fake.file("hugetlb.x/y.max"), "kept").unwrap();
    for size in ["x/y", "../c1/hugetlb.x/y", "", "1GB", "2MB/../2MB"] {
        let wanted = resources(|wanted| {
            let limit = LinuxHugepageLimit { Pagesize: size.to_owned(), Limit: 1, ..Default::default() };
            wanted.HugepageLimits.push(limit);
        });
        assert_eq!(fake.group().apply(&wanted).unwrap_err().code(), "CGROUP_UNSUPPORTED", "{size:?}");
    }
    assert_eq!(fs::read_to_string(fake.file("hugetlb.x/y.max")).unwrap(), "kept");
}

#[test]
fn conversions_have_their_fixed_points() {
    for (shares, weight) in [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(convert::weight_of_shares(shares), weight, "{shares}");
    }
    for (weight, expected) in [(10, 1), (100, 910), (1000, 10_000), (0, 1)] {
        assert_eq!(convert::io_weight(weight), expected, "{weight}");
    }
}

proptest! {
    #[test]
    fn more_shares_are_never_less_weight(one in 1_u64..300_000, more in 0_u64..300_000) {
        let (low, high) = (convert::weight_of_shares(one), convert::weight_of_shares(one + more));
        prop_assert!((1..=10_000).contains(&low) && low <= high && high <= 10_000);
    }

    #[test]
    fn io_weights_stay_in_their_range(weight in 10_u32..=1000) {
        prop_assert!((1..=10_000).contains(&convert::io_weight(weight)));
        prop_assert!(convert::io_weight(weight) <= convert::io_weight(weight + 1));
    }

    #[test]
    fn swap_and_memory_are_both(memory in 1_i64..i64::MAX / 2, swap in 0_i64..i64::MAX / 2) {
        let memory_alone = u64::try_from(memory).ok();
        let found = convert::swap_of_both(memory + swap, memory_alone).unwrap();
        prop_assert_eq!(found, u64::try_from(swap).ok());
        prop_assert!(convert::swap_of_both(memory - 1, memory_alone).is_err());
        prop_assert_eq!(convert::swap_of_both(-1, memory_alone).unwrap(), None);
    }

    #[test]
    fn garbage_is_no_number(text in "[^0-9]*") {
        prop_assert!(number::parse("f", &text).is_err());
        prop_assert_eq!(number::pairs(&text).count(), 0);
    }
}

fn id(id: &str) -> ContainerId {
    ContainerId::parse(id).unwrap()
}

// COMPAT: GetOOMEvent same: one event for each container, to one of those who ask
#[tokio::test]
async fn an_event_comes_once_and_to_somebody() {
    let fake = Fake::new(&[("memory.events", "oom 0\noom_kill 0\n")]);
    let events = OomEvents::start(&Log::console()).unwrap();
    events.watch(&id("c1"), &fake.group()).unwrap();
    // Who goes away has taken nothing.
    let events = Arc::new(events);
    let waiting = Arc::clone(&events);
    let gone = tokio::spawn(async move { waiting.next().await });
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    fs::write(fake.file("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    assert_eq!(events.next().await, Ok(id("c1")));
    fs::write(fake.file("memory.events"), "oom 2\noom_kill 2\n").unwrap();
    let second = Fake::new(&[("memory.events", "oom_kill 5\n")]);
    events.watch(&id("c2"), &second.group()).unwrap();
    // What happened before it was watched counts; the first container does not count again.
    assert_eq!(events.next().await, Ok(id("c2")));
    let waiting = Arc::clone(&events);
    let ended = tokio::spawn(async move { waiting.next().await });
    tokio::task::yield_now().await;
    events.end();
    assert_eq!(ended.await.unwrap(), Err(oom::EventsEnded));
    assert_eq!(events.next().await, Err(oom::EventsEnded));
}

#[tokio::test]
async fn an_event_is_not_lost_by_the_removal_of_its_container() {
    let fake = Fake::new(&[("memory.events", "oom_kill 0\n")]);
    let events = OomEvents::start(&Log::console()).unwrap();
    events.watch(&id("c1"), &fake.group()).unwrap();
    // No await between the two: the task has not seen it.
    fs::write(fake.file("memory.events"), "oom_kill 1\n").unwrap();
    events.forget(&id("c1"));
    assert_eq!(events.next().await, Ok(id("c1")));
    events.end();
    assert!(events.next().await.is_err());
}

#[tokio::test]
async fn evil_container_events_that_nobody_asks_for() {
    let fake = Fake::new(&[("memory.events", "oom_kill 1\n")]);
    let events = OomEvents::start(&Log::console()).unwrap();
    for index in 0..oom::MAXIMUM_EVENTS + 5 {
        events.watch(&id(&format!("c{index}")), &fake.group()).unwrap();
    }
    events.end();
    let mut count = 0;
    while events.next().await.is_ok() {
        count += 1;
    }
    assert_eq!(count, oom::MAXIMUM_EVENTS);
}

/// Where this machine has version 2 of control groups, if that is anywhere. Guests always have it: `vm_streams`.
fn real_root() -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = table.lines().filter(|line| line.contains(" - cgroup2 "));
    places.filter_map(|line| line.split(' ').nth(4).map(Into::into)).find(|root: &PathBuf| {
        let probe = root.join(format!("innerkeep-probe-{}", std::process::id()));
        fs::create_dir(&probe).is_ok() && fs::remove_dir(&probe).is_ok()
    })
}

#[tokio::test]
async fn a_group_of_the_kernel_is_frozen_killed_and_removed() {
    let Some(root) = real_root() else { return };
    let place = format!("innerkeep-{}/c1", std::process::id());
    let group = Cgroup::create(&root, &path(&place)).unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs::create_dir(root.join(&place).join("inner")).unwrap();
    fs::write(root.join(&place).join("inner/cgroup.procs"), child.id().to_string()).unwrap();
    let found = group.processes().unwrap();
    assert_eq!(
        found.iter().map(|found| found.as_raw_nonzero().get()).collect::<Vec<_>>(),
        [i32::try_from(child.id()).unwrap()]
    );
    assert!(group.is_populated().unwrap());
    group.freeze().await.unwrap();
    assert!(group.is_frozen().unwrap());
    group.thaw().await.unwrap();
    assert!(!group.is_frozen().unwrap());
    // In the inner group there is a process: a container below it is refused.
    let below = Cgroup::create(&root, &path(&format!("{place}/inner/c2"))).unwrap_err();
    assert_eq!(below.code(), "CGROUP_PARENT");
    group.freeze().await.unwrap();
    group.kill_all().await.unwrap();
    assert!(child.wait().unwrap().code().is_none());
    assert!(group.processes().unwrap().is_empty());
    group.remove().await.unwrap();
    assert!(!root.join(Path::new(&place).parent().unwrap()).exists());
}
