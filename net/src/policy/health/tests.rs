use proptest::prelude::*;

use super::*;

const SEC: Duration = Duration::from_secs(1);

/// HAProxy's arithmetic (`check_notify_success` and its sibling): up from `rise` on.
struct HaProxy {
    health: u32,
    rise: u32,
    fall: u32,
}

impl HaProxy {
    fn checked(&mut self, is_ok: bool) -> bool {
        let full = self.rise + self.fall - 1;
        if is_ok && self.health < full {
            self.health += 1;
            if self.health >= self.rise {
                self.health = full;
            }
        } else if !is_ok && self.health > self.rise {
            self.health -= 1;
        } else if !is_ok {
            self.health = 0;
        }
        self.health >= self.rise
    }
}

proptest! {
    #[test]
    fn it_says_what_haproxy_says(
        rise in 1u32..5,
        fall in 1u32..5,
        is_up_first in any::<bool>(),
        checks in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let initially = if is_up_first { Initially::Up } else { Initially::Unknown };
        let mut health = Health::new(HealthLimits { rise, fall, ..HealthLimits::default() }, initially);
        // Init-state up and down: one check from the other side.
        let start = if is_up_first { rise } else { rise - 1 };
        let mut model = HaProxy { health: start, rise, fall };
        for (at, is_ok) in (1..).zip(checks) {
            let before = health.is_up();
            let changed = health.checked(SEC * at, is_ok);
            prop_assert_eq!(health.is_up(), model.checked(is_ok));
            let expected = match (before, health.is_up()) {
                (false, true) => Some(Changed::Up),
                (true, false) => Some(Changed::Down),
                _ => None,
            };
            prop_assert_eq!(changed, expected);
            if changed == Some(Changed::Up) {
                prop_assert_eq!(health.up_since(), Some(SEC * at));
            }
        }
    }

    #[test]
    fn nothing_panics(
        secs in prop::array::uniform3(prop::sample::select(vec![0, 1, u64::MAX])),
        percent in any::<u32>(),
        counts in prop::array::uniform2(prop::sample::select(vec![0, 1, u32::MAX])),
        times in prop::collection::vec((prop::sample::select(vec![0, 7, u64::MAX]), any::<bool>()), 0..20),
    ) {
        let limits = HealthLimits {
            interval: Duration::from_secs(secs[0]),
            fast_interval: Duration::from_secs(secs[1]),
            jitter_percent: percent,
            timeout: Duration::from_secs(secs[2]),
            fall: counts[0],
            rise: counts[1],
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let mut health = Health::new(limits, Initially::Up);
        let _ = health.next_check(&mut rng);
        for (secs, is_ok) in times {
            health.checked(Duration::from_secs(secs), is_ok);
            prop_assert!(health.next_check(&mut rng) > Duration::ZERO);
        }
        prop_assert!(health.timeout() > Duration::ZERO);
    }
}

#[test]
fn first_check_decides() {
    let mut up = Health::new(HealthLimits::default(), Initially::Up);
    assert!(up.is_up() && !up.is_checked());
    assert_eq!(up.checked(SEC, false), Some(Changed::Down));
    assert_eq!(up.up_since(), None);
    let mut unknown = Health::new(HealthLimits::default(), Initially::Unknown);
    assert!(!unknown.is_up());
    assert_eq!(unknown.checked(SEC, true), Some(Changed::Up));
    assert_eq!(unknown.up_since(), Some(SEC), "it was added late, or was down before: slow start");
    let mut well = Health::new(HealthLimits::default(), Initially::Up);
    assert_eq!(well.checked(SEC, true), None);
    assert_eq!(well.up_since(), None, "it was up from the beginning");
}

#[test]
fn success_between_failures_begins_the_row_anew() {
    let mut health = Health::new(HealthLimits::default(), Initially::Up);
    for is_ok in [true, false, false, true, false, false, true, false, false] {
        assert_eq!(health.checked(SEC, is_ok), None);
    }
    assert_eq!(health.checked(SEC, false), Some(Changed::Down));
    for is_ok in [true, false, true, false, true] {
        assert_eq!(health.checked(SEC, is_ok), None);
    }
    assert_eq!(health.checked(SEC, true), Some(Changed::Up));
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let mut health = Health::new(HealthLimits::default(), Initially::Unknown);
    health.checked(SEC * 10, false);
    health.checked(SEC * 3, true);
    assert_eq!(health.checked(SEC * 4, true), Some(Changed::Up));
    assert_eq!(health.up_since(), Some(SEC * 10));
}

#[test]
fn checks_come_at_the_interval_with_jitter_and_faster_in_doubt() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut health = Health::new(HealthLimits::default(), Initially::Up);
    let mut range = |health: &Health| {
        let times: Vec<_> = (0..2000).map(|_| health.next_check(&mut rng).as_secs_f64()).collect();
        let least = times.iter().copied().fold(f64::MAX, f64::min);
        (least, times.iter().copied().fold(0.0, f64::max))
    };
    let is = |(least, most): (f64, f64), expected: (f64, f64)| {
        let width = (expected.1 - expected.0) / 50.0;
        assert!((expected.0..expected.0 + width).contains(&least), "{least}, not {}", expected.0);
        assert!((expected.1 - width..=expected.1).contains(&most), "{most}, not {}", expected.1);
    };
    is(range(&health), (0.0, 5.0));
    is(range(&Health::new(HealthLimits::default(), Initially::Unknown)), (0.0, 1.0));
    health.checked(SEC, true);
    is(range(&health), (4.5, 5.5));
    health.checked(SEC, false);
    is(range(&health), (0.9, 1.1));
    health.checked(SEC, true);
    is(range(&health), (4.5, 5.5));
    for _ in 0..3 {
        health.checked(SEC, false);
    }
    assert!(!health.is_up());
    is(range(&health), (4.5, 5.5));
    health.checked(SEC, true);
    is(range(&health), (0.9, 1.1));
}

#[test]
fn first_checks_are_spread_over_the_interval() {
    let mut rng = fastrand::Rng::with_seed(3);
    let health = Health::new(HealthLimits::default(), Initially::Up);
    let mut by_second = [0u32; 5];
    for _ in 0..1000 {
        by_second[health.next_check(&mut rng).as_secs() as usize] += 1;
    }
    assert!(by_second.iter().all(|checks| (150..250).contains(checks)), "{by_second:?}");
}

#[test]
fn limits_that_make_no_sense_are_told_with_a_remedy() {
    let fine = HealthLimits::default();
    assert_eq!(fine.check(), Ok(()));
    let (interval, zero) = (fine.interval, Duration::ZERO);
    let cases = [
        (
            HealthLimits { interval: zero, ..fine },
            HealthLimitsError::Interval { interval: zero, fast: SEC },
        ),
        (
            HealthLimits { fast_interval: zero, ..fine },
            HealthLimitsError::Interval { interval, fast: zero },
        ),
        (
            HealthLimits { fast_interval: SEC * 6, ..fine },
            HealthLimitsError::Fast { interval, fast: SEC * 6 },
        ),
        (HealthLimits { jitter_percent: 51, ..fine }, HealthLimitsError::Jitter { percent: 51 }),
        (HealthLimits { timeout: zero, ..fine }, HealthLimitsError::Timeout),
        (HealthLimits { fall: 0, ..fine }, HealthLimitsError::Count { fall: 0, rise: 2 }),
        (HealthLimits { rise: 0, ..fine }, HealthLimitsError::Count { fall: 3, rise: 0 }),
    ];
    for (limits, error) in cases {
        assert_eq!(limits.check(), Err(error));
        assert!(error.to_string().contains("; say "), "{error}");
    }
}
