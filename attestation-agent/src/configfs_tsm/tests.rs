use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::Class;
use crate::report_data::Claim;
use crate::testing::FakeTdx;

/// A host that answers as it likes.
#[derive(Clone)]
struct Host {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    entries: BTreeSet<String>,
    written: Vec<Vec<u8>>,
    provider: &'static str,
    generation: &'static str,
    outblob: Vec<u8>,
    auxblob: Option<Vec<u8>>,
    largest_read: usize,
    fails: Option<(&'static str, Errno)>,
}

impl ReportFiles for Host {
    fn make(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.fail("make")?;
        assert!(state.entries.insert(name.to_owned()), "a name of its own each time");
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        assert!(self.state.lock().unwrap().entries.remove(name));
        Ok(())
    }

    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock().unwrap();
        assert!(state.entries.contains(name));
        state.fail(attribute)?;
        let bytes = match attribute {
            "provider" => state.provider.as_bytes().to_vec(),
            "generation" => state.generation.as_bytes().to_vec(),
            "outblob" => state.outblob.clone(),
            "auxblob" => state.auxblob.clone().ok_or(io::ErrorKind::NotFound)?,
            other => panic!("{other} is not read"),
        };
        let bytes: Vec<u8> = bytes.into_iter().take(limit).collect();
        state.largest_read = state.largest_read.max(bytes.len());
        Ok(bytes)
    }

    fn write(&self, _name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(attribute, "inblob");
        self.state.lock().unwrap().written.push(bytes.to_vec());
        Ok(())
    }
}

impl State {
    fn fail(&self, at: &str) -> io::Result<()> {
        match self.fails {
            Some((place, errno)) if place == at => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

fn asked() -> ReportData {
    Claim::ChipSession { transcript: [3; 64] }.report_data()
}

/// An honest TDX host, changed by `change`; what came of asking it, and its state afterwards.
fn ask(change: impl FnOnce(&mut State)) -> (Result<Evidence, TeeError>, Host) {
    let mut state = State {
        provider: "tdx_guest\n",
        generation: "1\n",
        outblob: FakeTdx::new().quote(asked().as_bytes()),
        ..State::default()
    };
    change(&mut state);
    let host = Host { state: Arc::new(Mutex::new(state)) };
    let reports = TsmReports::with_files(host.clone());
    let result = reports.evidence(ReportProvider::TdxGuest, &asked());
    assert!(host.state.lock().unwrap().entries.is_empty(), "the directory is removed on every path");
    (result, host)
}

fn code(change: impl FnOnce(&mut State)) -> &'static str {
    ask(change).0.map_or_else(|error| error.code(), |_| "OK")
}

/// An honest SNP host, changed by `change`.
fn ask_snp(change: impl FnOnce(&mut State)) -> Result<Evidence, TeeError> {
    let mut report = vec![0; REPORT_BYTES];
    report[0] = 3;
    report[8 + 2] = 2;
    report[0x188] = 0x19;
    report.splice(0x50..0x90, *asked().as_bytes());
    let mut state = State { provider: "sev_guest\n", generation: "1\n", outblob: report, ..State::default() };
    change(&mut state);
    let host = Host { state: Arc::new(Mutex::new(state)) };
    TsmReports::with_files(host).evidence(ReportProvider::SevGuest, &asked())
}

#[test]
fn a_quote_comes_from_one_write() {
    let (evidence, host) = ask(|_| ());
    assert_eq!(evidence.unwrap().tdx_quote().unwrap().body.report_data.0, *asked().as_bytes());
    assert_eq!(host.state.lock().unwrap().written, [asked().as_bytes().to_vec()]);
}

#[test]
fn zero_bytes_behind_a_quote_are_removed() {
    let (evidence, host) = ask(|state| state.outblob.extend([0; 100]));
    let quote = host.state.lock().unwrap().outblob.len() - 100;
    assert_eq!(evidence.unwrap().tdx_quote().unwrap().encode().len(), quote);
}

#[test]
fn a_report_comes_with_the_certificates_of_the_host() {
    let evidence = ask_snp(|_| ()).unwrap();
    assert!(evidence.to_json().ends_with("\"cert_chain\":null}"), "an old kernel has none");
    let mut table = b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd".to_vec();
    table.extend([48, 0, 0, 0, 3, 0, 0, 0]);
    table.extend([0; 24]);
    table.extend(*b"abc");
    let evidence = ask_snp(|state| state.auxblob = Some(table)).unwrap();
    let end = "\"cert_chain\":[{\"cert_type\":\"VCEK\",\"data\":[97,98,99]}]}";
    assert!(evidence.to_json().ends_with(end), "{}", evidence.to_json());
    let error = ask_snp(|state| state.auxblob = Some(vec![1; 30])).unwrap_err();
    assert_eq!(error.code(), "ATTEST_CERTIFICATE_TABLE");
}

#[test]
fn evil_host_empty_quote() {
    assert_eq!(code(|state| state.outblob.clear()), "ATTEST_EVIDENCE_EMPTY");
    assert_eq!(code(|state| state.outblob.fill(0)), "ATTEST_EVIDENCE_EMPTY");
    let error = ask(|state| state.outblob.clear()).0.unwrap_err();
    assert!(error.to_string().contains("QGS"), "names the likely cause: {error}");
    assert_eq!(ask_snp(|state| state.outblob.fill(0)).unwrap_err().code(), "ATTEST_EVIDENCE_EMPTY");
}

#[test]
fn evil_host_short_quote() {
    assert_eq!(code(|state| state.outblob.truncate(100)), "ATTEST_EVIDENCE_EMPTY");
    assert_eq!(code(|state| state.outblob.truncate(1000)), "ATTEST_EVIDENCE_INVALID");
}

#[test]
fn evil_host_quote_with_other_report_data() {
    let other = FakeTdx::new().quote(&[1; 64]);
    assert_eq!(code(|state| state.outblob = other), "ATTEST_REPORT_DATA_MISMATCH");
    let error = ask_snp(|state| state.outblob[0x50] ^= 1).unwrap_err();
    assert_eq!(error.code(), "ATTEST_REPORT_DATA_MISMATCH");
}

#[test]
fn evil_host_generation_race() {
    for generation in ["0\n", "2\n", "", "1\n1\n", "-1\n"] {
        assert_eq!(code(|state| state.generation = generation), "ATTEST_GENERATION_RACE", "{generation:?}");
    }
}

#[test]
fn evil_host_oversize_blob() {
    let (result, host) = ask(|state| state.outblob.resize(64 << 20, 1));
    assert_eq!(result.unwrap_err().code(), "ATTEST_TOO_LARGE");
    let largest = host.state.lock().unwrap().largest_read;
    assert_eq!(largest, MAXIMUM_QUOTE_BYTES + MAXIMUM_PADDING_BYTES + 1, "no more was read");
    let error = ask_snp(|state| state.auxblob = Some(vec![1; MAXIMUM_TABLE_BYTES + 1])).unwrap_err();
    assert_eq!(error.code(), "ATTEST_TOO_LARGE");
    assert_eq!(ask_snp(|state| state.outblob.push(0)).unwrap_err().code(), "ATTEST_TOO_LARGE");
}

#[test]
fn evil_host_swaps_the_provider() {
    let (result, host) = ask(|state| state.provider = "sev_guest\n");
    assert_eq!(result.unwrap_err().code(), "ATTEST_PROVIDER_CHANGED");
    assert!(host.state.lock().unwrap().written.is_empty(), "nothing was asked for");
    for provider in ["tdx_guest\n\n", "tdx_guest2\n", " tdx_guest\n", ""] {
        assert_eq!(code(|state| state.provider = provider), "ATTEST_PROVIDER_CHANGED", "{provider:?}");
    }
}

#[test]
fn failures_of_the_kernel_are_named_with_advice() {
    let cases = [
        ("make", Errno::NXIO, Class::HostFault, "no TDX or SEV-SNP guest driver"),
        ("make", Errno::NOENT, Class::HostFault, "configfs"),
        ("outblob", Errno::IO, Class::HostFault, "quoting service"),
        ("outblob", Errno::TIMEDOUT, Class::Transient, "in time"),
        ("outblob", Errno::BUSY, Class::Transient, "try again"),
    ];
    for (place, errno, class, advice) in cases {
        let error = ask(|state| state.fails = Some((place, errno))).0.unwrap_err();
        assert_eq!((error.code(), error.class()), ("ATTEST_TEE_IO", class));
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[test]
fn the_provider_is_detected() {
    let detect = |provider| {
        let state = State { provider, ..State::default() };
        TsmReports::with_files(Host { state: Arc::new(Mutex::new(state)) }).detect()
    };
    assert_eq!(detect("tdx_guest\n").unwrap(), ReportProvider::TdxGuest);
    assert_eq!(detect("sev_guest\n").unwrap(), ReportProvider::SevGuest);
    assert_eq!(detect("arm_cca_guest\n").unwrap_err().code(), "ATTEST_PROVIDER_CHANGED");
}
