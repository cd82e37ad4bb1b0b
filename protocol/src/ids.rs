//! Names, places and amounts of a request, checked once at the edge.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest id: it is a file's name, a group of processes, and a part of others.
pub const MAXIMUM_ID_BYTES: usize = 128;
/// Longest path that the kernel takes, its end included.
pub const MAXIMUM_PATH_BYTES: usize = 4095;
/// Longest name in a directory.
const MAXIMUM_NAME_BYTES: usize = 255;
/// The most that one read of a stream gives, whatever was asked for.
pub const MAXIMUM_READ_BYTES: usize = 1 << 20;
/// Highest signal of Linux.
const MAXIMUM_SIGNAL: u32 = 64;
/// The directory that host and guest share, where files are copied to.
pub const SHARED_DIRECTORY: &str = "/run/kata-containers/shared/containers/";

/// Why a value of a request was not taken. It repeats nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// An id of another form.
    #[error(
        "{what}: expected 2 to {MAXIMUM_ID_BYTES} letters, digits, '.', '-' or '_' with a letter or digit first"
    )]
    Id {
        /// Which id.
        what: &'static str,
    },
    /// A path that is not absolute, or leads elsewhere.
    #[error("path: expected an absolute one of at most {MAXIMUM_PATH_BYTES} bytes without '..' and NUL")]
    Path,
    /// A file to copy that does not lie in the shared directory. The text has what upstream's has.
    #[error("removing \"{SHARED_DIRECTORY}\" prefix from the path: expected a place below it, without '..'")]
    Shared,
    /// No signal.
    #[error("signal: expected 0 to {MAXIMUM_SIGNAL}, found {found}")]
    Signal {
        /// What came.
        found: u32,
    },
    /// A size that a terminal cannot have.
    #[error("terminal: expected rows and columns up to 65535, found {rows} and {columns}")]
    Terminal {
        /// Rows that came.
        rows: u32,
        /// Columns that came.
        columns: u32,
    },
}

impl ValueError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Id { .. } => "REQUEST_ID",
            Self::Path => "REQUEST_PATH",
            Self::Shared => "REQUEST_OUTSIDE_SHARED",
            Self::Signal { .. } => "REQUEST_SIGNAL",
            Self::Terminal { .. } => "REQUEST_TERMINAL",
        }
    }
}

fn is_id(id: &str) -> bool {
    let in_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (2..=MAXIMUM_ID_BYTES).contains(&id.len())
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(in_id)
}

macro_rules! id {
    ($(#[$about:meta])* $name:ident, $what:literal, $guard:ident) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes an id of the wire: 2 to [`MAXIMUM_ID_BYTES`] letters, digits, `.`, `-`, `_`, the first a letter or digit, so
            /// that it is one name in a directory, and none that leads out of it.
            ///
            /// # Errors
            /// `REQUEST_ID`.
            pub fn parse(id: &str) -> Result<Self, ValueError> {
                $guard(id, $what)?;
                Ok(Self(id.into()))
            }

            /// The id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn check_id(id: &str, what: &'static str) -> Result<(), ValueError> {
    // GUARD: request-id -> evil_host_id_that_is_a_path
    if !is_id(id) {
        return Err(ValueError::Id { what });
    }
    Ok(())
}

id! {
    /// A container.
    ContainerId, "container id", check_id
}
id! {
    /// A process of a container.
    ExecId, "exec id", check_id
}
id! {
    /// The sandbox.
    SandboxId, "sandbox id", check_id
}

impl SandboxId {
    /// Of a field that may be empty: the sandbox keeps the id that it has.
    ///
    /// # Errors
    /// `REQUEST_ID`.
    pub fn parse_optional(id: &str) -> Result<Option<Self>, ValueError> {
        if id.is_empty() { Ok(None) } else { Self::parse(id).map(Some) }
    }
}

/// A process by container and exec id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// The container.
    pub container: ContainerId,
    /// The process; `None` is the first one. The first one has an id, too: the one that CreateContainer gave it.
    pub exec: Option<ExecId>,
}

impl ProcessRef {
    /// Takes both ids of the wire; an empty exec id is the first process.
    ///
    /// # Errors
    /// `REQUEST_ID`.
    pub fn parse(container_id: &str, exec_id: &str) -> Result<Self, ValueError> {
        let exec = if exec_id.is_empty() { None } else { Some(ExecId::parse(exec_id)?) };
        Ok(Self { container: ContainerId::parse(container_id)?, exec })
    }
}

macro_rules! process_of {
    ($($message:ident),+) => {
        $(impl TryFrom<&crate::agent::$message> for ProcessRef {
            type Error = ValueError;

            fn try_from(request: &crate::agent::$message) -> Result<Self, ValueError> {
                Self::parse(&request.container_id, &request.exec_id)
            }
        })+
    };
}

process_of!(
    CloseStdinRequest,
    ReadStreamRequest,
    SignalProcessRequest,
    TtyWinResizeRequest,
    WaitProcessRequest,
    WriteStreamRequest
);

/// An absolute path without `..`. That nothing on it is a link is for whoever opens it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// Takes a path of the wire; `//` and `.` are left out.
    ///
    /// # Errors
    /// `REQUEST_PATH`.
    pub fn parse(path: &str) -> Result<Self, ValueError> {
        // GUARD: absolute-path -> evil_host_path_that_leads_elsewhere
        if !path.starts_with('/') || leads_elsewhere(path) {
            return Err(ValueError::Path);
        }
        Ok(Self(Path::new("/").join(parts(path).collect::<PathBuf>())))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// A place below [`SHARED_DIRECTORY`], relative to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedPath(PathBuf);

impl SharedPath {
    /// Takes the path of a CopyFile.
    ///
    /// # Errors
    /// `REQUEST_OUTSIDE_SHARED`.
    pub fn parse(path: &str) -> Result<Self, ValueError> {
        let below = path.strip_prefix(SHARED_DIRECTORY).ok_or(ValueError::Shared)?;
        // GUARD: shared-directory -> evil_host_copies_outside_of_the_shared_directory
        if leads_elsewhere(below) || parts(below).next().is_none() {
            return Err(ValueError::Shared);
        }
        Ok(Self(parts(below).collect()))
    }

    /// The place, relative to the shared directory: at least one name, no `..`.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// The names of a path.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Whether a path has `..`, a NUL, or more than the kernel takes.
fn leads_elsewhere(path: &str) -> bool {
    let is_name = |part: &str| part != ".." && part.len() <= MAXIMUM_NAME_BYTES;
    path.len() > MAXIMUM_PATH_BYTES || path.contains('\0') || !parts(path).all(is_name)
}

/// A signal, 0 to 64; 0 asks whether the process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// Takes a signal of the wire.
    ///
    /// # Errors
    /// `REQUEST_SIGNAL`.
    pub fn parse(signal: u32) -> Result<Self, ValueError> {
        u8::try_from(signal)
            .ok()
            .filter(|_| signal <= MAXIMUM_SIGNAL)
            .map(Self)
            .ok_or(ValueError::Signal { found: signal })
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0 as i32
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

impl TerminalSize {
    /// Takes a size of the wire.
    ///
    /// # Errors
    /// `REQUEST_TERMINAL`.
    pub fn parse(rows: u32, columns: u32) -> Result<Self, ValueError> {
        let (Ok(rows), Ok(columns)) = (u16::try_from(rows), u16::try_from(columns)) else {
            return Err(ValueError::Terminal { rows, columns });
        };
        Ok(Self { rows, columns })
    }
}

/// How much a read of a stream may give: what was asked for, at most [`MAXIMUM_READ_BYTES`]. Runtimes ask again.
#[must_use]
pub fn read_length(asked: u32) -> usize {
    usize::try_from(asked).unwrap_or(usize::MAX).min(MAXIMUM_READ_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_runtimes_are_taken() {
        let long = "a".repeat(MAXIMUM_ID_BYTES);
        for id in ["0123456789abcdef", "a1", "A.b-c_d", "a..", long.as_str()] {
            assert_eq!(ContainerId::parse(id).unwrap().as_str(), id);
        }
        let process = ProcessRef::parse("ab", "").unwrap();
        assert_eq!(process.exec, None);
        let request = crate::agent::WaitProcessRequest {
            container_id: "ab".to_owned(),
            exec_id: "cd".to_owned(),
            ..Default::default()
        };
        assert_eq!(ProcessRef::try_from(&request).unwrap().exec.unwrap().as_str(), "cd");
        assert_eq!(SandboxId::parse_optional(""), Ok(None));
    }

    #[test]
    fn evil_host_id_that_is_a_path() {
        let long = "a".repeat(MAXIMUM_ID_BYTES + 1);
        for id in ["", "a", "..", ".a", "-ab", "a/b", "../a", "a\0b", "a b", "a\n", "é1", long.as_str()] {
            let error = ContainerId::parse(id).unwrap_err();
            assert_eq!(error.code(), "REQUEST_ID", "{id:?}");
            assert!(ProcessRef::parse("ab", id).is_err() || id.is_empty());
            assert!(SandboxId::parse(id).is_err());
        }
    }

    #[test]
    fn evil_host_path_that_leads_elsewhere() {
        let name = "a".repeat(MAXIMUM_NAME_BYTES + 1);
        let long = "/a".repeat(MAXIMUM_PATH_BYTES);
        for path in ["", "a/b", "/a/../b", "/..", "..", "/a\0", &format!("/{name}"), long.as_str()] {
            assert_eq!(AbsolutePath::parse(path).unwrap_err().code(), "REQUEST_PATH", "{path:?}");
        }
        assert_eq!(AbsolutePath::parse("/a//./b/").unwrap().as_path(), Path::new("/a/b"));
        assert_eq!(AbsolutePath::parse("/..a/b..").unwrap().as_path(), Path::new("/..a/b.."));
    }

    #[test]
    fn evil_host_copies_outside_of_the_shared_directory() {
        let bad = [
            "/etc/passwd",
            "/run/kata-containers/shared/containers",
            SHARED_DIRECTORY,
            "/run/kata-containers/shared/containers/.",
            "/run/kata-containers/shared/containers/../x",
            "/run/kata-containers/shared/containers/a/../../x",
            "/run/kata-containers/shared/containersx/y",
        ];
        for path in bad {
            assert_eq!(SharedPath::parse(path).unwrap_err().code(), "REQUEST_OUTSIDE_SHARED", "{path:?}");
        }
        let place = SharedPath::parse(&format!("{SHARED_DIRECTORY}/a/b.txt")).unwrap();
        assert_eq!(place.as_path(), Path::new("a/b.txt"));
    }

    #[test]
    fn amounts_have_their_ends() {
        assert_eq!(Signal::parse(64).unwrap().number(), 64);
        assert_eq!(Signal::parse(65), Err(ValueError::Signal { found: 65 }));
        assert_eq!(Signal::parse(256 + 9).unwrap_err().code(), "REQUEST_SIGNAL");
        assert_eq!(TerminalSize::parse(65_535, 80), Ok(TerminalSize { rows: 65_535, columns: 80 }));
        assert_eq!(TerminalSize::parse(65_536, 80).unwrap_err().code(), "REQUEST_TERMINAL");
        assert_eq!(read_length(0), 0);
        assert_eq!(read_length(u32::MAX), MAXIMUM_READ_BYTES);
    }
}
