//! QEMU, a kernel and what goes with them, from Debian's archive into a cache, by apt alone.
//!
//! apt works in a directory of its own, with an empty list of installed packages: the machine's packages are neither consulted nor touched.
//! Releases roll, so versions are resolved when they are fetched, recorded, and kept until `--refresh`.

use crate::shell;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where packages come from, in the order in which they are tried: the suite and what it builds upon.
const SUITES: &[(&str, &[&str])] = &[("trixie-backports", &["trixie"]), ("forky", &[])];
/// Packages with what they need.
const CLOSURES: &[&str] = &["qemu-system-x86", "seabios"];
/// Packages alone, beside the kernel's: their libraries are among those of the closures, or they need none.
const SINGLES: &[&str] = &["busybox-static", "virtiofsd", "libcap-ng0"];
/// Names the newest kernel of a suite.
const KERNEL: &str = "linux-image-cloud-amd64";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const MIRROR: &str = "http://deb.debian.org/debian";
/// All downloads together.
const MAXIMUM_BYTES: u64 = 90_000_000;

/// The archive could not be reached, or has not what is needed.
#[derive(Debug)]
pub struct Outage(String);

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no Debian mirror gave QEMU and a kernel: {}", self.0)
    }
}

impl std::error::Error for Outage {}

/// What was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The suite.
    pub suite: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Packages.
    pub packages: BTreeMap<String, Package>,
    /// Names of the kernel's modules.
    #[serde(default)]
    pub modules: Vec<String>,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Version.
    pub version: String,
    /// Size of the archive in bytes.
    pub size: u64,
    /// SHA-256 of the archive, hex, as Debian's signed index has it.
    pub sha256: String,
}

impl Manifest {
    /// The version of a package; empty when it is not there.
    pub fn version(&self, package: &str) -> &str {
        self.packages.get(package).map_or("", |found| &found.version)
    }

    /// Bytes that were fetched.
    pub fn bytes(&self) -> u64 {
        self.packages.values().map(|package| package.size).sum()
    }
}

/// Fetches everything and unpacks it below `root`, which must not exist.
pub fn fetch(scratch: &Path, root: &Path) -> anyhow::Result<Manifest> {
    ensure!(
        Path::new(KEYRING).is_file(),
        "{KEYRING} is missing: install debian-archive-keyring, by which packages are verified"
    );
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(shell::has_program(program), "{program} is missing: QEMU and kernel come as Debian packages");
    }
    let mut causes = Vec::new();
    for (suite, bases) in SUITES {
        let apt = Apt::new(&scratch.join(suite), suite, bases)?;
        match apt.download() {
            Ok(manifest) => {
                apt.unpack(root)?;
                return Ok(manifest);
            }
            Err(error) => causes.push(format!("{suite}: {error:#}")),
        }
    }
    Err(Outage(causes.join("; ")).into())
}

struct Apt {
    directory: PathBuf,
    suite: String,
}

impl Apt {
    fn new(directory: &Path, suite: &str, bases: &[&str]) -> anyhow::Result<Self> {
        for inner in ["lists/partial", "archives/partial"] {
            let path = directory.join(inner);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let mirror = mirror();
        let line = |suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        let sources: String =
            bases.iter().map(|base| line(base)).chain(std::iter::once(line(suite))).collect();
        std::fs::write(directory.join("sources.list"), sources).context("write apt's sources")?;
        std::fs::write(directory.join("status"), "").context("write apt's status")?;
        Ok(Self { directory: directory.to_owned(), suite: suite.to_owned() })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let at = |name: &str| self.directory.join(name).into_os_string();
        let none = || OsString::from("/dev/null");
        let settings = [
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("")),
            ("Dir::Cache::archives", at("archives")),
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", none()),
            ("Dir::Etc::preferencesparts", none()),
            ("APT::Install-Recommends", "false".into()),
            ("APT::Sandbox::User", "".into()),
            ("APT::Architecture", "amd64".into()),
            ("Acquire::Retries", "2".into()),
            ("Acquire::http::Timeout", "30".into()),
            ("Debug::NoLocking", "true".into()),
        ];
        let mut command = Command::new(program);
        for (name, value) in settings {
            let mut setting = OsString::from(name);
            setting.push("=");
            setting.push(value);
            command.arg("-o").arg(setting);
        }
        command.args(arguments).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command.stdin(Stdio::null());
        command
    }

    fn output(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program, arguments);
        command.current_dir(self.directory.join("archives"));
        let output = command.output().with_context(|| format!("start {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{program} {} ended with {}: {}",
                arguments.join(" "),
                output.status,
                said.trim().replace('\n', " ")
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn download(&self) -> anyhow::Result<Manifest> {
        // An index that failed to arrive is a warning to apt, and an error here.
        self.output("apt-get", &["update", "--error-on=any"])?;
        let kernel = self.kernel()?;
        let mut install = vec!["--yes", "--download-only", "--target-release", &self.suite, "install"];
        install.extend(CLOSURES);
        self.output("apt-get", &install)?;
        let (binary, modules) = (format!("linux-binary-{kernel}"), format!("linux-modules-{kernel}"));
        let mut singles = vec!["--target-release", &self.suite, "download", &binary, &modules];
        singles.extend(SINGLES);
        self.output("apt-get", &singles)?;
        let mut packages = BTreeMap::new();
        for archive in self.archives()? {
            let (name, package) = describe(&archive)?;
            packages.insert(name, package);
        }
        let manifest = Manifest { suite: self.suite.clone(), kernel, packages, modules: Vec::new() };
        let bytes = manifest.bytes();
        ensure!(bytes <= MAXIMUM_BYTES, "{bytes} bytes of packages, expected at most {MAXIMUM_BYTES}");
        Ok(manifest)
    }

    /// The newest kernel's release, out of what its metapackage depends on.
    fn kernel(&self) -> anyhow::Result<String> {
        let shown =
            self.output("apt-cache", &["--no-all-versions", "show", &format!("{KERNEL}/{}", self.suite)]);
        let shown = match shown {
            Ok(shown) => shown,
            // An older apt-cache takes no suite: the newest version it knows comes first.
            Err(_) => self.output("apt-cache", &["show", KERNEL])?,
        };
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        depends
            .unwrap_or_default()
            .split(", ")
            .filter_map(|dependency| dependency.split(' ').next())
            .find_map(|name| name.strip_prefix("linux-image-").filter(|rest| rest.contains('.')))
            .map(ToOwned::to_owned)
            .with_context(|| format!("{KERNEL} of {} names no kernel", self.suite))
    }

    fn archives(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut archives = Vec::new();
        for entry in std::fs::read_dir(self.directory.join("archives"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                archives.push(path);
            }
        }
        archives.sort();
        Ok(archives)
    }

    fn unpack(&self, root: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        for archive in self.archives()? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&archive).arg(root);
            shell::run(&mut unpack)?;
            std::fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
        }
        Ok(())
    }
}

/// Name, version, size and digest of an archive. (apt compared the digest with the signed index before it kept the file.)
fn describe(archive: &Path) -> anyhow::Result<(String, Package)> {
    use sha2::{Digest, Sha256};
    let mut show = Command::new("dpkg-deb");
    show.args(["--showformat", "${Package} ${Version}", "--show"]).arg(archive);
    let shown = shell::output(&mut show)?;
    let (name, version) = shown.trim().split_once(' ').context("dpkg-deb prints name and version")?;
    let bytes = std::fs::read(archive).with_context(|| format!("read {}", archive.display()))?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok((name.to_owned(), Package { version: version.to_owned(), size, sha256 }))
}

/// The mirror that the machine's own apt uses for Debian, else the general one.
fn mirror() -> String {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    files.sort();
    let words: Vec<String> = files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|text| {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            lines.flat_map(str::split_whitespace).map(ToOwned::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let debian = words
        .into_iter()
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"));
    debian.map_or_else(|| MIRROR.to_owned(), |found| found.trim_end_matches('/').to_owned())
}
