//! Deadlines from both sides: none is missed, and none passes early.
//!
//! Whether one is missed is told from the sockets (`kernel/patience.rs`), and of a phase from what its handler asked
//! for; whether one came early from what the reactor had been told by then (`kernel/told.rs`), and of a stall from the
//! socket as well.
//!
//! A reactor in the middle of a long turn sees nothing and ends nothing: what was due meanwhile is due in its next
//! turn. Nothing else is excused for a turn that is late.

use slipring_core::{CloseReason, Handler, Timeout};

use super::Run;
use super::book::Phase;
use super::tasks::Outside;
use crate::kernel::GivenUp;
use crate::trace::Party;

/// A reactor counts in whole milliseconds.
const CLOCK_US: u64 = 1_000;

impl<H: Handler> Run<'_, H> {
    /// The next thing that happens; false if there is none, or if something has gone wrong.
    pub(super) fn step(&mut self, until_us: u64) -> bool {
        if let Some(outside) = &mut self.outside {
            outside.act();
        }
        let mut went_on = self.engine.step(until_us);
        if !went_on && self.engine.failure().is_none() {
            // Whoever is waited for wakes them.
            went_on = self.outside.as_mut().is_some_and(Outside::wake_all);
        }
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
    ///
    /// By now is: in the first turn that its reactor could begin behind the deadline, however long the one before
    /// took. Excused is who ends by the end of that turn, even if its handler has asked for it in the same turn: the
    /// timers come behind. What ends in order has other deadlines. And whoever came at the end of a turn, or was asked
    /// for something there, has its timer armed in the next.
    fn find_late_phase(&self) -> Option<String> {
        let (book, kernel) = (self.book.borrow(), self.engine.kernel.borrow());
        let over_by_us = |who: &Party, phase: &Phase| {
            // One that has just been moved has asked for nothing here.
            let told = kernel.told_of(*who)?;
            let opened_us = book.open.get(who)? * 1_000;
            let (until_us, span_us) = phase.until_us()?;
            // The end of a stream, too, is something that is said.
            let over = phase.until_first_byte && told.heard_us.max(told.end_us) > 0;
            let asked_us = opened_us.max(until_us - span_us);
            let armed_us = kernel.turn_from_us(*who, asked_us + CLOCK_US);
            let turn_us = kernel.turn_from_us(*who, until_us.max(armed_us) + late_us(span_us));
            let is_late = kernel.now_us > turn_us + CLOCK_US;
            (is_late && !over && !self.engine.is_ending(*who)).then(|| kernel.now_us - until_us)
        };
        book.phases.iter().find_map(|(who, phase)| {
            let ago_us = over_by_us(who, phase)?;
            Some(format!("{who}: its phase was to end {} ms ago", ago_us / 1_000))
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
        let GivenUp { who, why, at_us, told, left_us } = *given_up;
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
                let asked = self.draw.service.relays() || book.asked_to_end.contains(&who);
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
        // Bytes that left behind the first look show at the next, and at this one, as progress. The first is due a
        // quarter of the time after it was blocked: a reactor that is in a turn then looks in its next, and what left
        // before that it cannot know of.
        let left_us = left_us.filter(|_| why == CloseReason::WriteStall)?;
        let quarter_us = span_us.div_ceil(4);
        let look_us = told.blocked_us + quarter_us + late_us(quarter_us);
        let looked_us = self.engine.kernel.borrow().turn_from_us(who, look_us) + CLOCK_US;
        let ago_us = at_us - left_us;
        let shows = left_us > looked_us.max(told.progress_us);
        shows.then(|| format!("{who}: {why}, {ago_us} us after bytes left its socket"))
    }
}

/// How late a timer may be that is armed for so long: it stands at the end of a granule of the wheel.
fn late_us(span_us: u64) -> u64 {
    span_us / 7 + CLOCK_US
}
