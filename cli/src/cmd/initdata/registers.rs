//! A digest as the platforms' registers hold it, in the encodings that other tools take.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use initdata::{Digest, RegisterKind};
use serde_json::{Value, json};

/// What becomes of a digest in a register.
fn fit(digest: &Digest, kind: RegisterKind) -> &'static str {
    match digest.as_bytes().len().cmp(&kind.bytes()) {
        std::cmp::Ordering::Less => "followed by zeros",
        std::cmp::Ordering::Equal => "whole",
        std::cmp::Ordering::Greater => "cut",
    }
}

/// The digest in every form, for programs.
pub(super) fn facts(digest: &Digest) -> Value {
    let registers: Vec<Value> = RegisterKind::ALL
        .into_iter()
        .map(|kind| {
            let value = digest.fitted(kind.bytes());
            json!({
                "name": kind.name(), "hex": hex::encode(&value), "base64": STANDARD.encode(&value), "fit": fit(digest, kind),
            })
        })
        .collect();
    json!({
        "algorithm": digest.algorithm().name(),
        "hex": hex::encode(digest.as_bytes()),
        "base64": STANDARD.encode(digest.as_bytes()),
        "registers": registers,
        "pcr8": digest.pcr8().map(hex::encode),
    })
}

/// The digest in every form, for people.
pub(super) fn lines(digest: &Digest) -> Vec<String> {
    let mut lines = vec![
        format!("{:<22} {}", digest.algorithm().name(), hex::encode(digest.as_bytes())),
        format!("{:<22} {}", "", STANDARD.encode(digest.as_bytes())),
    ];
    for kind in RegisterKind::ALL {
        let value = digest.fitted(kind.bytes());
        lines.push(format!("{:<22} {}  ({})", kind.name(), hex::encode(&value), fit(digest, kind)));
        lines.push(format!("{:<22} {}", "", STANDARD.encode(&value)));
    }
    lines.extend(digest.pcr8().map(|value| format!("{:<22} {}", "PCR 8", hex::encode(value))));
    lines
}
