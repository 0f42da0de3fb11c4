//! When the messages of an open loop are due: a fixed schedule, which no answer can delay.
//!
//! ```text
//!   message   0   1   2   3   4   5   6 ...    due at  start + message / rate
//!   lane      0   1   2   0   1   2   0 ...    (3 lanes: connections take turns)
//! ```
//! The instant a message is *due* is its intended start, and its latency counts from there, also
//! when it could be sent only later because the server was behind. (Counting from the send would
//! leave out the waiting a slow answer causes to those after it: coordinated omission.)
//!
//! Not a queue: a message that is due and unsent is only a number between two counters. Why no
//! random gaps: with equal ones two runs offer the same, which is what ratios need.

const NANOSECONDS: f64 = 1e9;

/// The intended starts of all messages of a run. Times are nanoseconds of the run's clock.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start_ns: u64,
    interval_ns: f64,
}

impl Schedule {
    /// Messages from `start_ns` on, `rate` of them a second, which must be above zero.
    #[must_use]
    pub fn new(start_ns: u64, rate: f64) -> Self {
        debug_assert!(rate > 0.0, "a schedule needs a rate");
        Self { start_ns, interval_ns: NANOSECONDS / rate }
    }

    /// When message number `message` is to start; never before the one ahead of it.
    ///
    /// Computed from its number, not by adding up intervals, so rounding does not accumulate.
    #[must_use]
    pub fn due_ns(&self, message: u64) -> u64 {
        self.start_ns.saturating_add((message as f64 * self.interval_ns) as u64)
    }

    /// How many messages are due by `now_ns`, itself included.
    #[must_use]
    pub fn due_count(&self, now_ns: u64) -> u64 {
        let Some(elapsed_ns) = now_ns.checked_sub(self.start_ns) else { return 0 };
        let mut count = (elapsed_ns as f64 / self.interval_ns) as u64;
        // The division rounds; the due times decide.
        while self.due_ns(count) <= now_ns {
            count += 1;
        }
        while count > 0 && self.due_ns(count - 1) > now_ns {
            count -= 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_equal_intervals() {
        let schedule = Schedule::new(500, 1000.0);
        let due: Vec<u64> = (0..4).map(|message| schedule.due_ns(message)).collect();
        assert_eq!(due, [500, 1_000_500, 2_000_500, 3_000_500]);
    }

    #[test]
    fn rounding_does_not_accumulate() {
        let schedule = Schedule::new(0, 3.0);
        assert_eq!(schedule.due_ns(1), 333_333_333);
        assert_eq!(schedule.due_ns(3), 1_000_000_000);
        assert_eq!(schedule.due_ns(3_000_000), 1_000_000_000_000_000);
    }

    #[test]
    fn the_count_agrees_with_the_due_times() {
        for rate in [0.5, 3.0, 7.0, 999.9, 1e6, 1e7] {
            let schedule = Schedule::new(1000, rate);
            assert_eq!((schedule.due_count(0), schedule.due_count(999)), (0, 0), "rate {rate}");
            for message in [0, 1, 2, 3, 10, 12_345, 9_999_999] {
                let due_ns = schedule.due_ns(message);
                assert_eq!(schedule.due_count(due_ns), message + 1, "rate {rate}");
                assert_eq!(schedule.due_count(due_ns - 1), message, "rate {rate}");
            }
        }
    }
}
