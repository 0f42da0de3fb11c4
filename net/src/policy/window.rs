//! What was counted lately: a sliding window of ten buckets.
//!
//! ```text
//!   | 3 | 0 | 7 | 1 | 2 | 2 | 9 | 4 | 0 | 5.. |
//!   ^ forgotten next                       ^ now
//! ```
//!
//! Is: tallies by the time at which they were added, of which whole buckets are forgotten. Is not: exact to a call. The
//! window *covers* the present bucket so far and the nine before: between nine tenths of its length and all of it.
//!
//! Buckets begin at whole multiples of their width on the runtime's clock, so those of all reactors begin together, and
//! their sums can be added up. An earlier time than the latest seen is the latest seen: it is added to the present
//! bucket.
//!
//! Why buckets and not a decaying average: a window forgets wholly what is older than it, so what is promised of it can
//! be counted after. Why no running sum: ten additions are fewer than what a running sum has to get right.

use std::time::Duration;

/// Buckets of a window.
pub(crate) const BUCKETS: usize = 10;

/// Something that can be counted: numbers of what happened.
pub(crate) trait Tally: Copy + Default {
    /// Both together.
    fn plus(self, other: Self) -> Self;
}

/// Tallies of the last while.
#[derive(Clone, Debug)]
pub(crate) struct Window<T> {
    buckets: [T; BUCKETS],
    /// The present one.
    at: usize,
    /// How long each is. Never 0.
    width_ns: u128,
    /// When the present one ends. Wider than a `Duration`, so that it can end after the last of them.
    ends_ns: u128,
}

impl<T: Tally> Window<T> {
    /// Of this length, rounded down to a multiple of ten nanoseconds, and at least ten.
    pub(crate) fn new(length: Duration) -> Self {
        let width_ns = (length.as_nanos() / BUCKETS as u128).max(1);
        Self { buckets: [T::default(); BUCKETS], at: 0, width_ns, ends_ns: width_ns }
    }

    /// Adds to the bucket of now.
    pub(crate) fn add(&mut self, now: Duration, tally: T) {
        self.advance(now);
        self.buckets[self.at] = self.buckets[self.at].plus(tally);
    }

    /// All that the window covers.
    pub(crate) fn sum(&mut self, now: Duration) -> T {
        self.advance(now);
        self.buckets.into_iter().fold(T::default(), T::plus)
    }

    /// The number of the bucket of now, counted from the beginning of time.
    pub(crate) fn bucket(&mut self, now: Duration) -> u128 {
        self.advance(now);
        self.ends_ns / self.width_ns - 1
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.buckets = [T::default(); BUCKETS];
    }

    /// Forgets what lies behind the window now. One comparison as long as the bucket is the same.
    fn advance(&mut self, now: Duration) {
        let now_ns = now.as_nanos();
        if now_ns < self.ends_ns {
            return;
        }
        let steps = (now_ns - self.ends_ns) / self.width_ns + 1;
        self.ends_ns += steps * self.width_ns;
        if steps >= BUCKETS as u128 {
            return self.clear();
        }
        for _ in 0..steps {
            self.at = (self.at + 1) % BUCKETS;
            self.buckets[self.at] = T::default();
        }
    }
}

#[cfg(test)]
mod tests;
