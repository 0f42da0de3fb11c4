//! Deadlines from both sides: none is missed, and none passes early.
//!
//! Whether one is missed is told from the sockets (`kernel/patience.rs`); whether one came early from what the
//! reactor had been told by then (`kernel/told.rs`), and of a stall from the socket
//! as well.

use slipring_core::{CloseReason, Handler, Timeout};

use super::Run;
use super::book::Phase;
use super::plan::Service as Kind;
use crate::kernel::GivenUp;
use crate::trace::Party;

/// A reactor counts in whole milliseconds.
const CLOCK_US: u64 = 1_000;
/// What a look for progress may be late by while no turn stalls, beside a seventh of its time.
const LATE_US: u64 = 20_000;
/// What the end of a phase may be late by, beside a seventh of its time, as its reactor's turns count it.
const PHASE_LATE_US: u64 = 20_000;

impl<H: Handler> Run<'_, H> {
    /// The next thing that happens; false if there is none, or if something has gone wrong.
    pub(super) fn step(&mut self, until_us: u64) -> bool {
        let went_on = self.engine.step(until_us);
        if self.engine.given_up.is_empty() {
            return went_on;
        }
        let early = self.engine.given_up.iter().find_map(|given_up| self.find_early(given_up));
        let Some(early) = early else { return went_on };
        self.engine.fail(early);
        false
    }

    /// Deadlines that were missed, as seen from outside.
    pub(super) fn check_deadlines(&mut self) {
        let late = self.engine.kernel.borrow().find_overdue(&self.draw.patience);
        if let Some(what) = late.or_else(|| self.find_late_phase()) {
            self.engine.fail(what);
        }
    }

    /// A connection whose phase should have ended by now, or the connection with it, in words.
    fn find_late_phase(&self) -> Option<String> {
        let (book, kernel) = (self.book.borrow(), self.engine.kernel.borrow());
        let late_us = |who: &Party, phase: &Phase| {
            let told = kernel.told_of(*who)?;
            let opened_us = book.open.get(who)? * 1_000;
            let (until_us, span_us) = phase.until_us()?;
            let over = phase.until_first_byte && told.heard_us > 0;
            // What ends in order has other deadlines, and so has what waits for room to do so. A handler that is told
            // of the peer's end asks for its own, in the very turn whose timers come behind.
            let asked = told.shut || told.end_us > 0;
            let ends = asked || told.blocked || self.engine.has_given_up(*who);
            // A turn that began after the deadline has kept it by its end.
            let turn_us = kernel.turn_before_us(*who);
            let late_us = turn_us.saturating_sub(until_us.max(opened_us));
            let is_late = late_us > span_us / 7 + PHASE_LATE_US;
            // In a turn that comes late its handler may ask for an end before the timers have their say.
            let knobs = &self.draw.plan.knobs;
            let in_time = knobs.stalled_turn == 0 && knobs.stalled_reactor == 0;
            (is_late && in_time && !over && !ends).then_some(late_us)
        };
        book.phases.iter().find_map(|(who, phase)| {
            let late_us = late_us(who, phase)?;
            Some(format!("{who}: its phase was to end {} ms ago", late_us / 1_000))
        })
    }

    /// Why a connection was in no phase that had to have ended, in words.
    fn find_early_phase(&self, given_up: &GivenUp) -> Option<String> {
        let GivenUp { who, why, at_us, told, .. } = *given_up;
        let book = self.book.borrow();
        let phase = book.phases.get(&who);
        let Some((phase, until_us)) = phase.and_then(|p| Some((p, p.least_us(at_us / 1_000)?)))
        else {
            return Some(format!("{who}: {why}, and it was in no phase"));
        };
        if phase.until_first_byte && told.heard_us > 0 {
            return Some(format!("{who}: {why}, and it has spoken"));
        }
        let early_us = until_us.saturating_sub(at_us);
        (early_us > CLOCK_US).then(|| format!("{who}: {why}, {early_us} us too early"))
    }

    /// Why a connection should not have been given up yet, in words.
    fn find_early(&self, given_up: &GivenUp) -> Option<String> {
        let GivenUp { who, why, at_us, told, stuck_us } = *given_up;
        let book = self.book.borrow();
        let timeouts = &self.draw.plan.timeouts;
        let opened_us = book.open.get(&who).map_or(0, |opened_ms| opened_ms * 1_000);
        let (span, since_us) = match why {
            CloseReason::IdleTimeout => {
                let idle = book.idle(who, at_us / 1_000, timeouts.idle);
                (idle, told.moved_us.max(told.progress_us))
            }
            CloseReason::HalfClosedTimeout => {
                // What the relay asks for shows once it is pushed.
                let asked = self.draw.service == Kind::Relay || book.asked_to_end.contains(&who);
                if told.end_us == 0 && !told.shut && !asked {
                    return Some(format!("{who}: {why}, and neither side has ended"));
                }
                (timeouts.half_closed, told.moved_us.max(told.progress_us).max(told.end_us))
            }
            CloseReason::WriteStall => (timeouts.write_stall, told.progress_us),
            CloseReason::DialTimeout => (timeouts.dial, told.dialed_us),
            CloseReason::PhaseTimeout => return self.find_early_phase(given_up),
            _ => return None,
        };
        let Timeout::After(span) = span else {
            return Some(format!("{who}: {why}, and no such deadline was set"));
        };
        let span_us = span.as_micros() as u64;
        let waited_us = at_us - since_us.max(opened_us);
        if waited_us + CLOCK_US < span_us {
            return Some(format!("{who}: {why} after {waited_us} us of {span_us}"));
        }
        // Progress shows at the second of four looks within the time, and at those behind it.
        // A reactor that stalls looks too late.
        let knobs = &self.draw.plan.knobs;
        let in_time = knobs.stalled_turn == 0 && knobs.stalled_reactor == 0;
        let stalls = why == CloseReason::WriteStall && in_time;
        let stuck_us = stuck_us.filter(|stuck_us| stalls && stuck_us + LATE_US < span_us * 5 / 8);
        stuck_us.map(|stuck_us| format!("{who}: {why}, {stuck_us} us after bytes left its socket"))
    }
}
