//! Files for peers of a protocol that carries none: tickets that count once, and a socket that takes them.
//!
//! A peer sends the 32 bytes of its ticket and receives one byte with one read-only descriptor (`SCM_RIGHTS`); then the connection ends. A ticket
//! counts for 30 s, once, and only from the user that it was made for; one that is shown by somebody else is used up.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use attestation_agent::service::bind_socket;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::hub_error::HubError;

/// Bytes of a ticket.
pub const TICKET_BYTES: usize = 32;
/// How long a ticket counts.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long a peer may take to show it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most tickets at a time.
const MAXIMUM_TICKETS: usize = 64;
/// Most peers at a time.
const MAXIMUM_CONNECTIONS: usize = 16;

struct Ticket {
    file: File,
    uid: u32,
    until: Instant,
}

/// The tickets that were given out, and the socket that takes them until this is dropped.
pub struct HandOver {
    tickets: Arc<Tickets>,
    socket: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Tickets(Mutex<HashMap<[u8; TICKET_BYTES], Ticket>>);

impl std::fmt::Debug for HandOver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandOver").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl HandOver {
    /// Serves a socket of this mode. Inside an async runtime.
    ///
    /// # Errors
    ///
    /// `CDH_SOCKET`.
    pub fn bind(socket: &Path, mode: u32) -> Result<Self, HubError> {
        let listener = bind_socket(socket, mode)?;
        let tickets = Arc::new(Tickets::default());
        let task = tokio::spawn(accept(listener, Arc::clone(&tickets)));
        Ok(Self { tickets, socket: socket.to_owned(), task })
    }

    /// Where tickets are taken.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A ticket for a file that was opened for reading alone.
    ///
    /// # Errors
    ///
    /// `CDH_BUSY`, `CDH_INTERRUPTED` without randomness.
    pub fn ticket(&self, file: File, uid: u32) -> Result<[u8; TICKET_BYTES], HubError> {
        let mut ticket = [0; TICKET_BYTES];
        getrandom::fill(&mut ticket).map_err(|_| HubError::Interrupted)?;
        let now = Instant::now();
        let mut tickets = self.tickets.lock();
        tickets.retain(|_, ticket| ticket.until > now);
        if tickets.len() >= MAXIMUM_TICKETS {
            return Err(HubError::Busy { what: "tickets" });
        }
        tickets.insert(ticket, Ticket { file, uid, until: now + LIFETIME });
        Ok(ticket)
    }
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; TICKET_BYTES], Ticket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a ticket, which is used up by that.
    fn take(&self, ticket: &[u8; TICKET_BYTES], uid: u32) -> Option<File> {
        let found = self.lock().remove(ticket)?;
        // GUARD: ticket-lifetime -> evil_peer_shows_an_old_ticket
        if found.until <= Instant::now() {
            return None;
        }
        // GUARD: ticket-user -> evil_user_shows_a_ticket_of_another
        if found.uid != uid {
            return None;
        }
        Some(found.file)
    }
}

async fn accept(listener: UnixListener, tickets: Arc<Tickets>) {
    let places = Arc::new(Semaphore::new(MAXIMUM_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let tickets = Arc::clone(&tickets);
        tokio::spawn(async move {
            let _ = timeout(PATIENCE, answer(stream, &tickets)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: UnixStream, tickets: &Tickets) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut ticket = [0; TICKET_BYTES];
    stream.read_exact(&mut ticket).await?;
    let Some(file) = tickets.take(&ticket, uid) else { return Ok(()) };
    let descriptors = [file.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    stream.writable().await?;
    sendmsg(&stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{IoSliceMut, Read as _, Write as _};
    use std::os::unix::net::UnixStream as Blocking;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    fn file(directory: &Path) -> File {
        std::fs::write(directory.join("file"), "landed").unwrap();
        File::open(directory.join("file")).unwrap()
    }

    /// What somebody receives who shows this.
    async fn show(socket: &Path, ticket: [u8; TICKET_BYTES]) -> Option<File> {
        let socket = socket.to_owned();
        let task = tokio::task::spawn_blocking(move || {
            let mut stream = Blocking::connect(socket).unwrap();
            stream.write_all(&ticket).unwrap();
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut room);
            let mut byte = [9];
            let mut parts = [IoSliceMut::new(&mut byte)];
            recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
            let mut files = control.drain().flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
                _ => Vec::new(),
            });
            files.next().map(File::from)
        });
        task.await.unwrap()
    }

    #[tokio::test]
    async fn a_ticket_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("files.sock");
        let hand_over = HandOver::bind(&socket, 0o600).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let ticket = hand_over.ticket(file(directory.path()), uid).unwrap();
        let mut received = show(&socket, ticket).await.unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "landed");
        assert!(received.write_all(b"x").is_err(), "for reading alone");
        assert!(show(&socket, ticket).await.is_none());
        assert!(show(&socket, [0; TICKET_BYTES]).await.is_none());
        drop(hand_over);
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn evil_user_shows_a_ticket_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("files.sock");
        let hand_over = HandOver::bind(&socket, 0o600).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let ticket = hand_over.ticket(file(directory.path()), uid.wrapping_add(1)).unwrap();
        assert!(show(&socket, ticket).await.is_none());
        assert!(hand_over.tickets.lock().is_empty(), "used up");
    }

    #[tokio::test]
    async fn evil_peer_shows_an_old_ticket() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("files.sock");
        let hand_over = HandOver::bind(&socket, 0o600).unwrap();
        let uid = rustix::process::getuid().as_raw();
        let ticket = hand_over.ticket(file(directory.path()), uid).unwrap();
        hand_over.tickets.lock().get_mut(&ticket).unwrap().until = Instant::now();
        assert!(show(&socket, ticket).await.is_none());
        for _ in 0..MAXIMUM_TICKETS {
            hand_over.ticket(file(directory.path()), uid).unwrap();
        }
        let refused = hand_over.ticket(file(directory.path()), uid);
        assert_eq!(refused.unwrap_err().code(), "CDH_BUSY");
    }
}
