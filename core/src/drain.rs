//! The course of a drain: who is asked to go when.
//!
//! Accepting has stopped. Connections with nothing under way are asked to close over the first half of the
//! time, not all at once: each would dial again somewhere else. From then on every one that falls quiet is
//! asked, and at the deadline the rest is aborted. This file only keeps the time; slots are numbers.

/// Steps in which the quiet ones are asked.
const STEPS: u64 = 64;
/// A connection counts as quiet once nothing moved for this long, milliseconds; less in a short drain.
const QUIET_MS: u64 = 100;

/// A drain under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drain {
    started_ms: u64,
    span_ms: u64,
    steps_done: u64,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// Ask quiet connections in slots whose number modulo 64 is below this to close.
    Nudge(u64),
    /// Abort every connection.
    Abort,
}

impl Drain {
    /// A drain that began at `now_ms` and lasts at most `span_ms`.
    #[must_use]
    pub(crate) fn new(now_ms: u64, span_ms: u64) -> Self {
        Self { started_ms: now_ms, span_ms, steps_done: 0 }
    }

    fn step_ms(&self) -> u64 {
        (self.span_ms / 2 / STEPS).max(1)
    }

    /// How long a connection has to be silent to count as quiet, milliseconds. At the least so long that none does
    /// which
    /// moved something in this very turn: the rest of that may have been put off to the next.
    #[must_use]
    pub(crate) fn quiet_ms(&self) -> u64 {
        QUIET_MS.min(self.span_ms / 8).max(1)
    }

    /// Whether slot `index` is among those a nudge asks.
    #[must_use]
    pub(crate) fn concerns(index: u32, below: u64) -> bool {
        u64::from(index) % STEPS < below
    }

    /// What is to be done at `now_ms`.
    pub(crate) fn poll(&mut self, now_ms: u64) -> Step {
        let passed_ms = now_ms.saturating_sub(self.started_ms);
        if passed_ms >= self.span_ms {
            return Step::Abort;
        }
        let steps = passed_ms / self.step_ms() + 1;
        if steps <= self.steps_done {
            return Step::Wait;
        }
        self.steps_done = steps;
        Step::Nudge(steps.min(STEPS))
    }

    /// When to look again.
    #[must_use]
    pub(crate) fn next_ms(&self) -> u64 {
        let next = self.started_ms + self.steps_done * self.step_ms();
        next.min(self.started_ms + self.span_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quiet_are_asked_over_half_the_time_and_the_rest_aborted_at_the_end() {
        let mut drain = Drain::new(1000, 12_800);
        assert_eq!(drain.poll(1000), Step::Nudge(1));
        assert_eq!(drain.poll(1050), Step::Wait);
        assert_eq!(drain.next_ms(), 1100);
        assert_eq!(drain.poll(1100), Step::Nudge(2));
        assert_eq!(drain.poll(1000 + 6400), Step::Nudge(64));
        assert_eq!(drain.poll(1000 + 6500), Step::Nudge(64), "who falls quiet later goes later");
        assert_eq!(drain.poll(1000 + 12_800), Step::Abort);
    }

    #[test]
    fn a_drain_without_time_aborts_at_once() {
        assert_eq!(Drain::new(5, 0).poll(5), Step::Abort);
    }

    #[test]
    fn who_moved_something_in_this_turn_is_never_quiet() {
        assert_eq!(Drain::new(5, 30_000).quiet_ms(), 100);
        assert_eq!(Drain::new(5, 400).quiet_ms(), 50);
        assert_eq!(Drain::new(5, 3).quiet_ms(), 1);
    }

    #[test]
    fn every_slot_is_concerned_in_the_end() {
        assert!((0..200).all(|index| Drain::concerns(index, STEPS)));
        assert_eq!((0..64).filter(|&index| Drain::concerns(index, 1)).count(), 1);
    }
}
