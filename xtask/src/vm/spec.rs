//! What a guest is to be: programs, files, modules, devices.

mod command;
mod host_program;
mod storage;

use super::backend;
use super::guest::{self, Guest};
use super::initramfs::Initramfs;
use super::programs::Programs;
use super::tools::Tools;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who is process 1 while commands run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// `vm-init`, which only reaps.
    #[default]
    Run,
    /// The unchanged `/bin/innerkeep-agent`, executed by `vm-init` once all is prepared.
    Agent,
}

/// A program that `vm-init` starts before the witness, and that goes on beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// It is ready once this path exists.
    pub ready: String,
}

/// What `vm-init` finds in `/etc/vm-init.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Who becomes process 1.
    pub init: Init,
    /// Files of modules, in order.
    pub modules: Vec<String>,
    /// Whether the shared directory is mounted on `/out`.
    pub share: bool,
    /// Services, in order.
    pub services: Vec<Service>,
    /// Whether what `vm-init` mounted stays for the agent; else the agent finds an empty machine.
    pub keep_mounts: bool,
    /// Arguments of the agent. It has to ignore them.
    pub agent_arguments: Vec<String>,
}

/// A chip behind a vfio-user socket.
#[derive(Clone, Debug)]
struct Chip {
    socket: PathBuf,
    /// Process that serves the socket: when it dies, so does the machine.
    process: Option<u32>,
    /// Behind a port of its own, so that it can be taken away.
    removable: bool,
}

/// A guest that is not running yet.
#[derive(Debug)]
pub struct Spec {
    pub(super) plan: Plan,
    programs: Programs,
    files: Vec<(String, u32, Source)>,
    modules: Vec<String>,
    offered: Vec<String>,
    chips: Vec<Chip>,
    disks: Vec<PathBuf>,
    tpm: Option<(PathBuf, u32)>,
    memory_mib: u32,
    more_memory: Option<(u32, u32)>,
    cpus: u32,
    cmdline: String,
    pub(super) vsock: bool,
    pub(super) share: Option<PathBuf>,
    extra: Vec<OsString>,
    pub(super) boot_timeout: Duration,
    pub(super) timeout: Duration,
    pub(super) watched: Vec<(String, u32)>,
    pub(super) serial_copy: Option<PathBuf>,
}

#[derive(Debug)]
enum Source {
    Host(PathBuf),
    Bytes(Vec<u8>),
}

impl Spec {
    /// A guest with `vm-init`, busybox, the modules for block devices and vsock, two processors and 1 GiB.
    pub fn new(programs: Programs) -> Self {
        Self {
            plan: Plan { keep_mounts: true, ..Plan::default() },
            programs,
            files: Vec::new(),
            modules: ["virtio_blk", "vmw_vsock_virtio_transport"].map(ToOwned::to_owned).to_vec(),
            offered: Vec::new(),
            chips: Vec::new(),
            disks: Vec::new(),
            tpm: None,
            memory_mib: 1024,
            more_memory: None,
            cpus: 2,
            cmdline: String::new(),
            vsock: false,
            share: None,
            extra: Vec::new(),
            boot_timeout: Duration::from_secs(90),
            timeout: Duration::from_secs(600),
            watched: Vec::new(),
            serial_copy: None,
        }
    }

    /// One of our programs, as `/bin/NAME`.
    ///
    /// # Errors
    ///
    /// It was not built.
    pub fn program(self, name: &str) -> anyhow::Result<Self> {
        let file = self.programs.stripped(name)?;
        Ok(self.copy(&file, &format!("/bin/{name}"), 0o755))
    }

    /// A file of the host.
    #[must_use]
    pub fn copy(mut self, from: &Path, to: &str, mode: u32) -> Self {
        self.files.push((to.to_owned(), mode, Source::Host(from.to_owned())));
        self
    }

    /// All files of a directory of the host, and those below it.
    ///
    /// # Errors
    ///
    /// It cannot be listed.
    pub fn copy_directory(mut self, from: &Path, to: &str) -> anyhow::Result<Self> {
        let entries = std::fs::read_dir(from).with_context(|| format!("list {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let to = format!("{to}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self = self.copy_directory(&entry.path(), &to)?;
            } else if kind.is_file() {
                self = self.copy(&entry.path(), &to, 0o644);
            }
        }
        Ok(self)
    }

    /// A file with these bytes.
    #[must_use]
    pub fn file(mut self, to: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((to.to_owned(), mode, Source::Bytes(bytes.into())));
        self
    }

    /// Modules beside the usual ones, with what they need.
    #[must_use]
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Modules that are in the guest and that nobody has loaded: `modprobe` finds them, with what they need.
    #[must_use]
    pub fn offered_modules(mut self, names: &[&str]) -> Self {
        self.offered.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// A chip on the root bus, behind the IOMMU; with it the modules of VFIO. When `process` ends, the machine ends.
    #[must_use]
    pub fn chip(self, socket: &Path, process: Option<u32>) -> Self {
        self.with_chip(Chip { socket: socket.to_owned(), process, removable: false })
    }

    /// As [`Spec::chip`], behind a root port: it can be taken away. Device and port are `chipN` and `portN`, counted from 0.
    #[must_use]
    pub fn removable_chip(self, socket: &Path, process: Option<u32>) -> Self {
        self.with_chip(Chip { socket: socket.to_owned(), process, removable: true })
    }

    fn with_chip(mut self, chip: Chip) -> Self {
        self.chips.push(chip);
        self.modules(&["vfio_iommu_type1", "vfio_pci"])
    }

    /// A raw disk, `/dev/vda` and so on.
    #[must_use]
    pub fn disk(mut self, image: &Path) -> Self {
        self.disks.push(image.to_owned());
        self
    }

    /// A TPM 2.0: the control socket of a swtpm, and its process.
    #[must_use]
    pub fn tpm(mut self, socket: &Path, process: u32) -> Self {
        self.tpm = Some((socket.to_owned(), process));
        self
    }

    /// More words for the kernel's command line.
    #[must_use]
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline.push(' ');
        self.cmdline.push_str(words);
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Places for memory that comes later, see [`Guest::add_memory`]: how many, and how many MiB in all.
    #[must_use]
    pub fn room_for_memory(mut self, slots: u32, mib: u32) -> Self {
        self.more_memory = Some((slots, mib));
        self
    }

    /// Processors.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// A vsock device. The guest is CID 3.
    #[must_use]
    pub fn vsock(mut self) -> Self {
        self.vsock = true;
        self
    }

    /// A directory of the host, read and written on both sides, on `/out`.
    #[must_use]
    pub fn share(mut self, directory: &Path) -> Self {
        self.share = Some(directory.to_owned());
        self.plan.share = true;
        self
    }

    /// Who is process 1.
    #[must_use]
    pub fn init(mut self, init: Init) -> Self {
        self.plan.init = init;
        self
    }

    /// What `vm-init` does, to be changed.
    #[must_use]
    pub fn plan(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    /// More arguments of QEMU, behind all others.
    #[must_use]
    pub fn qemu(mut self, arguments: &[&str]) -> Self {
        self.extra.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Another process that the machine needs: when it ends, so does the machine.
    #[must_use]
    pub fn watch(mut self, name: &str, process: u32) -> Self {
        self.watched.push((name.to_owned(), process));
        self
    }

    /// How long the guest may live; after it the machine is ended.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long it may take until commands are accepted.
    #[must_use]
    pub fn boot_timeout(mut self, timeout: Duration) -> Self {
        self.boot_timeout = timeout;
        self
    }

    /// Keeps the serial log there at the end.
    #[must_use]
    pub fn keep_serial(mut self, file: &Path) -> Self {
        self.serial_copy = Some(file.to_owned());
        self
    }

    /// Boots, and waits until commands are accepted.
    ///
    /// # Errors
    ///
    /// What is missing; a back end that died; a guest that was not ready in time, with the end of its serial log.
    pub fn boot(mut self, tools: &Tools) -> anyhow::Result<Guest> {
        for (index, chip) in self.chips.iter().enumerate() {
            if let Some(process) = chip.process {
                self.watched.push((format!("chip{index}"), process));
            }
        }
        if let Some((_, process)) = &self.tpm {
            self.watched.push(("tpm".to_owned(), *process));
        }
        for _ in 1..BOOTS {
            match self.boot_once(tools) {
                Err(error) if format!("{error:#}").contains(KERNEL_FAULT) => {
                    eprintln!(
                        "the guest's kernel fell over before its first program, and is booted again: {error:#}"
                    );
                }
                outcome => return outcome,
            }
        }
        self.boot_once(tools)
    }

    fn boot_once(&self, tools: &Tools) -> anyhow::Result<Guest> {
        let work = tempfile::Builder::new().prefix("ik-vm-").tempdir().context("make a scratch directory")?;
        self.write_initramfs(tools, &work.path().join("initramfs"))?;
        let mut backends = Vec::new();
        if self.vsock {
            backends.push(backend::vsock(tools, work.path())?);
        }
        if let Some(directory) = &self.share {
            backends.push(backend::share(tools, work.path(), directory)?);
        }
        let qemu = self.command(tools, work.path());
        guest::start(self, qemu, backends, work)
    }

    /// As `depmod` leaves them.
    fn offer_modules(&self, tools: &Tools, archive: &mut Initramfs) -> anyhow::Result<()> {
        if self.offered.is_empty() {
            return Ok(());
        }
        let directory = format!("/lib/modules/{}", tools.manifest.kernel);
        let mut needs = String::new();
        for wanted in &self.offered {
            let closure = tools.modules.closure(std::slice::from_ref(wanted))?;
            let Some((module, before)) = closure.split_last() else { continue };
            let before: Vec<_> = before.iter().rev().map(|module| format!("{}.ko", module.name)).collect();
            needs.push_str(&format!("{}.ko: {}\n", module.name, before.join(" ")));
            for module in &closure {
                let bytes =
                    std::fs::read(&module.file).with_context(|| format!("read {}", module.file.display()))?;
                archive.file(&format!("{directory}/{}.ko", module.name), 0o644, &bytes)?;
            }
        }
        archive.directory("/sbin")?;
        archive.link("/sbin/modprobe", "/bin/busybox")?;
        archive.file(&format!("{directory}/modules.dep"), 0o644, needs.as_bytes())
    }

    fn write_initramfs(&self, tools: &Tools, path: &Path) -> anyhow::Result<()> {
        let mut archive = Initramfs::create(path)?;
        let mut plan = self.plan.clone();
        let read = |file: &Path| std::fs::read(file).with_context(|| format!("read {}", file.display()));
        archive.file("/bin/busybox", 0o755, &read(&tools.busybox())?)?;
        for applet in APPLETS {
            archive.link(&format!("/bin/{applet}"), "busybox")?;
        }
        archive.file("/init", 0o755, &read(&self.programs.stripped("vm-init")?)?)?;
        for module in tools.modules.closure(&self.modules)? {
            let path = format!("/lib/modules/{}.ko", module.name);
            archive.file(&path, 0o644, &read(&module.file)?)?;
            plan.modules.push(path);
        }
        self.offer_modules(tools, &mut archive)?;
        archive.file("/etc/vm-init.json", 0o644, &serde_json::to_vec(&plan)?)?;
        for (to, mode, source) in &self.files {
            match source {
                Source::Host(file) => archive.file(to, *mode, &read(file)?)?,
                Source::Bytes(bytes) => archive.file(to, *mode, bytes)?,
            }
        }
        archive.finish()
    }
}

/// What the kernel says when it itself, and no program of the guest, has done something forbidden. Under emulation it does so once in some
/// hundred boots, where it alters its own code as another processor runs it: a defect of the emulator, which no test is about.
const KERNEL_FAULT: &str = "Kernel panic - not syncing: Fatal exception";
/// How often a guest is booted that ends so before it accepts a command.
const BOOTS: usize = 3;

/// What tests and people call in the guest.
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "dmesg",
    "echo",
    "env",
    "false",
    "find",
    "free",
    "grep",
    "head",
    "hostname",
    "id",
    "insmod",
    "kill",
    "ln",
    "ls",
    "lsmod",
    "lspci",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "nsenter",
    "od",
    "ping",
    "poweroff",
    "ps",
    "readlink",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "umount",
    "uname",
    "wc",
    "xargs",
];
