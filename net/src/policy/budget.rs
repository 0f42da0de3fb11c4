//! Whether one more retry is affordable.
//!
//! ```
//! use std::time::Duration;
//! use slipring::policy::budget::{Budget, BudgetLimits};
//!
//! let limits = BudgetLimits { percent: 20, per_second: 0, ..BudgetLimits::default() };
//! let mut budget = Budget::new(&limits, 0, 1);
//! let now = Duration::from_secs(3);
//! (0..10).for_each(|_| budget.note_first(now));
//! assert!(budget.try_retry(now) && budget.try_retry(now), "20 % of ten");
//! assert!(!budget.try_retry(now));
//! ```
//!
//! Is: the retries of an upstream held to a share of its first attempts, on one reactor. Is not: a limit of the
//! attempts of one request (`retry`), nor of requests.
//!
//! # Why a budget and not only a number of attempts?
//! Three attempts for each request are three times the load just when the upstream can bear it least, and of four
//! services in a row that all retry, the last gets 81 times of it. A share of the first attempts adds that share and
//! no more, however much fails. The constant part lets those with few requests retry at all.
//!
//! # What is promised
//! Whenever a retry is granted, the retries of the window that ends with it, itself included, are at most `percent` of
//! the first attempts of the same window and `per_second` times the window's length. The window is of ten buckets
//! (`window`): it covers more than nine tenths of [`BudgetLimits::window`], and at most all of it. So in *any* stretch
//! of nine tenths of the window there are no more retries than `percent` of the first attempts from one window before
//! its last retry on, and the constant part. First attempts that follow the retry do not pay for it.
//!
//! # Across reactors
//! Each has a budget of its own, of which no other knows: its share of the constant part, and `percent` of its own
//! first attempts. The constant part is divided without a rest: the first few have one retry more than the others. So
//! all together never have more than the limit, nor less, and with no more reactors than retries each has at least one.
//! With more reactors than that, those of the highest numbers live by their percentage alone.

use std::time::Duration;

use crate::policy::window::{Tally, Window};

const PERCENT: u128 = 100;
/// Ten retries for each first attempt: as good as no limit.
const PERCENT_MAX: u32 = 1000;
const WINDOW_MIN: Duration = Duration::from_secs(1);
const WINDOW_MAX: Duration = Duration::from_secs(3600);
const NANOS_PER_S: u128 = 1_000_000_000;

/// How many retries an upstream may have, over all reactors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Retries for a hundred first attempts, from 0 to 1000. Default 20 (Finagle, tower).
    pub percent: u32,
    /// Retries that are always affordable, in each second of the window. They may all come at once. Default 10
    /// (Finagle, tower). With `percent` 0 as well there are no retries at all.
    pub per_second: u32,
    /// How far back first attempts and retries count, from 1 s to 1 h. Default 10 s (Finagle, tower).
    pub window: Duration,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self { percent: 20, per_second: 10, window: Duration::from_secs(10) }
    }
}

/// Why [`BudgetLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetLimitsError {
    /// More than would limit anything.
    #[error("a budget of {percent} % of the first attempts; say from 0 to {PERCENT_MAX}")]
    Percent {
        /// Those asked for.
        percent: u32,
    },
    /// Too short to count in, or too long to forget.
    #[error("a budget over {window:?}; say from {WINDOW_MIN:?} to {WINDOW_MAX:?}")]
    Window {
        /// The one asked for.
        window: Duration,
    },
}

impl BudgetLimits {
    /// No retries, ever.
    #[must_use]
    pub fn never() -> Self {
        Self { percent: 0, per_second: 0, ..Self::default() }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`BudgetLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), BudgetLimitsError> {
        let Self { percent, per_second: _, window } = *self;
        if percent > PERCENT_MAX {
            return Err(BudgetLimitsError::Percent { percent });
        }
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&window) {
            return Err(BudgetLimitsError::Window { window });
        }
        Ok(())
    }

    /// Retries in a window that need no first attempts, over all reactors.
    fn constant(&self) -> u64 {
        let constant = u128::from(self.per_second) * self.window.as_nanos() / NANOS_PER_S;
        u64::try_from(constant).unwrap_or(u64::MAX)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    firsts: u64,
    retries: u64,
}

impl Tally for Attempts {
    fn plus(self, other: Self) -> Self {
        Self {
            firsts: self.firsts.saturating_add(other.firsts),
            retries: self.retries.saturating_add(other.retries),
        }
    }
}

/// What a reactor may still spend on retries of one upstream.
#[derive(Clone, Debug)]
pub struct Budget {
    percent: u32,
    /// This reactor's share of the constant part.
    constant: u64,
    window: Window<Attempts>,
}

impl Budget {
    /// That of the reactor of this number, from 0 on, of so many that share the limits. Its share is settled here:
    /// another number of reactors needs other budgets.
    ///
    /// A number that none of so many reactors has gets no more than the least share of them.
    #[must_use]
    pub fn new(limits: &BudgetLimits, reactor: usize, reactors: usize) -> Self {
        let (constant, reactors) = (limits.constant(), reactors.max(1) as u64);
        let has_one_more = (reactor as u64) < constant % reactors;
        Self {
            percent: limits.percent,
            constant: constant / reactors + u64::from(has_one_more),
            window: Window::new(limits.window),
        }
    }

    /// A request was sent for the first time.
    pub fn note_first(&mut self, now: Duration) {
        self.window.add(now, Attempts { firsts: 1, retries: 0 });
    }

    /// Whether a retry is affordable. If so, it has been paid for.
    pub fn try_retry(&mut self, now: Duration) -> bool {
        let is_affordable = self.left(now) > 0;
        if is_affordable {
            self.window.add(now, Attempts { firsts: 0, retries: 1 });
        }
        is_affordable
    }

    /// How many retries are affordable now.
    #[must_use]
    pub fn left(&mut self, now: Duration) -> u64 {
        let Attempts { firsts, retries } = self.window.sum(now);
        let earned = u128::from(firsts) * u128::from(self.percent) / PERCENT;
        let affordable = earned + u128::from(self.constant);
        u64::try_from(affordable.saturating_sub(u128::from(retries))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
