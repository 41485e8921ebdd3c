//! A connection whose other side must take what it is sent: a caller who asks for pages and reads none would hold its place for ever.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream on which a write that makes no progress for `limit` fails.
pub(super) struct Paced<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Paced<S> {
        Paced { stream, limit, stalled: None }
    }

    fn heed<T>(&mut self, polled: Poll<Result<T, Error>>, context: &mut Context<'_>) -> Poll<Result<T, Error>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the caller does not read what it asked for")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.heed(polled, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.heed(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.heed(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_on_is_waited_for_and_one_that_stops_is_not() {
        let (near, mut far) = tokio::io::duplex(8);
        let mut near = Paced::new(near, Duration::from_secs(10));
        let writing = async { near.write_all(&[0; 24]).await };
        let reading = async {
            let mut taken = [0; 8];
            for _ in 0..2 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut taken).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        assert!(
            tokio::join!(writing, reading).0.is_ok(),
            "it took longer than the limit, and never stood still for it"
        );
        let stalled = tokio::time::timeout(Duration::from_secs(60), near.write_all(&[0; 24])).await;
        assert_eq!(stalled.expect("it ends by itself").unwrap_err().kind(), ErrorKind::TimedOut);
        drop(far);
    }
}
