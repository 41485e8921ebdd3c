//! The TCP connection below an SMTP conversation that is not, or not yet, encrypted.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The first byte of a TLS handshake record (RFC 8446, 5.1). No SMTP command begins with it.
const HANDSHAKE: u8 = 0x16;

/// A TCP connection that reads byte by byte until TLS begins.
///
/// lettre reads replies through a buffer that outlives the upgrade. Whoever sits on the connection could append replies to the
/// server's `220`, in the clear; they would be waiting in that buffer and pass for the server's own, sent under TLS: an alert
/// would seem taken that never was (the response injection of <https://nostarttls.secvuln.info/>). Read byte by byte, nothing is
/// ever left over: what was appended meets the TLS handshake, which fails.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    is_encrypted: bool,
}

impl Wire {
    /// Connects to the first address of `host` that answers within `each`.
    ///
    /// # Errors
    /// The name has no address, or the last one's failure.
    pub(super) async fn connect(host: &str, port: u16, each: Duration) -> io::Result<Wire> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((host, port)).await? {
            match tokio::time::timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Wire { stream, is_encrypted: false }),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address}")),
            }
        }
        Err(failure)
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_encrypted || into.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut one);
        into.put_slice(one.filled());
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_encrypted |= bytes.first() == Some(&HANDSHAKE);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
