//! How long a turn waits for the kernel, what stands around a wait, and the handler's own part of a turn.
//!
//! A turn waits until the next timer, or until the handler wants one: handlers may have work beside what happens to
//! connections, such as tasks that were woken. They are asked when to turn instead of arming something: what they have
//! to do is theirs to know, and nothing stands in the wheel that would have to be kept true.

use super::Reactor;
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::driver::{Driver, Wait};
use crate::handler::Handler;

/// Turns that a handler may have, one at once behind the other, once all connections were aborted and have ended.
const LAST_TURNS_MAX: u32 = 8;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Calls the handler, once a turn: after a panic in it, everything else of the turn goes on.
    #[inline]
    pub(super) fn turn_of_handler(&mut self) {
        if std::mem::replace(&mut self.has_turned, true) {
            return;
        }
        self.calling.begin_alone(Callback::OnTurn);
        self.handler.on_turn(&mut self.connections);
        self.calling.end();
    }

    /// Whether the end has to wait for the handler: while it has something under way, until the drain's deadline.
    /// Behind that it has a few turns more if it wants them at once: what waited for the connections hears of their
    /// end.
    pub(super) fn waits_for_handler(&self) -> bool {
        let has_time = || match self.connections.ending {
            true => self.last_turns < LAST_TURNS_MAX && self.next_turn().is_none(),
            false => true,
        };
        self.handler.is_busy() && has_time()
    }

    /// When the next turn has to come, milliseconds; `Some(None)` if something has to happen first, `None` for now.
    fn next_turn(&self) -> Option<Option<u64>> {
        let timer_ms = self.wheel.next_expiry_ms();
        let Some(handler_ms) = self.handler.next_turn_ms() else { return Some(timer_ms) };
        if handler_ms <= self.connections.now_ms() {
            return None;
        }
        Some(Some(timer_ms.map_or(handler_ms, |timer_ms| timer_ms.min(handler_ms))))
    }

    pub(super) fn count_poll(&mut self, spin_us: u32, before_us: u64) {
        let paid = self.connections.now_us() - before_us < u64::from(spin_us);
        let counters = &mut self.connections.counters;
        counters.polls_paid += u64::from(paid);
        counters.polls_vain += u64::from(!paid);
    }

    /// How long the next turn would wait for a completion, from the beginning of this one on. For whoever runs a
    /// reactor without a thread of its own, and has to know when it would wake.
    pub fn plan_wait(&self) -> Wait {
        let busy = !self.deferred.is_empty()
            || !self.connections.dirty.is_empty()
            || !self.large.keys.is_empty()
            || self.more_due
            || self.acceptor.is_behind()
            || !self.wake_armed
            || self.can_unpark()
            || self.driver.has_completions()
            || !self.front.is_empty(self.number);
        if busy {
            return Wait::NOT;
        }
        let Some(next_ms) = self.next_turn() else { return Wait::NOT };
        let now_us = self.connections.now_us();
        let sleep_us = next_ms.map(|ms| (ms * 1000).saturating_sub(now_us).max(1));
        let spin_us = match (self.polling.spin_us(), sleep_us) {
            (u32::MAX, Some(sleep_us)) => u32::try_from(sleep_us).unwrap_or(u32::MAX),
            (spin_us, _) => spin_us,
        };
        Wait { spin_us, sleep_us }
    }

    /// It is about to wait: its turn is over, and from now on whoever has something for it wakes it. What is left of
    /// the wait that it planned: a deadline does not come later by the turn that came before. [`Wait::NOT`] if
    /// somebody just has something, and it must not wait.
    ///
    /// A part of [`turn`](Self::turn). Whoever lets the time of a wait pass between two turns says so when that
    /// begins.
    pub fn fall_asleep(&mut self, planned: Wait) -> Wait {
        let mut took_us = 0;
        if !std::mem::replace(&mut self.is_waiting, true) {
            let now_us = self.driver.now_us();
            took_us = now_us - self.connections.now_us();
            self.end_turn(now_us);
            self.front.loads().end_turn(self.number);
        }
        if !self.front.fall_asleep(self.number) {
            return Wait::NOT;
        }
        let is_stale = sings(Canary::Oversleeps);
        let left_us = |us: u64| if is_stale { us } else { us.saturating_sub(took_us).max(1) };
        Wait { sleep_us: planned.sleep_us.map(left_us), ..planned }
    }

    #[inline]
    pub(super) fn end_turn(&mut self, now_us: u64) {
        let took_us = now_us - self.connections.now_us();
        self.connections.counters.turn_times.note(took_us);
        self.shedding.note_turn(took_us);
        if self.front.loads().is_stalled(self.number) {
            self.on_stall_over(took_us);
        }
    }

    /// The turn that was taken for a stall is over.
    #[cold]
    fn on_stall_over(&mut self, took_us: u64) {
        if self.front.end_stall(self.number) {
            self.connections.counters.stalls += 1;
            let took_ms = took_us / 1000;
            tracing::warn!(reactor = self.number, took_ms, "the reactor turns again");
            self.acceptor.ring_all();
        }
    }
}
