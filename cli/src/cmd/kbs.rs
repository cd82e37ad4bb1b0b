//! `innerkeep kbs`: resources of a key broker.

use std::io::Write;
use std::sync::Arc;

use initdata::InsecureMode;
use serde_json::json;

use crate::args::attest::{KbsCommand, KbsGetArgs};
use crate::broker;
use crate::error::Failure;
use crate::files;
use crate::insecure::permitted;
use crate::output::{Output, Report};
use crate::platform;

/// Runs the command. A resource on standard output is all that is there.
pub(crate) fn run(command: &KbsCommand, output: Output) -> Result<Option<Report>, Failure> {
    match command {
        KbsCommand::Get(arguments) => get(arguments, output),
    }
}

fn get(arguments: &KbsGetArgs, output: Output) -> Result<Option<Report>, Failure> {
    let attester = platform::attester(&arguments.platform, arguments.insecure_sample)?;
    let mut insecure = attester.insecure_modes().to_vec();
    if arguments.broker.insecure_plain_http {
        permitted(Some(&attester), arguments.broker.initdata.as_deref(), &[InsecureMode::PlainHttp])?;
        insecure.push("plain-http");
    }
    output.insecure(&insecure);
    let secret = broker::open(&arguments.broker, Arc::new(attester))?.get(&arguments.resource)?;
    let bytes = secret.expose();
    let Some(path) = &arguments.output else {
        if output.json {
            return Err(Failure::Usage {
                argument: "--json",
                expected: "--output FILE beside it: standard output belongs to the resource",
                found: "no --output".to_owned(),
            });
        }
        let mut stream = std::io::stdout().lock();
        let written = stream.write_all(bytes).and_then(|()| stream.flush());
        written.map_err(Failure::file("write to", "standard output"))?;
        return Ok(None);
    };
    files::create("write the resource", path, 0o600, bytes)?;
    Ok(Some(Report {
        json: json!({ "resource": arguments.resource, "bytes": bytes.len(), "file": path, "insecure": insecure }),
        text: format!("{}: {} bytes in {}", arguments.resource, bytes.len(), path.display()),
    }))
}
