//! Deadlines from both sides: none is missed, and none passes early.
//!
//! Whether one is missed is told from the sockets (`kernel/patience.rs`); whether one came early from what the
//! reactor had been told by then (`kernel/told.rs`), and of a stall from the socket
//! as well.

use slipring_core::{CloseReason, Handler, Timeout};

use super::Run;
use super::plan::Service as Kind;
use crate::kernel::GivenUp;

/// A reactor counts in whole milliseconds.
const CLOCK_US: u64 = 1_000;
/// What a look for progress may be late by while no turn stalls, beside a seventh of its time.
const LATE_US: u64 = 20_000;

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
        if let Some(what) = late {
            self.engine.fail(what);
        }
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
        let stalls = why == CloseReason::WriteStall && self.draw.plan.knobs.stalled_turn == 0;
        let stuck_us = stuck_us.filter(|stuck_us| stalls && stuck_us + LATE_US < span_us * 5 / 8);
        stuck_us.map(|stuck_us| format!("{who}: {why}, {stuck_us} us after bytes left its socket"))
    }
}
