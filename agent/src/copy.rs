//! CopyFile: files of the host, in pieces, into the directory that both share where there is no file system that both share.
//!
//! ```text
//!  request ─▶ kind, length, place: checked ─▶ parents made, through no link and onto no other mount
//!    ─▶ a file without a name takes the pieces, one behind the other ─▶ complete: mode, owner, a name of its own ─▶ renamed into place
//! ```
//! Nobody sees a file before it is complete. A file that is never completed has no name, and goes when its time is over.

mod error;
mod place;
mod uploads;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use protocol::agent::CopyFileRequest;
use protocol::ids::SharedPath;
use tokio::task::spawn_blocking;

pub use error::CopyError;
use place::{Kind, Target};
use uploads::Uploads;

/// Largest file. All of it is memory of the guest.
pub const MAXIMUM_FILE_BYTES: u64 = 2 << 30;

/// What is being copied. Clones are the same.
#[derive(Clone, Debug)]
pub struct Copies {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `/run/kata-containers/shared/containers`.
    shared: PathBuf,
    uploads: Mutex<Uploads>,
}

/// A request, checked.
#[derive(Debug)]
struct Piece {
    target: Target,
    length: u64,
    offset: u64,
    data: Vec<u8>,
}

impl Copies {
    /// Into this directory, which is made when it is needed.
    #[must_use]
    pub fn into_directory(shared: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { shared, uploads: Mutex::default() }) }
    }

    /// Takes one piece. The last one of a file puts the file where it belongs, in place of whatever is there.
    ///
    /// # Errors
    /// `COPY_…`, `REQUEST_OUTSIDE_SHARED`. What was at the place is still there then; of the file that was to come nothing is left.
    pub async fn take(&self, request: CopyFileRequest) -> Result<(), CopyError> {
        let piece = Piece::parse(request)?;
        let inner = Arc::clone(&self.inner);
        let taken = spawn_blocking(move || inner.take(piece));
        taken.await.map_err(|_| CopyError::Panicked)?
    }
}

impl Piece {
    fn parse(request: CopyFileRequest) -> Result<Self, CopyError> {
        let place = SharedPath::parse(&request.path)?;
        let target = Target::of(place, &request)?;
        let negative = |_| CopyError::Length { what: "lengths and offsets from 0 on" };
        let length = u64::try_from(request.file_size).map_err(negative)?;
        let offset = u64::try_from(request.offset).map_err(negative)?;
        // GUARD: copy-largest -> evil_host_lies_about_the_length
        if length > MAXIMUM_FILE_BYTES {
            return Err(CopyError::Length { what: "at most 2 GiB" });
        }
        let end = offset.checked_add(request.data.len() as u64);
        // GUARD: copy-within-length -> evil_host_lies_about_the_length
        if target.kind == Kind::File && end.is_none_or(|end| end > length) {
            return Err(CopyError::Length { what: "pieces within the length of the file" });
        }
        Ok(Self { target, length, offset, data: request.data })
    }
}

impl Inner {
    fn take(&self, piece: Piece) -> Result<(), CopyError> {
        // One piece at a time: who copies to the same place twice at once gets one of both, whole.
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.forget_old(Instant::now());
        let Piece { target, length, offset, data } = piece;
        match target.kind {
            Kind::Directory => {
                uploads.forget(&target.place);
                target.directory(&self.shared)
            }
            Kind::Link => {
                uploads.forget(&target.place);
                target.link(&self.shared, &data)
            }
            Kind::File => {
                let complete = uploads.take(&self.shared, &target, length, offset, &data, Instant::now())?;
                complete.map_or(Ok(()), |file| target.file(&self.shared, &file))
            }
        }
    }
}

#[cfg(test)]
mod tests;
