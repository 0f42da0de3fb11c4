//! What reading and writing mean, for all adapters: they differ in names only. And for all that is read and written:
//! connections, plain ones and those by TLS (`adapters/tls.rs`), and halves of the former.
//!
//! Why `writes` is a macro: the three traits of writing are alike but for a name, and they are others' traits, which
//! cannot be implemented for every [`Part`] at once.

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

/// What belongs to a connection: itself, or a half of it.
pub(super) trait Part {
    type Whole: Stream;

    /// What it is part of.
    fn whole(&mut self) -> &mut Self::Whole;
}

impl<S: Stream> Part for S {
    type Whole = S;

    #[inline]
    fn whole(&mut self) -> &mut S {
        self
    }
}

#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
impl Part for crate::ReadHalf {
    type Whole = Conn;

    #[inline]
    fn whole(&mut self) -> &mut Conn {
        self.whole()
    }
}

#[cfg(any(feature = "futures-io", feature = "tokio-io"))]
impl Part for crate::WriteHalf {
    type Whole = Conn;

    #[inline]
    fn whole(&mut self) -> &mut Conn {
        self.whole()
    }
}

/// Implements a trait of writing, whose method for the end has this name. `vectored`: the trait asks whether slices are
/// taken as one piece.
macro_rules! writes {
    ($trait:ident for $type:ty, $end:ident $(, $vectored:ident)?) => {
        impl $trait for $type {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<Result<usize>> {
                Part::whole(self.get_mut()).poll_take(cx, bytes)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<Result<usize>> {
                Part::whole(self.get_mut()).poll_take_all(cx, slices)
            }

            $(fn $vectored(&self) -> bool {
                true
            })?

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                Part::whole(self.get_mut()).poll_flushed(cx)
            }

            fn $end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
                Part::whole(self.get_mut()).poll_shut_down(cx)
            }
        }
    };
}
pub(super) use writes;

/// Shows what comes next to `take`, which says how much of it it has copied; the rest is there for the next call. It is
/// not called at the end of the stream.
#[inline]
pub(super) fn poll_read(
    part: &mut impl Part,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> usize,
) -> Poll<Result<()>> {
    let stream = part.whole();
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
