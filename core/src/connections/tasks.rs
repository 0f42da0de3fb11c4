//! What handlers need that run tasks of their own: to be woken, to know when memory is short, to end what panicked.

use std::fmt;
use std::sync::Arc;

use super::Connections;
use crate::admission::Admission;
use crate::calling::TaskNotes;
use crate::connection::Input;
use crate::error::CloseReason;
use crate::token::Key;

/// Rings a reactor from any thread: it turns, and calls [`Handler::on_turn`](crate::Handler::on_turn) in that turn.
///
/// Rings that come before the reactor has looked count as one. A reactor that has ended hears nothing any more.
#[derive(Clone)]
pub struct Doorbell {
    admission: Arc<Admission>,
    reactor: usize,
}

impl Doorbell {
    /// Rings. A system call: ring once for many things.
    pub fn ring(&self) {
        self.admission.ring_one(self.reactor);
    }

    /// The number of the reactor that it rings, and how many there are in its runtime.
    #[must_use]
    pub fn reactor(&self) -> (usize, usize) {
        (self.reactor, self.admission.reactors())
    }

    /// Whether both ring reactors of one runtime.
    #[must_use]
    pub fn is_of_the_same_runtime(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.admission, &other.admission)
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

impl<S> Connections<S> {
    /// What other threads wake this reactor by.
    #[must_use]
    pub fn bell(&self) -> Doorbell {
        Doorbell { admission: Arc::clone(&self.admission), reactor: self.reactor }
    }

    /// Where a handler that runs tasks notes which of them it runs.
    #[must_use]
    pub fn task_notes(&self) -> TaskNotes {
        TaskNotes::new(&self.calling)
    }

    /// The number of this reactor in its runtime, from zero on.
    #[must_use]
    pub fn reactor(&self) -> usize {
        self.reactor
    }

    /// Whether fewer than a quarter of the ring's buffers are free: whoever keeps leases should copy them to plain
    /// memory ([`Lease::spill`](crate::Lease::spill)).
    #[must_use]
    pub fn is_short_of_buffers(&self) -> bool {
        self.memory.buffers_free() < self.memory.buffers().div_ceil(4)
    }

    /// Whether bytes for this connection would be taken, as far as it goes by where the connection stands: not once it
    /// has ended, or was asked to.
    #[must_use]
    pub fn may_send_to(&self, key: Key) -> bool {
        self.slots.get(key).is_some_and(|slot| slot.connection.may_send())
    }

    /// What the outbox of one connection may hold, bytes
    /// ([`Limits::outbox_bytes_max`](crate::Limits::outbox_bytes_max)).
    #[must_use]
    pub fn outbox_bytes_max(&self) -> u32 {
        self.rules.outbox_bytes_max
    }

    /// What the reactor may own beside the buffers of its ring, bytes
    /// ([`Limits::owned_bytes_max`](crate::Limits::owned_bytes_max)): more at once is never taken.
    #[must_use]
    pub fn owned_bytes_max(&self) -> u64 {
        self.memory.owned_bytes_max()
    }

    /// So many of [those](Self::owned_bytes_max) it would take now.
    #[must_use]
    pub fn owned_bytes_free(&self) -> u64 {
        self.memory.owned_bytes_max().saturating_sub(self.memory.owned_bytes())
    }

    /// Something that the handler ran for this connection has panicked, and the handler has caught it: the connection
    /// ends as after a panic of the handler's own, with [`CloseReason::HandlerPanic`].
    pub fn panicked_of(&mut self, key: Key) {
        self.ask(key, Input::Abort(CloseReason::HandlerPanic));
    }

    /// Counts a panic that the handler has caught.
    pub fn count_panic(&mut self) {
        self.counters.handler_panics += 1;
    }
}
