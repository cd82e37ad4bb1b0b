//! Sparse files: which runs of them an archive holds (GNU tar manual, "Storing sparse files"). What is between is zeros.

use super::header::positive;
use crate::image::layer::LayerError;
use crate::image::layer::error::Fault;
use crate::image::layer::limits::RUNS_MAX;

/// Longest decimal number, in digits.
const DIGITS_MAX: usize = 19;

/// A run of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its offset in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The map of a sparse file: runs that ascend, do not overlap, lie in the file, and are as long together as the data in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The runs, none of them empty.
    pub runs: Vec<Run>,
    /// Length of the file.
    pub size: u64,
}

const fn refused() -> LayerError {
    LayerError::tar(Fault::Sparse, "a map of runs that ascend, lie in the file, and cover the archived data")
}

impl Map {
    /// Of a file that is archived as a whole.
    pub fn whole(size: u64) -> Self {
        let runs = if size == 0 { Vec::new() } else { vec![Run { offset: 0, length: size }] };
        Self { runs, size }
    }

    /// Of runs as somebody states them, for a file of this size of which so many bytes are in the archive.
    pub fn new(runs: Vec<Run>, size: u64, stored: u64) -> Result<Self, LayerError> {
        let (mut end, mut sum) = (0, 0_u64);
        for run in &runs {
            // GUARD: layer-sparse-ascends -> evil_sparse_maps
            if run.offset < end {
                return Err(refused());
            }
            end = run.offset.checked_add(run.length).ok_or_else(refused)?;
            sum = sum.checked_add(run.length).ok_or_else(refused)?;
        }
        // GUARD: layer-sparse-covers -> evil_sparse_maps
        if end > size || sum != stored {
            return Err(refused());
        }
        let runs = runs.into_iter().filter(|run| run.length > 0).collect();
        Ok(Self { runs, size })
    }
}

/// A run more, if there may be one.
pub fn push(runs: &mut Vec<Run>, run: Run) -> Result<(), LayerError> {
    // GUARD: layer-sparse-bounded -> evil_sparse_maps
    if runs.len() >= RUNS_MAX {
        return Err(refused());
    }
    runs.push(run);
    Ok(())
}

/// Runs of 12 octal digits each for offset and length, up to an empty field.
pub fn octal_runs(field: &[u8]) -> Result<Vec<Run>, LayerError> {
    let mut runs = Vec::new();
    for entry in field.chunks_exact(24) {
        if entry.iter().all(|byte| *byte == 0) {
            break;
        }
        let (offset, length) = entry.split_at(12);
        runs.push(Run { offset: positive(offset)?, length: positive(length)? });
    }
    Ok(runs)
}

/// `offset,length,offset,length…` of format 0.1.
pub fn comma_runs(text: &[u8]) -> Result<Vec<Run>, LayerError> {
    let mut runs = Vec::new();
    let mut numbers = text.split(|byte| *byte == b',');
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or_else(refused)?;
        push(&mut runs, Run { offset: decimal(offset)?, length: decimal(length)? })?;
    }
    Ok(runs)
}

/// Decimal digits and nothing else.
pub fn decimal(text: &[u8]) -> Result<u64, LayerError> {
    if text.is_empty() || text.len() > DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return Err(refused());
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(refused)
}

/// The map of format 1.0: a count, then offset and length of each run, one number a line, in front of the data.
#[derive(Debug, Default)]
pub struct Lines {
    runs: Vec<Run>,
    line: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
}

impl Lines {
    /// Takes a block. Whether the map is whole; what is behind it in the block is padding.
    pub fn take(&mut self, block: &[u8]) -> Result<bool, LayerError> {
        for byte in block {
            if *byte != b'\n' {
                // GUARD: layer-sparse-line -> evil_sparse_maps
                if self.line.len() >= DIGITS_MAX {
                    return Err(refused());
                }
                self.line.push(*byte);
                continue;
            }
            let number = decimal(&self.line)?;
            self.line.clear();
            match (self.expected, self.offset.take()) {
                (None, _) => self.expected = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => push(&mut self.runs, Run { offset, length: number })?,
            }
            let count = u64::try_from(self.runs.len()).unwrap_or(u64::MAX);
            if self.expected == Some(count) && self.offset.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The runs.
    pub fn finish(self) -> Vec<Run> {
        self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(offset: u64, length: u64) -> Run {
        Run { offset, length }
    }

    fn code<T: std::fmt::Debug>(result: Result<T, LayerError>) -> &'static str {
        result.unwrap_err().code()
    }

    #[test]
    fn maps() {
        assert_eq!(Map::new(vec![run(0, 5), run(10, 0)], 10, 5).unwrap().runs, [run(0, 5)]);
        assert_eq!(comma_runs(b"0,5,10,2").unwrap(), [run(0, 5), run(10, 2)]);
        let mut lines = Lines::default();
        assert!(!lines.take(b"2\n0\n5\n1").unwrap());
        assert!(lines.take(b"0\n2\n\0\0\0").unwrap());
        assert_eq!(lines.finish(), [run(0, 5), run(10, 2)]);
        assert!(Lines::default().take(b"0\n").unwrap());
    }

    #[test]
    fn evil_sparse_maps() {
        for (runs, size, stored) in [
            (vec![run(10, 5), run(0, 5)], 20, 10),
            (vec![run(0, 5), run(4, 5)], 20, 10),
            (vec![run(0, 5)], 4, 5),
            (vec![run(0, 5)], 20, 6),
            (vec![run(0, 5)], 20, 4),
            (vec![run(u64::MAX, 5)], u64::MAX, 5),
            (vec![run(0, u64::MAX)], 5, 5),
            (vec![run(30, 0)], 20, 0),
        ] {
            assert_eq!(code(Map::new(runs, size, stored)), "LAYER_TAR_SPARSE");
        }
        let many = vec!["1,1"; RUNS_MAX + 1].join(",");
        for text in [&b"1"[..], b"1,", b",1", b"1,-1", b"1,x", b"", many.as_bytes()] {
            assert_eq!(code(comma_runs(text)), "LAYER_TAR_SPARSE");
        }
        for lines in [&b"\n"[..], b"x\n", b"1\n-5\n", b"00000000000000000001\n", b"99999999999999999999"] {
            assert_eq!(code(Lines::default().take(lines)), "LAYER_TAR_SPARSE");
        }
        // A count that nobody could hold is not believed: the runs themselves are counted.
        let mut lines = Lines::default();
        assert!(!lines.take(b"9999999999\n").unwrap());
        let error = (0..=RUNS_MAX).find_map(|_| lines.take(b"1\n1\n").err());
        assert_eq!(error.unwrap().code(), "LAYER_TAR_SPARSE");
    }
}
