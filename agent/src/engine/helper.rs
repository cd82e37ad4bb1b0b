//! The helper's side: one order, carried out by libcontainer, which changes the process that it runs in and must have it for itself.

mod executor;
mod privileges;
mod reader;

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdh::worker::Trade;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Process;

use self::executor::OwnExecutor;
use super::wire::{Answer, Guise, ORDER, Order, Task, sealed_file, undressed};
use crate::error::chain;
use crate::zygote::{receive, receive_any, send};

/// Where libcontainer sends the master of a terminal to, below the container's state.
const CONSOLE: &str = ".console-";
/// What libcontainer leaves behind in a container's state for each process that joins it.
const LEFT: [&str; 2] = ["tenant-notify-", "tenant-tty-"];
const FAILURE: i32 = 1;

/// Why nothing was made.
type Refusal = Box<dyn std::error::Error>;

/// Receives one order, carries it out, and answers. Returns the exit status.
pub(crate) fn run(socket: OwnedFd) -> i32 {
    let carried_out = match receive_order(&socket) {
        Ok((Order { task: Task::Work(trade), .. }, descriptors)) => {
            return work(trade, socket, descriptors);
        }
        Ok((order, descriptors)) => carry_out(order, descriptors),
        Err(error) => Err(error),
    };
    let (answer, terminal) = match carried_out {
        Ok((answer, terminal)) => (answer, terminal),
        Err(error) => (Answer::refused(&chain(error.as_ref())), None),
    };
    let Ok(bytes) = serde_json::to_vec(&answer) else { return FAILURE };
    let descriptors: Vec<_> = terminal.iter().map(|terminal| terminal.as_fd()).collect();
    if send(socket.as_fd(), &bytes, &descriptors).is_err() { FAILURE } else { 0 }
}

/// Has its own way to answer, and neither this socket nor any container.
fn work(trade: Trade, socket: OwnedFd, descriptors: Vec<OwnedFd>) -> i32 {
    drop(socket);
    descriptors.into_iter().next().map_or(FAILURE, |socket| trade.run(socket))
}

fn receive_order(socket: &OwnedFd) -> Result<(Order, Vec<OwnedFd>), Refusal> {
    let frame = receive_any(socket.as_fd(), ORDER.len()).map_err(io::Error::from)?;
    let mut descriptors = frame.descriptors.into_iter();
    let file = descriptors.next().ok_or("an order without a file")?;
    let order = Order::from_file(file)?;
    let rest: Vec<OwnedFd> = descriptors.collect();
    if rest.len() != order.task.descriptors() {
        return Err("an order with other descriptors than it needs".into());
    }
    Ok((order, rest))
}

fn carry_out(order: Order, descriptors: Vec<OwnedFd>) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    // GUARD: helper-privileges -> vm_engine
    privileges::reduce(&order.task)?;
    let root = order.state.join(&order.id);
    match order.task {
        Task::Create { bundle, terminal, guise } => {
            let console = console(&order.state, &order.id, terminal)?;
            let builder = builder(&order.id, &order.state, descriptors, guise, console.as_ref())?;
            let container = builder
                .as_init(bundle)
                .with_systemd(false)
                .as_sibling(true)
                .with_no_pivot(root_is_initramfs()?)
                .with_detach(true)
                .build()?;
            let pid = container.pid().ok_or("a container without a process")?.as_raw();
            Ok((Answer::Made(pid), console.map(Console::master).transpose()?))
        }
        Task::Start => {
            Container::load(root)?.start()?;
            Ok((Answer::Done, None))
        }
        Task::Exec { process, guise } => exec(&order.state, &order.id, &process, guise, descriptors),
        Task::Delete => {
            Container::load(root)?.delete(true)?;
            Ok((Answer::Done, None))
        }
        Task::Ask => {
            let connection = descriptors.into_iter().next().ok_or("an order without a connection")?;
            Ok((Answer::Asked(Box::new(reader::read(connection)?)), None))
        }
        Task::Work(_) => Err("an order of no container".into()),
    }
}

fn exec(
    state: &Path,
    id: &str,
    process: &Process,
    guise: Guise,
    descriptors: Vec<OwnedFd>,
) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    let console = console(state, id, process.terminal() == Some(true))?;
    let builder = builder(id, state, descriptors, guise, console.as_ref())?;
    let process = sealed_file(c"process", &serde_json::to_vec(&undressed(process))?)?;
    let made = builder
        .as_tenant()
        .with_detach(true)
        .as_sibling(true)
        .with_process(Some(format!("/proc/self/fd/{}", process.as_raw_fd())))
        .build();
    // One process at a time joins a container: what is left is this one's.
    remove_left(&state.join(id))?;
    let terminal = console.map(Console::master);
    let pid = made?.as_raw();
    Ok((Answer::Made(pid), terminal.transpose()?))
}

fn builder(
    id: &str,
    state: &Path,
    descriptors: Vec<OwnedFd>,
    guise: Guise,
    console: Option<&Console>,
) -> Result<ContainerBuilder, Refusal> {
    let mut descriptors = descriptors.into_iter();
    let latch = Arc::new(descriptors.next().ok_or("an order without a latch")?);
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state)?
        .with_executor(OwnExecutor::new(guise, latch))
        .validate_id()?;
    if let (Some(stdin), Some(stdout), Some(stderr)) =
        (descriptors.next(), descriptors.next(), descriptors.next())
    {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    Ok(builder.with_console_socket(console.map(|console| console.path.clone())))
}

fn remove_left(state: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if LEFT.iter().any(|left| name.starts_with(left)) {
            fs::remove_file(state.join(&*name))?;
        }
    }
    Ok(())
}

/// Where the master of a terminal arrives.
#[derive(Debug)]
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

fn console(state: &Path, id: &str, terminal: bool) -> io::Result<Option<Console>> {
    if !terminal {
        return Ok(None);
    }
    // The helper's number is in the name: no two are at work under one name.
    let path = state.join(format!("{CONSOLE}{}-{}", std::process::id(), id.get(..16).unwrap_or(id)));
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    Ok(Some(Console { listener, path }))
}

impl Console {
    /// The master, which came while the process was made.
    fn master(self) -> Result<OwnedFd, Refusal> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let frame = receive(stream.as_fd(), 16, 1).map_err(io::Error::from)?;
        frame.descriptors.into_iter().next().ok_or_else(|| "a terminal without a master".into())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Whatever is left goes with the state, too.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the root of this mount namespace is the initramfs: the kernel has nothing to put in its place, so that pivot_root(2) fails, and
/// the container's root is moved on top of it instead.
fn root_is_initramfs() -> io::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(top_root_kind(&mounts).is_some_and(|kind| kind == "rootfs"))
}

/// The type of what is mounted last on `/`.
fn top_root_kind(mounts: &str) -> Option<&str> {
    let kind = |line: &'_ str| -> Option<(bool, std::ops::Range<usize>)> {
        let (left, right) = line.split_once(" - ")?;
        let kind = right.split(' ').next()?;
        let start = left.len() + 3;
        Some((left.split(' ').nth(4)? == "/", start..start + kind.len()))
    };
    mounts
        .lines()
        .filter_map(|line| kind(line).filter(|(root, _)| *root).and_then(|(_, range)| line.get(range)))
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_is_seen() {
        let initramfs = "1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(top_root_kind(initramfs), Some("rootfs"));
        let disk =
            "1 1 0:2 / / rw - rootfs rootfs rw\n25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n";
        assert_eq!(top_root_kind(disk), Some("ext4"));
        assert_eq!(top_root_kind("garbage\n"), None);
    }
}
