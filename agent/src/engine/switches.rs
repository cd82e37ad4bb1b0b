//! `net.*` switches of a specification, in the guest's own network namespace, which containers share.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::EngineError;

/// Switches that were set, and what they were before.
#[derive(Debug, Default)]
pub(super) struct Switched(Vec<(PathBuf, Vec<u8>)>);

impl Switched {
    /// Sets them all, or none: an error leaves them as they were.
    pub(super) fn new<'a>(
        system: &Path,
        switches: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, EngineError> {
        let mut done = Self::default();
        for (name, value) in switches {
            if let Err(error) = done.set(system, name, value) {
                done.undo();
                return Err(error);
            }
        }
        Ok(done)
    }

    fn set(&mut self, system: &Path, name: &str, value: &str) -> Result<(), EngineError> {
        let path = system.join(place(name)?);
        let before = fs::read(&path).map_err(EngineError::system("read a network switch"))?;
        // Before the write: one that fails half-way is put back, too.
        self.0.push((path.clone(), before));
        write(&path, value.as_bytes()).map_err(EngineError::system("set a network switch"))
    }

    /// Puts back what was there, last first.
    pub(super) fn undo(self) {
        for (path, before) in self.0.into_iter().rev() {
            // Of a write that the kernel took a moment ago, in the other direction.
            let _ = write(&path, &before);
        }
    }
}

fn write(path: &Path, value: &[u8]) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value)
}

/// Where a switch is, below `/proc/sys`.
fn place(name: &str) -> Result<PathBuf, EngineError> {
    // A name has dots, or slashes where a part of it has dots.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    };
    // GUARD: network-switch -> evil_host_switch_outside_the_network
    if !path.starts_with("net/") || !path.split('/').all(plain) {
        return Err(EngineError::Order { what: "a switch that is not of the network" });
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn switches(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn switches_are_set_and_put_back() {
        let system = tempfile::tempdir().unwrap();
        let core = system.path().join("net/core");
        fs::create_dir_all(&core).unwrap();
        for name in ["somaxconn", "other.dots"] {
            fs::write(core.join(name), "128\n").unwrap();
        }
        let read = |name: &str| fs::read_to_string(core.join(name)).unwrap();
        let wanted = switches(&[("net.core.somaxconn", "512\n"), ("net/core/other.dots", "777\n")]);
        let switched = Switched::new(system.path(), &wanted).unwrap();
        assert_eq!((read("somaxconn").as_str(), read("other.dots").as_str()), ("512\n", "777\n"));
        switched.undo();
        assert_eq!((read("somaxconn").as_str(), read("other.dots").as_str()), ("128\n", "128\n"));

        let missing = switches(&[("net.core.somaxconn", "512\n"), ("net.core.zz_missing", "1")]);
        assert_eq!(Switched::new(system.path(), &missing).unwrap_err().code(), "ENGINE_SYSTEM");
        assert_eq!(read("somaxconn"), "128\n");
        assert!(!core.join("zz_missing").exists());
    }

    #[test]
    fn evil_host_switch_outside_the_network() {
        let system = tempfile::tempdir().unwrap();
        fs::create_dir_all(system.path().join("net")).unwrap();
        fs::create_dir_all(system.path().join("kernel")).unwrap();
        let pattern = system.path().join("kernel/core_pattern");
        fs::write(&pattern, "old").unwrap();
        for name in [
            "kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net/./../kernel/core_pattern",
            "/net/core",
            "net//core",
            "net/",
            "",
            "net",
        ] {
            let wanted = switches(&[(name, "new")]);
            assert_eq!(Switched::new(system.path(), &wanted).unwrap_err().code(), "ENGINE_ORDER", "{name}");
            assert_eq!(fs::read(&pattern).unwrap(), b"old");
        }
    }
}
