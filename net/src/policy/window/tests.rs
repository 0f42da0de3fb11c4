//! What a window covers, to the nanosecond, and against a list of all that was added.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Two(u64, u64);

impl Tally for Two {
    fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1)
    }
}

const ONE: Two = Two(1, 10);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Of 10 s: each bucket is 1 s.
fn window() -> Window<Two> {
    Window::new(ms(10_000))
}

#[test]
fn what_is_added_stays_until_its_bucket_is_behind() {
    let mut window = window();
    window.add(ms(0), ONE);
    window.add(ms(999), ONE);
    assert_eq!(window.sum(ms(999)), Two(2, 20));
    window.add(ms(1000), ONE);
    assert_eq!(window.sum(ms(9999)), Two(3, 30), "the first bucket is the tenth of ten");
    assert_eq!(window.sum(ms(10_000)), ONE, "it is behind, both calls of it at once");
    assert_eq!(window.sum(ms(10_999)), ONE);
    assert_eq!(window.sum(ms(11_000)), Two(0, 0));
}

#[test]
fn buckets_begin_at_whole_multiples_whenever_the_first_call_comes() {
    let mut window = window();
    window.add(ms(123_999), ONE);
    assert_eq!(window.sum(ms(132_999)), ONE);
    assert_eq!(window.sum(ms(133_000)), Two(0, 0), "9001 ms after it: nine tenths at least");
    window.add(ms(140_000), ONE);
    assert_eq!(window.sum(ms(149_999)), ONE, "9999 ms after it: all of it at most");
    assert_eq!((window.bucket(ms(149_999)), window.bucket(ms(150_000))), (149, 150));
    assert_eq!(window.bucket(ms(3)), 150, "time does not go back");
    assert_eq!(super::Window::<Two>::new(ms(10_000)).bucket(ms(999)), 0);
    assert_eq!(window.sum(ms(150_000)), Two(0, 0));
}

#[test]
fn a_long_silence_forgets_all() {
    for silence in [9, 10, 11, 19, 20, 21, 1_000_003] {
        let mut window = window();
        (0..10).for_each(|second| window.add(ms(second * 1000), ONE));
        let left = 9_u64.saturating_sub(silence - 1).min(10);
        assert_eq!(window.sum(ms((9 + silence) * 1000)), Two(left, left * 10), "{silence} s");
    }
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let mut window = window();
    window.add(ms(5000), ONE);
    window.add(ms(200), ONE);
    assert_eq!(window.sum(Duration::ZERO), Two(2, 20));
    assert_eq!(window.sum(ms(14_999)), Two(2, 20), "both are in the bucket of the fifth second");
    assert_eq!(window.sum(ms(15_000)), Two(0, 0));
}

#[test]
fn all_is_forgotten_when_asked_for() {
    let mut window = window();
    window.add(ms(1500), ONE);
    window.add(ms(3500), ONE);
    window.clear();
    assert_eq!(window.sum(ms(3500)), Two(0, 0));
    window.add(ms(3600), ONE);
    assert_eq!(window.sum(ms(12_999)), ONE, "time has not been forgotten");
    assert_eq!(window.sum(ms(13_000)), Two(0, 0));
}

#[test]
fn no_length_and_no_time_is_too_long_or_too_short() {
    for length in [Duration::ZERO, Duration::from_nanos(1), ms(1), Duration::MAX] {
        let mut window = Window::new(length);
        for now in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX, ms(3), Duration::MAX] {
            window.add(now, ONE);
            assert_ne!(window.sum(now), Two(0, 0), "{length:?} at {now:?}");
        }
        // The end of time does not move on, however often it is asked about.
        let before = window.sum(Duration::MAX);
        assert_eq!((0..99).map(|_| window.sum(Duration::MAX)).last(), Some(before));
    }
}

proptest! {
    /// Against a list of all that was added, and the bucket that it belongs to.
    #[test]
    fn a_window_is_the_last_ten_buckets(
        length_ns in 10..2000_u64,
        calls in prop::collection::vec((-50_i64..400, 0..3_u64, 0..3_u64), 1..200),
    ) {
        let mut window = Window::new(Duration::from_nanos(length_ns));
        let width = length_ns / 10;
        let (mut now, mut latest) = (0_u64, 0_u64);
        let mut added: Vec<(u64, Two)> = Vec::new();
        for (step, first, second) in calls {
            now = now.saturating_add_signed(step);
            latest = latest.max(now);
            let present = latest / width;
            if first + second > 0 {
                window.add(Duration::from_nanos(now), Two(first, second));
                added.push((present, Two(first, second)));
            }
            let covered = added.iter().filter(|(bucket, _)| bucket + 10 > present);
            let expected = covered.fold(Two(0, 0), |sum, (_, two)| sum.plus(*two));
            prop_assert_eq!(window.sum(Duration::from_nanos(now)), expected);
        }
    }
}
