//! The halves of a connection, for two tasks of its reactor.

use std::io::IoSlice;
use std::task::{Context, Poll};

use slipring_core::canary::{Canary, sings};
use slipring_core::{CloseReason, Lease, Outgoing, SendRefused};

use super::{Conn, End, SendError, set_handles};

/// What receives. Dropping it gives up what comes; dropped behind the other half, it closes the connection.
#[derive(Debug)]
pub struct ReadHalf {
    conn: Conn,
}

/// What sends. Dropping it half-closes; dropped behind the other half, it closes the connection.
#[derive(Debug)]
pub struct WriteHalf {
    conn: Conn,
}

impl ReadHalf {
    pub(super) fn new(conn: Conn) -> Self {
        Self { conn }
    }

    /// What it is half of, for the adapters: they ask of it only what a half may do.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn whole(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// As [`Conn::recv`].
    pub async fn recv(&mut self) -> Option<Lease> {
        self.conn.recv().await
    }

    /// As [`Conn::recv_into`].
    pub async fn recv_into(&mut self, into: &mut [u8]) -> usize {
        self.conn.recv_into(into).await
    }

    /// As [`Conn::poll_recv`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        self.conn.poll_recv(cx)
    }

    /// As [`Conn::poll_recv_into`].
    pub fn poll_recv_into(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<usize> {
        self.conn.poll_recv_into(cx, into)
    }

    /// As [`Conn::unrecv`].
    pub fn unrecv(&mut self, lease: Lease) {
        self.conn.unrecv(lease);
    }

    /// As [`Conn::end`].
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.conn.end()
    }

    /// The whole again.
    ///
    /// # Panics
    /// If they are halves of two connections.
    #[must_use]
    pub fn reunite(mut self, mut other: WriteHalf) -> Conn {
        assert!(self.conn.key == other.conn.key, "halves of two connections");
        self.conn.with(|connections, key| set_handles(connections, key, 1));
        let mut whole = Conn::of(self.conn.key, self.conn.reactor);
        whole.read_deadline = self.conn.read_deadline.take();
        self.conn.is_spent = true;
        other.conn.is_spent = true;
        whole
    }
}

impl WriteHalf {
    pub(super) fn new(conn: Conn) -> Self {
        Self { conn }
    }

    /// What it is half of, for the adapters: they ask of it only what a half may do.
    #[cfg(any(feature = "futures-io", feature = "tokio-io"))]
    pub(crate) fn whole(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// As [`Conn::send`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, data: impl Into<Outgoing>) -> Result<(), SendError> {
        self.conn.send(data).await
    }

    /// As [`Conn::send_all`].
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_all(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        self.conn.send_all(bytes).await
    }

    /// As [`Conn::poll_ready`].
    ///
    /// # Errors
    /// [`SendError`], if nothing can be sent any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.conn.poll_ready(cx)
    }

    /// As [`Conn::try_send`].
    ///
    /// # Errors
    /// [`SendRefused`], with the bytes.
    pub fn try_send(&mut self, data: impl Into<Outgoing>) -> Result<(), SendRefused> {
        self.conn.try_send(data)
    }

    /// As [`Conn::poll_send_from`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn poll_send_from(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, SendError>> {
        self.conn.poll_send_from(cx, bytes)
    }

    /// As [`Conn::poll_send_slices`].
    ///
    /// # Errors
    /// [`SendError`].
    pub fn poll_send_slices(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, SendError>> {
        self.conn.poll_send_slices(cx, slices)
    }

    /// As [`Conn::shutdown`].
    pub fn shutdown(&mut self) {
        self.conn.shutdown();
    }

    /// As [`Conn::abort`].
    pub fn abort(&mut self) {
        self.conn.abort();
    }

    /// As [`Conn::reason`].
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.conn.reason()
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        if !self.conn.is_spent {
            let key = self.conn.key;
            let reactor = self.conn.reactor;
            super::at_once_or_later(reactor, move |connections| {
                super::stop_receiving(connections, key);
            });
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if !self.conn.is_spent && !sings(Canary::HalfWithoutFin) {
            let key = self.conn.key;
            let reactor = self.conn.reactor;
            super::at_once_or_later(reactor, move |connections| super::shut_down(connections, key));
        }
    }
}
