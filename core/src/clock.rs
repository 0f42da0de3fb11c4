//! The clock's only room.
//!
//! Everything above takes the time as a parameter; a driver tells it once a turn. Times are microseconds
//! (`_us`) since the reactor's clock started; the wheel and every deadline count milliseconds (`_ms`).

use std::time::Duration;

/// The standard library's, for those who speak to crates whose interfaces are made of it: see [`Instants`].
pub use std::time::Instant;

/// The machine's monotonic clock, from zero.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    start: Instant,
}

impl MonotonicClock {
    /// A clock that reads about zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock's room")]
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

/// Whole milliseconds of a duration, rounded up, at least one: a deadline never comes early.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX).max(1)
}

/// The times of a reactor's clock as instants, and back: for libraries that ask for a time and want to be woken at one.
///
/// They go with the reactor's clock, also where that is virtual; only what they are counted from is the machine's.
#[derive(Debug, Clone, Copy)]
pub struct Instants {
    zero: Instant,
}

impl Instants {
    /// Those of a clock that reads `now_us` now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock's room")]
    #[must_use]
    pub fn from_now(now_us: u64) -> Self {
        let now = Instant::now();
        // A virtual clock may have run for longer than the machine has: the present will do then.
        Self { zero: now.checked_sub(Duration::from_micros(now_us)).unwrap_or(now) }
    }

    /// The instant of a time.
    #[must_use]
    pub fn at(&self, us: u64) -> Instant {
        self.zero.checked_add(Duration::from_micros(us)).unwrap_or(self.zero)
    }

    /// The time of an instant, since the clock's start; zero for what lies before it.
    #[must_use]
    pub fn since_start(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_never_cut_short() {
        assert_eq!(millis(Duration::ZERO), 1);
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_micros(1001)), 2);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn instants_go_with_the_clock_they_belong_to() {
        let instants = Instants::from_now(5_000_000);
        assert_eq!(instants.since_start(instants.at(7_000_000)), Duration::from_secs(7));
        assert_eq!(instants.at(7_000_000) - instants.at(6_000_000), Duration::from_secs(1));
        let before = instants.at(0).checked_sub(Duration::from_secs(1));
        assert_eq!(before.map(|at| instants.since_start(at)), Some(Duration::ZERO));
        // Virtual time runs for as long as a simulation likes.
        let late = u64::MAX / 2;
        let instants = Instants::from_now(late);
        assert_eq!(instants.since_start(instants.at(late)), Duration::from_micros(late));
    }
}
