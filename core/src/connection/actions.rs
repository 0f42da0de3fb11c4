//! What a connection wants done, derived from where it stands: one action at a time, in a fixed order.

use super::words::{Action, Pause, Rules, Side, State};
use super::{Connection, DISCARDED_MAX};
use crate::canary::{Canary, sings};
use crate::error::CloseReason;
use crate::token::Op;

impl Connection {
    /// The next thing to do, which counts as done thereby; `None` when all is. Never more than
    /// `SUBMISSIONS_PER_CONNECTION_MAX` submissions between two inputs.
    #[inline]
    pub fn poll_action(&mut self, rules: &Rules) -> Option<Action> {
        if self.poll_send() {
            return Some(Action::Send);
        }
        if self.wants_to_send() && !sings(Canary::WatchForgotten) {
            self.take_off(Op::Watch);
            return Some(Action::Watch { many: self.watches_on });
        }
        self.poll_beside_send(rules)
    }

    /// Whether [`poll_action`](Self::poll_action) would say [`Action::Send`], which counts as done then: for who
    /// has a shorter way for that, and asks for the rest only if this is not so.
    #[inline]
    pub fn poll_send(&mut self) -> bool {
        let sends = self.sends_now();
        if sends {
            self.take_off(Op::Send);
        }
        sends
    }

    /// Whether [`poll_send`](Self::poll_send) would say so. Nothing counts as done.
    #[inline]
    #[must_use]
    pub fn sends_now(&self) -> bool {
        !self.outbox.is_empty()
            && !self.blocked
            && (self.flights & SEND == 0 || self.sends_twice())
            && !matches!(self.state, State::Opening { .. } | State::Closing { .. })
    }

    /// Whether [`poll_action`](Self::poll_action) would say [`Action::Receive`] before it is through, for bytes that
    /// somebody wants. Nothing counts as done.
    #[must_use]
    pub fn receives_now(&self) -> bool {
        !self.in_flight(Op::Receive) && self.is_receiving_state() && self.wants_to_receive()
    }

    /// Whether what its peer has sent would be known by now: its receive is with the kernel, or the peer has ended. Not
    /// while it is dialed, nor while its reading waits for a buffer, for another's outbox or for its handler.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let opening = matches!(self.state, State::Opening { .. });
        self.in_flight(Op::Receive) || !(opening || self.is_receiving_state())
    }

    fn poll_beside_send(&mut self, rules: &Rules) -> Option<Action> {
        if let State::Draining { .. } = self.state {
            self.finish_draining();
        }
        if let State::Closing { reason } = self.state {
            return self.poll_closing(reason);
        }
        if self.in_flight(Op::Receive) {
            // Without a cap the receive goes on until it is cancelled, and who is to be moved has none.
            let goes_on = !rules.receive_cap || self.is_paused(Pause::Move);
            let held_back = self.paused != 0 && goes_on && self.is_receiving_state();
            if held_back && let Some(cancel) = self.poll_cancel(Op::Receive) {
                return Some(cancel);
            }
        } else if self.wants_to_receive() {
            self.take_off(Op::Receive);
            return Some(Action::Receive);
        }
        if self.timer_nearer {
            self.timer_nearer = false;
            let deadline_ms = self.deadline_ms(rules);
            if deadline_ms < self.armed_at_ms {
                self.armed_at_ms = deadline_ms;
                return Some(Action::SetTimer(deadline_ms));
            }
        }
        if self.wants_fin() {
            self.take_off(Op::Shutdown);
            return Some(Action::Shutdown);
        }
        None
    }

    /// Whether [`poll_action`](Self::poll_action) would say `None`, for the common case and at the price of a
    /// few comparisons. False may mean either.
    #[inline]
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_settled_beside_send() && (self.outbox.is_empty() || self.sending_waits())
    }

    /// Whether all that [`poll_action`](Self::poll_action) could say is a send or a watch. False may mean either.
    #[inline]
    #[must_use]
    pub fn is_settled_beside_send(&self) -> bool {
        matches!(self.state, State::Established)
            && self.in_flight(Op::Receive)
            && self.paused == 0
            && !self.timer_nearer
    }

    /// Whether [`poll_action`](Self::poll_action) would say something now. Nothing of it counts as done.
    #[must_use]
    pub fn wants_something(&self, rules: &Rules) -> bool {
        let mut copy = Self { outbox: self.outbox.look_alike(), ..*self };
        copy.poll_action(rules).is_some()
    }

    /// Whether its socket is full, bytes wait, and nothing in flight will tell when it empties. Between two
    /// turns of a reactor that must not be.
    #[must_use]
    pub fn is_unwatched(&self) -> bool {
        let open = !matches!(self.state, State::Opening { .. } | State::Closing { .. });
        open && self.blocked && !self.outbox.is_empty() && !self.sending_waits()
    }

    #[inline]
    fn wants_to_send(&self) -> bool {
        !self.outbox.is_empty()
            && (!self.sending_waits() || self.sends_twice())
            && !matches!(self.state, State::Opening { .. } | State::Closing { .. })
    }

    /// Whether a send is under way, or a watch is that will tell when one has room.
    #[inline]
    fn sending_waits(&self) -> bool {
        self.flights & SEND != 0 || (self.flights & WATCH != 0 && self.blocked)
    }

    /// Whether a mistake is to be made: once for each send.
    #[inline]
    fn sends_twice(&self) -> bool {
        sings(Canary::TwoSends)
            && self.outbox.pieces() > 1
            && self.activations[Op::Send as usize] % 2 == 1
    }

    #[inline]
    pub(super) fn is_receiving_state(&self) -> bool {
        matches!(self.state, State::Established | State::HalfClosed { side: Side::Ours, .. })
    }

    #[inline]
    fn wants_to_receive(&self) -> bool {
        match self.state {
            State::Established | State::HalfClosed { side: Side::Ours, .. } => {
                self.paused == 0 && !self.parked
            }
            // Reads on to see the peer's FIN, once ours is out.
            State::Draining { peer_done, .. } => !peer_done && self.fin_sent && !self.parked,
            State::Opening { .. } | State::HalfClosed { .. } | State::Closing { .. } => false,
        }
    }

    fn wants_fin(&self) -> bool {
        let asked = matches!(
            self.state,
            State::HalfClosed { side: Side::Ours, .. } | State::Draining { peer_done: false, .. }
        );
        let flushed = self.outbox.is_empty() && self.flights & ENDING == 0;
        let early = sings(Canary::FinBeforeFlush) && !self.in_flight(Op::Shutdown);
        let again = sings(Canary::FinTwice) && self.activations[Op::Shutdown as usize] < 2;
        asked && (!self.fin_sent || again) && (flushed || early)
    }

    /// A draining connection that has nothing left to do is closing.
    fn finish_draining(&mut self) {
        let State::Draining { reason, peer_done, discarded, .. } = self.state else { return };
        let flushed = self.outbox.is_empty() && self.flights & ENDING == 0;
        if flushed && (peer_done || discarded > DISCARDED_MAX) {
            self.state = State::Closing { reason };
        }
    }

    fn poll_cancel(&mut self, op: Op) -> Option<Action> {
        let bit = 1 << op as u8;
        if self.flights & bit == 0 || self.cancel_asked & bit != 0 {
            return None;
        }
        self.cancel_asked |= bit;
        self.cancels += 1;
        Some(Action::Cancel(op))
    }

    fn is_torn(&self) -> bool {
        self.torn && !sings(Canary::TornEndsInOrder)
    }

    /// Cancel what waits, wait for all, close, free.
    fn poll_closing(&mut self, reason: CloseReason) -> Option<Action> {
        for op in [Op::Receive, Op::Watch, Op::Connect] {
            if let Some(cancel) = self.poll_cancel(op) {
                return Some(cancel);
            }
        }
        let careless = sings(Canary::ClosedInFlight) && !self.in_flight(Op::Close);
        if (self.flights != 0 || self.cancels != 0) && !careless {
            return None;
        }
        if self.descriptor.is_some() {
            self.take_off(Op::Close);
            return Some(Action::Close { abortive: resets(reason) || self.is_torn() });
        }
        let free = self.notifications == 0 || sings(Canary::FreedBeforeNotification);
        free.then_some(Action::Free(reason))
    }
}

const SEND: u8 = 1 << Op::Send as u8;
const WATCH: u8 = 1 << Op::Watch as u8;
/// What has to be over before a FIN, or before an end in order.
const ENDING: u8 = SEND | 1 << Op::Shutdown as u8;

/// Whether the end we make has to be a reset, for the peer to know that something is missing.
fn resets(reason: CloseReason) -> bool {
    matches!(
        reason,
        CloseReason::Aborted
            | CloseReason::WriteStall
            | CloseReason::PhaseTimeout
            | CloseReason::HalfClosedTimeout
            | CloseReason::HandlerPanic
            | CloseReason::OutboxOverflow
            | CloseReason::DrainDeadline
    )
}
