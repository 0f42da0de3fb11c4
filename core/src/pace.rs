//! How often clients may come in: the rates of a process and of its listeners.
//!
//! ```text
//!                            process     listener
//!   client let in            a token     a token        of each that has a rate: both, or neither
//!   client of a drain        none        none           it is taken in, however many there are
//! ```
//!
//! Is: the buckets that apply to a listener's clients, taken from together. Is not: a limit of sources
//! (`sources`), who are reset when they come too often; here nobody is. Who finds no token waits in the backlog,
//! as who finds no place does: to itself it is connected, and a rate is there to spread a rush, not to break it.
//!
//! A token is taken before the client is accepted, so the rates hold exactly over all reactors. A multishot
//! accept asks nobody, so a listener with a rate never arms one.

use crate::rates::{Rate, SharedBucket};

/// The rates at which clients are let in.
#[derive(Debug, Default)]
pub struct Pace {
    process: Option<SharedBucket>,
    /// By the listener's number; none beyond the end.
    listeners: Vec<Option<SharedBucket>>,
}

impl Pace {
    /// The rate of the process, and those of its listeners in the order of their numbers. All buckets are full at
    /// the time zero of the reactors' clock.
    #[must_use]
    pub fn new(process: Option<Rate>, listeners: impl IntoIterator<Item = Option<Rate>>) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(|rate| SharedBucket::new(rate, 0));
        Self { process: bucket(process), listeners: listeners.into_iter().map(bucket).collect() }
    }

    fn own(&self, listener: u16) -> Option<&SharedBucket> {
        self.listeners.get(usize::from(listener))?.as_ref()
    }

    /// Whether the clients of a listener need tokens at all.
    #[must_use]
    pub fn applies(&self, listener: u16) -> bool {
        self.process.is_some() || self.own(listener).is_some()
    }

    /// Takes a token of each bucket that applies, or none.
    ///
    /// # Errors
    /// The time at which it is worth asking again, microseconds; others may have been quicker by then.
    pub fn take(&self, listener: u16, now_us: u64) -> Result<(), u64> {
        let at_us = |wait_us| now_us.saturating_add(wait_us);
        let own = self.own(listener);
        own.map_or(Ok(()), |own| own.take(now_us)).map_err(at_us)?;
        let taken = self.process.as_ref().map_or(Ok(()), |process| process.take(now_us));
        taken.map_err(|wait_us| {
            own.into_iter().for_each(SharedBucket::give_back);
            at_us(wait_us)
        })
    }

    /// Gives back what was taken for nobody.
    pub fn give_back(&self, listener: u16) {
        self.own(listener).into_iter().chain(&self.process).for_each(SharedBucket::give_back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Option<Rate> {
        Some(Rate::with_burst(per_second, burst).expect("a rate"))
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let pace = Pace::new(None, [None, rate(1, 1)]);
        assert!(!pace.applies(0) && pace.applies(1) && !pace.applies(2));
        assert!((0..1000).all(|_| pace.take(0, 0).is_ok()));
        assert!(Pace::new(rate(1, 1), []).applies(7), "the process has one");
    }

    #[test]
    fn a_listener_and_its_process_give_both_or_neither() {
        let pace = Pace::new(rate(10, 2), [rate(1, 1), None]);
        assert_eq!(pace.take(0, 0), Ok(()));
        // Its own is empty: the process keeps its second token, for another.
        assert_eq!(pace.take(0, 0), Err(1_000_000));
        assert_eq!(pace.take(1, 0), Ok(()));
        // The process is empty now, when the listener has one: it keeps it.
        assert_eq!(pace.take(1, 950_000), Ok(()));
        assert_eq!(pace.take(1, 950_000), Ok(()));
        assert_eq!(pace.take(0, 1_000_000), Err(1_050_000));
        assert_eq!(pace.take(0, 1_050_000), Ok(()));
    }

    #[test]
    fn what_is_given_back_is_there_again() {
        let pace = Pace::new(rate(1, 1), [rate(1, 1)]);
        for _ in 0..3 {
            assert_eq!(pace.take(0, 0), Ok(()));
            assert_eq!(pace.take(0, 0), Err(1_000_000));
            pace.give_back(0);
        }
    }
}
