//! Grants of a guest for itself, by its TPM. A TPM never counts as a TEE: such a grant is as strong as the machine's boot.

use sealed_artifact::grant::Grant;
use serde_json::json;

use super::Request;
use crate::error::Failure;
use crate::output::{Output, Report};
use crate::own_keys;

pub(super) fn add(request: Request<'_>, output: Output) -> Result<Report, Failure> {
    let keys = own_keys::tpm(&request.arguments.platform, output)?;
    let pinned = request.arguments.tpm_storage_key.as_deref().map(digest).transpose()?;
    let (object, secret) = keys.seal(&request.arguments.pcrs, pinned.as_ref())?;
    let core = &request.store.core;
    let registers = object.pcrs().registers().to_vec();
    let grant = Grant::seal_tpm(core, &request.key, &keys.recipient, object, &secret, &request.policy)?;
    let shown: Vec<String> = registers.iter().map(u8::to_string).collect();
    let key = hex::encode(keys.recipient.storage_key.as_bytes());
    let known = if pinned.is_some() { "as demanded" } else { "as found: not pinned by --tpm-storage-key" };
    let lines = [
        format!("storage    {key}, {known}"),
        format!("pcrs       {}", shown.join(", ")),
        "opens      with this TPM, while these registers have the values of now; a TPM is no TEE".to_owned(),
    ];
    request.finish(
        &grant,
        &lines,
        json!({ "pcrs": registers, "storage_key": key, "storage_key_pinned": pinned.is_some() }),
    )
}

fn digest(text: &str) -> Result<[u8; 32], Failure> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Failure::Usage {
        argument: "--tpm-storage-key",
        expected: "64 hex digits",
        found: text.to_owned(),
    })
}
