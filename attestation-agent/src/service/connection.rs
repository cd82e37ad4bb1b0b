//! One connection: its peer, and a ttrpc server that serves nothing else.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream;
use protocol::attestation_agent::create_attestation_agent_service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{Server, Service};

use crate::service::AttestationService;
use crate::service::answer::PeerService;
use crate::service::peer::Peer;

/// Serves a connection until it ends. A peer that the kernel does not name, or that has too many connections, is not served.
pub(crate) async fn serve(service: Arc<AttestationService>, stream: UnixStream, socket: &str) {
    let Ok(peer) = Peer::of(&stream, socket) else { return };
    let queue = service.queues.of(peer.identity());
    let connection = queue.connection();
    // GUARD: peer-connections -> evil_peer_takes_every_connection
    if connection.is_none() {
        return;
    }
    let handler = PeerService { service, peer, queue };
    serve_connection(stream, create_attestation_agent_service(Arc::new(handler))).await;
    drop(connection);
}

/// Serves one connection, and nothing else, until it ends. Dropped, it ends the connection.
pub async fn serve_connection<S>(stream: S, services: HashMap<String, Service>)
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let (gone, ended) = oneshot::channel();
    let watched = Watched { stream, _gone: gone };
    let connections = stream::iter([Ok::<_, io::Error>(watched)]);
    let mut server = Server::new().add_listener(Listener::new(connections)).register_service(services);
    if server.start().await.is_ok() {
        // An error here is the sender's end: the connection is gone. The server has to live until then.
        let _ = ended.await;
    }
}

/// A connection that tells, by dropping its sender, that it is gone.
struct Watched<S> {
    stream: S,
    _gone: oneshot::Sender<()>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
