//! Contents of files as objects: known by their fs-verity digest, stored once.
//!
//! ```text
//!  pieces ─▶ file without a name, hashed on the way ─▶ objects/xx/yyyy…   (a name only when all of it is there)
//!                                                       │ there already: read again, and compared
//! ```
//!
//! A process that is killed leaves nothing, since a file without a name goes with it. A machine that loses power may leave a named file with
//! other contents, so an object that was there is never believed: [`Store`] hashes it before its first use, and replaces it where it
//! is not what its name says. Owner, mode and time of an object mean nothing.

mod error;
mod store;

pub use self::error::ObjectError;
pub use self::store::{Room, Store};

use crate::image::tree::ObjectId;

/// Where contents go to.
pub trait ContentSink {
    /// Begins an object of this length, in bytes.
    ///
    /// # Errors
    ///
    /// `OBJECT_FILE`.
    fn begin(&self, size: u64) -> Result<Box<dyn ObjectWriter + '_>, ObjectError>;
}

/// An object that is being written. Dropped, it was never there.
pub trait ObjectWriter {
    /// The next bytes.
    ///
    /// # Errors
    ///
    /// `OBJECT_ROOM` where they would take room that is to be left; `OBJECT_FILE`.
    fn data(&mut self, bytes: &[u8]) -> Result<(), ObjectError>;

    /// Zeros, which take no room.
    ///
    /// # Errors
    ///
    /// `OBJECT_FILE`.
    fn hole(&mut self, length: u64) -> Result<(), ObjectError>;

    /// All of it is there. Its digest, by which it can be found now.
    ///
    /// # Errors
    ///
    /// `OBJECT_FILE`.
    fn finish(self: Box<Self>) -> Result<ObjectId, ObjectError>;
}

#[cfg(test)]
mod tests;
