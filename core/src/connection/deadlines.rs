//! When a connection has waited long enough, and for what.
//!
//! One timer serves all deadlines of a connection. It stands at the earliest of them, or earlier: activity
//! moves deadlines away without touching it.

use super::words::{Event, Rules, State};
use super::{Connection, NEVER, Surroundings};
use crate::canary::{Canary, sings};
use crate::error::CloseReason;
use crate::span::Span;

/// How often a blocked connection is asked for progress within the write-stall timeout.
const LOOKS_PER_STALL: u32 = 4;

impl Connection {
    /// Sets the idle timeout of this connection alone; zero for never.
    pub fn set_idle_ms(&mut self, idle_ms: u32) {
        self.idle_ms = idle_ms;
        self.timer_nearer |= !sings(Canary::NearerForgotten);
    }

    /// Asks for [`Event::KeepAlive`] whenever nothing moved for so long; zero for never.
    pub fn set_keep_alive_ms(&mut self, keep_alive_ms: u32) {
        self.keep_alive_ms = keep_alive_ms;
        self.timer_nearer = true;
    }

    /// A phase begins that has to end within this time, whatever moves meanwhile; zero for none. It takes the place
    /// of the one that runs.
    pub fn set_phase_ms(&mut self, phase_ms: u32, now_ms: u64) {
        self.phase_until_ms = after(now_ms, phase_ms);
        self.until_first_byte = false;
        self.timer_nearer = true;
    }

    /// The phase that runs is over, if one does.
    pub fn end_phase(&mut self) {
        self.phase_until_ms = NEVER;
        self.until_first_byte = false;
    }

    /// A mistake: bytes move the deadline of the phase, as they do that of the idle timeout.
    #[cold]
    pub(super) fn extend_phase(&mut self, now_ms: u64) {
        if self.phase_until_ms != NEVER {
            self.phase_until_ms += now_ms - self.active_at_ms().min(now_ms);
        }
    }

    /// The timer that [`Action::SetTimer`](super::Action::SetTimer) asked for will fire at this time: a little
    /// later than asked. A deadline before it has to move it.
    pub fn timer_stands_at(&mut self, at_ms: u64) {
        self.armed_at_ms = at_ms;
    }

    /// So many bytes are in the socket's send queue. Fewer than at the last look means that the peer reads,
    /// however slowly: the socket asks for more only once a third of its queue is free.
    pub(super) fn on_unsent(&mut self, unsent: u32, now_ms: u64) -> Event {
        if self.blocked && !sings(Canary::ProgressIgnored) {
            if unsent < self.unsent {
                self.progress_at_ms = now_ms;
            }
            self.unsent = unsent;
        }
        Event::None
    }

    pub(super) fn on_timer<R: FnMut(Span)>(&mut self, around: &mut Surroundings<'_, R>) -> Event {
        let now_ms = around.now_ms;
        self.armed_at_ms = NEVER;
        self.timer_nearer = true;
        self.looked_at_ms = now_ms;
        if self.deadline_ms(around.rules) > now_ms {
            return Event::None;
        }
        let stalled = now_ms >= self.stall_deadline_ms(around.rules);
        let reason = match self.state {
            State::Opening { .. } => CloseReason::DialTimeout,
            State::Closing { .. } => return Event::None,
            State::Draining { reason, .. } if self.outbox.is_empty() => reason,
            State::Draining { .. } => CloseReason::WriteStall,
            _ if now_ms >= self.phase_deadline_ms() => CloseReason::PhaseTimeout,
            _ if stalled => CloseReason::WriteStall,
            State::HalfClosed { .. } => CloseReason::HalfClosedTimeout,
            State::Established if now_ms >= after(self.active_at_ms(), self.idle_ms) => {
                CloseReason::IdleTimeout
            }
            State::Established => {
                self.kept_at_ms = now_ms;
                return Event::KeepAlive;
            }
        };
        self.end(reason, around);
        Event::None
    }

    /// When the first of its deadlines passes; `u64::MAX` when none is set.
    #[must_use]
    pub fn deadline_ms(&self, rules: &Rules) -> u64 {
        match self.state {
            State::Opening { .. } if sings(Canary::DialForgotten) => NEVER,
            State::Opening { deadline_ms, .. } => deadline_ms,
            State::Established if sings(Canary::IdleForgotten) => {
                self.look_deadline_ms(rules).min(self.phase_deadline_ms())
            }
            State::Established => {
                let quiet_since = self.active_at_ms().max(self.kept_at_ms);
                after(self.active_at_ms(), self.idle_ms)
                    .min(after(quiet_since, self.keep_alive_ms))
                    .min(self.look_deadline_ms(rules))
                    .min(self.phase_deadline_ms())
            }
            State::HalfClosed { since_ms, .. } => {
                after(self.active_at_ms().max(since_ms), rules.half_closed_ms)
                    .min(self.look_deadline_ms(rules))
                    .min(self.phase_deadline_ms())
            }
            State::Draining { linger_until_ms, .. } if self.outbox.is_empty() => linger_until_ms,
            State::Draining { .. } => {
                after(self.progress_at_ms, rules.write_stall_ms).min(self.look_deadline_ms(rules))
            }
            State::Closing { .. } => NEVER,
        }
    }

    /// When the phase that runs has to have ended. One that ends with the first byte did so when that came.
    pub(super) fn phase_deadline_ms(&self) -> u64 {
        let is_over = self.until_first_byte && self.heard_at_ms != NEVER;
        if is_over || sings(Canary::PhaseForgotten) { NEVER } else { self.phase_until_ms }
    }

    /// When a blocked connection is looked at next: for its stall, or for its progress towards it.
    fn look_deadline_ms(&self, rules: &Rules) -> u64 {
        if !self.blocked {
            return NEVER;
        }
        if sings(Canary::LooksForgotten) {
            return self.stall_deadline_ms(rules);
        }
        let from_ms = self.progress_at_ms.max(self.looked_at_ms);
        after(from_ms, rules.write_stall_ms.div_ceil(LOOKS_PER_STALL))
            .min(self.stall_deadline_ms(rules))
    }

    fn stall_deadline_ms(&self, rules: &Rules) -> u64 {
        let counts = self.blocked && !sings(Canary::StallForgotten);
        if counts { after(self.progress_at_ms, rules.write_stall_ms) } else { NEVER }
    }
}

/// A time `span_ms` after `from_ms`; never, if that is zero.
#[inline]
pub(super) fn after(from_ms: u64, span_ms: u32) -> u64 {
    let span_ms = if sings(Canary::DeadlineEarly) { span_ms.div_ceil(3) } else { span_ms };
    if span_ms == 0 { NEVER } else { from_ms.saturating_add(u64::from(span_ms)) }
}
