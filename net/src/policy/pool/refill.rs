//! When a pool may dial on its own, for those who come next.
//!
//! Not for those who are there: a caller's dial is held up by the breaker and by the endpoint's ejection, which know
//! what happened elsewhere, and a pause here would make one failure cost all who wait.

use std::time::Duration;

use super::share;

/// Twice the pause, so often at most: 2^32 of the shortest are more than any longest.
const DOUBLINGS_MAX: u32 = 32;

/// The pauses between dials that nobody waits for.
#[derive(Default)]
pub(super) struct Refill {
    /// In a row. Those that were under way together count as one.
    failures: u32,
    failed_at: Duration,
    /// No dial before, since one failed.
    paused_until: Duration,
    /// No dial before, since the token is better used elsewhere.
    put_off_until: Duration,
}

impl Refill {
    /// A dial that was begun at `begun` has failed: a pause of a random part of what it may be (*full jitter*: all that
    /// failed together would come back together).
    pub(super) fn failed(
        &mut self,
        begun: Duration,
        now: Duration,
        (first, max): (Duration, Duration),
        rng: &mut fastrand::Rng,
    ) {
        if self.failures > 0 && begun < self.failed_at {
            return;
        }
        let doublings = self.failures.min(DOUBLINGS_MAX);
        let pause_max = first.checked_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let pause_max = pause_max.unwrap_or(max).min(max);
        self.failures = self.failures.saturating_add(1);
        self.failed_at = now;
        self.paused_until = now.saturating_add(share(pause_max, rng.f64()));
    }

    /// A dial went well: there is no reason to wait any more.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.paused_until = Duration::ZERO;
    }

    /// Not for a while.
    pub(super) fn put_off(&mut self, now: Duration, pause: Duration) {
        self.put_off_until = self.put_off_until.max(now.saturating_add(pause));
    }

    pub(super) fn due(&self) -> Duration {
        self.paused_until.max(self.put_off_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

    /// What many draws of a pause lie between, after so many failures in a row.
    fn pauses(failures: u32) -> (Duration, Duration) {
        let mut rng = fastrand::Rng::with_seed(7);
        let drawn = (0..1000).map(|_| {
            let mut refill = Refill::default();
            let mut now = Duration::ZERO;
            for _ in 0..failures {
                now += Duration::from_secs(10);
                refill.failed(now, now, PAUSES, &mut rng);
            }
            refill.due() - now
        });
        drawn.fold((Duration::MAX, Duration::ZERO), |(min, max), pause| {
            (min.min(pause), max.max(pause))
        })
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_drawn_from_all_below() {
        for (failures, pause_max_ms) in
            [(1, 100), (2, 200), (3, 400), (6, 3200), (7, 5000), (99, 5000)]
        {
            let (min, max) = pauses(failures);
            let pause_max = Duration::from_millis(pause_max_ms);
            assert!(max <= pause_max && max > pause_max.mul_f64(0.95), "{failures}: {max:?}");
            assert!(min < pause_max.mul_f64(0.05), "{failures}: {min:?}");
        }
    }

    #[test]
    fn dials_that_were_under_way_together_fail_as_one() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut refill, second) = (Refill::default(), Duration::from_secs(1));
        for failed_at in 0..16 {
            refill.failed(second, second * (2 + failed_at), PAUSES, &mut rng);
        }
        assert_eq!(refill.failures, 1);
        refill.failed(second * 3, second * 20, PAUSES, &mut rng);
        assert_eq!(refill.failures, 2);
        refill.succeeded();
        assert_eq!((refill.failures, refill.due()), (0, Duration::ZERO));
    }

    #[test]
    fn no_time_is_too_long() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut refill = Refill::default();
        for _ in 0..100 {
            let longest = (Duration::MAX, Duration::MAX);
            refill.failed(Duration::MAX, Duration::MAX, longest, &mut rng);
            refill.put_off(Duration::MAX, Duration::MAX);
        }
        assert_eq!(refill.due(), Duration::MAX);
    }
}
