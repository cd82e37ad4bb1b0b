//! `--insecure-to-disk`.

use std::path::Path;

use chip_client::session::UnwrapRequest;
use serde_json::json;

use super::guest::{Facts, Guest};
use super::session::Chip;
use super::{Prepared, data_path, own};
use crate::args::{PathArg, UnsealArgs};
use crate::cmd::seal::{Shown, threads};
use crate::error::Failure;
use crate::land;
use crate::output::{Output, Report};

/// `--insecure-to-disk`: the first payload, as a plain file that did not exist.
pub(super) fn to_disk(arguments: &UnsealArgs, output: Output, path: &Path) -> Result<u8, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    if !arguments.insecure_no_tee {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "--insecure-no-tee beside it: a file on disk is outside of any TEE",
            found: "none".to_owned(),
        });
    }
    if arguments.path != PathArg::KeyRelease {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "--path key-release",
            found: data_path(arguments.path).name().to_owned(),
        });
    }
    let prepared = Prepared::new(arguments)?;
    let guest = Guest::find(arguments)?;
    let facts = Facts::new(arguments, &guest, None);
    let mut names = facts.names();
    names.push("to-disk");
    output.insecure(&names);
    let payloads = prepared.store.core.payloads().len();
    if payloads != 1 {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "an artifact with one payload",
            found: payloads.to_string(),
        });
    }
    let key = match Chip::open(arguments, &prepared, facts.guest)? {
        Some(mut chip) => {
            let grant = prepared.grant_for(&chip.identity)?;
            let request = UnwrapRequest::new(&prepared.store.core, grant, prepared.proof());
            let mut session = chip.session(arguments, &guest, grant)?;
            let key = session.release_key(&request)?;
            session.close()?;
            key
        }
        None => own::content_key(arguments, &prepared, guest)?,
    };
    let openers = land::openers(&prepared.store, &key)?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Failure::file("write plaintext to", path))?;
    let progress = output.progress("writing", prepared.total());
    for (index, opener) in openers.iter().enumerate() {
        let written = land::write_to(
            &prepared.store,
            opener,
            index,
            (&file, path),
            threads(arguments.threads),
            &Shown(&progress),
        );
        if let Err(failure) = written {
            // Nothing partial stays visible.
            let _ = std::fs::remove_file(path);
            return Err(failure);
        }
    }
    let timing = progress.finish();
    let report = Report {
        text: format!(
            "written  {} bytes to {} in {:.3} s, INSECURE: a plain file on disk",
            timing.bytes,
            path.display(),
            timing.seconds
        ),
        json: json!({ "bytes": timing.bytes, "seconds": timing.seconds, "gb_per_s": timing.gb_per_s(), "file": path, "insecure": names, "path": "key-release",
            "key_from": prepared.source.kind().as_str(),
        }),
    };
    output.aside(&report).map_err(Failure::file("write to", "standard error"))?;
    Ok(0)
}
