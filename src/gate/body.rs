//! A body that says when it is done with: the place that its connection holds then waits for the other side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use hyper::body::{Frame, SizeHint};

use crate::gate::places::{Seat, Turn};

/// A body, and whose turn it is once it is gone.
pub(super) struct Turned<B> {
    body: B,
    seat: Arc<Seat>,
    then: Turn,
}

impl<B> Turned<B> {
    pub(super) fn new(body: B, seat: Arc<Seat>, then: Turn) -> Turned<B> {
        Turned { body, seat, then }
    }
}

impl<B> Drop for Turned<B> {
    fn drop(&mut self) {
        self.seat.turn(self.then);
    }
}

impl<B: HttpBody + Unpin> HttpBody for Turned<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
