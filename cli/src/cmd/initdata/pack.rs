//! `innerkeep initdata pack`: files in, annotation, text and device image out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attestation_agent::config::AgentConfig;
use initdata::{ANNOTATION_KEY, Algorithm, MAXIMUM_TEXT_BYTES, OBJECT_ANNOTATIONS_LIMIT, Package, Packed};
use serde_json::json;

use super::input;
use crate::args::initdata::{AlgorithmArg, PackArgs};
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};

/// Runs the command.
pub(super) fn run(arguments: &PackArgs, output: Output) -> Result<Report, Failure> {
    let packed = pack(arguments)?;
    let annotation = packed.annotation();
    let warnings = warnings(&packed, &annotation);
    if let Some(path) = &arguments.toml {
        files::create("write the text", path, 0o644, packed.text().as_bytes())?;
    }
    if let Some(path) = &arguments.image {
        files::create("write the device image", path, 0o644, &packed.image())?;
    }
    if let Some(path) = &arguments.output {
        files::create("write the annotation", path, 0o644, annotation.as_bytes())?;
    }
    let mut facts = super::facts(packed.initdata());
    if let Some(members) = facts.as_object_mut() {
        members.insert("annotation_key".to_owned(), json!(ANNOTATION_KEY));
        members.insert("annotation_bytes".to_owned(), json!(annotation.len()));
        members.insert("warnings".to_owned(), json!(warnings));
        if arguments.output.is_none() {
            members.insert("annotation".to_owned(), json!(annotation));
        }
    }
    let mut lines = super::lines(packed.initdata());
    lines.push(format!("annotation  {} bytes of base64 for {ANNOTATION_KEY}", annotation.len()));
    if !output.json {
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
    }
    if arguments.output.is_some() {
        return Ok(Report { json: facts, text: lines.join("\n") });
    }
    // Standard output belongs to the annotation.
    if !output.json && !output.quiet {
        eprintln!("{}", lines.join("\n"));
    }
    Ok(Report { json: facts, text: annotation })
}

fn pack(arguments: &PackArgs) -> Result<Packed, Failure> {
    let base = arguments.from.as_deref().map(input::document).transpose()?;
    let added = added(arguments)?;
    let algorithm = arguments.algorithm.map(algorithm);
    let mut package = match &base {
        // What somebody else wrote keeps its digest.
        Some(base)
            if added.is_empty() && algorithm.is_none_or(|wanted| wanted == base.document().algorithm()) =>
        {
            return Ok(Packed::exact(base.text().to_owned())?);
        }
        Some(base) => Package::of(base.document(), algorithm.unwrap_or(base.document().algorithm())),
        None => Package::new(algorithm.unwrap_or(Algorithm::Sha256)),
    };
    for (name, path) in added {
        package.insert(&name, &text(&path)?)?;
    }
    Ok(package.pack()?)
}

/// The files that the command line names, by the name that they get. No name twice.
fn added(arguments: &PackArgs) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let mut added = BTreeMap::new();
    let mut add = |name: &str, path: PathBuf| match added.insert(name.to_owned(), path) {
        None => Ok(()),
        Some(_) => {
            Err(Failure::Usage { argument: "INPUTS", expected: "each name once", found: name.to_owned() })
        }
    };
    for input in &arguments.inputs {
        let listed = if input.is_dir() { files_in(input)? } else { vec![input.clone()] };
        for path in listed {
            add(name_of(&path)?, path.clone())?;
        }
    }
    for pair in &arguments.file {
        let (name, path) = pair.split_once('=').ok_or_else(|| Failure::Usage {
            argument: "--file",
            expected: "NAME=PATH",
            found: pair.clone(),
        })?;
        add(name, PathBuf::from(path))?;
    }
    Ok(added)
}

/// The files in a directory; another directory in it is no file.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = || Failure::file("list", directory);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        paths.push(entry.map_err(failed())?.path());
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> Result<&str, Failure> {
    path.file_name().and_then(|name| name.to_str()).ok_or_else(|| Failure::Usage {
        argument: "INPUTS",
        expected: "files with names in UTF-8",
        found: path.display().to_string(),
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    Ok(files::read_text("read", path, u64::try_from(MAXIMUM_TEXT_BYTES).unwrap_or(u64::MAX))?)
}

const fn algorithm(argument: AlgorithmArg) -> Algorithm {
    match argument {
        AlgorithmArg::Sha256 => Algorithm::Sha256,
        AlgorithmArg::Sha384 => Algorithm::Sha384,
        AlgorithmArg::Sha512 => Algorithm::Sha512,
    }
}

/// What a guest would take and its operator may not want.
fn warnings(packed: &Packed, annotation: &str) -> Vec<String> {
    let document = packed.initdata().document();
    let mut warnings = Vec::new();
    let bytes = ANNOTATION_KEY.len().saturating_add(annotation.len());
    if bytes > OBJECT_ANNOTATIONS_LIMIT {
        warnings.push(format!(
            "key and value of the annotation have {bytes} bytes; Kubernetes takes {OBJECT_ANNOTATIONS_LIMIT} for all annotations of an object"
        ));
    } else if bytes > OBJECT_ANNOTATIONS_LIMIT / 2 {
        warnings.push(format!(
            "key and value of the annotation have {bytes} bytes; `kubectl apply` stores the object in one more annotation, and both together may have \
             {OBJECT_ANNOTATIONS_LIMIT} (`kubectl create` and `apply --server-side` do not)"
        ));
    }
    if document.policy().is_none() {
        warnings.push("there is no policy.rego: the policy of the image stays in force".to_owned());
    }
    if let Some(Err(error)) = document.aa_config().map(AgentConfig::parse) {
        warnings.push(format!("aa.toml: the attestation agent refuses it: {error}"));
    }
    for (name, _) in document.other_files() {
        warnings.push(format!("{name}: nobody here knows this file; it is measured and has no effect"));
    }
    for mode in &document.settings().insecure {
        warnings.push(format!("INSECURE: {mode} is on in every guest that is launched with this"));
    }
    warnings
}
