//! `innerkeep initdata`: the configuration that a guest is launched with.

mod input;
mod pack;
mod registers;
mod verify;

use std::io::Write as _;
use std::path::Path;

use initdata::{Binding, Document, Initdata};
use serde_json::{Value, json};

use crate::args::initdata::{InitdataCommand, InputArgs};
use crate::error::Failure;
use crate::output::{Output, Report};

/// Runs the command; nothing is to be said where standard output already has its bytes.
pub(crate) fn run(command: &InitdataCommand, output: Output) -> Result<Option<Report>, Failure> {
    let report = match command {
        InitdataCommand::Pack(arguments) => pack::run(arguments, output)?,
        InitdataCommand::Show { input, file, text } => {
            return show(input, file.as_deref(), *text, output);
        }
        InitdataCommand::Digest { input } => {
            let initdata = input::document(&input.input)?;
            Report {
                json: registers::facts(initdata.digest()),
                text: registers::lines(initdata.digest()).join("\n"),
            }
        }
        InitdataCommand::Verify(arguments) => verify::run(arguments, output)?,
    };
    Ok(Some(report))
}

/// The digest of initdata, by the algorithm that it names.
pub(crate) fn digest(input: &Path) -> Result<initdata::Digest, Failure> {
    Ok(input::document(input)?.digest().clone())
}

/// Initdata that a register vouches for.
pub(crate) fn bound(input: &Path, register: &initdata::Register) -> Result<Initdata, Failure> {
    Ok(input::unverified(input)?.bind(register)?)
}

fn show(
    input: &InputArgs,
    file: Option<&str>,
    text: bool,
    output: Output,
) -> Result<Option<Report>, Failure> {
    let initdata = input::document(&input.input)?;
    let only = match file {
        Some(name) => Some(initdata.document().file(name).ok_or_else(|| Failure::Usage {
            argument: "--file",
            expected: "a file of this initdata",
            found: name.to_owned(),
        })?),
        None => text.then(|| initdata.text()),
    };
    match only {
        Some(text) if output.json => Ok(Some(Report { json: json!({ "text": text }), text: String::new() })),
        Some(text) => {
            // To the byte: its digest is what counts.
            let mut stream = std::io::stdout().lock();
            stream.write_all(text.as_bytes()).map_err(Failure::file("write to", "standard output"))?;
            Ok(None)
        }
        None => Ok(Some(Report { json: facts(&initdata), text: lines(&initdata).join("\n") })),
    }
}

/// What initdata says, for programs.
fn facts(initdata: &Initdata) -> Value {
    let document = initdata.document();
    let files: Vec<Value> =
        document.files().map(|(name, text)| json!({ "name": name, "bytes": text.len() })).collect();
    let artifacts: Vec<Value> = artifacts(document)
        .map(|artifact| {
            json!({
                "name": artifact.name.as_str(), "reference": artifact.reference.as_str(), "path": artifact.path.as_str(),
            })
        })
        .collect();
    let settings = document.settings();
    let insecure: Vec<&str> = settings.insecure.iter().map(|mode| mode.name()).collect();
    let rest: Vec<Value> = settings
        .rest
        .iter()
        .map(|rule| {
            let routes: Vec<&str> = rule.routes.iter().map(|route| route.name()).collect();
            json!({ "routes": routes, "resources": rule.resources })
        })
        .collect();
    let set_policy: Vec<String> = settings.set_policy.iter().map(ToString::to_string).collect();
    json!({
        "version": initdata::VERSION,
        "digest": registers::facts(initdata.digest()),
        "text_bytes": initdata.text().len(),
        "files": files,
        "other_files": document.other_files().map(|(name, _)| name).collect::<Vec<_>>(),
        "artifacts": artifacts,
        "audit_key": document.audit().is_some(),
        "insecure": insecure,
        "rest": rest,
        "set_policy": set_policy,
        "vouched_for": matches!(initdata.binding(), Binding::Register(_)),
    })
}

fn artifacts(document: &Document) -> impl Iterator<Item = &initdata::Artifact> {
    document.sealed().into_iter().flat_map(|sealed| sealed.artifacts.iter())
}

fn lines(initdata: &Initdata) -> Vec<String> {
    let document = initdata.document();
    let mut lines = vec![
        format!("version     {}", initdata::VERSION),
        format!("digest      {}", initdata.digest()),
        format!("text        {} bytes", initdata.text().len()),
    ];
    let other: Vec<&str> = document.other_files().map(|(name, _)| name).collect();
    for (name, text) in document.files() {
        let note = if other.contains(&name) { "  (of no effect here)" } else { "" };
        lines.push(format!("file        {name:<16} {} bytes{note}", text.len()));
    }
    for artifact in artifacts(document) {
        lines.push(format!("artifact    {} from {} at {}", artifact.name, artifact.reference, artifact.path));
    }
    for rule in &document.settings().rest {
        let resources: Vec<&str> = rule.resources.iter().map(String::as_str).collect();
        let routes: Vec<&str> = rule.routes.iter().map(|route| route.name()).collect();
        lines.push(format!("rest        {} {}", routes.join(" "), resources.join(" ")).trim_end().to_owned());
    }
    for digest in &document.settings().set_policy {
        lines.push(format!("set policy  {digest}"));
    }
    for mode in &document.settings().insecure {
        lines.push(format!("INSECURE    {mode}"));
    }
    lines
}
