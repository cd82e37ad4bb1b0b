//! A directory of the control groups, and the files in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

use crate::cgroup::CgroupError;

/// The longest file that is read: processes of a group, nine bytes each.
const MAXIMUM_FILE_BYTES: u64 = 1 << 20;
/// Entries of a directory that are looked at.
const MAXIMUM_ENTRIES: usize = 1 << 16;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
/// No link and no other file system leads out of the control groups.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Directory {
    /// Where the control groups are mounted.
    pub(super) fn root(path: &Path) -> Result<Self, CgroupError> {
        let root = openat(CWD, path, DIRECTORY, Mode::empty());
        root.map(Self).map_err(CgroupError::file("open", "the root"))
    }

    /// A directory below this one.
    pub(super) fn below(&self, path: &Path) -> Result<Self, CgroupError> {
        self.open(path.as_os_str(), DIRECTORY).map(Self).map_err(CgroupError::file("open", "a directory"))
    }

    fn open(&self, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(openat2(&self.0, name, flags | OFlags::CLOEXEC, Mode::empty(), WITHIN)?)
    }

    /// Makes a directory; whether it may be there already is said.
    pub(super) fn make(&self, path: &Path, may_be_there: bool) -> Result<(), CgroupError> {
        let parent = self.parent_of(path)?;
        let name = path.file_name().unwrap_or_default();
        match mkdirat(&parent.0, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) if may_be_there => Ok(()),
            Err(Errno::EXIST) => Err(CgroupError::Taken),
            outcome => outcome.map_err(CgroupError::file("make", "a directory")),
        }
    }

    /// Removes a group that has no processes and no groups in it.
    pub(super) fn remove(&self, path: &Path) -> Result<(), CgroupError> {
        let parent = match self.parent_of(path) {
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            parent => parent?,
        };
        remove(&parent, path.file_name().unwrap_or_default())
    }

    fn parent_of(&self, path: &Path) -> Result<Self, CgroupError> {
        let parent = path.parent().filter(|parent| *parent != Path::new(""));
        self.below(parent.unwrap_or(Path::new(".")))
    }

    /// A file, as text; `None` if there is none.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, CgroupError> {
        let fd = match self.open(OsStr::new(name), OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CgroupError::file("open", name)(error)),
        };
        let mut text = Vec::new();
        let read = File::from(fd).take(MAXIMUM_FILE_BYTES + 1).read_to_end(&mut text);
        let count = read.map_err(CgroupError::file("read", name))?;
        let maximum = usize::try_from(MAXIMUM_FILE_BYTES).unwrap_or(usize::MAX);
        // GUARD: cgroup-file-bounded -> evil_container_huge_and_garbled_files
        if count > maximum {
            return Err(CgroupError::TooMany { what: format!("bytes of {name}") });
        }
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// A file itself.
    pub(super) fn file(&self, name: &str) -> Result<OwnedFd, CgroupError> {
        let file = self.open(OsStr::new(name), OFlags::RDONLY | OFlags::NONBLOCK);
        file.map_err(CgroupError::file("open", name))
    }

    /// A file that has to be there.
    pub(super) fn need(&self, name: &str) -> Result<String, CgroupError> {
        let missing = || CgroupError::file("open", name)(Errno::NOENT);
        self.read(name)?.ok_or_else(missing)
    }

    /// Writes a value in one piece, as the kernel takes it. It may wait: a file that is opened not to gets limits that are not
    /// enforced at once.
    pub(super) fn write(&self, name: &str, value: &str) -> Result<(), CgroupError> {
        let fd = self.open(OsStr::new(name), OFlags::WRONLY | OFlags::TRUNC);
        let mut file = File::from(fd.map_err(CgroupError::file("open", name))?);
        file.write_all(value.as_bytes()).map_err(CgroupError::file("write", name))
    }

    /// Writes a value, if there is such a file. Returns whether there is.
    pub(super) fn write_if_there(&self, name: &str, value: &str) -> Result<bool, CgroupError> {
        match self.write(name, value) {
            Err(CgroupError::File { action: "open", source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        }
    }

    /// Lets the groups below have all controllers that this one has.
    pub(super) fn hand_down_controllers(&self) -> Result<(), CgroupError> {
        const HANDED_DOWN: &str = "cgroup.subtree_control";
        let available = self.read("cgroup.controllers")?.unwrap_or_default();
        let handed = self.read(HANDED_DOWN)?.unwrap_or_default();
        for controller in available.split_ascii_whitespace() {
            if !handed.split_ascii_whitespace().any(|found| found == controller) {
                self.write(HANDED_DOWN, &format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    /// Names of the groups directly below.
    fn children(&self) -> Result<Vec<Vec<u8>>, CgroupError> {
        let failed = || CgroupError::file("list", "a directory");
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0).map_err(failed())?.take(MAXIMUM_ENTRIES) {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Sizes of huge pages that can be limited here: `2MB`.
    pub(super) fn page_sizes(&self, maximum: usize) -> Result<Vec<String>, CgroupError> {
        let failed = || CgroupError::file("list", "a directory");
        let mut sizes = Vec::new();
        for entry in Dir::read_from(&self.0).map_err(failed())?.take(MAXIMUM_ENTRIES) {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name().to_str().unwrap_or_default();
            let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"));
            // `hugetlb.2MB.rsvd.current` is another account of the same pages.
            if let Some(size) = size.filter(|size| !size.contains('.'))
                && sizes.len() < maximum
            {
                sizes.push(size.to_owned());
            }
        }
        Ok(sizes)
    }

    /// A group below; `None` if the container has removed it.
    fn child(&self, name: &[u8]) -> Result<Option<Self>, CgroupError> {
        match self.below(Path::new(OsStr::from_bytes(name))) {
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            child => child.map(Some),
        }
    }

    /// Shows this directory and all below it. No more directories are open at once than there are levels.
    pub(super) fn walk(
        &self,
        budget: &mut Budget,
        visit: &mut dyn FnMut(&Self) -> Result<(), CgroupError>,
    ) -> Result<(), CgroupError> {
        visit(self)?;
        for name in self.children()? {
            budget.enter()?;
            if let Some(child) = self.child(&name)? {
                child.walk(budget, visit)?;
            }
            budget.leave();
        }
        Ok(())
    }

    /// Removes everything below this directory, the deepest first.
    pub(super) fn remove_below(&self, budget: &mut Budget) -> Result<(), CgroupError> {
        for name in self.children()? {
            budget.enter()?;
            if let Some(child) = self.child(&name)? {
                child.remove_below(budget)?;
                remove(self, OsStr::from_bytes(&name))?;
            }
            budget.leave();
        }
        Ok(())
    }
}

/// How much of what a container made is looked at.
#[derive(Debug)]
pub(super) struct Budget {
    groups: usize,
    levels: usize,
}

impl Budget {
    pub(super) const fn new(groups: usize, levels: usize) -> Self {
        Self { groups, levels }
    }

    fn enter(&mut self) -> Result<(), CgroupError> {
        let more = |what: &str| CgroupError::TooMany { what: what.to_owned() };
        // GUARD: cgroup-groups-bounded -> evil_container_makes_groups_without_end
        self.groups = self.groups.checked_sub(1).ok_or_else(|| more("groups"))?;
        // GUARD: cgroup-levels-bounded -> evil_container_makes_groups_without_end
        self.levels = self.levels.checked_sub(1).ok_or_else(|| more("levels of groups"))?;
        Ok(())
    }

    const fn leave(&mut self) {
        self.levels += 1;
    }
}

fn remove(parent: &Directory, name: &OsStr) -> Result<(), CgroupError> {
    match unlinkat(&parent.0, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(CgroupError::file("remove", "a directory")(error)),
    }
}
