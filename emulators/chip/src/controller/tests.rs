use std::time::Duration;

use chip_client::abi::*;

use crate::testing::{BASE, Bench, DATA, ENTRIES, Guest, GuestOptions, INSECURE, NotAuthentic};

fn fault(kind: &str, more: &str) -> String {
    format!("[[fault]]\nkind = \"{kind}\"\n{more}\n")
}

#[test]
fn registers_say_what_the_specification_says() {
    let mut bench = Bench::unprovisioned(INSECURE, "");
    assert_eq!(bench.register(REG_MAGIC), 0x5049_4B49);
    assert_eq!(bench.register(REG_VERSION), 0x0001_0000);
    let cap = u64::from(bench.register(REG_CAP)) | u64::from(bench.register(REG_CAP + 4)) << 32;
    let cap = Cap::from_bits(cap);
    assert_eq!((cap.queues, cap.paths, cap.window_pages), (2, 0b111, 0));
    assert_eq!(bench.register(REG_STATUS), 0);
    assert_eq!(bench.enable(), STATUS_RDY);
    bench.provision();
    assert_eq!(bench.register(REG_STATUS), STATUS_RDY | STATUS_PROVISIONED);
    assert_eq!(bench.register(REG_CTRL), CTRL_EN);
    bench.set_register(queue_register(0) + QREG_SQ_SIZE, 64);
    assert_eq!(bench.register(queue_register(0) + QREG_SQ_SIZE), u32::from(ENTRIES), "locked while enabled");
    bench.set_register(REG_MAGIC, 7);
    bench.set_register(0x3ffc, 7);
    assert_eq!((bench.register(REG_MAGIC), bench.register(0x3ffc)), (MAGIC, 0));
    bench.set_register(REG_CTRL, CTRL_RESET);
    assert_eq!(bench.register(REG_STATUS), STATUS_PROVISIONED);
    assert_eq!((bench.register(REG_CTRL), bench.register(queue_register(0))), (0, 0));
}

#[test]
fn accesses_that_are_no_registers_are_refused() {
    let bench = Bench::unprovisioned(INSECURE, "");
    for (offset, length) in [(1u64, 4usize), (0, 3), (0, 5), (0x3ffe, 4), (0x4000, 4), (u64::MAX, 4)] {
        let beyond = offset >= 0x3ffe;
        let read = bench.controller.read_registers(offset, &mut vec![0; length]);
        assert_eq!(read.is_err(), beyond, "{offset:#x}");
        assert!(bench.controller.write_registers(offset, &vec![0; length]).is_err(), "{offset:#x}");
    }
}

#[test]
fn invalid_rings_are_fatal_and_cleared_by_disabling() {
    let mut bench = Bench::unprovisioned(INSECURE, "");
    bench.set_register(queue_register(0) + QREG_SQ_SIZE, 3);
    bench.set_register(REG_CTRL, CTRL_EN);
    assert_eq!(bench.register(REG_STATUS), STATUS_FATAL);
    assert_eq!(bench.register(REG_FATAL_CODE), u32::from(Status::BadField.as_u16()));
    assert_eq!(bench.enable(), STATUS_RDY);
    assert_eq!(bench.register(REG_FATAL_CODE), 0);
}

#[test]
fn evil_doorbells_are_fatal() {
    let mut bench = Bench::new(INSECURE);
    let doorbells = [
        (sq_tail_doorbell(0), u32::from(ENTRIES)),
        (sq_tail_doorbell(1), u32::MAX),
        (cq_head_doorbell(0), 1),
        (cq_head_doorbell(1), u32::from(ENTRIES)),
    ];
    for (doorbell, value) in doorbells {
        assert_eq!(bench.enable() & STATUS_RDY, STATUS_RDY);
        bench.set_register(doorbell, value);
        assert_eq!(bench.register(REG_STATUS) & (STATUS_FATAL | STATUS_RDY), STATUS_FATAL, "{doorbell:#x}");
        assert_eq!(bench.register(REG_FATAL_CODE), u32::from(Status::BadField.as_u16()));
    }
}

#[test]
fn rings_that_are_not_mapped_are_fatal() {
    let mut bench = Bench::new(INSECURE);
    bench.controller.memory.unmap(Bench::sq_base(0), 0x1000, crate::dma::Leftover::Nothing);
    bench.set_register(sq_tail_doorbell(0), 1);
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while bench.register(REG_STATUS) & STATUS_FATAL == 0 {
        assert!(std::time::Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(bench.register(REG_FATAL_CODE), u32::from(Status::DmaFault.as_u16()));
    bench.map(Bench::sq_base(0), Bench::sq_base(0) - BASE, 0x1000);
    assert_eq!(bench.enable() & STATUS_RDY, STATUS_RDY);
    assert!(bench.plain(Opcode::Identify, &[]).is_ok());
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let mut bench = Bench::new(INSECURE);
    type Change = fn(&mut Submission);
    let cases: [(u16, Opcode, Change, Status); 9] = [
        (0, Opcode::Identify, |e| e.opcode = 0, Status::BadOpcode),
        (0, Opcode::Identify, |e| e.opcode = 0xff, Status::BadOpcode),
        (1, Opcode::Identify, |_| {}, Status::BadOpcode),
        (0, Opcode::Unseal, |_| {}, Status::BadOpcode),
        (0, Opcode::Identify, |e| e.session = 1, Status::BadField),
        (0, Opcode::Identify, |e| e.seq = 1, Status::BadField),
        (0, Opcode::Identify, |e| e.in_len = MAX_TRANSFER + 1, Status::BadLength),
        (0, Opcode::Identify, |e| e.out_cap = MAX_TRANSFER + 1, Status::BadLength),
        (0, Opcode::Identify, |e| e.out_cap = 10, Status::BadLength),
    ];
    for (queue, opcode, change, status) in cases {
        let mut entry = bench.entry(queue, opcode, 0, 0, 0);
        change(&mut entry);
        assert_eq!(bench.raw(queue, entry, &[]), Err(status), "{entry:?}");
    }
    for (in_iova, out_iova) in [(0, Bench::output_iova(0)), (u64::MAX, Bench::output_iova(0)), (DATA, 0)] {
        let entry = bench.entry(0, Opcode::Identify, 0, 0, usize::from(in_iova != DATA));
        let entry = Submission { in_iova, out_iova, ..entry };
        assert_eq!(bench.raw(0, entry, &[]), Err(Status::DmaFault));
    }
    let entry = bench.entry(0, Opcode::Identify, 0, 0, 0);
    for reserved in [1, 40, 63] {
        let mut bytes = entry.encode();
        bytes[reserved] = 1;
        bench.submit(0, &bytes, &[]);
        assert_eq!(bench.completion(0).status, Status::BadField.as_u16(), "byte {reserved}");
    }
    assert_eq!(bench.plain(Opcode::Status, &[]), Err(Status::NoSession));
    assert_eq!(bench.plain_in(Opcode::Finish, 99, &[0; 40]), Err(Status::NoSession));
    assert_eq!(bench.plain(Opcode::Provision, &[1; 50]), Err(Status::AlreadyProvisioned));
}

#[test]
fn completions_keep_their_phase_over_many_rounds() {
    let mut bench = Bench::new(INSECURE);
    for round in 0..5 * u32::from(ENTRIES) {
        assert!(bench.plain(Opcode::Identify, &[]).is_ok(), "round {round}");
    }
}

#[test]
fn a_full_completion_ring_delays_commands() {
    let mut bench = Bench::new(INSECURE);
    for _ in 0..ENTRIES - 1 {
        let entry = bench.entry(0, Opcode::Identify, 0, 0, 0).encode();
        bench.submit_bare(0, &entry);
    }
    for _ in 0..ENTRIES - 1 {
        assert_eq!(bench.completion(0).status, 0);
    }
    assert!(bench.completion_within(0, Duration::from_millis(30)).is_none());
}

#[test]
fn abort_ends_a_stalled_command_and_one_that_waits_behind_it() {
    let mut bench = Bench::with_faults(INSECURE, &fault("stall", "command = \"UNSEAL\""));
    let mut guest = Guest::open(&mut bench, GuestOptions::path(DataPath::DmaSealed)).unwrap();
    let stalled = guest.send(&mut bench, 1, Opcode::Unseal, &[]);
    let behind = bench.entry(1, Opcode::LoadTags, guest.id, 2, 16);
    bench.submit_bare(1, &behind.encode());
    for cid in [behind.cid, stalled.entry.cid, 0x7777] {
        assert_eq!(bench.plain(Opcode::Abort, &Abort { queue: 1, cid }.encode()), Ok(vec![]));
    }
    let done = guest.receive(&mut bench, 1, &stalled);
    assert_eq!(done, Ok((Status::Aborted, 0, vec![])), "authenticated");
    // Its input was never a protected one.
    assert_eq!(bench.completion(1).status, Status::Auth.as_u16());
    assert_eq!(bench.plain(Opcode::Abort, &Abort { queue: 2, cid: 0 }.encode()), Err(Status::BadField));
    assert_eq!(bench.plain(Opcode::Abort, &[0; 3]), Err(Status::BadLength));
}

#[test]
fn evil_reset_under_a_command_leaves_no_dma_behind() {
    let mut bench = Bench::with_faults(INSECURE, &fault("stall", "command = \"IDENTIFY\"\nnth = 2"));
    let entry = bench.entry(0, Opcode::Identify, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    std::thread::sleep(Duration::from_millis(30));
    bench.set_register(REG_CTRL, 0);
    assert_eq!(bench.register(REG_STATUS) & STATUS_RDY, 0);
    bench.zero(BASE, 1 << 22);
    std::thread::sleep(Duration::from_millis(50));
    assert!(bench.read(BASE, 1 << 22).iter().all(|b| *b == 0));
    bench.enable();
    assert!(bench.plain(Opcode::Identify, &[]).is_ok());
}

#[test]
fn fault_reset_and_gone() {
    let mut bench = Bench::with_faults(INSECURE, &fault("reset", "command = \"CHAIN\""));
    let entry = bench.entry(0, Opcode::Chain, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert!(bench.completion_within(0, Duration::from_millis(100)).is_none());
    assert_eq!((bench.register(REG_STATUS) & STATUS_RDY, bench.register(REG_CTRL)), (0, 0));

    let mut bench = Bench::with_faults(INSECURE, &fault("gone", "command = \"CHAIN\""));
    let entry = bench.entry(0, Opcode::Chain, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert!(bench.completion_within(0, Duration::from_millis(100)).is_none());
    assert_eq!([bench.register(REG_MAGIC), bench.register(REG_STATUS)], [u32::MAX; 2]);
    assert_eq!(bench.enable(), u32::MAX, "it does not come back");
}

#[test]
fn fault_die_ends_everything_at_once() {
    let mut bench = Bench::with_faults(INSECURE, &fault("die", "command = \"CHAIN\""));
    let entry = bench.entry(0, Opcode::Chain, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert!(bench.completion_within(0, Duration::from_millis(100)).is_none());
    // Here only the worker died: nobody executes anything any more.
    bench.enable();
    let entry = bench.entry(0, Opcode::Identify, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert!(bench.completion_within(0, Duration::from_millis(100)).is_none());
}

#[test]
fn fault_write_outside_map() {
    let plan = fault("write-outside-map", "command = \"CHAIN\"\nvalue = 0x1000000");
    let mut bench = Bench::with_faults(INSECURE, &plan);
    assert_eq!(DATA - BASE, 0x100_0000);
    bench.controller.unmap(DATA - 0x1000, 0x3000);
    bench.plain(Opcode::Identify, &[]).unwrap();
    assert!(bench.read(DATA, 0x1000).iter().all(|b| *b == 0));
    bench.plain(Opcode::Chain, &[]).unwrap();
    assert!(bench.read(DATA, 0x1000).iter().all(|b| *b == 0xa5), "before the completion is seen");
    assert_eq!((bench.read(DATA - 1, 1), bench.read(DATA + 0x1000, 1)), (vec![0], vec![0]));
}

#[test]
fn fault_stale_map_after_a_command() {
    let plan = fault("stale-map", "after = \"CHAIN\"\ntimes = 0");
    let mut bench = Bench::with_faults(INSECURE, &plan);
    let identify = |bench: &mut Bench| {
        let entry = bench.entry(0, Opcode::Identify, 0, 0, 0);
        let entry = Submission { out_iova: DATA, out_cap: 0x1000, ..entry };
        bench.raw(0, entry, &[]).map(|output| output.len())
    };
    bench.controller.unmap(DATA, 0x1000);
    assert_eq!(identify(&mut bench), Err(Status::DmaFault), "obedient so far");
    bench.map(DATA, DATA - BASE, 0x1000);
    bench.plain(Opcode::Chain, &[]).unwrap();
    bench.controller.unmap(DATA, 0x1000);
    assert!(identify(&mut bench).is_ok(), "unmapped, and reached");
    bench.map(DATA, DATA - BASE, 0x1000);
    assert!(identify(&mut bench).is_ok());
}

#[test]
fn faults_at_unmaps_count_only_what_was_mapped() {
    let mut bench = Bench::with_faults(INSECURE, &fault("stale-map", ""));
    bench.controller.unmap(0, 0x1000_0000);
    bench.controller.unmap(BASE + (1 << 40), 0xffff_0000_0000);
    bench.controller.unmap(DATA, 0x1000);
    let entry = bench.entry(0, Opcode::Identify, 0, 0, 0);
    let entry = Submission { out_iova: DATA, out_cap: 0x1000, ..entry };
    assert!(bench.raw(0, entry, &[]).is_ok());
}

#[test]
fn fault_puf_noise_is_fatal_once() {
    let mut bench = Bench::unprovisioned(INSECURE, &fault("puf-noise", ""));
    assert_eq!(bench.enable(), STATUS_FATAL);
    assert_eq!(bench.register(REG_FATAL_CODE), u32::from(Status::PufFailed.as_u16()));
    assert_eq!(bench.enable(), STATUS_RDY);
}

/// Each way to falsify a completion is seen by a client that checks tag, cid, lengths and head.
#[test]
fn faults_at_completions_are_not_authentic() {
    for (kind, more) in [
        ("bad-tag", ""),
        ("wrong-length", ""),
        ("wrong-length", "value = 5"),
        ("wrong-status", "value = 0x22"),
        ("wrong-cid", ""),
        ("corrupt-output", ""),
        ("replay-completion", ""),
        ("forged-completion", ""),
    ] {
        let plan = fault(kind, &format!("command = \"STATUS\"\nnth = 2\n{more}"));
        let mut bench = Bench::with_faults(INSECURE, &plan);
        let mut guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
        guest.command(&mut bench, 0, Opcode::Status, &[]).unwrap();
        let done = guest.command(&mut bench, 0, Opcode::Status, &[]);
        assert!(matches!(done, Err(NotAuthentic(_))), "{kind} {more}");
    }
}

#[test]
fn faults_lost_duplicate_and_wrong_head() {
    let mut bench = Bench::with_faults(INSECURE, &fault("lost-completion", "command = \"CHAIN\""));
    let entry = bench.entry(0, Opcode::Chain, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert!(bench.completion_within(0, Duration::from_millis(50)).is_none());

    let mut bench = Bench::with_faults(INSECURE, &fault("duplicate-completion", "command = \"CHAIN\""));
    bench.plain(Opcode::Chain, &[]).unwrap();
    assert_eq!(bench.completion(0).status, 0);

    let mut bench = Bench::with_faults(INSECURE, &fault("wrong-head", "command = \"CHAIN\""));
    let entry = bench.entry(0, Opcode::Chain, 0, 0, 0).encode();
    bench.submit_bare(0, &entry);
    assert_eq!(bench.completion(0).sq_head, u16::MAX);
}

#[test]
fn fault_rewrite_after_completion() {
    let mut bench = Bench::with_faults(
        INSECURE,
        &fault("rewrite-after-completion", "command = \"CHAIN\"\nmilliseconds = 300"),
    );
    bench.plain(Opcode::Chain, &[]).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(bench.read(Bench::output_iova(0), 4), [0xa5; 4]);
}

#[test]
fn faults_at_interrupts() {
    let count = |kind: &str, more: &str| {
        let mut bench = Bench::with_faults(INSECURE, &fault(kind, &format!("command = \"CHAIN\"\n{more}")));
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).unwrap();
        bench.controller.interrupts.arm(0, 1, vec![event.try_clone().unwrap()]).unwrap();
        let mut bytes = [0; 8];
        let _ = rustix::io::read(&event, &mut bytes);
        bench.plain(Opcode::Chain, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        match rustix::io::read(&event, &mut bytes) {
            Ok(_) => u64::from_ne_bytes(bytes),
            Err(_) => 0,
        }
    };
    assert_eq!(count("stall", "nth = 9"), 1);
    assert_eq!(count("missing-interrupt", ""), 0);
    assert_eq!(count("spurious-interrupt", ""), 2);
    assert_eq!(count("interrupt-storm", "value = 1000"), 1001);
}

#[test]
fn faults_of_the_handshake_are_visible_to_a_guest_that_looks() {
    let open = |kind: &str| {
        let mut bench = Bench::with_faults(INSECURE, &fault(kind, ""));
        let guest = Guest::open(&mut bench, GuestOptions::default()).unwrap();
        let certified = bench.keys().noise_public().to_vec();
        let maker = bench.maker.model().to_vec();
        (guest, certified, maker)
    };
    let (guest, certified, _) = open("wrong-static-key");
    assert_ne!(guest.static_key, certified);
    let (guest, _, maker) = open("wrong-chain");
    assert_ne!(guest.accept.certificates.model, maker);
    let (guest, ..) = open("downgrade-suite");
    assert_eq!(guest.accept.suite, SessionSuite::Classical);
    let (guest, ..) = open("lie-path");
    assert_eq!(guest.accept.path, DataPath::DmaSealed);
    let (guest, ..) = open("wrong-signature");
    assert!(!guest.signature_holds);
}
