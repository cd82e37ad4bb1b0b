//! Registers, contexts, and several at a time.

use std::thread;

use attestation_agent::tpm::pcr::{INITDATA_PCR, extended, initdata_pcr};
use attestation_agent::tpm::{AkAlgorithm, AttestationKey, Binding, PcrIndex, Tpm};

use crate::quote::{INITDATA, REPORT_DATA, ak, judge};
use crate::swtpm::{Swtpm, template_of};

fn with_ecc(tpm: Tpm) -> Tpm {
    tpm.with_attestation_key(AttestationKey { otherwise: AkAlgorithm::EccP256, ..AttestationKey::default() })
}

#[test]
fn a_tpm_says_what_it_is() {
    let swtpm = Swtpm::start();
    let info = swtpm.tpm().info().unwrap();
    assert_eq!((info.family.as_str(), info.sha256_bank, info.contexts.len()), ("2.0", true, 0));
    assert!(info.banks.contains(&0x0b));
}

#[test]
fn registers_are_extended() {
    let swtpm = Swtpm::start();
    let tpm = swtpm.tpm();
    let register = PcrIndex::new(16).unwrap();
    assert_eq!(tpm.read_pcrs().unwrap().value(register), [0; 32]);
    tpm.extend(register, &[3; 32]).unwrap();
    tpm.extend(register, &[4; 32]).unwrap();
    let pcrs = tpm.read_pcrs().unwrap();
    assert_eq!(pcrs.value(register), extended(&extended(&[0; 32], &[3; 32]), &[4; 32]));
    // 17 to 22 are of dynamic launch: all ones, and not ours to extend.
    let launch = PcrIndex::new(17).unwrap();
    assert_eq!(pcrs.value(launch), [0xff; 32]);
    assert_eq!(tpm.extend(launch, &[3; 32]).unwrap_err().code(), "TPM_REFUSED");
    assert_eq!(PcrIndex::new(24), None);
}

#[test]
fn initdata_is_bound_once_however_often_the_agent_starts() {
    let swtpm = Swtpm::start();
    assert_eq!(swtpm.tpm().bind_initdata(&INITDATA).unwrap(), Binding::Bound);
    for _ in 0..3 {
        assert_eq!(swtpm.tpm().bind_initdata(&INITDATA).unwrap(), Binding::AlreadyBound);
    }
    let found = swtpm.tpm().read_pcrs().unwrap().value(INITDATA_PCR);
    assert_eq!(found, initdata_pcr(&INITDATA).unwrap());
}

#[test]
fn evil_other_initdata_after_the_first() {
    let swtpm = Swtpm::start();
    let tpm = swtpm.tpm();
    tpm.bind_initdata(&INITDATA).unwrap();
    assert_eq!(tpm.bind_initdata(&[0x12; 32]).unwrap_err().code(), "TPM_INITDATA_TAKEN");
    assert_eq!(tpm.read_pcrs().unwrap().value(INITDATA_PCR), initdata_pcr(&INITDATA).unwrap());
}

#[test]
fn contexts_do_not_stay_behind() {
    let swtpm = Swtpm::start();
    let tpm = with_ecc(swtpm.tpm());
    tpm.bind_initdata(&INITDATA).unwrap();
    let secret = protected_memory::secret::SecretKey::random().unwrap();
    let selection = attestation_agent::tpm::PcrSelection::of([INITDATA_PCR]);
    let pcrs = tpm.read_pcrs().unwrap();
    let first = attestation_agent::tpm::StorageKey::FirstFound;
    for _ in 0..50 {
        tpm.evidence(&REPORT_DATA).unwrap();
        let sealed = tpm.seal(&secret, selection, &pcrs, first).unwrap();
        tpm.unseal(&sealed).unwrap();
        // One that ends half way: object and session are loaded when the registers turn out to be others.
        let other = tpm.seal(&secret, selection, &pcrs.clone().with(INITDATA_PCR, [1; 32]), first).unwrap();
        assert_eq!(tpm.unseal(&other).unwrap_err().code(), "TPM_SEALED_PCRS");
    }
    assert!(tpm.info().unwrap().contexts.is_empty());
}

/// Without a resource manager, three keys that a killed process left fill the TPM.
#[test]
fn contexts_of_a_killed_process_are_given_back() {
    let swtpm = Swtpm::start();
    let tpm = with_ecc(swtpm.tpm());
    let template = template_of(&tpm.attestation_public().unwrap());
    for _ in 0..3 {
        swtpm.primary(0x4000_0001, &template);
    }
    assert_eq!(tpm.info().unwrap().contexts.len(), 3);
    tpm.evidence(&REPORT_DATA).unwrap();
    assert!(tpm.info().unwrap().contexts.is_empty());
}

#[test]
fn several_threads_and_programs_take_turns() {
    let swtpm = Swtpm::start();
    let shared = with_ecc(swtpm.tpm());
    shared.bind_initdata(&INITDATA).unwrap();
    let key = ak(&shared);
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let (shared, swtpm) = (&shared, &swtpm);
            scope.spawn(move || {
                let own = with_ecc(swtpm.tpm());
                let tpm = if number % 2 == 0 { shared } else { &own };
                for round in 0..5_u8 {
                    let data = [number * 16 + round; 64];
                    judge(&tpm.evidence(&data).unwrap(), &data, &[key]).unwrap();
                    tpm.extend(PcrIndex::new(16).unwrap(), &[round; 32]).unwrap();
                }
            });
        }
    });
    assert!(shared.info().unwrap().contexts.is_empty());
}
