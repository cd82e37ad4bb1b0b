//! Looks for plaintext where none may be.

use aho_corasick::AhoCorasick;
use aho_corasick::packed::{Config, Searcher};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Needles of one packed search.
const GROUP: usize = 64;
/// Bytes looked at in one go.
const CHUNK: usize = 1 << 20;

/// Searches for needles: windows of a payload, keys.
#[derive(Debug)]
pub struct Needles {
    groups: Vec<Group>,
    longest: usize,
}

#[derive(Debug)]
enum Group {
    Packed(Box<Searcher>),
    Automaton(Box<AhoCorasick>),
}

impl Group {
    fn found(&self, haystack: &[u8]) -> Option<usize> {
        match self {
            Self::Packed(searcher) => searcher.find(haystack).map(|hit| hit.start()),
            Self::Automaton(searcher) => searcher.find(haystack).map(|hit| hit.start()),
        }
    }
}

/// A needle in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The file, or the file whose name it is.
    pub path: PathBuf,
    /// Where in the file; the first hit only.
    pub offset: u64,
}

impl Needles {
    /// Prepares a search.
    pub fn new(needles: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let needles: Vec<Vec<u8>> = needles.into_iter().map(|needle| needle.as_ref().to_vec()).collect();
        let longest = needles.iter().map(Vec::len).max().expect("at least one needle");
        let groups = needles
            .chunks(GROUP)
            .map(|group| match Config::new().builder().extend(group).build() {
                Some(searcher) => Group::Packed(Box::new(searcher)),
                // A processor without the vectors for the packed search.
                None => Group::Automaton(Box::new(AhoCorasick::new(group).expect("an automaton"))),
            })
            .collect();
        Self { groups, longest }
    }

    /// The first needle in these bytes.
    pub fn in_bytes(&self, bytes: &[u8]) -> Option<usize> {
        self.groups.iter().find_map(|group| group.found(bytes))
    }

    /// The first needle in a file or device, from its beginning, at most `limit` bytes; and how many bytes were read. Holes are skipped.
    pub fn in_file(&self, path: &Path, limit: u64) -> std::io::Result<(Option<u64>, u64)> {
        let mut file = std::fs::File::open(path)?;
        let mut buffer = vec![0; self.longest + CHUNK];
        let (mut kept, mut position, mut read) = (0, 0_u64, 0_u64);
        while read < limit {
            match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(position)) {
                // Data behind a hole: go there.
                Ok(data) if data > position => (kept, position) = (0, data),
                // Nothing but a hole up to the end, or the end.
                Err(rustix::io::Errno::NXIO) => break,
                // Data here; or a device or file system that knows of no holes and is read through.
                _ => {}
            }
            file.seek(SeekFrom::Start(position))?;
            let count = file.read(&mut buffer[kept..])?;
            if count == 0 {
                break;
            }
            let filled = kept + count;
            if let Some(at) = self.in_bytes(&buffer[..filled]) {
                let start = position - u64::try_from(kept).expect("64 bits");
                return Ok((Some(start + u64::try_from(at).expect("64 bits")), read));
            }
            let count = u64::try_from(count).expect("64 bits");
            position += count;
            read += count;
            kept = filled.min(self.longest - 1);
            buffer.copy_within(filled - kept..filled, 0);
        }
        Ok((None, read))
    }

    /// All files below a directory with a needle in their bytes or name, links not followed; and how many bytes were looked at.
    pub fn below(&self, directory: &Path) -> (Vec<Hit>, u64) {
        let (mut hits, mut bytes) = (Vec::new(), 0);
        self.walk(directory, &mut hits, &mut bytes);
        (hits, bytes)
    }

    fn walk(&self, directory: &Path, hits: &mut Vec<Hit>, bytes: &mut u64) {
        use std::os::unix::ffi::OsStrExt;
        let entries = std::fs::read_dir(directory);
        for entry in entries.unwrap_or_else(|error| panic!("list {}: {error}", directory.display())) {
            let path = entry.expect("list a directory").path();
            // Gone in the meantime: a temporary file of a process that still runs.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let link = std::fs::read_link(&path).map(|target| target.into_os_string()).unwrap_or_default();
            if self.in_bytes(path.as_os_str().as_bytes()).or_else(|| self.in_bytes(link.as_bytes())).is_some()
            {
                hits.push(Hit { path: path.clone(), offset: 0 });
            }
            if metadata.is_dir() {
                self.walk(&path, hits, bytes);
            } else if metadata.is_file() {
                let found = self.in_file(&path, u64::MAX);
                let (hit, read) = found.unwrap_or_else(|error| panic!("search {}: {error}", path.display()));
                *bytes += read;
                hits.extend(hit.map(|offset| Hit { path, offset }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Payload, Random};

    #[test]
    fn a_needle_is_found_wherever_it_lies() {
        let payload = Payload::random(1, 1 << 20);
        let needles = Needles::new(payload.windows(&mut Random::new(2), 100));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(needles.below(directory.path()).0, []);
        let window = payload.windows(&mut Random::new(2), 100)[77];
        for offset in [0, 1, CHUNK - 40, CHUNK - 31, CHUNK - 1, CHUNK, CHUNK + 31, CHUNK + 32, 3 * CHUNK] {
            let mut bytes = Payload::random(3, offset).bytes().to_vec();
            bytes.extend_from_slice(&window);
            bytes.extend_from_slice(Payload::random(4, 100).bytes());
            let path = directory.path().join("haystack");
            std::fs::write(&path, &bytes).unwrap();
            let (hits, _) = needles.below(directory.path());
            assert_eq!(hits, [Hit { path, offset: u64::try_from(offset).unwrap() }]);
        }
    }

    #[test]
    fn a_needle_behind_a_hole_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let file = std::fs::File::create(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"the needle in question", 50 << 20).unwrap();
        file.set_len(60 << 20).unwrap();
        let needles = Needles::new([b"needle in question"]);
        assert_eq!(needles.below(directory.path()).0, [Hit { path, offset: (50 << 20) + 4 }]);
    }
}
