//! Making initdata: files in, exact bytes out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::annotation;
use crate::container::{self, MAXIMUM_GZIP_BYTES};
use crate::document::{Document, FileName, VERSION};
use crate::error::InitdataError;
use crate::gzip;
use crate::register::{Algorithm, Digest};
use crate::unverified::{Initdata, Unverified};

/// Files that become a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    algorithm: Algorithm,
    files: BTreeMap<FileName, String>,
}

/// A document with its exact bytes, ready to be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    initdata: Initdata,
    stream: Vec<u8>,
}

impl Package {
    /// Nothing yet.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, files: BTreeMap::new() }
    }

    /// The files of a document, to add others or to change its algorithm.
    #[must_use]
    pub fn of(document: &Document, algorithm: Algorithm) -> Self {
        let files = document
            .files()
            .filter_map(|(name, text)| FileName::parse(name).ok().map(|name| (name, text.to_owned())));
        Self { algorithm, files: files.collect() }
    }

    /// Adds a file, or replaces the one of this name.
    ///
    /// # Errors
    /// `INITDATA_FILE`.
    pub fn insert(&mut self, name: &str, text: &str) -> Result<(), InitdataError> {
        self.files.insert(FileName::parse(name)?, text.to_owned());
        Ok(())
    }

    /// Writes the document. Equal files give equal bytes.
    ///
    /// # Errors
    /// What a guest would refuse: `INITDATA_FILE`, `INITDATA_TOO_LARGE`, `INITDATA_DOCUMENT`.
    pub fn pack(&self) -> Result<Packed, InitdataError> {
        // First, so that what is wrong with a file is said about the file.
        let document = Document::of(self.algorithm, self.files.clone())?;
        let packed = Packed::exact(self.text())?;
        if *packed.initdata.document() != document {
            return Err(InitdataError::Document {
                reason: "it does not read back as it was written".to_owned(),
            });
        }
        Ok(packed)
    }

    fn text(&self) -> String {
        let mut text = format!("version = \"{VERSION}\"\nalgorithm = \"{}\"\n\n[data]\n", self.algorithm);
        for (name, file) in &self.files {
            put_basic(&mut text, name.as_str());
            text.push_str(" = ");
            if is_literal(file) {
                let _ = write!(text, "'''\n{file}'''");
            } else {
                put_basic(&mut text, file);
            }
            text.push('\n');
        }
        text
    }
}

impl Packed {
    /// A document that exists already: its bytes stay as they are.
    ///
    /// # Errors
    /// What a guest would refuse.
    pub fn exact(text: String) -> Result<Self, InitdataError> {
        let initdata = Unverified::new(text.into_bytes())?.insecure_unbound()?;
        let stream = gzip::deflate(initdata.text().as_bytes())?;
        if stream.len() > MAXIMUM_GZIP_BYTES {
            return Err(InitdataError::too_large(
                "bytes after compressing",
                MAXIMUM_GZIP_BYTES,
                stream.len(),
            ));
        }
        Ok(Self { initdata, stream })
    }

    /// The document.
    #[must_use]
    pub const fn initdata(&self) -> &Initdata {
        &self.initdata
    }

    /// The exact bytes that are measured.
    #[must_use]
    pub fn text(&self) -> &str {
        self.initdata.text()
    }

    /// Their digest by the document's algorithm.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        self.initdata.digest()
    }

    /// The value of the annotation [`ANNOTATION_KEY`](crate::ANNOTATION_KEY).
    #[must_use]
    pub fn annotation(&self) -> String {
        annotation::encode(&self.stream)
    }

    /// The bytes of the block device.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        container::image(&self.stream)
    }
}

/// Whether a text can stand between `'''`: it then reads in the document as it reads in its file.
fn is_literal(text: &str) -> bool {
    let plain = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    text.chars().all(plain) && !text.contains("'''") && !text.ends_with('\'')
}

/// A basic string of TOML, on one line.
fn put_basic(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests;
