//! What is to be done next, worked out anew each time from how places and waiters stand.
//!
//! Why not a queue of things to do: what was put there might be out of date when it is taken. A place that is to be
//! pinged and ends is not pinged; a caller that leaves wants no dial.

use std::panic::Location;
use std::time::Duration;

use super::{
    Act, Book, CLOSING, Cause, DIALING, FRESH, IDLE, Kept, LEAKED, OUT, Place, TO_CLOSE, TO_PING,
    TO_WARN, VALIDATING,
};

impl Book {
    /// What is to be done next; `None`: nothing, until something is told. To be called after every other call until it
    /// says so.
    ///
    /// `may_grow` takes a token of the cap, if there is one. If there is none, callers may wait for no other reason
    /// ([`lacks`](Self::lacks)): call this again when there is.
    pub fn poll_act(&mut self, now: Duration, may_grow: impl FnOnce() -> bool) -> Option<Act> {
        self.see(now);
        if let Some(act) = self.poll_validate() {
            return Some(act);
        }
        if let Some(ticket) = self.waiters.poll_wake() {
            return Some(Act::Wake(ticket));
        }
        if let Some(index) = self.places.front(TO_CLOSE) {
            self.places.move_back(index, CLOSING);
            return Some(Act::Close(self.place(index), self.places[index].cause));
        }
        // Before a dial, which would take it.
        if self.owed > 0 {
            self.owed -= 1;
            return Some(Act::Release);
        }
        if let Some(act) = self.poll_dial(may_grow).or_else(|| self.poll_cancel()) {
            return Some(act);
        }
        if let Some(index) = self.places.front(TO_PING) {
            self.places.move_back(index, VALIDATING);
            self.counters.pings += 1;
            return Some(Act::Ping(self.place(index)));
        }
        if let Some(index) = self.places.front(TO_WARN) {
            self.places.move_back(index, LEAKED);
            self.counters.leaks += 1;
            let kept = &self.places[index];
            let at = kept.at.expect("what was given out was taken somewhere");
            let held = self.now.saturating_sub(kept.since);
            return Some(Act::Leaked { place: self.place(index), held, at });
        }
        self.spare = self.spare.checked_sub(1)?;
        Some(Act::Release)
    }

    /// Idle ones are looked at as long as more wait than are looked at: also if dials are under way for them, which
    /// take longer.
    fn poll_validate(&mut self) -> Option<Act> {
        self.serve_from_idle();
        if self.waiters.len() <= self.validating() {
            return None;
        }
        let index = self.first_idle()?;
        self.places.move_back(index, VALIDATING);
        self.places[index].is_pinged = false;
        self.counters.validations += 1;
        Some(Act::Validate(self.place(index)))
    }

    fn poll_dial(&mut self, may_grow: impl FnOnce() -> bool) -> Option<Act> {
        let dialing = self.places.len(DIALING);
        if dialing >= self.dials_wanted() || !self.has_room_to_dial() {
            return None;
        }
        let is_refill = dialing >= self.dials_for_waiters();
        if self.now < if is_refill { self.refill.due() } else { self.callers_due() } {
            return None;
        }
        if !self.take_token(may_grow) {
            if is_refill {
                self.refill.put_off(self.now);
            }
            return None;
        }
        self.counters.refills += u64::from(is_refill);
        Some(Act::Dial(self.begin_dial(DIALING, None)))
    }

    /// One of a place that has become free, if there is one.
    pub(super) fn take_token(&mut self, may_grow: impl FnOnce() -> bool) -> bool {
        match self.spare.checked_sub(1) {
            Some(spare) => {
                self.spare = spare;
                true
            }
            None => may_grow(),
        }
    }

    /// A place for which there is a token.
    pub(super) fn begin_dial(
        &mut self,
        list: usize,
        at: Option<&'static Location<'static>>,
    ) -> Place {
        self.counters.dials += 1;
        let kept = Kept {
            since: self.now,
            opened_at: None,
            used_at: self.now,
            seen_at: self.now,
            max_lifetime: None,
            keep_alive: None,
            at,
            ticket: None,
            is_ended: false,
            is_pinged: false,
            cause: Cause::Ended,
        };
        let index = self.places.insert(kept, list);
        self.place(index)
    }

    /// Where there may be fewer, the last one: it has the longest way to go. Where nobody needs it, the first, if it
    /// has been under way for too long: it is the one that hangs.
    fn poll_cancel(&mut self) -> Option<Act> {
        let (first, last) = (self.places.front(DIALING)?, self.places.back(DIALING)?);
        let index = if self.is_above_max() {
            last
        } else {
            let index = first;
            let is_needed = self.places.len(DIALING) <= self.dials_wanted();
            let is_young =
                self.now.saturating_sub(self.places[index].since) < self.limits.hung_after;
            if is_needed || (is_young && !self.is_draining) {
                return None;
            }
            index
        };
        self.places.move_back(index, CLOSING);
        self.counters.dials_cancelled += 1;
        Some(Act::CancelDial(self.place(index)))
    }

    // --------------------------------------------------------------------------- sums

    pub(super) fn validating(&self) -> u32 {
        self.sum(&[VALIDATING, TO_PING])
    }

    pub(super) fn in_use(&self) -> u32 {
        self.sum(&[OUT, TO_WARN, LEAKED])
    }

    /// When callers may have a dial: at once. But if who waits was not failed with the last one, for the sake of those
    /// in use, nothing else would keep one dial from following the other.
    pub(super) fn callers_due(&self) -> Duration {
        if self.in_use() > 0 { self.refill.paused_until() } else { Duration::ZERO }
    }

    /// Those in use, or on the way to it: all but what is closing.
    pub(super) fn live(&self) -> u32 {
        self.sum(&[DIALING, FRESH, IDLE, VALIDATING, TO_PING, OUT, TO_WARN, LEAKED])
    }

    pub(super) fn is_above_max(&self) -> bool {
        self.live() > self.limits.mode.max()
    }

    /// Dials under way, for the pool and for one caller alone. What waiters hope for are the former only.
    pub(super) fn dials(&self) -> u32 {
        self.sum(&[DIALING, FRESH])
    }

    pub(super) fn has_room_to_dial(&self) -> bool {
        !self.is_draining
            && self.dials() < self.limits.dials_max
            && self.held() < self.limits.mode.max()
    }

    /// Idle, or going to be, as nobody waits for what is being looked at.
    pub(super) fn resting(&self) -> u32 {
        self.places.len(IDLE) + self.validating().saturating_sub(self.waiters.len())
    }

    pub(super) fn dials_for_waiters(&self) -> u32 {
        self.waiters.len().saturating_sub(self.validating())
    }

    pub(super) fn dials_wanted(&self) -> u32 {
        if self.is_draining {
            return 0;
        }
        let for_rest = self.limits.mode.min_idle().saturating_sub(self.resting());
        self.dials_for_waiters().saturating_add(for_rest)
    }
}
