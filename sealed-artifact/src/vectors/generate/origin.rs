//! Pins, signatures, floors.

use super::{Set, Writer, direct, pin_core, pin_sealer, released, whole};
use crate::fixture::{Artifact, Recipe, sealer_public, sign, signature_object};

fn signed(counter: u64, family: &'static str) -> Artifact {
    Recipe { counter, family, sealer: Some(1), ..Recipe::new(70 + counter, &[20]) }.seal()
}

fn keyed(writer: Writer, artifact: &Artifact) -> Writer {
    direct(writer, artifact).line("content_key", &hex::encode(artifact.key))
}

pub(super) fn add(set: &mut Set) {
    let none = released(&[]);
    let artifact = signed(7, "acme/ranker");
    let signature = sign(&artifact.core, 1);
    let by = |comment: &str, expect: &str| {
        let outcome = if expect == "success" { whole(&artifact) } else { none.clone() };
        keyed(Writer::new(comment, expect), &artifact).line("released", &outcome)
    };
    let pin = pin_sealer(1, "acme/ranker", 7);
    set.vector("unpinned-unsigned", by("neither pin nor signature", "ORIGIN_UNPROVEN"));
    set.vector(
        "signed-unpinned",
        by("signed, but nobody pinned the key", "ORIGIN_UNPROVEN").bytes("signature", &signature),
    );
    set.vector(
        "pinned-key-unsigned",
        by("a pinned key, but no signature", "ORIGIN_UNPROVEN").line("pin", &pin),
    );
    set.vector(
        "other-core-pinned",
        by("another core is pinned", "ORIGIN_UNPROVEN").line("pin", &pin_core(&signed(6, "acme/ranker"))),
    );
    set.vector(
        "other-key-pinned",
        by("signed by a key that is not the pinned one", "ORIGIN_UNPROVEN")
            .bytes("signature", &signature)
            .line("pin", &pin_sealer(2, "acme/ranker", 1)),
    );
    set.vector(
        "other-family-pinned",
        by("signed by the pinned key, but of another family", "ORIGIN_UNPROVEN")
            .bytes("signature", &signature)
            .line("pin", &pin_sealer(1, "acme/embedder", 1)),
    );
    set.vector(
        "pinned-core-bad-signature",
        by("a core pinned by digest needs no signature", "success")
            .bytes("signature", &sign(&signed(6, "acme/ranker").core, 1))
            .line("pin", &pin_core(&artifact)),
    );
    signatures(set, &artifact, &pin);
    rollback(set);
}

fn signatures(set: &mut Set, artifact: &Artifact, pin: &str) {
    let none = released(&[]);
    let digest = artifact.core.digest().to_string();
    let sound = sign(&artifact.core, 1);
    let other = sign(&signed(6, "acme/ranker").core, 1);
    let mut flipped = [0; 96];
    flipped.copy_from_slice(&crate::signature::tests::raw_signature(&sound));
    flipped[40] ^= 4;
    let spki = sealer_public(1).spki_der().to_vec();
    let cases = [
        (
            "signature-of-another-core",
            "SIGNATURE_INVALID",
            "a signature object that names another core",
            other.clone(),
        ),
        (
            "signature-relabelled",
            "SIGNATURE_INVALID",
            "the signature of another core under this core's name",
            { signature_object(&digest, &spki, &crate::signature::tests::raw_signature(&other)) },
        ),
        (
            "signature-flipped-bit",
            "SIGNATURE_INVALID",
            "a flipped bit in the signature",
            signature_object(&digest, &spki, &flipped),
        ),
        (
            "signature-zero",
            "SIGNATURE_INVALID",
            "a signature of zeros",
            signature_object(&digest, &spki, &[0; 96]),
        ),
        (
            "signature-by-another-key",
            "SIGNATURE_INVALID",
            "signed by a key that the core does not name",
            sign(&artifact.core, 2),
        ),
        (
            "signature-short",
            "MALFORMED",
            "a signature of 95 bytes",
            signature_object(&digest, &spki, &flipped[..95]),
        ),
        ("signature-key-off-curve", "KEY_INVALID", "a key whose point is not on the curve", {
            let mut key = spki.clone();
            key[119] ^= 1;
            signature_object(&digest, &key, &flipped)
        }),
        (
            "signature-key-compressed",
            "KEY_INVALID",
            "a key in compressed form",
            signature_object(&digest, &spki[..72], &flipped),
        ),
    ];
    for (name, expect, comment, signature) in cases {
        let writer = keyed(Writer::new(comment, expect), artifact).line("released", &none);
        set.vector(name, writer.bytes("signature", &signature).line("pin", pin));
    }
    let unnamed = Recipe::new(72, &[20]).seal();
    let writer = keyed(Writer::new("a signed core that names no sealer", "SIGNATURE_INVALID"), &unnamed);
    set.vector(
        "signature-without-sealer",
        writer.bytes("signature", &sign(&unnamed.core, 1)).line("pin", pin).line("released", &none),
    );
}

fn rollback(set: &mut Set) {
    let none = released(&[]);
    let artifact = signed(7, "acme/ranker");
    let floor = |counter: u64, family: &str, seed: u64| {
        format!("sealer {} family {family} counter {counter}", sealer_public(seed).digest())
    };
    let with = |comment: &str, expect: &str, minimum: u64, floor: Option<String>| {
        let outcome = if expect == "success" { whole(&artifact) } else { none.clone() };
        let writer = keyed(Writer::new(comment, expect), &artifact)
            .bytes("signature", &sign(&artifact.core, 1))
            .line("released", &outcome)
            .line("pin", &pin_sealer(1, "acme/ranker", minimum));
        floor.into_iter().fold(writer, |writer, floor| writer.line("floor", &floor))
    };
    set.vector("rollback-below-pin", with("a counter below the pin's minimum", "ROLLBACK", 8, None));
    set.vector(
        "rollback-below-floor",
        with("a counter below a known floor", "ROLLBACK", 1, Some(floor(8, "acme/ranker", 1))),
    );
    set.vector(
        "success-counter-at-floor",
        with("a counter equal to the floor", "success", 1, Some(floor(7, "acme/ranker", 1))),
    );
    set.vector(
        "success-floor-of-another-family",
        with("a higher floor of another family", "success", 1, Some(floor(9, "acme/embedder", 1))),
    );
    set.vector(
        "success-floor-of-another-key",
        with("a higher floor of another sealer key", "success", 1, Some(floor(9, "acme/ranker", 2))),
    );
}
