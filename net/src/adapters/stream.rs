//! What reading and writing mean, for all adapters: they differ in names only.

use std::io::{IoSlice, Result};
use std::task::{Context, Poll, ready};

use crate::Conn;

/// Shows what comes next to `take`, which says how much of it it has copied; the rest is there for the next call. It is
/// not called at the end of the stream.
#[inline]
pub(super) fn poll_read(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> usize,
) -> Poll<Result<()>> {
    let Some(mut lease) = ready!(conn.poll_recv(cx)) else { return Poll::Ready(conn.read_end()) };
    let count = take(&lease);
    lease.advance(count);
    conn.unrecv(lease);
    Poll::Ready(Ok(()))
}

#[inline]
pub(super) fn poll_write(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<Result<usize>> {
    conn.poll_send_from(cx, bytes).map_err(Into::into)
}

#[inline]
pub(super) fn poll_write_vectored(
    conn: &mut Conn,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<Result<usize>> {
    conn.poll_send_slices(cx, slices).map_err(Into::into)
}

/// See [the module above](super) for why it does not wait.
#[inline]
pub(super) fn flush(conn: &Conn) -> Poll<Result<()>> {
    Poll::Ready(conn.write_end())
}

pub(super) fn shut_down(conn: &mut Conn) -> Poll<Result<()>> {
    conn.shutdown();
    Poll::Ready(conn.write_end())
}
