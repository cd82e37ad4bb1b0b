//! `--insecure-to-disk`.

use std::path::Path;

use cdh::artifact::{Facts, Order, openers, write_to};
use serde_json::json;

use super::{data_path, guest, prepare};
use crate::args::{PathArg, UnsealArgs};
use crate::cmd::seal::{Shown, threads};
use crate::error::Failure;
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
    let (prepared, source) = prepare(arguments)?;
    let guest = guest::find(arguments)?;
    let choices = guest::choices(arguments, &guest);
    let facts = Facts::new(&choices, &source, &guest, None);
    let mut names = facts.names();
    names.push("to-disk");
    output.insecure(&names);
    let payloads = prepared.store().core.payloads().len();
    if payloads != 1 {
        return Err(Failure::Usage {
            argument: "--insecure-to-disk",
            expected: "an artifact with one payload",
            found: payloads.to_string(),
        });
    }
    let key = Order::new(&prepared, &source, &guest, choices).release_key(&facts)?.key;
    let openers = openers(prepared.store(), &key)?;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Failure::file("write plaintext to", path))?;
    let progress = output.progress("writing", prepared.total());
    for (index, opener) in openers.iter().enumerate() {
        let written = write_to(
            prepared.store(),
            opener,
            index,
            (&file, path),
            threads(arguments.threads),
            &Shown(&progress),
        );
        if let Err(failure) = written {
            // Nothing partial stays visible.
            let _ = std::fs::remove_file(path);
            return Err(failure.into());
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
            "key_from": source.kind().as_str(),
        }),
    };
    output.aside(&report).map_err(Failure::file("write to", "standard error"))?;
    Ok(0)
}
