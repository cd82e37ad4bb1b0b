//! The program as a process: when it ends, and how its misbehaviour is changed while it runs.
#![expect(clippy::unwrap_used, reason = "a test program: a failed step is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use chip_client::abi::*;
use chip_client::vfio_user::wire::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const PATIENCE: Duration = Duration::from_secs(20);

struct Emulator {
    process: Child,
    directory: tempfile::TempDir,
}

impl Emulator {
    fn start(plan: Option<&str>, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::new(env!("CARGO_BIN_EXE_innerkeep-chip-emulator"));
        process.arg("--socket").arg(directory.path().join("chip.sock"));
        process.arg("--state").arg(directory.path().join("state")).args(more);
        if let Some(plan) = plan {
            std::fs::write(directory.path().join("plan.toml"), plan).unwrap();
            process.arg("--fault-plan").arg(directory.path().join("plan.toml"));
        }
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut process = process.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Another plan, and the signal to read it.
    fn replan(&self, plan: &str, answer: &str) {
        let count = self.log().matches(answer).count();
        std::fs::write(self.path("plan.toml"), plan).unwrap();
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
        wait_until(|| self.log().matches(answer).count() > count);
    }

    fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(|| {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A client with one page of rings and one of output, which submits IDENTIFY.
struct Client {
    socket: UnixStream,
    memory: OwnedFd,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let memory = rustix::fs::memfd_create("client", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memory, 0x4000).unwrap();
        let mut client = Self { socket, memory };
        let hello = [&VersionHeader { major: 0, minor: 0 }.encode()[..], b"{}\0"].concat();
        client.call(Command::Version, &hello, false);
        client
    }

    fn call(&mut self, command: Command, body: &[u8], with_memory: bool) -> Vec<u8> {
        let size = (HEADER_LEN + body.len()).try_into().unwrap();
        let header =
            Header { message_id: 1, command: command.as_u16(), message_size: size, flags: 0, error: 0 };
        let message = [&header.encode()[..], body].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files: [BorrowedFd<'_>; 1] = [self.memory.as_fd()];
        if with_memory {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let slices = [std::io::IoSlice::new(&message)];
        sendmsg(&self.socket, &slices, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        let mut header = [0; HEADER_LEN];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::parse(&header).unwrap();
        let mut reply = vec![0; header.body_len()];
        self.socket.read_exact(&mut reply).unwrap();
        assert_eq!(header.flags & FLAG_ERROR, 0, "{command:?}: errno {}", header.error);
        reply
    }

    fn write(&mut self, offset: u32, value: u32) {
        let access = RegionAccess { offset: offset.into(), region: 0, count: 4 };
        self.call(Command::RegionWrite, &[&access.encode()[..], &value.to_le_bytes()].concat(), false);
    }

    /// Submits IDENTIFY once, and returns whether it completed before the server was gone.
    fn identify(mut self) -> bool {
        let map =
            DmaMap { argsz: 32, flags: DMA_READ | DMA_WRITE, offset: 0, address: 0x10_000, size: 0x4000 };
        self.call(Command::DmaMap, &map.encode(), true);
        let queue = queue_register(0);
        for (register, value) in
            [(QREG_SQ_BASE, 0x10_000), (QREG_CQ_BASE, 0x11_000), (QREG_SQ_SIZE, 2), (QREG_CQ_SIZE, 2)]
        {
            self.write(queue + register, value);
        }
        self.write(REG_CTRL, CTRL_EN);
        let entry = Submission {
            opcode: Opcode::Identify.as_u8(),
            cid: 1,
            out_iova: 0x12_000,
            out_cap: 0x2000,
            ..Submission::default()
        };
        rustix::io::pwrite(&self.memory, &entry.encode(), 0).unwrap();
        // The answer to the doorbell may be the last thing that comes, or may not come.
        let access = RegionAccess { offset: sq_tail_doorbell(0).into(), region: 0, count: 4 };
        let body = [&access.encode()[..], &1u32.to_le_bytes()].concat();
        let size = (HEADER_LEN + body.len()).try_into().unwrap();
        let flags = FLAG_NO_REPLY;
        let command = Command::RegionWrite.as_u16();
        let header = Header { message_id: 2, command, message_size: size, flags, error: 0 };
        self.socket.write_all(&[&header.encode()[..], &body].concat()).unwrap();
        self.socket.set_nonblocking(true).unwrap();
        let mut completed = false;
        wait_until(|| {
            let mut completion = [0; COMPLETION_LEN];
            rustix::io::pread(&self.memory, &mut completion, 0x1000).unwrap();
            completed = Completion::parse(&completion).phase_bit();
            completed || self.socket.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
        });
        completed
    }
}

#[test]
fn once_ends_with_the_first_client_and_not_with_a_look_at_the_socket() {
    let mut emulator = Emulator::start(None, &["--once"]);
    // Whoever waits for the socket by connecting is no client.
    drop(UnixStream::connect(emulator.path("chip.sock")).unwrap());
    UnixStream::connect(emulator.path("chip.sock")).unwrap().write_all(&[0; 16]).unwrap();
    let client = Client::connect(&emulator.path("chip.sock"));
    assert!(emulator.is_alive());
    drop(client);
    assert_eq!(emulator.end().code(), Some(0));
    assert!(!emulator.path("chip.sock").exists());
}

#[test]
fn without_once_the_next_client_is_served() {
    let mut emulator = Emulator::start(None, &[]);
    for _ in 0..3 {
        assert!(Client::connect(&emulator.path("chip.sock")).identify());
    }
    assert!(emulator.is_alive());
    let process = rustix::process::Pid::from_child(&emulator.process);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(emulator.end().code(), Some(0));
}

#[test]
fn a_plan_is_read_again_at_hangup() {
    let emulator = Emulator::start(Some(""), &[]);
    assert!(Client::connect(&emulator.path("chip.sock")).identify());
    emulator.replan("[[fault]]\nkind = \"no-such\"\n", "fault plan as it was");
    assert!(Client::connect(&emulator.path("chip.sock")).identify());
    emulator.replan("[[fault]]\nkind = \"disconnect\"\n", "fault plan read again: 1 faults");
    assert!(!Client::connect(&emulator.path("chip.sock")).identify());
    emulator.replan("", "fault plan read again: 0 faults");
    assert!(Client::connect(&emulator.path("chip.sock")).identify());
}

#[test]
fn fault_die_leaves_nothing_running() {
    let mut emulator = Emulator::start(Some("[[fault]]\nkind = \"die\"\n"), &[]);
    assert!(!Client::connect(&emulator.path("chip.sock")).identify());
    let status = emulator.end();
    assert_eq!((status.code(), status.signal()), (None, Some(6)));
}
