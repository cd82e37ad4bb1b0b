//! Which process was admitted: what bound configuration names a container by, beside its verified root.

use initdata::ProcessIdentity;

use super::{Prepared, SpecError};

/// The digest of the first process as it will run: arguments, names of the environment, directory, user and groups, as lower-case hex.
///
/// # Errors
/// `SPEC_MISSING`: there is no process.
pub fn process_identity(prepared: &Prepared) -> Result<initdata::Sha256Digest, SpecError> {
    let process = prepared
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| SpecError::Missing { at: "process".to_owned(), expected: "a process" })?;
    let args: Vec<&[u8]> = process.args().iter().flatten().map(String::as_bytes).collect();
    let names: Vec<&[u8]> = process
        .env()
        .iter()
        .flatten()
        .map(|entry| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name).as_bytes())
        .collect();
    let user = process.user();
    let gids = user.additional_gids().clone().unwrap_or_default();
    let identity = ProcessIdentity {
        args: &args,
        env_names: &names,
        cwd: process.cwd().as_os_str().as_encoded_bytes(),
        uid: user.uid(),
        gid: user.gid(),
        additional_gids: &gids,
    };
    Ok(identity.digest())
}
