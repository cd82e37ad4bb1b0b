//! A host that wants the secret on its way, or wants the guest to take another one.

use attestation_agent::tpm::pcr::INITDATA_PCR;
use attestation_agent::tpm::{PcrSelection, StorageKey};
use protected_memory::secret::SecretKey;

use crate::liar::{Answer, Liar};
use crate::quote::INITDATA;
use crate::seal::{scene, selection};
use crate::swtpm::{PASSWORD, Swtpm, sized};

const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
const UNSEAL: u32 = 0x15e;
const POLICY_GET_DIGEST: u32 = 0x189;

fn contains(traffic: &[Vec<u8>], secret: &[u8]) -> bool {
    traffic.iter().any(|message| message.windows(secret.len()).any(|window| window == secret))
}

#[test]
fn evil_host_tpm_reads_the_bus() {
    let swtpm = Swtpm::start();
    let liar = Liar::listening(&swtpm);
    let tpm = liar.tpm();
    tpm.bind_initdata(&INITDATA).unwrap();
    let secret = SecretKey::random().unwrap();
    let sealed = tpm.seal(&secret, selection(), &tpm.read_pcrs().unwrap(), StorageKey::FirstFound).unwrap();
    assert_eq!(tpm.unseal(&sealed).unwrap().expose(), secret.expose());
    let traffic = liar.traffic();
    assert!(liar.commands().contains(&CREATE) && liar.commands().contains(&UNSEAL));
    assert!(contains(&traffic, &INITDATA), "what is public is seen");
    for part in secret.expose().windows(8) {
        assert!(!contains(&traffic, part));
    }
    // Each time in other bytes, though it is the same secret.
    let answers = |traffic: &[Vec<u8>]| {
        let pairs = traffic.chunks(2).filter(|pair| pair[0][6..10] == UNSEAL.to_be_bytes());
        pairs.map(|pair| pair[1][14..48].to_vec()).collect::<Vec<_>>()
    };
    tpm.unseal(&sealed).unwrap();
    let answers = answers(&liar.traffic());
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0][..2], answers[1][..2]);
    assert_ne!(answers[0], answers[1]);
}

/// The host answers Unseal itself: a secret that it knows, in the clear.
#[test]
fn evil_host_tpm_secret_without_encryption() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let known = [0x77; 32];
    let parameters = sized(&known);
    let length = u32::try_from(parameters.len()).unwrap().to_be_bytes();
    let empty_auth = [0, 0, 1, 0, 0];
    // Attributes as the command had them: only the HMAC is wrong, or not there.
    let some_auth = [&[0, 32][..], &[1; 32], &[0x41, 0, 32], &[2; 32]].concat();
    let silent_auth = [&[0, 32][..], &[1; 32], &[0x41, 0, 0]].concat();
    let answers = [
        (0x8002_u16, [&length[..], &parameters, &empty_auth].concat(), "TPM_SESSION_FORGED"),
        (0x8002, [&length[..], &parameters, &some_auth].concat(), "TPM_SESSION_FORGED"),
        (0x8002, [&length[..], &parameters, &silent_auth].concat(), "TPM_SESSION_FORGED"),
        (0x8001, parameters.clone(), "TPM_UNEXPECTED"),
    ];
    for (tag, body, expected) in answers {
        let size = u32::try_from(10 + body.len()).unwrap();
        let answer = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &[0; 4], &body].concat();
        let liar = Liar::before(&swtpm, move |code, _, response| {
            Answer::Bytes(if code == UNSEAL { answer.clone() } else { response })
        });
        assert_eq!(liar.tpm().unseal(&sealed).unwrap_err().code(), expected);
        assert!(liar.commands().contains(&UNSEAL));
    }
}

#[test]
fn evil_host_tpm_response_with_wrong_hmac() {
    let swtpm = Swtpm::start();
    let (secret, sealed) = scene(&swtpm);
    // From the end: HMAC, attributes, nonce, parameters.
    for from_end in [0, 31, 34, 35, 66, 69, 80, 100] {
        let liar = Liar::before(&swtpm, move |code, _, mut response| {
            if code == UNSEAL {
                let at = response.len() - 1 - from_end;
                response[at] ^= 0x10;
            }
            Answer::Bytes(response)
        });
        assert_eq!(liar.tpm().unseal(&sealed).unwrap_err().code(), "TPM_SESSION_FORGED", "{from_end}");
        let pcrs = swtpm.tpm().read_pcrs().unwrap();
        let liar = Liar::before(&swtpm, move |code, _, mut response| {
            if code == CREATE {
                let at = response.len() - 1 - from_end;
                response[at] ^= 0x10;
            }
            Answer::Bytes(response)
        });
        let refused = liar.tpm().seal(&secret, selection(), &pcrs, StorageKey::FirstFound);
        assert_eq!(refused.unwrap_err().code(), "TPM_SESSION_FORGED", "{from_end}");
    }
}

/// The sealed object is said to be where the storage key is: what is flushed, and what is asked, would be another thing.
#[test]
fn evil_host_tpm_gives_a_handle_twice() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let mut storage_key = [0; 4];
    let liar = Liar::before(&swtpm, move |code, _, mut response| {
        if code == CREATE_PRIMARY {
            storage_key.copy_from_slice(&response[10..14]);
        }
        if code == LOAD {
            response[10..14].copy_from_slice(&storage_key);
        }
        Answer::Bytes(response)
    });
    assert_eq!(liar.tpm().unseal(&sealed).unwrap_err().code(), "TPM_UNEXPECTED");
    assert!(liar.commands().contains(&LOAD) && !liar.commands().contains(&UNSEAL));
}

/// An answer of an earlier session is not one of this session.
#[test]
fn evil_host_tpm_replays_an_unsealed_answer() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let mut first = None;
    let liar = Liar::before(&swtpm, move |code, _, response| {
        Answer::Bytes(if code == UNSEAL { first.get_or_insert(response).clone() } else { response })
    });
    liar.tpm().unseal(&sealed).unwrap();
    assert_eq!(liar.tpm().unseal(&sealed).unwrap_err().code(), "TPM_SESSION_FORGED");
}

#[test]
fn evil_host_tpm_offers_its_own_storage_key() {
    let (own, other) = (Swtpm::start(), Swtpm::start());
    let pinned = StorageKey::Named(own.tpm().storage_public().unwrap().name());
    let secret = SecretKey::random().unwrap();
    let pcrs = other.tpm().read_pcrs().unwrap();
    let liar = Liar::listening(&other);
    let refused = liar.tpm().seal(&secret, selection(), &pcrs, pinned).unwrap_err();
    assert_eq!(refused.code(), "TPM_STORAGE_KEY_FOREIGN");
    assert!(!liar.commands().contains(&CREATE), "no secret was sent");
}

#[test]
fn evil_host_tpm_unseals_by_another_tpm() {
    let (own, other) = (Swtpm::start(), Swtpm::start());
    let (_, sealed) = scene(&own);
    let liar = Liar::listening(&other);
    assert_eq!(liar.tpm().unseal(&sealed).unwrap_err().code(), "TPM_STORAGE_KEY_FOREIGN");
    assert!(!liar.commands().contains(&LOAD));
}

#[test]
fn evil_host_tpm_computes_another_policy() {
    let swtpm = Swtpm::start();
    let pcrs = swtpm.tpm().read_pcrs().unwrap();
    let liar = Liar::before(&swtpm, |code, _, mut response| {
        if code == POLICY_GET_DIGEST {
            *response.last_mut().unwrap() ^= 1;
        }
        Answer::Bytes(response)
    });
    let secret = SecretKey::random().unwrap();
    let only = PcrSelection::of([INITDATA_PCR]);
    let refused = liar.tpm().seal(&secret, only, &pcrs, StorageKey::FirstFound).unwrap_err();
    assert_eq!(refused.code(), "TPM_POLICY_MISMATCH");
    assert!(!liar.commands().contains(&CREATE));
}

/// What the policy protects: not even the empty password opens the object.
#[test]
fn evil_guest_unseals_by_password() {
    let swtpm = Swtpm::start();
    let (_, sealed) = scene(&swtpm);
    let storage = swtpm.tpm().storage_public().unwrap();
    let parent = swtpm.primary(0x4000_0001, &crate::swtpm::template_of(&storage));
    let mut load = [LOAD, parent].map(u32::to_be_bytes).concat();
    load.extend(PASSWORD);
    load.extend(sealed.private());
    load.extend(sealed.public());
    let loaded = swtpm.raw(0x8002, &load);
    assert_eq!(loaded[6..10], [0; 4]);
    let mut unseal = UNSEAL.to_be_bytes().to_vec();
    unseal.extend(&loaded[10..14]);
    unseal.extend(PASSWORD);
    let refused = swtpm.raw(0x8002, &unseal);
    assert_eq!(refused.len(), 10, "AUTH_UNAVAILABLE and no secret");
    assert_eq!(refused[6..10], [0, 0, 1, 0x2f]);
}
