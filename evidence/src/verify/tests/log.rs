use crate::abi::aael::AaelEvent;
use crate::abi::event_log::{EV_EVENT_TAG, EventLog, LogEntry, LogHeader};
use crate::bytes::Octets;
use crate::error::EvidenceError;
use crate::fixture::code;
use crate::verify::replay::{extend, replay};

fn log() -> (EventLog, [Octets<48>; 4]) {
    let event = |text: &str| AaelEvent::new("example.org/a", "Do", text).unwrap().encode();
    let entries = vec![
        LogEntry::new(0, 8, b"vouched for by no register".to_vec()),
        LogEntry::new(1, 1, b"firmware".to_vec()),
        LogEntry::new(2, 2, b"kernel".to_vec()),
        LogEntry::new(3, 13, b"command line".to_vec()),
        LogEntry::new(4, EV_EVENT_TAG, event("one")),
        LogEntry::new(4, EV_EVENT_TAG, event("two")),
    ];
    let mut registers = [Octets([0; 48]); 4];
    for entry in entries.iter().skip(1) {
        let register = &mut registers[usize::try_from(entry.index).unwrap() - 1];
        *register = extend(register, &entry.digests[0].1);
    }
    (EventLog { header: LogHeader::fallback(), entries, terminated: true }, registers)
}

#[test]
fn a_log_replays_to_its_registers() {
    let (log, registers) = log();
    let vouched = replay(&log, &registers).unwrap();
    assert_eq!(vouched.len(), 5);
    assert!(vouched.iter().all(|entry| entry.index != 0));
    assert_eq!(vouched[4].aael().unwrap().content(), "two");
}

#[test]
fn evil_changed_log_names_the_register() {
    let (log, registers) = log();
    for (position, name) in [(1, "RTMR0"), (2, "RTMR1"), (3, "RTMR2"), (4, "RTMR3"), (5, "RTMR3")] {
        let expect = |log: &EventLog| match replay(log, &registers) {
            Err(EvidenceError::LogMismatch { register, .. }) => assert_eq!(register, name),
            other => panic!("{other:?}"),
        };
        let mut without = log.clone();
        without.entries.remove(position);
        expect(&without);
        let mut flipped = log.clone();
        flipped.entries[position].event_type = 1;
        flipped.entries[position].digests[0].1[0] ^= 1;
        expect(&flipped);
        let mut twice = log.clone();
        twice.entries.insert(position, log.entries[position].clone());
        expect(&twice);
    }
    let mut swapped = log.clone();
    swapped.entries.swap(4, 5);
    assert_eq!(code(replay(&swapped, &registers)), "EVIDENCE_LOG_MISMATCH");
}

#[test]
fn evil_event_data_of_the_agent_cannot_change() {
    let (mut log, registers) = log();
    log.entries[4].data = AaelEvent::new("example.org/a", "Do", "else").unwrap().encode();
    assert_eq!(code(replay(&log, &registers)), "EVIDENCE_MALFORMED");
}

#[test]
fn evil_entry_for_a_register_that_is_none_is_refused() {
    let (mut log, registers) = log();
    log.entries[0].index = 5;
    assert_eq!(code(replay(&log, &registers)), "EVIDENCE_UNSUPPORTED");
    log.entries[0].index = u32::MAX;
    assert_eq!(code(replay(&log, &registers)), "EVIDENCE_UNSUPPORTED");
    log.entries[0].index = 1;
    log.entries[0].digests.clear();
    assert_eq!(code(replay(&log, &registers)), "EVIDENCE_MALFORMED");
}
