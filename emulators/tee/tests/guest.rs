//! The emulator from outside: as a guest's kernel is seen by programs. Each body runs in a guest, below `run`, in a
//! mount namespace that ends with it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{DATA, Platform, TSM, entry, errno, quote};
use evidence::Octets;
use evidence::abi::event_log::EventLog;
use evidence::abi::snp::SnpReport;
use evidence::abi::tdx::TdxQuote;
use evidence::verify::collateral::TdxCollateral;
use evidence::verify::replay::{extend, replay};
use evidence::verify::roots::{SnpRoots, TdxRoot, TrustBundle};
use evidence::verify::snp::{SnpCollateral, VekKind};
use evidence::verify::tdx::Appraisal;
use evidence::verify::{snp, tdx};
use rustix::io::Errno;

const MEASUREMENTS: &str = "sys/devices/virtual/misc/tdx_guest/measurements";

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn register(root: &Path, index: usize) -> Octets<48> {
    let path = root.join(MEASUREMENTS).join(format!("rtmr{index}:sha384"));
    Octets(fs::read(path).unwrap().try_into().unwrap())
}

#[test]
fn a_quote_verifies_under_the_emulated_root_and_no_other() {
    let platform = Platform::new();
    let check = |root: &Path, debug: bool| {
        let bundle =
            TrustBundle::parse(&fs::read(platform.path().join("trust-roots.json")).unwrap()).unwrap();
        let collateral = fs::read(platform.path().join("collateral-tdx.json")).unwrap();
        let collateral = TdxCollateral::parse(&collateral).unwrap();
        let bytes = quote(root, "one", &DATA);
        let emulated = TdxRoot::danger_emulator(bundle.tdx.unwrap());
        let appraisal = Appraisal { debug, ..Appraisal::strict() };
        let verified = tdx::verify(&bytes, &collateral, &emulated, &appraisal, now()).unwrap();
        let body = &verified.quote.body;
        assert_eq!((body.report_data.0, body.is_debug()), (DATA, debug));
        assert_eq!(body.rtmr, [0, 1, 2, 3].map(|index| register(root, index)));
        let refused = tdx::verify(&bytes, &collateral, &TdxRoot::intel(), &appraisal, now());
        assert_eq!(refused.unwrap_err().code(), "EVIDENCE_ROOT_UNTRUSTED");
        if debug {
            let refused = tdx::verify(&bytes, &collateral, &emulated, &Appraisal::strict(), now());
            assert_eq!(refused.unwrap_err().code(), "EVIDENCE_SIGNATURE_INVALID");
        }
    };
    platform.guest("", "", |root| check(root, false));
    // Another launch, the same keys and roots.
    platform.guest("debug = true\n[tdx]\nquote = 5\nbody = \"1.5\"\n", "", |root| check(root, true));
}

#[test]
fn a_report_verifies_under_the_emulated_roots_and_no_other() {
    let platform = Platform::new();
    platform.guest("tee = \"snp\"\n[snp]\ngeneration = \"genoa\"\nreport_version = 5\n", "", |root| {
        let path = entry(root, "one");
        assert_eq!(fs::read_to_string(path.join("provider")).unwrap(), "sev_guest\n");
        assert_eq!(fs::read_to_string(path.join("privlevel_floor")).unwrap(), "0\n");
        fs::write(path.join("privlevel"), "1").unwrap();
        fs::write(path.join("inblob"), DATA).unwrap();
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "2\n");
        let bytes = fs::read(path.join("outblob")).unwrap();
        let report = SnpReport::parse(&bytes).unwrap();
        assert_eq!((report.report_data.0, report.vmpl, report.version), (DATA, 1, 5));
        let table = fs::read(path.join("auxblob")).unwrap();
        let part = |index: usize| {
            let number = |at| u32::from_le_bytes(table[at..at + 4].try_into().unwrap()) as usize;
            let offset = number(24 * index + 16);
            table[offset..offset + number(24 * index + 20)].to_vec()
        };
        assert_eq!(table[72..96], [0; 24]);
        let collateral = SnpCollateral {
            vek: part(0),
            ask: Some(part(1)),
            ark: Some(part(2)),
            crl: None,
            kind: VekKind::Vcek,
        };
        let bundle =
            TrustBundle::parse(&fs::read(platform.path().join("trust-roots.json")).unwrap()).unwrap();
        let emulated = SnpRoots::danger_emulator(bundle.snp);
        snp::verify(&bytes, &collateral, &emulated, now()).unwrap();
        let refused = snp::verify(&bytes, &collateral, &SnpRoots::amd().unwrap(), now());
        assert_eq!(refused.unwrap_err().code(), "EVIDENCE_ROOT_UNTRUSTED");
        assert!(root.join("sys/devices/platform/sev-guest").is_dir());
        assert!(!root.join(MEASUREMENTS).exists());
        assert!(!root.join("sys/firmware").exists());
    });
}

#[test]
fn derived_keys_are_answered_on_the_socket() {
    Platform::new().guest("tee = \"snp\"\n", "", |root| {
        let path = root.join("dev/sev-guest.sock");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let ask = |request: &[u8]| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(request).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        };
        let mut request = Vec::from(b"IKDKv1\0\0");
        request.extend([0; 32]);
        let answer = ask(&request);
        assert_eq!((answer.len(), &answer[..4]), (36, &[0; 4][..]));
        assert_eq!(ask(&request), answer);
        request[0] = b'X';
        let refused = ask(&request);
        assert_eq!((&refused[..4], &refused[4..]), (&[0x16, 0, 0, 0][..], &[0; 32][..]));
    });
}

#[test]
fn entries_behave_as_those_of_the_kernel() {
    Platform::new().guest("", "", |root| {
        let path = entry(root, "one");
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["generation", "inblob", "outblob", "provider"]);
        assert_eq!(fs::read_to_string(path.join("provider")).unwrap(), "tdx_guest\n");
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "0\n");
        assert_eq!(errno(fs::read(path.join("outblob"))), Errno::INVAL);
        assert_eq!(errno(fs::read(path.join("inblob"))), Errno::ACCESS);
        assert_eq!(errno(fs::write(path.join("outblob"), b"x")), Errno::ACCESS);
        assert_eq!(errno(fs::write(path.join("inblob"), [0; 65])), Errno::FBIG);
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "0\n");
        fs::write(path.join("inblob"), [0; 48]).unwrap();
        assert_eq!(errno(fs::read(path.join("outblob"))), Errno::INVAL);
        // What is written takes effect when it is closed.
        let inblob = fs::OpenOptions::new().write(true).open(path.join("inblob")).unwrap();
        inblob.write_all_at(&DATA[..32], 0).unwrap();
        inblob.write_all_at(&DATA[32..], 32).unwrap();
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "1\n");
        drop(inblob);
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "2\n");
        let quote = fs::read(path.join("outblob")).unwrap();
        assert_eq!(TdxQuote::parse(&quote).unwrap().body.report_data.0, DATA);
        assert_eq!(fs::read(path.join("outblob")).unwrap(), quote);
        // Read in small pieces it is the same report.
        let mut pieces = fs::File::open(path.join("outblob")).unwrap();
        let (mut bytes, mut piece) = (Vec::<u8>::new(), [0; 100]);
        while let count @ 1.. = pieces.read(&mut piece).unwrap() {
            bytes.extend(&piece[..count]);
        }
        assert_eq!(bytes, quote);

        assert_eq!(errno(fs::create_dir(&path)), Errno::EXIST);
        assert_eq!(errno(fs::create_dir(path.join("below"))), Errno::PERM);
        assert_eq!(errno(fs::create_dir(root.join("sys/kernel/other"))), Errno::PERM);
        assert_eq!(errno(fs::write(path.join("new"), b"x")), Errno::ACCESS);
        assert_eq!(errno(fs::remove_file(path.join("inblob"))), Errno::PERM);
        assert_eq!(errno(fs::remove_dir(root.join(TSM))), Errno::PERM);
        fs::remove_dir(&path).unwrap();
        assert_eq!(errno(fs::metadata(&path)), Errno::NOENT);
        assert_eq!(fs::read_dir(root.join(TSM)).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(entry(root, "one").join("generation")).unwrap(), "0\n");
    });
}

#[test]
fn registers_are_read_and_extended() {
    Platform::new().guest("initdata_digest = \"abcdef\"\n", "", |root| {
        let files = root.join(MEASUREMENTS);
        let mut expected = vec![0; 48];
        expected[..3].copy_from_slice(&[0xab, 0xcd, 0xef]);
        assert_eq!(fs::read(files.join("mrconfigid")).unwrap(), expected);
        assert_eq!(fs::read(files.join("mrtd:sha384")).unwrap(), [0x11; 48]);
        assert_eq!(fs::read(files.join("mrowner")).unwrap(), [0; 48]);
        assert_eq!(fs::read(files.join("mrownerconfig")).unwrap(), [0; 48]);
        assert_eq!(errno(fs::write(files.join("mrconfigid"), [0; 48])), Errno::ACCESS);

        let before = quote(root, "before", &DATA);
        let mut registers = [0, 1, 2, 3].map(|index| register(root, index));
        for (index, expected) in registers.iter_mut().enumerate() {
            let path = files.join(format!("rtmr{index}:sha384"));
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
            assert_eq!(errno(file.write_at(&[1; 47], 0)), Errno::INVAL);
            assert_eq!(errno(file.write_at(&[1; 48], 1)), Errno::INVAL);
            assert_eq!(errno(file.write_at(&[1; 48], 48)), Errno::FBIG);
            assert_eq!(register(root, index), *expected);
            // Of too much it takes what it holds.
            assert_eq!(file.write_at(&[9; 64], 0).unwrap(), 48);
            *expected = extend(expected, &[9; 48]);
            assert_eq!(register(root, index), *expected);
        }
        let after = TdxQuote::parse(&quote(root, "after", &DATA)).unwrap();
        assert_eq!(after.body.rtmr, registers);
        assert_ne!(TdxQuote::parse(&before).unwrap().body.rtmr, registers);
    });
}

#[test]
fn the_event_log_leads_to_the_registers() {
    let ccel = "sys/firmware/acpi/tables/data/CCEL";
    let platform = Platform::new();
    let registers = |root: &Path| [0, 1, 2, 3].map(|index| register(root, index));
    platform.guest("", "", |root| {
        let path = root.join(ccel);
        let bytes = fs::read(&path).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (bytes.len() as u64, 0o400));
        let log = EventLog::assemble(Some(&bytes), None).unwrap().unwrap();
        assert_eq!(replay(&log, &registers(root)).unwrap().len(), 8);
    });
    platform.guest("", "[[fault]]\nkind = \"ccel-tampered\"\n", |root| {
        let log = EventLog::parse_ccel(&fs::read(root.join(ccel)).unwrap()).unwrap();
        assert_eq!(replay(&log, &registers(root)).unwrap_err().code(), "EVIDENCE_LOG_MISMATCH");
        let log = EventLog::parse_ccel(&fs::read(root.join(ccel)).unwrap()).unwrap();
        replay(&log, &registers(root)).unwrap();
    });
}

#[test]
fn planned_faults_reach_the_guest() {
    let platform = Platform::new();
    let fault = |kind: &str| format!("[[fault]]\nkind = \"{kind}\"\n");
    platform.guest("", &fault("no-provider"), |root| {
        assert_eq!(errno(fs::create_dir(root.join(TSM).join("one"))), Errno::NXIO);
        assert!(!quote(root, "one", &DATA).is_empty());
    });
    let plan = ["io-error", "empty-quote", "generation-race", "oversize-quote"];
    let plan: String = (1..).zip(plan).map(|(nth, kind)| format!("{}nth = {nth}\n", fault(kind))).collect();
    platform.guest("", &(plan + &fault("register-io-error")), |root| {
        let path = entry(root, "one");
        let read = || {
            fs::write(path.join("inblob"), DATA).unwrap();
            fs::read(path.join("outblob"))
        };
        assert_eq!(errno(read()), Errno::IO);
        // The faults of the second report and of those after it, each counted from its own first event.
        assert!(!read().unwrap().is_empty());
        assert!(read().unwrap().is_empty());
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "3\n");
        assert!(TdxQuote::parse(&read().unwrap()).is_ok());
        assert_eq!(fs::read_to_string(path.join("generation")).unwrap(), "5\n");
        assert_eq!(read().unwrap().len(), 1024 * 1024);
        let register = root.join(MEASUREMENTS).join("rtmr2:sha384");
        let before = fs::read(&register).unwrap();
        assert_eq!(errno(fs::write(&register, [1; 48])), Errno::IO);
        assert_eq!(fs::read(&register).unwrap(), before);
    });
}

#[test]
fn guests_threads_do_not_disturb_each_other() {
    Platform::new().guest("", "[[fault]]\nkind = \"slow\"\nmilliseconds = 50\n", |root| {
        std::thread::scope(|scope| {
            for value in 1..=8_u8 {
                scope.spawn(move || {
                    let name = format!("entry-{value}");
                    for round in 0..4_u8 {
                        let data = [value * 16 + round; 64];
                        let bytes = quote(root, &name, &data);
                        assert_eq!(TdxQuote::parse(&bytes).unwrap().body.report_data.0, data);
                    }
                });
            }
        });
    });
}
