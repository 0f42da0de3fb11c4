//! A pool at one moment, for people: errors carry it, and `pool.snapshot()` shows it.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// What a pool has, and who waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// Connections it may have.
    pub max: u32,
    /// Those being dialed.
    pub dialing: u32,
    /// Those that wait to be taken.
    pub idle: u32,
    /// Those that are in use.
    pub checked_out: u32,
    /// Those being looked at before they are given out, or pinged.
    pub validating: u32,
    /// Those being closed.
    pub closing: u32,
    /// Callers that wait for one.
    pub waiting: u32,
    /// For how long the first of them has.
    pub oldest_waiter: Duration,
    /// For how long the connection that was given out first has been in use.
    pub oldest_checkout: Duration,
    /// Where in the code it was taken.
    pub oldest_checkout_at: Option<&'static Location<'static>>,
}

/// One line, that says what to look at: `10 of 10 in use, 3 waiting (the first for 5.000 s), ...`.
impl fmt::Display for PoolSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} in use", self.checked_out, self.max)?;
        let others = [
            (self.idle, "idle"),
            (self.dialing, "being dialed"),
            (self.validating, "being validated"),
            (self.closing, "being closed"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        write!(f, ", {} waiting", self.waiting)?;
        if self.waiting > 0 {
            write!(f, " (the first for {:.3} s)", self.oldest_waiter.as_secs_f64())?;
        }
        if self.checked_out > 0 {
            write!(f, ", the oldest in use for {:.3} s", self.oldest_checkout.as_secs_f64())?;
        }
        if let Some(place) = self.oldest_checkout_at {
            write!(f, ", taken at {}:{}", place.file(), place.line())?;
        }
        Ok(())
    }
}
