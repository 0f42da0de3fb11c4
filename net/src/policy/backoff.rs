//! How long until the next attempt.
//!
//! ```
//! use std::time::Duration;
//! use slipring::policy::backoff::{Backoff, Jitter};
//!
//! let backoff = Backoff { jitter: Jitter::None, ..Backoff::default() };
//! let mut delays = backoff.delays();
//! let mut rng = fastrand::Rng::with_seed(1);
//! let first: Vec<_> = (0..4).map(|_| delays.next(&mut rng).as_millis()).collect();
//! assert_eq!(first, [100, 200, 400, 800]);
//! delays.reset();
//! assert_eq!(delays.next(&mut rng), Duration::from_millis(100));
//! ```
//!
//! Is: a delay that grows with each attempt up to a bound, and is drawn at random so that those who failed together do
//! not come back together. Is not: a timer, nor the answer whether to try again at all (`retry`, `budget`).
//!
//! The jitters are those of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), by its names. With `n` for
//! the delay without jitter, which is `first`, `first * factor`, and so on up to `most`:
//!
//! | jitter | drawn from | mean |
//! |---|---|---|
//! | `None` | `n` itself | `n` |
//! | `Full` | `0 ..= n` | `n / 2` |
//! | `Equal` | `n / 2 ..= n` | `3 n / 4` |
//! | `Decorrelated` | `first ..= 3 * the one before`, cut off at `most` | `2 * first`; after many, about `most / 2` |
//!
//! All draws are even over whole nanoseconds, both ends included.

use std::time::Duration;

/// What the article multiplies the delay before by, under [`Jitter::Decorrelated`].
const DECORRELATED_FACTOR: u128 = 3;
const NANOS_PER_S: u128 = 1_000_000_000;

/// How delays are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// Not at all. Those who failed together come back together.
    None,
    /// Anywhere from none to the whole delay. The default: of the four it makes the least work for all together.
    #[default]
    Full,
    /// Half of the delay for certain, and anywhere in the other half.
    Equal,
    /// Anywhere from the first delay to three times the one before, so it grows by luck. [`Backoff::factor`] has no
    /// part in it; the first draw is from `first ..= 3 * first`.
    Decorrelated,
}

/// How delays grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first delay, before jitter. Default 100 ms †.
    pub first: Duration,
    /// By how much each delay is longer than the one before. Default 2 (AWS); 1 for delays that stay the same.
    pub factor: u32,
    /// The longest delay, before jitter. Default 30 s †.
    pub most: Duration,
    /// How delays are spread. Default [`Jitter::Full`].
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            factor: 2,
            most: Duration::from_secs(30),
            jitter: Jitter::Full,
        }
    }
}

/// Why a [`Backoff`] makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackoffError {
    /// A delay of nothing stays nothing, whatever it is multiplied by.
    #[error("a first delay of 0 never grows; say at least 1 ms, or allow no retries at all")]
    First,
    /// Delays that become nothing.
    #[error("delays that are multiplied by 0; say 1 for delays that stay the same, or more")]
    Factor,
    /// The first delay is longer than any may be.
    #[error(
        "a first delay of {first:?}, and none longer than {most:?}; raise `most` or lower `first`"
    )]
    Most {
        /// The first delay.
        first: Duration,
        /// The longest.
        most: Duration,
    },
}

impl Backoff {
    /// Of a pool that fills itself up again: 100 ms, twice as long each time, up to 5 s, with full jitter.
    #[must_use]
    pub fn refill() -> Self {
        Self { most: Duration::from_secs(5), ..Self::default() }
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`BackoffError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), BackoffError> {
        let Self { first, factor, most, jitter: _ } = *self;
        if first.is_zero() {
            return Err(BackoffError::First);
        }
        if factor == 0 {
            return Err(BackoffError::Factor);
        }
        if first > most {
            return Err(BackoffError::Most { first, most });
        }
        Ok(())
    }

    /// The delays from the first on. What [`check`](Self::check) would refuse does no harm: a `first` beyond `most` is
    /// `most`, and a `factor` of 0 is 1.
    #[must_use]
    pub fn delays(&self) -> Delays {
        Delays { backoff: *self, reached: self.start() }
    }

    fn start(&self) -> Duration {
        self.first.min(self.most)
    }
}

/// Where somebody who backs off has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    backoff: Backoff,
    /// The delay to come without jitter; the one before, if decorrelated.
    reached: Duration,
}

impl Delays {
    /// How long to wait now. The one after it is longer.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let Backoff { factor, most, jitter, .. } = self.backoff;
        let whole = self.reached;
        if jitter == Jitter::Decorrelated {
            self.reached = self.decorrelated(rng);
            return self.reached;
        }
        self.reached = whole.saturating_mul(factor.max(1)).min(most);
        let nanos = whole.as_nanos();
        match jitter {
            Jitter::Full => of_nanos(rng.u128(0..=nanos)),
            Jitter::Equal => of_nanos(rng.u128(nanos / 2..=nanos)),
            Jitter::None | Jitter::Decorrelated => whole,
        }
    }

    /// From the first delay on again: what had failed has gone well.
    pub fn reset(&mut self) {
        self.reached = self.backoff.start();
    }

    fn decorrelated(&self, rng: &mut fastrand::Rng) -> Duration {
        let first = self.backoff.start().as_nanos();
        // What is cut off is the drawn delay, not the range: near the bound, most draws are the bound.
        let drawn = rng.u128(first..=self.reached.as_nanos() * DECORRELATED_FACTOR);
        of_nanos(drawn.min(self.backoff.most.as_nanos()))
    }
}

/// No longer than a duration can be: nothing drawn here is longer than `Backoff::most`.
fn of_nanos(nanos: u128) -> Duration {
    let seconds = u64::try_from(nanos / NANOS_PER_S).unwrap_or(u64::MAX);
    Duration::new(seconds, (nanos % NANOS_PER_S) as u32)
}

#[cfg(test)]
mod tests;
