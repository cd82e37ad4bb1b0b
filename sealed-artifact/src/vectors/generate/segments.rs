//! Sizes, truncation, extension, order, splices, forgeries by key holders.

use super::super::second::{Binding, payload_key};
use super::{Set, Writer, direct, openable, released, success, whole};
use crate::core::Core;
use crate::fixture::{Artifact, Recipe, plaintext, stream};

const SEGMENT: usize = 65_536;

/// Name, comment, and what is done to the recipe.
type Edit = (&'static str, &'static str, fn(&mut Recipe));

pub(super) fn add(set: &mut Set) {
    sizes(set);
    two_segments(set);
    three_segments(set);
    forged_bindings(set);
    two_payloads(set);
    cores(set);
}

fn sizes(set: &mut Set) {
    let cases: [(&str, &str, &[usize]); 5] = [
        ("success-empty", "an empty payload is one empty segment", &[0]),
        ("success-one-byte", "a payload of one byte", &[1]),
        (
            "success-exact-segment",
            "a payload of exactly one segment has no empty segment at its end",
            &[SEGMENT],
        ),
        ("success-several-payloads", "several payloads, each with its own key", &[17, 0, 4_096]),
        ("success-larger-by-one", "a payload of one segment and one byte", &[SEGMENT + 1]),
    ];
    for (seed, (name, comment, sizes)) in (20..).zip(cases) {
        set.vector(name, success(&Recipe::new(seed, sizes).seal(), comment));
    }
    let mut recipe = Recipe::new(30, &[300]);
    recipe.digests = false;
    set.vector("success-no-payload-digest", success(&recipe.seal(), "a core without payload digests"));
    let mut recipe = Recipe::new(31, &[300]);
    recipe.counter = u64::MAX;
    set.vector(
        "success-largest-counter",
        success(&recipe.seal(), "a counter above 2^53-1 is a decimal string"),
    );
}

fn unchecked(fixture: &str, comment: &str, expect: &str) -> Writer {
    Writer::on(fixture, comment, expect).line("origin", "unchecked")
}

fn two_segments(set: &mut Set) {
    let artifact = Recipe::new(40, &[SEGMENT + 100]).seal();
    let fixture = set.fixture("two-segments", openable(Writer::default(), &artifact));
    let text = plaintext(artifact.plaintexts[0].0, SEGMENT + 100);
    let (first, none) = (released(&[&text[..SEGMENT]]), released(&[]));
    let on = |comment: &str, expect: &str| Writer::on(&fixture, comment, expect);
    set.vector(
        "success-two-segments",
        on("two segments, the last one short", "success").line("released", &whole(&artifact)),
    );
    let cases: [(&str, &str, &str, &str, &str); 9] = [
        ("truncated-by-one", "truncate payload.0 65635", "LENGTH_MISMATCH", &none, "a blob cut by one byte"),
        (
            "truncated-at-a-segment",
            "truncate payload.0 65536",
            "LENGTH_MISMATCH",
            &none,
            "a blob cut at a segment boundary",
        ),
        ("truncated-to-nothing", "truncate payload.0 0", "LENGTH_MISMATCH", &none, "an empty blob"),
        ("extended-by-one", "append payload.0 00", "LENGTH_MISMATCH", &none, "a blob with one byte more"),
        (
            "tag-table-truncated",
            "truncate tags.0 16",
            "LENGTH_MISMATCH",
            &none,
            "a tag table without its last tag",
        ),
        (
            "tag-table-extended",
            "append tags.0 00000000000000000000000000000000",
            "LENGTH_MISMATCH",
            &none,
            "a tag table with a tag more",
        ),
        ("tag-table-swapped", "swap tags.0 0 16 16", "TAG_TABLE_MISMATCH", &none, "two tags exchanged"),
        (
            "flipped-bit-first-segment",
            "flip payload.0 0",
            "SEGMENT_AUTH_FAILED",
            &none,
            "a flipped bit in the first segment: nothing is released",
        ),
        (
            "flipped-bit-last-segment",
            "flip payload.0 525000",
            "SEGMENT_AUTH_FAILED",
            &first,
            "a flipped bit in the last segment: the first one was released",
        ),
    ];
    for (name, mutation, expect, released, comment) in cases {
        set.vector(name, on(comment, expect).line("released", released).mutate(mutation));
    }
}

fn three_segments(set: &mut Set) {
    let mut recipe = Recipe::new(41, &[2 * SEGMENT + 1]);
    recipe.digests = false;
    let artifact = recipe.seal();
    let fixture = set.fixture("three-segments", openable(Writer::default(), &artifact));
    let none = released(&[]);
    set.vector(
        "success-three-segments",
        Writer::on(&fixture, "three segments, the last of one byte", "success")
            .line("released", &whole(&artifact)),
    );
    let swap = "swap payload.0 0 65536 65536";
    set.vector(
        "reordered-segments",
        Writer::on(&fixture, "two segments of ciphertext exchanged", "SEGMENT_AUTH_FAILED")
            .line("released", &none)
            .mutate(swap),
    );
    set.vector(
        "reordered-segments-and-tags",
        Writer::on(&fixture, "two segments exchanged with their tags", "TAG_TABLE_MISMATCH")
            .line("released", &none)
            .mutate(swap)
            .mutate("swap tags.0 0 16 16"),
    );
    let mut tags = artifact.tags.clone();
    let first = tags[0][..16].to_vec();
    tags[0].copy_within(16..32, 0);
    tags[0][16..32].copy_from_slice(&first);
    let comment = "two segments exchanged with their tags and the digest in the core: index in nonce and associated data";
    set.vector(
        "reordered-segments-tags-and-core",
        unchecked(&fixture, comment, "SEGMENT_AUTH_FAILED")
            .line("released", &none)
            .bytes("core", artifact.core_for_tags(&tags).bytes())
            .bytes("tags.0", &tags[0])
            .mutate(swap),
    );
}

/// Artifacts whose single segments a key holder encrypted under a binding that no honest sealer uses.
fn forged_bindings(set: &mut Set) {
    let artifact = Recipe::new(42, &[200]).seal();
    let text = plaintext(artifact.plaintexts[0].0, 200);
    let honest = Binding { payload: 0, segment: 0, last: true, size: 200 };
    let cases = [
        ("wrong-last-flag", Binding { last: false, ..honest }, "the last segment sealed as if more followed"),
        ("wrong-total-size", Binding { size: 201, ..honest }, "a segment sealed for another total size"),
        ("wrong-segment-index", Binding { segment: 1, ..honest }, "a segment sealed for another position"),
        (
            "wrong-payload-index",
            Binding { payload: 1, ..honest },
            "a segment sealed for another payload index",
        ),
    ];
    for (name, binding, comment) in cases {
        let forged = reseal(&artifact, binding, &text);
        let writer = openable(Writer::new(comment, "SEGMENT_AUTH_FAILED"), &forged);
        set.vector(name, writer.line("released", &released(&[])));
    }
    let other = stream("innerkeep vector", 4_343, 200);
    let forged = reseal(&artifact, honest, &other);
    let comment =
        "other plaintext by a holder of the key, tag table and core adapted: the payload digest finds it";
    let writer = openable(Writer::new(comment, "PAYLOAD_DIGEST_MISMATCH"), &forged).remove("plaintext.0");
    set.vector("forged-by-key-holder", writer.line("released", &released(&[&other])));
    let short_last = last_segment_not_marked();
    let text = plaintext(43_000, SEGMENT);
    let comment = "the last of two segments sealed without the last flag: the first is released, the payload is not complete";
    let writer = openable(Writer::new(comment, "SEGMENT_AUTH_FAILED"), &short_last);
    set.vector("wrong-last-segment", writer.line("released", &released(&[&text])));
}

/// The artifact with its only segment sealed anew, and a core that fits.
fn reseal(artifact: &Artifact, binding: Binding, text: &[u8]) -> Artifact {
    let key = payload_key(&artifact.core, &artifact.key, 0);
    let (ciphertext, tag) = key.seal(binding, text);
    Artifact {
        core: artifact.core_for_tags(std::slice::from_ref(&tag)),
        key: artifact.key,
        payloads: vec![ciphertext],
        tags: vec![tag],
        plaintexts: artifact.plaintexts.clone(),
    }
}

fn last_segment_not_marked() -> Artifact {
    let mut artifact = Recipe::new(43, &[SEGMENT + 10]).seal();
    let key = payload_key(&artifact.core, &artifact.key, 0);
    let text = plaintext(artifact.plaintexts[0].0, SEGMENT + 10);
    let size = u64::try_from(SEGMENT + 10).unwrap();
    let (ciphertext, tag) = key.seal(Binding { payload: 0, segment: 1, last: false, size }, &text[SEGMENT..]);
    artifact.payloads[0][SEGMENT..].copy_from_slice(&ciphertext);
    artifact.tags[0][16..].copy_from_slice(&tag);
    artifact.core = artifact.core_for_tags(&artifact.tags.clone());
    artifact
}

fn two_payloads(set: &mut Set) {
    let artifact = super::small();
    let fixture = super::small_fixture(set);
    let none = released(&[]);
    set.vector(
        "success-signed",
        Writer::on(&fixture, "an artifact pinned by sealer key, family and minimum counter", "success")
            .line("released", &whole(&artifact)),
    );
    let first = released(&[&plaintext(artifact.plaintexts[0].0, 100)]);
    set.vector(
        "flipped-bit-second-payload",
        Writer::on(
            &fixture,
            "a flipped bit in the second payload: the first one was released",
            "SEGMENT_AUTH_FAILED",
        )
        .line("released", &first)
        .mutate("flip payload.1 799"),
    );
    for member in ["payload.0", "tags.0"] {
        let (name, expect) = match member {
            "payload.0" => ("every-bit-payload", "SEGMENT_AUTH_FAILED"),
            _ => ("every-bit-tags", "TAG_TABLE_MISMATCH"),
        };
        set.vector(
            name,
            Writer::on(&fixture, &format!("each bit of {member} flipped"), expect)
                .line("released", &none)
                .mutate(&format!("every-bit {member}")),
        );
    }
    let exchanged = |writer: Writer| {
        writer
            .bytes("payload.0", &artifact.payloads[1])
            .bytes("payload.1", &artifact.payloads[0])
            .bytes("tags.0", &artifact.tags[1])
            .bytes("tags.1", &artifact.tags[0])
            .line("released", &none)
    };
    set.vector(
        "spliced-payloads",
        exchanged(Writer::on(&fixture, "two payloads exchanged with their tag tables", "TAG_TABLE_MISMATCH")),
    );
    let tags = vec![artifact.tags[1].clone(), artifact.tags[0].clone()];
    let core = artifact.core_for_tags(&tags);
    let comment =
        "two payloads exchanged with their tag tables and the digests in the core: keys are per payload";
    set.vector(
        "spliced-payloads-and-core",
        exchanged(unchecked(&fixture, comment, "SEGMENT_AUTH_FAILED").bytes("core", core.bytes())),
    );
    let other = Recipe { seed: 11, ..Recipe::new(11, &[100, 100]) }.seal();
    let mixed = artifact.core_for_tags(&other.tags);
    let writer = unchecked(
        &fixture,
        "payload and tag table of another artifact, digests in the core adapted",
        "SEGMENT_AUTH_FAILED",
    )
    .bytes("core", mixed.bytes())
    .bytes("payload.0", &other.payloads[0])
    .bytes("tags.0", &other.tags[0])
    .bytes("tags.1", &other.tags[1])
    .line("released", &none);
    set.vector("spliced-artifacts", writer);
    let mut forged = artifact.tags.clone();
    forged[0][3] ^= 0x10;
    let writer = unchecked(&fixture, "a forged tag, its digest in the core adapted", "SEGMENT_AUTH_FAILED")
        .bytes("core", artifact.core_for_tags(&forged).bytes())
        .bytes("tags.0", &forged[0])
        .line("released", &none);
    set.vector("forged-tag", writer);
    let writer = Writer::on(&fixture, "the content key of another artifact", "COMMITMENT_MISMATCH")
        .line("content_key", &hex::encode(other.key))
        .line("released", &none);
    set.vector("wrong-content-key", writer);
    let swapped = artifact.forged_core(|seals| seals.swap(0, 1));
    let writer = unchecked(
        &fixture,
        "commitments, digests and tag tables of two payloads exchanged",
        "COMMITMENT_MISMATCH",
    )
    .bytes("core", swapped.bytes())
    .line("released", &none);
    set.vector("commitments-exchanged", writer);
}

/// Every bit of a core flipped, every prefix, and parameters changed.
fn cores(set: &mut Set) {
    let mut recipe = Recipe::new(44, &[40]);
    recipe.digests = false;
    let artifact = recipe.seal();
    let none = released(&[]);
    let fixture = set.fixture("bare", openable(Writer::default(), &artifact));
    let refused = "MALFORMED NOT_CANONICAL LIMIT_EXCEEDED";
    set.vector(
        "every-bit-core-pinned",
        Writer::on(&fixture, "each bit of a pinned core flipped", &format!("{refused} ORIGIN_UNPROVEN"))
            .line("released", &none)
            .mutate("every-bit core"),
    );
    let expect = format!("{refused} COMMITMENT_MISMATCH TAG_TABLE_MISMATCH");
    let comment =
        "each bit of a core flipped, opened by a reader that has the key and does not look at origin";
    set.vector(
        "every-bit-core-unchecked",
        unchecked(&fixture, comment, &expect).line("released", &none).mutate("every-bit core"),
    );
    set.vector(
        "every-prefix-core",
        Writer::on(&fixture, "each proper prefix of a core", "MALFORMED")
            .line("released", &none)
            .mutate("every-prefix core"),
    );
    let changes: [Edit; 4] = [
        ("other-size-in-core", "a core that states another size", |recipe| recipe.sizes = vec![39]),
        ("other-counter-in-core", "a core that states a higher counter", |recipe| recipe.counter = 8),
        ("other-family-in-core", "a core that states another family", |recipe| recipe.family = "acme/other"),
        ("other-environment-in-core", "a core that states another environment", |recipe| {
            recipe.environment = "test"
        }),
    ];
    for (name, comment, change) in changes {
        let mut changed = recipe.clone();
        change(&mut changed);
        let parameters = changed.seal().core.parameters().clone();
        let core = Core::new(parameters, artifact.core.payloads().to_vec()).unwrap();
        let writer = unchecked(&fixture, comment, "COMMITMENT_MISMATCH").bytes("core", core.bytes());
        set.vector(name, writer.line("released", &none));
    }
    let digests = Recipe::new(45, &[64]).seal();
    let forged = digests.forged_core(|seals| {
        if let Some(digest) = seals.first_mut().and_then(|seal| seal.blake3.as_mut()) {
            digest.0[31] ^= 1;
        }
    });
    let writer = direct(
        Writer::new(
            "a core with another payload digest: released, but not complete",
            "PAYLOAD_DIGEST_MISMATCH",
        ),
        &digests,
    )
    .line("content_key", &hex::encode(digests.key))
    .line("origin", "unchecked")
    .line("released", &whole(&digests))
    .bytes("core", forged.bytes());
    set.vector("payload-digest-differs", writer);
}
