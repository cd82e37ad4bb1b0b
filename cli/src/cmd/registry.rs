//! `innerkeep push`, `pull`, `copy`: whole references between registries, image layouts and `.sealed` files, digests kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cdh::files;
use cdh::registry::reference::Reference;
use cdh::registry::store::{Store, StoreOptions};
use cdh::registry::{
    CREDENTIALS_MAX, Carried, Credentials, Proxies, Registry, RegistryError, RegistryOptions, RegistryTrust,
    SOURCES_MAX, Sources, Transferred,
};
use serde_json::json;
use tokio::time::Instant;

use crate::args::registry::{CopyArgs, PullArgs, PushArgs, RegistryArgs};
use crate::error::Failure;
use crate::output::{Output, Progress, Report};
use crate::store;

/// Largest file with certificates.
const PEM_MAX: u64 = 1 << 20;

/// Runs `push`.
pub(crate) fn push(arguments: &PushArgs, output: Output) -> Result<Report, Failure> {
    push_from(&arguments.layout, &arguments.to, &arguments.registry, output)
}

fn push_from(from: &str, to: &str, arguments: &RegistryArgs, output: Output) -> Result<Report, Failure> {
    let own;
    let (layout, tag) = match store::Reference::parse(from)? {
        store::Reference::Layout(layout, tag) => (layout, tag),
        file @ store::Reference::File(_) => {
            own = temporary()?;
            store::carry(&file, &on_the_way(own.path()))?;
            (own.path().to_owned(), Some(ON_THE_WAY.to_owned()))
        }
    };
    let to = read(to)?;
    let registry = client(arguments, &[&to], output)?;
    let progress = output.progress("pushing", 0);
    let shown = |state: &Transferred| progress.set(state.done, state.total);
    let deadline = deadline(arguments);
    let carried = block_on(registry.push_layout(&layout, tag.as_deref(), &to, &shown, deadline))?;
    Ok(report(carried, from, &to.to_string(), progress))
}

/// Runs `pull`.
pub(crate) fn pull(arguments: &PullArgs, output: Output) -> Result<Report, Failure> {
    pull_to(&arguments.from, &arguments.layout, &arguments.registry, output)
}

fn pull_to(from: &str, to: &str, arguments: &RegistryArgs, output: Output) -> Result<Report, Failure> {
    let own;
    let (layout, tag, file) = match store::Reference::parse(to)? {
        store::Reference::Layout(layout, tag) => (layout, tag.unwrap_or_else(|| "latest".to_owned()), None),
        file @ store::Reference::File(_) => {
            own = temporary()?;
            (own.path().to_owned(), ON_THE_WAY.to_owned(), Some(file))
        }
    };
    let from = read(from)?;
    let registry = client(arguments, &[&from], output)?;
    let progress = output.progress("pulling", 0);
    let shown = |state: &Transferred| progress.set(state.done, state.total);
    let deadline = deadline(arguments);
    let carried = block_on(registry.pull_layout(&from, &layout, &tag, &shown, deadline))?;
    let to = match &file {
        Some(file) => {
            store::carry(&on_the_way(&layout), file)?;
            file.to_string()
        }
        None => format!("{}:{tag}", layout.display()),
    };
    Ok(report(carried, &from.to_string(), &to, progress))
}

/// Tag of the artifact of a file while it is an image layout.
const ON_THE_WAY: &str = "file";

fn on_the_way(layout: &Path) -> store::Reference {
    store::Reference::Layout(layout.to_owned(), Some(ON_THE_WAY.to_owned()))
}

/// For ciphertext.
fn temporary() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir().map_err(Failure::file("create", "a temporary directory"))
}

/// Whether a side of a copy is here: a path as paths are told from names of repositories, or a `.sealed` file.
fn is_here(side: &str) -> bool {
    ["/", "./", "../"].iter().any(|start| side.starts_with(start)) || side.ends_with(".sealed")
}

/// Runs `copy`: what is on one side only is a push or a pull.
pub(crate) fn copy(arguments: &CopyArgs, output: Output) -> Result<Report, Failure> {
    let CopyArgs { from, to, registry, .. } = arguments;
    match (is_here(from), is_here(to)) {
        (false, false) => copy_between(arguments, output),
        (true, false) => push_from(from, to, registry, output),
        (false, true) => pull_to(from, to, registry, output),
        (true, true) => {
            let (source, target) = (store::Reference::parse(from)?, store::Reference::parse(to)?);
            store::carry(&source, &target)?;
            let core = store::Store::open(&target)?.core.digest().to_string();
            let text = format!("core  {core}\nfrom  {from}\nto    {to}");
            Ok(Report { json: json!({"core": core, "from": from, "to": to}), text })
        }
    }
}

fn copy_between(arguments: &CopyArgs, output: Output) -> Result<Report, Failure> {
    let (from, to) = (read(&arguments.from)?, read(&arguments.to)?);
    let registry = client(&arguments.registry, &[&from, &to], output)?;
    let own = temporary()?;
    let work = arguments.work.as_deref().unwrap_or(own.path());
    let options = StoreOptions { bytes: u64::MAX, evict: false, ..StoreOptions::default() };
    let store = Arc::new(Store::open(work, options).map_err(cdh::Error::from)?);
    let progress = output.progress("copying", 0);
    let shown = |state: &Transferred| progress.set(state.done, state.total);
    let deadline = deadline(&arguments.registry);
    let carried = block_on(registry.copy(&from, &to, &store, &shown, deadline))?;
    Ok(report(carried, &from.to_string(), &to.to_string(), progress))
}

fn report(carried: Carried, from: &str, to: &str, progress: Progress) -> Report {
    let timing = progress.finish();
    let digest = carried.digest.to_string();
    Report {
        json: json!({
            "digest": digest, "from": from, "to": to, "manifests": carried.manifests, "referrers": carried.referrers,
            "blobs": carried.blobs, "bytes": carried.bytes, "seconds": timing.seconds,
        }),
        text: format!(
            "digest     {digest}\nfrom       {from}\nto         {to}\nmanifests  {} ({} referrers)\nblobs      {} ({} bytes transferred)",
            carried.manifests, carried.referrers, carried.blobs, carried.bytes
        ),
    }
}

pub(crate) fn client(
    arguments: &RegistryArgs,
    named: &[&Reference],
    output: Output,
) -> Result<Registry, Failure> {
    let mut pems = Vec::new();
    for path in &arguments.registry_ca {
        pems.push(files::read_text("read", path, PEM_MAX)?);
    }
    let pems: Vec<&str> = pems.iter().map(String::as_str).collect();
    let trust =
        if pems.is_empty() { None } else { Some(RegistryTrust::new(&pems).map_err(cdh::Error::from)?) };
    let cap = |cap: usize| u64::try_from(cap).unwrap_or(u64::MAX);
    let credentials = match &arguments.registry_auth {
        Some(path) => {
            let bytes = zeroize::Zeroizing::new(files::read("read", path, cap(CREDENTIALS_MAX))?);
            Credentials::parse(&bytes).map_err(cdh::Error::from)?
        }
        None => Credentials::default(),
    };
    let mut sources = match &arguments.registries {
        Some(path) => {
            Sources::parse(&files::read_text("read", path, cap(SOURCES_MAX))?).map_err(cdh::Error::from)?
        }
        None => Sources::default(),
    };
    if arguments.insecure_plain_http {
        output.insecure(&["plain-http"]);
        let mut registries: Vec<&str> = named.iter().map(|reference| reference.registry()).collect();
        registries.dedup();
        for registry in registries {
            sources.insert_insecure(registry).map_err(cdh::Error::from)?;
        }
    }
    let proxies = Proxies::new(arguments.https_proxy.as_deref(), None, None).map_err(cdh::Error::from)?;
    Ok(Registry::new(RegistryOptions { trust, credentials, proxies, sources, ..RegistryOptions::default() }))
}

pub(crate) fn deadline(arguments: &RegistryArgs) -> Instant {
    Instant::now() + Duration::from_secs(arguments.timeout.min(30 * 86_400))
}

pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(Failure::file("start", "the runtime"))?;
    Ok(runtime.block_on(work).map_err(cdh::Error::from)?)
}

pub(crate) fn read(text: &str) -> Result<Reference, Failure> {
    Ok(Reference::parse(text).map_err(cdh::Error::from)?)
}
