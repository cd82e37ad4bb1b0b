//! `innerkeep verify`: origin, tag tables and blobs, without any key.

use cdh::artifact::describe_origin;
use sealed_artifact::tags::TagTable;
use serde_json::json;

use crate::args::VerifyArgs;
use crate::error::Failure;
use crate::output::{Output, Report};
use crate::pins;
use crate::store::{Reference, Store};

/// Runs the command.
pub(crate) fn run(arguments: &VerifyArgs, output: Output) -> Result<Report, Failure> {
    let pins = pins::read(&arguments.pin)?;
    let reference = Reference::parse(&arguments.reference)?;
    let store = Store::open(&reference)?;
    let origin = describe_origin(&pins::verify(&store, &pins)?);
    let payloads = store.core.parameters().payloads();
    let total = payloads.iter().map(|payload| payload.layout.size()).sum();
    let progress = output.progress("verifying", total);
    for (index, (payload, seal)) in payloads.iter().zip(store.core.payloads()).enumerate() {
        TagTable::verify(&store.tag_table(index)?, &payload.layout, seal.tags)?;
        let blob = store.payload(index)?;
        if arguments.verify_blob_digests {
            blob.verify_digest(|bytes| progress.advance(bytes))?;
        }
    }
    let timing = progress.finish();
    let digest = store.core.digest().to_string();
    let blobs = if arguments.verify_blob_digests {
        "digests compared"
    } else {
        "lengths compared; contents are authenticated when unsealed"
    };
    Ok(Report {
        json: json!({
            "core": digest, "origin": origin, "payloads": payloads.len(), "bytes": total,
            "blob_digests_verified": arguments.verify_blob_digests, "seconds": timing.seconds,
        }),
        text: format!(
            "core      {digest}\norigin    {origin}\npayloads  {} ({total} bytes): tag tables verified, blobs: {blobs}",
            payloads.len()
        ),
    })
}
