//! Cases without a job.

use super::Suite;
use super::watched::{Interrupts, Watched};
use chip_client::ChipError;
use chip_client::abi::DataPath;
use chip_client::address::DeviceAddress;
use chip_client::chain::ChipIdentity;
use chip_client::driver::{Driver, DriverOptions, RingMemory};
use protected_memory::dma::SharedMemoryProvider;
use std::sync::Arc;
use std::time::Duration;

/// Entries of the driver's rings.
const RING: usize = 64;

pub(super) fn options(path: DataPath) -> DriverOptions {
    DriverOptions::new(match path {
        DataPath::DmaDirect => RingMemory::Private,
        _ => RingMemory::Shared(SharedMemoryProvider::Emulated),
    })
}

/// A driver over a watched backing.
pub(super) fn driver(suite: &Suite, path: DataPath, interrupts: Interrupts) -> (Driver, Arc<Watched>) {
    let watched = Watched::open(&suite.chip, interrupts);
    let backing = Arc::clone(&watched) as Arc<dyn chip_client::backing::DeviceBacking>;
    (Driver::open(backing, options(path)).expect("the controller comes up"), watched)
}

fn plain(suite: &Suite) -> (Driver, Arc<Watched>) {
    driver(suite, DataPath::KeyRelease, Interrupts::Delivered)
}

#[track_caller]
pub(super) fn assert_code<T>(result: Result<T, ChipError>, code: &str) -> ChipError {
    let error = result.err().unwrap_or_else(|| panic!("expected {code}, found success"));
    assert_eq!(error.code(), code, "{error}");
    error
}

pub(super) fn identity_leads_to_the_root(suite: &Suite) {
    let (mut driver, _) = plain(suite);
    let record = driver.identify().expect("an identity");
    let chain = driver.chain().expect("certificates");
    let identity = ChipIdentity::verify(&suite.material.root, &chain).expect("a chip below the root");
    assert_eq!(identity.id().as_bytes(), &record.id);
}

pub(super) fn rings_go_round(suite: &Suite) {
    let (mut driver, _) = plain(suite);
    let first = driver.identify().expect("an identity");
    for _ in 0..4 * RING {
        assert_eq!(driver.identify().expect("an identity"), first);
    }
}

/// No look at the ring is due before the interrupt: without one, nothing is counted.
pub(super) fn interrupts_arrive_on_both_vectors(suite: &Suite) {
    let watched = Watched::open(&suite.chip, Interrupts::Delivered);
    let backing = Arc::clone(&watched) as Arc<dyn chip_client::backing::DeviceBacking>;
    let patient = DriverOptions { poll_interval: Duration::from_secs(5), ..options(DataPath::DmaSealed) };
    let mut driver = Driver::open(backing, patient).expect("the controller comes up");
    for _ in 0..20 {
        driver.identify().expect("an identity");
    }
    let [control, bulk] = watched.signals();
    assert!(control > 0 && bulk == 0, "{control} and {bulk} signals after commands of the control queue");
    super::jobs::sealed(suite, &mut driver);
    let [control_after, bulk] = watched.signals();
    assert!(control_after > control && bulk > 0, "{control_after} and {bulk} signals after a job");
}

pub(super) fn lost_interrupts_are_survived(suite: &Suite) {
    let (mut driver, watched) = driver(suite, DataPath::DmaSealed, Interrupts::Lost);
    for _ in 0..20 {
        driver.identify().expect("an identity");
    }
    super::jobs::sealed(suite, &mut driver);
    assert!(watched.signals().iter().all(|signals| *signals > 0), "there were some to lose: {watched:?}");
}

/// A session before, none after; interrupts still come.
pub(super) fn function_reset_and_recovery(suite: &Suite) {
    let (mut driver, watched) = driver(suite, DataPath::DmaSealed, Interrupts::Delivered);
    for _ in 0..3 {
        driver.function_reset().expect("a function reset");
        driver.identify().expect("an identity");
    }
    let before = watched.signals();
    super::jobs::sealed(suite, &mut driver);
    let after = watched.signals();
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
}

pub(super) fn wrong_place_is_an_error(suite: &Suite) {
    let (wrong, code) = match &suite.chip {
        DeviceAddress::Pci(_) => ("pci:ffff:ff:1f.7", "CHIP_VFIO_NO_DEVICE"),
        DeviceAddress::Socket(_) => ("/nowhere/chip.sock", "CHIP_CONNECT"),
    };
    let wrong = DeviceAddress::parse(wrong.as_ref()).expect("an address");
    assert_code(wrong.open(), code);
}

pub(super) fn device_has_one_owner(suite: &Suite) {
    let (mut driver, watched) = plain(suite);
    assert_code(suite.chip.open(), "CHIP_VFIO_OPEN");
    driver.identify().expect("the owner is not disturbed");
    drop((driver, watched));
    // Released when the last descriptor is closed, which the threads that watch interrupts do not hold.
    let (mut driver, _) = plain(suite);
    driver.identify().expect("an identity");
}
