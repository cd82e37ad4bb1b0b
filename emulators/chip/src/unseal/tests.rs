#![expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]

use std::time::{Duration, Instant};

use aes_gcm::Nonce;
use aes_gcm::aead::{Aead, Payload};
use chip_client::abi::limits::{MAX_BULK_BYTES, MAX_SEGMENTS};
use chip_client::abi::*;

use crate::firmware::Modes;
use crate::testing::{
    Artifact, ArtifactOptions, BASE, Bench, DATA, Guest, GuestOptions, INSECURE, INSECURE_DMA, nonce, policy,
};

const SEGMENT: u64 = 65_536;
/// Ciphertext, tags and destination in the client's memory.
const SOURCE: u64 = DATA;
const TAGS: u64 = DATA + (8 << 20);
const DESTINATION: u64 = DATA + (16 << 20);

struct Bulk {
    bench: Bench,
    guest: Guest,
    artifact: Artifact,
    handle: u32,
}

impl Bulk {
    fn new(path: DataPath, sizes: &[u64]) -> Self {
        Self::with_plan(path, sizes, "")
    }

    fn with_plan(path: DataPath, sizes: &[u64], plan: &str) -> Self {
        let modes = if path == DataPath::DmaDirect { INSECURE_DMA } else { INSECURE };
        let mut bench = Bench::with_faults(modes, plan);
        let artifact = Artifact::seal(&ArtifactOptions { sizes, ..ArtifactOptions::default() });
        let policy = policy(&[]);
        let mut guest = Guest::open(&mut bench, GuestOptions::path(path)).unwrap();
        let present = Present { evidence: b"", preimage: policy.preimage() }.encode();
        guest.ask(&mut bench, Opcode::Present, &present).unwrap();
        let grant = artifact.grant(&bench.keys(), &policy, Unwrap::SUITE_P384).encode();
        let handle = parse_handle(&guest.ask(&mut bench, Opcode::Unwrap, &grant).unwrap()).unwrap();
        Self { bench, guest, artifact, handle }
    }

    fn place(&self, payload: usize) {
        self.bench.write(SOURCE, &self.artifact.ciphertexts[payload]);
        self.bench.write(TAGS, &self.artifact.tags[payload]);
    }

    fn load(&mut self, payload: u32) -> Result<Vec<u8>, (Status, u32)> {
        self.place(payload as usize);
        let length = self.artifact.tags[payload as usize].len() as u64;
        let input = LoadTags { handle: self.handle, payload, table: Sgl::single(TAGS, length) }.encode();
        self.guest.ask(&mut self.bench, Opcode::LoadTags, &input)
    }

    fn register(&mut self, ranges: &[(u64, u64)]) {
        let mut input = Vec::new();
        list(ranges).put(&mut input);
        self.guest.ask(&mut self.bench, Opcode::Register, &input).unwrap();
    }

    fn job(&self, payload: u32, first: u64, count: u32) -> Unseal {
        let size = self.artifact.plaintexts[payload as usize].len() as u64;
        let start = (first * SEGMENT).min(size);
        let length = ((first + u64::from(count)) * SEGMENT).min(size) - start;
        Unseal {
            handle: self.handle,
            payload,
            first,
            count,
            source: Sgl::single(SOURCE + start, length),
            destination: Sgl::single(DESTINATION + start, length),
        }
    }

    fn unseal(&mut self, job: &Unseal) -> Result<Vec<u8>, (Status, u32)> {
        self.guest.ask(&mut self.bench, Opcode::Unseal, &job.encode())
    }

    fn destination(&self, length: usize) -> Vec<u8> {
        self.bench.read(DESTINATION, length)
    }
}

fn list(ranges: &[(u64, u64)]) -> Sgl {
    Sgl { entries: ranges.iter().map(|&(iova, length)| SglEntry { iova, length }).collect() }
}

#[test]
fn direct_jobs_write_plaintext() {
    let mut bulk = Bulk::new(DataPath::DmaDirect, &[200_000, 0, 65_536]);
    bulk.register(&[(DESTINATION, 1 << 20)]);
    bulk.load(0).unwrap();
    // Segments in any order, over lists cut anywhere.
    let mut job = bulk.job(0, 2, 2);
    job.source = list(&[(SOURCE + 131_072, 1), (SOURCE + 131_073, 68_927)]);
    job.destination = list(&[(DESTINATION + 131_072, 60_000), (DESTINATION + 191_072, 8_928)]);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    let job = bulk.job(0, 0, 2);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_eq!(bulk.destination(200_000), bulk.artifact.plaintexts[0]);
    bulk.load(1).unwrap();
    let job = bulk.job(1, 0, 1);
    assert_eq!(bulk.unseal(&job), Ok(vec![]), "an empty payload is one empty segment");
    bulk.load(2).unwrap();
    let job = bulk.job(2, 0, 1);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_eq!(bulk.destination(65_536), bulk.artifact.plaintexts[2]);
}

#[test]
fn sealed_jobs_write_ciphertext_of_the_session() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let mut counter = 0;
    for (first, count) in [(0u64, 3u32), (3, 1)] {
        let job = bulk.job(0, first, count);
        let sent = bulk.guest.send(&mut bulk.bench, 1, Opcode::Unseal, &job.encode());
        let (status, _, output) = bulk.guest.receive(&mut bulk.bench, 1, &sent).unwrap();
        assert_eq!(status, Status::Ok);
        let reply = SealedReply::parse(&output, count).unwrap();
        assert_eq!(reply.first_counter, counter);
        for (segment, tag) in (first..).zip(reply.tags) {
            let start = segment * SEGMENT;
            let length = SEGMENT.min(200_000 - start) as usize;
            let mut sealed = bulk.bench.read(DESTINATION + start, length);
            let plaintext = &bulk.artifact.plaintexts[0][start as usize..][..length];
            assert_ne!(sealed, plaintext, "no plaintext in shared memory");
            sealed.extend(tag);
            let aad = Guest::bulk_aad(&sent, 0, segment);
            let nonce = Nonce::from(nonce(0x8000_0001, counter));
            let opened = bulk.guest.bulk.decrypt(&nonce, Payload { msg: &sealed, aad: &aad }).unwrap();
            assert_eq!(opened, plaintext);
            counter += 1;
        }
    }
}

#[test]
fn evil_altered_segment_releases_nothing() {
    let mut bulk = Bulk::new(DataPath::DmaDirect, &[200_000]);
    bulk.register(&[(DESTINATION, 1 << 20)]);
    bulk.load(0).unwrap();
    bulk.bench.write(DESTINATION, &[0x77; 200_000]);
    let at = SOURCE + 2 * SEGMENT + 5;
    let byte = bulk.bench.read(at, 1)[0];
    bulk.bench.write(at, &[byte ^ 1]);
    let job = bulk.job(0, 0, 4);
    assert_eq!(bulk.unseal(&job), Err((Status::SegmentAuth, 2)));
    assert!(bulk.destination(200_000).iter().all(|b| *b == 0), "also what was decrypted before is zeroed");
}

#[test]
fn evil_tag_table_of_another_payload_is_refused() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000, 200_000]);
    bulk.place(1);
    let length = bulk.artifact.tags[0].len() as u64;
    let mut load = |payload, table| {
        let input = LoadTags { handle: bulk.handle, payload, table }.encode();
        bulk.guest.ask(&mut bulk.bench, Opcode::LoadTags, &input)
    };
    assert_eq!(load(0, Sgl::single(TAGS, length)), Err((Status::TagsMismatch, 0)));
    assert_eq!(load(1, Sgl::single(TAGS, length - 1)), Err((Status::BadLength, 0)));
    assert_eq!(load(1, Sgl::single(TAGS, length + 16)), Err((Status::BadLength, 0)));
    assert_eq!(load(2, Sgl::single(TAGS, length)), Err((Status::BadField, 0)));
    assert_eq!(load(1, Sgl::single(0x1000, length)), Err((Status::DmaFault, 0)));
    let job = bulk.job(0, 0, 1);
    assert_eq!(bulk.unseal(&job), Err((Status::TagsNotLoaded, 0)));
    bulk.load(1).unwrap();
    assert_eq!(bulk.unseal(&job), Err((Status::TagsNotLoaded, 0)), "one payload at a time");
}

#[test]
fn evil_destination_outside_the_registered_ranges_is_refused() {
    let mut bulk = Bulk::new(DataPath::DmaDirect, &[200_000]);
    bulk.load(0).unwrap();
    let job = bulk.job(0, 0, 4);
    assert_eq!(bulk.unseal(&job), Err((Status::Range, 0)), "nothing is registered");
    bulk.register(&[(DESTINATION, 199_999)]);
    assert_eq!(bulk.unseal(&job), Err((Status::Range, 0)));
    bulk.register(&[(DESTINATION + 200_000, 1 << 20)]);
    assert_eq!(bulk.unseal(&job), Err((Status::Range, 0)), "the set is replaced");
    assert!(bulk.destination(200_000).iter().all(|b| *b == 0));
    bulk.register(&[(DESTINATION + 100_000, 100_000), (DESTINATION, 100_000)]);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
}

#[test]
fn evil_direct_dma_job_without_tdisp_is_refused() {
    let mut bulk = Bulk::new(DataPath::DmaDirect, &[200_000]);
    bulk.register(&[(DESTINATION, 1 << 20)]);
    bulk.load(0).unwrap();
    bulk.bench.controller.firmware_for_tests().forget_emulated_dma();
    let job = bulk.job(0, 0, 1);
    assert_eq!(bulk.unseal(&job), Err((Status::Path, 0)));
    assert!(bulk.destination(65_536).iter().all(|b| *b == 0));
}

#[test]
fn evil_destination_that_is_not_mapped_gets_nothing() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let mut job = bulk.job(0, 0, 2);
    job.destination = list(&[(DESTINATION, 65_536), (0x1000, 65_536)]);
    assert_eq!(bulk.unseal(&job), Err((Status::DmaFault, 0)));
    let mut source = bulk.job(0, 0, 2);
    source.source = list(&[(SOURCE, 65_536), (BASE - 1, 65_536)]);
    assert_eq!(bulk.unseal(&source), Err((Status::DmaFault, 0)));
    assert!(bulk.destination(131_072).iter().all(|b| *b == 0), "not even the mapped part was written");
}

#[test]
fn evil_bulk_bytes_beyond_the_budget_are_refused() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let firmware = bulk.bench.controller.firmware_for_tests();
    let session = firmware.sessions.live(bulk.guest.id).unwrap();
    session.exhaust(1, bulk.guest.next[1], 65_535);
    let job = bulk.job(0, 0, 1);
    assert_eq!(bulk.unseal(&job), Err((Status::Budget, 0)));
    assert!(bulk.destination(65_536).iter().all(|b| *b == 0));
    session.exhaust(1, bulk.guest.next[1], 65_536);
    assert!(bulk.unseal(&job).is_ok());
    assert_eq!(session.left().bytes, 0);
    assert_eq!(MAX_BULK_BYTES, 1 << 40);
}

#[test]
fn jobs_that_make_no_sense_are_refused() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let good = bulk.job(0, 0, 4);
    for (job, status) in [
        (Unseal { count: 0, ..good.clone() }, Status::BadField),
        (Unseal { count: MAX_SEGMENTS + 1, ..good.clone() }, Status::BadField),
        (Unseal { count: 5, ..good.clone() }, Status::BadField),
        (Unseal { first: u64::MAX, ..good.clone() }, Status::BadField),
        (Unseal { handle: 2, ..good.clone() }, Status::NoHandle),
        (Unseal { payload: 1, ..good.clone() }, Status::TagsNotLoaded),
        (Unseal { source: Sgl::single(SOURCE, 199_999), ..good.clone() }, Status::BadLength),
        (Unseal { destination: Sgl::single(SOURCE, 200_001), ..good.clone() }, Status::BadLength),
        (
            Unseal { source: list(&[(SOURCE, u64::MAX - SOURCE), (SOURCE, SOURCE)]), ..good.clone() },
            Status::BadLength,
        ),
        (Unseal { source: list(&[(SOURCE, 0), (SOURCE, 200_000)]), ..good.clone() }, Status::BadField),
    ] {
        assert_eq!(bulk.unseal(&job), Err((status, 0)), "{job:?}");
    }
    assert!(bulk.unseal(&good).is_ok());
}

#[test]
fn handles_belong_to_a_session_and_paths_to_a_handshake() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let job = bulk.job(0, 0, 1).encode();
    let mut other = Guest::open(&mut bulk.bench, GuestOptions::path(DataPath::DmaSealed)).unwrap();
    assert_eq!(other.ask(&mut bulk.bench, Opcode::Unseal, &job), Err((Status::NoHandle, 0)));
    let mut release = Guest::open(&mut bulk.bench, GuestOptions::path(DataPath::KeyRelease)).unwrap();
    assert_eq!(release.ask(&mut bulk.bench, Opcode::Unseal, &job), Err((Status::Path, 0)));
}

#[test]
fn evil_job_of_an_ended_session_stops() {
    let mut bulk = Bulk::new(DataPath::DmaSealed, &[200_000]);
    bulk.load(0).unwrap();
    let firmware = bulk.bench.controller.firmware_for_tests();
    let session = firmware.sessions.live(bulk.guest.id).unwrap();
    let job = bulk.job(0, 0, 4);
    // As if UNSEAL had been admitted just before CLOSE.
    session.mark_ended_for_tests();
    let sent = bulk.guest.send(&mut bulk.bench, 1, Opcode::Unseal, &job.encode());
    let done = bulk.guest.receive(&mut bulk.bench, 1, &sent).unwrap();
    assert_eq!(done, (Status::Aborted, 0, vec![]));
    assert!(bulk.destination(200_000).iter().all(|b| *b == 0));
}

/// A direct job of four segments under a plan, its destination filled with 0x77 before.
fn direct_job_under(kind: &str, more: &str) -> (Bulk, Unseal) {
    let plan = format!("[[fault]]\nkind = \"{kind}\"\n{more}\n");
    let mut bulk = Bulk::with_plan(DataPath::DmaDirect, &[200_000], &plan);
    bulk.register(&[(DESTINATION, 1 << 20)]);
    bulk.load(0).unwrap();
    bulk.bench.write(DESTINATION, &[0x77; 200_000]);
    let job = bulk.job(0, 0, 4);
    (bulk, job)
}

/// The output is written up to a byte, which may take its time, and not beyond.
#[track_caller]
fn assert_written_up_to(bulk: &Bulk, at: usize) {
    wait_until(|| bulk.destination(at) == bulk.artifact.plaintexts[0][..at]);
    assert!(bulk.destination(200_000)[at..].iter().all(|b| *b == 0x77));
}

#[track_caller]
fn wait_until(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn faults_that_cut_a_transfer_leave_what_was_written() {
    for kind in ["die-in-transfer", "reset-in-transfer", "disconnect-in-transfer"] {
        for (more, at) in
            [("value = 70000", 70_000), ("value = 0", 0), ("", 100_000), ("value = 65536", 65_536)]
        {
            let (mut bulk, job) = direct_job_under(kind, more);
            bulk.guest.send(&mut bulk.bench, 1, Opcode::Unseal, &job.encode());
            assert_written_up_to(&bulk, at);
            let is_ready = || bulk.bench.register(REG_STATUS) & STATUS_RDY != 0;
            wait_until(|| kind != "reset-in-transfer" || !is_ready());
            assert_eq!(is_ready(), kind != "reset-in-transfer");
            let done = bulk.bench.completion_within(1, Duration::from_millis(100));
            assert!(done.is_none(), "{kind} {more}");
            assert_written_up_to(&bulk, at);
        }
    }
}

#[test]
fn fault_short_transfer_says_that_all_is_well() {
    let (mut bulk, job) = direct_job_under("short-transfer", "value = 70000");
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_written_up_to(&bulk, 70_000);
    bulk.bench.write(DESTINATION, &[0x77; 200_000]);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_eq!(bulk.destination(200_000), bulk.artifact.plaintexts[0], "once");
}

#[test]
fn fault_stall_in_transfer_ends_by_time_or_by_abort() {
    let (mut bulk, job) = direct_job_under("stall-in-transfer", "value = 70000\nmilliseconds = 30");
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_eq!(bulk.destination(200_000), bulk.artifact.plaintexts[0]);

    let (mut bulk, job) = direct_job_under("stall-in-transfer", "value = 70000");
    let sent = bulk.guest.send(&mut bulk.bench, 1, Opcode::Unseal, &job.encode());
    assert_written_up_to(&bulk, 70_000);
    assert!(bulk.bench.completion_within(1, Duration::from_millis(100)).is_none());
    let abort = Abort { queue: 1, cid: sent.entry.cid }.encode();
    assert_eq!(bulk.bench.plain(Opcode::Abort, &abort), Ok(vec![]));
    assert_eq!(bulk.guest.receive(&mut bulk.bench, 1, &sent), Ok((Status::Aborted, 0, vec![])));
    assert!(bulk.destination(200_000).iter().all(|b| *b == 0), "an aborted job leaves nothing");
}

#[test]
fn fault_write_beside_map() {
    let (mut bulk, job) = direct_job_under("write-beside-map", "command = \"UNSEAL\"");
    // Cut the neighbours out of the map.
    bulk.bench.controller.unmap(DESTINATION - 0x1000, 0x1000);
    bulk.bench.controller.unmap(DESTINATION + 200_704, 0x2000);
    assert_eq!(bulk.unseal(&job), Ok(vec![]));
    assert_eq!(bulk.destination(200_000), bulk.artifact.plaintexts[0], "the output itself is right");
    let around = |iova, length| bulk.bench.read(iova, length);
    assert!(around(DESTINATION - 0x1000, 0x1000).iter().all(|b| *b == 0xa5));
    assert!(around(DESTINATION + 200_000, 0x1000).iter().all(|b| *b == 0xa5));
    assert_eq!(around(DESTINATION - 0x1001, 1), [0]);
}

#[test]
fn modes_are_off_unless_asked_for() {
    assert_eq!(Modes::default(), Modes { no_evidence: false, emulated_dma: false });
}
