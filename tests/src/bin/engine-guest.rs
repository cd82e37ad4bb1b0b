//! The container engine in a guest: `engine-guest` runs every check and prints `ok NAME` or `failed NAME: why` for each;
//! `engine-guest sleep` is what a hostile image makes of the program itself.
//!
//! It needs a control group hierarchy of version 2 on `/sys/fs/cgroup`, all privileges, and busybox at `/bin/busybox`, or where
//! `ENGINE_GUEST_BUSYBOX` says. It changes the machine: containers, and at the end the zygote is killed.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test program")]

use agent::engine::{CreateOrder, Created, Engine, EngineError, ExecOrder, Places, SecretVariable, Stdio};
use agent::log::{Level, Log};
use agent::reaper::{Ended, Reaper};
use agent::spec::{Access, DeviceKind, DeviceRule, Facts, Prepared, prepare, prepare_process};
use agent::zygote::{Nursery, Zygote};
use anyhow::{Context, Result, anyhow, bail, ensure};
use protocol::ids::ContainerId;
use protocol::oci::{Hook, Hooks, LinuxSeccomp, LinuxSyscall, Process, Spec, User};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tests::agent_client::requests::{oci_spec, process};

const STATE: &str = "/run/engine-guest/containers";
const BUNDLES: &str = "/run/engine-guest/bundles";
const CGROUP: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let mut arguments = std::env::args();
    match arguments.next().as_deref() {
        // What the zygote is a copy of.
        Some("innerkeep-zygote") => std::process::exit(agent::run()),
        _ if arguments.next().as_deref() == Some("sleep") => std::thread::sleep(Duration::from_secs(60)),
        _ => std::process::exit(checks()),
    }
}

fn checks() -> i32 {
    fs::create_dir_all(BUNDLES).expect("a directory");
    let zygote = Zygote::start().expect("a zygote");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let log = Log::console();
        log.set_level(Level::Critical);
        let reaper = Arc::new(Reaper::start(&log).expect("a reaper"));
        let nursery = Arc::new(zygote.watch().expect("a nursery"));
        let places = |deadline| Places {
            state: STATE.into(),
            deadline: Duration::from_secs(deadline),
            ..Places::default()
        };
        let make = |deadline| {
            Engine::new(Arc::clone(&nursery), Arc::clone(&reaper), &log, places(deadline)).expect("an engine")
        };
        let (engine, hasty) = (make(30), make(2));
        let mut failed = 0;
        let mut told = |name: &str, outcome: Result<()>| match outcome {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                failed += 1;
                println!("failed {name}: {error:#}");
            }
        };
        macro_rules! check {
            ($($name:ident($($argument:expr),*)),* $(,)?) => {
                $(
                    let outcome = match tokio::time::timeout(PATIENCE * 2, $name($($argument),*)).await {
                        Ok(outcome) => outcome,
                        Err(_) => Err(anyhow!("it does not end")),
                    };
                    told(stringify!($name), outcome.and_then(|()| nothing_left()));
                )*
            };
        }
        check!(
            a_container_runs_as_ordered(&engine),
            the_first_process_waits_for_start(&engine),
            processes_join_under_the_same_rules(&engine),
            terminals_are_the_containers_own(&engine),
            users_have_their_groups_and_no_others(&engine),
            privileges_without_no_new_privs(&engine),
            devices_are_what_the_rules_say(&engine),
            missing_programs_are_told(&engine),
            a_failed_create_leaves_nothing(&engine),
            a_hook_that_hangs_is_ended(&hasty),
            a_helper_that_dies_leaves_nothing(&engine),
            evil_hook_loads_a_module(&engine),
            many_processes_leave_nothing(&engine),
            secrets_come_with_the_release_alone(&engine),
            evil_image_workdir_is_a_leaked_fd(&engine),
            evil_image_null_is_a_link(&engine),
            evil_image_console_is_a_link(&engine),
            evil_image_overwrites_the_agent(&engine),
            evil_host_takes_the_id_of_a_container(&engine),
            evil_host_takes_the_group_of_others(&engine),
        );
        told("evil_guest_kills_the_zygote", evil_guest_kills_the_zygote(&engine, &nursery).await);
        failed
    })
}

/// After each check: no control group, no state, no process of a container.
fn nothing_left() -> Result<()> {
    let state: Vec<_> = fs::read_dir(STATE)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(state.is_empty(), "left in {STATE}: {state:?}");
    ensure!(!Path::new(CGROUP).join("kubepods").exists(), "control groups are left");
    // Those of helpers go a moment after them.
    let pens = || fs::read_dir(Path::new(CGROUP).join("innerkeep")).into_iter().flatten().flatten();
    let until = std::time::Instant::now() + PATIENCE;
    while pens().any(|entry| entry.path().is_dir()) {
        ensure!(std::time::Instant::now() < until, "control groups of helpers are left");
        std::thread::sleep(Duration::from_millis(5));
    }
    let helpers = processes_called("container-helpe");
    ensure!(helpers.is_empty(), "helpers are left: {helpers:?}");
    let own = fs::read_to_string("/proc/self/mountinfo")?;
    let leaked: Vec<_> = own.lines().filter(|line| line.contains(BUNDLES)).collect();
    ensure!(leaked.is_empty(), "mounts are left: {leaked:?}");
    Ok(())
}

fn processes_called(name: &str) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim() == name))
        .collect()
}

/// A bundle with a root that has busybox, and what a runtime would send for it.
struct Bundle {
    id: ContainerId,
    path: PathBuf,
    spec: Spec,
}

impl Bundle {
    fn new(id: &str, line: &str) -> Result<Self> {
        let path = Path::new(BUNDLES).join(id);
        let _ = fs::remove_dir_all(&path);
        let root = path.join("rootfs");
        for directory in ["bin", "proc", "sys", "dev", "tmp", "etc", "root"] {
            fs::create_dir_all(root.join(directory))?;
        }
        let busybox = std::env::var("ENGINE_GUEST_BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
        fs::copy(&busybox, root.join("bin/busybox")).context(busybox)?;
        for name in [
            "sh", "cat", "id", "sleep", "ls", "mknod", "echo", "true", "pwd", "tty", "stty", "head", "kill",
            "grep",
        ] {
            symlink("busybox", root.join("bin").join(name))?;
        }
        let spec = oci_spec(id, &root.to_string_lossy(), &["/bin/sh", "-c", line]);
        Ok(Self { id: ContainerId::parse(id).map_err(|error| anyhow!("{error}"))?, path, spec })
    }

    fn root(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    fn process(&mut self) -> &mut Process {
        self.spec.Process.as_mut().expect("a process")
    }

    fn prepared(&self) -> Result<Prepared> {
        let facts = Facts::new(self.id.clone(), self.path.clone(), false);
        prepare(&self.spec, &facts).map_err(|error| anyhow!("prepare: {} {error}", error.code()))
    }

    fn order(&self, stdio: Stdio) -> Result<CreateOrder> {
        Ok(CreateOrder { id: self.id.clone(), bundle: self.path.clone(), prepared: self.prepared()?, stdio })
    }

    async fn create(&self, engine: &Engine) -> Result<(Created, Output)> {
        let (stdio, output) = pipes()?;
        Ok((engine.create(self.order(stdio)?).await.map_err(told)?, output))
    }

    /// Creates, starts, waits, deletes: how it ended, and what it wrote.
    async fn run(&self, engine: &Engine) -> Result<(Ended, String)> {
        let (created, output) = self.create(engine).await?;
        engine.start(&self.id).await.map_err(told)?;
        let ended = ended(created).await?;
        engine.delete(&self.id).await.map_err(told)?;
        Ok((ended, output.text()?))
    }

    async fn exec(&self, engine: &Engine, process: &Process) -> Result<(Ended, String)> {
        let (stdio, output) = pipes()?;
        let created = engine.exec(self.exec_order(process, stdio)?).await.map_err(told)?;
        Ok((ended(created).await?, output.text()?))
    }

    fn exec_order(&self, process: &Process, stdio: Stdio) -> Result<ExecOrder> {
        let process =
            prepare_process(process, &self.prepared()?).map_err(|error| anyhow!("prepare: {error}"))?;
        Ok(ExecOrder { id: self.id.clone(), process, stdio })
    }
}

fn told(error: EngineError) -> anyhow::Error {
    let code = error.code();
    anyhow::Error::new(error).context(code)
}

fn shown(error: anyhow::Error) -> String {
    format!("{error:#}")
}

async fn ended(created: Created) -> Result<Ended> {
    tokio::time::timeout(PATIENCE, created.process).await.context("it does not end")?.context("no reaper")
}

/// What a process writes, to both streams.
struct Output(fs::File);

impl Output {
    fn text(mut self) -> Result<String> {
        let mut text = String::new();
        self.0.read_to_string(&mut text)?;
        Ok(text)
    }
}

fn pipes() -> Result<(Stdio, Output)> {
    let (reader, writer) = std::io::pipe()?;
    let stdin: OwnedFd = fs::File::open("/dev/null")?.into();
    let stderr = writer.try_clone()?.into();
    let output = Output(fs::File::from(OwnedFd::from(reader)));
    Ok((Stdio::Pipes { stdin, stdout: writer.into(), stderr }, output))
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
}

/// A filter that refuses one system call, as profiles do.
fn without_chmod() -> LinuxSeccomp {
    let call = LinuxSyscall {
        Names: ["chmod", "fchmod", "fchmodat"].map(ToOwned::to_owned).to_vec(),
        Action: "SCMP_ACT_ERRNO".to_owned(),
        ..LinuxSyscall::default()
    };
    LinuxSeccomp {
        DefaultAction: "SCMP_ACT_ALLOW".to_owned(),
        Architectures: vec!["SCMP_ARCH_X86_64".to_owned()],
        Syscalls: vec![call],
        ..LinuxSeccomp::default()
    }
}

fn set_seccomp(bundle: &mut Bundle) {
    bundle.spec.Linux.as_mut().expect("linux").Seccomp = Some(without_chmod()).into();
}

const KEPT: &str = "00000000a80425fb";

fn expect_confined(status: &str) -> Result<()> {
    for (name, wanted) in [
        ("Seccomp", "2"),
        ("NoNewPrivs", "1"),
        ("CapEff", KEPT),
        ("CapBnd", KEPT),
        ("CapPrm", KEPT),
        ("CapInh", "0000000000000000"),
    ] {
        ensure!(
            field(status, name) == wanted,
            "{name} is {:?}, not {wanted}, in:\n{status}",
            field(status, name)
        );
    }
    Ok(())
}

async fn a_container_runs_as_ordered(engine: &Engine) -> Result<()> {
    let line = "cat /proc/self/status; echo group $(cat /proc/self/cgroup); ls /proc/self/fd; \
                busybox chmod 600 /bin/busybox && echo CHMOD; exit 7";
    let mut bundle = Bundle::new("ordered", line)?;
    set_seccomp(&mut bundle);
    let (ended, text) = bundle.run(engine).await?;
    ensure!(ended == Ended::Exited(7), "{ended:?}: {text}");
    expect_confined(&text)?;
    ensure!(!text.contains("CHMOD") && text.contains("not permitted"), "{text}");
    // Standard streams, and the directory that `ls` reads.
    let descriptors: BTreeSet<_> = text.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    ensure!(descriptors == BTreeSet::from(["0", "1", "2", "3"]), "descriptors {descriptors:?}");
    ensure!(fs::metadata(STATE)?.permissions().mode() & 0o777 == 0o700, "mode of the state");
    ensure!(!bundle.path.join("config.json").exists(), "config.json is left");
    Ok(())
}

async fn the_first_process_waits_for_start(engine: &Engine) -> Result<()> {
    let bundle = Bundle::new("waiting", "echo ran > /tmp/ran; exec sleep 100")?;
    let (created, _output) = bundle.create(engine).await?;
    let group = format!("{CGROUP}/kubepods/besteffort/pod1/waiting/cgroup.procs");
    ensure!(fs::read_to_string(&group)?.trim() == created.pid.to_string(), "it is not in its group");
    tokio::time::sleep(Duration::from_millis(200)).await;
    ensure!(!bundle.root().join("tmp/ran").exists(), "it ran before start");
    let exec =
        bundle.exec(engine, &process(&["true"])).await.err().map(shown).context("exec before start")?;
    ensure!(exec.starts_with("ENGINE_STATE"), "{exec}");
    engine.start(&bundle.id).await.map_err(told)?;
    let again = engine.start(&bundle.id).await.err().map(|error| error.code());
    ensure!(again == Some("ENGINE_STATE"), "{again:?}");
    while !bundle.root().join("tmp/ran").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Killed by whoever takes it away; the status is there all the same.
    engine.delete(&bundle.id).await.map_err(told)?;
    ensure!(ended(created).await? == Ended::Killed(9), "its status");
    let gone = engine.start(&bundle.id).await.err().map(|error| error.code());
    ensure!(gone == Some("ENGINE_MISSING"), "{gone:?}");
    Ok(())
}

async fn processes_join_under_the_same_rules(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("joined", "exec sleep 100")?;
    set_seccomp(&mut bundle);
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let line = "cat /proc/self/status; cat /proc/self/cgroup; ls /proc/self/fd; busybox chmod 600 /bin/busybox && echo CHMOD; exit 5";
    let (ended, text) = bundle.exec(engine, &process(&["sh", "-c", line])).await?;
    ensure!(ended == Ended::Exited(5), "{ended:?}: {text}");
    expect_confined(&text)?;
    ensure!(!text.contains("CHMOD"), "{text}");
    // The program is for its owner alone: root, here.
    let own = bundle.root().join("opt/echo");
    fs::create_dir_all(bundle.root().join("opt"))?;
    fs::copy(bundle.root().join("bin/busybox"), &own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    let (ended, text) = bundle.exec(engine, &process(&["/opt/echo", "mine"])).await?;
    ensure!((ended, text.as_str()) == (Ended::Exited(0), "mine\n"), "{ended:?} {text}");
    engine.delete(&bundle.id).await.map_err(told)
}

/// The process has the value; no file of the bundle or the state has it, and a variable that nobody ordered stops it.
async fn secrets_come_with_the_release_alone(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("secrets", "echo \"$KEY,$OTHER\"; sleep 1")?;
    bundle.process().Env.extend(["KEY=sealed.x".to_owned(), "OTHER=plain".to_owned()]);
    let secret = |name: &str| SecretVariable::new(name, "hunter2=and more").context("no value");
    let (created, output) = bundle.create(engine).await?;
    engine.start_with(&bundle.id, &[secret("KEY")?]).await.map_err(told)?;
    let state = Path::new(STATE).join(bundle.id.as_str());
    for directory in [bundle.path.as_path(), state.as_path()] {
        for entry in fs::read_dir(directory)?.flatten().filter(|entry| entry.path().is_file()) {
            let bytes = fs::read(entry.path())?;
            ensure!(!bytes.windows(7).any(|part| part == b"hunter2"), "{}", entry.path().display());
        }
    }
    ensure!(ended(created).await? == Ended::Exited(0), "it did not end well");
    engine.delete(&bundle.id).await.map_err(told)?;
    let text = output.text()?;
    ensure!(text == "hunter2=and more,plain\n", "{text}");
    let (_created, output) = bundle.create(engine).await?;
    let started = engine.start_with(&bundle.id, &[secret("LD_PRELOAD")?]).await;
    let code = started.err().map(|error| error.code());
    ensure!(code == Some("ENGINE_SYSTEM"), "{code:?}");
    engine.delete(&bundle.id).await.map_err(told)?;
    ensure!(output.text()?.is_empty(), "its program ran");
    Ok(())
}

async fn terminals_are_the_containers_own(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("terminal", "tty; exec sleep 100")?;
    bundle.process().Terminal = true;
    let created = engine.create(bundle.order(Stdio::Terminal)?).await.map_err(told)?;
    let master = created.terminal.as_ref().context("no terminal")?.try_clone()?;
    engine.start(&bundle.id).await.map_err(told)?;
    ensure!(read_some(master).await?.starts_with("/dev/"), "no name of a terminal");
    let mut joining = process(&["tty"]);
    joining.Terminal = true;
    let order = bundle.exec_order(&joining, Stdio::Terminal)?;
    let joined = engine.exec(order).await.map_err(told)?;
    let master = joined.terminal.as_ref().context("no terminal")?.try_clone()?;
    ensure!(read_some(master).await?.starts_with("/dev/pts/"), "no name of a terminal");
    ensure!(ended(joined).await? == Ended::Exited(0), "tty");
    // Streams of the wrong kind.
    let (stdio, _output) = pipes()?;
    let wrong = engine.exec(bundle.exec_order(&joining, stdio)?).await.err().map(|error| error.code());
    ensure!(wrong == Some("ENGINE_ORDER"), "{wrong:?}");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn read_some(master: OwnedFd) -> Result<String> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 256];
        let length = fs::File::from(master).read(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes[..length]).into_owned())
    });
    Ok(tokio::time::timeout(PATIENCE, read).await???)
}

async fn users_have_their_groups_and_no_others(engine: &Engine) -> Result<()> {
    let user =
        |groups: &[u32]| User { UID: 1000, GID: 1001, AdditionalGids: groups.to_vec(), ..User::default() };
    for (groups, shown) in [(&[][..], ""), (&[7, 3], "3 7")] {
        let mut bundle = Bundle::new("user", "cat /proc/self/status")?;
        bundle.process().User = Some(user(groups)).into();
        let (ended, text) = bundle.run(engine).await?;
        ensure!(ended == Ended::Exited(0), "{text}");
        ensure!(field(&text, "Uid") == "1000\t1000\t1000\t1000" && field(&text, "Groups") == shown, "{text}");
        ensure!(field(&text, "CapEff") == "0000000000000000" && field(&text, "CapBnd") == KEPT, "{text}");
    }
    Ok(())
}

async fn privileges_without_no_new_privs(engine: &Engine) -> Result<()> {
    for uid in [0, 1000] {
        let mut bundle =
            Bundle::new("privileges", "cat /proc/self/status; busybox chmod 600 /bin/busybox && echo CHMOD")?;
        set_seccomp(&mut bundle);
        bundle.process().NoNewPrivileges = false;
        bundle.process().User = Some(User { UID: uid, GID: uid, ..User::default() }).into();
        let (_, text) = bundle.run(engine).await?;
        ensure!(field(&text, "Seccomp") == "2" && field(&text, "NoNewPrivs") == "0", "{uid}: {text}");
        ensure!(!text.contains("CHMOD"), "{text}");
    }
    Ok(())
}

async fn devices_are_what_the_rules_say(engine: &Engine) -> Result<()> {
    let bundle = Bundle::new("devices", "exec sleep 100")?;
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bundle.root().join("tmp/kmsg"),
        kind,
        mode,
        rustix::fs::makedev(1, 11),
    )?;
    let line = "mknod /tmp/mem c 1 1 && echo MADE; head -c 1 /tmp/kmsg > /dev/null && echo KMSG; \
                head -c 1 /dev/zero > /dev/null && echo zero";
    let (_, text) = bundle.exec(engine, &process(&["sh", "-c", line])).await?;
    ensure!(!text.contains("MADE") && !text.contains("KMSG") && text.contains("zero\n"), "{text}");
    // Replaced while it runs: now only this one.
    let only = DeviceRule {
        allow: true,
        kind: DeviceKind::Character,
        major: Some(1),
        minor: Some(3),
        access: Access::ALL,
    };
    engine.set_device_rules(&bundle.id, &[only]).map_err(told)?;
    let (_, text) = bundle.exec(engine, &process(&["sh", "-c", line])).await?;
    ensure!(!text.contains("zero\n") && !text.contains("KMSG"), "{text}");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn missing_programs_are_told(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("missing", "")?;
    bundle.process().Args = vec!["/no/such/program".to_owned(), "--password=secret".to_owned()];
    let (created, _output) = bundle.create(engine).await?;
    let error = engine.start(&bundle.id).await.err().context("it started")?;
    ensure!(error.code() == "ENGINE_PROGRAM" && error.to_string().contains("No such file"), "{error}");
    ensure!(!error.to_string().contains("secret"), "{error}");
    let _ = ended(created).await?;
    engine.delete(&bundle.id).await.map_err(told)?;

    let bundle = Bundle::new("present", "exec sleep 100")?;
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    for (program, text) in
        [("nothing", "No such file"), ("/etc", "Permission denied"), ("/bin/..", "Permission denied")]
    {
        let error = bundle.exec(engine, &process(&[program])).await.err().map(shown).context(program)?;
        ensure!(error.starts_with("ENGINE_PROGRAM") && error.contains(text), "{program}: {error}");
    }
    let (ended, _) = bundle.exec(engine, &process(&["true"])).await?;
    ensure!(ended == Ended::Exited(0), "it still works");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn a_failed_create_leaves_nothing(engine: &Engine) -> Result<()> {
    let before = descriptors();
    for number in 0..5 {
        let mut bundle = Bundle::new(&format!("broken{number}"), "true")?;
        let missing = protocol::oci::Mount {
            destination: "/mnt".to_owned(),
            source: "/no/such/source".to_owned(),
            type_: "bind".to_owned(),
            options: vec!["bind".to_owned()],
            ..protocol::oci::Mount::default()
        };
        bundle.spec.Mounts.push(missing);
        let error = bundle.create(engine).await.err().map(shown).context("it was made")?;
        ensure!(error.starts_with("ENGINE_REFUSED"), "{error}");
        nothing_left()?;
        ensure!(!bundle.path.join("config.json").exists(), "config.json is left");
    }
    ensure!(descriptors() == before, "descriptors: {before} before, {} after", descriptors());
    // The same id again.
    Bundle::new("broken0", "true")?.run(engine).await.map(drop)
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").into_iter().flatten().count()
}

/// A hook that is a program of the guest.
fn hook(arguments: &[&str]) -> Hooks {
    let busybox = std::env::var("ENGINE_GUEST_BUSYBOX").unwrap_or_else(|_| "/bin/busybox".to_owned());
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let hook = Hook { Path: busybox, Args: arguments, ..Hook::default() };
    Hooks { CreateRuntime: vec![hook], ..Hooks::default() }
}

async fn a_hook_that_hangs_is_ended(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("hanging", "true")?;
    bundle.spec.Hooks = Some(hook(&["sleep", "4242"])).into();
    let error = bundle.create(engine).await.err().map(shown).context("it was made")?;
    ensure!(error.starts_with("ENGINE_DEADLINE"), "{error}");
    let left = processes_with("4242");
    ensure!(left.is_empty(), "the hook is left: {left:?}");
    Ok(())
}

fn processes_with(argument: &str) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
        })
        .collect()
}

async fn a_helper_that_dies_leaves_nothing(engine: &Engine) -> Result<()> {
    let mut bundle = Bundle::new("dying", "true")?;
    bundle.spec.Hooks = Some(hook(&["sh", "-c", "busybox setsid sleep 4243 & wait"])).into();
    let killer = async {
        loop {
            if !processes_with("4243").is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for helper in processes_called("container-helpe") {
            let helper = rustix::process::Pid::from_raw(helper).context("a number")?;
            rustix::process::kill_process(helper, rustix::process::Signal::KILL)?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (created, killed) = tokio::join!(bundle.create(engine), killer);
    killed?;
    let error = created.err().map(shown).context("it was made")?;
    ensure!(error.starts_with("ENGINE_HELPER"), "{error}");
    // Its leader died before it, and it has a session of its own: it is gone all the same.
    until("the hook of a helper that died", || processes_with("4243").is_empty()).await
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.with_context(|| format!("{what}: still there"))
}

/// A hook has what containers are made with, and no more: no modules, no ports, no clock, no other's memory, and nothing by a program's mode.
async fn evil_hook_loads_a_module(engine: &Engine) -> Result<()> {
    let told = Path::new("/run/engine-guest/hook");
    let line = format!("cat /proc/self/status > {}", told.display());
    let mut bundle = Bundle::new("hooked", "cat /proc/self/status")?;
    bundle.spec.Hooks = Some(hook(&["sh", "-c", &line])).into();
    // What the container is to have it gets.
    let sets = bundle.process().Capabilities.as_mut().context("capabilities")?;
    for set in [&mut sets.Bounding, &mut sets.Effective, &mut sets.Permitted] {
        set.push("CAP_SYS_TIME".to_owned());
    }
    let (ended, text) = bundle.run(engine).await?;
    ensure!(ended == Ended::Exited(0), "{ended:?}: {text}");
    let wide = u64::from_str_radix(KEPT, 16)? | 1 << 25;
    ensure!(field(&text, "CapEff") == format!("{wide:016x}"), "{text}");
    let status = fs::read_to_string(told)?;
    fs::remove_file(told)?;
    ensure!(field(&status, "NoNewPrivs") == "1", "{status}");
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        let found = u64::from_str_radix(field(&status, set), 16)?;
        // Modules, ports, other processes, accounting, the end of the machine, the log, programs in the kernel, figures of it.
        for (number, name) in [
            (16, "SYS_MODULE"),
            (17, "SYS_RAWIO"),
            (19, "SYS_PTRACE"),
            (20, "SYS_PACCT"),
            (22, "SYS_BOOT"),
            (34, "SYSLOG"),
            (38, "PERFMON"),
            (39, "BPF"),
        ] {
            ensure!(found >> number & 1 == 0, "{set} has {name}: {status}");
        }
    }
    let joined = bundle_of_a_user(engine).await?;
    ensure!(joined == Ended::Exited(0), "a process joins one of another user: {joined:?}");
    Ok(())
}

/// A process that joins a container whose first one is another user's.
async fn bundle_of_a_user(engine: &Engine) -> Result<Ended> {
    let mut bundle = Bundle::new("users", "exec sleep 100")?;
    bundle.process().User = Some(User { UID: 1000, GID: 1000, ..User::default() }).into();
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let (ended, _) = bundle.exec(engine, &process(&["true"])).await?;
    engine.delete(&bundle.id).await.map_err(told)?;
    Ok(ended)
}

async fn many_processes_leave_nothing(engine: &Engine) -> Result<()> {
    let bundle = Bundle::new("many", "exec sleep 100")?;
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let warm = bundle.exec(engine, &process(&["true"])).await?;
    ensure!(warm.0 == Ended::Exited(0), "{warm:?}");
    let before = descriptors();
    for number in 0..40 {
        let (ended, _) = bundle.exec(engine, &process(&["sh", "-c", &format!("exit {number}")])).await?;
        ensure!(ended == Ended::Exited(number), "{number}: {ended:?}");
    }
    ensure!(descriptors() == before, "descriptors: {before} before, {} after", descriptors());
    let state: Vec<_> =
        fs::read_dir(Path::new(STATE).join("many"))?.flatten().map(|e| e.file_name()).collect();
    ensure!(!state.iter().any(|name| name.to_string_lossy().starts_with("tenant")), "{state:?}");
    engine.delete(&bundle.id).await.map_err(told)
}

/// CVE-2024-21626: the working directory is a descriptor of the runtime's.
async fn evil_image_workdir_is_a_leaked_fd(engine: &Engine) -> Result<()> {
    let (ended_honestly, text) = Bundle::new("workdir", "busybox pwd -P; ls")?.run(engine).await?;
    ensure!(ended_honestly == Ended::Exited(0) && text.starts_with("/\n"), "{text}");
    for number in 3..24 {
        for path in [format!("/proc/self/fd/{number}"), "/tmp/link".to_owned()] {
            let mut bundle = Bundle::new("workdir", "busybox pwd -P; ls; ls ..; ls ../..")?;
            symlink(format!("/proc/self/fd/{number}"), bundle.root().join("tmp/link"))?;
            bundle.process().Cwd = path.clone();
            // Refused, or inside: never outside.
            if let Ok((created, output)) = bundle.create(engine).await {
                let started = engine.start(&bundle.id).await;
                let _ = ended(created).await?;
                let text = output.text()?;
                ensure!(started.is_err() || text.starts_with('/'), "{path}: {text}");
                ensure!(!text.contains("engine-guest") && !text.contains("kubepods"), "{path}: {text}");
                engine.delete(&bundle.id).await.map_err(told)?;
            }
            nothing_left()?;
        }
    }
    Ok(())
}

/// What attacks on `/proc` would change.
fn switches() -> Result<Vec<String>> {
    let paths = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/hostname"];
    let paths = paths.iter().filter(|path| Path::new(path).exists());
    paths.map(|path| fs::read_to_string(path).context(*path)).collect()
}

/// CVE-2025-31133, CVE-2025-52881: what masks a path is a link of the image's.
async fn evil_image_null_is_a_link(engine: &Engine) -> Result<()> {
    let before = switches()?;
    for target in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"] {
        let line = "echo evil > /proc/kcore; echo evil > /proc/keys; echo evil > /proc/timer_list; echo evil > /proc/sys/kernel/core_pattern";
        let mut bundle = Bundle::new("null", line)?;
        bundle.spec.Mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        symlink(target, bundle.root().join("dev/null"))?;
        // That it is refused is as good.
        if let Ok((created, _output)) = bundle.create(engine).await {
            let _ = engine.start(&bundle.id).await;
            let _ = ended(created).await?;
            engine.delete(&bundle.id).await.map_err(told)?;
        }
        ensure!(switches()? == before, "{target} was written");
        nothing_left()?;
    }
    Ok(())
}

/// CVE-2025-52565: the console is a link of the image's.
async fn evil_image_console_is_a_link(engine: &Engine) -> Result<()> {
    let before = switches()?;
    for (name, target) in [
        ("console", "/proc/sys/kernel/core_pattern"),
        ("ptmx", "/proc/sysrq-trigger"),
        ("pts", "/proc/sys/kernel"),
    ] {
        let line = "echo evil > /dev/console; echo evil > /proc/sys/kernel/core_pattern; ls /dev/pts";
        let mut bundle = Bundle::new("console", line)?;
        bundle.spec.Mounts.retain(|mount| !mount.destination.starts_with("/dev"));
        bundle.process().Terminal = true;
        symlink(target, bundle.root().join("dev").join(name))?;
        if let Ok(created) = engine.create(bundle.order(Stdio::Terminal)?).await {
            let _ = engine.start(&bundle.id).await;
            let _ = ended(created).await?;
            engine.delete(&bundle.id).await.map_err(told)?;
        }
        ensure!(switches()? == before, "{target} was written");
        nothing_left()?;
    }
    Ok(())
}

/// CVE-2019-5736: the image's program is the program that makes containers.
async fn evil_image_overwrites_the_agent(engine: &Engine) -> Result<()> {
    let before = fs::read("/proc/self/exe")?;
    let mut bundle = Bundle::new("overwriting", "")?;
    // A script whose interpreter is whatever executes it: the helper, for a moment.
    let script = bundle.root().join("bin/evil");
    fs::write(&script, "#!/proc/self/exe sleep\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let line = "for p in /proc/[0-9]*; do \
                  if echo evil > $p/exe; then echo WRITTEN; fi; \
                  exec 3< $p/exe || continue; if echo evil > /proc/self/fd/3; then echo WRITTEN; fi; exec 3<&-; \
                done 2>&1; \
                kill -9 $(grep -l exe.sleep /proc/[0-9]*/cmdline 2> /dev/null | cut -d/ -f3) 2> /dev/null; exit 0";
    bundle.process().Args = vec!["/bin/sleep".to_owned(), "100".to_owned()];
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let (stdio, _evil_output) = pipes()?;
    let evil = engine.exec(bundle.exec_order(&process(&["/bin/evil"]), stdio)?).await;
    // A program that needs libraries of the guest's does not even begin in there.
    let ran = evil.is_ok();
    let (_, text) = bundle.exec(engine, &process(&["sh", "-c", line])).await?;
    ensure!(!text.contains("WRITTEN"), "{text}");
    if ran {
        ensure!(text.contains("Read-only file system"), "the mount is not read-only: {text}");
    }
    let direct = bundle.exec(engine, &process(&["/proc/self/exe", "nothing"])).await;
    println!("  as a program of the image: {}, directly: {}", ran, direct.is_ok());
    ensure!(fs::read("/proc/self/exe")? == before, "the program was overwritten");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn evil_host_takes_the_id_of_a_container(engine: &Engine) -> Result<()> {
    let bundle = Bundle::new("taken", "exec sleep 100")?;
    let (_first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let mut other = Bundle {
        id: bundle.id.clone(),
        path: PathBuf::from(BUNDLES).join("other"),
        spec: bundle.spec.clone(),
    };
    fs::create_dir_all(other.root())?;
    other.spec.Linux.as_mut().context("linux")?.CgroupsPath = "/kubepods/other".to_owned();
    let error = other.create(engine).await.err().map(shown).context("it was made")?;
    ensure!(error.starts_with("ENGINE_EXISTS"), "{error}");
    let (ended, _) = bundle.exec(engine, &process(&["true"])).await?;
    ensure!(ended == Ended::Exited(0), "the first one runs on");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn evil_host_takes_the_group_of_others(engine: &Engine) -> Result<()> {
    let bundle = Bundle::new("grouped", "exec sleep 100")?;
    let (first, _output) = bundle.create(engine).await?;
    engine.start(&bundle.id).await.map_err(told)?;
    let mut other = Bundle::new("other", "true")?;
    let group = Path::new(CGROUP).join("kubepods/besteffort/pod1/grouped");
    fs::create_dir(group.join("inner"))?;
    for (path, code) in [
        ("/kubepods/besteffort/pod1/grouped", "CGROUP_TAKEN"),
        ("/kubepods/besteffort/pod1", "CGROUP_TAKEN"),
        ("/kubepods", "CGROUP_TAKEN"),
        // Nobody is in this one, and it is another's all the same.
        ("/kubepods/besteffort/pod1/grouped/inner", "CGROUP_"),
        ("/kubepods/besteffort/pod1/grouped/inner/deeper", "CGROUP_PARENT"),
        ("/kubepods/besteffort/pod1/grouped/new/deeper", "CGROUP_PARENT"),
    ] {
        other.spec.Linux.as_mut().context("linux")?.CgroupsPath = path.to_owned();
        let error = other.create(engine).await.err().map(shown).context("it was made")?;
        ensure!(error.starts_with(code), "{path}: {error}");
    }
    ensure!(!group.join("new").exists() && group.join("inner").exists(), "groups were made or taken away");
    // What it may make in there has an end.
    for (file, most) in [("cgroup.max.descendants", "1024"), ("cgroup.max.depth", "32")] {
        let found = fs::read_to_string(group.join(file))?;
        ensure!(found.trim() == most, "{file} is {found}");
    }
    ensure!(first.process.handle().signal(rustix::process::Signal::CONT).is_ok(), "the first one runs on");
    engine.delete(&bundle.id).await.map_err(told)
}

async fn evil_guest_kills_the_zygote(engine: &Engine, nursery: &Nursery) -> Result<()> {
    let zygote = processes_called("zygote");
    let &[number] = zygote.as_slice() else { bail!("zygotes: {zygote:?}") };
    let process = rustix::process::Pid::from_raw(number).context("a number")?;
    let forever = std::future::pending::<Result<(), agent::AgentError>>();
    let served = nursery.outlive(forever);
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    let error =
        tokio::time::timeout(PATIENCE, served).await.context("nobody noticed")?.err().context("no error")?;
    ensure!(error.code() == "AGENT_ZYGOTE", "{error}");
    let error = Bundle::new("late", "true")?.create(engine).await.err().map(shown).context("it was made")?;
    ensure!(error.starts_with("ENGINE_UNAVAILABLE"), "{error}");
    nothing_left()
}
