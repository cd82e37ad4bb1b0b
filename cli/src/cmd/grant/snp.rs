//! Grants of an SEV-SNP guest for itself.

use serde_json::json;

use super::Request;
use crate::error::Failure;
use crate::output::{Output, Report};
use crate::own_keys;
use sealed_artifact::grant::Grant;

pub(super) fn add(request: Request<'_>, output: Output) -> Result<Report, Failure> {
    let keys = own_keys::snp(&request.arguments.platform, output)?;
    let selection = keys.selection()?;
    let derived = keys.derive(&selection)?;
    let core = &request.store.core;
    let grant = Grant::seal_snp(core, &request.key, &keys.guest, selection, &derived, &request.policy)?;
    let lines = [
        format!("measurement {}", hex::encode(keys.guest.measurement)),
        format!("host data  {}", hex::encode(keys.guest.host_data)),
        format!("tcb        {}", hex::encode(selection.tcb_version().0)),
        "opens      in this guest image with this guest policy and initdata, on this chip".to_owned(),
    ];
    let more = json!({
        "measurement": hex::encode(keys.guest.measurement), "host_data": hex::encode(keys.guest.host_data),
        "tcb": hex::encode(selection.tcb_version().0),
    });
    request.finish(&grant, &lines, more)
}
