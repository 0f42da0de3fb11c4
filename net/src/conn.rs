//! A connection as `async` code holds it.
//!
//! ```no_run
//! use slipring::{Conn, SendError};
//!
//! async fn echo(mut conn: Conn) -> Result<(), SendError> {
//!     while let Some(data) = conn.recv().await {
//!         conn.send(data).await?; // the kernel's own buffer goes back out; waits for back-pressure only
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let serving = slipring::serve("127.0.0.1:7000".parse()?, echo)?;
//!     println!("listening on {}", serving.addresses()[0]);
//!     serving.join()?;
//!     Ok(())
//! }
//! ```
//!
//! *Who owns the bytes*: never a future. What comes lies in the connection's slot until `recv` takes it, what is to be
//! sent in the outbox once `send` has taken it; the kernel is given memory of the reactor's only. So any future may be
//! dropped at any `.await`:
//!
//! | dropped while it waits | has happened | has not |
//! |---|---|---|
//! | [`recv`](Conn::recv), [`recv_into`](Conn::recv_into) | nothing: what comes is there for the next call | |
//! | [`send`](Conn::send) | nothing: it takes all of its bytes at once, when there is room | they are dropped with it |
//! | [`send_all`](Conn::send_all) | a whole number of its pieces was taken, in their order | the rest |
//! | [`dial`] | the dial is given up | |
//! | [`relay`] | both connections are reset, for what is cut off would look like an end | |
//! | the task, with its [`Conn`] | what was sent goes out, then a FIN | what came and was not taken is dropped |
//!
//! A connection ends in order when its handle is dropped, and is aborted when the task that holds it panics.
//!
//! This file is the handle; `conn/futures.rs` are its waits, `conn/memory.rs` how it waits for memory, `conn/shell.rs`
//! is what a slot keeps for it, `conn/service.rs` the handler beneath, `conn/split.rs` its halves, `conn/copying.rs`
//! how bytes of the caller's memory go into it, `conn/failing.rs` its ends as `io::Error`s, `conn/busy.rs` what a drain
//! is told, `conn/resting.rs` what a pool asks, `conn/dialing.rs` how one is dialed, `conn/relaying.rs` how two are
//! bridged, `conn/serve.rs` a runtime that serves.

mod busy;
mod copying;
mod deadline;
mod dialing;
mod failing;
mod futures;
mod memory;
mod relaying;
mod resting;
mod serve;
mod service;
mod shell;
mod split;

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use slipring_core::canary::{Canary, sings};
use slipring_core::{
    CloseReason, Connections, Key, Lease, Origin, Outgoing, SendRefused, TcpInfo, Timeout,
};

use crate::tasks::{Executor, note, put_aside};

pub use busy::BusyFlag;
pub(crate) use deadline::ReadDeadline;
#[cfg(feature = "faults")]
pub(crate) use dialing::dial_timeout;
pub use dialing::{DialError, dial, dial_with};
#[cfg(feature = "tls")]
pub(crate) use failing::kind_of;
pub use failing::{End, SendError};
pub use futures::{Closing, Receiving, ReceivingInto, Sending};
use memory::Retry;
pub use relaying::{Relayed, Relaying, relay};
pub use resting::Stir;
#[cfg(feature = "tower")]
pub(crate) use serve::start;
pub use serve::{Serve, Serving, serve};
pub use service::{Tasks, tasks};
pub use shell::Shell;
pub use split::{ReadHalf, WriteHalf};

/// Bytes of the pieces that `send_all` makes.
const PIECE_BYTES: usize = 16 << 10;

/// A connection, held by the code that serves it.
///
/// It belongs to its reactor: it is not `Send`, and what it is asked for is done by that reactor's thread. Dropping it
/// closes the connection in order; see the [module](self) for what else a drop does.
///
/// # Panics
/// All its methods panic when they are called outside of the tasks of its reactor.
#[derive(Debug)]
pub struct Conn {
    key: Key,
    reactor: u16,
    /// Its halves are elsewhere, or it has been closed: dropping it does nothing.
    is_spent: bool,
    read_deadline: Option<Box<ReadDeadline>>,
    /// A send waits for memory.
    retry: Option<Box<Retry>>,
    _not_send: PhantomData<*const ()>,
}

impl Conn {
    /// The handle of a connection that has just been given one.
    fn new(connections: &Connections<Shell>, key: Key) -> Self {
        Self::of(key, connections.reactor() as u16)
    }

    fn of(key: Key, reactor: u16) -> Self {
        Self {
            key,
            reactor,
            is_spent: false,
            read_deadline: None,
            retry: None,
            _not_send: PhantomData,
        }
    }

    /// Calls with the connections of its reactor.
    #[inline]
    #[track_caller]
    fn with<R>(&self, call: impl FnOnce(&mut Connections<Shell>, Key) -> R) -> R {
        let called = shell::with(|connections| {
            assert!(
                connections.reactor() == usize::from(self.reactor),
                "a connection of reactor {} was used on reactor {}; a connection stays with its own",
                self.reactor,
                connections.reactor()
            );
            call(connections, self.key)
        });
        match called {
            Some(result) => result,
            None => panic!("a connection was used outside of the tasks of its reactor"),
        }
    }

    /// Whether it can be asked for anything now: its reactor turns, on this thread.
    #[cfg(feature = "tls")]
    pub(crate) fn is_within_reach(&self) -> bool {
        shell::with(|connections| connections.reactor() == usize::from(self.reactor)) == Some(true)
    }

    /// Names the connection in logs, and in [`Connections`].
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    // -------------------------------------------------------------------------------- receiving

    /// The next bytes, in the kernel's own buffer: nothing is copied. `None` once the peer will send no more, when the
    /// connection has ended, or when nothing came within the [read deadline](Self::set_read_deadline):
    /// [`end`](Self::end) says which. What came before a reset comes before its `None`.
    ///
    /// A lease that is kept for long keeps one of few buffers: [`Lease::spill`].
    pub fn recv(&mut self) -> Receiving<'_> {
        self.begin_wait();
        Receiving::new(self)
    }

    /// [`recv`](Self::recv), for those who write futures. Only the last caller is woken.
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Lease>> {
        let polled = self.with(|connections, key| poll_recv(connections, key, cx));
        let Some(deadline) = &mut self.read_deadline else { return polled };
        let waited = polled.is_pending();
        let polled = deadline.poll(polled, cx);
        if waited && polled.is_ready() {
            self.forget_reader();
        }
        polled
    }

    /// Copies the next bytes to the front of `into`; how many, zero once no more will come, or if there is no room in
    /// `into`. What does not fit is there for the next call.
    pub fn recv_into<'a>(&'a mut self, into: &'a mut [u8]) -> ReceivingInto<'a> {
        self.begin_wait();
        ReceivingInto::new(self, into)
    }

    /// Waits for bytes begin. What an earlier one left of its read deadline goes on, or else whoever waits again and
    /// again would wait for ever; but one that has passed while nobody waited does not end this one at once.
    #[inline]
    pub(crate) fn begin_wait(&mut self) {
        if let Some(deadline) = &mut self.read_deadline {
            deadline.begin();
        }
    }

    /// [`recv_into`](Self::recv_into), for those who write futures.
    pub fn poll_recv_into(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<usize> {
        if into.is_empty() {
            return Poll::Ready(0);
        }
        let Some(mut lease) = std::task::ready!(self.poll_recv(cx)) else { return Poll::Ready(0) };
        let count = lease.len().min(into.len());
        into[..count].copy_from_slice(&lease[..count]);
        lease.advance(count);
        if !lease.is_empty() {
            self.unrecv(lease);
        }
        Poll::Ready(count)
    }

    /// Puts back what was received last, or the rest of it: the next [`recv`](Self::recv) gives it. For who reads a
    /// header and leaves what stands behind it to somebody else.
    pub fn unrecv(&mut self, lease: Lease) {
        if lease.is_empty() {
            return;
        }
        self.with(|connections, key| shell::put_back(connections, key, lease));
    }

    /// How receiving ended; `None` as long as it has not, or something is left to be received.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        if let Some(deadline) = &self.read_deadline
            && deadline.has_passed
        {
            return Some(End::ReadTimeout);
        }
        self.with(|connections, key| match connections.state_of(key) {
            Some(shell) => shell.is_at_its_end().then_some(End::Eof),
            None => {
                let end = |remain: &mut shell::Remain| remain.is_taken().then_some(remain.reason);
                shell::with_remain(key, end).flatten().map(End::Closed)
            }
        })
    }

    /// Why the connection ended; `None` as long as it has not. A connection whose peer has ended its direction has
    /// not ended.
    #[must_use]
    pub fn reason(&self) -> Option<CloseReason> {
        self.with(|connections, key| match connections.state_of(key) {
            Some(_) => None,
            None => reason(key),
        })
    }

    /// Waits until the connection has ended. Bytes that come meanwhile are kept for `recv`.
    pub fn closed(&mut self) -> Closing<'_> {
        Closing::new(self)
    }

    /// [`closed`](Self::closed), for those who write futures. Of those who wait for this and for
    /// [`poll_ready`](Self::poll_ready), only the last is woken.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.with(|connections, key| match connections.state_of(key) {
            Some(shell) => {
                // Whoever waits for room waits for the end too.
                put_aside(note(&mut shell.writer, cx));
                Poll::Pending
            }
            None => Poll::Ready(reason(key).unwrap_or(CloseReason::DriverFailed)),
        })
    }

    /// Nobody waits for bytes any more.
    pub(crate) fn forget_reader(&self) {
        self.forget(|shell| shell.reader.take());
    }

    /// Nobody waits for room or for the end any more: for who has asked [`poll_closed`](Self::poll_closed) and goes on
    /// to something else.
    pub(crate) fn forget_writer(&self) {
        self.forget(|shell| {
            shell.lacks_memory = false;
            shell.writer.take()
        });
    }

    fn forget(&self, take: impl FnOnce(&mut Shell) -> Option<Waker>) {
        shell::with(|connections| {
            if connections.reactor() == usize::from(self.reactor) {
                put_aside(connections.state_of(self.key).and_then(take));
            }
        });
    }

    // ---------------------------------------------------------------------------------- sending

    /// Sends, behind all that waits. It waits only as long as the outbox is above its watermark, that is, for
    /// back-pressure, and then takes all bytes at once or, dropped before, none.
    ///
    /// # Errors
    /// [`SendError`]; the bytes are dropped.
    pub fn send(&mut self, data: impl Into<Outgoing>) -> Sending<'_> {
        Sending::new(self, data.into())
    }

    /// Sends a copy of these bytes, however many: in pieces, each as [`send`](Self::send) would.
    ///
    /// # Errors
    /// [`SendError`]; how many of the pieces were taken is not told.
    pub async fn send_all(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        for piece in bytes.chunks(self.piece_bytes()) {
            self.send(piece.to_vec()).await?;
        }
        Ok(())
    }

    /// Whether a [`send`](Self::send) would be taken at once.
    ///
    /// # Errors
    /// [`SendError`], if nothing can be sent any more.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.with(|connections, key| poll_ready(connections, key, cx))
    }

    /// Sends without waiting, whether the outbox is above its watermark or not: for those who have asked
    /// [`poll_ready`](Self::poll_ready).
    ///
    /// # Errors
    /// [`SendRefused`], with the bytes.
    pub fn try_send(&mut self, data: impl Into<Outgoing>) -> Result<(), SendRefused> {
        self.with(|connections, key| connections.try_send_to(key, data))
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn outbox_bytes(&self) -> u32 {
        self.with(|connections, key| connections.outbox_bytes(key))
    }

    /// Bytes that may wait at most.
    #[cfg(feature = "tls")]
    pub(crate) fn outbox_bytes_max(&self) -> usize {
        self.with(|connections, _| connections.outbox_bytes_max() as usize)
    }

    /// Bytes that the reactor may own at most.
    #[cfg(feature = "tls")]
    pub(crate) fn owned_bytes_max(&self) -> u64 {
        self.with(|connections, _| connections.owned_bytes_max())
    }

    /// Half-closes: what waits is sent, our FIN follows. Receiving goes on.
    pub fn shutdown(&mut self) {
        self.with(shut_down);
    }

    // ----------------------------------------------------------------------------------- ending

    /// Closes in order, as dropping it does: what waits is sent, our FIN follows, the peer's is waited for. Returns at
    /// once; [`closed`](Self::closed) waits for the end.
    pub fn close(&mut self) {
        self.with(|connections, key| connections.close_of(key));
    }

    /// Ends at once: the peer sees a reset, what waits to be sent is dropped.
    pub fn abort(&mut self) {
        self.with(|connections, key| connections.abort_of(key));
    }

    // -------------------------------------------------------------------------------- deadlines

    /// The connection ends when nothing moves in either direction for so long. Default: the runtime's
    /// ([`Timeouts::idle`](crate::Timeouts::idle)).
    pub fn set_idle_timeout(&mut self, idle: Timeout) {
        self.with(|connections, key| connections.set_idle_timeout_of(key, idle));
    }

    /// The connection is in a phase, such as a handshake, that has to be over within this time, whatever moves
    /// meanwhile; otherwise it is reset ([`CloseReason::PhaseTimeout`]). See
    /// [`Ctx::set_phase_deadline`](crate::Ctx::set_phase_deadline).
    pub fn set_phase_deadline(&mut self, within: Timeout) {
        self.with(|connections, key| connections.set_phase_deadline_of(key, within));
    }

    /// The phase is over.
    pub fn end_phase(&mut self) {
        self.with(|connections, key| connections.end_phase_of(key));
    }

    /// Each wait for bytes from now on ends after this long with `None` and [`End::ReadTimeout`]; the connection stays
    /// as it is, and a later `recv` may wait again. A wait that is dropped goes on in the next one, unless its time has
    /// passed until then. Default: never.
    pub fn set_read_deadline(&mut self, within: Timeout) {
        self.read_deadline = ReadDeadline::new(within);
    }

    /// For who looks after it instead.
    #[cfg(feature = "tls")]
    pub(crate) fn take_read_deadline(&mut self) -> Option<Box<ReadDeadline>> {
        self.read_deadline.take()
    }

    // ------------------------------------------------------------------------------- questions

    /// The peer's address: see [`Connections::peer_of`]. `None` once the connection has ended, so whoever wants it then
    /// keeps it.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.with(Connections::peer_of)
    }

    /// The address of this end: see [`Connections::local_of`]. `None` once the connection has ended.
    #[must_use]
    pub fn local(&self) -> Option<SocketAddr> {
        self.with(Connections::local_of)
    }

    /// How it goes, as the kernel counts it at this moment: see [`Connections::info_of`]. `None` once the connection
    /// has ended.
    #[must_use]
    pub fn info(&self) -> Option<TcpInfo> {
        self.with(|connections, key| connections.info_of(key))
    }

    // ------------------------------------------------------------------------------- the rest

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.with(|connections, key| connections.origin(key))
    }

    /// For telling a drain that something is under way on it.
    #[must_use]
    pub fn busy_flag(&self) -> BusyFlag {
        BusyFlag { key: self.key, reactor: self.reactor, _not_send: PhantomData }
    }

    /// Two halves that different tasks of the reactor may hold.
    #[must_use]
    pub fn split(mut self) -> (ReadHalf, WriteHalf) {
        self.with(|connections, key| set_handles(connections, key, 2));
        self.is_spent = true;
        let read_deadline = self.read_deadline.take();
        let mut read = Self::of(self.key, self.reactor);
        read.read_deadline = read_deadline;
        (ReadHalf::new(read), WriteHalf::new(Self::of(self.key, self.reactor)))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.is_spent {
            return;
        }
        let (key, is_unwinding) = (self.key, is_unwinding());
        at_once_or_later(self.reactor, move |connections| {
            drop_handle(connections, key, is_unwinding);
        });
    }
}

/// Does something about a connection: now, or in the next turn if this is called while the connections are not to be
/// had. That is so when a handle is dropped with the last waker of somebody's own executor, wherever that is dropped.
/// Without a reactor there is nothing to be done: its connections have ended, or are just ending.
fn at_once_or_later(reactor: u16, act: impl FnOnce(&mut Connections<Shell>) + 'static) {
    // Those of a simulation share a thread: dropped in another's turn, it ends with its own reactor.
    let act = move |connections: &mut Connections<Shell>| {
        if connections.reactor() == usize::from(reactor) {
            act(connections);
        }
    };
    let mut act = Some(act);
    shell::with(|connections| act.take().map(|act| act(connections)));
    if let Some(act) = act {
        Executor::with(|executor| {
            executor.later(move || {
                shell::with(act);
            });
        });
    }
}

/// Whether the code that calls is being taken apart by a panic.
fn is_unwinding() -> bool {
    Executor::with(|executor| executor.is_unwinding()).unwrap_or(false)
}

fn reason(key: Key) -> Option<CloseReason> {
    shell::with_remain(key, |remain| remain.reason)
}

#[inline]
fn poll_recv(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
) -> Poll<Option<Lease>> {
    let Some(shell) = connections.state_of(key) else {
        return Poll::Ready(shell::with_remain(key, |remain| remain.pop()).flatten());
    };
    if let Some((lease, resumes)) = shell.pop(key) {
        if resumes {
            connections.resume_of(key);
        }
        return Poll::Ready(Some(lease));
    }
    if shell.is_ended {
        return Poll::Ready(None);
    }
    put_aside(note(&mut shell.reader, cx));
    Poll::Pending
}

#[inline]
fn poll_ready(
    connections: &mut Connections<Shell>,
    key: Key,
    cx: &mut Context<'_>,
) -> Poll<Result<(), SendError>> {
    // Behind our own end there is nothing to wait for.
    if !connections.is_outbox_high(key) || !connections.may_send_to(key) {
        return Poll::Ready(can_send(connections, key));
    }
    if let Some(shell) = connections.state_of(key) {
        put_aside(note(&mut shell.writer, cx));
    }
    Poll::Pending
}

fn can_send(connections: &mut Connections<Shell>, key: Key) -> Result<(), SendError> {
    match connections.may_send_to(key) {
        true => Ok(()),
        false => Err(why_not(connections, key)),
    }
}

#[cold]
fn why_not(connections: &mut Connections<Shell>, key: Key) -> SendError {
    match connections.state_of(key) {
        Some(shell) if shell.is_shut_down => SendError::ShutDown,
        Some(_) => SendError::Closing,
        None => SendError::Ended(reason(key).unwrap_or(CloseReason::DriverFailed)),
    }
}

fn shut_down(connections: &mut Connections<Shell>, key: Key) {
    if let Some(shell) = connections.state_of(key) {
        shell.is_shut_down = true;
    }
    connections.shutdown_of(key);
}

fn set_handles(connections: &mut Connections<Shell>, key: Key, handles: u8) {
    match connections.state_of(key) {
        Some(shell) => shell.handles = handles,
        None => {
            shell::with_remain(key, |remain| remain.handles = handles);
        }
    }
}

/// One handle less. With the last one the connection ends: in order, or at once if what held it has panicked.
fn drop_handle(connections: &mut Connections<Shell>, key: Key, is_unwinding: bool) {
    let Some(shell) = connections.state_of(key) else {
        let left = shell::with_remain(key, |remain| {
            remain.handles -= 1;
            remain.handles
        });
        if left == Some(0) && !sings(Canary::RemainKept) {
            shell::with_remains(|remains| remains.forget(key));
        }
        return;
    };
    shell.handles -= 1;
    if sings(Canary::DroppedDialGoesOn) && !shell.is_open {
        return;
    }
    if is_unwinding && !sings(Canary::PanicClosesInOrder) {
        connections.panicked_of(key);
    } else if shell.handles == 0 {
        connections.close_of(key);
    }
    if let Some(shell) = connections.state_of(key)
        && shell.handles == 0
    {
        shell.discard();
    }
}

/// Nobody receives any more: what comes is dropped, so that the peer can go on sending to its end.
fn stop_receiving(connections: &mut Connections<Shell>, key: Key) {
    match connections.state_of(key) {
        Some(shell) => {
            if shell.discard() {
                connections.resume_of(key);
            }
        }
        None => {
            shell::with_remain(key, shell::Remain::discard);
        }
    }
}
