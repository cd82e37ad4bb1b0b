//! From bytes that somebody handed over to a document that the platform vouches for.

use std::fmt;

use crate::document::Document;
use crate::error::InitdataError;
use crate::register::{Algorithm, Digest, Register};

/// Longest document in bytes.
pub const MAXIMUM_TEXT_BYTES: usize = 8 * 1024 * 1024;

/// The exact bytes of a document that nothing has vouched for yet: they can be hashed and bound, and no more.
#[derive(Clone, PartialEq, Eq)]
pub struct Unverified {
    bytes: Vec<u8>,
}

/// What vouches for a document.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binding {
    /// Nothing: there is no TEE, and whoever started this said that it may be so.
    InsecureUnbound,
    /// The register of this name.
    Register(String),
}

/// A document with its exact bytes and what vouches for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Initdata {
    text: String,
    digest: Digest,
    document: Document,
    binding: Binding,
}

impl Unverified {
    /// Bytes of a document.
    ///
    /// # Errors
    /// `INITDATA_TOO_LARGE`.
    pub fn new(bytes: Vec<u8>) -> Result<Self, InitdataError> {
        // GUARD: initdata-text-cap -> evil_host_oversize_text
        if bytes.len() > MAXIMUM_TEXT_BYTES {
            return Err(InitdataError::too_large("bytes of the document", MAXIMUM_TEXT_BYTES, bytes.len()));
        }
        Ok(Self { bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self, algorithm: Algorithm) -> Digest {
        algorithm.digest(&self.bytes)
    }

    /// Looks for the bytes' digest in the register, and only then into the document, which has to name the algorithm that
    /// matched.
    ///
    /// # Errors
    /// `INITDATA_MISMATCH`; then `INITDATA_DOCUMENT`, `INITDATA_VERSION`, `INITDATA_ALGORITHM`, `INITDATA_FILE`.
    pub fn bind(self, register: &Register) -> Result<Initdata, InitdataError> {
        let digest = register.matching(&self.bytes)?;
        let (text, document) = self.parse()?;
        let named = document.algorithm();
        // GUARD: initdata-algorithm -> evil_host_algorithm_confusion
        if named != digest.algorithm() {
            return Err(InitdataError::Algorithm {
                expected: digest.algorithm().name(),
                found: named.name().to_owned(),
            });
        }
        Ok(Initdata { text, digest, document, binding: Binding::Register(register.name().to_owned()) })
    }

    /// Takes the document although nothing vouches for it. For programs outside a TEE that were told so by name, and for
    /// tools that look at documents.
    ///
    /// # Errors
    /// `INITDATA_DOCUMENT`, `INITDATA_VERSION`, `INITDATA_ALGORITHM`, `INITDATA_FILE`.
    pub fn insecure_unbound(self) -> Result<Initdata, InitdataError> {
        let (text, document) = self.parse()?;
        let digest = document.algorithm().digest(text.as_bytes());
        Ok(Initdata { text, digest, document, binding: Binding::InsecureUnbound })
    }

    fn parse(self) -> Result<(String, Document), InitdataError> {
        let text = String::from_utf8(self.bytes).map_err(|_| InitdataError::Document {
            reason: "expected UTF-8, found other bytes".to_owned(),
        })?;
        let document = Document::parse(&text)?;
        Ok((text, document))
    }
}

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("bytes", &self.bytes.len()).finish()
    }
}

impl Initdata {
    /// The exact text that was measured: what key brokers are sent, and what `initdata.toml` in the guest holds.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The digest of the text by the document's algorithm, in full.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it says.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// What vouches for it.
    #[must_use]
    pub const fn binding(&self) -> &Binding {
        &self.binding
    }

    /// The files that guest components of upstream read below `/run/confidential-containers/initdata`: name and text.
    pub fn guest_files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let document = &self.document;
        [
            ("initdata.toml", Some(self.text())),
            ("aa.toml", document.aa_config()),
            ("cdh.toml", document.cdh_config()),
        ]
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
    }
}

impl fmt::Debug for Initdata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initdata")
            .field("digest", &format_args!("{}", self.digest))
            .field("binding", &self.binding)
            .field("document", &self.document)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
