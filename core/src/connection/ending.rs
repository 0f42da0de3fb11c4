//! How a connection ends: by our FIN, by an orderly close, or at once.

use super::deadlines::after;
use super::words::{Event, Rules, Side, State};
use super::{Connection, NEVER, Surroundings};
use crate::canary::{Canary, sings};
use crate::error::{CloseReason, Fault};
use crate::span::Span;
use crate::token::Op;

impl Connection {
    pub(super) fn on_shutdown_done<R: FnMut(Span)>(
        &mut self,
        result: Result<(), Fault>,
        around: &mut Surroundings<'_, R>,
    ) -> Event {
        if !self.in_flight(Op::Shutdown) {
            return Event::None;
        }
        self.land(Op::Shutdown);
        if let Err(fault) = result {
            self.fail(fault, around);
            return Event::None;
        }
        self.fin_sent = true;
        self.start_to_linger(around.now_ms, around.rules);
        Event::None
    }

    pub(super) fn start_to_linger(&mut self, now_ms: u64, rules: &Rules) {
        if let State::Draining { linger_until_ms, .. } = &mut self.state
            && !sings(Canary::LingerForgotten)
        {
            *linger_until_ms = after(now_ms, rules.linger_ms);
            self.timer_nearer = true;
        }
    }

    pub(super) fn on_shutdown_asked(&mut self, now_ms: u64) -> Event {
        match &mut self.state {
            State::Opening { shut_down, .. } => *shut_down = true,
            State::Established if sings(Canary::HalfCloseCloses) => {
                self.drain(CloseReason::LocalClosed, false, now_ms);
            }
            State::Established => {
                self.state = State::HalfClosed { side: Side::Ours, since_ms: now_ms };
                self.timer_nearer = true;
            }
            State::HalfClosed { side: Side::Theirs, .. } => {
                self.drain(CloseReason::PeerClosed, true, now_ms);
            }
            State::HalfClosed { .. } | State::Draining { .. } | State::Closing { .. } => {}
        }
        Event::None
    }

    pub(super) fn on_close_asked<R: FnMut(Span)>(
        &mut self,
        reason: CloseReason,
        around: &mut Surroundings<'_, R>,
    ) {
        let now_ms = around.now_ms;
        match self.state {
            // What waits will never be sent: that is no end in order.
            State::Opening { .. } if !self.outbox.is_empty() => {
                self.end(CloseReason::Aborted, around);
            }
            State::Opening { .. } => self.end(reason, around),
            State::Established => self.drain(reason, false, now_ms),
            State::HalfClosed { side: Side::Ours, .. } => {
                self.drain(reason, false, now_ms);
                if self.fin_sent {
                    self.start_to_linger(now_ms, around.rules);
                }
            }
            State::HalfClosed { side: Side::Theirs, .. } => {
                let reason = match reason {
                    CloseReason::LocalClosed => CloseReason::PeerClosed,
                    other => other,
                };
                self.drain(reason, true, now_ms);
            }
            State::Draining { .. } | State::Closing { .. } => {}
        }
    }

    /// Starts to close in order.
    pub(super) fn drain(&mut self, reason: CloseReason, peer_done: bool, now_ms: u64) {
        self.state = State::Draining { reason, peer_done, discarded: 0, linger_until_ms: NEVER };
        self.progress_at_ms = now_ms;
        self.timer_nearer = true;
    }

    /// Ends for a failure of the transport. A connection that was draining keeps its reason: the peer need
    /// not wait for our FIN.
    pub(super) fn fail<R: FnMut(Span)>(&mut self, fault: Fault, around: &mut Surroundings<'_, R>) {
        let reason = match (self.state, fault) {
            (State::Draining { reason, .. }, _) if self.outbox.is_empty() => reason,
            (_, Fault::Reset | Fault::BrokenPipe | Fault::NotConnected) => CloseReason::Reset,
            (_, fault) => CloseReason::Transport(fault),
        };
        self.end(reason, around);
    }

    /// Starts to end at once.
    pub(super) fn end<R: FnMut(Span)>(
        &mut self,
        reason: CloseReason,
        around: &mut Surroundings<'_, R>,
    ) {
        if matches!(self.state, State::Closing { .. }) {
            return;
        }
        self.state = State::Closing { reason };
        // The kernel may still read what is being sent: then the outbox goes with that completion.
        if !self.in_flight(Op::Send) {
            self.drop_outbox(0, around);
        }
    }

    /// What waits will not be sent, but for the first so many bytes, which were. If that leaves any out, the
    /// end has to be a reset.
    pub(super) fn drop_outbox<R: FnMut(Span)>(
        &mut self,
        sent: u32,
        around: &mut Surroundings<'_, R>,
    ) {
        self.torn |= self.outbox.bytes() > sent;
        self.high = false;
        if !sings(Canary::OutboxLeaked) {
            self.outbox.clear(around.pieces, &mut around.release);
        }
    }
}
