//! New file systems: made by a program of the guest's image. Without that program there is none, and an error says so.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::StorageError;
use super::request::Request;
use crate::hotplug::BlockDevice;
use crate::reaper::{Ended, Reaper};

/// Where it is in the image.
const PROGRAM: &str = "/usr/sbin/mkfs.ext4";
/// Upstream's: no journal, since what is on such a disk does not outlive the sandbox.
pub(super) const ARGUMENTS: [&str; 9] = ["-F", "-O", "^has_journal", "-m", "0", "-i", "163840", "-I", "128"];
/// A disk that does not answer does not hold up the others for ever.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes an ext4 on a device.
pub(super) async fn ext4(
    reaper: &Reaper,
    request: &Request,
    device: &BlockDevice,
    arguments: &[String],
) -> Result<(), StorageError> {
    request.expect_type("create_filesystem", &["ext4"], "ext4")?;
    let program = trusted(Path::new(PROGRAM), Path::new("/"))?;
    let mut command = Command::new(program);
    command.env_clear().args(arguments).arg(&device.node);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let failed = |reason: String| StorageError::Helper { program: PROGRAM, reason };
    let ended = reaper.spawn(&mut command).map_err(|error| failed(crate::error::chain(&error)))?;
    let process = ended.process();
    match tokio::time::timeout(LIMIT, ended).await {
        Ok(Some(Ended::Exited(0))) => Ok(()),
        Ok(Some(ended)) => Err(failed(format!("ended with {}", ended.code()))),
        Ok(None) => Err(failed("nobody waits for it".to_owned())),
        Err(_) => {
            // Its end is taken by the reaper.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            Err(failed(format!("took longer than {} s", LIMIT.as_secs())))
        }
    }
}

/// A program of the image: on the root file system, and nobody's to write but root's.
fn trusted<'p>(program: &'p Path, root: &Path) -> Result<&'p Path, StorageError> {
    let failed = |reason: &str| StorageError::Helper { program: PROGRAM, reason: reason.to_owned() };
    let (Ok(found), Ok(root)) = (std::fs::metadata(program), std::fs::metadata(root)) else {
        return Err(failed("the image of this guest does not have it"));
    };
    // GUARD: helper-of-the-image -> evil_host_helper_on_another_file_system
    if found.dev() != root.dev() || found.uid() != 0 || found.mode() & 0o022 != 0 || !found.is_file() {
        return Err(failed("expected a file of the image, owned and written by root alone"));
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn evil_host_helper_on_another_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("mkfs");
        assert_eq!(trusted(&program, directory.path()).unwrap_err().code(), "STORAGE_HELPER");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(trusted(&program, directory.path()).unwrap(), program);
        assert_eq!(trusted(&program, Path::new("/proc")).unwrap_err().code(), "STORAGE_HELPER");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(trusted(&program, directory.path()).unwrap_err().code(), "STORAGE_HELPER");
        assert_eq!(trusted(directory.path(), directory.path()).unwrap_err().code(), "STORAGE_HELPER");
    }
}
