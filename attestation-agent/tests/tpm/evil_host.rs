//! A host that lies about quotes and registers, or speaks no TPM 2.0 at all.

use std::time::Duration;

use attestation_agent::tpm::{AkAlgorithm, AttestationKey, Tpm, TpmLocation};

use crate::liar::{Answer, Liar};
use crate::quote::{INITDATA, REPORT_DATA, ak, judge};
use crate::swtpm::Swtpm;

const CREATE_PRIMARY: u32 = 0x131;
const QUOTE: u32 = 0x158;
const GET_CAPABILITY: u32 = 0x17a;
const PCR_READ: u32 = 0x17e;
const PCR_EXTEND: u32 = 0x182;

fn ecc(tpm: Tpm) -> Tpm {
    tpm.with_attestation_key(AttestationKey { otherwise: AkAlgorithm::EccP256, ..AttestationKey::default() })
}

/// A host that alters responses to one command, and what evidence and registers are then refused with.
fn evidence_before(
    command: u32,
    mut alter: impl FnMut(usize, &mut Vec<u8>) + Send + 'static,
) -> &'static str {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, move |code, count, mut response| {
        if code == command {
            alter(count, &mut response);
        }
        Answer::Bytes(response)
    });
    let refused = ecc(liar.tpm()).evidence(&REPORT_DATA).unwrap_err();
    assert!(swtpm.tpm().info().unwrap().contexts.is_empty(), "contexts stayed behind");
    refused.code()
}

fn resized(mut response: Vec<u8>) -> Vec<u8> {
    let size = u32::try_from(response.len()).unwrap();
    response[2..6].copy_from_slice(&size.to_be_bytes());
    response
}

#[test]
fn evil_host_tpm_oversize_response() {
    let swtpm = Swtpm::start();
    for size in [4097_u32, 1 << 20, u32::MAX] {
        let liar = Liar::before(&swtpm, move |_, _, mut response| {
            response[2..6].copy_from_slice(&size.to_be_bytes());
            // More than fits is really there.
            response.resize(8192, 0);
            Answer::Last(response)
        });
        assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_TOO_LARGE");
    }
}

#[test]
fn evil_host_tpm_truncated_response() {
    let swtpm = Swtpm::start();
    for length in [0, 1, 9, 10, 40] {
        let liar = Liar::before(&swtpm, move |_, _, mut response| {
            response.truncate(length);
            Answer::Last(response)
        });
        assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_TRUNCATED", "{length}");
        // A size that agrees with what is left does not help.
        let liar = Liar::before(&swtpm, move |_, _, mut response| {
            response.truncate(length.max(10));
            Answer::Last(resized(response))
        });
        assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_TRUNCATED", "{length}");
    }
    let liar = Liar::before(&swtpm, |_, _, _| Answer::Last(vec![0x80, 1, 0, 0, 0, 6, 0, 0, 0, 0]));
    assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_UNEXPECTED");
}

#[test]
fn evil_host_tpm_wrong_tag() {
    for tag in [0x8002_u16, 0x00c4, 0] {
        let swtpm = Swtpm::start();
        let liar = Liar::before(&swtpm, move |_, _, mut response| {
            response[..2].copy_from_slice(&tag.to_be_bytes());
            Answer::Bytes(response)
        });
        assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_UNEXPECTED");
    }
}

#[test]
fn evil_host_tpm_says_nothing() {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, |_, _, _| Answer::Silence);
    let tpm = liar.tpm().with_deadline(Duration::from_millis(50));
    assert_eq!(tpm.read_pcrs().unwrap_err().code(), "TPM_TIMEOUT");
    assert_eq!(liar.commands(), [PCR_READ], "nothing more was asked");
}

#[test]
fn a_tpm_that_asks_to_retry_is_asked_again() {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, |_, count, response| match count {
        0 => Answer::Bytes(vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22]),
        1 => Answer::Bytes(vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x0a]),
        _ => Answer::Bytes(response),
    });
    assert_eq!(liar.tpm().read_pcrs().unwrap(), swtpm.tpm().read_pcrs().unwrap());
}

#[test]
fn evil_host_tpm_asks_to_retry_for_ever() {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, |_, _, _| Answer::Bytes(vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22]));
    let refused = liar.tpm().with_deadline(Duration::from_secs(4)).read_pcrs().unwrap_err();
    assert_eq!(refused.code(), "TPM_BUSY");
    assert_eq!(liar.commands().iter().filter(|code| **code == PCR_READ).count(), 10);
}

#[test]
fn evil_host_tpm_response_to_another_command() {
    let swtpm = Swtpm::start();
    // Each command is answered with the response to the one before.
    let mut before = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0];
    let liar =
        Liar::before(&swtpm, move |_, _, response| Answer::Bytes(std::mem::replace(&mut before, response)));
    assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_TRUNCATED");
    let refused = ecc(liar.tpm()).evidence(&REPORT_DATA).unwrap_err();
    assert!(refused.code().starts_with("TPM_"), "{refused}");
}

#[test]
fn evil_host_tpm_handle_of_another_kind() {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, |code, _, mut response| {
        if code == CREATE_PRIMARY {
            // The key of somebody else, which is not ours to flush.
            response[10..14].copy_from_slice(&[0x81, 1, 0, 1]);
        }
        Answer::Bytes(response)
    });
    assert_eq!(ecc(liar.tpm()).evidence(&REPORT_DATA).unwrap_err().code(), "TPM_UNEXPECTED");
    assert!(!liar.commands().contains(&QUOTE));
    assert!(!liar.commands().contains(&0x165), "nothing was flushed");
}

#[test]
fn evil_host_tpm_key_of_another_template() {
    // fixedTPM is gone, under a name that fits.
    let code = evidence_before(CREATE_PRIMARY, |_, response| {
        let public = &mut response[20..];
        public[7] &= !2;
        let length = usize::from(u16::from_be_bytes([response[18], response[19]]));
        let name = attestation_agent::tpm::wire::Public::parse(&response[20..20 + length]).unwrap().name();
        // The name is before the password's answer of five bytes.
        let end = response.len() - 5;
        response[end - 34..end].copy_from_slice(&name.0);
    });
    assert_eq!(code, "TPM_KEY_UNFIT");
}

#[test]
fn evil_host_tpm_key_swapped_in_transit() {
    // Another point, under a name that fits: the quote is not by that key.
    let foreign = Swtpm::start();
    let foreign = ecc(foreign.tpm()).attestation_public().unwrap();
    let code = evidence_before(CREATE_PRIMARY, move |_, response| {
        let public = foreign.marshal();
        response[20..20 + public.len()].copy_from_slice(&public);
        let end = response.len() - 5;
        response[end - 34..end].copy_from_slice(&foreign.name().0);
    });
    assert_eq!(code, "TPM_QUOTE_SIGNATURE");
}

/// Everything is genuine, but of another TPM: only the pin tells.
#[test]
fn evil_host_tpm_swapped_for_another() {
    let (own, other) = (Swtpm::start(), Swtpm::start());
    let pinned = ak(&ecc(own.tpm()));
    let tpm = ecc(other.tpm());
    tpm.bind_initdata(&INITDATA).unwrap();
    let evidence = tpm.evidence(&REPORT_DATA).unwrap();
    assert_eq!(judge(&evidence, &REPORT_DATA, &[pinned]).unwrap_err().code(), "TPM_AK_NOT_PINNED");
    assert_eq!(judge(&evidence, &REPORT_DATA, &[]).unwrap_err().code(), "TPM_AK_NOT_PINNED");
    judge(&evidence, &REPORT_DATA, &[pinned, ak(&tpm)]).unwrap();
}

#[test]
fn evil_host_tpm_replays_quote() {
    let swtpm = Swtpm::start();
    let mut first = None;
    let liar = Liar::before(&swtpm, move |code, _, response| {
        // A quote after an extension may be refused with RETRY at first: that is not replayed.
        let quote = code == QUOTE && response[6..10] == [0; 4];
        Answer::Bytes(if quote { first.get_or_insert(response).clone() } else { response })
    });
    let tpm = ecc(liar.tpm());
    tpm.evidence(&REPORT_DATA).unwrap();
    assert_eq!(tpm.evidence(&[0x5b; 64]).unwrap_err().code(), "TPM_QUOTE_NONCE");
}

#[test]
fn a_register_that_changes_during_a_quote_costs_another_quote() {
    let swtpm = Swtpm::start();
    // Once: the last digest of the first reading is not the one quoted.
    let liar = Liar::before(&swtpm, |code, count, mut response| {
        if code == PCR_READ && count == 0 {
            *response.last_mut().unwrap() ^= 1;
        }
        Answer::Bytes(response)
    });
    let tpm = ecc(liar.tpm());
    tpm.evidence(&REPORT_DATA).unwrap();
    // All registers take three commands.
    assert_eq!(liar.commands().iter().filter(|code| **code == PCR_READ).count(), 6);
}

#[test]
fn evil_host_tpm_registers_that_never_rest() {
    let code = evidence_before(PCR_READ, |_, response| *response.last_mut().unwrap() ^= 1);
    assert_eq!(code, "TPM_PCRS_CHANGING");
}

#[test]
fn evil_host_tpm_values_of_other_registers() {
    // The second answer is for the registers of the first once more.
    let mut first = None;
    let code = evidence_before(PCR_READ, move |_, response| {
        let again = first.get_or_insert_with(|| response.clone()).clone();
        *response = again;
    });
    assert_eq!(code, "TPM_UNEXPECTED");
}

#[test]
fn evil_host_tpm_without_the_bank() {
    let swtpm = Swtpm::start();
    let liar = Liar::before(&swtpm, |code, _, mut response| {
        match code {
            // The bank's bitmap is zero: no selection comes back, and no digest.
            PCR_READ => response = resized([&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 12]].concat()),
            GET_CAPABILITY => {
                // moreData, TPM_CAP_PCRS, one bank: SHA-1.
                let body = [0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 4, 3, 0xff, 0xff, 0xff];
                response = resized([&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], &body].concat());
            }
            _ => {}
        }
        Answer::Bytes(response)
    });
    assert_eq!(liar.tpm().read_pcrs().unwrap_err().code(), "TPM_NO_BANK");
}

#[test]
fn evil_host_tpm_drops_the_extension() {
    let swtpm = Swtpm::start();
    let mut zeros = Vec::new();
    // Every reading says what the registers were before anything was extended.
    let liar = Liar::before(&swtpm, move |code, count, response| {
        if code == PCR_READ && count < 3 {
            zeros.push(response.clone());
        }
        Answer::Bytes(if code == PCR_READ { zeros[count % 3].clone() } else { response })
    });
    let tpm = liar.tpm();
    assert_eq!(tpm.bind_initdata(&INITDATA).unwrap_err().code(), "TPM_INITDATA_TAKEN");
    assert_eq!(liar.commands().iter().filter(|code| **code == PCR_EXTEND).count(), 1);
}

#[test]
fn evil_host_tpm_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("dev")).unwrap();
    let path = directory.path().join("dev/tpm0");
    assert_eq!(TpmLocation::danger_find_below(directory.path()).unwrap_err().code(), "TPM_NOT_FOUND");
    std::fs::write(&path, [0; 4096]).unwrap();
    let device = Tpm::new(TpmLocation::device(&path)).with_deadline(Duration::from_secs(1));
    assert_eq!(device.read_pcrs().unwrap_err().code(), "TPM_NOT_A_DEVICE");
    let socket = Tpm::new(TpmLocation::danger_find_below(directory.path()).unwrap());
    assert_eq!(socket.read_pcrs().unwrap_err().code(), "TPM_NOT_A_DEVICE");
    // A socket in the place of a device is none.
    let swtpm = Swtpm::start();
    let device = Tpm::new(TpmLocation::device(swtpm.socket())).with_deadline(Duration::from_secs(1));
    assert_eq!(device.read_pcrs().unwrap_err().code(), "TPM_DEVICE");
    assert_eq!(std::fs::read(&path).unwrap(), [0; 4096], "nothing was written");
}

#[test]
fn a_tpm_below_an_insecure_root_is_found() {
    let swtpm = Swtpm::start();
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("dev")).unwrap();
    // The second of the three names.
    std::fs::rename(swtpm.socket(), root.path().join("dev/tpm1")).unwrap();
    let location = TpmLocation::danger_find_below(root.path()).unwrap();
    assert_eq!(location.path(), root.path().join("dev/tpm1"));
    Tpm::new(location).read_pcrs().unwrap();
}
