//! Bytes of the caller's own memory, copied into a connection.
//!
//! For whom bytes are borrowed: the libraries behind the adapters, and futures that keep a buffer of their own. Whoever
//! owns bytes sends them without a copy ([`Conn::send`]).
//!
//! *A bounded copy for each call*: what is taken is out of the caller's hands and counts in the outbox, so one call
//! takes no more than what makes an outbox high. *Many small slices become one piece*: a piece costs its place in the
//! outbox and in the vector of a send, however few bytes it has.
//!
//! *Nothing fails for want of room.* The outbox above its watermark and the reactor short of memory are the same to the
//! caller: not yet. What there is room for is taken, be it less than the caller has.

use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use slipring_core::SendRefused;

use super::memory::{bytes_free, nothing_fits};
use super::{Conn, SendError};

/// Bytes that one call takes: what makes an outbox high by default ([`Limits::outbox_high_bytes`](crate::Limits)).
const COPY_BYTES_MAX: usize = 64 << 10;

impl Conn {
    /// Copies the front of these bytes to be sent, behind all that waits; how many. Waits for back-pressure only, and
    /// takes 64 KiB at most in one call. Only the last caller is woken.
    ///
    /// # Errors
    /// [`SendError`]; nothing was taken.
    pub fn poll_send_from(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, SendError>> {
        self.poll_copy(cx, bytes.len(), |piece, count| piece.extend_from_slice(&bytes[..count]))
    }

    /// The same for bytes that lie in several places: they go as one piece.
    ///
    /// # Errors
    /// [`SendError`]; nothing was taken.
    pub fn poll_send_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, SendError>> {
        let bytes = slices.iter().fold(0, |sum: usize, slice| sum.saturating_add(slice.len()));
        self.poll_copy(cx, bytes, |piece, count| {
            for slice in slices {
                let left = count - piece.len();
                if left == 0 {
                    break;
                }
                piece.extend_from_slice(&slice[..slice.len().min(left)]);
            }
        })
    }

    /// `copy` puts so many of the caller's bytes into a piece.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        bytes: usize,
        copy: impl FnOnce(&mut Vec<u8>, usize),
    ) -> Poll<Result<usize, SendError>> {
        ready!(self.poll_ready(cx))?;
        if bytes == 0 {
            return Poll::Ready(Ok(0));
        }
        // Asked before anything is copied: who is refused asks again and again.
        let room = self.with(|connections, key| bytes_free(connections, key));
        let count = bytes.min(room).min(COPY_BYTES_MAX);
        if count > 0 {
            let mut piece = Vec::with_capacity(count);
            copy(&mut piece, count);
            match self.try_send(piece) {
                Ok(()) => {
                    self.retry = None;
                    return Poll::Ready(Ok(count));
                }
                Err(SendRefused::Ended(_)) => {
                    let why = self.with(super::why_not);
                    return Poll::Ready(Err(why));
                }
                Err(SendRefused::Full(_)) => {}
            }
        } else if let Some(error) = self.with(|connections, _| nothing_fits(connections)) {
            return Poll::Ready(Err(error));
        }
        self.wait_for_memory(cx);
        Poll::Pending
    }
}
