//! When a pool may dial on its own, for those who come next.
//!
//! For those who are there only as long as some connections are in use: one of them may come back to who waits. Else a
//! caller's dial is held up by the breaker and by the endpoint's ejection, which know what happened elsewhere, and a
//! pause here would make one failure cost all who wait.

use std::time::Duration;

use crate::policy::backoff::{Backoff, Delays};

/// The pauses between dials that nobody waits for.
pub(super) struct Refill {
    delays: Delays,
    /// The first pause, and the longest.
    pause_first: Duration,
    pause_max: Duration,
    /// Connections that ended before their first use, since one was of use; those of one pause count as one.
    turned_away: u32,
    /// When a dial failed last; `None` since one went well.
    failed_at: Option<Duration>,
    /// No dial before, since one failed.
    paused_until: Duration,
    /// No dial before, since the token is better used elsewhere.
    put_off_until: Duration,
}

impl Refill {
    pub(super) fn new(backoff: &Backoff) -> Self {
        Self {
            delays: backoff.delays(),
            pause_first: backoff.first,
            pause_max: backoff.most,
            turned_away: 0,
            failed_at: None,
            paused_until: Duration::ZERO,
            put_off_until: Duration::ZERO,
        }
    }

    /// From now on other pauses. The one that runs stays.
    pub(super) fn set_backoff(&mut self, backoff: &Backoff) {
        self.delays = backoff.delays();
        (self.pause_first, self.pause_max) = (backoff.first, backoff.most);
    }

    /// A dial that was begun at `begun` has failed: a pause. Those that were under way together count as one.
    pub(super) fn failed(&mut self, begun: Duration, now: Duration, rng: &mut fastrand::Rng) {
        if self.failed_at.is_some_and(|failed_at| begun < failed_at) {
            return;
        }
        self.failed_at = Some(now);
        self.paused_until = now.saturating_add(self.delays.next(rng));
    }

    /// A dial went well: there is no reason to wait any more.
    pub(super) fn succeeded(&mut self) {
        self.delays.reset();
        self.failed_at = None;
        self.paused_until = Duration::ZERO;
    }

    /// A connection ended by itself before its first use, so long behind its dial. The next one would, too: a pause,
    /// each twice the one before. Nobody draws it, since what it follows did not come at the same time for all.
    pub(super) fn turned_away(&mut self, age: Duration, now: Duration) {
        if age >= self.pause_max {
            self.turned_away = 0;
        } else if now >= self.put_off_until {
            let pause = self.pause_first.saturating_mul(1 << self.turned_away.min(20));
            self.turned_away += 1;
            self.put_off_until = now.saturating_add(pause.min(self.pause_max));
        }
    }

    /// A connection was of use.
    pub(super) fn served(&mut self) {
        self.turned_away = 0;
    }

    /// Not for as long as the longest pause.
    pub(super) fn put_off(&mut self, now: Duration) {
        self.put_off_until = self.put_off_until.max(now.saturating_add(self.pause_max));
    }

    /// When the pause behind the dial that failed last is over.
    pub(super) fn paused_until(&self) -> Duration {
        self.paused_until
    }

    pub(super) fn due(&self) -> Duration {
        self.paused_until.max(self.put_off_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::backoff::Jitter;

    const SECOND: Duration = Duration::from_secs(1);

    fn refill() -> (Refill, fastrand::Rng) {
        let backoff = Backoff { jitter: Jitter::None, ..Backoff::refill() };
        (Refill::new(&backoff), fastrand::Rng::with_seed(7))
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_behind_a_success() {
        let (mut refill, mut rng) = refill();
        let mut now = Duration::ZERO;
        for pause_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            now += 10 * SECOND;
            refill.failed(now, now, &mut rng);
            assert_eq!(refill.due() - now, Duration::from_millis(pause_ms));
        }
        refill.succeeded();
        assert_eq!(refill.due(), Duration::ZERO);
        refill.failed(now, now, &mut rng);
        assert_eq!(refill.due() - now, Duration::from_millis(100));
    }

    #[test]
    fn dials_that_were_under_way_together_fail_as_one() {
        let (mut refill, mut rng) = refill();
        for failed_at in 0..16 {
            refill.failed(SECOND, SECOND * (2 + failed_at), &mut rng);
        }
        assert_eq!(refill.due(), SECOND * 2 + Duration::from_millis(100));
        refill.failed(SECOND * 3, SECOND * 20, &mut rng);
        assert_eq!(refill.due(), SECOND * 20 + Duration::from_millis(200));
    }

    #[test]
    fn what_is_put_off_is_so_for_the_longest_pause_and_no_success_brings_it_forward() {
        let (mut refill, mut rng) = refill();
        refill.put_off(SECOND);
        refill.failed(SECOND, SECOND, &mut rng);
        refill.succeeded();
        assert_eq!(refill.due(), SECOND * 6);
        refill.put_off(Duration::MAX);
        assert_eq!(refill.due(), Duration::MAX);
    }
}
