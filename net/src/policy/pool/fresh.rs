//! What a pool does for a caller whose kept connection turned out to be dead.
//!
//! ```text
//!   Hit, dead ---> dial_fresh ---> Dialing, for this caller alone --- dialed ---> CheckedOut, it has it
//!                    |                |              |
//!                    |                | dial_failed  | leave_fresh
//!                    | None           v              v
//!                    |              free           free
//!                    +---> distrust ---> those kept quiet beside it are closed; then a checkout as any other
//! ```
//!
//! Is: a dial that has one caller and belongs to it. Is not: a checkout, which any connection serves, and whose dials
//! are the pool's. Nor does it decide whether a request may be sent once more.
//!
//! Why not another one that is kept: when an upstream was restarted, all that were kept are dead, and who was given one
//! dead connection would be given the next. Why the dial is not shared: who waits for anything is served by what comes
//! back, and this one is not; it would stand behind those who wait, for its second attempt.
//!
//! Why nothing that is idle is closed to make room for it: its closing takes a while, and the caller would wait for
//! that. It says `None` at once, and what is likely dead goes by [`Book::distrust`].

use std::panic::Location;
use std::time::Duration;

use super::{Book, Cause, FRESH, IDLE, Place};

impl Book {
    /// One caller wants a connection dialed for itself alone. The place is its own from now on: `dialed` hands it over,
    /// `dial_failed` ends it, and so does [`leave_fresh`](Self::leave_fresh). Nothing else does: nobody who waits has
    /// hopes of it, and no drain and no limit cancels it. `at` is where in the code, for warnings and snapshots.
    ///
    /// `None`: the pool is full, drains, has as many dials under way as may be, or there is no token. `may_grow` is as
    /// for [`poll_act`](Self::poll_act), and is not asked unless a token is all that is missing. The place of the dead
    /// connection is not free before it is `closed`.
    ///
    /// ```
    /// use std::panic::Location;
    /// use std::time::Duration;
    /// use slipring::policy::pool::{Book, PoolLimits, Return, State};
    ///
    /// let mut book = Book::new(PoolLimits::default())?;
    /// let (now, mut rng) = (Duration::ZERO, fastrand::Rng::with_seed(1));
    /// let place = book.dial_fresh(now, Location::caller(), || true).expect("there is room");
    /// assert_eq!(book.state(place), Some(State::Dialing));
    /// assert!(book.dialed(place, now, &mut rng));
    /// assert_eq!(book.state(place), Some(State::CheckedOut));
    /// // It comes back as any other.
    /// assert!(book.checkin(place, now, Return::Clean));
    /// # Ok::<(), slipring::policy::pool::PoolLimitsError>(())
    /// ```
    pub fn dial_fresh(
        &mut self,
        now: Duration,
        at: &'static Location<'static>,
        may_grow: impl FnOnce() -> bool,
    ) -> Option<Place> {
        self.see(now);
        if !self.has_room_to_dial() || !self.take_token(may_grow) {
            return None;
        }
        self.counters.fresh += 1;
        Some(self.begin_dial(FRESH, Some(at)))
    }

    /// The caller has given up the connection that was being dialed for it alone: the place is free. `false`: there is
    /// no such dial any more. If it was `dialed` before, the connection is the caller's to give back.
    pub fn leave_fresh(&mut self, place: Place, now: Duration) -> bool {
        self.see(now);
        if self.list(place) != Some(FRESH) {
            return self.is_stale();
        }
        self.counters.dials_cancelled += 1;
        self.free(place.index);
        true
    }

    /// A connection that was kept turned out to be dead, so those that were quiet for as long are likely dead too:
    /// closes all idle ones that nobody has seen alive after `since`, also one that was last seen at `since` itself
    /// ([`Cause::Distrusted`]). `since` is when the dead one was last seen alive; `now` closes all that are idle.
    ///
    /// Those that are in use, or being looked at, are left alone: what becomes of them is found out anyway.
    pub fn distrust(&mut self, now: Duration, since: Duration) {
        self.see(now);
        let mut next = self.places.back(IDLE);
        while let Some(index) = next {
            next = self.places.before(index);
            if self.places[index].seen_at <= since {
                self.retire(index, Cause::Distrusted);
            }
        }
    }

    /// A connection dialed for one caller alone is there, and is given to it, also if there may be fewer by now, or
    /// the pool drains: that is seen to when it comes back.
    pub(super) fn hand_over(&mut self, index: u32) {
        let at = self.places[index].at.expect("who has it dialed wants it somewhere");
        self.hand_out(index, at);
    }
}
