//! What a pool asks of a connection that rests: whether anything happens on it. Nothing is taken.

use std::task::{Context, Poll};

use super::Conn;
use super::memory::bytes_at_once;
use crate::tasks::{note, put_aside};

impl Conn {
    /// Ready as soon as bytes lie there, the peer has ended, or it is being closed by anybody; what came stays where it
    /// is. No read deadline counts. The last who asked this or [`poll_recv`](Self::poll_recv) is woken.
    ///
    /// A close of our own wakes when it is done, not when it begins; who asks meanwhile is told.
    pub(crate) fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|connections, key| {
            if !connections.may_send_to(key) {
                return Poll::Ready(());
            }
            let Some(shell) = connections.state_of(key) else { return Poll::Ready(()) };
            if shell.is_ended || shell.has_unread() {
                return Poll::Ready(());
            }
            put_aside(note(&mut shell.reader, cx));
            Poll::Pending
        })
    }

    /// Whether bytes would be taken to be sent, as far as it goes by where the connection stands.
    #[cfg(feature = "tls")]
    pub(crate) fn may_send(&self) -> bool {
        self.with(|connections, key| connections.may_send_to(key))
    }

    /// Bytes of one of the pieces that [`send_all`](Self::send_all) makes.
    pub(crate) fn piece_bytes(&self) -> usize {
        self.with(|connections, _| super::PIECE_BYTES.min(bytes_at_once(connections)))
    }
}
