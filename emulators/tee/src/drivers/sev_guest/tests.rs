use evidence::abi::snp::SnpReport;

use super::*;
use crate::testing::{fault, launched, platform};

const SNP: &str = "tee = \"snp\"\n[snp]\nguest_svn = 4\n";
const AT: u64 = 0x1000;
const REQUEST: u64 = 0x2000;
const RESPONSE: u64 = 0x3000;
const CERTIFICATES: u64 = 0x4000;

fn driver(launch: &str, plan: &str) -> SevGuest {
    let (_directory, state) = platform();
    SevGuest(launched(&state, launch, plan).0)
}

fn message(version: u8, request: u64, response: u64) -> Vec<u8> {
    let numbers = [u64::from(version), request, response, 0x7777];
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn report_request(data: u8, level: u32) -> Vec<u8> {
    let mut out = vec![data; 64];
    out.extend(level.to_le_bytes());
    out.resize(REPORT_REQUEST, 0);
    out
}

fn extended_request(room: u32) -> Vec<u8> {
    let address = if room == 0 { 1 } else { CERTIFICATES };
    [&report_request(5, 0)[..], &address.to_le_bytes(), &room.to_le_bytes(), &[0; 4]].concat()
}

fn key_request(fields: u64, svn: u32) -> Vec<u8> {
    let mut out = vec![0; 8];
    out.extend(fields.to_le_bytes());
    out.extend([0_u32.to_le_bytes(), svn.to_le_bytes()].concat());
    out.extend([3, 2, 0, 0, 0, 0, 20, 209]);
    out
}

/// As the kernel: asks again with the bytes that the driver wants, until it is done.
fn ask(driver: &SevGuest, command: u32, request: &[u8]) -> (i32, Vec<u8>) {
    let memory = |span: &Span| match span.address {
        AT => message(1, REQUEST, RESPONSE),
        REQUEST => request.to_vec(),
        other => panic!("nobody reads at {other:#x}"),
    };
    let (mut input, mut room) = (Vec::new(), 0);
    for _ in 0..4 {
        match driver.ioctl(&Call { command, argument: AT, input: &input, room }) {
            Answer::Done { result, output } => return (result, output),
            Answer::Again { input: spans, output } => {
                input = spans.iter().flat_map(memory).collect();
                room = output.iter().map(|span| usize::try_from(span.length).unwrap()).sum();
            }
        }
    }
    panic!("it never ends");
}

fn exit_information(output: &[u8]) -> u64 {
    u64::from_le_bytes(*output.get(24..).unwrap().first_chunk().unwrap())
}

const EIO: i32 = -5;
const EINVAL: i32 = -22;

#[test]
fn reports_are_signed_over_what_was_asked() {
    let (_directory, state) = platform();
    let plan = format!("{}nth = 3\nvalue = 22\n", fault("report-status"));
    let driver = SevGuest(launched(&state, SNP, &plan).0);
    let report = |level| {
        let (result, output) = ask(&driver, GET_REPORT, &report_request(9, level));
        assert_eq!((result, output.len()), (0, MESSAGE + REPORT_RESPONSE));
        assert_eq!(output.get(..MESSAGE).unwrap(), message(1, REQUEST, RESPONSE), "as it was");
        output.get(MESSAGE..).unwrap().to_vec()
    };
    let answer = report(2);
    assert_eq!(answer.get(..8).unwrap(), [0, 1184].map(u32::to_le_bytes).concat());
    let found = SnpReport::parse(answer.get(32..1216).unwrap()).unwrap();
    assert_eq!((found.report_data.0, found.vmpl), ([9; 64], 2));
    // A level that there is not, and a fault.
    for level in [4, 0] {
        let answer = report(level);
        assert_eq!(answer.get(..4).unwrap(), 0x16_u32.to_le_bytes());
        assert!(answer.iter().skip(4).all(|byte| *byte == 0));
    }
}

#[test]
fn certificates_come_where_there_is_room_for_them() {
    let driver = driver(SNP, "");
    let base = MESSAGE + EXTENDED_REQUEST + REPORT_RESPONSE;
    let (result, output) = ask(&driver, GET_EXT_REPORT, &extended_request(0));
    assert_eq!((result, exit_information(&output)), (EIO, 1 << 32));
    let wanted = output.get(MESSAGE + 104..MESSAGE + 108).unwrap();
    assert_eq!((wanted, output.len()), (&0x1000_u32.to_le_bytes()[..], MESSAGE + EXTENDED_REQUEST));
    let plain = driver.0.report(&[5; 64], 0).unwrap();
    for room in [0x1000, 0x4000] {
        let (result, output) = ask(&driver, GET_EXT_REPORT, &extended_request(room));
        assert_eq!((result, output.len()), (0, base + usize::try_from(room).unwrap()));
        let (table, rest) = output.get(base..).unwrap().split_at(plain.auxblob.len());
        assert_eq!(table, plain.auxblob);
        assert!(rest.iter().all(|byte| *byte == 0));
    }
    for room in [0x800, 0x5000, u32::MAX] {
        let (result, output) = ask(&driver, GET_EXT_REPORT, &extended_request(room));
        assert_eq!((result, exit_information(&output)), (EINVAL, 0xff));
    }
}

#[test]
fn a_host_without_certificates_gives_none() {
    let plan = format!("{}times = 0\n", fault("certificates-absent"));
    let driver = driver(SNP, &plan);
    let (result, output) = ask(&driver, GET_EXT_REPORT, &extended_request(0));
    assert_eq!((result, output.len()), (0, MESSAGE + EXTENDED_REQUEST + REPORT_RESPONSE));
    let (result, output) = ask(&driver, GET_EXT_REPORT, &extended_request(0x1000));
    assert_eq!(result, 0);
    assert!(output.iter().rev().take(0x1000).all(|byte| *byte == 0));
}

#[test]
fn the_device_derives_what_the_socket_derives() {
    let driver = driver(SNP, "");
    let keys = driver.0.derived_keys().unwrap();
    let (result, output) = ask(&driver, GET_DERIVED_KEY, &key_request(0x29, 3));
    let mut request = Vec::from(b"IKDKv1\0\0");
    request.extend([0; 8]);
    request.extend(0x29_u64.to_le_bytes());
    request.extend([3, 0].map(u32::to_le_bytes).concat());
    request.extend([3, 2, 0, 0, 0, 0, 20, 209]);
    let expected = keys.answer(&request.try_into().unwrap(), driver.0.faults());
    assert_eq!((result, output.len()), (0, MESSAGE + KEY_RESPONSE));
    assert_eq!(output.get(MESSAGE..MESSAGE + 32).unwrap(), [0; 32]);
    assert_eq!(output.get(MESSAGE + 32..).unwrap(), expected.get(4..).unwrap());
    let (result, output) = ask(&driver, GET_DERIVED_KEY, &key_request(0x29, 5));
    assert_eq!((result, output.get(MESSAGE..MESSAGE + 4).unwrap()), (0, &[0x16, 0, 0, 0][..]));
    assert!(output.iter().skip(MESSAGE + 4).all(|byte| *byte == 0));
}

#[test]
fn what_the_driver_refuses_by_itself() {
    let driver = driver(SNP, "");
    let call = |command, input: &[u8]| driver.ioctl(&Call { command, argument: AT, input, room: 0 });
    assert_eq!(call(0xc020_5303, &[]), Answer::refused(Errno::NOTTY));
    assert_eq!(call(GET_REPORT, &message(0, REQUEST, RESPONSE)), Answer::refused(Errno::INVAL));
    for (request, response) in [(0, RESPONSE), (REQUEST, 0)] {
        let Answer::Done { result, output } = call(GET_REPORT, &message(1, request, response)) else {
            panic!("it wants to read nothing");
        };
        assert_eq!((result, exit_information(&output)), (EINVAL, 0xff));
    }
    // The caller changed its mind about the room after the spans were fixed.
    let input = [message(1, REQUEST, RESPONSE), extended_request(0x2000)].concat();
    let changed = Call {
        command: GET_EXT_REPORT,
        argument: AT,
        input: &input,
        room: MESSAGE + EXTENDED_REQUEST + REPORT_RESPONSE + 0x3000,
    };
    let Answer::Done { result, .. } = driver.ioctl(&changed) else { panic!("once was enough") };
    assert_eq!(result, -14);
}

#[test]
fn faults_of_host_and_firmware() {
    let exit = |plan: &str, command, request: &[u8]| {
        let (result, output) = ask(&driver(SNP, plan), command, request);
        (result, exit_information(&output), output)
    };
    let (result, information, _) =
        exit(&format!("{}value = 25\n", fault("device-error")), GET_REPORT, &report_request(1, 0));
    assert_eq!((result, information), (-25, 0xff));
    for (command, request) in [(GET_REPORT, report_request(1, 0)), (GET_DERIVED_KEY, key_request(1, 0))] {
        let (result, information, output) =
            exit(&format!("{}value = 39\n", fault("firmware-error")), command, &request);
        assert_eq!((result, information, output.len()), (EIO, 39, MESSAGE));
    }
    let (result, _, output) =
        exit(&format!("{}value = 7\n", fault("certificate-room")), GET_EXT_REPORT, &extended_request(0));
    assert_eq!((result, output.get(MESSAGE + 104..MESSAGE + 108).unwrap()), (EIO, &[0, 0x70, 0, 0][..]));
    let (_, _, output) =
        exit(&format!("{}value = 40\n", fault("device-short-answer")), GET_REPORT, &report_request(1, 0));
    assert_eq!(output.len(), 40);
    let (_, _, output) = exit(&fault("device-long-answer"), GET_REPORT, &report_request(1, 0));
    assert_eq!(output.len(), MESSAGE + REPORT_RESPONSE + 1);
}
