//! Kernel modules in the order in which they can be loaded. The packages carry no `modules.dep`: each module names what it needs itself.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The modules of one kernel: name, with underscores, to compressed file.
#[derive(Clone, Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    /// Where decompressed ones are kept.
    cache: PathBuf,
}

/// A module, decompressed.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The file.
    pub file: PathBuf,
}

impl Modules {
    /// Finds the modules below a directory.
    pub fn find(directory: &Path, cache: PathBuf) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        let mut todo = vec![directory.to_owned()];
        while let Some(directory) = todo.pop() {
            let entries = std::fs::read_dir(&directory);
            for entry in entries.with_context(|| format!("list {}", directory.display()))? {
                let entry = entry?;
                let (path, kind) = (entry.path(), entry.file_type()?);
                if kind.is_dir() {
                    todo.push(path);
                } else if let Some(name) = path.file_name().and_then(|name| name.to_str())
                    && let Some((name, _)) = name.split_once(".ko")
                {
                    files.insert(plain(name), path);
                }
            }
        }
        std::fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        Ok(Self { files, cache })
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// What has to be loaded for `wanted`, in order. A name that the kernel has built in, or not at all, is an error: nothing is skipped.
    pub fn closure(&self, wanted: &[String]) -> anyhow::Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in wanted {
            self.load(&plain(name), &mut loaded, 0)?;
        }
        Ok(loaded)
    }

    fn load(&self, name: &str, loaded: &mut Vec<Module>, depth: u32) -> anyhow::Result<()> {
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if depth > 32 {
            bail!("module {name}: its needs have no end");
        }
        let file = self.decompressed(name)?;
        let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        for need in needs(&bytes) {
            self.load(&need, loaded, depth + 1)?;
        }
        loaded.push(Module { name: name.to_owned(), file });
        Ok(())
    }

    fn decompressed(&self, name: &str) -> anyhow::Result<PathBuf> {
        let packed = self.files.get(name).with_context(|| format!("this kernel has no module {name}"))?;
        let plain = self.cache.join(format!("{name}.ko"));
        if plain.is_file() {
            return Ok(plain);
        }
        let output = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .arg(packed)
            .stdin(Stdio::null())
            .output()
            .context("start xz (package xz-utils)")?;
        if !output.status.success() {
            bail!("xz: {}: {}", packed.display(), String::from_utf8_lossy(&output.stderr));
        }
        super::tools::write_whole(&plain, &output.stdout)?;
        Ok(plain)
    }
}

/// The file of a module has hyphens or underscores; the kernel has underscores.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// `depends=` of the module's information section.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = module.get(at + KEY.len()..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    let text = String::from_utf8_lossy(rest.get(..end).unwrap_or_default());
    text.split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_from_the_module_itself() {
        assert_eq!(
            needs(b"x\0license=GPL\0depends=vfio-pci-core,vfio\0name=vfio_pci\0"),
            ["vfio_pci_core", "vfio"]
        );
        assert!(needs(b"\0depends=\0name=vfio\0").is_empty());
        assert!(needs(b"").is_empty());
    }
}
