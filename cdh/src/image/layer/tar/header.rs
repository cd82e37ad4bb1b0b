//! One block of an archive that is a header (POSIX 1003.1-1988 `ustar`; GNU tar, `tar.h`; the format before both).

use super::sparse::{Run, octal_runs};
use crate::image::layer::LayerError;
use crate::image::layer::error::Fault;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// A block.
pub type Block = [u8; BLOCK];

/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Which fields a header has behind those that all have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Without a magic number.
    Old,
    /// A prefix of the path.
    Ustar,
    /// As `ustar`, with a shorter prefix and two times behind it.
    Star,
    /// Two times, and the map of a sparse file.
    Gnu,
}

/// A header whose checksum is right.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    block: &'a Block,
    format: Format,
}

impl<'a> Header<'a> {
    /// Checks checksum and magic number.
    pub fn parse(block: &'a Block) -> Result<Self, LayerError> {
        let header = Self { block, format: Format::Old };
        let stated = number(header.field(CHECKSUM))?;
        // Some old programs added signed bytes.
        let (mut unsigned, mut signed) = (0_i64, 0_i64);
        for (index, byte) in block.iter().enumerate() {
            let byte = if CHECKSUM.contains(&index) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(i8::from_ne_bytes([byte]));
        }
        // GUARD: layer-tar-checksum -> evil_checksums
        if stated != unsigned && stated != signed {
            return Err(LayerError::tar(Fault::Checksum, "the checksum of the header's bytes"));
        }
        let format = match (header.field(257..263), header.field(263..265), header.field(508..512)) {
            (b"ustar\0", _, b"tar\0") => Format::Star,
            (b"ustar\0", ..) => Format::Ustar,
            (b"ustar ", b" \0", _) => Format::Gnu,
            (b"\0\0\0\0\0\0", b"\0\0", _) => Format::Old,
            _ => return Err(LayerError::tar(Fault::Format, "a header of ustar, GNU tar, or without magic")),
        };
        Ok(Self { block, format })
    }

    fn field(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        self.block.get(range).unwrap_or_default()
    }

    /// The type of entry.
    pub fn kind(&self) -> u8 {
        self.field(156..157).first().copied().unwrap_or_default()
    }

    /// The path, its prefix in front.
    pub fn path(&self) -> Vec<u8> {
        let name = text(self.field(0..100));
        let prefix = match self.format {
            Format::Ustar => text(self.field(345..500)),
            Format::Star => text(self.field(345..476)),
            Format::Old | Format::Gnu => &[],
        };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// What a link leads to.
    pub fn target(&self) -> Vec<u8> {
        text(self.field(157..257)).to_vec()
    }

    /// Bytes behind the header.
    pub fn size(&self) -> Result<u64, LayerError> {
        positive(self.field(124..136))
    }

    /// Permission bits; what old programs put above them is left out.
    pub fn mode(&self) -> Result<u16, LayerError> {
        u16::try_from(number(self.field(100..108))? & 0o7777).map_err(|_| bad_number())
    }

    /// Owner.
    pub fn uid(&self) -> Result<u64, LayerError> {
        positive(self.field(108..116))
    }

    /// Group.
    pub fn gid(&self) -> Result<u64, LayerError> {
        positive(self.field(116..124))
    }

    /// Seconds since 1970.
    pub fn mtime(&self) -> Result<i64, LayerError> {
        number(self.field(136..148))
    }

    /// Major and minor number of a device.
    pub fn device(&self) -> Result<(u64, u64), LayerError> {
        if self.format == Format::Old {
            return Ok((0, 0));
        }
        Ok((positive(self.field(329..337))?, positive(self.field(337..345))?))
    }

    /// Of a sparse file of GNU tar: runs of data, whether more blocks of them follow, and the whole size.
    pub fn sparse(&self) -> Result<(Vec<Run>, bool, u64), LayerError> {
        if self.format != Format::Gnu {
            return Err(LayerError::tar(Fault::Sparse, "a header of GNU tar for its kind of sparse file"));
        }
        let runs = octal_runs(self.field(386..482))?;
        Ok((runs, self.field(482..483) != b"\0", positive(self.field(483..495))?))
    }
}

/// A block of runs that did not fit into the header: they, and whether another block follows.
pub fn more_runs(block: &Block) -> Result<(Vec<Run>, bool), LayerError> {
    let runs = octal_runs(block.get(..504).unwrap_or_default())?;
    Ok((runs, block.get(504).is_some_and(|flag| *flag != 0)))
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

const fn bad_number() -> LayerError {
    LayerError::tar(Fault::Number, "octal or base-256 numbers that fit")
}

/// A number that may not be negative.
pub(super) fn positive(field: &[u8]) -> Result<u64, LayerError> {
    u64::try_from(number(field)?).map_err(|_| bad_number())
}

/// Octal digits between blanks and NULs, or base 256 with the first bit set; nothing at all is 0.
fn number(field: &[u8]) -> Result<i64, LayerError> {
    let Some((first, rest)) = field.split_first() else { return Ok(0) };
    if first & 0x80 != 0 {
        // Two's complement of 8 × length − 1 bits: the first bit is the mark, the second one the sign.
        let low = i64::from(first & 0x3f);
        let start = if first & 0x40 == 0 { low } else { low - 0x40 };
        return rest.iter().try_fold(start, |sum, byte| {
            sum.checked_mul(256).map(|sum| sum | i64::from(*byte)).ok_or_else(bad_number)
        });
    }
    let end = field.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |last| last + 1);
    let begin = field.iter().take(end).take_while(|byte| **byte == b' ').count();
    field.get(begin..end).unwrap_or_default().iter().try_fold(0_i64, |sum, byte| match byte {
        b'0'..=b'7' => {
            sum.checked_mul(8).and_then(|sum| sum.checked_add(i64::from(byte - b'0'))).ok_or_else(bad_number)
        }
        _ => Err(bad_number()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_forms() {
        for (field, expected) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"77777777", 0o77_777_777),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", 1 << 32),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", i64::MIN),
        ] {
            assert_eq!(number(field).unwrap(), expected, "{field:?}");
        }
    }

    #[test]
    fn evil_numbers() {
        for field in [
            &b"0000688\0"[..],
            b"-1\0",
            b"0x12\0",
            b"12\x0034\0",
            b"1 2",
            b"\x80\0\0\0\x80\0\0\0\0\0\0\0",
            b"\xff\0\0\0\0\0\0\0\0\0\0\0",
            b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(number(field).unwrap_err().code(), "LAYER_TAR_NUMBER", "{field:?}");
        }
        assert_eq!(positive(b"\xff\xff\xff\xff").unwrap_err().code(), "LAYER_TAR_NUMBER");
    }
}
