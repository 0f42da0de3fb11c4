//! Bytes into outboxes: of handlers, for any connection.

use super::{Connections, SendRefused, Slot};
use crate::connection::{Input, Surroundings};
use crate::error::CloseReason;
use crate::handler::Outgoing;
use crate::span::{Segment, Span};
use crate::sys::memory::Lease;
use crate::token::Key;

impl<S> Connections<S> {
    /// Sends to any connection of this reactor, after all that waits there. Bytes for a connection that has
    /// ended, or was asked to, are dropped: its end is told by `on_close`.
    ///
    /// The outbox has a bound (`Limits::outbox_bytes_max`): a handler that makes bytes of its own should
    /// look at [`is_outbox_high`](Self::is_outbox_high) first, or use [`try_send_to`](Self::try_send_to).
    /// Passing the bound ends the connection with [`CloseReason::OutboxOverflow`]. Received leases do not
    /// count against it: [`Ctx::send`](crate::Ctx::send) and [`Ctx::forward`](crate::Ctx::forward) hold those
    /// back that they come from.
    pub fn send_to(&mut self, to: Key, data: impl Into<Outgoing>) {
        if let Err(SendRefused::Full(_)) = self.try_send_to(to, data) {
            self.ask(to, Input::Abort(CloseReason::OutboxOverflow));
        }
    }

    /// Sends to any connection of this reactor, or gives the bytes back.
    ///
    /// # Errors
    /// [`SendRefused`], with the bytes.
    pub fn try_send_to(&mut self, to: Key, data: impl Into<Outgoing>) -> Result<(), SendRefused> {
        self.append(to, data.into()).map(|_| ())
    }

    /// Sends received bytes, unless the outbox is above its high watermark: what a task does most, in the shortest way.
    ///
    /// # Errors
    /// The lease, if this cannot be: [`try_send_to`](Self::try_send_to) says why, or does it after all.
    #[inline]
    pub fn send_lease_unless_high(&mut self, to: Key, lease: Lease) -> Result<(), Lease> {
        let is_low = |slot: &Slot<S>| slot.connection.may_send() && !slot.connection.is_high();
        if !(lease.is_of(&self.memory) && self.slots.get(to).is_some_and(is_low)) {
            return Err(lease);
        }
        self.append_span(to, lease.into_span());
        Ok(())
    }

    /// Sends what came from one connection to another: see [`Ctx::forward`](crate::Ctx::forward).
    #[inline]
    pub fn forward_of(&mut self, from: Key, to: Key, data: impl Into<Outgoing>) {
        self.send_from(from, to, data.into());
    }

    #[inline]
    pub(crate) fn send_from(&mut self, from: Key, to: Key, data: Outgoing) {
        match data {
            // What handlers do most, in the shortest way.
            Outgoing::Lease(lease) if lease.is_of(&self.memory) => {
                if self.append_span(to, lease.into_span()) {
                    self.hold_back(from, to);
                }
            }
            // Each put together anew, so that the one above is nowhere in memory.
            Outgoing::Lease(lease) => self.send_rarely(from, to, Outgoing::Lease(lease)),
            Outgoing::Owned(bytes) => self.send_rarely(from, to, Outgoing::Owned(bytes)),
            Outgoing::Static(bytes) => self.send_rarely(from, to, Outgoing::Static(bytes)),
        }
    }

    #[inline(never)]
    fn send_rarely(&mut self, from: Key, to: Key, data: Outgoing) {
        match self.append(to, data) {
            Ok(false) | Err(SendRefused::Ended(_)) => {}
            Ok(true) => self.hold_back(from, to),
            Err(SendRefused::Full(_)) => self.ask(to, Input::Abort(CloseReason::OutboxOverflow)),
        }
    }

    /// Whether the outbox is high afterwards.
    fn append(&mut self, to: Key, data: Outgoing) -> Result<bool, SendRefused> {
        let Some(slot) = self.slots.get_mut(to) else { return Err(SendRefused::Ended(data)) };
        if !slot.connection.may_send() {
            return Err(SendRefused::Ended(data));
        }
        let room = self.rules.outbox_bytes_max.saturating_sub(slot.connection.outbox.bytes());
        let span = match data {
            // The ring bounds these already.
            Outgoing::Lease(lease) if lease.is_of(&self.memory) => lease.into_span(),
            data if data.len() > room as usize => return Err(SendRefused::Full(data)),
            Outgoing::Lease(lease) => match self.memory.adopt(lease.to_vec()) {
                Ok(span) => span,
                Err(_) => return Err(SendRefused::Full(Outgoing::Lease(lease))),
            },
            Outgoing::Owned(bytes) => match self.memory.adopt(bytes) {
                Ok(span) => span,
                Err(bytes) => return Err(SendRefused::Full(Outgoing::Owned(bytes))),
            },
            Outgoing::Static(bytes) => self.memory.borrow_static(bytes),
        };
        Ok(self.append_span(to, span))
    }

    /// Appends to the outbox of a connection, if it may send. Whether it is high afterwards.
    #[inline]
    fn append_span(&mut self, to: Key, span: Span) -> bool {
        let now_ms = self.now_ms();
        let Some(slot) = self.slots.get_mut(to).filter(|slot| slot.connection.may_send()) else {
            self.release_unsent(span.into_segment());
            return false;
        };
        let around = Surroundings {
            pieces: &mut self.pieces,
            release: |span: Span| self.memory.release(span),
            rules: &self.rules,
            now_ms,
        };
        slot.connection.append(span, around);
        let (high, stalls) = (slot.connection.is_high(), slot.connection.is_blocked());
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(to);
        }
        // One look for both, since as a rule it is neither.
        (high | stalls) && self.look_at_full(to, high, stalls)
    }

    /// Bytes were added to what waits already.
    #[cold]
    #[inline(never)]
    fn look_at_full(&mut self, to: Key, high: bool, stalls: bool) -> bool {
        if stalls {
            self.list_stalled(to);
        }
        high
    }

    /// Nobody is there to send it to.
    #[cold]
    fn release_unsent(&mut self, segment: Segment) {
        self.memory.release(Span::mint(segment));
    }
}
