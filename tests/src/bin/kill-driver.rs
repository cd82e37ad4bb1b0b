//! The kill suite's driver: kills seals and unseals at random moments and looks for their plaintext. Started by `tests/kill_suite.rs`
//! inside a mount namespace of its own: `kill-driver KILLS SEED WHOLE_DISK DIRECTORY`. It prints a line of text for each kill and ends with one JSON line.
//!
//! The victims live in a small root file system made here. All of it is read-only but four directories (store, state, tmp, core) and
//! `/proc`; so what a victim writes is in one of the four, in its landing, or nowhere. As root the four are on an ext4 image behind a loop device,
//! and at the end the raw image is searched too: deleted blocks, journal and slack included.

#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind_recursive, mount_remount, unmount};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::args;
use tests::payload::{Payload, Random};
use tests::programs::{Programs, is_root};
use tests::scan::Needles;

/// Directories that victims may write into.
const WRITABLE: [&str; 4] = ["/store", "/state", "/tmp", "/core"];
/// Where a landing may be mounted, in the victim's own namespace.
const ATTACH: &str = "/mnt";
const PROGRAMS: [&str; 3] = ["innerkeep", "innerkeep-chip-emulator", "test-consumer"];
const PAYLOAD_BYTES: usize = 24 << 20;
const IMAGE_BYTES: u64 = 1 << 30;
/// Windows of the payload that are looked for after each kill, one in each piece of 128 KiB; other ones each time.
const WINDOWS: usize = PAYLOAD_BYTES / (128 << 10);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kills, seed, whole_disk, directory] = arguments.as_slice() else {
        panic!("kill-driver KILLS SEED WHOLE_DISK DIRECTORY")
    };
    let kills = kills.parse().expect("a number of kills");
    let mut random = Random::new(seed.parse().expect("a seed"));
    let root = Root::build(Path::new(directory));
    let payload = Payload::random(random.draw(), PAYLOAD_BYTES);
    std::fs::write("/input/payload.bin", payload.bytes()).expect("write the payload");
    let stage = Stage::set(payload, &root);
    root.make_read_only();
    assert_only_allowed_writable(&mounts("/proc/self/mountinfo"));
    let controls = stage.controls(&mut random);
    let outcome = stage.kill_and_search(kills, &mut random);
    let disk = root.search_raw(&stage, &mut random, &controls, whole_disk == "1");
    println!("{}", json!({ "kills": kills, "outcome": outcome, "controls": controls, "disk": disk }));
}

/// The victims' root file system.
struct Root {
    /// The raw image that the writable directories are on. It lies on a mount that nobody can reach any more.
    image: Option<std::fs::File>,
}

impl Root {
    /// Makes it over an empty directory and moves into it.
    fn build(root: &Path) -> Self {
        let programs = Programs::built();
        mount("kill-suite", root, "tmpfs", MountFlags::empty(), Some(c"size=3g,mode=755"))
            .expect("mount the root");
        for name in ["programs", "input", "proc", "dev", "old", "disk", "image"]
            .into_iter()
            .chain(inside(&WRITABLE))
            .chain(inside(&[ATTACH]))
        {
            std::fs::create_dir(root.join(name)).expect("make a directory");
        }
        for name in PROGRAMS {
            std::fs::copy(programs.path(name), root.join("programs").join(name)).expect("copy a program");
        }
        for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "sys"] {
            let host = Path::new("/").join(name);
            match std::fs::symlink_metadata(&host) {
                Ok(metadata) if metadata.is_symlink() => {
                    let target = std::fs::read_link(&host).expect("read a link");
                    std::os::unix::fs::symlink(target, root.join(name)).expect("make a link");
                }
                Ok(_) => {
                    std::fs::create_dir(root.join(name)).expect("make a directory");
                    mount_bind_recursive(&host, root.join(name)).expect("bind a directory of the host");
                }
                Err(_) => {}
            }
        }
        mount_bind_recursive("/proc", root.join("proc")).expect("bind /proc");
        for name in ["null", "zero", "full", "random", "urandom"] {
            bind_device(&Path::new("/dev").join(name), root);
        }
        for device in block_devices().into_iter().chain(swap_areas()) {
            if device.starts_with("/dev") && device.exists() && is_root() {
                bind_device(&device, root);
            }
        }
        let image = make_disk(root);
        for name in inside(&WRITABLE) {
            std::fs::create_dir(root.join("disk").join(name)).expect("make a directory");
            mount_bind_recursive(root.join("disk").join(name), root.join(name))
                .expect("bind a writable directory");
        }
        unmount(root.join("disk"), UnmountFlags::DETACH).expect("unmount the disk");
        rustix::process::pivot_root(root, root.join("old")).expect("change the root");
        std::env::set_current_dir("/").expect("go to the root");
        unmount("/old", UnmountFlags::DETACH).expect("leave the host's file systems");
        let _ = std::fs::remove_dir("/old");
        Self { image }
    }

    /// Makes every mount but the writable directories and `/proc` read-only, for this process too.
    fn make_read_only(&self) {
        for mount in mounts("/proc/self/mountinfo") {
            if mount.writable && !mount.is_allowed_writable() {
                let result =
                    mount_remount(&mount.point, MountFlags::BIND | MountFlags::RDONLY | mount.flags, "");
                result.unwrap_or_else(|error| panic!("make {} read-only: {error}", mount.point));
            }
        }
        std::fs::File::create("/programs/probe").expect_err("the root is read-only now");
    }

    /// Searches swap and what lies below the writable directories, byte by byte.
    fn search_raw(&self, stage: &Stage, random: &mut Random, controls: &Value, whole_disk: bool) -> Value {
        rustix::fs::sync();
        let needles = stage.needles(random);
        let mut searched = Vec::new();
        let mut search = |path: &Path| {
            let (hit, bytes) = needles
                .in_file(path, u64::MAX)
                .unwrap_or_else(|error| panic!("search {}: {error}", path.display()));
            assert_eq!(hit, None, "plaintext in {}", path.display());
            println!("searched {}: {bytes} bytes, nothing", path.display());
            searched.push(json!({ "path": path, "bytes": bytes }));
        };
        for area in swap_areas() {
            assert!(!is_root() || area.exists(), "swap area {} cannot be searched", area.display());
            if area.exists() {
                search(&area);
            }
        }
        if let Some(image) = &self.image {
            // What was deleted is still there: the control's windows are, the payload's are not.
            let control = stage.control_needles();
            let image = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(image)));
            let (hit, bytes) = control.in_file(&image, u64::MAX).expect("search the image");
            println!("control in the raw image: {hit:?} in {bytes} bytes");
            assert!(hit.is_some(), "the deleted control is not found in the raw image: {controls}");
            search(&image);
        } else {
            println!(
                "no raw image: not root of this machine, loop devices cannot be used; files were searched"
            );
        }
        if whole_disk {
            for device in block_devices() {
                if device.exists() && std::fs::File::open(&device).is_ok() {
                    search(&device);
                } else {
                    println!("{} cannot be read and was not searched", device.display());
                }
            }
        }
        json!(searched)
    }
}

fn inside<const N: usize>(paths: &[&'static str; N]) -> impl Iterator<Item = &'static str> + use<N> {
    let paths = *paths;
    paths.into_iter().map(|path| path.trim_start_matches('/'))
}

fn bind_device(device: &Path, root: &Path) {
    let target = root.join(device.strip_prefix("/").expect("an absolute path"));
    std::fs::create_dir_all(target.parent().expect("a device is in a directory")).expect("make a directory");
    std::fs::write(&target, "").expect("make a place for a device");
    mount_bind_recursive(device, &target)
        .unwrap_or_else(|error| panic!("bind {}: {error}", device.display()));
}

/// The file system of the writable directories: ext4 in an image where loop devices can be had, else tmpfs.
fn make_disk(root: &Path) -> Option<std::fs::File> {
    let disk = root.join("disk");
    if !has_loop_devices() {
        mount("kill-suite", &disk, "tmpfs", MountFlags::empty(), Some(c"size=1g,mode=755"))
            .expect("mount the disk");
        return None;
    }
    mount("kill-suite", root.join("image"), "tmpfs", MountFlags::empty(), Some(c"size=2g,mode=700"))
        .expect("mount a place");
    let image = root.join("image/disk");
    std::fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).expect("make the image");
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&disk));
    let file = std::fs::File::open(&image).expect("open the image");
    unmount(root.join("image"), UnmountFlags::DETACH).expect("unmount the place");
    let _ = std::fs::remove_dir(disk.join("lost+found"));
    Some(file)
}

/// Root of the machine, not only of a user namespace, with loop devices.
fn has_loop_devices() -> bool {
    let initial = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    initial && is_root() && Path::new("/dev/loop-control").exists()
}

#[track_caller]
fn run(command: &mut Command) {
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn swap_areas() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect()
}

/// Block devices with data of their own; loop devices show files of other ones.
fn block_devices() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/partitions").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3));
    names
        .filter(|name| !name.starts_with("loop") && !name.starts_with("ram"))
        .map(|name| Path::new("/dev").join(name))
        .collect()
}

/// A line of a mount table.
#[derive(Debug)]
struct Mount {
    point: String,
    kind: String,
    writable: bool,
    flags: MountFlags,
}

impl Mount {
    /// The writable directories, and `/proc`, which holds no files.
    fn is_allowed_writable(&self) -> bool {
        WRITABLE.contains(&self.point.as_str()) || (self.kind == "proc" && self.point == "/proc")
    }

    /// The landing of a victim, or the room around it.
    fn is_landing(&self) -> bool {
        self.kind == "tmpfs" && Path::new(&self.point).starts_with(ATTACH)
    }
}

/// The mounts in a mount table; none when the process is gone.
fn mounts(table: &str) -> Vec<Mount> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    text.lines()
        .map(|line| {
            let (mount, superblock) = line.split_once(" - ").expect("a line of mountinfo");
            let fields: Vec<&str> = mount.split(' ').collect();
            let options: Vec<&str> = fields[5].split(',').collect();
            let mut flags = MountFlags::empty();
            for option in &options {
                flags |= match *option {
                    "nosuid" => MountFlags::NOSUID,
                    "nodev" => MountFlags::NODEV,
                    "noexec" => MountFlags::NOEXEC,
                    "noatime" => MountFlags::NOATIME,
                    "nodiratime" => MountFlags::NODIRATIME,
                    "relatime" => MountFlags::RELATIME,
                    _ => MountFlags::empty(),
                };
            }
            let mut superblock = superblock.split(' ');
            let kind = superblock.next().expect("a file system type").to_owned();
            let superblock_is_writable =
                superblock.nth(1).is_some_and(|options| options.split(',').any(|one| one == "rw"));
            let writable = options.contains(&"rw") && superblock_is_writable;
            Mount { point: fields[4].to_owned(), kind, writable, flags }
        })
        .collect()
}

fn assert_only_allowed_writable(mounts: &[Mount]) {
    for mount in mounts.iter().filter(|mount| mount.writable) {
        assert!(mount.is_allowed_writable() || mount.is_landing(), "writable: {mount:?}");
    }
}

/// Chip, keys and the artifact to unseal.
struct Stage {
    payload: Payload,
    control: Payload,
    content_key: Vec<Vec<u8>>,
    chip: std::cell::RefCell<Child>,
}

impl Stage {
    fn set(payload: Payload, _root: &Root) -> Self {
        // Victims could dump core as far as we are concerned.
        let unlimited = Rlimit { current: None, maximum: None };
        let hard = rustix::process::getrlimit(Resource::Core).maximum;
        let _ = setrlimit(Resource::Core, unlimited)
            .or_else(|_| setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard }));
        let chip = std::cell::RefCell::new(start_chip());
        let control = Payload::random(0xC0_47_80_11, 4 << 20);
        let mut stage = Self { payload, control, content_key: Vec::new(), chip };
        stage.innerkeep(&args![
            "chip",
            "provision",
            "--chip",
            "/state/chip.sock",
            "--ca",
            "/input/ca",
            "--environment",
            "development"
        ]);
        stage.innerkeep(&args![
            "chip",
            "info",
            "--chip",
            "/state/chip.sock",
            "--chip-root",
            "/input/ca/root.pem",
            "--chain-out",
            "/input/chip.pem"
        ]);
        stage.innerkeep(&args!["key", "new", "--output", "/input/sealer.pem"]);
        std::fs::write(
            "/input/policy.toml",
            "environment = { exactly = \"development\" }\nfamily = { exactly = \"acme/ranker\" }\nlink_mode = \"any\"\nmin_counter = 5\n",
        )
        .expect("write the policy");
        stage.innerkeep(&seal("/store/reference", "/input/reference.key"));
        stage.innerkeep(&args![
            "grant",
            "add",
            "/store/reference",
            "--key",
            "/input/reference.key",
            "--to",
            "chip:/input/chip.pem",
            "--chip-root",
            "/input/ca/root.pem",
            "--policy",
            "/input/policy.toml",
            "--allow-weak-policy"
        ]);
        stage.content_key = tests::scene::content_key(Path::new("/input/reference.key"));
        stage
    }

    fn command(arguments: &[OsString]) -> Command {
        let mut command = Command::new("/programs/innerkeep");
        command.arg("--json").args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/state").env("TMPDIR", "/tmp").current_dir("/core");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn innerkeep(&self, arguments: &[OsString]) {
        run(&mut Self::command(arguments));
    }

    /// Windows of the payload, freshly chosen, and the content key of the reference artifact.
    fn needles(&self, random: &mut Random) -> Needles {
        let mut needles: Vec<Vec<u8>> =
            self.payload.windows(random, WINDOWS).iter().map(|window| window.to_vec()).collect();
        needles.extend(self.content_key.iter().cloned());
        Needles::new(needles)
    }

    fn control_needles(&self) -> Needles {
        Needles::new(self.control.windows(&mut Random::new(7), 64))
    }

    /// What is searched is found: in each directory, and in the core file of a process that holds it.
    fn controls(&self, random: &mut Random) -> Value {
        let needles = self.control_needles();
        for directory in WRITABLE {
            let path = Path::new(directory).join("control");
            let mut file = std::fs::File::create(&path).expect("write a control");
            let at = random.below(self.control.bytes().len() - (256 << 10));
            std::io::Write::write_all(&mut file, &self.control.bytes()[at..at + (256 << 10)])
                .expect("write a control");
            file.sync_all().expect("bring the control to the disk");
            let (hits, _) = needles.below(Path::new(directory));
            assert_eq!(hits.len(), 1, "the control in {directory} was not found");
            std::fs::remove_file(&path).expect("remove a control");
        }
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read core_pattern");
        let core = if pattern.starts_with(['|', '/', '@']) {
            format!("core_pattern is {:?}: core files do not come to the working directory", pattern.trim())
        } else {
            self.core_control(&needles)
        };
        println!("controls found in {WRITABLE:?}; {core}");
        json!({ "directories": WRITABLE, "core": core })
    }

    fn core_control(&self, needles: &Needles) -> String {
        // A consumer that holds the control and is ended as victims are.
        std::fs::write("/tmp/held", &self.control.bytes()[..512 << 10]).expect("write what is held");
        let mut holder = Command::new("/programs/test-consumer");
        holder.args(["hold", "/tmp/marker", "/tmp/held"]).current_dir("/core");
        let mut child = holder.spawn().expect("start the holder");
        wait_until("the holder holds", || Path::new("/tmp/marker").exists());
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, Signal::ABORT);
        let status = child.wait().expect("wait for the holder");
        let (hits, bytes) = needles.below(Path::new("/core"));
        assert!(
            !status.core_dumped() || !hits.is_empty(),
            "a core file was written and the control is not in it ({bytes} bytes)"
        );
        clean(&["/tmp", "/core"], &[]);
        if hits.is_empty() {
            "no core files can be written here".to_owned()
        } else {
            format!("core control found in {}", hits[0].path.display())
        }
    }

    fn kill_and_search(&self, kills: usize, random: &mut Random) -> Value {
        let keep: BTreeSet<PathBuf> =
            ["/store/reference", "/state/chip.sock", "/state/chip", "/state/chip.log"]
                .map(PathBuf::from)
                .into();
        let keep: Vec<PathBuf> = keep.into_iter().collect();
        let durations = [false, true].map(|unsealing| {
            let start = Instant::now();
            for round in 0..3 {
                self.innerkeep(&if unsealing {
                    unseal(round)
                } else {
                    seal(&format!("/store/warm-{round}"), &format!("/state/warm-{round}.key"))
                });
            }
            clean(&WRITABLE, &keep);
            start.elapsed() / 3
        });
        println!("a seal takes {:?}, an unseal {:?}", durations[0], durations[1]);
        let mut durations = durations.map(|duration| u64::try_from(duration.as_micros()).expect("64 bits"));
        let (mut in_flight, mut through, mut bytes_searched, mut chips_killed) = ([0, 0], [0, 0], 0, 0);
        // A kill counts when it found its victim at work.
        for kill in 0..kills * 6 {
            let unsealing = in_flight[1] < in_flight[0];
            if in_flight[0] + in_flight[1] == kills {
                break;
            }
            let arguments = match (unsealing, random.below(2)) {
                (true, _) => unseal(random.below(3)),
                (false, 0) => seal("/store/victim", "/state/victim.key"),
                (false, _) => seal("/store/victim.sealed", "/state/victim.key"),
            };
            let mut victim = Self::command(&arguments).stderr(Stdio::null()).spawn().expect("start a victim");
            let microseconds = durations[usize::from(unsealing)];
            let delay = Duration::from_micros(random.draw() % (microseconds * 11 / 10));
            std::thread::sleep(delay);
            assert_only_allowed_writable(&mounts(&format!("/proc/{}/mountinfo", victim.id())));
            // Mostly as the kernel kills; sometimes by signals that write core files.
            let by = [
                Signal::KILL,
                Signal::KILL,
                Signal::KILL,
                Signal::KILL,
                Signal::KILL,
                Signal::KILL,
                Signal::ABORT,
                Signal::SEGV,
            ][random.below(8)];
            let consumers = descendants(victim.id());
            signal(&victim, by);
            let status = victim.wait().expect("wait for a victim");
            for consumer in consumers {
                wait_until("the consumer of a killed unseal ends", || {
                    !Path::new(&format!("/proc/{consumer}/exe")).exists()
                });
            }
            // The next delays stay within what the work takes now.
            let at_work = status.signal().is_some();
            let (counter, factor) = if at_work { (&mut in_flight, 105) } else { (&mut through, 90) };
            counter[usize::from(unsealing)] += 1;
            durations[usize::from(unsealing)] = (microseconds * factor / 100).max(1000);
            // Now and then the chip loses its power too.
            if random.below(8) == 0 {
                let mut chip = self.chip.borrow_mut();
                let _ = chip.kill();
                let _ = chip.wait();
                chips_killed += 1;
                *chip = start_chip();
            }
            let needles = self.needles(random);
            for directory in WRITABLE {
                let (hits, bytes) = needles.below(Path::new(directory));
                bytes_searched += bytes;
                assert!(
                    hits.is_empty(),
                    "kill {kill} ({arguments:?}, {by:?} after {delay:?}): plaintext in {hits:?}"
                );
            }
            // A process that dies before its first statement may leave a core; it was searched above like everything else.
            let cores = std::fs::read_dir("/core").expect("list core files").count();
            println!(
                "kill {kill}: {} by {by:?} after {} µs of {microseconds}, {status}: nothing found, {cores} core(s) searched",
                if unsealing { "unseal" } else { "seal" },
                delay.as_micros()
            );
            clean(&WRITABLE, &keep);
        }
        assert_eq!(
            in_flight[0] + in_flight[1],
            kills,
            "too few victims died at work; {through:?} were through before"
        );
        // All is well afterwards.
        for path in 0..3 {
            self.innerkeep(&unseal(path));
        }
        clean(&WRITABLE, &keep);
        json!({
            "seals_killed": in_flight[0], "seals_through": through[0], "unseals_killed": in_flight[1], "unseals_through": through[1],
            "chips_killed": chips_killed, "bytes_searched": bytes_searched, "windows": WINDOWS,
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.chip.borrow_mut().kill();
        let _ = self.chip.borrow_mut().wait();
    }
}

fn start_chip() -> Child {
    let _ = std::fs::remove_file("/state/chip.sock");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open("/state/chip.log")
        .expect("open the chip's log");
    let mut command = Command::new("/programs/innerkeep-chip-emulator");
    command.args([
        "--insecure-no-evidence",
        "--insecure-emulated-dma",
        "--socket",
        "/state/chip.sock",
        "--state",
        "/state/chip",
    ]);
    command.current_dir("/core").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut chip = command.spawn().expect("start the chip");
    wait_until("the chip listens", || {
        assert!(
            matches!(chip.try_wait(), Ok(None)),
            "the chip ended: {}",
            std::fs::read_to_string("/state/chip.log").unwrap_or_default()
        );
        Path::new("/state/chip.sock").exists()
    });
    chip
}

fn seal(output: &str, key: &str) -> Vec<OsString> {
    args![
        "seal",
        "/input/payload.bin",
        "--output",
        output,
        "--key-out",
        key,
        "--family",
        "acme/ranker",
        "--counter",
        "7",
        "--environment",
        "development",
        "--sealer-key",
        "/input/sealer.pem",
        "--segment-size",
        "131072"
    ]
}

fn unseal(path: usize) -> Vec<OsString> {
    let path = ["key-release", "dma-sealed", "dma-direct"][path];
    let mut arguments = args![
        "unseal",
        "/store/reference",
        "--sealer-key",
        "/input/sealer.pem.pub",
        "--family",
        "acme/ranker",
        "--min-counter",
        "5",
        "--chip",
        "/state/chip.sock",
        "--chip-root",
        "/input/ca/root.pem",
        "--path",
        path,
        "--insecure-no-tee",
        "--insecure-no-evidence"
    ];
    if tests::scene::swap_is_on() {
        arguments.extend(args!["--insecure-swap"]);
    }
    arguments.extend(args!["--insecure-emulated-dma"]);
    arguments.extend(args!["--", "/programs/test-consumer", "look", "/tmp/marker", "{}"]);
    arguments
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).expect("a process id");
    kill_process(Pid::from_raw(id).expect("a process id"), signal).expect("send a signal");
}

fn descendants(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("list processes").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit_once(") ").map(|(_, after)| after).unwrap_or_default();
        if after.split(' ').nth(1).is_some_and(|id| id == parent.to_string()) {
            found.push(id);
            found.extend(descendants(id));
        }
    }
    found
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Empties directories, but for what is kept.
fn clean(directories: &[&str], keep: &[PathBuf]) {
    for directory in directories {
        for entry in std::fs::read_dir(directory).expect("list a directory") {
            let path = entry.expect("list a directory").path();
            if !keep.contains(&path) {
                let removed =
                    if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.unwrap_or_else(|error| panic!("remove {}: {error}", path.display()));
            }
        }
    }
}
