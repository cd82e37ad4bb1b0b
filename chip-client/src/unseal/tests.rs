//! Jobs against a chip whose shared memory is rewritten on the way.

use std::num::NonZeroUsize;
use std::sync::Arc;

use protected_memory::dma::{DmaBuffer, Private};
use sealed_artifact::grant::GrantSuite;
use sealed_artifact::names::{Counter, EnvironmentTag, Family, MediaType, PayloadName, SegmentSize};
use sealed_artifact::parallel::{Observer, seal_slices};
use sealed_artifact::seal::{SealInput, SealRequest, Sealed, Sealer};

use super::*;
use crate::abi::InsecureFlags;
use crate::driver::{Driver, RingMemory};
use crate::session::{ExpectedChip, Requirement, SuiteRequirement};
use crate::testing::{Chip, FakeDevice, World, assert_code};

const SEGMENT: usize = 65_536;

struct Quiet;

impl Observer for Quiet {}

/// An artifact of one payload. The test chip takes ciphertext for plaintext, so only its shape matters.
fn artifact(plaintext: &[u8], digests: bool) -> Sealed {
    let request = SealRequest {
        counter: Counter::new(1),
        environment: EnvironmentTag::parse("production").unwrap(),
        family: Family::parse("acme/test").unwrap(),
        inputs: vec![SealInput {
            media_type: MediaType::parse("application/octet-stream").unwrap(),
            name: PayloadName::parse("model").unwrap(),
            size: plaintext.len() as u64,
        }],
        payload_digests: digests,
        sealer: None,
        segment_size: SegmentSize::parse(SEGMENT as u64).unwrap(),
    };
    let sealer = Sealer::new(&request).unwrap();
    let mut ciphertext = vec![0; plaintext.len()];
    seal_slices(&sealer.payloads()[0], NonZeroUsize::MIN, plaintext, &mut ciphertext, &Quiet).unwrap();
    sealer.finish().unwrap()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn request(core: &Core) -> UnwrapRequest<'_> {
    UnwrapRequest {
        suite: GrantSuite::P384,
        key_epoch: 1,
        core: core.bytes(),
        encapsulated: vec![1; 97],
        wrapped: vec![2; 48],
        sealer: None,
    }
}

fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> {
    |offset, to| {
        let start = usize::try_from(offset).unwrap();
        to.copy_from_slice(&bytes[start..start + to.len()]);
        Ok(())
    }
}

/// Unseals `bytes` over `dma-sealed` with a chip that lies; the result, and what landed.
fn unseal(
    bytes: &[u8],
    digests: bool,
    lie: impl FnOnce(&mut Chip),
) -> (Result<(), ChipError>, Vec<u8>, Driver) {
    let sealed = artifact(bytes, digests);
    let world = World::new();
    let mut chip = world.chip();
    lie(&mut chip);
    let device = FakeDevice::new(chip);
    let mut driver = device.driver();
    let guest = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE);
    let requirement = Requirement {
        root: &world.root,
        chip: ExpectedChip::Exactly(world.id()),
        path: DataPath::DmaSealed,
        suite: SuiteRequirement::Hybrid,
        guest_insecure: guest,
        accepted_insecure: InsecureFlags::EMULATED_CHIP,
    };
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", |_| Ok(Vec::new())).unwrap();
    let handle = session.unwrap_grant(&request(&sealed.core)).unwrap();
    let job = UnsealJob {
        handle,
        core: &sealed.core,
        payload: PayloadIndex::new(0),
        tag_table: sealed.tag_tables[0].bytes(),
        staging: SharedMemoryProvider::Emulated,
    };
    let mut landed = vec![0xAA; bytes.len()];
    let mut done = 0;
    let result = session.unseal_sealed(&job, &mut reader(bytes), &mut landed, &mut |n| done += n);
    if result.is_ok() {
        assert_eq!(done, bytes.len() as u64);
    }
    drop(session);
    assert_eq!(device.state().memory.mappings(), 1, "staging is unmapped, the rings are not");
    (result, landed, driver)
}

#[test]
fn sealed_payloads_of_many_sizes() {
    for len in [0, 1, SEGMENT, SEGMENT + 1, 3_000_001, 9 << 20] {
        let bytes = payload(len);
        let (result, landed, _) = unseal(&bytes, true, |_| {});
        result.unwrap();
        assert!(landed == bytes, "{len} bytes");
    }
}

#[test]
fn evil_flipped_bit_in_shared_memory() {
    let bytes = payload(3 * SEGMENT);
    let (result, landed, driver) = unseal(&bytes, false, |chip| chip.lies.flip_bulk = true);
    let error = assert_code(result, "CHIP_SEGMENT_FORGED");
    assert!(error.to_string().contains("payload 0, segment 0"), "{error}");
    assert!(landed.iter().all(|b| *b == 0), "nothing landed");
    assert!(driver.is_down());
}

#[test]
fn evil_segments_swapped_in_shared_memory() {
    let bytes = payload(3 * SEGMENT);
    let (result, landed, _) = unseal(&bytes, false, |chip| chip.lies.swap_bulk = Some(SEGMENT));
    assert_code(result, "CHIP_SEGMENT_FORGED");
    assert!(landed.iter().all(|b| *b == 0));
}

#[test]
fn evil_other_plaintext_under_the_same_tags() {
    let sealed = artifact(&payload(100), true);
    let index = PayloadIndex::new(0);
    verify_payload_digest(&sealed.core, index, &payload(100)).unwrap();
    let mut other = payload(100);
    other[99] ^= 1;
    assert_code(verify_payload_digest(&sealed.core, index, &other), "CHIP_PAYLOAD_DIGEST");
    assert_code(verify_payload_digest(&sealed.core, PayloadIndex::new(1), &other), "CHIP_NO_PAYLOAD");
    let without = artifact(&payload(100), false);
    verify_payload_digest(&without.core, index, &other).unwrap();
}

#[test]
fn refusal_of_the_chip_in_the_middle_of_a_job() {
    use crate::abi::{Opcode, Status};
    let bytes = payload(8 << 20);
    let mut count = 0;
    let (result, landed, driver) = unseal(&bytes, false, |chip| {
        chip.lies.refuse = Some(Box::new(move |opcode| {
            count += u32::from(opcode == Opcode::Unseal);
            (opcode == Opcode::Unseal && count == 3).then_some((Status::SegmentAuth, 33))
        }));
    });
    let error = assert_code(result, "CHIP_SEGMENT_AUTH");
    assert!(error.to_string().contains("segment 33"), "{error}");
    assert!(landed.iter().all(|b| *b == 0));
    assert!(driver.is_down());
}

#[test]
fn lengths_that_are_not_the_cores_are_refused() {
    let sealed = artifact(&payload(100), true);
    let job = UnsealJob {
        handle: Handle(1),
        core: &sealed.core,
        payload: PayloadIndex::new(0),
        tag_table: &[0; 15],
        staging: SharedMemoryProvider::Emulated,
    };
    assert_code(job.layout(100), "CHIP_JOB_LENGTH");
    let job = UnsealJob { tag_table: &[0; 16], ..job };
    assert_code(job.layout(99), "CHIP_JOB_LENGTH");
    assert_code(UnsealJob { payload: PayloadIndex::new(7), ..job }.layout(100), "CHIP_NO_PAYLOAD");
    assert_eq!(job.layout(100).unwrap().size(), 100);
}

/// Unseals over `dma-direct` into a private buffer, on a device that lies about its address space.
fn unseal_direct(bytes: &[u8], refuse_unmap: bool) -> (Result<(), ChipError>, Vec<u8>) {
    let sealed = artifact(bytes, false);
    let world = World::new();
    let flags = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE).union(InsecureFlags::EMULATED_DMA);
    let mut chip = world.chip();
    chip.lies.accept = Some(Box::new(|a| a.insecure = InsecureFlags::EMULATED_DMA));
    let device = FakeDevice::new(chip);
    device.state().lies.refuse_unmap_of = refuse_unmap.then_some(bytes.len() as u64);
    let mut options = FakeDevice::options();
    options.ring_memory = RingMemory::Private;
    let mut driver = Driver::open(Arc::new(device.clone()), options).unwrap();
    let requirement = Requirement {
        root: &world.root,
        chip: ExpectedChip::Exactly(world.id()),
        path: DataPath::DmaDirect,
        suite: SuiteRequirement::Hybrid,
        guest_insecure: flags,
        accepted_insecure: flags,
    };
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", |_| Ok(Vec::new())).unwrap();
    let handle = session.unwrap_grant(&request(&sealed.core)).unwrap();
    let job = UnsealJob {
        handle,
        core: &sealed.core,
        payload: PayloadIndex::new(0),
        tag_table: sealed.tag_tables[0].bytes(),
        staging: SharedMemoryProvider::Emulated,
    };
    let buffer = DmaBuffer::<Private>::allocate(bytes.len()).unwrap();
    let layout = job.layout(bytes.len() as u64).unwrap();
    let region = buffer.region();
    let result = session.inner.unseal_region(&job, &layout, &mut reader(bytes), &region, &mut |_| ());
    let mut landed = vec![0; bytes.len()];
    buffer.copy_out(0, &mut landed).unwrap();
    drop(session);
    assert_eq!(device.state().memory.mappings(), 1 + usize::from(refuse_unmap));
    (result, landed)
}

#[test]
fn direct_payloads() {
    for len in [1, SEGMENT + 1, 3_000_001] {
        let (result, landed) = unseal_direct(&payload(len), false);
        result.unwrap();
        assert!(landed == payload(len), "{len} bytes");
    }
}

#[test]
fn evil_device_does_not_confirm_the_unmap() {
    let (result, _) = unseal_direct(&payload(100_000), true);
    assert_code(result, "CHIP_KEEPS_MEMORY");
}
