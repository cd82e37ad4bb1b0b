//! Hooks of the image: programs below a directory that the runtime names, run for every container.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{Hook, HookBuilder, Hooks};

use super::{SandboxError, listed};
use crate::start::is_measured;

/// Which directories of hooks a confidential guest takes, a path a line: a file of the measured image, below `/etc`. The host chooses among
/// them, and not among all programs of the image.
const ALLOWED: &str = "innerkeep/guest-hooks";
/// Most hooks of one kind.
const MAXIMUM_HOOKS: usize = 64;

/// Finds the hooks below a directory, by name of their kind. In a confidential guest the image has to list the directory, and each has to lie on
/// what is measured. `etc` is where `/etc` is.
///
/// # Errors
/// `SANDBOX_HOOKS`.
pub(super) fn find(directory: &Path, etc: &Path, tee_active: bool) -> Result<Hooks, SandboxError> {
    // GUARD: hooks-listed -> evil_host_hooks_of_a_directory_that_the_image_does_not_list
    if tee_active && !is_listed(directory, &etc.join(ALLOWED))? {
        return Err(failed(directory, "the measured image does not list this directory"));
    }
    let mut hooks = Hooks::default();
    let list = |kind: &str| of_kind(&directory.join(kind), kind, tee_active);
    hooks.set_prestart(list("prestart")?);
    hooks.set_poststart(list("poststart")?);
    hooks.set_poststop(list("poststop")?);
    Ok(hooks)
}

fn failed(path: &Path, reason: impl Into<String>) -> SandboxError {
    SandboxError::Hooks { path: path.to_owned(), reason: reason.into() }
}

fn is_listed(directory: &Path, list: &Path) -> Result<bool, SandboxError> {
    let found = listed::read(list).map_err(|error| failed(list, error.to_string()))?;
    let allowed = found.ok_or_else(|| failed(list, "the list is not part of the measured image"))?;
    Ok(allowed.iter().any(|line| Path::new(line) == directory))
}

/// Regular files that can be executed, by name; links are none.
fn of_kind(directory: &Path, kind: &str, tee_active: bool) -> Result<Option<Vec<Hook>>, SandboxError> {
    let failed = |reason: String| failed(directory, reason);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries.take(MAXIMUM_HOOKS + 1) {
        let entry = entry.map_err(|error| failed(error.to_string()))?;
        let found = entry.metadata().map_err(|error| failed(error.to_string()))?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            continue;
        }
        let path = entry.path();
        let measured = fs::File::open(&path).and_then(|file| is_measured(&file));
        let measured = measured.map_err(|error| failed(error.to_string()))?;
        // GUARD: hooks-measured -> evil_host_hooks_of_a_disk
        if tee_active && (!measured || found.uid() != 0) {
            return Err(failed("expected hooks of the measured image".to_owned()));
        }
        paths.push(path);
    }
    if paths.len() > MAXIMUM_HOOKS {
        return Err(failed(format!("expected at most {MAXIMUM_HOOKS} hooks")));
    }
    paths.sort();
    let hooks: Result<Vec<Hook>, OciSpecError> = paths.into_iter().map(|path| hook(path, kind)).collect();
    hooks.map(Some).map_err(|error| failed(error.to_string()))
}

/// Called with its file's name and its kind.
fn hook(path: PathBuf, kind: &str) -> Result<Hook, OciSpecError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    HookBuilder::default().path(path).args(vec![name, kind.to_owned()]).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_below_a_directory_are_hooks() {
        let directory = tempfile::tempdir().unwrap();
        program(&directory.path().join("poststart/b"), 0o755);
        program(&directory.path().join("poststart/a"), 0o755);
        program(&directory.path().join("poststart/text"), 0o644);
        std::os::unix::fs::symlink("/bin/true", directory.path().join("poststart/link")).unwrap();
        let hooks = find(directory.path(), directory.path(), false).unwrap();
        let found = hooks.poststart().as_ref().unwrap();
        let args: Vec<_> = found.iter().map(|hook| hook.args().clone().unwrap()).collect();
        assert_eq!(args, [["a", "poststart"], ["b", "poststart"]]);
        assert_eq!(hooks.poststop(), &None);
    }

    // COMPAT: CreateSandbox stricter: in a confidential guest only hooks of the measured image
    #[test]
    fn evil_host_hooks_of_a_disk() {
        let directory = tempfile::tempdir().unwrap();
        program(&directory.path().join("prestart/a"), 0o755);
        assert!(of_kind(&directory.path().join("prestart"), "prestart", false).is_ok());
        let error = of_kind(&directory.path().join("prestart"), "prestart", true).unwrap_err();
        assert_eq!(error.code(), "SANDBOX_HOOKS");
    }

    // COMPAT: CreateSandbox stricter: in a confidential guest hooks only of directories that the image lists
    #[test]
    fn evil_host_hooks_of_a_directory_that_the_image_does_not_list() {
        let (directory, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // There is no list, and nothing in the directory either: no program would be refused.
        let error = find(directory.path(), etc.path(), true).unwrap_err();
        assert_eq!(error.code(), "SANDBOX_HOOKS");
        assert!(error.to_string().contains("does not list"), "{error}");
    }

    #[test]
    fn evil_host_list_of_hooks_on_a_disk() {
        let (directory, etc) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(etc.path().join("innerkeep")).unwrap();
        fs::write(etc.path().join(ALLOWED), format!("# ours\n{}\n", directory.path().display())).unwrap();
        let error = find(directory.path(), etc.path(), true).unwrap_err();
        assert_eq!(error.code(), "SANDBOX_HOOKS");
        assert!(error.to_string().contains("not part of the measured image"), "{error}");
    }
}
