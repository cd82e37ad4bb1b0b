//! Programs of this machine in a guest, with the libraries that they name.

use super::Spec;
use crate::shell;
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

impl Spec {
    /// A program of this machine at the place `to` of the guest, and the libraries that its loader finds for it.
    ///
    /// # Errors
    ///
    /// It is not there, or a library is not.
    pub fn host_program(mut self, program: &Path, to: &str) -> anyhow::Result<Self> {
        self = self.copy(&real(program)?, to, 0o755);
        self.host_libraries(program)
    }

    /// What the loader finds for a program or a library of this machine.
    ///
    /// # Errors
    ///
    /// As [`Spec::host_program`].
    pub fn host_libraries(mut self, program: &Path) -> anyhow::Result<Self> {
        let mut ldd = Command::new("ldd");
        ldd.arg(program);
        let listed = shell::output(&mut ldd)?;
        for library in libraries(&listed) {
            if !self.files.iter().any(|(to, ..)| Path::new(to) == library) {
                let to = library.to_string_lossy().into_owned();
                self = self.copy(&real(&library)?, &to, 0o755);
            }
        }
        Ok(self)
    }
}

fn real(path: &Path) -> anyhow::Result<PathBuf> {
    let found = path.canonicalize().with_context(|| format!("{} (cargo xtask setup)", path.display()))?;
    ensure!(found.is_file(), "{} is no file", found.display());
    Ok(found)
}

/// The files in what `ldd` prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, and the loader, which has no arrow.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let file = |line: &str| {
        let words = line.split_whitespace();
        words.map(PathBuf::from).find(|word| word.is_absolute())
    };
    listed.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_files_that_are_named() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x1)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(libraries(listed), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
