//! Secrets under registers.

use attestation_agent::tpm::pcr::{INITDATA_PCR, initdata_pcr};
use attestation_agent::tpm::wire::{Name, Public};
use attestation_agent::tpm::{PcrIndex, PcrSelection, Sealed, StorageKey, Tpm, TpmError};
use protected_memory::secret::SecretKey;

use crate::quote::INITDATA;
use crate::swtpm::{Swtpm, sized};

pub fn selection() -> PcrSelection {
    PcrSelection::of([0, 4, 8].map(|index| PcrIndex::new(index).unwrap()))
}

/// A TPM with initdata bound, a secret, and that secret sealed to the registers as they are.
pub fn scene(swtpm: &Swtpm) -> (SecretKey<32>, Sealed) {
    let tpm = swtpm.tpm();
    tpm.bind_initdata(&INITDATA).unwrap();
    let secret = SecretKey::random().unwrap();
    let name = tpm.storage_public().unwrap().name();
    let sealed = tpm.seal(&secret, selection(), &tpm.read_pcrs().unwrap(), StorageKey::Named(name)).unwrap();
    assert_eq!(sealed.storage_key(), name);
    (secret, sealed)
}

fn code(refused: Result<SecretKey<32>, TpmError>) -> &'static str {
    refused.unwrap_err().code()
}

fn rebuilt(sealed: &Sealed, public: &[u8], private: &[u8]) -> Result<Sealed, TpmError> {
    Sealed::parse(sealed.selection(), sealed.policy(), sealed.storage_key(), public, private)
}

#[test]
fn a_sealed_secret_comes_back() {
    let swtpm = Swtpm::start();
    let (secret, sealed) = scene(&swtpm);
    assert_eq!(swtpm.tpm().unseal(&sealed).unwrap().expose(), secret.expose());
    // From its parts, as a grant carries them.
    let read = rebuilt(&sealed, &sealed.public(), &sealed.private()).unwrap();
    assert_eq!(read, sealed);
    assert_eq!(swtpm.tpm().unseal(&read).unwrap().expose(), secret.expose());
}

#[test]
fn a_secret_is_sealed_to_what_is_yet_to_be_started() {
    let swtpm = Swtpm::start();
    let tpm = swtpm.tpm();
    let secret = SecretKey::random().unwrap();
    let later = tpm.read_pcrs().unwrap().with(INITDATA_PCR, initdata_pcr(&INITDATA).unwrap());
    let sealed = tpm.seal(&secret, selection(), &later, StorageKey::FirstFound).unwrap();
    assert_eq!(code(tpm.unseal(&sealed)), "TPM_SEALED_PCRS");
    tpm.bind_initdata(&INITDATA).unwrap();
    assert_eq!(tpm.unseal(&sealed).unwrap().expose(), secret.expose());
}

#[test]
fn evil_register_extended_after_sealing() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let tpm: Tpm = swtpm.tpm();
    // A register that was not selected changes nothing.
    tpm.extend(PcrIndex::new(5).unwrap(), &[1; 32]).unwrap();
    tpm.unseal(&sealed).unwrap();
    tpm.extend(PcrIndex::new(4).unwrap(), &[1; 32]).unwrap();
    assert_eq!(code(tpm.unseal(&sealed)), "TPM_SEALED_PCRS");
}

#[test]
fn evil_guest_with_other_initdata_unseals() {
    let swtpm = Swtpm::start();
    let tpm = swtpm.tpm();
    let secret = SecretKey::random().unwrap();
    let expected = tpm.read_pcrs().unwrap().with(INITDATA_PCR, initdata_pcr(&INITDATA).unwrap());
    let sealed = tpm.seal(&secret, selection(), &expected, StorageKey::FirstFound).unwrap();
    tpm.bind_initdata(&[0x12; 32]).unwrap();
    assert_eq!(code(tpm.unseal(&sealed)), "TPM_SEALED_PCRS");
}

#[test]
fn evil_seal_without_initdata_register() {
    let swtpm = Swtpm::start();
    let (secret, sealed) = scene(&swtpm);
    let tpm = swtpm.tpm();
    let without = PcrSelection::of([PcrIndex::new(0).unwrap()]);
    let refused = tpm.seal(&secret, without, &tpm.read_pcrs().unwrap(), StorageKey::FirstFound);
    assert_eq!(refused.unwrap_err().code(), "TPM_SELECTION");
    let refused =
        Sealed::parse(without, sealed.policy(), sealed.storage_key(), &sealed.public(), &sealed.private());
    assert_eq!(refused.unwrap_err().code(), "TPM_SELECTION");
}

#[test]
fn evil_sealed_object_of_another_policy() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let refused =
        Sealed::parse(selection(), [1; 32], sealed.storage_key(), &sealed.public(), &sealed.private());
    assert_eq!(refused.unwrap_err().code(), "TPM_SEALED_FOREIGN");
    // An object that a password opens as well.
    let mut public = Public::parse(&sealed.public()[2..]).unwrap();
    public.attributes |= 1 << 6;
    let refused = rebuilt(&sealed, &sized(&public.marshal()), &sealed.private());
    assert_eq!(refused.unwrap_err().code(), "TPM_SEALED_FOREIGN");
}

#[test]
fn evil_sealed_object_altered() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let mut private = sealed.private();
    *private.last_mut().unwrap() ^= 1;
    let altered = rebuilt(&sealed, &sealed.public(), &private).unwrap();
    assert_eq!(code(swtpm.tpm().unseal(&altered)), "TPM_REFUSED");
    let mut long = sealed.private();
    long.push(0);
    assert_eq!(rebuilt(&sealed, &sealed.public(), &long).unwrap_err().code(), "TPM_TRAILING");
    let name = Name::of_digest(&[0; 32]);
    let foreign =
        Sealed::parse(sealed.selection(), sealed.policy(), name, &sealed.public(), &sealed.private())
            .unwrap();
    assert_eq!(code(swtpm.tpm().unseal(&foreign)), "TPM_STORAGE_KEY_FOREIGN");
}
