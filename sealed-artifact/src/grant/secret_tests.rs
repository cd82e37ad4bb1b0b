use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use proptest::prelude::*;
use sha2::Sha512;

use super::*;
use crate::fixture::{
    Artifact, POLICY, Recipe, broker, identity, kbs_grant, policy, secret, snp_grant, snp_grant_with,
    snp_guest, snp_selection, tpm_grant, tpm_object, tpm_recipient,
};
use crate::kbs::{KbsKek, KbsRecipient};
use crate::keys::ContentKey;
use crate::policy::Hex;
use crate::snp::{SnpDerivedKey, SnpGuest, SnpRootKey, SnpSelection};
use crate::tpm::{PcrSelection, TpmRecipient, TpmSecret};

fn artifact() -> Artifact {
    Recipe::new(1, &[10]).seal()
}

fn kek(seed: u64) -> KbsKek {
    KbsKek::from_bytes(&secret(seed)).unwrap()
}

fn derived(seed: u64) -> SnpDerivedKey {
    SnpDerivedKey::from_bytes(&secret(seed)).unwrap()
}

fn sealed_secret(seed: u64) -> TpmSecret {
    TpmSecret::from_bytes(&secret(seed)).unwrap()
}

fn code(opened: Result<ContentKey, ArtifactError>) -> &'static str {
    opened.map_or_else(|error| error.code(), |_| "opened")
}

/// One grant of each kind with the same secret.
fn of_all_kinds(artifact: &Artifact) -> [Grant; 4] {
    [
        crate::fixture::grant(artifact, &identity(GrantSuite::P384, 1, 4), POLICY),
        kbs_grant(artifact, &broker(1), secret(1), POLICY),
        snp_grant(artifact, &snp_guest(1), secret(1), POLICY),
        tpm_grant(artifact, &tpm_recipient(1), secret(1), POLICY),
    ]
}

/// Opens with the right recipient and secret of the grant's kind.
fn open(grant: &Grant, core: &Core, document: &PolicyDocument) -> Result<ContentKey, ArtifactError> {
    match grant.kind() {
        GrantKind::Chip => grant.open(&identity(GrantSuite::P384, 1, 4), core, document),
        GrantKind::Kbs => grant.open_kbs(&broker(1), &kek(1), core, document),
        GrantKind::Snp => grant.open_snp(&snp_guest(1), &derived(1), core, document),
        GrantKind::Tpm => grant.open_tpm(&tpm_recipient(1), &sealed_secret(1), core, document),
    }
}

fn edited(grant: &Grant, from: &str, to: &str) -> &'static str {
    let text = String::from_utf8(grant.encode()).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    Grant::parse(text.replacen(from, to, 1).as_bytes()).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn every_kind_opens_what_it_sealed_and_keeps_its_form() {
    let artifact = artifact();
    for made in of_all_kinds(&artifact) {
        let parsed = Grant::parse(&made.encode()).unwrap();
        assert_eq!(parsed, made);
        let document = PolicyDocument::parse(parsed.preimage()).unwrap();
        let opened = open(&parsed, &artifact.core, &document).unwrap();
        assert_eq!(opened.expose_bytes(), &artifact.key);
    }
}

#[test]
fn sealing_takes_fresh_keys_and_salts() {
    let artifact = artifact();
    let (core, key, document) = (&artifact.core, artifact.content_key(), policy(POLICY));
    let (first, first_kek) = Grant::seal_kbs(core, &key, &broker(1), &document).unwrap();
    let (second, second_kek) = Grant::seal_kbs(core, &key, &broker(1), &document).unwrap();
    assert_ne!(first_kek.expose_bytes(), second_kek.expose_bytes());
    assert_ne!(first.wrapped(), second.wrapped());
    assert_eq!(first.kbs_resource_path(), second.kbs_resource_path());
    assert_eq!(code(first.open_kbs(&broker(1), &second_kek, core, &document)), "GRANT_OPEN_FAILED");
    assert_eq!(code(second.open_kbs(&broker(1), &second_kek, core, &document)), "opened");
    let selection = snp_selection(SnpRootKey::Vcek);
    let snp = || Grant::seal_snp(core, &key, &snp_guest(1), selection, &derived(1), &document).unwrap();
    assert_ne!(snp().wrapped(), snp().wrapped());
    assert_eq!(code(snp().open_snp(&snp_guest(1), &derived(1), core, &document)), "opened");
    assert_eq!(snp().snp_selection(), Some(selection));
    let tpm = || {
        Grant::seal_tpm(core, &key, &tpm_recipient(1), tpm_object(), &sealed_secret(1), &document).unwrap()
    };
    assert_ne!(tpm().wrapped(), tpm().wrapped());
    assert_eq!(code(tpm().open_tpm(&tpm_recipient(1), &sealed_secret(1), core, &document)), "opened");
    assert_eq!(tpm().tpm_object(), Some(&tpm_object()));
    assert_ne!(TpmSecret::generate().unwrap().expose_bytes(), TpmSecret::generate().unwrap().expose_bytes());
}

/// The context, written out once more.
fn context_of(grant: &Grant, artifact: &Artifact) -> Vec<u8> {
    let epoch = grant.key_epoch().value().to_be_bytes();
    let digest = policy(POLICY).digest();
    let core = artifact.core.digest();
    let (recipient, recipient_key) = (grant.recipient(), grant.recipient_key());
    let parts: [&[u8]; 10] = [
        b"innerkeep grant",
        b"v1",
        grant.kind().as_str().as_bytes(),
        grant.suite().as_str().as_bytes(),
        b"core",
        core.as_bytes(),
        recipient.as_bytes(),
        recipient_key.as_bytes(),
        &epoch,
        digest.as_bytes(),
    ];
    parts
        .iter()
        .flat_map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat())
        .collect()
}

#[test]
fn another_implementation_opens_what_this_one_wraps() {
    let artifact = artifact();
    for made in of_all_kinds(&artifact).into_iter().skip(1) {
        let context = context_of(&made, &artifact);
        let (key, aad) = match &made.form {
            Form::Kbs { .. } | Form::Chip { .. } => (secret(1), context),
            Form::Snp { salt, .. } | Form::Tpm { salt, .. } => {
                let mut info = context;
                if made.kind() == GrantKind::Snp {
                    info.extend(snp_guest(1).host_data);
                }
                let mut key = [0; 32];
                Hkdf::<Sha512>::new(Some(salt), &secret(1)).expand(&info, &mut key).unwrap();
                (key, made.form.object_bytes())
            }
        };
        let cipher = Aes256Gcm::new(&key.into());
        let payload = Payload { msg: made.wrapped(), aad: &aad };
        let opened = cipher.decrypt(&Nonce::from([0; 12]), payload).unwrap();
        assert_eq!(opened, artifact.key, "{}", made.kind());
    }
}

#[test]
fn evil_wrapped_key_of_another_kind_does_not_open() {
    let artifact = artifact();
    let grants = of_all_kinds(&artifact);
    for to in &grants {
        for from in grants.iter().filter(|from| from.kind() != to.kind()) {
            let crossed = Grant { wrapped: from.wrapped, ..to.clone() };
            let opened = open(&crossed, &artifact.core, &policy(POLICY));
            assert_eq!(code(opened), "GRANT_OPEN_FAILED", "{} as {}", from.kind(), to.kind());
        }
    }
}

#[test]
fn evil_recipient_of_another_kind_is_told_so() {
    let artifact = artifact();
    let document = policy(POLICY);
    for grant in of_all_kinds(&artifact) {
        let core = &artifact.core;
        let outcomes = [
            (GrantKind::Chip, grant.open(&identity(GrantSuite::P384, 1, 4), core, &document)),
            (GrantKind::Kbs, grant.open_kbs(&broker(1), &kek(1), core, &document)),
            (GrantKind::Snp, grant.open_snp(&snp_guest(1), &derived(1), core, &document)),
            (GrantKind::Tpm, grant.open_tpm(&tpm_recipient(1), &sealed_secret(1), core, &document)),
        ];
        for (kind, opened) in outcomes {
            let expected = if kind == grant.kind() { "opened" } else { "GRANT_WRONG_RECIPIENT" };
            assert_eq!(code(opened), expected, "{kind} opens {}", grant.kind());
        }
    }
}

#[test]
fn evil_grants_of_other_cores_and_policies_do_not_open() {
    let (artifact, other) = (artifact(), Recipe::new(2, &[10]).seal());
    let weaker = policy(&POLICY.replace("min_counter = 5", "min_counter = 0"));
    for made in of_all_kinds(&artifact) {
        assert_eq!(code(open(&made, &artifact.core, &weaker)), "GRANT_OPEN_FAILED", "{}", made.kind());
        let replaced = Grant { policy: weaker.preimage().to_vec(), ..made };
        assert_eq!(code(open(&replaced, &artifact.core, &weaker)), "GRANT_OPEN_FAILED");
    }
    for made in of_all_kinds(&other) {
        assert_eq!(code(open(&made, &artifact.core, &policy(POLICY))), "GRANT_WRONG_OBJECT");
        let relabelled = Grant { core: artifact.core.digest(), ..made };
        assert_eq!(code(open(&relabelled, &artifact.core, &policy(POLICY))), "GRANT_OPEN_FAILED");
    }
}

#[test]
fn evil_key_of_another_core_is_granted_to_nobody() {
    let (artifact, other) = (artifact(), Recipe::new(2, &[10]).seal());
    let (core, key, document) = (&artifact.core, other.content_key(), policy(POLICY));
    let selection = snp_selection(SnpRootKey::Vcek);
    let refused = [
        Grant::seal_kbs(core, &key, &broker(1), &document).err(),
        Grant::seal_snp(core, &key, &snp_guest(1), selection, &derived(1), &document).err(),
        Grant::seal_tpm(core, &key, &tpm_recipient(1), tpm_object(), &sealed_secret(1), &document).err(),
    ];
    assert!(refused.iter().all(|error| error.as_ref().unwrap().code() == "COMMITMENT_MISMATCH"));
}

#[test]
fn evil_other_recipients_do_not_open() {
    let artifact = artifact();
    let (core, document) = (&artifact.core, policy(POLICY));
    let [_, kbs, snp, tpm] = of_all_kinds(&artifact);
    let brokers = [
        KbsRecipient { name: broker(2).name, ..broker(1) },
        KbsRecipient { key: broker(2).key, ..broker(1) },
        KbsRecipient::without_tls(broker(1).name),
    ];
    for own in brokers {
        assert_eq!(code(kbs.open_kbs(&own, &kek(1), core, &document)), "GRANT_WRONG_RECIPIENT");
    }
    let guests = [
        SnpGuest { measurement: snp_guest(2).measurement, ..snp_guest(1) },
        SnpGuest { guest_policy: snp_guest(2).guest_policy, ..snp_guest(1) },
        SnpGuest { chip_id: snp_guest(2).chip_id, ..snp_guest(1) },
    ];
    for own in guests {
        assert_eq!(code(snp.open_snp(&own, &derived(1), core, &document)), "GRANT_WRONG_RECIPIENT");
    }
    let recipients = [
        TpmRecipient { attestation_key: tpm_recipient(2).attestation_key, ..tpm_recipient(1) },
        TpmRecipient { storage_key: tpm_recipient(2).storage_key, ..tpm_recipient(1) },
    ];
    for own in recipients {
        assert_eq!(code(tpm.open_tpm(&own, &sealed_secret(1), core, &document)), "GRANT_WRONG_RECIPIENT");
    }
    assert_eq!(code(kbs.open_kbs(&broker(1), &kek(2), core, &document)), "GRANT_OPEN_FAILED");
    assert_eq!(code(snp.open_snp(&snp_guest(1), &derived(2), core, &document)), "GRANT_OPEN_FAILED");
    assert_eq!(
        code(tpm.open_tpm(&tpm_recipient(1), &sealed_secret(2), core, &document)),
        "GRANT_OPEN_FAILED"
    );
}

#[test]
fn evil_initdata_derives_foreign_snp_key() {
    let artifact = artifact();
    let made = snp_grant(&artifact, &snp_guest(1), secret(1), POLICY);
    // The same image on the same chip, so the same derived key; only initdata differs.
    let other = SnpGuest { host_data: snp_guest(2).host_data, ..snp_guest(1) };
    let opened = made.open_snp(&other, &derived(1), &artifact.core, &policy(POLICY));
    assert_eq!(code(opened), "GRANT_OPEN_FAILED");
}

#[test]
fn vm_root_key_is_not_tied_to_a_chip() {
    let artifact = artifact();
    let selection = snp_selection(SnpRootKey::Vmrk);
    let made = snp_grant_with(&artifact, &snp_guest(1), selection, secret(1), POLICY);
    let moved = SnpGuest { chip_id: snp_guest(2).chip_id, ..snp_guest(1) };
    assert_eq!(code(made.open_snp(&moved, &derived(1), &artifact.core, &policy(POLICY))), "opened");
}

#[test]
fn evil_selection_or_object_replaced_does_not_open() {
    let artifact = artifact();
    let [_, _, snp, tpm] = of_all_kinds(&artifact);
    let Form::Snp { selection, salt } = snp.form.clone() else { panic!("another kind") };
    let older = SnpSelection::new(
        selection.root(),
        selection.fields(),
        selection.guest_svn(),
        Hex([0, 0, 0, 0, 0, 0, 1, 1]),
    );
    let replaced = Grant { form: Form::Snp { selection: older.unwrap(), salt }, ..snp };
    assert_eq!(code(open(&replaced, &artifact.core, &policy(POLICY))), "GRANT_OPEN_FAILED");
    let pcrs = PcrSelection::new(&[8]).unwrap();
    let fewer = TpmObject::new(pcrs, [1; 32], vec![1], vec![2]).unwrap();
    let replaced = Grant { form: Form::Tpm { object: fewer, salt }, ..tpm };
    assert_eq!(code(open(&replaced, &artifact.core, &policy(POLICY))), "GRANT_OPEN_FAILED");
}

#[test]
fn evil_secret_of_zeros_is_refused() {
    for length in [0, 31, 32, 33] {
        let bytes = vec![0; length];
        assert_eq!(KbsKek::from_bytes(&bytes).err().unwrap().code(), "KEY_INVALID");
        assert_eq!(SnpDerivedKey::from_bytes(&bytes).err().unwrap().code(), "KEY_INVALID");
        assert_eq!(TpmSecret::from_bytes(&bytes).err().unwrap().code(), "KEY_INVALID");
    }
    assert_eq!(KbsKek::from_bytes(&[7; 31]).err().unwrap().code(), "KEY_INVALID");
    assert_eq!(KbsKek::from_bytes(&[7; 33]).err().unwrap().code(), "KEY_INVALID");
}

#[test]
fn evil_snp_key_without_measurement_policy_or_tcb_is_refused() {
    let [_, _, snp, _] = of_all_kinds(&artifact());
    for missing in [SnpSelection::GUEST_POLICY, SnpSelection::MEASUREMENT, SnpSelection::TCB_VERSION] {
        let fields = 0x3f & !missing;
        let refused = SnpSelection::new(SnpRootKey::Vcek, fields, 0, Hex([0; 8])).unwrap_err();
        assert_eq!(refused.code(), "MALFORMED");
        let to = format!("\"guest_field_select\":{fields},");
        assert_eq!(edited(&snp, "\"guest_field_select\":57,", &to), "MALFORMED");
    }
}

#[test]
fn evil_snp_selection_of_unknown_fields_is_refused() {
    for fields in [0x7f, 1 << 63 | 0x3f] {
        let refused = SnpSelection::new(SnpRootKey::Vcek, fields, 0, Hex([0; 8])).unwrap_err();
        assert_eq!(refused.code(), "MALFORMED");
    }
    let refused = SnpSelection::new(SnpRootKey::Vcek, SnpSelection::REQUIRED, 1, Hex([0; 8])).unwrap_err();
    assert_eq!(refused.code(), "MALFORMED");
}

#[test]
fn evil_snp_key_of_another_vmpl_is_refused() {
    let [_, _, snp, _] = of_all_kinds(&artifact());
    for vmpl in ["1", "3", "\"18446744073709551615\""] {
        assert_eq!(edited(&snp, "\"vmpl\":0", &format!("\"vmpl\":{vmpl}")), "MALFORMED");
    }
}

#[test]
fn evil_repeated_registers_are_refused() {
    for registers in [[8, 8].as_slice(), &[8, 4], &[0, 0, 8]] {
        assert_eq!(PcrSelection::new(registers).unwrap_err().code(), "MALFORMED");
    }
    assert_eq!(PcrSelection::new(&[8, 24]).unwrap_err().code(), "LIMIT_EXCEEDED");
}

#[test]
fn evil_tpm_secret_not_bound_to_initdata_is_refused() {
    for registers in [[].as_slice(), &[0], &[0, 1, 2, 3, 4, 5, 6, 7, 9]] {
        assert_eq!(PcrSelection::new(registers).unwrap_err().code(), "MALFORMED");
    }
    let [_, _, _, tpm] = of_all_kinds(&artifact());
    assert_eq!(edited(&tpm, "\"pcrs\":[0,4,8,9]", "\"pcrs\":[0,4,9]"), "MALFORMED");
}

#[test]
fn evil_grant_of_another_kinds_suite_is_refused() {
    let [chip, kbs, snp, tpm] = of_all_kinds(&artifact());
    for (grant, suites) in [
        (&chip, [WrapSuite::Broker.as_str(), WrapSuite::Derived.as_str()]),
        (&kbs, [GrantSuite::P384.as_str(), WrapSuite::Derived.as_str()]),
        (&snp, [GrantSuite::P384.as_str(), WrapSuite::Broker.as_str()]),
        (&tpm, [GrantSuite::XWing.as_str(), WrapSuite::Broker.as_str()]),
    ] {
        let from = format!("\"suite\":\"{}\"", grant.suite());
        for suite in suites {
            assert_eq!(edited(grant, &from, &format!("\"suite\":\"{suite}\"")), "GRANT_KIND_UNKNOWN");
        }
    }
}

#[test]
fn evil_grants_with_members_of_another_kind_are_refused() {
    let [chip, kbs, snp, tpm] = of_all_kinds(&artifact());
    for grant in [&kbs, &snp, &tpm] {
        assert_eq!(edited(grant, "\"key_epoch\":0", "\"key_epoch\":1"), "MALFORMED");
        assert_eq!(edited(grant, "\"core\":", "\"cook\":1,\"core\":"), "MALFORMED");
    }
    assert_eq!(edited(&chip, "\"kind\":", "\"kbs\":{\"broker\":\"a\"},\"kind\":"), "MALFORMED");
    let key = format!("\"key\":\"{}\"", snp.recipient_key());
    assert_eq!(edited(&snp, &key, &format!("\"key\":\"{}\"", kbs.recipient_key())), "MALFORMED");
    // The kind alone exchanged: the object of the new kind is missing.
    assert_eq!(edited(&snp, "\"kind\":\"snp\"", "\"kind\":\"tpm\""), "MALFORMED");
}

#[test]
fn evil_grant_that_shows_another_broker_is_refused() {
    let [_, kbs, ..] = of_all_kinds(&artifact());
    assert_eq!(edited(&kbs, "kbs-1.example", "kbs-2.example"), "MALFORMED");
    assert_eq!(edited(&kbs, "kbs-1.example", "kbs 1.example"), "MALFORMED");
}

#[test]
fn evil_broker_without_payload_digests_is_refused() {
    let bare = Recipe { digests: false, ..Recipe::new(3, &[10]) }.seal();
    let kbs = kbs_grant(&bare, &broker(1), secret(1), POLICY);
    assert_eq!(refuse_forgeable(&bare.core, &[], &kbs).unwrap_err().code(), "GRANT_FORGEABLE");
    let first = std::slice::from_ref(&kbs);
    assert_eq!(refuse_forgeable(&bare.core, first, &kbs).unwrap_err().code(), "GRANT_FORGEABLE");
    let snp = snp_grant(&bare, &snp_guest(1), secret(1), POLICY);
    assert_eq!(refuse_forgeable(&bare.core, &[], &snp), Ok(()));
    let sound = artifact();
    assert_eq!(refuse_forgeable(&sound.core, &[], &kbs_grant(&sound, &broker(1), secret(1), POLICY)), Ok(()));
}

#[test]
fn weakest_grant_is_named() {
    let [chip, kbs, snp, tpm] = of_all_kinds(&artifact());
    let kind = |grants: &[&Grant]| {
        let grants: Vec<Grant> = grants.iter().map(|grant| (*grant).clone()).collect();
        weakest(&grants).map(|found| {
            assert!(!found.sentence().is_empty() && !found.sentence().contains("  "));
            found.kind()
        })
    };
    assert_eq!(kind(&[]), None);
    assert_eq!(kind(&[&chip]), Some(GrantKind::Chip));
    assert_eq!(kind(&[&chip, &snp]), Some(GrantKind::Snp));
    assert_eq!(kind(&[&kbs, &chip, &snp]), Some(GrantKind::Kbs));
    assert_eq!(kind(&[&kbs, &tpm, &chip]), Some(GrantKind::Tpm));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn one_byte_altered_is_refused_or_does_not_open(which in 1..4usize, place: prop::sample::Index, byte: u8) {
        let artifact = artifact();
        let bytes = of_all_kinds(&artifact)[which].encode();
        let mut altered = bytes.clone();
        let place = place.index(altered.len());
        altered[place] = byte;
        if let Ok(parsed) = Grant::parse(&altered) {
            prop_assert_eq!(parsed.encode(), altered.clone());
            let opened = PolicyDocument::parse(parsed.preimage()).and_then(|document| open(&parsed, &artifact.core, &document));
            prop_assert_eq!(opened.is_ok(), altered == bytes);
        }
    }
}
