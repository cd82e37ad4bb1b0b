//! Kernel modules that the runtime asks for, loaded by the image's `modprobe`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::agent::KernelModule;

use super::{SandboxError, listed};
use crate::error::chain;
use crate::reaper::{Ended, Reaper};

/// Which modules a confidential guest may load: a name a line, in a file of the measured image.
const ALLOWED: &str = "/etc/innerkeep/kernel-modules";
const PROGRAM: &str = "/sbin/modprobe";
const MAXIMUM_MODULES: usize = 64;
const MAXIMUM_TEXT_BYTES: usize = 256;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Loads modules in order. What is loaded when one fails stays: a kernel forgets none of its own accord.
///
/// # Errors
/// `SANDBOX_MODULE`: before the first one, if any of them may not be loaded.
pub(super) async fn load(
    modules: &[KernelModule],
    tee_active: bool,
    reaper: &Reaper,
) -> Result<(), SandboxError> {
    if modules.is_empty() {
        return Ok(());
    }
    let allowed = if tee_active { Some(allowed(Path::new(ALLOWED))?) } else { None };
    check(modules, allowed.as_ref())?;
    for module in modules {
        modprobe(module, reaper).await?;
    }
    Ok(())
}

fn failed(name: &str, reason: impl Into<String>) -> SandboxError {
    SandboxError::Module { name: name.to_owned(), reason: reason.into() }
}

fn check(modules: &[KernelModule], allowed: Option<&BTreeSet<String>>) -> Result<(), SandboxError> {
    if modules.len() > MAXIMUM_MODULES {
        return Err(failed("", format!("expected at most {MAXIMUM_MODULES} modules")));
    }
    for module in modules {
        let name = module.name.as_str();
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_name =
            name.bytes().all(is_letter) && name.starts_with(|first: char| first.is_ascii_alphanumeric());
        // GUARD: module-name -> evil_host_module_that_is_an_option
        if !is_name || name.len() > 64 {
            return Err(failed("", "expected the name of a kernel module"));
        }
        let is_parameter = |text: &String| {
            text.contains('=')
                && text.len() <= MAXIMUM_TEXT_BYTES
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let first = |text: &String| text.starts_with(|first: char| first.is_ascii_alphabetic());
        // GUARD: module-parameter -> evil_host_module_that_is_an_option
        if !module.parameters.iter().all(|text| is_parameter(text) && first(text)) {
            return Err(failed(name, "expected parameters of the form name=value"));
        }
        // GUARD: module-allowed -> evil_host_module_that_the_image_does_not_list
        if allowed.is_some_and(|allowed| !allowed.contains(name)) {
            return Err(failed(name, "the measured image does not list it"));
        }
    }
    Ok(())
}

/// The list of the image; without the file it is empty.
fn allowed(path: &Path) -> Result<BTreeSet<String>, SandboxError> {
    let found = listed::read(path).map_err(|error| failed("", error.to_string()))?;
    found.ok_or_else(|| failed("", "the list of modules is not part of the measured image"))
}

async fn modprobe(module: &KernelModule, reaper: &Reaper) -> Result<(), SandboxError> {
    let name = module.name.as_str();
    let mut command = Command::new(PROGRAM);
    command.env_clear().arg("-v").arg(name).args(&module.parameters).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let ended = reaper.spawn(&mut command).map_err(|error| failed(name, chain(&error)))?;
    let process = ended.process();
    match tokio::time::timeout(LIMIT, ended).await {
        Ok(Some(Ended::Exited(0))) => Ok(()),
        // What upstream says.
        Ok(Some(ended)) => Err(failed(name, format!("load_kernel_module return code: {}", ended.code()))),
        Ok(None) => Err(failed(name, "nobody waits for modprobe")),
        Err(_) => {
            // The reaper takes its end.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            Err(failed(name, format!("modprobe took longer than {} s", LIMIT.as_secs())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn module(name: &str, parameters: &[&str]) -> KernelModule {
        KernelModule {
            name: name.to_owned(),
            parameters: parameters.iter().map(|&text| text.to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn evil_host_module_that_is_an_option() {
        assert!(check(&[module("nf_tables", &["a=1"])], None).is_ok());
        for bad in [
            module("", &[]),
            module("-r", &[]),
            module("../evil", &[]),
            module("/out/evil.ko", &[]),
            module("a", &["-C=/out"]),
            module("a", &["--set=1"]),
            module("a", &["b c=d"]),
            module("a", &["flag"]),
        ] {
            assert_eq!(check(&[bad], None).unwrap_err().code(), "SANDBOX_MODULE");
        }
    }

    // COMPAT: CreateSandbox stricter: in a confidential guest only modules that the image lists
    #[test]
    fn evil_host_module_that_the_image_does_not_list() {
        let allowed = BTreeSet::from(["nvidia".to_owned()]);
        assert!(check(&[module("nvidia", &[])], Some(&allowed)).is_ok());
        assert_eq!(
            check(&[module("nvidia_evil", &[])], Some(&allowed)).unwrap_err().code(),
            "SANDBOX_MODULE"
        );
    }

    #[test]
    fn evil_host_list_of_modules_on_a_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernel-modules");
        assert!(allowed(&path).unwrap().is_empty());
        fs::write(&path, "evil\n").unwrap();
        assert_eq!(allowed(&path).unwrap_err().code(), "SANDBOX_MODULE");
    }
}
