//! The socket of the service: its directory, what an earlier run left, its mode.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tokio::net::UnixListener;

use crate::service::error::ServiceError;

/// Binds a socket and gives it this mode. A socket that nobody serves any more is removed; anything else there is left alone.
///
/// # Errors
/// `ATTEST_SOCKET`.
pub fn bind(path: &Path, mode: u32) -> Result<UnixListener, ServiceError> {
    let failed =
        |action| move |source| ServiceError::Socket { action, path: path.display().to_string(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(parent);
        made.map_err(failed("make the directory of"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) => {
            // GUARD: socket-not-a-file -> a_file_in_place_of_the_socket_is_left_alone
            if !found.file_type().is_socket() {
                return Err(failed("replace")(io::ErrorKind::AlreadyExists.into()));
            }
            // GUARD: socket-not-served -> a_socket_that_is_served_is_left_alone
            if UnixStream::connect(path).is_ok() {
                return Err(failed("take over")(io::ErrorKind::AddrInUse.into()));
            }
            fs::remove_file(path).map_err(failed("remove"))?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_its_mode_is_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/aa.sock");
        drop(bind(&path, 0o600).unwrap());
        let _listener = bind(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_in_place_of_the_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aa.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().code(), "ATTEST_SOCKET");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_socket_that_is_served_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aa.sock");
        let _served = bind(&path, 0o600).unwrap();
        assert_eq!(bind(&path, 0o600).unwrap_err().code(), "ATTEST_SOCKET");
        assert!(UnixStream::connect(&path).is_ok());
    }
}
