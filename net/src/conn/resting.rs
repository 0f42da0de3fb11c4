//! What a pool asks of a connection that rests: whether anything happens on it. Nothing is taken.

use std::task::{Context, Poll};

use super::Conn;
use super::memory::bytes_at_once;
use crate::tasks::{note, put_aside};

/// What stirs on a connection that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stir {
    /// Bytes lie there.
    Spoke,
    /// It has ended, or one of its directions: the peer's FIN has come, or nothing can be sent any more.
    Ended,
}

impl Conn {
    /// Ready as soon as bytes lie there, the peer has ended, or it is being closed by anybody; what came stays where it
    /// is. No read deadline counts. The last who asked this or [`poll_recv`](Self::poll_recv) is woken, by all that
    /// comes after.
    ///
    /// A close of our own wakes when it is done, not when it begins; who asks meanwhile is told.
    pub fn poll_stir(&mut self, cx: &mut Context<'_>) -> Poll<Stir> {
        self.with(|connections, key| {
            if !connections.may_send_to(key) {
                return Poll::Ready(Stir::Ended);
            }
            let Some(shell) = connections.state_of(key) else { return Poll::Ready(Stir::Ended) };
            if shell.is_ended {
                return Poll::Ready(Stir::Ended);
            }
            put_aside(note(&mut shell.reader, cx));
            if shell.has_unread() { Poll::Ready(Stir::Spoke) } else { Poll::Pending }
        })
    }

    /// Who asked [`poll_stir`](Self::poll_stir) asks no more.
    pub fn forget_stir(&mut self) {
        self.forget_reader();
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
