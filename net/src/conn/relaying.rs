//! Two connections bridged inside their reactor, for as long as both live.
//!
//! ```text
//!   on_data of a ---lease---> outbox of b          nothing is copied, and no task is woken
//!   on_eof of a ------------> FIN of b             behind the bytes before it
//!   on_close of a ----------> b closed, or reset   as a was
//!                                both over -------> the task that waits
//! ```
//!
//! A full outbox holds back the other's reading, each way by itself. What came before the relay began, and was not
//! received, goes first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use slipring_core::canary::{Canary, sings};
use slipring_core::{CloseReason, Connections, Key};

use super::{Conn, Shell, reason, shell};
use crate::tasks::{note, put_aside};

/// Whom a connection relays to, if to anybody. Eight bytes, since every slot has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partner {
    index: u32,
    generation: u32,
}

impl Partner {
    const NOBODY: Self = Self { index: u32::MAX, generation: 0 };

    fn of(key: Key) -> Self {
        Self { index: key.index(), generation: key.generation() }
    }

    #[inline]
    pub(super) fn key(self) -> Option<Key> {
        (self != Self::NOBODY).then(|| Key::new(self.index, self.generation))
    }
}

impl Default for Partner {
    fn default() -> Self {
        Self::NOBODY
    }
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Why its first connection did.
    pub first: CloseReason,
    /// Why its second connection did.
    pub second: CloseReason,
}

impl Relayed {
    /// Whether both ended in order: nothing that one of them sent is missing on the other side.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        !self.first.is_abortive() && !self.second.is_abortive()
    }
}

/// Relays what one connection receives to the other, and back, until both have ended.
///
/// The bytes move inside the reactor, in the kernel's own buffers; the task sleeps meanwhile. A full outbox holds back
/// the other side's reading. A FIN passes on behind the bytes before it, and the other direction lives on until it
/// ends too, or falls silent for the [half-closed timeout](crate::Timeouts::half_closed). A reset passes on as one: a
/// torn stream must not be taken for a whole one. Bytes that had come before, and were not received, go first; so
/// whoever reads a header may [put back](Conn::unrecv) what stands behind it.
///
/// *Dropped* while it relays, it resets both sides, since whatever is cut off there would look like an end; dropped
/// before it was polled, it drops two connections as they are. A drain closes a relay on which nothing moves.
///
/// ```no_run
/// use slipring::{Conn, Serve, dial, relay};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let upstream = "127.0.0.1:8001".parse()?;
/// let builder = slipring::Runtime::builder().listen("127.0.0.1:8000".parse()?).max_dialed(1000);
/// let serving = builder.serve(move |client: Conn| async move {
///     let Ok(server) = dial(upstream).await else { return };
///     relay(client, server).await;
/// })?;
/// # serving.join()?;
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// Outside of a reactor's tasks, when it is polled, and if the two are of different reactors.
pub fn relay(first: Conn, second: Conn) -> Relaying {
    Relaying { first, second, stage: Stage::Unpolled }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unpolled,
    Relays,
    Over,
}

/// The wait of [`relay`].
#[derive(Debug)]
#[must_use = "it relays once it is awaited"]
pub struct Relaying {
    first: Conn,
    second: Conn,
    stage: Stage,
}

impl Relaying {
    fn begin(&self) {
        let (first, second) = (self.first.key, self.second.key);
        assert!(
            self.first.reactor == self.second.reactor,
            "a relay between reactors {} and {}; a connection stays with its own",
            self.first.reactor,
            self.second.reactor
        );
        self.first.with(|connections, _| {
            for (from, to) in [(first, second), (second, first)] {
                join(connections, from, to);
            }
            for (from, to) in [(first, second), (second, first)] {
                catch_up(connections, from, to);
            }
        });
    }
}

impl Future for Relaying {
    type Output = Relayed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Relayed> {
        if self.stage == Stage::Unpolled {
            self.begin();
            self.stage = Stage::Relays;
        }
        let end = |conn: &Conn| {
            conn.with(|connections, key| match connections.state_of(key) {
                Some(shell) => {
                    put_aside(note(&mut shell.writer, cx));
                    None
                }
                None => Some(reason(key).unwrap_or(CloseReason::DriverFailed)),
            })
        };
        match (end(&self.first), end(&self.second)) {
            (Some(first), Some(second)) => {
                self.stage = Stage::Over;
                Poll::Ready(Relayed { first, second })
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        if self.stage != Stage::Relays || sings(Canary::DroppedRelayCloses) {
            return;
        }
        for conn in [&self.first, &self.second] {
            let key = conn.key;
            super::at_once_or_later(conn.reactor, move |connections| connections.abort_of(key));
        }
    }
}

#[cfg(feature = "faults")]
impl Conn {
    /// [`abort`](Self::abort) for drops: in the next turn, where the connections are not to be had.
    pub(crate) fn abort_at_once_or_later(&self) {
        let key = self.key;
        super::at_once_or_later(self.reactor, move |connections| connections.abort_of(key));
    }

    /// See [`Connections::is_lost`].
    pub(crate) fn is_lost(&self) -> bool {
        self.with(|connections, key| connections.is_lost(key))
    }
}

/// From now on what comes goes there.
fn join(connections: &mut Connections<Shell>, from: Key, to: Key) {
    if let Some(shell) = connections.state_of(from) {
        shell.partner = Partner::of(to);
        put_aside(shell.reader.take());
    }
}

/// What had come by then goes there, and so does an end.
fn catch_up(connections: &mut Connections<Shell>, from: Key, to: Key) {
    let forgets = sings(Canary::RelayForgetsInbox);
    while let Some((lease, resumes)) = connections.state_of(from).and_then(|shell| shell.pop(from))
    {
        if !forgets {
            connections.forward_of(from, to, lease);
        }
        if resumes {
            connections.resume_of(from);
        }
    }
    match connections.state_of(from) {
        Some(shell) if shell.is_ended => connections.shutdown_of(to),
        Some(_) => {}
        None => {
            while let Some(lease) = shell::with_remain(from, |remain| remain.pop()).flatten() {
                connections.forward_of(from, to, lease);
            }
            end(connections, to, reason(from).unwrap_or(CloseReason::DriverFailed));
        }
    }
}

/// The other of the two has ended for this reason.
pub(super) fn end(connections: &mut Connections<Shell>, to: Key, reason: CloseReason) {
    match reason.is_abortive() {
        true => connections.abort_of(to),
        false => connections.close_of(to),
    }
}
