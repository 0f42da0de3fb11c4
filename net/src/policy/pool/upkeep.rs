//! What is done about a pool's connections as time goes by, and what the book shows of itself.
//!
//! What is due is found by looking at all places, but only when the earliest of them may be due: its time is kept as a
//! lower bound, which every change may lower and only a look raises.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Book, CLOSING, Cause, DIALING, Error, FRESH, IDLE, LEAKED, OUT, Place, PoolCounters,
    PoolLimits, PoolSnapshot, State, TO_CLOSE, TO_PING, TO_WARN, Ticket, VALIDATING,
};

impl Book {
    /// Why a connection is not to be used any more.
    pub(super) fn unfit(&self, index: u32) -> Option<Cause> {
        let kept = &self.places[index];
        if self.is_draining {
            Some(Cause::Drained)
        } else if kept.is_ended {
            Some(Cause::Ended)
        } else if self.is_above_max() {
            Some(Cause::Shrunk)
        } else {
            self.is_expired(index).then_some(Cause::Lifetime)
        }
    }

    fn is_expired(&self, index: u32) -> bool {
        let kept = &self.places[index];
        let age =
            kept.opened_at.map_or(Duration::ZERO, |opened_at| self.now.saturating_sub(opened_at));
        kept.max_lifetime.is_some_and(|max_lifetime| age >= max_lifetime)
    }

    // --------------------------------------------------------------------------- as time goes by

    /// Looks for what is due: idle connections that nobody wanted for long or that are old, pings, checkouts that take
    /// long. Once a second, or at [`next_maintenance`](Self::next_maintenance); then [`poll_act`](Self::poll_act).
    pub fn maintain(&mut self, now: Duration) {
        self.see(now);
        let due = [self.due, self.idle_timeout_due()].into_iter().flatten().min();
        if due.is_none_or(|due| self.now < due) {
            return;
        }
        self.due = None;
        let mut next = self.places.back(IDLE);
        // From the one that is idle for longest on.
        while let Some(index) = next {
            next = self.places.before(index);
            self.look_at_idle(index);
        }
        let Some(leak_after) = self.limits.leak_after else { return };
        while let Some(index) = self.places.front(OUT) {
            let since = self.places[index].since;
            if self.now.saturating_sub(since) < leak_after {
                self.note_due(since, Some(leak_after));
                break;
            }
            self.places.move_back(index, TO_WARN);
        }
    }

    fn look_at_idle(&mut self, index: u32) {
        let kept = &self.places[index];
        let is_past = |since: Duration, span: Option<Duration>| {
            span.is_some_and(|span| self.now.saturating_sub(since) >= span)
        };
        if let Some(cause) = self.unfit(index) {
            self.retire(index, cause);
        } else if is_past(kept.used_at, self.limits.idle_timeout) && self.has_more_than_min_idle() {
            self.retire(index, Cause::IdleTimeout);
        } else if is_past(kept.seen_at, kept.keep_alive) {
            self.places.move_back(index, TO_PING);
            self.places[index].is_pinged = true;
        } else {
            self.note_dues(index);
        }
    }

    fn has_more_than_min_idle(&self) -> bool {
        self.resting() > self.limits.mode.min_idle()
    }

    /// A connection becomes idle, in the order in which they were used. One that was pinged goes back to where it was:
    /// if it came to the front, each would be used once in a while, and none would ever be idle for long.
    pub(super) fn rest(&mut self, index: u32) {
        if std::mem::take(&mut self.places[index].is_pinged) {
            let used_at = self.places[index].used_at;
            let mut later = self.places.back(IDLE);
            while let Some(other) = later.filter(|other| self.places[*other].used_at < used_at) {
                later = self.places.before(other);
            }
            self.places.move_behind(index, IDLE, later);
        } else {
            self.places.move_front(index, IDLE);
            self.places[index].used_at = self.now;
        }
        self.note_dues(index);
    }

    fn note_dues(&mut self, index: u32) {
        let kept = &self.places[index];
        let (opened_at, max_lifetime) = (kept.opened_at, kept.max_lifetime);
        let (seen_at, keep_alive) = (kept.seen_at, kept.keep_alive);
        self.note_due(opened_at.unwrap_or(self.now), max_lifetime);
        self.note_due(seen_at, keep_alive);
    }

    /// Whether any are idle for too long depends on how many rest, which changes with every caller: so this is not
    /// noted, but asked.
    fn idle_timeout_due(&self) -> Option<Duration> {
        let index = self.places.back(IDLE).filter(|_| self.has_more_than_min_idle())?;
        self.places[index].used_at.checked_add(self.limits.idle_timeout?)
    }

    pub(super) fn note_due(&mut self, since: Duration, span: Option<Duration>) {
        let Some(due) = span.and_then(|span| since.checked_add(span)) else { return };
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    /// When something may have to be done without anything being told: [`maintain`](Self::maintain), and then
    /// [`poll_act`](Self::poll_act). `None`: not at all. May be too early, never too late; asked right after those two,
    /// it is in the future.
    #[must_use]
    pub fn next_maintenance(&self) -> Option<Duration> {
        let (dialing, wanted) = (self.places.len(DIALING), self.dials_wanted());
        let dial = (dialing < wanted && self.has_room_to_dial()).then(|| {
            if dialing >= self.dials_for_waiters() {
                return Some(self.refill.due());
            }
            Some(self.callers_due()).filter(|due| *due > self.now)
        });
        let hung = self.places.front(DIALING).filter(|_| dialing > wanted);
        let hung =
            hung.and_then(|index| self.places[index].since.checked_add(self.limits.hung_after));
        [self.due, self.idle_timeout_due(), dial.flatten(), hung].into_iter().flatten().min()
    }

    // --------------------------------------------------------------------------- being asked

    /// How a place stands; `None` if it is free, or its number stale.
    #[must_use]
    pub fn state(&self, place: Place) -> Option<State> {
        Some(match self.list(place)? {
            DIALING | FRESH => State::Dialing,
            IDLE => State::Idle,
            OUT | TO_WARN | LEAKED => State::CheckedOut,
            VALIDATING | TO_PING => State::Validating,
            _ => State::Closing,
        })
    }

    /// For how long the connection of a place has been open; `None`: it is not yet, or the number is stale.
    #[must_use]
    pub fn age(&self, place: Place, now: Duration) -> Option<Duration> {
        let opened_at = self.list(place).and_then(|_| self.places[place.index].opened_at)?;
        Some(now.saturating_sub(opened_at))
    }

    /// Which place was given to who waits with this ticket and has not claimed it yet; `None`: none, or there is no
    /// such ticket. For a look at the connection before it is claimed. If it is dead, say [`ended`](Self::ended): who
    /// waits waits on where it stood, and has lost nothing but the time.
    #[must_use]
    pub fn granted(&self, ticket: Ticket) -> Option<Place> {
        self.waiters.granted(ticket)
    }

    /// Places that are not free. So many tokens the pool holds, when [`poll_act`](Self::poll_act) has nothing to do.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.live() + self.sum(&[TO_CLOSE, CLOSING])
    }

    /// Callers that wait.
    #[must_use]
    pub fn waiters(&self) -> u32 {
        self.waiters.len()
    }

    /// Dials under way for one caller alone.
    #[must_use]
    pub fn dials_fresh(&self) -> u32 {
        self.places.len(FRESH)
    }

    /// Dials that callers wait for and that only tokens are missing for.
    #[must_use]
    pub fn lacks(&self) -> u32 {
        let wanted = self.dials_for_waiters().saturating_sub(self.places.len(DIALING));
        if wanted == 0 || !self.has_room_to_dial() || self.now < self.callers_due() {
            return 0;
        }
        let room = (self.limits.dials_max - self.dials()).min(self.limits.mode.max() - self.held());
        wanted.min(room)
    }

    /// The limits it keeps.
    #[must_use]
    pub fn limits(&self) -> &PoolLimits {
        &self.limits
    }

    /// How often what has happened.
    #[must_use]
    pub fn counters(&self) -> &PoolCounters {
        &self.counters
    }

    /// Why the last dial failed, if none went well since.
    #[must_use]
    pub fn last_dial_error(&self) -> Option<&Arc<Error>> {
        self.last_dial_error.as_ref()
    }

    /// Whether nothing is given out any more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Whether it drains, and has nothing any more.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_draining && self.held() == 0
    }

    /// The pool at this moment, for people.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> PoolSnapshot {
        let now = self.now.max(now);
        // Warned of are those that were given out before all others.
        let oldest = [LEAKED, TO_WARN, OUT].into_iter().find_map(|list| self.places.front(list));
        let oldest = oldest.map(|index| &self.places[index]);
        let since = |since: Option<Duration>| {
            since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
        };
        PoolSnapshot {
            max: self.limits.mode.max(),
            dialing: self.dials(),
            idle: self.places.len(IDLE),
            checked_out: self.sum(&[OUT, TO_WARN, LEAKED]),
            validating: self.validating(),
            closing: self.sum(&[TO_CLOSE, CLOSING]),
            waiting: self.waiters.len(),
            oldest_waiter: since(self.waiters.first().map(|waiter| waiter.since)),
            oldest_checkout: since(oldest.map(|kept| kept.since)),
            oldest_checkout_at: oldest.and_then(|kept| kept.at),
        }
    }

    /// Counts all anew, for tests: the snapshot, by walking.
    ///
    /// # Panics
    /// If a place or a waiter stands in no list, in two or in another than it says.
    #[must_use]
    pub fn census(&self, now: Duration) -> PoolSnapshot {
        let lens = self.places.census();
        let sum = |lists: &[usize]| lists.iter().map(|list| lens[*list]).sum();
        PoolSnapshot {
            dialing: sum(&[DIALING, FRESH]),
            idle: lens[IDLE],
            checked_out: sum(&[OUT, TO_WARN, LEAKED]),
            validating: sum(&[VALIDATING, TO_PING]),
            closing: sum(&[TO_CLOSE, CLOSING]),
            waiting: self.waiters.census(),
            ..self.snapshot(now)
        }
    }
}
