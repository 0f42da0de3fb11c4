//! What is known of an endpoint's latency: peak EWMA.
//!
//! Is: one number and when it was last heard. Is not: a mean. It follows a higher sample at once, and a lower one with
//! `exp(-dt / decay)`, by the time since the last sample and not by their number: so many fast replies do not hide a
//! slow one sooner than few do.
//!
//! Why an exponential of its own: that of the system's library may differ in the last bit from one processor to the
//! next, and a seed is to repeat a run anywhere. Additions, products and quotients differ nowhere.

use std::time::Duration;

/// Squarings of `fade`: its error is below 0.1 % where what is left is more than a 20,000th.
const SQUARINGS: u32 = 5;
/// From so many times the decay on, nothing is left.
const FADED: f64 = 40.0;

/// A time in microseconds: half a million years, and what is longer is as long.
pub(super) fn micros(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()))
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    /// As it was at `at_us`. Less than zero: never heard.
    us: f64,
    at_us: u64,
}

impl Latency {
    pub(super) const UNKNOWN: Self = Self { us: -1.0, at_us: 0 };

    /// What is taken for one at a time.
    pub(super) fn of(us: f64, at_us: u64) -> Self {
        Self { us, at_us }
    }

    #[inline]
    pub(super) fn is_known(self) -> bool {
        self.us >= 0.0
    }

    pub(super) fn note(&mut self, now_us: u64, sample_us: u64, decay_us: u64) {
        let sample = sample_us as f64;
        if sample > self.us {
            self.us = sample;
        } else {
            let left = fade(now_us.saturating_sub(self.at_us), decay_us);
            self.us = self.us * left + sample * (1.0 - left);
        }
        self.at_us = self.at_us.max(now_us);
    }

    /// In microseconds; `None` if there was never a sample.
    pub(super) fn at(self, now_us: u64, decay_us: u64) -> Option<f64> {
        let age_us = now_us.saturating_sub(self.at_us);
        self.is_known().then(|| self.us * fade(age_us, decay_us))
    }

    /// It is the shorter one of two that are known, each times a factor. What both have faded alike takes no part.
    #[inline]
    pub(super) fn is_less(
        self,
        factor: f64,
        other: Self,
        other_factor: f64,
        now_us: u64,
        decay_us: u64,
    ) -> bool {
        let (cost, other_cost) = (self.us * factor, other.us * other_factor);
        let (at_us, other_at_us) = (self.at_us.min(now_us), other.at_us.min(now_us));
        if at_us < other_at_us {
            cost * fade(other_at_us - at_us, decay_us) < other_cost
        } else {
            cost < other_cost * fade(at_us - other_at_us, decay_us)
        }
    }
}

/// `exp(-time / decay)`, from 1 to 0.
#[inline]
fn fade(time_us: u64, decay_us: u64) -> f64 {
    let times = time_us as f64 / decay_us.max(1) as f64;
    if times >= FADED {
        return 0.0;
    }
    // Padé's second, of a small part of it: exp(-x) but for x^5 / 720.
    let x = times / f64::from(1 << SQUARINGS);
    let even = 1.0 + x * x / 12.0;
    let mut left = (even - x / 2.0) / (even + x / 2.0);
    for _ in 0..SQUARINGS {
        left *= left;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY_US: u64 = 10_000_000;

    #[test]
    fn fading_is_the_exponential() {
        for tenths in 0..100 {
            let time_us = tenths * DECAY_US / 10;
            let expected = (-(tenths as f64) / 10.0).exp();
            let error = (fade(time_us, DECAY_US) - expected).abs() / expected;
            assert!(error < 0.001, "{tenths}: {error}");
        }
        assert_eq!(fade(0, DECAY_US), 1.0);
        assert_eq!(fade(u64::MAX, DECAY_US), 0.0);
        assert_eq!(fade(1_000_000, 0), 0.0);
    }

    #[test]
    fn peak_is_followed_at_once_and_left_slowly() {
        let mut latency = Latency::UNKNOWN;
        assert_eq!(latency.at(0, DECAY_US), None);
        latency.note(0, 1_000, DECAY_US);
        assert_eq!(latency.at(0, DECAY_US), Some(1_000.0));
        latency.note(1, 500_000, DECAY_US);
        assert_eq!(latency.at(1, DECAY_US), Some(500_000.0));
        // A thousand fast replies in the same moment take nothing off it.
        for _ in 0..1_000 {
            latency.note(1, 1_000, DECAY_US);
        }
        assert_eq!(latency.at(1, DECAY_US), Some(500_000.0));
        latency.note(DECAY_US + 1, 1_000, DECAY_US);
        let left = latency.at(DECAY_US + 1, DECAY_US).expect("there are samples");
        let expected = 499_000.0 / std::f64::consts::E + 1_000.0;
        assert!((left - expected).abs() < expected / 500.0, "{left}, not {expected}");
    }

    #[test]
    fn silence_fades_too_and_time_that_goes_back_is_none() {
        let mut latency = Latency::UNKNOWN;
        latency.note(DECAY_US, 3_000_000, DECAY_US);
        assert_eq!(latency.at(0, DECAY_US), Some(3_000_000.0));
        assert!(latency.at(9 * DECAY_US, DECAY_US).expect("a sample") < 1_100.0);
        latency.note(0, 1_000, DECAY_US);
        assert_eq!(latency.at(DECAY_US, DECAY_US), Some(3_000_000.0));
        latency.note(u64::MAX, u64::MAX, DECAY_US);
        assert_eq!(latency.at(u64::MAX, DECAY_US), Some(u64::MAX as f64));
    }

    #[test]
    fn micros_of_any_duration() {
        assert_eq!(micros(Duration::from_micros(1_234_567)), 1_234_567);
        assert_eq!(micros(Duration::MAX), u64::MAX);
        assert_eq!(micros(Duration::ZERO), 0);
    }

    #[test]
    fn shorter_of_two_is_the_one_that_is_shorter_now() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut yes, mut no) = (0, 0);
        for _ in 0..10_000 {
            let mut any = || Latency::of(rng.f64() * 1e4, rng.u64(0..5 * DECAY_US));
            let (one, other) = (any(), any());
            let (factor, other_factor, now) = (rng.f64(), rng.f64(), rng.u64(0..6 * DECAY_US));
            let cost = one.at(now, DECAY_US).expect("known") * factor;
            let other_cost = other.at(now, DECAY_US).expect("known") * other_factor;
            if (cost - other_cost).abs() > cost / 200.0 {
                let is_less = one.is_less(factor, other, other_factor, now, DECAY_US);
                assert_eq!(is_less, cost < other_cost);
                if is_less { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 4_000 && no > 4_000, "{yes} {no}");
        let same = Latency::of(5.0, 7);
        assert!(!same.is_less(1.0, same, 1.0, 9, DECAY_US));
    }
}
