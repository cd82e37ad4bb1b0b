//! Lone objects: canonical form, members, limits.

use super::{Set, Writer};
use crate::fixture::{POLICY, Recipe, grant, identity, policy, sign};
use crate::grant::GrantSuite;
use crate::policy::TEMPLATE;
use crate::sealed_file::{Directory, Region};

/// A core without digests whose text is easy to edit.
fn core_text() -> String {
    let mut recipe = Recipe::new(80, &[5, 6]);
    recipe.digests = false;
    String::from_utf8(recipe.seal().core.bytes().to_vec()).unwrap()
}

fn object(kind: &str, comment: &str, expect: &str, bytes: &[u8]) -> Writer {
    Writer::new(comment, expect).line("kind", kind).bytes("object", bytes)
}

pub(super) fn add(set: &mut Set) {
    canonical_form(set);
    members(set);
    limits(set);
    policies(set);
    others(set);
}

fn edited(text: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// A policy with another generation and minimum TCB.
fn with_tcb(text: &str, generation: &str, min_tcb: &str) -> Vec<u8> {
    let text = edited(text, "\"generation\":\"any\"", &format!("\"generation\":{generation}"));
    let text = String::from_utf8(text).unwrap();
    edited(&text, "\"min_tcb\":\"0000000000000000\"", &format!("\"min_tcb\":\"{min_tcb}\""))
}

fn canonical_form(set: &mut Set) {
    let text = core_text();
    let core = Recipe { digests: false, ..Recipe::new(80, &[5, 6]) }.seal().core;
    set.vector(
        "json-core",
        object("core", "a core in canonical form", "success", text.as_bytes())
            .line("digest", &core.digest().to_string()),
    );
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("empty", "no bytes", "MALFORMED", Vec::new()),
        ("bom", "a byte-order mark", "MALFORMED", [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ("trailing-newline", "a newline at the end", "NOT_CANONICAL", format!("{text}\n").into_bytes()),
        ("leading-space", "a space at the start", "NOT_CANONICAL", format!(" {text}").into_bytes()),
        (
            "inner-space",
            "a space after a colon",
            "NOT_CANONICAL",
            edited(&text, "\"counter\":", "\"counter\": "),
        ),
        ("trailing-text", "text after the value", "MALFORMED", format!("{text}x").into_bytes()),
        ("two-values", "two values", "MALFORMED", format!("{text}{text}").into_bytes()),
        ("nul", "a zero byte after the value", "MALFORMED", format!("{text}\0").into_bytes()),
        ("comment", "a comment", "MALFORMED", edited(&text, "{", "{/**/")),
        (
            "trailing-comma",
            "a comma before the end",
            "MALFORMED",
            edited(&text, "\"AES-256-GCM HKDF-SHA-512\"", "\"AES-256-GCM HKDF-SHA-512\","),
        ),
        ("single-quotes", "single quotes", "MALFORMED", edited(&text, "\"counter\"", "'counter'")),
        (
            "member-order",
            "members in another order",
            "NOT_CANONICAL",
            edited(
                &text,
                "\"counter\":7,\"environment\":\"production\"",
                "\"environment\":\"production\",\"counter\":7",
            ),
        ),
        (
            "escaped-letter",
            "a letter as an escape",
            "NOT_CANONICAL",
            edited(&text, "production", "\\u0070roduction"),
        ),
        (
            "escaped-slash",
            "an escaped solidus",
            "NOT_CANONICAL",
            edited(&text, "acme/ranker", "acme\\/ranker"),
        ),
        (
            "escaped-member-name",
            "a member name with an escape",
            "NOT_CANONICAL",
            edited(&text, "\"counter\"", "\"\\u0063ounter\""),
        ),
        (
            "lone-surrogate",
            "an unpaired surrogate",
            "MALFORMED",
            edited(&text, "part-0.bin", "part-\\ud800.bin"),
        ),
        (
            "surrogate-pair",
            "a surrogate pair where UTF-8 is canonical",
            "NOT_CANONICAL",
            edited(&text, "part-0.bin", "part-\\ud83d\\ude00.bin"),
        ),
        ("invalid-utf8", "bytes that are not UTF-8", "MALFORMED", {
            let mut bytes = text.clone().into_bytes();
            let place = bytes.windows(4).position(|window| window == b"acme").unwrap();
            bytes[place] = 0xff;
            bytes
        }),
        (
            "control-character",
            "a control character in a string",
            "MALFORMED",
            edited(&text, "production", "produc\ttion"),
        ),
        (
            "duplicate-member",
            "the same member twice",
            "MALFORMED",
            edited(&text, "\"counter\":7", "\"counter\":7,\"counter\":7"),
        ),
        (
            "duplicate-escaped",
            "the same member twice, once escaped",
            "MALFORMED",
            edited(&text, "\"counter\":7", "\"counter\":7,\"\\u0063ounter\":8"),
        ),
        ("float", "a fraction", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":7.0")),
        ("exponent", "an exponent", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":7e0")),
        ("negative", "a negative number", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":-7")),
        ("negative-zero", "negative zero", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":-0")),
        ("leading-zero", "a leading zero", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":07")),
        ("plus", "a plus sign", "MALFORMED", edited(&text, "\"counter\":7", "\"counter\":+7")),
        (
            "null",
            "null for an absent member",
            "MALFORMED",
            edited(&text, "\"suite\"", "\"sealer\":null,\"suite\""),
        ),
        ("nesting-9", "nine levels", "LIMIT_EXCEEDED", deep(9)),
        ("nesting-8", "eight levels, but no object", "MALFORMED", deep(8)),
        ("nesting-deep", "twenty thousand levels", "LIMIT_EXCEEDED", "[".repeat(20_000).into_bytes()),
    ];
    for (name, comment, expect, bytes) in cases {
        set.vector(&format!("json-{name}"), object("core", comment, expect, &bytes));
    }
    let integers: [(&str, &str, &str, &str); 9] = [
        ("small-as-text", "\"7\"", "MALFORMED", "a small integer as text"),
        ("limit-as-number", "9007199254740991", "success", "2^53-1 as a number"),
        ("limit-as-text", "\"9007199254740991\"", "MALFORMED", "2^53-1 as text"),
        ("above-as-number", "9007199254740992", "MALFORMED", "2^53 as a number"),
        ("above-as-text", "\"9007199254740992\"", "success", "2^53 as text"),
        ("largest", "\"18446744073709551615\"", "success", "2^64-1 as text"),
        ("too-large", "\"18446744073709551616\"", "MALFORMED", "2^64 as text"),
        ("text-leading-zero", "\"09007199254740992\"", "MALFORMED", "text with a leading zero"),
        ("text-plus", "\"+9007199254740992\"", "MALFORMED", "text with a plus sign"),
    ];
    for (name, value, expect, comment) in integers {
        let bytes = edited(&text, "\"counter\":7", &format!("\"counter\":{value}"));
        set.vector(&format!("integer-{name}"), object("core", comment, expect, &bytes));
    }
}

fn members(set: &mut Set) {
    let text = core_text();
    let hash = "0".repeat(64);
    let commitment =
        hex::encode(crate::core::Core::parse(text.as_bytes()).unwrap().payloads()[0].commitment.0);
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        (
            "unknown-member",
            "a member that nobody named",
            edited(&text, "\"suite\"", "\"sealed\":true,\"suite\""),
        ),
        (
            "unknown-top-member",
            "an unknown member at the top",
            edited(&text, "\"parameters\":{", "\"other\":1,\"parameters\":{"),
        ),
        ("missing-member", "a missing member", edited(&text, "\"environment\":\"production\",", "")),
        ("missing-type", "no @type", edited(&text, "\"@type\":\"innerkeep core v1\",", "")),
        ("other-version", "another version", edited(&text, "innerkeep core v1", "innerkeep core v2")),
        ("other-object", "another type of object", edited(&text, "innerkeep core v1", "innerkeep grant v1")),
        (
            "other-suite",
            "an unknown suite",
            edited(&text, "AES-256-GCM HKDF-SHA-512", "AES-128-GCM HKDF-SHA-512"),
        ),
        ("number-as-text", "text where a number belongs", edited(&text, "\"size\":5", "\"size\":\"5\"")),
        ("text-as-number", "a number where text belongs", edited(&text, "\"production\"", "7")),
        ("upper-case-hex", "upper-case hex", edited(&text, &commitment, &commitment.to_uppercase())),
        ("short-hex", "hex that is too short", edited(&text, &commitment, &commitment[2..])),
        ("digest-algorithm", "another digest algorithm", edited(&text, "sha256:", "sha512:")),
        (
            "some-blake3",
            "a payload digest for one payload of two",
            edited(&text, "{\"commitment\"", &format!("{{\"blake3\":\"{hash}\",\"commitment\"")),
        ),
        ("equal-names", "two payloads of one name", edited(&text, "part-1.bin", "part-0.bin")),
        ("name-slash", "a payload name with a solidus", edited(&text, "part-0.bin", "../part.bin")),
        ("name-dots", "a payload named ..", edited(&text, "part-0.bin", "..")),
        (
            "name-control",
            "a payload name with a control character",
            edited(&text, "part-0.bin", "part\\u0001.bin"),
        ),
        (
            "media-type-form",
            "a media type without subtype",
            edited(&text, "application/octet-stream", "application"),
        ),
        (
            "media-type-sealed",
            "a media type that ends in +sealed",
            edited(&text, "application/octet-stream", "application/x+sealed"),
        ),
        ("family-characters", "a family with a space", edited(&text, "acme/ranker", "acme ranker")),
        ("family-first", "a family that starts with a dot", edited(&text, "acme/ranker", ".acme")),
        ("not-an-object", "an array", b"[]".to_vec()),
    ];
    for (name, comment, bytes) in cases {
        set.vector(&format!("core-{name}"), object("core", comment, "MALFORMED", &bytes));
    }
    let second = text.find(",{\"commitment\"").unwrap();
    let fewer = format!("{}]}}", &text[..second]);
    set.vector(
        "core-fewer-seals",
        object("core", "fewer seals than payloads", "MALFORMED", fewer.as_bytes()),
    );
}

fn limits(set: &mut Set) {
    let text = core_text();
    let first = "\"name\":\"part-0.bin\",\"segment_size\":65536,\"size\":5";
    let payload = |segment: &str, size: &str| {
        edited(&text, first, &format!("\"name\":\"part-0.bin\",\"segment_size\":{segment},\"size\":{size}"))
    };
    let entry = "{\"media_type\":\"a/b\",\"name\":\"N\",\"segment_size\":65536,\"size\":0}";
    let list = |count: usize| {
        let entries: Vec<String> =
            (0..count).map(|index| entry.replace("\"N\"", &format!("\"{index:03}\""))).collect();
        let start = text.find("\"payloads\":[").unwrap();
        let end = start + text[start..].find(']').unwrap();
        format!("{}\"payloads\":[{}{}", &text[..start], entries.join(","), &text[end..]).into_bytes()
    };
    let long = |length: usize| "a".repeat(length);
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("segment-size-32k", "a segment size below the smallest", "LIMIT_EXCEEDED", payload("32768", "5")),
        ("segment-size-8m", "a segment size above the largest", "LIMIT_EXCEEDED", payload("8388608", "5")),
        (
            "segment-size-odd",
            "a segment size that is no power of two",
            "LIMIT_EXCEEDED",
            payload("65537", "5"),
        ),
        ("segment-size-largest", "the largest segment size", "success", payload("4194304", "5")),
        ("payload-largest", "the largest payload", "success", payload("4194304", "1099511627776")),
        (
            "payload-too-large",
            "a payload above 2^40 bytes",
            "LIMIT_EXCEEDED",
            payload("4194304", "1099511627777"),
        ),
        (
            "segments-too-many",
            "a payload of 2^18+1 segments",
            "LIMIT_EXCEEDED",
            payload("65536", "17179869185"),
        ),
        ("segments-most", "a payload of 2^18 segments", "success", payload("65536", "17179869184")),
        ("payloads-none", "no payload", "LIMIT_EXCEEDED", list(0)),
        ("payloads-257", "257 payloads", "LIMIT_EXCEEDED", list(257)),
        ("family-empty", "an empty family", "LIMIT_EXCEEDED", edited(&text, "acme/ranker", "")),
        ("family-128", "a family of 128 bytes", "success", edited(&text, "acme/ranker", &long(128))),
        ("family-129", "a family of 129 bytes", "LIMIT_EXCEEDED", edited(&text, "acme/ranker", &long(129))),
        (
            "environment-129",
            "an environment of 129 bytes",
            "LIMIT_EXCEEDED",
            edited(&text, "production", &long(129)),
        ),
        ("name-255", "a payload name of 255 bytes", "success", edited(&text, "part-0.bin", &long(255))),
        (
            "name-256",
            "a payload name of 256 bytes",
            "LIMIT_EXCEEDED",
            edited(&text, "part-0.bin", &long(256)),
        ),
        ("name-empty", "an empty payload name", "LIMIT_EXCEEDED", edited(&text, "part-0.bin", "")),
        (
            "media-type-128",
            "a media type of 128 bytes",
            "LIMIT_EXCEEDED",
            edited(&text, "application/octet-stream", &format!("a/{}", long(126))),
        ),
    ];
    for (name, comment, expect, bytes) in cases {
        set.vector(&format!("limit-{name}"), object("core", comment, expect, &bytes));
    }
    for (kind, length) in [
        ("core", 262_144),
        ("directory", 1_048_576),
        ("grant", 131_072),
        ("policy", 65_536),
        ("signature", 4_096),
    ] {
        let writer = object(
            kind,
            "an object one byte above its largest size is refused before it is parsed",
            "LIMIT_EXCEEDED",
            b"{}",
        );
        set.vector(&format!("oversize-{kind}"), writer.mutate(&format!("fill object {}", length + 1)));
        let writer = object(kind, "an object of its largest size is parsed", "MALFORMED", b"{}");
        set.vector(&format!("largest-{kind}"), writer.mutate(&format!("fill object {length}")));
    }
}

fn policies(set: &mut Set) {
    for (name, source) in
        [("template", TEMPLATE), ("plain", POLICY), ("opaque", "type = \"opaque\"\nbytes = \"AAEC\"\n")]
    {
        let document = policy(source);
        let writer =
            object("policy", &format!("the digest of a policy: {name}"), "success", document.preimage());
        set.vector(&format!("policy-digest-{name}"), writer.line("digest", &document.digest().to_string()));
    }
    let plain = String::from_utf8(policy(POLICY).preimage().to_vec()).unwrap();
    let full = String::from_utf8(policy(TEMPLATE).preimage().to_vec()).unwrap();
    let list = (0..65).map(|index| format!("\"f{index:02}\"")).collect::<Vec<_>>().join(",");
    let families = "[\"acme/embedder\",\"acme/ranker\"]";
    let tdx = &full[full.find(",\"tdx\":").unwrap()..full.find(",\"unsigned_manifest\"").unwrap()];
    let snp = &full[full.find(",\"snp\":").unwrap()..full.find(",\"tdx\":").unwrap()];
    let bare = full.replacen(tdx, "", 1).replacen(snp, "", 1);
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        (
            "one-of-unsorted",
            "values of one_of in another order",
            "MALFORMED",
            edited(&plain, families, "[\"acme/ranker\",\"acme/embedder\"]"),
        ),
        (
            "one-of-repeated",
            "a value of one_of twice",
            "MALFORMED",
            edited(&plain, families, "[\"acme/ranker\",\"acme/ranker\"]"),
        ),
        ("one-of-empty", "one_of without values", "LIMIT_EXCEEDED", edited(&plain, families, "[]")),
        (
            "one-of-65",
            "one_of with 65 values",
            "LIMIT_EXCEEDED",
            edited(&plain, families, &format!("[{list}]")),
        ),
        (
            "choice-both",
            "a choice that is two things",
            "MALFORMED",
            edited(
                &plain,
                "{\"exactly\":\"production\"}",
                "{\"exactly\":\"production\",\"one_of\":[\"production\"]}",
            ),
        ),
        (
            "choice-none",
            "a choice of nothing",
            "MALFORMED",
            edited(&plain, "{\"exactly\":\"production\"}", "{}"),
        ),
        (
            "choice-bare",
            "a value instead of a choice",
            "MALFORMED",
            edited(&plain, "{\"exactly\":\"production\"}", "\"production\""),
        ),
        ("link-mode", "an unknown link mode", "MALFORMED", edited(&plain, "key-release", "dma")),
        ("no-tee", "evidence rules without a TEE", "MALFORMED", bare.into_bytes()),
        ("only-snp", "evidence rules for SEV-SNP alone", "success", full.replacen(tdx, "", 1).into_bytes()),
        (
            "debug-true",
            "debug exactly true",
            "MALFORMED",
            edited(&full, "\"debug\":{\"exactly\":false}", "\"debug\":{\"exactly\":true}"),
        ),
        (
            "max-vmpl-4",
            "a VMPL that does not exist",
            "LIMIT_EXCEEDED",
            edited(&full, "\"max_vmpl\":0", "\"max_vmpl\":4"),
        ),
        (
            "measurement-short",
            "a measurement of 47 bytes",
            "MALFORMED",
            edited(
                &full,
                "\"measurement\":\"any\"",
                &format!("\"measurement\":{{\"exactly\":\"{}\"}}", "00".repeat(47)),
            ),
        ),
        (
            "initdata-48",
            "an initdata digest of 48 bytes",
            "success",
            edited(
                &full,
                "\"initdata\":\"any\"",
                &format!("\"initdata\":{{\"exactly\":\"{}\"}}", "0a".repeat(48)),
            ),
        ),
        (
            "initdata-40",
            "an initdata digest of 40 bytes",
            "MALFORMED",
            edited(
                &full,
                "\"initdata\":\"any\"",
                &format!("\"initdata\":{{\"exactly\":\"{}\"}}", "0a".repeat(40)),
            ),
        ),
        (
            "crl-number-of-one-series",
            "one minimum for both series of TDX revocation lists",
            "MALFORMED",
            edited(&full, "\"min_pck_crl_number\":0,\"min_root_crl_number\":0", "\"min_crl_number\":0"),
        ),
        (
            "generation-unknown",
            "a generation of processors that has no name",
            "MALFORMED",
            edited(&full, "\"generation\":\"any\"", "\"generation\":{\"exactly\":\"rome\"}"),
        ),
        (
            "min-tcb-any-generation",
            "a minimum TCB without a generation",
            "MALFORMED",
            edited(&full, "\"min_tcb\":\"0000", "\"min_tcb\":\"0300"),
        ),
        (
            "min-tcb-two-layouts",
            "a minimum TCB for generations of different TCB layouts",
            "MALFORMED",
            with_tcb(&full, "{\"one_of\":[\"milan\",\"turin\"]}", "0300000000000000"),
        ),
        (
            "min-tcb-unused-byte",
            "a minimum TCB in a byte that the generation does not use",
            "MALFORMED",
            with_tcb(&full, "{\"exactly\":\"genoa\"}", "0300000100000000"),
        ),
        (
            "min-tcb-turin-unused-byte",
            "a minimum TCB of Milan for Turin",
            "MALFORMED",
            with_tcb(&full, "{\"exactly\":\"turin\"}", "0300000000000816"),
        ),
        (
            "min-tcb-milan-genoa",
            "a minimum TCB for two generations of one layout",
            "success",
            with_tcb(&full, "{\"one_of\":[\"genoa\",\"milan\"]}", "0300000000000816"),
        ),
        (
            "min-tcb-turin",
            "a minimum TCB for Turin",
            "success",
            with_tcb(&full, "{\"exactly\":\"turin\"}", "0103020400000050"),
        ),
        (
            "missing-evidence-member",
            "evidence rules without initdata",
            "MALFORMED",
            edited(&full, "\"initdata\":\"any\",", ""),
        ),
        (
            "opaque-unpadded",
            "opaque bytes without padding",
            "MALFORMED",
            b"{\"@type\":\"innerkeep opaque policy v1\",\"bytes\":\"AAE\"}".to_vec(),
        ),
        (
            "opaque-trailing-bits",
            "opaque bytes with bits after the last byte",
            "MALFORMED",
            b"{\"@type\":\"innerkeep opaque policy v1\",\"bytes\":\"AAF=\"}".to_vec(),
        ),
    ];
    for (name, comment, expect, bytes) in cases {
        set.vector(&format!("policy-form-{name}"), object("policy", comment, expect, &bytes));
    }
}

fn others(set: &mut Set) {
    let artifact = Recipe { sealer: Some(1), ..Recipe::new(81, &[5]) }.seal();
    let own = identity(GrantSuite::P384, 65, u64::MAX);
    let grant = grant(&artifact, &own, POLICY).encode();
    set.vector("object-grant", object("grant", "a grant for the largest epoch", "success", &grant));
    set.vector(
        "object-signature",
        object("signature", "a signature object", "success", &sign(&artifact.core, 1)),
    );
    let text = String::from_utf8(sign(&artifact.core, 1)).unwrap();
    set.vector(
        "object-signature-unknown-member",
        object(
            "signature",
            "an unknown member",
            "MALFORMED",
            &edited(&text, "\"key\"", "\"kept\":1,\"key\""),
        ),
    );
    let directory = Directory::plan(700, &[5, 0], &[16, 16], Some(400), &[900, 901]);
    set.vector("object-directory", object("directory", "a directory", "success", &directory.encode()));
    let mut fewer = directory.clone();
    fewer.tags.pop();
    set.vector(
        "object-directory-fewer-tables",
        object("directory", "fewer tag tables than payloads", "LIMIT_EXCEEDED", &fewer.encode()),
    );
    let mut large = directory;
    large.core = Region { length: 262_145, ..large.core };
    set.vector(
        "object-directory-large-core",
        object("directory", "a core above its limit", "LIMIT_EXCEEDED", &large.encode()),
    );
}
