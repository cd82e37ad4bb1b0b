//! Quotes: what a verifier believes and what it does not.

use attestation_agent::tpm::wire::{Public, ResponseCode};
use attestation_agent::tpm::{
    AkAlgorithm, AkDigest, AttestationKey, Expected, ExpectedInitdata, PcrIndex, Tpm, TpmError, TpmEvidence,
    verify,
};
use serde_json::Value;

use crate::swtpm::{PASSWORD, Swtpm, sized, template_of};

pub const REPORT_DATA: [u8; 64] = [0x5a; 64];
pub const INITDATA: [u8; 32] = [0x11; 32];
const AK_HANDLE: u32 = 0x8101_0002;
const ENDORSEMENT: u32 = 0x4000_000b;

pub fn ak(tpm: &Tpm) -> AkDigest {
    AkDigest::of_public(&tpm.attestation_public().unwrap()).unwrap()
}

pub fn judge(evidence: &TpmEvidence, report_data: &[u8], aks: &[AkDigest]) -> Result<(), TpmError> {
    let initdata = ExpectedInitdata::Digest(&INITDATA);
    verify::verify(evidence, &Expected { report_data, trusted_aks: aks, initdata }).map(|_| ())
}

/// A TPM with initdata bound, its evidence, and its key.
fn scene(algorithm: AkAlgorithm) -> (Swtpm, Tpm, TpmEvidence, AkDigest) {
    let swtpm = Swtpm::start();
    let tpm = swtpm.tpm().with_attestation_key(AttestationKey { handle: AK_HANDLE, otherwise: algorithm });
    tpm.bind_initdata(&INITDATA).unwrap();
    let evidence = tpm.evidence(&REPORT_DATA).unwrap();
    let ak = ak(&tpm);
    (swtpm, tpm, evidence, ak)
}

#[test]
fn quotes_verify_with_both_algorithms() {
    for algorithm in [AkAlgorithm::Rsa2048, AkAlgorithm::EccP256] {
        let (_swtpm, tpm, evidence, ak) = scene(algorithm);
        judge(&evidence, &REPORT_DATA, &[ak]).unwrap();
        let expected =
            Expected { report_data: &REPORT_DATA, trusted_aks: &[ak], initdata: ExpectedInitdata::NotJudged };
        let verified = verify::verify(&evidence, &expected).unwrap();
        assert_eq!(verified.pcrs, tpm.read_pcrs().unwrap());
        assert_eq!(verified.ak, ak);
        // The nonce is the first half of the report data, or report data and zeros.
        judge(&evidence, &REPORT_DATA[..32], &[ak]).unwrap();
        judge(&tpm.evidence(b"short").unwrap(), b"short", &[ak]).unwrap();
    }
}

#[test]
fn keys_made_from_the_template_are_the_same_each_time() {
    let (swtpm, tpm, _, first) = scene(AkAlgorithm::Rsa2048);
    assert_eq!(ak(&tpm), first);
    assert_eq!(ak(&swtpm.tpm()), first);
    assert_ne!(ak(&Swtpm::start().tpm()), first);
}

#[test]
fn a_persistent_key_is_used_if_there_is_one() {
    let (swtpm, tpm, _, made) = scene(AkAlgorithm::EccP256);
    // In the owner hierarchy the same template makes another key.
    let key = swtpm.primary(0x4000_0001, &template_of(&tpm.attestation_public().unwrap()));
    swtpm.persist(key, AK_HANDLE);
    let persistent = ak(&tpm);
    assert_ne!(persistent, made);
    judge(&tpm.evidence(&REPORT_DATA).unwrap(), &REPORT_DATA, &[persistent]).unwrap();
}

#[test]
fn evil_persistent_key_that_signs_anything() {
    let (swtpm, tpm, _, _) = scene(AkAlgorithm::EccP256);
    let mut template = template_of(&tpm.attestation_public().unwrap());
    template.attributes &= !(1 << 16);
    let key = swtpm.primary(0x4000_0001, &template);
    swtpm.persist(key, AK_HANDLE);
    assert_eq!(tpm.evidence(&REPORT_DATA).unwrap_err().code(), "TPM_KEY_UNFIT");
    assert_eq!(tpm.attestation_public().unwrap_err().code(), "TPM_KEY_UNFIT");
}

#[test]
fn evidence_has_the_form_that_verifiers_read() {
    let (_swtpm, _, evidence, ak) = scene(AkAlgorithm::Rsa2048);
    let json = evidence.to_json();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut outer = members(&json);
    outer.sort();
    assert_eq!(outer, ["ak_public", "tpm_quote"]);
    let mut inner = members(&json["tpm_quote"]);
    inner.sort();
    assert_eq!(inner, ["message", "pcrs", "signature"]);
    let pcrs = json["tpm_quote"]["pcrs"].as_array().unwrap();
    assert_eq!((pcrs.len(), pcrs[0].as_str().unwrap().len()), (24, 64));
    let read = TpmEvidence::parse(json.to_string().as_bytes()).unwrap();
    assert_eq!(read, evidence);
    judge(&read, &REPORT_DATA, &[ak]).unwrap();
}

#[test]
fn evil_tpm_evidence_of_other_forms() {
    let (_swtpm, _, evidence, _) = scene(AkAlgorithm::EccP256);
    let good = evidence.to_json();
    let refused =
        |json: &[u8]| assert_eq!(TpmEvidence::parse(json).unwrap_err().code(), "TPM_EVIDENCE_MALFORMED");
    let mut fewer = good.clone();
    fewer["tpm_quote"]["pcrs"].as_array_mut().unwrap().pop();
    let mut more = good.clone();
    more["extra"] = Value::Null;
    let mut shorter = good.clone();
    shorter["tpm_quote"]["pcrs"][3] = "00".into();
    let mut other = good.clone();
    other["tpm_quote"]["signature"] = "?".into();
    for json in [fewer, more, shorter, other] {
        refused(json.to_string().as_bytes());
    }
    refused(b"");
    // Good evidence behind 64 KiB of blanks.
    refused(format!("{}{good}", " ".repeat(64 << 10)).as_bytes());
}

#[test]
fn evil_tpm_quote_for_another_nonce() {
    let (_swtpm, _, evidence, ak) = scene(AkAlgorithm::EccP256);
    for other in [&[0x5b; 64][..], &[0x5a; 31], &[]] {
        assert_eq!(judge(&evidence, other, &[ak]).unwrap_err().code(), "TPM_QUOTE_NONCE");
    }
}

#[test]
fn evil_tpm_other_initdata() {
    let (_swtpm, _, evidence, ak) = scene(AkAlgorithm::EccP256);
    for digest in [&[0x12; 32][..], &[0; 32]] {
        let initdata = ExpectedInitdata::Digest(digest);
        let expected = Expected { report_data: &REPORT_DATA, trusted_aks: &[ak], initdata };
        assert_eq!(verify::verify(&evidence, &expected).unwrap_err().code(), "TPM_QUOTE_INITDATA");
    }
    // A digest that begins with the right 32 bytes is not cut.
    let initdata = ExpectedInitdata::Digest(&[0x11; 48]);
    let expected = Expected { report_data: &REPORT_DATA, trusted_aks: &[ak], initdata };
    assert_eq!(verify::verify(&evidence, &expected).unwrap_err().code(), "TPM_INITDATA_LENGTH");
}

#[test]
fn evil_tpm_registers_not_quoted() {
    let (_swtpm, _, mut evidence, ak) = scene(AkAlgorithm::EccP256);
    let other = PcrIndex::new(4).unwrap();
    evidence.pcrs = evidence.pcrs.with(other, [7; 32]);
    assert_eq!(judge(&evidence, &REPORT_DATA, &[ak]).unwrap_err().code(), "TPM_QUOTE_PCRS");
}

#[test]
fn evil_tpm_quote_altered() {
    for algorithm in [AkAlgorithm::EccP256, AkAlgorithm::Rsa2048] {
        let (_swtpm, _, evidence, ak) = scene(algorithm);
        for index in 0..evidence.message.len() {
            let mut altered = evidence.clone();
            altered.message[index] ^= 1;
            let error = judge(&altered, &REPORT_DATA, &[ak]).unwrap_err();
            assert_eq!(error.code(), "TPM_QUOTE_SIGNATURE", "byte {index}");
        }
        for index in 0..evidence.signature.len() {
            let mut altered = evidence.clone();
            altered.signature[index] ^= 1;
            judge(&altered, &REPORT_DATA, &[ak]).unwrap_err();
        }
    }
}

/// A genuine quote by the genuine key, of PCR 8 alone.
#[test]
fn evil_tpm_quote_of_fewer_registers() {
    let (swtpm, tpm, mut evidence, ak) = scene(AkAlgorithm::EccP256);
    let public: Public = tpm.attestation_public().unwrap();
    let key = swtpm.primary(ENDORSEMENT, &template_of(&public));
    let mut body = [0x158, key].map(u32::to_be_bytes).concat();
    body.extend(PASSWORD);
    body.extend(sized(&[0x5a; 32]));
    body.extend([0, 0x10, 0, 0, 0, 1, 0, 0x0b, 3, 0, 1, 0]);
    let response = swtpm.raw(0x8002, &body);
    assert_eq!(ResponseCode::new(u32::from_be_bytes(response[6..10].try_into().unwrap())), None);
    let length = usize::from(u16::from_be_bytes([response[14], response[15]]));
    evidence.message = response[16..16 + length].to_vec();
    // The signature ends where the five bytes of the password's answer begin.
    evidence.signature = response[16 + length..response.len() - 5].to_vec();
    assert_eq!(judge(&evidence, &REPORT_DATA, &[ak]).unwrap_err().code(), "TPM_QUOTE_SELECTION");
}
