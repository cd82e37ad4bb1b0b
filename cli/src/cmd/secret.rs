//! `innerkeep secret`: an artifact as the text of a sealed secret.

use std::path::PathBuf;

use cdh::files;
use cdh::sealed_secret::MAXIMUM_SEALED_BYTES;
use cdh::sealed_secret::artifact::{MAXIMUM_SECRET_BYTES, text_of};
use serde_json::json;

use crate::args::SecretArgs;
use crate::error::Failure;
use crate::output::Report;
use crate::store::{self, Reference, Store};

/// Runs the command.
pub(crate) fn run(arguments: &SecretArgs) -> Result<Report, Failure> {
    let reference = Reference::parse(&arguments.reference)?;
    let opened = Store::open(&reference)?;
    let unfit = |expected| Failure::Usage { argument: "REFERENCE", expected, found: reference.to_string() };
    let [payload] = opened.core.parameters().payloads() else { return Err(unfit("an artifact of one file")) };
    let size = payload.layout.size();
    if size > MAXIMUM_SECRET_BYTES {
        return Err(unfit("a secret of at most 524288 bytes"));
    }
    if opened.grants.is_empty() {
        return Err(unfit("an artifact with a grant: nobody could open this one"));
    }
    let scratch = tempfile::tempdir().map_err(Failure::file("make", "a scratch directory"))?;
    let file: PathBuf = match &reference {
        Reference::File(path) => path.clone(),
        Reference::Layout(..) => {
            let path = scratch.path().join("secret.sealed");
            store::carry(&reference, &Reference::File(path.clone()))?;
            path
        }
    };
    // No text holds more.
    let cap = u64::try_from(MAXIMUM_SEALED_BYTES).unwrap_or(u64::MAX);
    let bytes = files::read("read", &file, cap)?;
    let text = text_of(&bytes).map_err(cdh::Error::from)?;
    let core = opened.core.digest().to_string();
    Ok(Report {
        json: json!({ "text": text, "core": core, "bytes": size, "grants": opened.grants.len() }),
        text,
    })
}
