use super::*;
use crate::kbs::tee_key::tests::vectors;

fn bytes(value: &serde_json::Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn concat_kdf_gives_the_published_keys() {
    for name in ["P-256", "P-521"] {
        let vector = &vectors()[name];
        assert_eq!(concat_kdf(&bytes(&vector["shared_secret_z_hex"])).to_vec(), bytes(&vector["kek_hex"]));
    }
}

#[test]
fn kmac256_gives_the_answer_of_nist() {
    // SP 800-185 examples, KMAC sample 5: no customisation, 200 bytes of message.
    let key: Vec<u8> = (0x40..0x60).collect();
    let message: Vec<u8> = (0..200).collect();
    let mut out = [0; 64];
    kmac256(&key, &message, &mut out);
    assert_eq!(
        hex::encode(out),
        "75358cf39e41494e949707927cee0af20a3ff553904c86b08f21cc414bcfd691\
         589d27cf5e15369cbbff8b9a4c2eb17800855d0235ff635da82533ec6b759b69"
    );
}

#[test]
fn ml_kem_key_is_that_of_another_reading() {
    let vector = &vectors()["ML-KEM-768"];
    assert_eq!(ml_kem_kdf(&bytes(&vector["shared_secret_hex"])).to_vec(), bytes(&vector["kwk_hex"]));
}
