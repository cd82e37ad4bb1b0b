//! Writing to a vsock so that every host understands it.
//!
//! Linux (since 6.17) lays what does not fit into [`PIECE_BYTES`] out over several buffers of the queue to the host. Back ends of
//! virtual machine monitors that expect one buffer a packet drop such a packet without a word, and the connection with it stands
//! still for ever. What is written in pieces is always one buffer; how much is under way is limited by the host's credit, not by that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is written at once: with its header and the kernel's own data it is below 32 KiB, the largest buffer that the
/// kernel makes of one piece.
pub(crate) const PIECE_BYTES: usize = 28 << 10;

/// The beginning of `data` that is written at once.
pub(crate) fn piece(data: &[u8]) -> &[u8] {
    data.get(..PIECE_BYTES).unwrap_or(data)
}

/// A connection that is written in pieces.
#[derive(Debug)]
pub(crate) struct Pieces<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Pieces<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Pieces<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, piece(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Notes how much is written at once.
    #[derive(Default)]
    struct Noted(Vec<usize>);

    impl AsyncWrite for Noted {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What the kernel needs beside the data in a buffer of 32 KiB: the packet's header, and its own `struct skb_shared_info`.
    const KERNEL_BYTES: usize = 1024;

    #[tokio::test]
    async fn nothing_is_written_that_needs_a_second_buffer() {
        let mut stream = Pieces(Noted::default());
        stream.write_all(&vec![7; 200_000]).await.unwrap();
        stream.write_all(b"short").await.unwrap();
        let written = stream.0.0;
        assert_eq!(written.iter().sum::<usize>(), 200_005);
        assert!(written.iter().all(|count| count + KERNEL_BYTES <= 32 << 10), "{written:?}");
        assert_eq!(written.last(), Some(&5), "a short one is not held back");
    }

    #[tokio::test]
    async fn what_is_written_in_pieces_arrives_whole() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let sent: Vec<u8> = (0_u32..100_000).flat_map(u32::to_le_bytes).collect();
        let (mut ours, mut theirs, expected) = (Pieces(ours), Pieces(theirs), sent.clone());
        let writing = tokio::spawn(async move {
            ours.write_all(&sent).await.unwrap();
            ours.shutdown().await.unwrap();
        });
        let mut found = Vec::new();
        theirs.read_to_end(&mut found).await.unwrap();
        assert!(found == expected);
        writing.await.unwrap();
    }
}
