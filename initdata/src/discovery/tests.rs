use std::collections::BTreeMap;

use super::*;
use crate::pack::{Package, Packed};
use crate::register::Algorithm;
use crate::unverified::Binding;

type Disk = Result<Vec<u8>, i32>;

/// A machine whose disks appear as time goes by.
#[derive(Default)]
struct Machine {
    /// When a disk appears, its name and contents.
    disks: BTreeMap<&'static str, (Duration, Disk)>,
    looks: usize,
    opened: Vec<String>,
    now: Duration,
}

impl Machine {
    fn with(mut self, name: &'static str, after_ms: u64, disk: Disk) -> Self {
        self.disks.insert(name, (Duration::from_millis(after_ms), disk));
        self
    }
}

struct OneDisk(Disk);

impl Device for OneDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Ok(bytes) => bytes.as_slice().read_at(offset, buffer),
            Err(errno) => Err(io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Both sides of the machine, which share its clock.
struct View<'a>(&'a std::cell::RefCell<Machine>);

impl Devices for View<'_> {
    type Device = OneDisk;

    fn list(&mut self) -> io::Result<Vec<DeviceName>> {
        let mut machine = self.0.borrow_mut();
        machine.looks += 1;
        let now = machine.now;
        let there = machine.disks.iter().filter(|(_, (since, _))| *since <= now);
        Ok(there.filter_map(|(name, _)| DeviceName::parse(name)).collect())
    }

    fn open(&mut self, name: &DeviceName) -> io::Result<OneDisk> {
        let mut machine = self.0.borrow_mut();
        machine.opened.push(name.to_string());
        let (_, disk) = machine.disks.get(name.as_str()).unwrap();
        Ok(OneDisk(disk.clone()))
    }
}

impl Waiter for View<'_> {
    fn elapsed(&self) -> Duration {
        self.0.borrow().now
    }

    fn wait(&mut self, at_most: Duration) -> io::Result<()> {
        assert!(!at_most.is_zero() && at_most <= LOOK_AGAIN);
        // An event each 300 ms.
        self.0.borrow_mut().now += at_most.min(Duration::from_millis(300));
        Ok(())
    }
}

fn run(machine: Machine, platform: &Platform) -> (Result<Option<Initdata>, InitdataError>, Machine) {
    let machine = std::cell::RefCell::new(machine);
    let result = obtain(&mut View(&machine), &mut View(&machine), platform);
    (result, machine.into_inner())
}

fn code(result: &Result<Option<Initdata>, InitdataError>) -> &'static str {
    match result {
        Ok(Some(_)) => "initdata",
        Ok(None) => "none",
        Err(error) => error.code(),
    }
}

fn packed() -> Packed {
    let mut package = Package::new(Algorithm::Sha256);
    package.insert("policy.rego", "package agent_policy\n").unwrap();
    package.pack().unwrap()
}

fn image() -> Disk {
    Ok(packed().image())
}

fn launched() -> Platform {
    Platform::Register(Register::new("HOST_DATA", &packed().digest().fitted(32)).unwrap())
}

fn launched_without() -> Platform {
    Platform::Register(Register::new("HOST_DATA", &[0; 32]).unwrap())
}

#[test]
fn names_are_those_of_whole_disks() {
    for name in ["vda", "vdz", "vdaa", "sda", "sdabc"] {
        assert!(DeviceName::parse(name).is_some(), "{name}");
    }
    for name in [
        "",
        "vd",
        "sd",
        "vda1",
        "sdb12",
        "vdA",
        "nvme0n1",
        "vda/../x",
        "loop0",
        "vda\n",
        "vdabcdefghijklmnopq",
    ] {
        assert_eq!(DeviceName::parse(name), None, "{name}");
    }
}

#[test]
fn the_device_of_the_launch_is_found_and_bound() {
    let machine = Machine::default().with("vda", 0, Ok(vec![0; 4096])).with("vdb", 0, image()).with(
        "vdc",
        0,
        Ok(Vec::new()),
    );
    let (result, machine) = run(machine, &launched());
    let initdata = result.unwrap().unwrap();
    assert_eq!(*initdata.binding(), Binding::Register("HOST_DATA".to_owned()));
    assert_eq!(initdata.text(), packed().text());
    assert_eq!((machine.looks, machine.opened.len()), (1, 3), "each disk was opened once");
}

#[test]
fn a_late_device_is_waited_for() {
    for after_ms in [1, 4_000, 9_999] {
        let (result, machine) = run(Machine::default().with("vdb", after_ms, image()), &launched());
        assert_eq!(code(&result), "initdata", "after {after_ms} ms");
        assert!(machine.now <= DEVICE_DEADLINE);
    }
}

#[test]
fn evil_host_withholds_the_device() {
    for machine in [
        Machine::default(),
        Machine::default().with("vda", 0, Ok(vec![7; 4096])),
        Machine::default().with("vdb", 10_001, image()),
        Machine::default().with("vdb1", 0, image()),
    ] {
        let (result, machine) = run(machine, &launched());
        assert_eq!(code(&result), "INITDATA_WITHHELD");
        assert_eq!(machine.now, DEVICE_DEADLINE, "neither sooner nor later");
        assert!(machine.looks >= 11, "looked again");
    }
}

#[test]
fn evil_host_announces_without_end() {
    struct Flood(u64);
    impl Waiter for Flood {
        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0)
        }
        fn wait(&mut self, _: Duration) -> io::Result<()> {
            self.0 += 10;
            Ok(())
        }
    }
    let machine = std::cell::RefCell::new(Machine::default());
    let result = obtain(&mut View(&machine), &mut Flood(0), &launched());
    assert_eq!(code(&result), "INITDATA_WITHHELD");
    assert_eq!(machine.borrow().looks, 1_001);
}

#[test]
fn evil_host_adds_initdata() {
    let (result, machine) = run(Machine::default().with("vdb", 0, image()), &launched_without());
    assert_eq!(code(&result), "INITDATA_UNBOUND");
    assert_eq!(machine.now, Duration::ZERO);
    // Without a device it is a guest without initdata, at once, and later devices are nobody's business.
    let (result, machine) = run(Machine::default().with("vdb", 1, image()), &launched_without());
    assert_eq!(code(&result), "none");
    assert_eq!((machine.now, machine.looks), (Duration::ZERO, 1));
}

#[test]
fn evil_host_initdata_that_nothing_vouches_for() {
    let secure = Platform::NoTee { insecure_unbound: false };
    let without = Platform::WithoutRegister { name: "other".to_owned() };
    for platform in [&secure, &without] {
        let (result, _) = run(Machine::default().with("vdb", 0, image()), platform);
        assert_eq!(code(&result), "INITDATA_NO_REGISTER");
        assert_eq!(code(&run(Machine::default(), platform).0), "none");
    }
    let insecure = Platform::NoTee { insecure_unbound: true };
    let (result, _) = run(Machine::default().with("vdb", 0, image()), &insecure);
    assert_eq!(*result.unwrap().unwrap().binding(), Binding::InsecureUnbound);
    let (result, machine) = run(Machine::default().with("vdb", 1, image()), &insecure);
    assert_eq!((code(&result), machine.looks), ("none", 1), "one look");
}

#[test]
fn evil_host_two_devices() {
    let mut other = Package::new(Algorithm::Sha256);
    other.insert("policy.rego", "package other\n").unwrap();
    let other = Ok(other.pack().unwrap().image());
    for platform in [launched(), Platform::NoTee { insecure_unbound: true }] {
        for second in [image(), other.clone(), Ok(b"initdata\xff\xff\xff\xff\xff\xff\xff\xff".to_vec())] {
            let machine = Machine::default().with("vdb", 0, image()).with("sda", 0, second);
            assert_eq!(code(&run(machine, &platform).0), "INITDATA_AMBIGUOUS");
        }
    }
}

#[test]
fn evil_host_swapped_device_is_not_the_launched_one() {
    let mut other = Package::new(Algorithm::Sha256);
    other.insert("policy.rego", "package other\n").unwrap();
    let disk = Ok(other.pack().unwrap().image());
    let (result, machine) = run(Machine::default().with("vdb", 0, disk), &launched());
    assert_eq!(code(&result), "INITDATA_MISMATCH");
    assert_eq!(machine.looks, 1, "there is no second chance");
}

#[test]
fn a_disk_that_cannot_be_read_is_as_none() {
    let machine = Machine::default().with("vda", 0, Err(5)).with("vdb", 500, image());
    assert_eq!(code(&run(machine, &launched()).0), "initdata");
    let (result, _) = run(Machine::default().with("vda", 0, Err(5)), &launched());
    let error = result.unwrap_err();
    assert_eq!(error.code(), "INITDATA_WITHHELD");
    assert!(error.to_string().contains("vda could not be read"), "{error}");
}

#[test]
fn evil_host_many_devices() {
    struct Many;
    impl Devices for Many {
        type Device = OneDisk;
        fn list(&mut self) -> io::Result<Vec<DeviceName>> {
            Ok(vec![DeviceName::parse("vda").unwrap(); MAXIMUM_DEVICES + 1])
        }
        fn open(&mut self, _: &DeviceName) -> io::Result<OneDisk> {
            panic!("none of them is opened")
        }
    }
    let machine = std::cell::RefCell::new(Machine::default());
    let result = obtain(&mut Many, &mut View(&machine), &launched());
    assert_eq!(code(&result), "INITDATA_TOO_LARGE");
}
