//! The circuit breaker of an upstream: nothing is sent to who fails, until a few calls have shown that it is well.
//!
//! ```text
//!                     half of 20 calls or more failed
//!        +--------+ -----------------------------------> +------+  30 s, and twice as long
//!        | closed |                                      | open |  each time in a row, to 300 s
//!        +--------+ <--+                            +--> +------+
//!                      |                            |      |
//!                      | 3 probes      one failed   |      | until then; who calls next
//!                      | went well                  |      | is the first probe
//!                      |        +-----------+       |      |
//!                      +------- | half-open | ------+ <----+
//!                               +-----------+
//!                            3 permits, for 10 s each
//! ```
//!
//! Is: one word of all reactors that says how the breaker stands ([`BreakerState`]), and on each reactor a [`Breaker`]
//! with what its own calls came to lately. Is not: a limit of connections or requests, nor what leaves a single
//! endpoint alone (`outlier`).
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use slipring::policy::breaker::{Breaker, BreakerLimits, BreakerState};
//! use slipring::policy::outcome::Outcome;
//!
//! let state = Arc::new(BreakerState::new());
//! let mut breaker = Breaker::new(&BreakerLimits::default());
//! let now = Duration::from_secs(7);
//! for _ in 0..20 {
//!     let ticket = breaker.admit(now, &state).expect("it is closed");
//!     let _ = breaker.report(now, &state, ticket, Outcome::Failure);
//! }
//! let open = breaker.admit(now, &state).expect_err("20 of 20 have failed");
//! assert_eq!(open.until, Duration::from_secs(37));
//! // The first that asks then is a probe. Dropped without an outcome, it makes room for the next.
//! let ticket = breaker.admit(open.until, &state).expect("somebody may try");
//! assert!(ticket.is_probe());
//! state.give_back(open.until, ticket);
//! ```
//!
//! # What it costs
//! While it is closed, `admit` is one load of the word and one comparison, and `report` the same and an addition to the
//! reactor's own window. Nobody writes to the word but who opens, probes or closes.
//!
//! # Evidence
//! A reactor that finds enough failures among its own calls opens at once, for all. Otherwise every reactor publishes
//! its counts each 100 ms ([`Breaker::own_counts`]), reads those of the others, and opens on all of them together
//! ([`Breaker::merge`]). It is judged when a call fails and when counts are merged, not when one goes well.
//!
//! Counts are of one closed time, named by its epoch: whoever finds the breaker closed anew starts from nothing, and
//! leaves aside what others counted before. They also say when they were published: those of a reactor that has stalled
//! or ended are left aside when three buckets have passed.
//!
//! # How long it is open
//! For [`BreakerLimits::open`] the first time, and twice as long as the time before each time in a row. It opens *in a
//! row* when a probe fails, or when it has been closed by probes for less than a whole [`BreakerLimits::window`]. After
//! that much closed it is forgiven: what brings it down now is judged by a window that knows nothing of before.
//!
//! # Why it cannot stick
//! Half-open, it waits for somebody to call, and who calls finds a permit: it was not taken, or it came back with an
//! outcome or without, or it has been out for too long. Permits that are not back 10 s after the last of them was taken
//! are void, and all are given out anew. What a void permit's probe finds out in the end still counts (`word` says for
//! how long), so an upstream that takes its time closes it too.

mod state;
mod sync;
mod word;

use std::time::Duration;

use crate::failure::{self, Error};
use crate::policy::outcome::{self, Outcome};
use crate::policy::window::{Tally, Window};

pub use state::BreakerState;
pub use word::{Change, Open, Standing, Ticket};

use word::{Admitted, COUNT_MAX, EPOCH_BITS, EPOCH_MAX, PERMIT_MAX_MS, Rules};

const PERCENT: u128 = 100;
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(3600);
/// More would not be reached by counts that were halved to fit: see `Counts::new`.
const CALLS_MAX: u32 = 1 << (Counts::BITS - 1);
/// Counts that were published more than so many buckets before are left aside. Three of a window of 1 s are still
/// longer than it takes to publish the next.
const STALE_BUCKETS: u16 = 3;
/// The word counts in milliseconds.
const OPEN_MIN: Duration = Duration::from_millis(1);
const OPEN_MAX: Duration = Duration::from_secs(24 * 3600);
const PERMIT_MIN: Duration = Duration::from_millis(1);
const PERMIT_MAX: Duration = Duration::from_millis(PERMIT_MAX_MS as u64);

// ---------------------------------------------------------------------------------------- limits

/// When a breaker opens, for how long, and what closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Whether there is a breaker at all. Default true.
    pub is_enabled: bool,
    /// It opens when so many of a hundred calls of the window have failed, from 1 to 100. Default 50 (resilience4j).
    pub failures_percent: u32,
    /// It never opens on fewer calls than these, from 1 to 524288. Default 20 (Hystrix).
    pub calls_min: u32,
    /// How far back calls count, from 1 s to 1 h, in ten buckets. Default 10 s (Hystrix).
    pub window: Duration,
    /// How long it is open the first time, from 1 ms. Default 30 s (Envoy's ejection).
    pub open: Duration,
    /// How long it is open at most, up to a day. Default 300 s (Envoy's ejection).
    pub open_max: Duration,
    /// Probes under way at a time while it is half-open, over all reactors; from 1 to 15. Default 3 †.
    pub permits: u32,
    /// Probes that have to go well for it to close, from 1 to 15. Default 3 †.
    pub successes: u32,
    /// How long probes may take until their permits are given to others, from 1 ms to 1 h. Default 10 s †. It is no
    /// longer than 1,024 times [`open`](Self::open), whatever is said here.
    pub permit_timeout: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        Self {
            is_enabled: true,
            failures_percent: 50,
            calls_min: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(30),
            open_max: Duration::from_secs(300),
            permits: 3,
            successes: 3,
            permit_timeout: Duration::from_secs(10),
        }
    }
}

/// Why [`BreakerLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakerLimitsError {
    /// Without failures, or with more failures than calls.
    #[error(
        "a breaker that opens at {percent} % failures; say from 1 to 100, or `BreakerLimits::never()` for none"
    )]
    Percent {
        /// Those asked for.
        percent: u32,
    },
    /// On no calls at all, or on more than are counted.
    #[error("a breaker that opens on {calls_min} calls; say from 1 to {CALLS_MAX}")]
    Calls {
        /// Those asked for.
        calls_min: u32,
    },
    /// Too short to count in, or too long to forget.
    #[error("a breaker that looks back {window:?}; say from {WINDOW_MIN:?} to {WINDOW_MAX:?}")]
    Window {
        /// The one asked for.
        window: Duration,
    },
    /// Hardly open, open for days, or longer the first time than ever.
    #[error(
        "a breaker that is open for {open:?} at first and {open_max:?} at most; say from {OPEN_MIN:?} to {OPEN_MAX:?}, \
         and no longer at first than at most"
    )]
    Open {
        /// How long at first.
        open: Duration,
        /// How long at most.
        open_max: Duration,
    },
    /// No probes, or more than are counted.
    #[error("{permits} probes at a time; say from 1 to {COUNT_MAX}")]
    Permits {
        /// Those asked for.
        permits: u32,
    },
    /// Closed by nothing, or by more than is counted.
    #[error("closed by {successes} probes that go well; say from 1 to {COUNT_MAX}")]
    Successes {
        /// Those asked for.
        successes: u32,
    },
    /// Void at once, or never.
    #[error("probes may take {permit_timeout:?}; say from {PERMIT_MIN:?} to {PERMIT_MAX:?}")]
    PermitTimeout {
        /// What was asked for.
        permit_timeout: Duration,
    },
}

impl BreakerLimits {
    /// No breaker: all calls pass, and nothing is counted.
    #[must_use]
    pub fn never() -> Self {
        Self { is_enabled: false, ..Self::default() }
    }

    /// Refuses what makes no sense. Of a breaker that there is not, everything does.
    ///
    /// # Errors
    /// [`BreakerLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), BreakerLimitsError> {
        let Self { failures_percent: percent, calls_min, window, open, open_max, .. } = *self;
        let Self { permits, successes, permit_timeout, .. } = *self;
        let counts = 1..=u32::from(COUNT_MAX);
        if !self.is_enabled {
            return Ok(());
        }
        if !(1..=100).contains(&percent) {
            return Err(BreakerLimitsError::Percent { percent });
        }
        if !(1..=CALLS_MAX).contains(&calls_min) {
            return Err(BreakerLimitsError::Calls { calls_min });
        }
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
            return Err(BreakerLimitsError::Window { window });
        }
        if open < OPEN_MIN || open > open_max || open_max > OPEN_MAX {
            return Err(BreakerLimitsError::Open { open, open_max });
        }
        if !counts.contains(&permits) {
            return Err(BreakerLimitsError::Permits { permits });
        }
        if !counts.contains(&successes) {
            return Err(BreakerLimitsError::Successes { successes });
        }
        if !(PERMIT_MIN..=PERMIT_MAX).contains(&permit_timeout) {
            return Err(BreakerLimitsError::PermitTimeout { permit_timeout });
        }
        Ok(())
    }

    fn rules(&self) -> Rules {
        let Self { open, open_max, permits, successes, permit_timeout, window, .. } = *self;
        Rules::new(open, open_max, permits, successes, permit_timeout, window)
    }

    /// Whether these calls speak against the upstream loudly enough.
    fn condemn(&self, calls: Calls) -> bool {
        let Calls { successes, failures } = calls;
        let all = u128::from(successes) + u128::from(failures);
        let share = u128::from(failures) * PERCENT;
        failures > 0
            && all >= self.calls_min.into()
            && share >= all * u128::from(self.failures_percent.clamp(1, 100))
    }
}

// ---------------------------------------------------------------------------------------- evidence

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    successes: u64,
    failures: u64,
}

impl Tally for Calls {
    fn plus(self, other: Self) -> Self {
        Self {
            successes: self.successes.saturating_add(other.successes),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

/// What the calls of one reactor came to in the window, and when: what reactors publish to each other, in 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    successes: u32,
    failures: u32,
    /// Of which closed time these are.
    epoch: u16,
    /// In which bucket they were published. It wraps after 2048 of them.
    bucket: u16,
}

impl Counts {
    const BITS: u32 = 20;
    const MAX: u64 = (1 << Self::BITS) - 1;
    const EPOCH_SHIFT: u32 = 2 * Self::BITS;
    const BUCKET_SHIFT: u32 = Self::EPOCH_SHIFT + EPOCH_BITS;
    const BUCKET_MAX: u16 = (1 << (u64::BITS - Self::BUCKET_SHIFT)) - 1;

    /// Where there are more than a million, both are halved until they fit: their ratio is what matters.
    fn new(calls: Calls, epoch: u16, bucket: u128) -> Self {
        let Calls { mut successes, mut failures } = calls;
        while successes.max(failures) > Self::MAX {
            (successes, failures) = (successes / 2, failures / 2);
        }
        let bucket = (bucket & u128::from(Self::BUCKET_MAX)) as u16;
        Self { successes: successes as u32, failures: failures as u32, epoch, bucket }
    }

    /// Calls that went well.
    #[must_use]
    pub fn successes(self) -> u32 {
        self.successes
    }

    /// Calls that failed.
    #[must_use]
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// As a number, for an atomic that others read.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.successes)
            | u64::from(self.failures) << Self::BITS
            | u64::from(self.epoch) << Self::EPOCH_SHIFT
            | u64::from(self.bucket) << Self::BUCKET_SHIFT
    }

    /// Of the number that they were made. 0 is no calls.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self {
            successes: (bits & Self::MAX) as u32,
            failures: (bits >> Self::BITS & Self::MAX) as u32,
            epoch: (bits >> Self::EPOCH_SHIFT) as u16 & EPOCH_MAX,
            bucket: (bits >> Self::BUCKET_SHIFT) as u16,
        }
    }

    fn calls(self) -> Calls {
        Calls { successes: self.successes.into(), failures: self.failures.into() }
    }

    /// Whether these say anything about the time that those are of. Either may be ahead: clocks are read once a turn.
    fn is_beside(self, own: Self) -> bool {
        let ahead = self.bucket.wrapping_sub(own.bucket) & Self::BUCKET_MAX;
        let apart = ahead.min(own.bucket.wrapping_sub(self.bucket) & Self::BUCKET_MAX);
        self.epoch == own.epoch && apart <= STALE_BUCKETS
    }
}

impl From<Open> for Error {
    fn from(open: Open) -> Self {
        Self::new(failure::Breaker::Open { until: open.until })
    }
}

// ---------------------------------------------------------------------------------------- the breaker

/// The part of an upstream's breaker that each reactor has for itself.
#[derive(Debug)]
pub struct Breaker {
    limits: BreakerLimits,
    rules: Rules,
    window: Window<Calls>,
    /// The closed time whose calls are in the window.
    epoch: u16,
    /// The latest time seen, where time mattered.
    latest: Duration,
}

impl Breaker {
    /// All reactors of a [`BreakerState`] have the same limits. What [`BreakerLimits::check`] would refuse does no
    /// harm: the nearest that makes sense is taken.
    #[must_use]
    pub fn new(limits: &BreakerLimits) -> Self {
        Self {
            limits: *limits,
            rules: limits.rules(),
            window: Window::new(limits.window),
            epoch: 0,
            latest: Duration::ZERO,
        }
    }

    /// Whether a call may be made. Its ticket goes to [`report`](Self::report), or to [`BreakerState::give_back`] if
    /// nobody knows what came of it.
    ///
    /// # Errors
    /// [`Open`], with the time when it is worth asking again.
    #[inline]
    pub fn admit(&mut self, now: Duration, state: &BreakerState) -> Result<Ticket, Open> {
        match state.closed_epoch() {
            Some(epoch) => Ok(Ticket(Admitted::Call { epoch })),
            None if self.limits.is_enabled => state.admit(self.see(now), &self.rules),
            None => Ok(Ticket(Admitted::Unjudged)),
        }
    }

    /// What came of a call, and what the breaker makes of it.
    ///
    /// A call counts if it was admitted in the closed time that still lasts, and a probe if the breaker has been
    /// half-open since. All others are left aside.
    pub fn report(
        &mut self,
        now: Duration,
        state: &BreakerState,
        ticket: Ticket,
        outcome: Outcome,
    ) -> Option<Change> {
        match ticket.0 {
            Admitted::Probe(probe) => state.report(probe, outcome, self.see(now), &self.rules),
            Admitted::Call { epoch } if self.limits.is_enabled => {
                if state.closed_epoch() != Some(epoch) {
                    return None;
                }
                self.keep_to(epoch);
                let (successes, failures) = match outcome {
                    Outcome::Success => (1, 0),
                    Outcome::Failure | Outcome::DialFailure | Outcome::DialTimeout => (0, 1),
                    Outcome::Ignored => return None,
                };
                self.window.add(now, Calls { successes, failures });
                if outcome == Outcome::Success {
                    return None;
                }
                let own = self.window.sum(now);
                self.judge(now, state, own)
            }
            Admitted::Call { .. } | Admitted::Unjudged => None,
        }
    }

    /// What this reactor's calls came to lately, for others to merge. To be published every 100 ms or so, calls or
    /// none: what was published too long ago is left aside.
    #[must_use]
    pub fn own_counts(&mut self, now: Duration) -> Counts {
        Counts::new(self.window.sum(now), self.epoch, self.window.bucket(now))
    }

    /// Judges by the evidence of all reactors: this one's, and the counts that each of the others has published last.
    /// To be called every 100 ms or so. It sees to permits that are void, too.
    pub fn merge(
        &mut self,
        now: Duration,
        state: &BreakerState,
        others: impl IntoIterator<Item = Counts>,
    ) -> Option<Change> {
        if !self.limits.is_enabled {
            return None;
        }
        let Some(epoch) = state.closed_epoch() else {
            state.settle(self.see(now), &self.rules);
            return None;
        };
        self.keep_to(epoch);
        let own = self.own_counts(now);
        let others = others.into_iter().filter(|counts| counts.is_beside(own));
        let all = others.fold(self.window.sum(now), |all, counts| all.plus(counts.calls()));
        self.judge(now, state, all)
    }

    fn judge(&mut self, now: Duration, state: &BreakerState, calls: Calls) -> Option<Change> {
        if !self.limits.condemn(calls) {
            return None;
        }
        state.trip(self.epoch, self.see(now), &self.rules)
    }

    /// What was counted in another closed time is no evidence in this one.
    fn keep_to(&mut self, epoch: u16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.window.clear();
        }
    }

    fn see(&mut self, now: Duration) -> Duration {
        self.latest = self.latest.max(now);
        self.latest
    }
}

#[cfg(test)]
mod tests;
