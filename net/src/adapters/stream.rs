//! What reading and writing mean, for all adapters: they differ in names only. And for both kinds of connections, plain
//! ones and those by TLS (`adapters/tls.rs`).

use std::io::{IoSlice, Result};
use std::task::{Context, Poll, ready};

use slipring_core::Lease;

use crate::Conn;

/// A connection, as adapters need it.
pub(super) trait Stream {
    /// What comes next; `None` behind the end of the stream, and an error behind any other end.
    fn poll_lease(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Lease>>>;

    /// What is left of that.
    fn put_back(&mut self, lease: Lease);

    /// Takes bytes to be sent: how many, at least one unless there are none.
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>>;

    /// The same of many slices, as one piece.
    fn poll_take_all(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>>;

    /// See [the module above](super) for what it waits for, which is nothing of the peer's.
    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// Ends our direction, behind what was taken.
    fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
}

/// Shows what comes next to `take`, which says how much of it it has copied; the rest is there for the next call. It is
/// not called at the end of the stream.
#[inline]
pub(super) fn poll_read(
    stream: &mut impl Stream,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> usize,
) -> Poll<Result<()>> {
    let Some(mut lease) = ready!(stream.poll_lease(cx))? else { return Poll::Ready(Ok(())) };
    let count = take(&lease);
    lease.advance(count);
    stream.put_back(lease);
    Poll::Ready(Ok(()))
}

impl Stream for Conn {
    #[inline]
    fn poll_lease(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Lease>>> {
        match ready!(self.poll_recv(cx)) {
            Some(lease) => Poll::Ready(Ok(Some(lease))),
            None => Poll::Ready(self.read_end().map(|()| None)),
        }
    }

    #[inline]
    fn put_back(&mut self, lease: Lease) {
        self.unrecv(lease);
    }

    #[inline]
    fn poll_take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_send_from(cx, bytes).map_err(Into::into)
    }

    #[inline]
    fn poll_take_all(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.poll_send_slices(cx, slices).map_err(Into::into)
    }

    #[inline]
    fn poll_flushed(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.write_end())
    }

    fn poll_shut_down(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.shutdown();
        Poll::Ready(self.write_end())
    }
}
