//! Name servers: `/etc/resolv.conf` of the guest, whose lines the host gives.
//!
//! The image's file stays as it is: another one is bound over it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

/// The longest file, in bytes: far more than any resolver reads.
pub const MAXIMUM_BYTES: usize = 16 << 10;
/// What is bound over the image's file.
const FILE: &str = "resolv.conf";

/// Why the servers could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// More than a file of servers has.
    #[error("dns: expected at most {MAXIMUM_BYTES} bytes, found {found}")]
    TooLong {
        /// What came.
        found: usize,
    },
    /// A line that is more than one, or no text.
    #[error("dns: expected lines without control characters, found one in line {line}")]
    Line {
        /// Which one, from 1.
        line: usize,
    },
    /// The image has something else there.
    #[error("{} is a directory", path.display())]
    IsADirectory {
        /// The place.
        path: PathBuf,
    },
    /// The file, or binding it.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl DnsError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "DNS_TOO_LONG",
            Self::Line { .. } => "DNS_LINE",
            Self::IsADirectory { .. } => "DNS_DIRECTORY",
            Self::Io { .. } => "DNS_IO",
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The file, bound. Dropping it gives the image's file back.
#[derive(Debug)]
pub struct Resolver {
    over: PathBuf,
    file: PathBuf,
    is_bound: bool,
}

/// Writes the lines, each trimmed, to `directory`/`resolv.conf`, and binds that over `over` (the image's `/etc/resolv.conf`).
///
/// Returns `None`, and does nothing, if there are no lines or the image has no such file. A second call while the first one's answer lives
/// lies on top of it: drop that first.
///
/// # Errors
/// Every [`DnsError`]; nothing is left behind then.
pub fn write(lines: &[String], directory: &Path, over: &Path) -> Result<Option<Resolver>, DnsError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let text = text(lines)?;
    match std::fs::metadata(over) {
        Ok(found) if found.is_dir() => return Err(DnsError::IsADirectory { path: over.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DnsError::io("look at", over)(error)),
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.map_err(DnsError::io("make", directory))?;
    let file = directory.join(FILE);
    remove(&file)?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&file);
    let mut opened = opened.map_err(DnsError::io("make", &file))?;
    let mut resolver = Resolver { over: over.to_owned(), file, is_bound: false };
    opened.write_all(text.as_bytes()).map_err(DnsError::io("write", &resolver.file))?;
    let failed = |action| {
        let failed = DnsError::io(action, over);
        move |error: Errno| failed(error.into())
    };
    mount_bind(&resolver.file, over).map_err(failed("bind over"))?;
    resolver.is_bound = true;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(over, flags, c"").map_err(failed("set the flags of"))?;
    Ok(Some(resolver))
}

/// The file: what policy judged as one line is one line.
fn text(lines: &[String]) -> Result<String, DnsError> {
    let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    let found = lines.iter().map(|line| line.len() + 1).sum();
    // GUARD: dns-size -> evil_host_endless_dns
    if found > MAXIMUM_BYTES {
        return Err(DnsError::TooLong { found });
    }
    let is_text = |line: &str| !line.chars().any(|letter| letter.is_control() && letter != '\t');
    let bad = lines.iter().position(|line| !is_text(line));
    // GUARD: dns-line -> evil_host_dns_line_injection
    if let Some(index) = bad {
        return Err(DnsError::Line { line: index + 1 });
    }
    Ok(lines.join("\n"))
}

fn remove(file: &Path) -> Result<(), DnsError> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DnsError::io("remove", file)(error)),
        _ => Ok(()),
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if self.is_bound {
            let _ = unmount(&self.over, UnmountFlags::DETACH);
        }
        let _ = remove(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::namespaces::tests::in_namespaces;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_lie_over_those_of_the_image() {
        in_namespaces(&["--mount"], || {
            let root = tempfile::tempdir().unwrap();
            let (directory, over) = (root.path().join("sandbox"), root.path().join("resolv.conf"));
            fs::write(&over, "nameserver 192.0.2.1\n").unwrap();
            let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let given = lines(&["nameserver 192.0.2.53 ", "\tsearch\texample", "", "options ndots:5"]);
            let resolver = write(&given, &directory, &over).unwrap().unwrap();
            let expected = "nameserver 192.0.2.53\nsearch\texample\n\noptions ndots:5";
            assert_eq!(fs::read_to_string(&over).unwrap(), expected);
            assert_eq!(fs::read_to_string(directory.join(FILE)).unwrap(), expected);
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let row = table.lines().find(|line| line.contains(over.to_str().unwrap())).unwrap();
            assert!(row.contains("nosuid,nodev,noexec"), "{row}");
            drop(resolver);
            assert_eq!(fs::read_to_string(&over).unwrap(), "nameserver 192.0.2.1\n");
            assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
            assert!(!directory.join(FILE).exists());
        });
    }

    #[test]
    fn an_image_without_the_file_keeps_none() {
        let root = tempfile::tempdir().unwrap();
        let over = root.path().join("resolv.conf");
        assert!(write(&lines(&["nameserver ::1"]), root.path(), &over).unwrap().is_none());
        assert!(write(&[], root.path(), root.path()).unwrap().is_none());
        let error = write(&lines(&["nameserver ::1"]), root.path(), root.path()).unwrap_err();
        assert_eq!((error.code(), error.to_string().ends_with(" is a directory")), ("DNS_DIRECTORY", true));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    // COMPAT: CreateSandbox stricter: a control character inside a line of `dns` is refused
    /// Policy sees entries; the resolver must not see more lines than policy did.
    #[test]
    fn evil_host_dns_line_injection() {
        let root = tempfile::tempdir().unwrap();
        let over = root.path().join("resolv.conf");
        fs::write(&over, "").unwrap();
        for bad in
            ["search a\nnameserver 203.0.113.66", "search a\rnameserver x", "a\0b", "a\u{85}b", "a\u{1b}[2J"]
        {
            let error = write(&lines(&["nameserver 192.0.2.1", bad]), root.path(), &over).unwrap_err();
            assert_eq!(error.code(), "DNS_LINE", "{bad:?}");
            assert!(error.to_string().contains("line 2"));
        }
        assert_eq!(fs::read(&over).unwrap(), b"");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn evil_host_endless_dns() {
        let many = vec![String::new(); MAXIMUM_BYTES + 1];
        let long = lines(&["a".repeat(MAXIMUM_BYTES).as_str()]);
        for given in [many, long] {
            let root = tempfile::tempdir().unwrap();
            let over = root.path().join("resolv.conf");
            fs::write(&over, "").unwrap();
            assert_eq!(write(&given, &root.path().join("x"), &over).unwrap_err().code(), "DNS_TOO_LONG");
            assert!(!root.path().join("x").exists());
        }
    }
}
