//! `innerkeep inspect`: what an artifact says of itself.

use serde_json::{Value, json};

use crate::args::InspectArgs;
use crate::error::Failure;
use crate::output::Report;
use crate::store::{Reference, Store};

/// Runs the command.
pub(crate) fn run(arguments: &InspectArgs) -> Result<Report, Failure> {
    let reference = Reference::parse(&arguments.reference)?;
    let store = Store::open(&reference)?;
    let parameters = store.core.parameters();
    let payloads: Vec<Value> = parameters
        .payloads()
        .iter()
        .zip(store.core.payloads())
        .map(|(payload, seal)| {
            json!({
                "name": payload.name.as_str(), "media_type": payload.media_type.as_str(), "size": payload.layout.size(),
                "segment_size": payload.layout.segment_size().bytes(), "segments": payload.layout.segments(),
                "tags": seal.tags.to_string(), "blake3": seal.blake3.map(|digest| digest.to_string()),
            })
        })
        .collect();
    let mut text = format!(
        "artifact     {reference}\ncore         {}\nid           {}\nfamily       {}\ncounter      {}\nenvironment  {}\nsealer       {}\nsignature    {}\ngrants       {}",
        store.core.digest(),
        parameters.id(),
        parameters.family(),
        parameters.counter().value(),
        parameters.environment(),
        parameters.sealer().map_or_else(|| "none".to_owned(), |sealer| sealer.to_string()),
        if store.signature.is_some() { "present (inspect does not verify it)" } else { "none" },
        store.grants.len(),
    );
    for payload in parameters.payloads() {
        text.push_str(&format!(
            "\npayload      {} ({}), {} bytes in {} segments of {}",
            payload.name,
            payload.media_type,
            payload.layout.size(),
            payload.layout.segments(),
            payload.layout.segment_size().bytes()
        ));
    }
    text.push_str(if store.core.has_payload_digests() {
        "\ndigests      payload digests present"
    } else {
        "\ndigests      none: whoever ever held the content key can forge the payloads"
    });
    Ok(Report {
        json: json!({
            "reference": reference.to_string(), "core": store.core.digest().to_string(), "id": parameters.id().to_string(),
            "family": parameters.family().as_str(), "counter": parameters.counter().value(), "environment": parameters.environment().as_str(),
            "sealer": parameters.sealer().map(|sealer| sealer.to_string()), "signature": store.signature.is_some(),
            "grants": store.grants.len(), "payloads": payloads,
        }),
        text,
    })
}
