//! What users do today, and the programs of this project as whole processes: prepared once, then timed one at a time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use protected_memory::confine::enter_private_namespaces;
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

use super::store::{Made, TAG, plaintext, read_through};

/// A program whose run is timed from start to end, with a fresh tmpfs of huge pages to write to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ToolJob {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// What it reads.
    pub(crate) source: PathBuf,
    /// Directory that the tmpfs covers; the program writes into it.
    pub(crate) room: PathBuf,
    pub(crate) size: u64,
    pub(crate) gnupg_home: PathBuf,
}

/// Runs the program in a process with namespaces of its own; returns seconds.
pub(crate) fn run(job: &ToolJob) -> anyhow::Result<f64> {
    let _namespaces = enter_private_namespaces()?;
    let options = format!("huge=always,size={}", job.size + (64 << 20));
    let options = std::ffi::CString::new(options)?;
    mount(
        "innerkeep-bench",
        &job.room,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(options.as_c_str()),
    )
    .context("mount of a tmpfs")?;
    // As for a landing: a virtual machine's room is touched once.
    let warm = job.room.join("warm");
    let mut file = fs::File::create(&warm)?;
    let piece = vec![1; 1 << 20];
    for _ in 0..job.size >> 20 {
        file.write_all(&piece)?;
    }
    drop(file);
    fs::remove_file(&warm)?;
    read_through(&fs::File::open(&job.source)?)?;
    let mut command = Command::new(&job.program);
    command.args(&job.arguments).env("GNUPGHOME", &job.gnupg_home);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output().with_context(|| job.program.clone())?;
    let seconds = start.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("{}: {}: {}", job.program, output.status, String::from_utf8_lossy(&output.stderr));
    }
    let written = fs::metadata(job.room.join("out"))?.len();
    anyhow::ensure!(written == job.size, "{}: {written} bytes instead of {}", job.program, job.size);
    Ok(seconds)
}

/// Other programs with their encrypted files.
#[derive(Debug)]
pub(crate) struct Tools {
    /// Jobs by name.
    pub(crate) jobs: Vec<(&'static str, ToolJob)>,
    /// Programs that are not there, and why.
    pub(crate) skipped: Vec<(&'static str, String)>,
}

impl Tools {
    /// Encrypts `size` bytes for each program that is installed.
    pub(crate) fn prepare(directory: &Path, size: u64) -> anyhow::Result<Self> {
        let room = directory.join("room");
        let gnupg_home = directory.join("gnupg");
        fs::create_dir_all(&room)?;
        fs::create_dir_all(&gnupg_home)?;
        fs::set_permissions(&gnupg_home, fs::Permissions::from_mode(0o700))?;
        let plain = directory.join("plain");
        write_plaintext(&plain, size)?;
        let mut tools = Self { jobs: Vec::new(), skipped: Vec::new() };
        let text = |path: &Path| path.display().to_string();
        let (plain, out) = (text(&plain), text(&room.join("out")));
        let job = |program: &str, source: &str, arguments: &[&str]| ToolJob {
            source: source.into(),
            program: program.to_owned(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            room: room.clone(),
            size,
            gnupg_home: gnupg_home.clone(),
        };
        tools.jobs.push(("cp", job("cp", &plain, &[&plain, &out])));
        let (key, sealed) = (text(&directory.join("age.key")), text(&directory.join("plain.age")));
        let made = prepare("age-keygen", &["-o", &key], &gnupg_home).and_then(|()| {
            let public = fs::read_to_string(&key)?;
            let public = public.lines().find_map(|line| line.strip_prefix("# public key: "));
            let public = public.context("age-keygen printed no public key")?.to_owned();
            prepare("age", &["-r", &public, "-o", &sealed, &plain], &gnupg_home)
        });
        tools.enter("age -d", made, job("age", &sealed, &["-d", "-i", &key, "-o", &out, &sealed]));
        let sealed = text(&directory.join("plain.ctr"));
        let (key, iv) = ("5a".repeat(32), "a5".repeat(16));
        let options = ["enc", "-aes-256-ctr", "-K", &key, "-iv", &iv];
        let made =
            prepare("openssl", &[&options[..], &["-in", &plain, "-out", &sealed]].concat(), &gnupg_home);
        let open = [&options[..], &["-d", "-in", &sealed, "-out", &out]].concat();
        tools.enter("openssl enc -d -aes-256-ctr", made, job("openssl", &sealed, &open));
        let sealed = text(&directory.join("plain.gpg"));
        let options = ["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "bench"];
        let seal = ["--symmetric", "--cipher-algo", "AES256", "-z", "0", "-o", &sealed, &plain];
        let made = prepare("gpg", &[&options[..], &seal].concat(), &gnupg_home);
        tools.enter(
            "gpg -d",
            made,
            job("gpg", &sealed, &[&options[..], &["-o", &out, "-d", &sealed]].concat()),
        );
        Ok(tools)
    }

    fn enter(&mut self, name: &'static str, made: anyhow::Result<()>, job: ToolJob) {
        match made {
            Ok(()) => self.jobs.push((name, job)),
            Err(error) => self.skipped.push((name, format!("{error:#}"))),
        }
    }
}

fn prepare(program: &str, arguments: &[&str], gnupg_home: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).env("GNUPGHOME", gnupg_home).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("{program} is not installed"))?;
    if !output.status.success() {
        bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn write_plaintext(path: &Path, size: u64) -> anyhow::Result<()> {
    let mut file = fs::File::create(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        plaintext(offset, &mut buffer);
        let piece = usize::try_from(size - offset).unwrap_or(usize::MAX).min(buffer.len());
        file.write_all(buffer.get(..piece).unwrap_or_default())?;
        offset += piece as u64;
    }
    file.sync_all()?;
    Ok(())
}

/// An emulated chip, and artifacts that are granted to it.
#[derive(Debug)]
pub(crate) struct Chip {
    emulator: Child,
    directory: PathBuf,
    programs: PathBuf,
}

impl Chip {
    /// Starts and provisions a chip.
    pub(crate) fn start(directory: &Path) -> anyhow::Result<Self> {
        let programs = std::env::current_exe()?.parent().context("no directory of programs")?.to_owned();
        fs::create_dir_all(directory)?;
        let mut emulator = Command::new(programs.join("innerkeep-chip-emulator"))
            .arg("--socket")
            .arg(directory.join("chip.sock"))
            .arg("--state")
            .arg(directory.join("chip"))
            .args(["--insecure-no-evidence", "--insecure-emulated-dma"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("innerkeep-chip-emulator")?;
        let mut line = String::new();
        BufReader::new(emulator.stdout.take().context("no output")?).read_line(&mut line)?;
        let chip = Self { emulator, directory: directory.to_owned(), programs };
        anyhow::ensure!(line.trim() == "ready", "the chip emulator did not start: {line:?}");
        chip.innerkeep(&[
            "chip",
            "provision",
            "--chip",
            &chip.at("chip.sock"),
            "--ca",
            &chip.at("ca"),
            "--environment",
            "bench",
        ])?;
        let (socket, root, chain) = (chip.at("chip.sock"), chip.at("ca/root.pem"), chip.at("chip.pem"));
        chip.innerkeep(&["chip", "info", "--chip", &socket, "--chip-root", &root, "--chain-out", &chain])?;
        let policy =
            "environment = { exactly = \"bench\" }\nfamily = \"any\"\nlink_mode = \"any\"\nmin_counter = 1\n";
        fs::write(chip.at("policy.toml"), policy)?;
        Ok(chip)
    }

    fn at(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn innerkeep(&self, arguments: &[&str]) -> anyhow::Result<()> {
        prepare(&self.programs.join("innerkeep").display().to_string(), arguments, &self.directory)
    }

    /// Grants an artifact to the chip.
    pub(crate) fn grant(&self, made: &Made, core: &str) -> anyhow::Result<()> {
        let key = self.at("content.key");
        let _ = fs::remove_file(&key);
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&key)?;
        write!(file, "innerkeep content key v1\ncore {core}\nkey {}\n", made.key)?;
        let reference = format!("{}:{TAG}", made.path.display());
        let (to, root, policy) =
            (format!("chip:{}", self.at("chip.pem")), self.at("ca/root.pem"), self.at("policy.toml"));
        let mut arguments = vec!["grant", "add", &reference, "--key", &key, "--to", &to];
        arguments.extend(["--chip-root", &root, "--policy", &policy, "--allow-weak-policy"]);
        self.innerkeep(&arguments)
    }

    /// Unseals: seconds of the landing as the command says, and of the whole process.
    pub(crate) fn unseal(
        &self,
        made: &Made,
        core: &str,
        path: &str,
        threads: usize,
    ) -> anyhow::Result<(f64, f64)> {
        let mut command = Command::new(self.programs.join("innerkeep"));
        command.args([
            "--json",
            "--quiet",
            "unseal",
            &format!("{}:{TAG}", made.path.display()),
            "--core",
            core,
        ]);
        command.args([
            "--chip",
            &self.at("chip.sock"),
            "--chip-root",
            &self.at("ca/root.pem"),
            "--path",
            path,
        ]);
        command.args([
            "--threads",
            &threads.to_string(),
            "--insecure-no-tee",
            "--insecure-no-evidence",
            "--insecure-swap",
        ]);
        // The emulator was started with it, whatever path is taken.
        command.arg("--insecure-emulated-dma");
        command.args(["--", "true"]).stdin(Stdio::null());
        let start = Instant::now();
        let output = command.output().context("innerkeep")?;
        let wall = start.elapsed().as_secs_f64();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "innerkeep unseal --path {path}: {}: {said}", output.status);
        let report = said.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let landing = report.and_then(|report| report.get("seconds")?.as_f64());
        Ok((landing.with_context(|| format!("no `seconds` in {said}"))?, wall))
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}
