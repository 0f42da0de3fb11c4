//! Whether an endpoint is left alone because calls to it fail, and until when.
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring::policy::outcome::Outcome;
//! use slipring::policy::outlier::{Ejections, Outlier, OutlierLimits};
//!
//! let shared = Ejections::new(8); // of the upstream, in an `Arc` for all reactors
//! shared.set_members(4);
//! let mut outlier = Outlier::new(OutlierLimits::default()); // of one reactor
//!
//! let now = Duration::from_secs(60);
//! for _ in 0..4 {
//!     assert_eq!(outlier.note(&shared, 2, now, Outcome::Failure), None);
//! }
//! let ejected = outlier.note(&shared, 2, now, Outcome::Failure).expect("five in a row");
//! assert_eq!(ejected.until, now + Duration::from_secs(30));
//! assert!(shared.is_ejected(2, now));
//! assert!(!shared.is_ejected(2, ejected.until));
//! ```
//!
//! ```text
//!            5 failures in a row, and a place left among those ejected
//!   [ in ] ------------------------------------------------------------> [ ejected until t, n times lately ]
//!      ^                                                                        |
//!      +------- t has come, or a probe succeeded: its place is given back ------+
//! ```
//!
//! Is: passive. It goes by calls that were made anyway. Is not: `health`, which asks, nor `breaker`, which judges the
//! upstream as a whole.
//!
//! *Failures in a row* are counted by each reactor for itself: a shared count would be written by all of them for each
//! call. Where calls are spread over several reactors, an endpoint that always fails is found by the first of them that
//! has seen five.
//!
//! *The word* of an endpoint and the number of those ejected are shared and exact: an endpoint is ejected by one of
//! those that want it, takes one place, and gives it back once, whoever notices. A place is taken before the word is
//! set, and given back after it is cleared, so there are never more than may be. A reactor that had a place and came
//! second with the word holds it for a moment, in which another may be refused; its endpoint's next failure asks again.
//!
//! *Times.* The n-th ejection lasts n times the base, up to the longest. n goes down by one for each base's length that
//! it was not ejected since (Envoy: for each interval). One that was ejected for dials only, and cannot be reached when
//! its time comes, is not let in to be found out by calls again: whoever probes it prolongs its ejection.
//!
//! *While ejected*, outcomes are of calls that were under way, or of desperate ones: they count for nothing, and when
//! it is back, the row begins anew, on all reactors.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

mod word;

pub use word::EjectionState;

use super::outcome::Outcome;

/// When endpoints are ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierLimits {
    /// Failures in a row, on one reactor. From 1. Default 5 (Envoy).
    pub failures: u32,
    /// Whether one dial that timed out is enough: the next one would cost a client as much time again, and an endpoint
    /// ejected for dials only is back at the first that succeeds ([`Ejections::probed`]). Default true †.
    pub ejects_on_dial_timeout: bool,
    /// How long the first ejection lasts, and in what time one is forgotten. More than zero. Default 30 s (Envoy).
    pub base: Duration,
    /// The longest. Not less than the base. Default 300 s (Envoy).
    pub longest: Duration,
    /// Percent of the endpoints that may be ejected at a time, from 0, which is never, to 100. Default 50 †. If not 0,
    /// one of two or more may always be; the last one that is left never.
    pub ejected_max_percent: u32,
}

impl Default for OutlierLimits {
    fn default() -> Self {
        Self {
            failures: 5,
            ejects_on_dial_timeout: true,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            ejected_max_percent: 50,
        }
    }
}

/// Why limits of ejection are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutlierLimitsError {
    /// Everybody would be ejected at once.
    #[error(
        "ejection after 0 failures; say at least 1, or an `ejected_max_percent` of 0 to have none"
    )]
    Failures,
    /// An ejection that is none.
    #[error(
        "ejection for no time; say a `base` of more than zero, or an `ejected_max_percent` of 0 to have none"
    )]
    Base,
    /// The first would be longer than the longest.
    #[error(
        "ejection for {base:?}, and {longest:?} at most; say a `longest` of at least the `base`"
    )]
    Longest {
        /// The base given.
        base: Duration,
        /// The longest given.
        longest: Duration,
    },
    /// More than all.
    #[error("{percent} % of the endpoints may be ejected; say from 0 to 100")]
    Percent {
        /// The percentage given.
        percent: u32,
    },
}

impl OutlierLimits {
    /// Whether they make sense. Those that do not are taken for the nearest that do.
    ///
    /// # Errors
    /// [`OutlierLimitsError`], for the first that does not.
    pub fn check(&self) -> Result<(), OutlierLimitsError> {
        let Self { failures, base, longest, ejected_max_percent: percent, .. } = *self;
        if failures == 0 {
            return Err(OutlierLimitsError::Failures);
        }
        if base.is_zero() {
            return Err(OutlierLimitsError::Base);
        }
        if longest < base {
            return Err(OutlierLimitsError::Longest { base, longest });
        }
        if percent > 100 {
            return Err(OutlierLimitsError::Percent { percent });
        }
        Ok(())
    }

    fn clamped(self) -> Self {
        let base = self.base.max(Duration::from_millis(1));
        Self {
            failures: self.failures.max(1),
            ejects_on_dial_timeout: self.ejects_on_dial_timeout,
            base,
            longest: self.longest.max(base),
            ejected_max_percent: self.ejected_max_percent.min(100),
        }
    }

    /// How many of so many may be ejected.
    fn ejected_max(&self, members: u32) -> u32 {
        if self.ejected_max_percent == 0 {
            return 0;
        }
        let share = u64::from(members) * u64::from(self.ejected_max_percent) / 100;
        (share as u32).max(1).min(members.saturating_sub(1))
    }
}

/// An endpoint was ejected by what was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejected {
    /// On the runtime's clock; it is in again from then on, unless that is [prolonged](Ejections::prolong).
    pub until: Duration,
    /// The how many-th time it is, lately.
    pub times: u32,
    /// All failures that led to it were of dials: whoever can connect to it may bring it back
    /// ([`Ejections::probed`]).
    pub is_dials_only: bool,
}

// ------------------------------------------------------------------------------------- what is shared

/// Who is ejected, of the endpoints of one upstream: shared by all reactors, without a lock.
#[derive(Debug)]
pub struct Ejections {
    words: Box<[AtomicU64]>,
    /// Places taken.
    ejected: AtomicU32,
    members: AtomicU32,
    /// Ejections and returns there have been.
    changes: AtomicU64,
}

impl Ejections {
    /// For endpoints of the numbers below this. Nobody is ejected.
    #[must_use]
    pub fn new(endpoints: u32) -> Self {
        Self {
            words: (0..endpoints)
                .map(|_| AtomicU64::new(EjectionState::default().pack()))
                .collect(),
            ejected: AtomicU32::new(0),
            members: AtomicU32::new(0),
            changes: AtomicU64::new(0),
        }
    }

    /// How many endpoints there are, for the share of them that may be ejected. With none, which is what it starts
    /// with, nobody is. If there are fewer than before, those that are ejected stay so until their time has come.
    pub fn set_members(&self, members: u32) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// How many places are taken by those ejected. Those whose time has come are among them until somebody looks.
    #[must_use]
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Ordering::Acquire)
    }

    /// How many ejections and returns there have been. As long as it is the same, and the time of nobody ejected has
    /// come, nothing has to be looked at.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What the word of an endpoint says: also that it is ejected until a time that has passed, if nobody has looked
    /// since. `None` if it has no word.
    #[must_use]
    pub fn state(&self, endpoint: u32) -> Option<EjectionState> {
        let word = self.words.get(endpoint as usize)?;
        Some(EjectionState::unpack(word.load(Ordering::Acquire)))
    }

    /// Whether it is to be left alone. The first to ask after its time has come gives its place back.
    pub fn is_ejected(&self, endpoint: u32, now: Duration) -> bool {
        let Some(state) = self.state(endpoint) else { return false };
        if !state.is_ejected {
            return false;
        }
        if now < state.until {
            return true;
        }
        // If it does not come about, somebody else has just done it, or more.
        self.free(endpoint, state, state.until);
        false
    }

    /// Gives back the places of all whose time has come; how many those were.
    pub fn expire(&self, now: Duration) -> u32 {
        if self.ejected() == 0 {
            return 0;
        }
        let mut freed = 0;
        for endpoint in 0..self.words.len() as u32 {
            let state = self.state(endpoint).unwrap_or_default();
            if state.is_ejected && state.until <= now && self.free(endpoint, state, state.until) {
                freed += 1;
            }
        }
        freed
    }

    /// The earliest time at which somebody is back; `None` if nobody is ejected.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        let states =
            self.words.iter().map(|word| EjectionState::unpack(word.load(Ordering::Acquire)));
        states.filter(|state| state.is_ejected).map(|state| state.until).min()
    }

    /// A probe has connected to it: it is back, if it was ejected for dials only. Whether it was.
    pub fn probed(&self, endpoint: u32, now: Duration) -> bool {
        self.free_if(endpoint, now, |state| state.is_dials_only)
    }

    /// A probe could not connect to it: ejected for dials only, until a time that has not come yet, it stays so until
    /// another. That; `None` if it is not, and whoever probes it has nothing left to do.
    ///
    /// ```
    /// use std::time::Duration;
    /// use slipring::policy::outcome::Outcome;
    /// use slipring::policy::outlier::{Ejections, Outlier, OutlierLimits};
    ///
    /// let (shared, now) = (Ejections::new(8), Duration::from_secs(60));
    /// shared.set_members(4);
    /// let mut outlier = Outlier::new(OutlierLimits::default());
    /// let until = outlier.note(&shared, 2, now, Outcome::DialTimeout).expect("one is enough").until;
    /// let later = until + Duration::from_secs(10);
    /// assert_eq!(shared.prolong(2, now, until, later), Some(later));
    /// assert!(shared.is_ejected(2, until) && !shared.is_ejected(2, later));
    /// // That was another ejection, or it is over.
    /// assert_eq!(shared.prolong(2, now, until, later), None);
    /// ```
    pub fn prolong(
        &self,
        endpoint: u32,
        now: Duration,
        until: Duration,
        later: Duration,
    ) -> Option<Duration> {
        let state = self.state(endpoint).filter(|state| state.is_until(until, now))?;
        let after = EjectionState { until: later.max(until), ..state }.rounded();
        (state.is_dials_only && self.replace(endpoint, state, after)).then_some(after.until)
    }

    /// It is back, whatever it was ejected for. Whether it was.
    pub fn uneject(&self, endpoint: u32, now: Duration) -> bool {
        self.free_if(endpoint, now, |_| true)
    }

    /// It is gone, and its number may be another's: nothing is known of it any more.
    pub fn forget(&self, endpoint: u32) {
        let Some(word) = self.words.get(endpoint as usize) else { return };
        let before = word.swap(EjectionState::default().pack(), Ordering::AcqRel);
        if EjectionState::unpack(before).is_ejected {
            self.give_place();
        }
    }

    fn free_if(&self, endpoint: u32, now: Duration, may: impl Fn(&EjectionState) -> bool) -> bool {
        while let Some(state) = self.state(endpoint) {
            if !state.is_ejected || !may(&state) {
                return false;
            }
            if self.free(endpoint, state, now.min(state.until)) {
                return true;
            }
        }
        false
    }

    /// Ends an ejection, and notes since when it is in. Whether it was this call that did.
    fn free(&self, endpoint: u32, state: EjectionState, since: Duration) -> bool {
        let after =
            EjectionState { until: since, is_ejected: false, is_dials_only: false, ..state };
        let is_done = self.replace(endpoint, state, after);
        if is_done {
            self.give_place();
        }
        is_done
    }

    fn eject(
        &self,
        endpoint: u32,
        now: Duration,
        is_dials_only: bool,
        limits: &OutlierLimits,
    ) -> Option<Ejected> {
        let mut state = self.state(endpoint)?;
        // Places may be held by some whose time has come.
        if !self.take_place(limits) && (self.expire(now) == 0 || !self.take_place(limits)) {
            return None;
        }
        loop {
            let Some(after) = state.ejected(now, is_dials_only, limits) else {
                self.give_back_unused_place();
                return None;
            };
            if self.replace(endpoint, state, after) {
                self.changes.fetch_add(1, Ordering::AcqRel);
                let EjectionState { until, times, is_dials_only, .. } = after;
                return Some(Ejected { until, times, is_dials_only });
            }
            state = self.state(endpoint).unwrap_or(state);
        }
    }

    fn replace(&self, endpoint: u32, state: EjectionState, after: EjectionState) -> bool {
        let Some(word) = self.words.get(endpoint as usize) else { return false };
        let (state, after) = (state.pack(), after.pack());
        word.compare_exchange(state, after, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn take_place(&self, limits: &OutlierLimits) -> bool {
        let max = limits.ejected_max(self.members.load(Ordering::Relaxed));
        let more = |taken| (taken < max).then(|| taken + 1);
        self.ejected.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give_place(&self) {
        self.give_back_unused_place();
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn give_back_unused_place(&self) {
        let before = self.ejected.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a place was given back that nobody had taken");
    }
}

// ------------------------------------------------------------------------------------- of a reactor

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    failures: u32,
    is_dials_only: bool,
    /// Of its word, when the row began: if they are others, it was ejected meanwhile.
    word: (Duration, u32),
}

/// One reactor's count of failures in a row, by endpoint.
#[derive(Debug)]
pub struct Outlier {
    limits: OutlierLimits,
    rows: Vec<Row>,
    /// The latest time that it was told.
    latest: Duration,
}

impl Outlier {
    /// With nothing noted.
    #[must_use]
    pub fn new(limits: OutlierLimits) -> Self {
        Self { limits: limits.clamped(), rows: Vec::new(), latest: Duration::ZERO }
    }

    /// A call to this endpoint has ended so. `Some` if it was this that ejected it.
    pub fn note(
        &mut self,
        shared: &Ejections,
        endpoint: u32,
        now: Duration,
        outcome: Outcome,
    ) -> Option<Ejected> {
        self.latest = self.latest.max(now);
        let is_dial = match outcome {
            Outcome::Ignored => return None,
            Outcome::Success => {
                if let Some(row) = self.rows.get_mut(endpoint as usize) {
                    row.failures = 0;
                }
                return None;
            }
            Outcome::Failure => false,
            Outcome::DialFailure | Outcome::DialTimeout => true,
        };
        let is_ejected = shared.is_ejected(endpoint, self.latest);
        let state = shared.state(endpoint)?;
        let word = (state.until, state.times);
        let at = endpoint as usize;
        if self.rows.len() <= at {
            self.rows.resize(at + 1, Row::default());
        }
        let row = &mut self.rows[at];
        if is_ejected {
            row.failures = 0;
            return None;
        }
        if row.failures == 0 || row.word != word {
            *row = Row { failures: 0, is_dials_only: true, word };
        }
        let is_enough = outcome == Outcome::DialTimeout && self.limits.ejects_on_dial_timeout;
        let weight = if is_enough { self.limits.failures } else { 1 };
        row.failures = row.failures.saturating_add(weight);
        row.is_dials_only &= is_dial;
        if row.failures < self.limits.failures {
            return None;
        }
        let ejected = shared.eject(endpoint, self.latest, row.is_dials_only, &self.limits)?;
        row.failures = 0;
        Some(ejected)
    }

    /// A connection to it was established, of which nothing else is known yet: that ends a row of failed dials. One
    /// with failed calls goes on, or an endpoint that accepts, and then fails every call, would never have two.
    pub fn connected(&mut self, endpoint: u32) {
        if let Some(row) = self.rows.get_mut(endpoint as usize).filter(|row| row.is_dials_only) {
            row.failures = 0;
        }
    }

    /// Failures in a row that this reactor has seen.
    #[must_use]
    pub fn failures(&self, endpoint: u32) -> u32 {
        self.rows.get(endpoint as usize).map_or(0, |row| row.failures)
    }

    /// It is gone, and its number may be another's. To be said on each reactor, and once of the [`Ejections`].
    pub fn forget(&mut self, endpoint: u32) {
        if let Some(row) = self.rows.get_mut(endpoint as usize) {
            *row = Row::default();
        }
    }
}

#[cfg(test)]
mod tests;
