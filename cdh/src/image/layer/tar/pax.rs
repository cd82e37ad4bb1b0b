//! Records of an extended header (POSIX 1003.1-2001, `pax`; GNU tar's and star's names).
//!
//! What an entry is made from is taken; all else that programs write there (other times, names of owners, vendors' records) is left out.

use std::collections::BTreeMap;

use super::sparse::{Run, comma_runs, decimal, push};
use crate::image::layer::LayerError;
use crate::image::layer::error::Fault;
use crate::image::layer::limits::{XATTR_NAME_MAX, XATTRS_MAX};
use crate::image::tree::Timestamp;

/// What the names of extended attributes stand behind.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// What records about sparse files begin with.
const SPARSE: &[u8] = b"GNU.sparse.";
/// Digits of nanoseconds.
const FRACTION: usize = 9;
/// Digits of a record's length: a header is at most 1 MiB long.
const LENGTH: usize = 7;

/// What a header says about the entry behind it.
#[derive(Debug, Default)]
pub struct Pax {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub target: Option<Vec<u8>>,
    /// Its bytes in the archive.
    pub size: Option<u64>,
    /// Its owner.
    pub uid: Option<u64>,
    /// Its group.
    pub gid: Option<u64>,
    /// When it was changed.
    pub mtime: Option<Timestamp>,
    /// Its extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU tar's: a sparse file.
    pub sparse: Sparse,
}

/// What a header says about a sparse file.
#[derive(Debug, Default)]
pub struct Sparse {
    /// Format 1: the map is in front of the data.
    pub major: Option<u64>,
    /// Of the format.
    pub minor: Option<u64>,
    /// The path: that of the entry is made up.
    pub name: Option<Vec<u8>>,
    /// Length of the file.
    pub size: Option<u64>,
    /// How many runs there are.
    pub count: Option<u64>,
    /// Formats 0.0 and 0.1: the runs.
    pub runs: Option<Vec<Run>>,
    offset: Option<u64>,
}

const fn refused(expected: &'static str) -> LayerError {
    LayerError::tar(Fault::Pax, expected)
}

impl Pax {
    /// Of the header's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, LayerError> {
        let mut pax = Self::default();
        let mut xattr_bytes = 0;
        for record in Records(bytes) {
            let (key, value) = record?;
            match key {
                b"path" => pax.path = Some(path(value)?),
                b"linkpath" => pax.target = Some(path(value)?),
                b"size" => pax.size = Some(number(value)?),
                b"uid" => pax.uid = Some(number(value)?),
                b"gid" => pax.gid = Some(number(value)?),
                b"mtime" => pax.mtime = Some(time(value)?),
                b"SCHILY.realsize" => return Err(refused("sparse files in one of GNU tar's formats")),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        xattr_bytes += name.len() + value.len();
                        // GUARD: layer-xattrs-bounded -> evil_xattrs
                        if name.is_empty() || name.len() > XATTR_NAME_MAX || xattr_bytes > XATTRS_MAX {
                            return Err(LayerError::Xattr);
                        }
                        pax.xattrs.insert(name.to_vec(), value.to_vec());
                    } else if let Some(key) = key.strip_prefix(SPARSE) {
                        pax.sparse.take(key, value)?;
                    }
                }
            }
        }
        if pax.sparse.offset.is_some() {
            return Err(refused("a length behind each offset of a sparse file"));
        }
        Ok(pax)
    }

    /// Whether a header for all entries says nothing about any.
    pub fn is_only_comment(bytes: &[u8]) -> Result<bool, LayerError> {
        Records(bytes).try_fold(true, |only, record| Ok(record?.0 == b"comment" && only))
    }
}

impl Sparse {
    /// Whether the file is a sparse one.
    pub const fn is_something(&self) -> bool {
        self.major.is_some()
            || self.name.is_some()
            || self.size.is_some()
            || self.count.is_some()
            || self.runs.is_some()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        let number = || decimal(value).map_err(|_| refused("decimal numbers about a sparse file"));
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(path(value)?),
            b"realsize" | b"size" => self.size = Some(number()?),
            b"numblocks" => self.count = Some(number()?),
            b"map" => self.runs = Some(comma_runs(value)?),
            b"offset" if self.offset.is_none() => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take();
                let offset = offset.ok_or(refused("an offset in front of each length of a sparse file"))?;
                push(self.runs.get_or_insert_default(), Run { offset, length: number()? })?;
            }
            _ => return Err(refused("records of GNU tar's formats of sparse files, 0.0, 0.1 or 1.0")),
        }
        Ok(())
    }
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), LayerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.cut();
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or(refused("records of a length, a blank, a key, `=`, a value and a line end")))
    }
}

impl<'a> Records<'a> {
    fn cut(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let blank = self.0.iter().take(LENGTH + 1).position(|byte| *byte == b' ')?;
        let (digits, _) = self.0.split_at_checked(blank)?;
        if digits.first().is_none_or(|digit| *digit == b'0') {
            return None;
        }
        let length = usize::try_from(decimal(digits).ok()?).ok()?;
        let (record, rest) = self.0.split_at_checked(length)?;
        let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = record.split_at_checked(equals)?;
        if key.is_empty() || key.contains(&0) {
            return None;
        }
        self.0 = rest;
        Some((key, value.get(1..)?))
    }
}

/// A path that is not empty and has no NUL; whether it leads anywhere is somebody else's question.
fn path(value: &[u8]) -> Result<Vec<u8>, LayerError> {
    // GUARD: layer-pax-nul -> evil_pax_records
    if value.is_empty() || value.contains(&0) {
        return Err(refused("paths without NUL"));
    }
    Ok(value.to_vec())
}

fn number(value: &[u8]) -> Result<u64, LayerError> {
    decimal(value).map_err(|_| refused("decimal numbers"))
}

/// Seconds with a fraction, perhaps negative; what is finer than nanoseconds is cut off towards the past.
fn time(value: &[u8]) -> Result<Timestamp, LayerError> {
    let refused = || refused("a time in decimal seconds");
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default()).map_err(|_| refused())?;
    let seconds = i64::try_from(seconds).map_err(|_| refused())?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(refused());
    }
    let (kept, finer) = fraction.split_at(fraction.len().min(FRACTION));
    let nanoseconds = (0..FRACTION)
        .fold(0, |sum, place| sum * 10 + kept.get(place).map_or(0, |digit| u32::from(digit - b'0')));
    if !negative {
        return Ok(Timestamp { seconds, nanoseconds });
    }
    let past = nanoseconds + u32::from(finer.iter().any(|digit| *digit != b'0'));
    if past == 0 {
        return Ok(Timestamp { seconds: -seconds, nanoseconds: 0 });
    }
    Ok(Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - past })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds, nanoseconds) in [
            ("0", 0, 0),
            ("1350244992.023960108", 1_350_244_992, 23_960_108),
            ("1.5", 1, 500_000_000),
            ("1.", 1, 0),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.0000000001", -1, 999_999_999),
            ("-0", 0, 0),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), Timestamp { seconds, nanoseconds }, "{text}");
        }
        for text in ["", "-", ".5", "1.5.5", "1e3", "+1", " 1", "99999999999999999999", "--1", "1.-5"] {
            assert_eq!(time(text.as_bytes()).unwrap_err().code(), "LAYER_TAR_PAX", "{text}");
        }
    }

    #[test]
    fn evil_pax_records() {
        for bytes in [
            &b"11 path=abc"[..],
            b"12 path=abc\n\n",
            b"99 path=abc\n",
            b"00012 path=a\n",
            b"11 path=\0b\n",
            b"8 path=\n",
            b"-1 path=a\n",
            b"18446744073709551617 path=a\n",
            b"7 =abc\n",
            b"7 path\n",
            b"\0",
            b"11 size=-1\n",
            b"12 size=1.5\n",
            b"11 size=0x\n",
            b"29 size=99999999999999999999\n",
            b"25 GNU.sparse.surprise=1\n",
            b"25 GNU.sparse.numbytes=1\n",
            b"23 GNU.sparse.offset=1\n",
            b"22 SCHILY.realsize=10\n",
        ] {
            let error = Pax::parse(bytes).unwrap_err();
            assert_eq!(error.code(), "LAYER_TAR_PAX", "{:?}", bytes.escape_ascii().to_string());
        }
        let pax = Pax::parse(b"12 path=a=b\n13 mtime=1.5\n20 comment=anything\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a=b"[..]));
        assert!(!Pax::is_only_comment(b"12 path=a=b\n13 comment=x\n").unwrap());
    }

    #[test]
    fn evil_xattrs() {
        let record = |name: &[u8], value: &[u8]| {
            let rest = [b" ", XATTR, name, b"=", value, b"\n"].concat();
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length = rest.len() + length.to_string().len();
            }
            [length.to_string().as_bytes(), &rest].concat()
        };
        let kept = Pax::parse(&record(b"user.a", b"\0=\n")).unwrap();
        assert_eq!(kept.xattrs.get(&b"user.a"[..]).unwrap(), b"\0=\n");
        let long = vec![b'x'; XATTR_NAME_MAX + 1];
        let large = vec![0; XATTRS_MAX];
        let many: Vec<u8> =
            (0..4000_u32).flat_map(|n| record(format!("user.{n}").as_bytes(), &[0; 16])).collect();
        for bytes in [record(b"", b"x"), record(&long, b"x"), record(b"user.a", &large), many] {
            assert_eq!(Pax::parse(&bytes).unwrap_err().code(), "LAYER_XATTR");
        }
    }
}
