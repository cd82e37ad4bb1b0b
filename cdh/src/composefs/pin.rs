//! Which image is meant: a digest from initdata, from an image's manifest or configuration, or from the kernel's command line.
//!
//! The kernel may be told `?`, for an image whose files are not verified. That is refused wherever it stands, and so is the format V2
//! of `composefs=`, which is not written here. Digests are lower-case hexadecimal.

use std::fmt;

use super::verity::{Hasher, Sha512Hasher, Sha512Id};
use super::{ComposefsError, erofs::Format};
use crate::image::tree::ObjectId;

/// The annotation of a manifest that holds the digest of the image of all layers, up to the algorithm.
const ANNOTATION: &str = "composefs.merged.erofs.v1.fsverity-";
/// The label of a configuration of older images: the digest, with or without `sha256:` before it.
pub const LABEL: &str = "containers.composefs.fsverity";
/// The argument of a kernel.
const ARGUMENT: &str = "composefs.digest=";
/// Its older form, for the format V2.
const OLD_ARGUMENT: &str = "composefs=";

/// A metadata image by its fs-verity digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// By SHA-256.
    Sha256(ObjectId),
    /// By SHA-512.
    Sha512(Sha512Id),
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// As [`Pin::parse`] reads it.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(id) => write!(f, "v1-sha256-12:{}", hex::encode(id.0)),
            Self::Sha512(id) => write!(f, "v1-sha512-12:{}", hex::encode(id.0)),
        }
    }
}

impl Pin {
    /// The format of the images that pins are for.
    pub const FORMAT: Format = Format::V1;

    /// A value as in initdata, in a label, or behind `composefs.digest=`: `v1-sha256-12:` or `sha256:` and the digest, or the digest alone,
    /// whose length says the algorithm.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_DIGEST`.
    pub fn parse(value: &str) -> Result<Self, ComposefsError> {
        let refused = || ComposefsError::digest("[v1-]sha256[-12]:HEX, the same with sha512, or HEX", value);
        // No digest begins so; the caller is told why.
        if value.starts_with('?') {
            return Err(ComposefsError::digest("a digest that must hold, without `?`", value));
        }
        let (wanted, digits) = match value.split_once(':') {
            Some(("v1-sha256-12" | "sha256", digits)) => (Some(64), digits),
            Some(("v1-sha512-12" | "sha512", digits)) => (Some(128), digits),
            Some(_) => return Err(refused()),
            None => (None, value),
        };
        let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        // GUARD: composefs-pin-length -> evil_pin_of_another_algorithm
        if !lower || wanted.is_some_and(|wanted| wanted != digits.len()) {
            return Err(refused());
        }
        let bytes = hex::decode(digits).map_err(|_| refused())?;
        match (<[u8; 32]>::try_from(bytes.as_slice()), <[u8; 64]>::try_from(bytes.as_slice())) {
            (Ok(digest), _) => Ok(Self::Sha256(ObjectId(digest))),
            (_, Ok(digest)) => Ok(Self::Sha512(Sha512Id(digest))),
            _ => Err(refused()),
        }
    }

    /// The pin among the annotations of a manifest; `None` without one. Of two algorithms the longer counts.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_DIGEST` for one that cannot be read: a pin is not passed over.
    pub fn of_annotations<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, ComposefsError> {
        let mut pin = None;
        for (name, value) in annotations {
            let Some(kind) = name.strip_prefix(ANNOTATION) else { continue };
            let found = Self::parse(value)?;
            let wide = match (kind, found) {
                ("sha256-12", Self::Sha256(_)) => false,
                ("sha512-12", Self::Sha512(_)) => true,
                // A signature over the digest is another matter.
                (kind, _) if kind.ends_with(".sig") => continue,
                _ => return Err(ComposefsError::digest("a digest of the annotation's algorithm", value)),
            };
            if wide || pin.is_none() {
                pin = Some(found);
            }
        }
        Ok(pin)
    }

    /// The pin on a kernel's command line; `None` without one.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_DIGEST` for one that cannot be read or may be ignored, for the old form, and for two that differ.
    pub fn of_command_line(line: &str) -> Result<Option<Self>, ComposefsError> {
        let mut pin: Option<Self> = None;
        for word in line.split_ascii_whitespace() {
            let word = word.trim_matches('"');
            // GUARD: composefs-no-old-format -> evil_pin_that_may_be_ignored
            if word.starts_with(OLD_ARGUMENT) {
                return Err(ComposefsError::digest("composefs.digest=v1-sha256-12:HEX", word));
            }
            let Some(value) = word.strip_prefix(ARGUMENT) else { continue };
            let found = Self::parse(value)?;
            // GUARD: composefs-one-argument -> evil_pin_that_may_be_ignored
            if !value.contains("-12:") || pin.is_some_and(|pin| pin != found) {
                return Err(ComposefsError::digest("one composefs.digest=v1-sha256-12:HEX", word));
            }
            pin = Some(found);
        }
        Ok(pin)
    }

    /// Holds an image that is at hand as a whole against this pin.
    ///
    /// # Errors
    ///
    /// `COMPOSEFS_MISMATCH`.
    pub fn check(&self, image: &[u8]) -> Result<(), ComposefsError> {
        let found = match self {
            Self::Sha256(_) => Self::Sha256(Hasher::hash(image)),
            Self::Sha512(_) => Self::Sha512(Sha512Hasher::hash(image)),
        };
        // GUARD: composefs-image-pinned -> evil_image_of_another_tree
        if found != *self {
            return Err(ComposefsError::Mismatch {
                what: "image",
                expected: self.to_string(),
                found: found.to_string(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::composefs::erofs;
    use crate::image::tree::{Metadata, Tree};

    const A: &str = "037c1c71d052ee30052068cff7bab683c3ce7ed4e891c1f45279c160be8c6f00";

    fn wide() -> String {
        A.repeat(2)
    }

    #[test]
    fn pins_in_every_form() {
        let pin = Pin::parse(A).unwrap();
        assert!(matches!(pin, Pin::Sha256(_)));
        assert_eq!(Pin::parse(&format!("sha256:{A}")).unwrap(), pin);
        assert_eq!(Pin::parse(&pin.to_string()).unwrap(), pin);
        let long = Pin::parse(&wide()).unwrap();
        assert_eq!(Pin::parse(&long.to_string()).unwrap(), long);
        let line =
            format!("quiet composefs.digest=v1-sha256-12:{A} \"composefs.digest=v1-sha256-12:{A}\" ro");
        assert_eq!(Pin::of_command_line(&line).unwrap(), Some(pin));
        assert_eq!(Pin::of_command_line("quiet ro composefs.other=1").unwrap(), None);
        let (short, wide) = (format!("{ANNOTATION}sha256-12"), wide());
        let (wider, signed) = (format!("{ANNOTATION}sha512-12"), "org.opencontainers.image.title");
        let both = [(wider.as_str(), wide.as_str()), (signed, "x"), (short.as_str(), A)];
        assert_eq!(Pin::of_annotations(both).unwrap(), Some(long));
        assert_eq!(Pin::of_annotations([(short.as_str(), A)]).unwrap(), Some(pin));
        assert_eq!(Pin::of_annotations([(signed, "x")]).unwrap(), None);
    }

    #[test]
    fn evil_pin_that_may_be_ignored() {
        for line in [
            format!("composefs.digest=?v1-sha256-12:{A}"),
            format!("composefs.digest=v1-sha256-12:?{A}"),
            format!("composefs=?{A}"),
            format!("composefs={A}"),
            format!("composefs.digest={A}"),
            format!(
                "composefs.digest=v1-sha256-12:{A} composefs.digest=v1-sha256-12:{}",
                A.replace('7', "8")
            ),
            "composefs.digest=".to_owned(),
        ] {
            let error = Pin::of_command_line(&line).unwrap_err();
            assert_eq!(error.code(), "COMPOSEFS_DIGEST", "{line}");
        }
        assert_eq!(Pin::parse(&format!("?{A}")).unwrap_err().code(), "COMPOSEFS_DIGEST");
    }

    #[test]
    fn evil_pin_of_another_algorithm() {
        for value in [
            format!("sha512:{A}"),
            format!("sha256:{}", wide()),
            format!("v2-sha256-12:{A}"),
            format!("v1-sha256-16:{A}"),
            format!("md5:{A}"),
            A.to_uppercase(),
            A[1..].to_owned(),
            String::new(),
        ] {
            assert_eq!(Pin::parse(&value).unwrap_err().code(), "COMPOSEFS_DIGEST", "{value}");
        }
        let name = format!("{ANNOTATION}sha512-12");
        assert_eq!(Pin::of_annotations([(name.as_str(), A)]).unwrap_err().code(), "COMPOSEFS_DIGEST");
    }

    #[test]
    fn evil_image_of_another_tree() {
        let image = erofs::write(&Tree::new(Metadata::default(), 1), &erofs::Options::default()).unwrap();
        for pin in [Pin::Sha256(Hasher::hash(&image)), Pin::Sha512(Sha512Hasher::hash(&image))] {
            pin.check(&image).unwrap();
            let mut other = image.clone();
            *other.last_mut().unwrap() ^= 1;
            assert_eq!(pin.check(&other).unwrap_err().code(), "COMPOSEFS_MISMATCH");
        }
    }
}
