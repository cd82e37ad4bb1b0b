//! Event logs and events of the agent. Accepted bytes are the encoding; a log that is assembled can be parsed; a log
//! replays to the registers that its entries lead to, and to no others.

#![no_main]

use evidence::Octets;
use evidence::abi::aael::AaelEvent;
use evidence::abi::event_log::{EventLog, LogAlgorithm, LogEntry};
use evidence::verify::replay::{extend, replay};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = bounded(data.len(), || EventLog::parse(data)) {
        assert_eq!(log.encode(), data);
        replays(&log);
    }
    if let Ok(log) = bounded(data.len(), || EventLog::parse_ccel(data)) {
        assert!(data.starts_with(&log.encode()));
        assert_eq!(EventLog::parse(&log.encode()).as_ref(), Ok(&log));
    }
    if let Ok(entries) = bounded(data.len(), || EventLog::parse_entries(data)) {
        assert_eq!(entries.iter().flat_map(LogEntry::encode).collect::<Vec<_>>(), data);
    }
    event(data);
    // Firmware's table in front, the runtime log behind it.
    let Some(([low, high], rest)) = data.split_first_chunk() else { return };
    let (ccel, runtime) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
    assembles(Some(ccel), Some(runtime), rest.len());
    assembles(None, Some(rest), rest.len());
});

fn assembles(ccel: Option<&[u8]>, runtime: Option<&[u8]>, len: usize) {
    let Ok(log) = bounded(len, || EventLog::assemble(ccel, runtime)) else { return };
    let log = log.expect("a log of something");
    assert_eq!(EventLog::parse(&log.encode()).as_ref(), Ok(&log), "a verifier has to take it");
    replays(&log);
}

fn replays(log: &EventLog) {
    for entry in &log.entries {
        event(&entry.data);
        assert!(entry.aael().is_none_or(|event| event.encode() == entry.data));
    }
    let mut registers = [Octets::default(); 4];
    let _ = replay(log, &registers);
    for entry in &log.entries {
        let register = usize::try_from(entry.index).ok().and_then(|index| index.checked_sub(1));
        let Some(register) = register.and_then(|index| registers.get_mut(index)) else { continue };
        let Some(digest) = entry.digest(LogAlgorithm::Sha384) else { continue };
        *register = extend(register, digest);
    }
    let Ok(vouched) = replay(log, &registers) else { return };
    assert!(vouched.iter().all(|entry| (1..=4).contains(&entry.index)));
    assert_eq!(vouched.len(), log.entries.iter().filter(|entry| entry.index != 0).count());
    registers[3].0[47] ^= 1;
    assert!(replay(log, &registers).is_err());
}

fn event(data: &[u8]) {
    let Ok(event) = bounded(data.len(), || AaelEvent::parse(data)) else { return };
    assert_eq!(event.encode(), data);
    let again = AaelEvent::new(event.domain(), event.operation(), event.content());
    assert_eq!(again.as_ref(), Ok(&event));
}
