//! Copying between a process's streams and the host's sockets, or to nowhere.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::net::{Shutdown, shutdown};
use tokio::sync::watch;

use crate::streams::Life;
use crate::streams::input::Input;
use crate::streams::output::Output;
use crate::streams::port::{CHUNK_BYTES, Port};
use crate::vsock::piece;

/// What a process can have left in its pipe or terminal: so much is copied after its end before somebody whom it left behind,
/// and who goes on writing, counts as somebody else.
const LEFT_BYTES: usize = super::PipeSize::MAXIMUM;

/// Reads until the end and keeps nothing.
pub(super) async fn to_nowhere(output: &Output, life: watch::Receiver<Life>) {
    while output.read(CHUNK_BYTES, life.clone()).await.is_ok_and(|data| !data.is_empty()) {
        // A process that always has something to say is not the only one.
        tokio::task::yield_now().await;
    }
}

/// Copies output to the host until its end. A host that is gone does not make the process wait.
pub(super) async fn out_of_process(
    output: Arc<Output>,
    socket: Port,
    life: watch::Receiver<Life>,
    unfinished: watch::Sender<usize>,
) {
    let mut pending = Pending(Some(unfinished));
    let mut left = 0_usize;
    loop {
        let data = match output.read(CHUNK_BYTES, life.clone()).await {
            Ok(data) if !data.is_empty() => data,
            _ => break,
        };
        if write_all(&socket, &data).await.is_err() {
            drop(pending);
            drop(socket);
            return to_nowhere(&output, life).await;
        }
        if life.borrow().ended {
            left = left.saturating_add(data.len());
        }
        if left >= LEFT_BYTES {
            pending.finish();
        }
        tokio::task::yield_now().await;
    }
    // So that the host sees the end also where somebody else still has the socket.
    let _ = shutdown(socket.fd().as_fd(), Shutdown::Write);
}

/// Copies from the host until its end, or that of the process.
pub(super) async fn into_process(
    socket: Port,
    input: Arc<Input>,
    mut life: watch::Receiver<Life>,
    keep_open: bool,
) {
    loop {
        let data = tokio::select! {
            biased;
            data = socket.read(CHUNK_BYTES) => data.unwrap_or_default(),
            _ = life.wait_for(|life| life.ended || life.closed) => break,
        };
        if data.is_empty() || input.write(&data, life.clone()).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    if !keep_open {
        input.close();
    }
}

async fn write_all(socket: &Port, mut rest: &[u8]) -> std::io::Result<()> {
    while !rest.is_empty() {
        let count = socket.write(piece(rest)).await?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// One of the outputs that are to be copied, until it is or its task is no more.
struct Pending(Option<watch::Sender<usize>>);

impl Pending {
    fn finish(&mut self) {
        if let Some(unfinished) = self.0.take() {
            unfinished.send_modify(|count| *count = count.saturating_sub(1));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.finish();
    }
}
