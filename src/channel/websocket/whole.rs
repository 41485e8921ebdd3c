//! A stream whose first bytes come together, however the network cut them.
//!
//! The library takes an answer that comes in many small pieces for an attack and gives up. It comes from the server that we chose,
//! and slow networks are what we are here to measure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An answer's head that is longer than this is handed on in pieces, and then is the library's to refuse.
const LONGEST: usize = 16 << 10;

/// Reads nothing before the end of the head has come.
pub(super) struct Whole<S> {
    stream: S,
    head: Vec<u8>,
    /// How much of `head` was handed on.
    read: usize,
    is_whole: bool,
}

impl<S> Whole<S> {
    pub(super) fn new(stream: S) -> Whole<S> {
        Whole { stream, head: Vec::new(), read: 0, is_whole: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Whole<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.is_whole {
            let mut bytes = [0; 1_024];
            let mut piece = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
            // The end may lie across two pieces.
            let from = this.head.len().saturating_sub(3);
            this.head.extend_from_slice(piece.filled());
            let has_end = this.head[from..].windows(4).any(|four| four == b"\r\n\r\n");
            this.is_whole = has_end || piece.filled().is_empty() || this.head.len() > LONGEST;
        }
        if this.read == this.head.len() {
            this.head = Vec::new();
            this.read = 0;
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let length = buffer.remaining().min(this.head.len() - this.read);
        buffer.put_slice(&this.head[this.read..this.read + length]);
        this.read += length;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Whole<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_head_comes_at_once_and_the_rest_as_it_is() {
        let (mut far, near) = tokio::io::duplex(1);
        let sent = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n\x81\x02hi";
        let writing = async {
            far.write_all(sent).await.unwrap();
            drop(far);
        };
        let reading = async {
            let (mut whole, mut head, mut rest) = (Whole::new(near), [0; 4_096], Vec::new());
            let length = whole.read(&mut head).await.unwrap();
            whole.read_to_end(&mut rest).await.unwrap();
            (head[..length].to_vec(), rest)
        };
        let ((), (head, rest)) = tokio::join!(writing, reading);
        assert!(head.ends_with(b"\r\n\r\n"), "{head:?}");
        assert_eq!([head, rest].concat(), sent);
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_handed_on() {
        for sent in [b"HTTP/1.1 200".to_vec(), Vec::new(), vec![b'x'; LONGEST + 5_000]] {
            let (mut far, near) = tokio::io::duplex(64 << 10);
            far.write_all(&sent).await.unwrap();
            drop(far);
            let mut read = Vec::new();
            Whole::new(near).read_to_end(&mut read).await.unwrap();
            assert_eq!(read, sent);
        }
    }
}
