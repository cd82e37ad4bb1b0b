//! News of the kernel about devices (`NETLINK_KOBJECT_UEVENT`, group 1), and waiting for one.
//!
//! What a device calls itself is the host's word. An event says that something changed; what is there now is looked up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt,
};

use crate::error::AgentError;

/// The group to which the kernel sends. Group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// Longest event in bytes; the kernel's own limit is 2048 for the environment, and a path.
pub const MAXIMUM_BYTES: usize = 8192;
/// Most variables of an event. The kernel's own limit is 64.
pub const MAXIMUM_VARIABLES: usize = 64;
/// Events that are read at a time when nobody waits for one.
const MAXIMUM_DRAINED: usize = 1024;
/// Bytes of events that may wait to be read.
const QUEUE_BYTES: usize = 1 << 20;

/// What happened to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// It came.
    Add,
    /// A driver took it.
    Bind,
    /// It changed.
    Change,
    /// It went.
    Remove,
    /// Moved, offline, online, unbind.
    Other,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uevent {
    /// What happened.
    pub action: Action,
    /// The device below `/sys`, with a leading slash.
    pub device_path: String,
    /// Its subsystem, for example `block`.
    pub subsystem: String,
    /// The device file below `/dev`, where it has one.
    pub device_name: Option<String>,
}

impl Uevent {
    /// Reads an event: `ACTION@PATH`, then `KEY=VALUE` each, with a zero byte behind each.
    ///
    /// Returns `None` for what is not one, or not of the kernel's form.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAXIMUM_BYTES {
            return None;
        }
        let text = std::str::from_utf8(bytes.strip_suffix(b"\0")?).ok()?;
        let mut parts = text.split('\0');
        let (head_action, head_path) = parts.next()?.split_once('@')?;
        let (mut action, mut path, mut subsystem, mut name) = (None, None, None, None);
        for (count, part) in parts.enumerate() {
            if count >= MAXIMUM_VARIABLES {
                return None;
            }
            let (key, value) = part.split_once('=')?;
            let place = match key {
                "ACTION" => &mut action,
                "DEVPATH" => &mut path,
                "SUBSYSTEM" => &mut subsystem,
                "DEVNAME" => &mut name,
                _ => continue,
            };
            // The kernel says each once.
            if place.replace(value).is_some() {
                return None;
            }
        }
        let is_consistent = action == Some(head_action) && path == Some(head_path);
        if !is_consistent || !head_path.starts_with('/') || head_path.split('/').any(|part| part == "..") {
            return None;
        }
        let action = match head_action {
            "add" => Action::Add,
            "bind" => Action::Bind,
            "change" => Action::Change,
            "remove" => Action::Remove,
            _ => Action::Other,
        };
        Some(Self {
            action,
            device_path: head_path.to_owned(),
            subsystem: subsystem?.to_owned(),
            device_name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        })
    }
}

/// One thing that the socket had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// An event.
    Event(Uevent),
    /// Events were lost: anything may have changed.
    Lost,
    /// A message that is not from the kernel, or not of its form. It is no news.
    Nothing,
}

/// The socket. What happens after it was opened is not missed: it is news, or it is told that news were lost.
#[derive(Debug)]
pub struct UeventSocket {
    socket: OwnedFd,
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl UeventSocket {
    /// Listens from now on.
    ///
    /// # Errors
    /// `AGENT_SYSTEM`.
    pub fn open() -> Result<Self, AgentError> {
        Self::new().map_err(AgentError::system("listen for devices"))
    }

    fn new() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        // Needs a privilege; without it the queue is shorter and the loss of events is told earlier.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES);
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// What is there to be read, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing; those of the socket.
    pub fn receive(&self) -> io::Result<News> {
        let mut bytes = [0; MAXIMUM_BYTES + 1];
        match recvfrom(&self.socket, &mut bytes[..], RecvFlags::TRUNC) {
            Ok((_, length, sender)) => Ok(read(&bytes, length, sender)),
            Err(Errno::NOBUFS) => Ok(News::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to be read, at most so long.
    ///
    /// # Errors
    /// Those of poll(2), but for interruptions.
    pub(crate) fn wait(&self, at_most: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(bytes: &[u8], length: usize, sender: Option<SocketAddrAny>) -> News {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
    // GUARD: uevents-from-the-kernel -> evil_process_sends_to_the_group, evil_process_forges_an_event
    if sender.is_none_or(|sender| sender.pid() != 0) {
        return News::Nothing;
    }
    let event = bytes.get(..length).and_then(Uevent::parse);
    event.map_or(News::Nothing, News::Event)
}

/// Waiting for disks: for [`initdata::obtain`], which looks before it waits. Listens from the moment that it is made.
#[derive(Debug)]
pub struct DiskNews {
    socket: UeventSocket,
    since: Instant,
    heard: u64,
}

impl DiskNews {
    /// Listens from now on.
    ///
    /// # Errors
    /// `AGENT_SYSTEM`.
    pub fn listen() -> Result<Self, AgentError> {
        Ok(Self { socket: UeventSocket::open()?, since: Instant::now(), heard: 0 })
    }

    /// How often the kernel told of a disk until now.
    pub fn heard(&mut self) -> u64 {
        // What came since somebody waited; whoever sends without end is not listened to without end.
        for _ in 0..MAXIMUM_DRAINED {
            match self.socket.receive() {
                Ok(News::Event(event)) if is_new_disk(&event) => self.heard += 1,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.heard
    }
}

fn is_new_disk(event: &Uevent) -> bool {
    event.subsystem == "block" && event.action != Action::Remove
}

impl initdata::Waiter for DiskNews {
    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn wait(&mut self, at_most: Duration) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match self.socket.receive() {
                Ok(News::Lost) => return Ok(()),
                Ok(News::Event(event)) if is_new_disk(&event) => {
                    self.heard += 1;
                    return Ok(());
                }
                Ok(News::Event(_) | News::Nothing) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.wait(at_most.saturating_sub(begun.elapsed()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // Whoever sends other news without end does not prolong it.
            if begun.elapsed() >= at_most {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
