//! The clock's only room.
//!
//! Everything above takes the time as a parameter; a driver tells it once a turn. Times are microseconds
//! (`_us`) since the reactor's clock started; the wheel and every deadline count milliseconds (`_ms`).

use std::time::{Duration, Instant};

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
}
