use super::*;
use crate::testing::{fault, launched, platform};
use evidence::abi::snp::SnpReport;

fn entries(launch: &str, plan: &str) -> (tempfile::TempDir, Entries) {
    let (directory, state) = platform();
    let (tee, _) = launched(&state, launch, plan);
    (directory, Entries::new(tee))
}

fn code<T>(result: Result<T, Errno>) -> i32 {
    result.err().map_or(0, |error| error.code())
}

fn generation(entries: &Entries, id: u64) -> String {
    String::from_utf8(entries.read(id, Attribute::Generation).unwrap()).unwrap()
}

#[test]
fn a_report_is_made_once_for_a_generation() {
    let (_directory, entries) = entries("tee = \"snp\"\n", "");
    let id = entries.make("one".as_ref()).unwrap();
    assert_eq!(generation(&entries, id), "0\n");
    assert_eq!(code(entries.read(id, Attribute::Outblob)), Errno::EINVAL.code());
    assert_eq!(code(entries.read(id, Attribute::Auxblob)), Errno::EINVAL.code());
    entries.write_inblob(id, &[1; 64]).unwrap();
    let first = entries.report(id).unwrap();
    assert!(Arc::ptr_eq(&first, &entries.report(id).unwrap()));
    assert_eq!(generation(&entries, id), "1\n");
    entries.write_privlevel(id, b"3\n").unwrap();
    assert_eq!(generation(&entries, id), "2\n");
    let second = entries.report(id).unwrap();
    assert_eq!(SnpReport::parse(&second.outblob).unwrap().vmpl, 3);
    assert_eq!(SnpReport::parse(&first.outblob).unwrap().vmpl, 0);
    for refused in [&b"4"[..], b"-1", b"", b"x", b"1 ", b"1\n\n", b"08"] {
        assert_eq!(code(entries.write_privlevel(id, refused)), Errno::EINVAL.code());
    }
    for taken in [&b"0x2"[..], b"02\n", b"+2"] {
        entries.write_privlevel(id, taken).unwrap();
        assert_eq!(SnpReport::parse(&entries.report(id).unwrap().outblob).unwrap().vmpl, 2);
    }
    // Short report data is the provider's to refuse, when it is read.
    entries.write_inblob(id, &[1; 63]).unwrap();
    assert_eq!(code(entries.read(id, Attribute::Outblob)), Errno::EINVAL.code());
}

#[test]
fn a_failed_report_leaves_none_and_is_tried_again() {
    let (_directory, entries) = entries("", &format!("{}nth = 2\n", fault("io-error")));
    let id = entries.make("one".as_ref()).unwrap();
    entries.write_inblob(id, &[1; 64]).unwrap();
    entries.report(id).unwrap();
    entries.write_inblob(id, &[2; 64]).unwrap();
    assert_eq!(code(entries.report(id)), Errno::EIO.code());
    assert!(entries.report(id).is_ok());
}

#[test]
fn another_writer_is_seen_in_the_generation() {
    let (_directory, entries) = entries("", &fault("generation-race"));
    let id = entries.make("one".as_ref()).unwrap();
    entries.write_inblob(id, &[1; 64]).unwrap();
    entries.read(id, Attribute::Outblob).unwrap();
    assert_eq!(generation(&entries, id), "2\n");
}

#[test]
fn names_are_unique_and_numbers_are_not_used_again() {
    let (_directory, entries) = entries("", &format!("{}nth = 3\n", fault("no-provider")));
    let id = entries.make("one".as_ref()).unwrap();
    assert_eq!(code(entries.make("one".as_ref())), Errno::EEXIST.code());
    assert_eq!(code(entries.make("two".as_ref())), Errno::ENXIO.code());
    entries.remove("one".as_ref()).unwrap();
    assert_eq!(code(entries.remove("one".as_ref())), Errno::ENOENT.code());
    assert_eq!(code(entries.read(id, Attribute::Generation)), Errno::ENOENT.code());
    assert_ne!(entries.make("one".as_ref()).unwrap(), id);
}

#[test]
fn entries_do_not_disturb_each_other() {
    let (_directory, entries) = entries("", "");
    std::thread::scope(|scope| {
        for value in 0..8_u8 {
            let entries = &entries;
            scope.spawn(move || {
                let id = entries.make(format!("entry-{value}").as_ref()).unwrap();
                for round in 1..=4_u8 {
                    entries.write_inblob(id, &[value * 16 + round; 64]).unwrap();
                    let quote = entries.read(id, Attribute::Outblob).unwrap();
                    let quote = evidence::abi::tdx::TdxQuote::parse(&quote).unwrap();
                    assert_eq!(quote.body.report_data.0, [value * 16 + round; 64]);
                    assert_eq!(generation(entries, id), format!("{round}\n"));
                }
            });
        }
    });
}
