//! What user code is to a reactor: a [`Handler`], called when something happened to one of its
//! connections, and the [`Ctx`] it acts through meanwhile.
//!
//! A handler is one value per reactor, called by its thread only: no locks, no `Send`. It must not block:
//! all connections of the reactor wait for it. A panic in it ends the connection it was called for, and no
//! other.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use crate::connections::Connections;
use crate::driver::TcpInfo;
use crate::error::CloseReason;
use crate::moving::Luggage;
use crate::sys::memory::Lease;
use crate::token::Key;

/// Where a connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Accepted by the listener of this number, in the order of the builder's `listen` calls.
    Accepted(usize),
    /// Dialed by [`Connections::dial`].
    Dialed,
}

/// A service on connections.
///
/// ```
/// use slipring_core::{Ctx, Handler, Lease};
///
/// /// Sends everything back.
/// struct Echo;
///
/// impl Handler for Echo {
///     type State = ();
///
///     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
///         ctx.send(data);
///     }
/// }
/// ```
pub trait Handler: Sized {
    /// What the handler keeps of each connection. It lives in the connection's slot.
    type State: Default + 'static;

    /// The reactor runs; nothing is accepted yet. The place to dial from.
    fn on_start(&mut self, connections: &mut Connections<Self::State>) {
        let _ = connections;
    }

    /// A connection is established: accepted, or dialed with success.
    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, origin: Origin) {
        let _ = (ctx, origin);
    }

    /// Bytes came. Drop the lease, keep it, or send it on.
    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease);

    /// The peer will send no more. By default the connection is closed, once all is sent that waits.
    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        ctx.close();
    }

    /// The outbox, which had been above its high watermark, fell below the low one.
    fn on_writable(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// Nothing moved for the time of [`Ctx::set_keep_alive`]: the moment for a ping.
    fn on_keep_alive(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        let _ = ctx;
    }

    /// The connection could go to a reactor that has less to do ([`Builder::rebalance`](crate::Builder::rebalance)).
    /// It has been idle for a second, nothing of it is with the kernel, and nothing of it waits to be sent. What is
    /// returned goes along, and is given to [`on_arrive`](Self::on_arrive); with `None`, the default, it stays.
    ///
    /// After `Some` its key means nothing any more here, and [`on_close`](Self::on_close) is called where it is then.
    /// Its state is dropped once it has left, maybe after it has arrived. Leases and keys belong to a reactor and
    /// cannot go along.
    fn on_leave(&mut self, ctx: &mut Ctx<'_, Self::State>) -> Option<Luggage> {
        let _ = ctx;
        None
    }

    /// A connection came from another reactor, with what [`on_leave`](Self::on_leave) gave it along there. Its key
    /// is a new one, its state a default; timeouts that were set for it are as they were. If it could not leave
    /// after all, the same reactor gets it back so, under the key it had, and with its state.
    fn on_arrive(&mut self, ctx: &mut Ctx<'_, Self::State>, luggage: Luggage) {
        let _ = (ctx, luggage);
    }

    /// The handler's own part of a turn: once in each, behind the calls for what the turn brought, and before what was
    /// asked for goes to the kernel. The place for work that no connection stands for, such as tasks that were woken.
    ///
    /// A reactor turns when something happens to it: a completion, a timer, [a ring](Connections::bell) from another
    /// thread. When it should turn without, [`next_turn_ms`](Self::next_turn_ms) says. After a panic in it, it is
    /// called again in the next turn.
    fn on_turn(&mut self, connections: &mut Connections<Self::State>) {
        let _ = connections;
    }

    /// When the next turn has to come at the latest though nothing happens: milliseconds on the reactor's clock
    /// ([`Connections::now_ms`]), now or earlier for at once; `None` for whenever something happens. Asked before the
    /// reactor waits, behind all calls of a turn.
    fn next_turn_ms(&self) -> Option<u64> {
        None
    }

    /// Whether the handler has something under way that a drain has to wait for, though no connection is left. The
    /// drain's deadline ends it all the same.
    fn is_busy(&self) -> bool {
        false
    }

    /// Whether a connection on which nothing has moved for a moment has nothing under way either, such as an answer
    /// that is being made: a drain then asks it to go. One that has is left alone until its bytes move again and it is
    /// quiet behind them, or until the drain's deadline. It is not closed to make room for a client either
    /// ([`OnFull::EvictIdle`](crate::OnFull::EvictIdle)), nor because the reactor has too much. Asked during a drain,
    /// and when somebody idle is looked for.
    fn is_idle(&self, state: &Self::State) -> bool {
        let _ = state;
        true
    }

    /// The reactor has ended: a drain is complete, or its ring has failed. The last call; nobody is connected any more,
    /// and nothing can be begun. The place to let go of what the handler has kept, leases first.
    fn on_end(&mut self, connections: &mut Connections<Self::State>) {
        let _ = connections;
    }

    /// The connection is over, and its key means nothing any more after this call. Called exactly once for
    /// every connection, for a dial that failed too; but not for one that was on its way between two reactors when the
    /// last of them failed, or whose new state panicked as it was made. Others may be acted upon by their keys.
    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, reason: CloseReason) {
        let _ = (ctx, reason);
    }
}

/// The connection a handler is called for, and all others of its reactor behind it.
///
/// Derefs to [`Connections`], whose methods act on any connection by its key.
#[derive(Debug)]
pub struct Ctx<'a, S> {
    connections: &'a mut Connections<S>,
    key: Key,
}

impl<'a, S> Ctx<'a, S> {
    pub(crate) fn new(connections: &'a mut Connections<S>, key: Key) -> Self {
        Self { connections, key }
    }

    /// Names this connection, for use in later calls.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// What the handler keeps of it.
    ///
    /// # Panics
    /// Never while the call that `self` was made for runs.
    #[inline]
    pub fn state(&mut self) -> &mut S {
        self.connections.state_of(self.key).expect("the connection of a call is there")
    }

    /// The peer's address: see [`Connections::peer_of`].
    pub fn peer(&mut self) -> Option<SocketAddr> {
        self.connections.peer_of(self.key)
    }

    /// The address of this end: see [`Connections::local_of`].
    pub fn local(&mut self) -> Option<SocketAddr> {
        self.connections.local_of(self.key)
    }

    /// How it goes, as the kernel counts it: see [`Connections::info_of`].
    #[must_use]
    pub fn info(&self) -> Option<TcpInfo> {
        self.connections.info_of(self.key)
    }

    /// Sends, after all that waits. See [`Connections::send_to`].
    #[inline]
    pub fn send(&mut self, data: impl Into<Outgoing>) {
        self.connections.send_from(self.key, self.key, data.into());
    }

    /// Sends to another connection of this reactor; if its outbox gets too full, the reading of *this* one
    /// is held back until it has emptied. See [`Connections::send_to`].
    #[inline]
    pub fn forward(&mut self, to: Key, data: impl Into<Outgoing>) {
        self.connections.send_from(self.key, to, data.into());
    }

    /// Closes in order: see [`Connections::close_of`].
    pub fn close(&mut self) {
        self.connections.close_of(self.key);
    }

    /// Half-closes: see [`Connections::shutdown_of`].
    pub fn shutdown(&mut self) {
        self.connections.shutdown_of(self.key);
    }

    /// Ends at once, with a reset: see [`Connections::abort_of`].
    pub fn abort(&mut self) {
        self.connections.abort_of(self.key);
    }

    /// Holds the reading back until [`Ctx::resume`]. Bytes that the kernel has delivered already still
    /// come; while it is held back, the peer's end goes unnoticed too.
    pub fn pause(&mut self) {
        self.connections.pause_of(self.key);
    }

    /// Lets the reading go on.
    pub fn resume(&mut self) {
        self.connections.resume_of(self.key);
    }

    /// Sets the idle timeout of this connection alone.
    pub fn set_idle_timeout(&mut self, idle: crate::config::Timeout) {
        self.connections.set_idle_timeout_of(self.key, idle);
    }

    /// Asks for [`Handler::on_keep_alive`] whenever nothing moved for so long. By default: never.
    pub fn set_keep_alive(&mut self, quiet: crate::config::Timeout) {
        self.connections.set_keep_alive_of(self.key, quiet);
    }

    /// From now on the connection is in a phase that has to end within this time, such as a handshake: a deadline
    /// that no byte moves, so a peer that sends a byte now and then cannot stay. It takes the place of the phase
    /// that runs, the wait for the first byte ([`Timeouts::first_byte`](crate::Timeouts::first_byte)) too;
    /// [`Timeout::Never`](crate::Timeout::Never) is the same as [`Ctx::end_phase`], which ends it.
    ///
    /// Otherwise the peer is reset, and the reason is
    /// [`CloseReason::PhaseTimeout`](crate::CloseReason::PhaseTimeout). A connection that is being dialed has its
    /// own deadline until it is open, and one that closes has its own from then on.
    pub fn set_phase_deadline(&mut self, within: crate::config::Timeout) {
        self.connections.set_phase_deadline_of(self.key, within);
    }

    /// The phase is over: what comes now may take its time, within the other timeouts.
    pub fn end_phase(&mut self) {
        self.connections.end_phase_of(self.key);
    }
}

impl<S> Deref for Ctx<'_, S> {
    type Target = Connections<S>;
    fn deref(&self) -> &Connections<S> {
        self.connections
    }
}

impl<S> DerefMut for Ctx<'_, S> {
    fn deref_mut(&mut self) -> &mut Connections<S> {
        self.connections
    }
}

/// Bytes to send: a received lease, owned bytes, or bytes that live for ever.
#[derive(Debug)]
pub enum Outgoing {
    /// Received bytes; nothing is copied.
    Lease(Lease),
    /// Owned bytes; nothing is copied.
    Owned(Vec<u8>),
    /// Constant bytes; nothing is copied.
    Static(&'static [u8]),
}

impl Outgoing {
    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Lease(lease) => lease.len(),
            Self::Owned(bytes) => bytes.len(),
            Self::Static(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Lease> for Outgoing {
    #[inline]
    fn from(lease: Lease) -> Self {
        Self::Lease(lease)
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<&'static [u8]> for Outgoing {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Outgoing {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self::Static(bytes)
    }
}

impl From<&'static str> for Outgoing {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}
