//! Small files, read with a cap and written so that they are whole or absent.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Error;

/// Reads a file of at most `cap` bytes.
pub fn read(purpose: &'static str, path: &Path, cap: u64) -> Result<Vec<u8>, Error> {
    let failed = || Error::file(purpose, path);
    let file = File::open(path).map_err(failed())?;
    let mut bytes = Vec::new();
    file.take(cap.saturating_add(1)).read_to_end(&mut bytes).map_err(failed())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > cap {
        return Err(failed()(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("expected at most {cap} bytes, found more"),
        )));
    }
    Ok(bytes)
}

/// Reads a text file of at most `cap` bytes.
pub fn read_text(purpose: &'static str, path: &Path, cap: u64) -> Result<String, Error> {
    String::from_utf8(read(purpose, path, cap)?).map_err(|_| {
        Error::file(purpose, path)(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "expected UTF-8 text",
        ))
    })
}

/// Creates a file that did not exist, synced; `mode` as in chmod(1). Nothing is left behind by a failure.
pub fn create(purpose: &'static str, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file(purpose, path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| {
        // The failure that counts is the first one.
        let _ = std::fs::remove_file(path);
        Error::file(purpose, path)(error)
    })
}

/// Replaces a file as one step: readers see the old bytes or the new ones.
pub fn replace(purpose: &'static str, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new()
        .prefix(".partial-")
        .tempfile_in(directory)
        .map_err(Error::file(purpose, path))?;
    temporary
        .write_all(bytes)
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(Error::file(purpose, path))?;
    set_mode(temporary.as_file(), purpose, path)?;
    temporary.persist(path).map_err(|error| Error::file(purpose, path)(error.error))?;
    sync_directory(purpose, directory)
}

/// The mode that a newly created file would have had.
pub fn set_mode(file: &File, purpose: &'static str, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(Error::file(purpose, path))
}

/// Makes renames and creations in a directory durable.
pub fn sync_directory(purpose: &'static str, directory: &Path) -> Result<(), Error> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    File::open(directory).and_then(|file| file.sync_all()).map_err(Error::file(purpose, directory))
}
