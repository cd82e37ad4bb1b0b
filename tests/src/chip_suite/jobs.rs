//! Cases with an unseal.

use super::Suite;
use super::cases::{assert_code, driver};
use super::watched::{DESTINATION, Interrupts, STAGING, Watched};
use chip_client::ChipError;
use chip_client::abi::DataPath;
use chip_client::driver::Driver;
use chip_client::unseal::verify_payload_digest;
use protected_memory::dma::{DmaBuffer, Private};
use protected_memory::landing::{
    FileName, Filling, Landing, LandingPlan, LandingPolicy, SwapPolicy, TeePolicy, TeeState,
};
use sealed_artifact::names::PayloadIndex;
use sealed_artifact::parallel::{Observer, open_slices};
use std::io;
use std::num::NonZeroUsize;

struct Quiet;

impl Observer for Quiet {}

fn landing(suite: &Suite) -> Landing<Filling> {
    let name = FileName::parse("payload").expect("a name");
    let plan = LandingPlan::new([(name, suite.material.plaintext.len() as u64)]).expect("a plan");
    let policy = LandingPolicy { tee: TeePolicy::InsecureNoTee, swap: SwapPolicy::InsecureSwap };
    Landing::create(&plan, policy, TeeState::None).expect("memory for the landing")
}

/// Unseals by `dma-direct`; `meddle` runs each time before ciphertext is read, with the offset.
fn direct(
    suite: &Suite,
    driver: &mut Driver,
    landing: &mut Landing<Filling>,
    mut meddle: impl FnMut(u64),
) -> Result<(), ChipError> {
    let material = &suite.material;
    let mut session = material.session(driver, DataPath::DmaDirect);
    let handle = session.unwrap_grant(&material.request(&session)).expect("a handle");
    let mut read = |offset: u64, to: &mut [u8]| -> io::Result<()> {
        meddle(offset);
        material.read_at(offset, to);
        Ok(())
    };
    let file = landing.file_mut(0).expect("the file");
    session.unseal_direct(&material.job(handle), &mut read, file, &mut |_| ())?;
    session.close()
}

/// Unseals by `dma-sealed` and compares.
pub(super) fn sealed(suite: &Suite, driver: &mut Driver) {
    let material = &suite.material;
    let mut session = material.session(driver, DataPath::DmaSealed);
    let handle = session.unwrap_grant(&material.request(&session)).expect("a handle");
    let mut read = |offset: u64, to: &mut [u8]| -> io::Result<()> {
        material.read_at(offset, to);
        Ok(())
    };
    let mut destination = vec![0xAA; material.plaintext.len()];
    let mut progress = 0;
    session
        .unseal_sealed(&material.job(handle), &mut read, &mut destination, &mut |bytes| progress += bytes)
        .expect("the payload is unsealed");
    assert_eq!(progress, material.plaintext.len() as u64);
    assert!(destination == material.plaintext, "other bytes than were sealed");
    session.close().expect("the session ends");
}

/// Unseals by `dma-direct` as a consumer gets it.
fn lands(suite: &Suite, driver: &mut Driver) {
    let mut landing = landing(suite);
    direct(suite, driver, &mut landing, |_| ()).expect("the payload is unsealed");
    let landed = landing.complete().expect("nobody else can write");
    let bytes = landed.map(0).expect("the file");
    verify_payload_digest(&suite.material.core, PayloadIndex::new(0), bytes.bytes()).expect("the digest");
    assert!(bytes.bytes() == suite.material.plaintext, "other bytes than were sealed");
}

pub(super) fn released_key_opens_the_artifact(suite: &Suite) {
    let material = &suite.material;
    let (mut driver, _) = driver(suite, DataPath::KeyRelease, Interrupts::Delivered);
    let mut session = material.session(&mut driver, DataPath::KeyRelease);
    let key = session.release_key(&material.request(&session)).expect("the key");
    session.close().expect("the session ends");
    let unlocked = material.core.unlock(&key).expect("the key of this core");
    let opener = unlocked.opener(PayloadIndex::new(0), &material.tags).expect("the tags of this core");
    let mut plaintext = vec![0; material.ciphertext.len()];
    open_slices(&opener, NonZeroUsize::MIN, &material.ciphertext, &mut plaintext, &Quiet).expect("opens");
    assert!(plaintext == material.plaintext, "other bytes than were sealed");
}

pub(super) fn unseal_through_shared_memory(suite: &Suite) {
    let (mut driver, _) = driver(suite, DataPath::DmaSealed, Interrupts::Delivered);
    for _ in 0..2 {
        sealed(suite, &mut driver);
    }
}

pub(super) fn unseal_into_the_landing(suite: &Suite) {
    let (mut driver, _) = driver(suite, DataPath::DmaDirect, Interrupts::Delivered);
    for _ in 0..2 {
        lands(suite, &mut driver);
    }
}

pub(super) fn reset_in_the_middle_of_a_job(suite: &Suite) {
    let (mut driver, watched) = driver(suite, DataPath::DmaDirect, Interrupts::Delivered);
    let mut landing = landing(suite);
    let mut resets = 0;
    let result = direct(suite, &mut driver, &mut landing, |offset| {
        // Commands before this one are with the chip.
        if offset > 0 && resets == 0 {
            watched.reset_behind();
            resets = 1;
        }
    });
    assert_eq!(resets, 1, "the payload is more than one command");
    assert_code(result, "CHIP_GONE");
    assert!(driver.is_down(), "a fault stops the controller");
    drop(landing);
    driver.recover().expect("the controller comes up again");
    lands(suite, &mut driver);
}

/// A job in which a mapping is revoked before the chip gets a command that needs it: the chip's own error, and nothing landed.
fn revoked(suite: &Suite, mapping: usize) {
    let (mut driver, watched) = driver(suite, DataPath::DmaDirect, Interrupts::Delivered);
    let mut landing = landing(suite);
    let revoke = |watched: &Watched, offset| {
        if offset == 0 {
            watched.revoke(mapping);
        }
    };
    let result = direct(suite, &mut driver, &mut landing, |offset| revoke(&watched, offset));
    assert_code(result, "CHIP_DMA_FAULT");
    let landed = landing.complete().expect("nobody else can write");
    assert!(landed.map(0).expect("the file").bytes().iter().all(|byte| *byte == 0), "something landed");
    driver.recover().expect("the controller comes up again");
    lands(suite, &mut driver);
}

pub(super) fn destination_unmapped_under_a_job(suite: &Suite) {
    revoked(suite, DESTINATION);
}

pub(super) fn source_unmapped_under_a_job(suite: &Suite) {
    revoked(suite, STAGING);
}

/// The address stays, the memory behind it changes: the chip writes into the new memory and not into the old.
pub(super) fn changed_map_reaches_the_device(suite: &Suite) {
    let (mut driver, watched) = driver(suite, DataPath::DmaDirect, Interrupts::Delivered);
    let mut landing = landing(suite);
    let other = DmaBuffer::<Private>::allocate(suite.material.plaintext.len()).expect("other memory");
    direct(suite, &mut driver, &mut landing, |offset| {
        if offset == 0 {
            watched.replace(DESTINATION, &other.region());
        }
    })
    .expect("the chip does not notice");
    let mut found = vec![0; other.len()];
    other.copy_out(0, &mut found).expect("inside");
    assert!(found == suite.material.plaintext, "the new memory does not hold the payload");
    let landed = landing.complete().expect("nobody else can write");
    let old = landed.map(0).expect("the file");
    assert!(old.bytes().iter().all(|byte| *byte == 0), "the old memory was written");
    let digest = verify_payload_digest(&suite.material.core, PayloadIndex::new(0), old.bytes());
    assert_code(digest, "CHIP_PAYLOAD_DIGEST");
}
