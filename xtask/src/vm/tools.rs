//! What a guest is made of, in the cache: fetched once, then used without a network.

use super::modules::Modules;
use super::packages::{self, Manifest};
use crate::shell;
use anyhow::{Context, bail, ensure};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest QEMU that attaches a vfio-user device as these tests need it.
const OLDEST_QEMU: (u32, u32) = (11, 1);
/// The back end of vsock, a program from crates.io.
const VSOCK: (&str, &str) = ("vhost-device-vsock", "0.3.0");
/// Lets go of half a cache that an interrupted run left.
const MANIFEST: &str = "manifest.json";

/// The programs and files.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Versions, sizes, digests.
    pub manifest: Manifest,
    /// The unpacked packages.
    pub(super) root: PathBuf,
    /// The kernel, uncompressed: it starts without a boot loader.
    pub(super) kernel: PathBuf,
    pub(super) modules: Modules,
    pub(super) vsock: PathBuf,
}

impl Tools {
    /// Finds what the cache has, and fetches what it lacks.
    ///
    /// # Errors
    ///
    /// [`super::Outage`] where no mirror gives the packages; whatever else keeps the tools from working.
    pub fn obtain(say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        Self::with_lock(say, false)
    }

    /// As [`Tools::obtain`], with the newest packages.
    ///
    /// # Errors
    ///
    /// As [`Tools::obtain`].
    pub fn refresh(say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        Self::with_lock(say, true)
    }

    fn with_lock(say: &dyn Fn(&str), refresh: bool) -> anyhow::Result<Self> {
        let cache = shell::cache_dir()?.join("vm");
        std::fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        // One process fetches; the others wait and find it done.
        let lock = File::create(cache.join("lock")).context("make the cache's lock")?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("lock the cache")?;
        let packages = cache.join("packages");
        if refresh || !packages.join(MANIFEST).is_file() {
            fetch(&cache, &packages, say)?;
        }
        let vsock = cache.join("vsock").join(VSOCK.1);
        if !vsock.join("bin").join(VSOCK.0).is_file() {
            say(&format!("compiling {} {} (about a minute, once) …", VSOCK.0, VSOCK.1));
            install_vsock(&vsock)?;
        }
        let tools = Self::open(&packages, vsock.join("bin").join(VSOCK.0))?;
        if refresh || !packages.join("checked").is_file() {
            tools.assert_qemu()?;
            write_whole(&packages.join("checked"), b"")?;
        }
        Ok(tools)
    }

    fn open(packages: &Path, vsock: PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(packages.join(MANIFEST)).context("read the cache's manifest")?;
        let manifest: Manifest = serde_json::from_str(&text).context("the cache's manifest")?;
        let root = packages.join("root");
        let modules = root.join("usr/lib/modules").join(&manifest.kernel);
        Ok(Self {
            modules: Modules::find(&modules, packages.join("modules"))?,
            kernel: packages.join("vmlinux"),
            manifest,
            root,
            vsock,
        })
    }

    /// One line about what is there.
    pub fn describe(&self) -> String {
        format!(
            "QEMU {}, kernel {} ({} modules), busybox {}, virtiofsd {}, {} {}; {} packages, {:.1} MB, from {}",
            self.manifest.version("qemu-system-x86"),
            self.manifest.kernel,
            self.modules.count(),
            self.manifest.version("busybox-static"),
            self.manifest.version("virtiofsd"),
            VSOCK.0,
            VSOCK.1,
            self.manifest.packages.len(),
            self.manifest.bytes() as f64 / 1e6,
            self.manifest.suite,
        )
    }

    /// A program of the packages, run by their own loader with their own libraries.
    pub(super) fn program(&self, path: &str) -> Command {
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.root.join(path)).stdin(Stdio::null());
        command
    }

    /// QEMU without any argument but where its files are.
    pub(super) fn qemu(&self) -> Command {
        let mut command = self.program("usr/bin/qemu-system-x86_64");
        for directory in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(self.root.join(directory));
        }
        command
    }

    /// The static busybox of the packages.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("usr/bin/busybox")
    }

    fn assert_qemu(&self) -> anyhow::Result<()> {
        let version = self.manifest.version("qemu-system-x86");
        let found = qemu_version(version).with_context(|| format!("QEMU's version: {version}"))?;
        ensure!(found >= OLDEST_QEMU, "QEMU {version}, expected at least {OLDEST_QEMU:?}");
        let devices = shell::output(self.qemu().args(["-device", "help"]))?;
        for device in ["vfio-user-pci", "intel-iommu", "vhost-user-vsock-pci", "vhost-user-fs-pci"] {
            ensure!(devices.contains(&format!("\"{device}\"")), "this QEMU has no {device}");
        }
        Ok(())
    }
}

/// `1:11.1.3+ds-1~bpo13+1` → (11, 1).
fn qemu_version(version: &str) -> Option<(u32, u32)> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut numbers = upstream.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn fetch(cache: &Path, packages: &Path, say: &dyn Fn(&str)) -> anyhow::Result<()> {
    say("fetching QEMU and a kernel from Debian's archive (about 77 MB, once) …");
    let new =
        tempfile::Builder::new().prefix("new-").tempdir_in(cache).context("make a scratch directory")?;
    let scratch =
        tempfile::Builder::new().prefix("apt-").tempdir_in(cache).context("make a scratch directory")?;
    let root = new.path().join("root");
    let mut manifest = packages::fetch(scratch.path(), &root)?;
    let modules = root.join("usr/lib/modules").join(&manifest.kernel);
    let compressed = modules.join("vmlinuz");
    manifest.modules = Modules::find(&modules, new.path().join("modules"))?.names();
    uncompress(&compressed, &new.path().join("vmlinux"))?;
    // Last: a cache without it is not one.
    write_whole(&new.path().join(MANIFEST), serde_json::to_string_pretty(&manifest)?.as_bytes())?;
    let new = new.keep();
    if packages.exists() {
        std::fs::remove_dir_all(packages).with_context(|| format!("remove {}", packages.display()))?;
    }
    std::fs::rename(&new, packages).with_context(|| format!("move {}", new.display()))
}

/// Takes the kernel proper, a zstd frame, out of the boot image.
fn uncompress(image: &Path, to: &Path) -> anyhow::Result<()> {
    const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let bytes = std::fs::read(image).with_context(|| format!("read {}", image.display()))?;
    for (at, _) in bytes.windows(4).enumerate().filter(|(_, window)| *window == FRAME) {
        let mut zstd = Command::new("zstd");
        zstd.args(["--decompress", "--stdout"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = zstd.spawn().context("start zstd (package zstd)")?;
        let mut stdin = child.stdin.take().context("zstd's standard input")?;
        let frame = bytes.get(at..).unwrap_or_default().to_vec();
        // What follows the frame is no zstd: the program complains after it wrote the kernel.
        let feed = std::thread::spawn(move || {
            let _ = stdin.write_all(&frame);
        });
        let output = child.wait_with_output().context("run zstd")?;
        let _ = feed.join();
        if output.stdout.starts_with(b"\x7fELF") {
            return write_whole(to, &output.stdout);
        }
    }
    bail!("{} holds no kernel compressed with zstd", image.display())
}

fn install_vsock(to: &Path) -> anyhow::Result<()> {
    let target =
        tempfile::Builder::new().prefix("ik-vsock-").tempdir().context("make a scratch directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["install", "--quiet", "--locked", VSOCK.0, "--version", VSOCK.1, "--root"]).arg(to);
    cargo.arg("--target-dir").arg(target.path()).env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    shell::run(&mut cargo)
}

/// Writes a file so that it is whole or absent.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let directory = path.parent().context("a file without a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(directory).context("make a scratch file")?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))?;
    file.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_behind_an_epoch() {
        assert_eq!(qemu_version("1:11.1.3+ds-1~bpo13+1"), Some((11, 1)));
        assert_eq!(qemu_version("10.0.13"), Some((10, 0)));
        assert!(qemu_version("10.0.13") < Some(OLDEST_QEMU));
        assert_eq!(qemu_version(""), None);
    }
}
