//! A host that shares one file and changes it while it is read, by FUSE, as it could by virtio-fs. Nothing is cached: each read reaches the liar.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
    Session,
};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

const ROOT: u64 = 1;
const FILE: u64 = 2;
const NO_CACHE: Duration = Duration::ZERO;

/// How the host lies. The size that it states is always the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Not at all.
    None,
    /// Each byte is right when it is read for the first time, and another one whenever it is read again.
    Again,
    /// The file ends here when somebody reads.
    EndsAt(usize),
    /// A bit of this byte is another one.
    Flipped(usize),
}

/// What was asked of the host.
#[derive(Debug, Default)]
pub struct Asked {
    reads: AtomicU64,
    again: AtomicU64,
    lied: AtomicU64,
}

impl Asked {
    /// Reads.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes that were read although they had been read before.
    pub fn again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Reads that were answered with a lie.
    pub fn lied(&self) -> u64 {
        self.lied.load(Ordering::Relaxed)
    }
}

/// A mounted file; dropped, it is gone.
pub struct LyingFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was asked so far.
    pub asked: Arc<Asked>,
    _session: BackgroundSession,
}

impl std::fmt::Debug for LyingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LyingFile")
            .field("path", &self.path)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl LyingFile {
    /// Shows these bytes as the file `name` in a directory, which is there. Needs root, or FUSE for everybody.
    #[track_caller]
    pub fn mount(directory: &Path, name: &str, bytes: Vec<u8>, lie: Lie) -> Self {
        let asked = Arc::new(Asked::default());
        let seen = Mutex::new(vec![false; bytes.len()]);
        let files = Files { name: name.to_owned(), bytes, lie, seen, asked: Arc::clone(&asked) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("innerkeep-liar".to_owned()), MountOption::RO];
        let session = Session::new(files, directory, &config).and_then(Session::spawn);
        let session = session.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        Self { path: directory.join(name), asked, _session: session }
    }
}

struct Files {
    name: String,
    bytes: Vec<u8>,
    lie: Lie,
    seen: Mutex<Vec<bool>>,
    asked: Arc<Asked>,
}

impl Files {
    fn attributes(&self, number: u64) -> FileAttr {
        let directory = number == ROOT;
        FileAttr {
            ino: INodeNo(number),
            size: if directory { 0 } else { self.bytes.len() as u64 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if directory { FileType::Directory } else { FileType::RegularFile },
            perm: if directory { 0o755 } else { 0o444 },
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn answer(&self, offset: usize, length: usize) -> Vec<u8> {
        self.asked.reads.fetch_add(1, Ordering::Relaxed);
        let begin = offset.min(self.bytes.len());
        let end = begin.saturating_add(length).min(self.bytes.len());
        let mut answer = self.bytes[begin..end].to_vec();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut again, mut lied) = (0, false);
        for (byte, seen) in answer.iter_mut().zip(&mut seen[begin..end]) {
            if std::mem::replace(seen, true) {
                again += 1;
                if self.lie == Lie::Again {
                    *byte ^= 1;
                    lied = true;
                }
            }
        }
        match self.lie {
            Lie::EndsAt(at) if end > at => {
                answer.truncate(at.saturating_sub(begin));
                lied = true;
            }
            Lie::Flipped(at) if (begin..end).contains(&at) => {
                answer[at - begin] ^= 1;
                lied = true;
            }
            _ => {}
        }
        self.asked.again.fetch_add(again, Ordering::Relaxed);
        self.asked.lied.fetch_add(u64::from(lied), Ordering::Relaxed);
        answer
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent.0 == ROOT && name == self.name.as_str() {
            reply.entry(&NO_CACHE, &self.attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NO_CACHE, &self.attributes(number.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        reply.data(&self.answer(offset, usize::try_from(size).unwrap_or(0)));
    }
}
