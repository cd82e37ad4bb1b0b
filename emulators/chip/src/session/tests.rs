use chip_client::abi::limits::{MAX_SESSIONS, MAX_SUBMISSIONS};
use chip_client::abi::*;

use crate::firmware::Modes;
use crate::identity::Minimums;
use crate::testing::tee::Tees;
use crate::testing::{Bench, Guest, GuestOptions, INSECURE, INSECURE_DMA, NotAuthentic};

const CLASSICAL: u16 = 1;

fn status_left(bench: &mut Bench, guest: &mut Guest) -> SessionStatus {
    SessionStatus::parse(&guest.ask(bench, Opcode::Status, &[]).unwrap()).unwrap()
}

#[test]
fn sessions_of_both_suites_open_and_close() {
    let mut bench = Bench::new(INSECURE);
    for (suites, chosen) in
        [(1, SessionSuite::Classical), (2, SessionSuite::Hybrid), (3, SessionSuite::Hybrid)]
    {
        let mut guest = Guest::open(&mut bench, GuestOptions { suites, ..GuestOptions::default() }).unwrap();
        assert_eq!(guest.accept.suite, chosen);
        assert_eq!(guest.accept.path, DataPath::KeyRelease);
        assert_eq!(guest.accept.insecure, InsecureFlags::EMULATED_CHIP.union(InsecureFlags::NO_EVIDENCE));
        assert!(guest.signature_holds);
        assert_eq!(guest.static_key, bench.keys().noise_public());
        let left = status_left(&mut bench, &mut guest);
        assert_eq!((left.submissions_left, left.key_epoch, left.handles), (MAX_SUBMISSIONS - 1, 1, 0));
        assert_eq!(guest.ask(&mut bench, Opcode::Close, &[]), Ok(vec![]));
        let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
        assert_eq!(done, Err(NotAuthentic(Status::NoSession.as_u16())));
    }
}

#[test]
fn an_unprovisioned_chip_opens_no_session() {
    let mut bench = Bench::unprovisioned(INSECURE, "");
    bench.enable();
    assert_eq!(Guest::open(&mut bench, GuestOptions::default()).err(), Some(Status::NotProvisioned));
    assert_eq!(bench.plain(Opcode::Chain, &[]), Err(Status::NotProvisioned));
}

#[test]
fn evil_second_provisioning_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let before = bench.plain(Opcode::Chain, &[]).unwrap();
    assert_eq!(bench.provision_as("production"), Err(Status::AlreadyProvisioned));
    assert_eq!(bench.plain(Opcode::Chain, &[]).unwrap(), before);
}

#[test]
fn evil_guest_without_evidence_is_refused() {
    let mut bench = Bench::new(Modes::default());
    let insecure = InsecureFlags::NO_EVIDENCE;
    let result = Guest::open(&mut bench, GuestOptions { insecure, ..GuestOptions::default() });
    assert_eq!(result.err(), Some(Status::InsecureRefused));
}

#[test]
fn evil_guest_with_emulated_dma_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let insecure = InsecureFlags::EMULATED_DMA;
    let result = Guest::open(&mut bench, GuestOptions { insecure, ..GuestOptions::default() });
    assert_eq!(result.err(), Some(Status::InsecureRefused));
}

#[test]
fn evil_guest_with_an_emulated_tee_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let insecure = InsecureFlags::EMULATED_TEE;
    let result = Guest::open(&mut bench, GuestOptions { insecure, ..GuestOptions::default() });
    assert_eq!(result.err(), Some(Status::InsecureRefused));
}

#[test]
fn emulated_roots_are_named_by_the_chip() {
    let mut bench = Bench::with_roots(INSECURE, Tees::new().roots(), Minimums::default());
    let record = IdentityRecord::parse(&bench.plain(Opcode::Identify, &[]).unwrap()).unwrap();
    assert!(record.flags.contains(IdentityFlags::EMULATED_TEE));
    let insecure = InsecureFlags::EMULATED_TEE;
    let guest = Guest::open(&mut bench, GuestOptions { insecure, ..GuestOptions::default() }).unwrap();
    assert!(guest.accept.insecure.contains(InsecureFlags::EMULATED_TEE));
}

#[test]
fn evil_direct_dma_without_tdisp_is_refused() {
    for modes in [INSECURE, INSECURE_DMA] {
        let mut bench = Bench::new(modes);
        let options =
            GuestOptions { insecure: InsecureFlags::NONE, ..GuestOptions::path(DataPath::DmaDirect) };
        assert_eq!(Guest::open(&mut bench, options).err(), Some(Status::Path));
    }
}

#[test]
fn offers_that_make_no_sense_are_refused() {
    let mut bench = Bench::new(INSECURE);
    let open = |bench: &mut Bench, suites, bits| {
        let insecure = InsecureFlags::from_bits(bits).unwrap();
        Guest::open(bench, GuestOptions { suites, insecure, ..GuestOptions::default() }).err()
    };
    assert_eq!(open(&mut bench, 0, 0), Some(Status::BadField));
    assert_eq!(open(&mut bench, 7, 0), Some(Status::BadField));
    assert_eq!(open(&mut bench, 1, InsecureFlags::EMULATED_CHIP.bits()), Some(Status::BadField));
    for length in [0, 31, 75] {
        let (_, hello) = Guest::hello(GuestOptions::default());
        assert!(bench.plain(Opcode::Open, &hello[..length]).is_err());
    }
    assert_eq!(bench.plain(Opcode::Open, &[1; 70_000]), Err(Status::Handshake));
}

#[test]
fn evil_finish_with_an_altered_message_ends_the_session() {
    let mut bench = Bench::new(INSECURE);
    let (mut noise, hello) = Guest::hello(GuestOptions { suites: CLASSICAL, ..GuestOptions::default() });
    let message = bench.plain(Opcode::Open, &hello).unwrap();
    let mut payload = vec![0; 65_535];
    let length = noise.read_message(&message, &mut payload).unwrap();
    let accept = Accept::parse(&payload[..length]).unwrap();
    let mut finish = vec![0; 100];
    let length = noise.into_transport_mode().unwrap().write_message(&put_finish(b""), &mut finish).unwrap();
    finish.truncate(length);
    finish[3] ^= 1;
    assert_eq!(bench.plain_in(Opcode::Finish, accept.session, &finish), Err(Status::Handshake));
    finish[3] ^= 1;
    assert_eq!(bench.plain_in(Opcode::Finish, accept.session, &finish), Err(Status::NoSession));
}

#[test]
fn at_most_eight_sessions_live() {
    let mut bench = Bench::new(INSECURE);
    let mut guests: Vec<Guest> = (0..MAX_SESSIONS)
        .map(|_| {
            Guest::open(&mut bench, GuestOptions { suites: CLASSICAL, ..GuestOptions::default() }).unwrap()
        })
        .collect();
    assert_eq!(Guest::open(&mut bench, GuestOptions::default()).err(), Some(Status::NoResources));
    guests[3].ask(&mut bench, Opcode::Close, &[]).unwrap();
    Guest::open(&mut bench, GuestOptions::default()).unwrap();
    assert_eq!(bench.plain(Opcode::Zeroize, &[]), Ok(vec![]));
    let done = guests[0].command(&mut bench, 0, Opcode::Status, &[]);
    assert_eq!(done, Err(NotAuthentic(Status::NoSession.as_u16())));
}

#[test]
fn evil_replayed_submission_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    let sent = guest.send(&mut bench, 0, Opcode::Status, &[]);
    guest.receive(&mut bench, 0, &sent).unwrap();
    let input = guest.protect(0, &sent.entry, &[]);
    bench.submit(0, &sent.entry.encode(), &input);
    let done = bench.completion(0);
    assert_eq!((done.status, done.tag, done.out_len), (Status::Sequence.as_u16(), [0; 16], 0));
    let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
    assert_eq!(done, Err(NotAuthentic(Status::NoSession.as_u16())), "the session has ended");
}

#[test]
fn evil_skipped_sequence_number_ends_the_session() {
    let mut bench = Bench::new(INSECURE);
    let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    guest.next[0] = 2;
    let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
    assert_eq!(done, Err(NotAuthentic(Status::Sequence.as_u16())));
}

#[test]
fn evil_altered_entry_or_input_ends_the_session() {
    let mut bench = Bench::new(INSECURE);
    // Every field of the entry that the chip does not refuse by itself, and the input.
    let changes: [fn(&mut Submission, &mut Vec<u8>); 5] = [
        |entry, _| entry.cid ^= 0x100,
        |entry, _| entry.out_cap -= 16,
        |entry, _| entry.out_iova += 4096,
        |entry, _| entry.opcode = Opcode::Floors.as_u8(),
        |_, input| input[0] ^= 1,
    ];
    for change in changes {
        let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
        let mut entry = bench.entry(0, Opcode::Status, guest.id, 1, 16);
        let mut input = guest.protect(0, &entry, &[]);
        change(&mut entry, &mut input);
        bench.submit(0, &entry.encode(), &input);
        let done = bench.completion(0);
        assert_eq!((done.status, done.tag), (Status::Auth.as_u16(), [0; 16]));
        guest.next[0] = 2;
        let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
        assert_eq!(done, Err(NotAuthentic(Status::NoSession.as_u16())));
    }
}

#[test]
fn evil_submission_of_another_session_is_refused() {
    let mut bench = Bench::new(INSECURE);
    let one = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    let mut two = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    let entry = bench.entry(0, Opcode::Status, two.id, 1, 16);
    let input = one.protect(0, &entry, &[]);
    bench.submit(0, &entry.encode(), &input);
    assert_eq!(bench.completion(0).status, Status::Auth.as_u16());
    two.next[0] = 2;
    assert_eq!(
        two.command(&mut bench, 0, Opcode::Status, &[]),
        Err(NotAuthentic(Status::NoSession.as_u16()))
    );
}

#[test]
fn evil_submissions_beyond_the_budget_are_refused() {
    let mut bench = Bench::new(INSECURE);
    let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    let firmware = bench.controller.firmware_for_tests();
    firmware.sessions.live(guest.id).unwrap().exhaust(0, MAX_SUBMISSIONS, 0);
    guest.next[0] = MAX_SUBMISSIONS;
    assert_eq!(status_left(&mut bench, &mut guest).submissions_left, 0);
    let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
    assert_eq!(done, Err(NotAuthentic(Status::Budget.as_u16())));
}

#[test]
fn errors_inside_a_session_are_authenticated() {
    let mut bench = Bench::new(INSECURE);
    let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    assert_eq!(guest.ask(&mut bench, Opcode::Status, &[1]), Err((Status::BadLength, 0)));
    assert_eq!(guest.ask(&mut bench, Opcode::Present, &[]), Err((Status::BadLength, 0)));
    assert_eq!(guest.ask(&mut bench, Opcode::Unwrap, &[0; 64]), Err((Status::BadField, 0)));
    assert_eq!(guest.ask(&mut bench, Opcode::Register, &[0; 4]), Err((Status::Path, 0)));
    let small = |bench: &mut Bench, guest: &mut Guest, out_cap, out_iova| {
        let seq = guest.next[0];
        guest.next[0] += 1;
        let entry = bench.entry(0, Opcode::Status, guest.id, seq, 16);
        let sent = guest.send_entry(bench, 0, Submission { out_cap, out_iova, ..entry }, &[]);
        guest.receive(bench, 0, &sent).map(|(status, ..)| status)
    };
    let output = Bench::output_iova(0);
    assert_eq!(small(&mut bench, &mut guest, 31, output), Ok(Status::BadLength));
    assert_eq!(small(&mut bench, &mut guest, 32, 0x1000), Ok(Status::DmaFault));
    assert_eq!(small(&mut bench, &mut guest, 32, u64::MAX - 8), Ok(Status::DmaFault));
    assert_eq!(small(&mut bench, &mut guest, 32, output), Ok(Status::Ok));
}

#[test]
fn a_reset_ends_every_session() {
    let mut bench = Bench::new(INSECURE);
    let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
    bench.enable();
    let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
    assert_eq!(done, Err(NotAuthentic(Status::NoSession.as_u16())));
}
