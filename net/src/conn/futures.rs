//! The waits of a connection, as types of their own: small, since each task has room for its largest.
//!
//! None of them holds a byte that came, and none but [`Sending`] one that goes; so each may be dropped at any time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use slipring_core::canary::{Canary, sings};
use slipring_core::{CloseReason, Connections, Key, Lease, Outgoing, SendRefused};

use super::{Conn, SendError, Shell, why_not};
use crate::tasks::{Timer, note, put_aside};

/// A send for which there is no memory tries again after this long, milliseconds: nothing tells when there is some.
pub(super) const NO_MEMORY_MS: u64 = 5;

/// The wait of [`Conn::recv`].
#[derive(Debug)]
#[must_use = "it receives once it is awaited"]
pub struct Receiving<'a> {
    pub(super) conn: &'a mut Conn,
}

impl Future for Receiving<'_> {
    type Output = Option<Lease>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        self.conn.poll_recv(cx)
    }
}

/// The wait of [`Conn::recv_into`].
#[derive(Debug)]
#[must_use = "it receives once it is awaited"]
pub struct ReceivingInto<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) into: &'a mut [u8],
}

impl Future for ReceivingInto<'_> {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let Self { conn, into } = &mut *self;
        conn.poll_recv_into(cx, into)
    }
}

/// The wait of [`Conn::send`]: the bytes are its own until they are taken, all at once.
#[derive(Debug)]
#[must_use = "it sends once it is awaited"]
pub struct Sending<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) data: Option<Outgoing>,
    pub(super) retry: Option<Box<Retry>>,
}

impl Future for Sending<'_> {
    type Output = Result<(), SendError>;

    /// # Panics
    /// If it is polled again behind its result.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Self { conn, data, retry } = &mut *self;
        conn.with(|connections, key| poll_send(connections, key, cx, data, retry))
    }
}

/// The wait of [`Conn::closed`].
#[derive(Debug)]
#[must_use = "it waits once it is awaited"]
pub struct Closing<'a> {
    pub(super) conn: &'a mut Conn,
}

impl Future for Closing<'_> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.conn.poll_closed(cx)
    }
}

/// When a send for which there was no memory is tried again.
#[derive(Debug)]
pub(super) struct Retry {
    timer: Timer,
    at_ms: u64,
}

#[inline]
fn poll_send(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
    data: &mut Option<Outgoing>,
    retry: &mut Option<Box<Retry>>,
) -> Poll<Result<(), SendError>> {
    let Some(bytes) = data.take() else { panic!("polled after it was ready") };
    let bytes = match bytes {
        Outgoing::Lease(lease) => match connections.send_lease_unless_high(key, lease) {
            Ok(()) => return Poll::Ready(Ok(())),
            Err(lease) => Outgoing::Lease(lease),
        },
        bytes => bytes,
    };
    poll_send_rarely(connections, key, cx, bytes, data, retry)
}

/// The long way: the bytes are not received ones, or there is something in their way.
#[inline(never)]
fn poll_send_rarely(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
    bytes: Outgoing,
    data: &mut Option<Outgoing>,
    retry: &mut Option<Box<Retry>>,
) -> Poll<Result<(), SendError>> {
    if connections.is_outbox_high(key) {
        *data = Some(bytes);
        if let Some(shell) = connections.state_of(key) {
            put_aside(note(&mut shell.writer, cx));
        }
        return Poll::Pending;
    }
    let mut bytes = bytes;
    if sings(Canary::SendTakesHalf)
        && let Outgoing::Owned(bytes) = &mut bytes
    {
        bytes.truncate(bytes.len().div_ceil(2));
    }
    match connections.try_send_to(key, bytes) {
        Ok(()) => Poll::Ready(Ok(())),
        Err(SendRefused::Ended(_)) => Poll::Ready(Err(why_not(connections, key))),
        Err(SendRefused::Full(bytes)) => {
            let most = connections.outbox_bytes_max() as usize;
            if bytes.len() > most {
                return Poll::Ready(Err(SendError::TooMany { bytes: bytes.len(), most }));
            }
            *data = Some(bytes);
            // The end, too, is something that it waits for.
            if let Some(shell) = connections.state_of(key) {
                put_aside(note(&mut shell.writer, cx));
            }
            wait_for_memory(connections.now_ms(), cx, retry);
            Poll::Pending
        }
    }
}

/// There is no room for so much, though the outbox is not high: nothing tells when there is.
#[cold]
fn wait_for_memory(now_ms: u64, cx: &mut Context<'_>, retry: &mut Option<Box<Retry>>) {
    let at_ms = now_ms + NO_MEMORY_MS;
    let retry = retry.get_or_insert_with(|| Box::new(Retry { timer: Timer::default(), at_ms }));
    if retry.at_ms <= now_ms {
        retry.at_ms = at_ms;
    }
    let _ = retry.timer.poll(retry.at_ms, cx);
}
