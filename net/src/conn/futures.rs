//! The waits of a connection, as types of their own: small, since each task has room for its largest.
//!
//! None of them holds a byte that came, and none but [`Sending`] one that goes; so each may be dropped at any time. One
//! that is dropped while it waits waits no more: a drain takes a connection for idle whose task waits for it, and only
//! then; and not while that is for memory, since there is an answer to be sent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use slipring_core::canary::{Canary, sings};
use slipring_core::{CloseReason, Connections, Key, Lease, Outgoing, SendRefused};

use super::memory::never_fits;
use super::{Conn, SendError, Shell, why_not};
use crate::tasks::{note, put_aside};

/// The wait of [`Conn::recv`].
#[derive(Debug)]
#[must_use = "it receives once it is awaited"]
pub struct Receiving<'a> {
    conn: &'a mut Conn,
    waits: bool,
}

impl<'a> Receiving<'a> {
    #[inline]
    pub(super) fn new(conn: &'a mut Conn) -> Self {
        Self { conn, waits: false }
    }
}

impl Drop for Receiving<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.waits {
            self.conn.forget_reader();
        }
    }
}

impl Future for Receiving<'_> {
    type Output = Option<Lease>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        let polled = self.conn.poll_recv(cx);
        self.waits = polled.is_pending();
        polled
    }
}

/// The wait of [`Conn::recv_into`].
#[derive(Debug)]
#[must_use = "it receives once it is awaited"]
pub struct ReceivingInto<'a> {
    conn: &'a mut Conn,
    into: &'a mut [u8],
    waits: bool,
}

impl<'a> ReceivingInto<'a> {
    pub(super) fn new(conn: &'a mut Conn, into: &'a mut [u8]) -> Self {
        Self { conn, into, waits: false }
    }
}

impl Drop for ReceivingInto<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.conn.forget_reader();
        }
    }
}

impl Future for ReceivingInto<'_> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let Self { conn, into, waits } = &mut *self;
        let polled = conn.poll_recv_into(cx, into);
        *waits = polled.is_pending();
        polled
    }
}

/// The wait of [`Conn::send`]: the bytes are its own until they are taken, all at once.
#[derive(Debug)]
#[must_use = "it sends once it is awaited"]
pub struct Sending<'a> {
    conn: &'a mut Conn,
    data: Option<Outgoing>,
    waits: bool,
}

impl<'a> Sending<'a> {
    #[inline]
    pub(super) fn new(conn: &'a mut Conn, data: Outgoing) -> Self {
        Self { conn, data: Some(data), waits: false }
    }
}

impl Drop for Sending<'_> {
    #[inline]
    fn drop(&mut self) {
        // Done or not: one that waited for memory is done without being woken.
        if self.waits {
            self.conn.retry = None;
            self.conn.forget_writer();
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<(), SendError>;

    /// # Panics
    /// If it is polled again behind its result.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Self { conn, data, waits } = &mut *self;
        let polled = conn.with(|connections, key| poll_send(connections, key, cx, data));
        let Sent::Is(polled) = polled else {
            *waits = true;
            if let Sent::NoMemory = polled {
                conn.wait_for_memory(cx);
            }
            return Poll::Pending;
        };
        Poll::Ready(polled)
    }
}

/// The wait of [`Conn::closed`].
#[derive(Debug)]
#[must_use = "it waits once it is awaited"]
pub struct Closing<'a> {
    conn: &'a mut Conn,
    waits: bool,
}

impl<'a> Closing<'a> {
    pub(super) fn new(conn: &'a mut Conn) -> Self {
        Self { conn, waits: false }
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.conn.forget_writer();
        }
    }
}

impl Future for Closing<'_> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let polled = self.conn.poll_closed(cx);
        self.waits = polled.is_pending();
        polled
    }
}

/// What became of a send.
enum Sent {
    Is(Result<(), SendError>),
    /// It waits to be told of room.
    High,
    /// There is no room for so much, though the outbox is not high.
    NoMemory,
}

#[inline]
fn poll_send(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
    data: &mut Option<Outgoing>,
) -> Sent {
    let Some(bytes) = data.take() else { panic!("polled after it was ready") };
    let bytes = match bytes {
        Outgoing::Lease(lease) => match connections.send_lease_unless_high(key, lease) {
            Ok(()) => return Sent::Is(Ok(())),
            Err(lease) => Outgoing::Lease(lease),
        },
        bytes => bytes,
    };
    poll_send_rarely(connections, key, cx, bytes, data)
}

/// The long way: the bytes are not received ones, or there is something in their way.
#[inline(never)]
fn poll_send_rarely(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
    bytes: Outgoing,
    data: &mut Option<Outgoing>,
) -> Sent {
    // Behind our own end there is nothing to wait for.
    if connections.is_outbox_high(key) && connections.may_send_to(key) {
        *data = Some(bytes);
        if let Some(shell) = connections.state_of(key) {
            put_aside(note(&mut shell.writer, cx));
        }
        return Sent::High;
    }
    let mut bytes = bytes;
    if sings(Canary::SendTakesHalf)
        && let Outgoing::Owned(bytes) = &mut bytes
    {
        bytes.truncate(bytes.len().div_ceil(2));
    }
    match connections.try_send_to(key, bytes) {
        Ok(()) => Sent::Is(Ok(())),
        Err(SendRefused::Ended(_)) => Sent::Is(Err(why_not(connections, key))),
        Err(SendRefused::Full(bytes)) => {
            if let Some(error) = never_fits(connections, &bytes) {
                return Sent::Is(Err(error));
            }
            *data = Some(bytes);
            // The end, too, is something that it waits for.
            if let Some(shell) = connections.state_of(key) {
                shell.lacks_memory = true;
                put_aside(note(&mut shell.writer, cx));
            }
            Sent::NoMemory
        }
    }
}
