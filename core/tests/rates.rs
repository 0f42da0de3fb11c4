//! Token buckets against a bucket that is filled drop by drop.
//!
//! The model keeps the level in millionths of a token: a microsecond adds as many as there are tokens in a
//! second, so it rounds nothing, in 128 bits. It knows nothing of arrivals, units and their wrapping.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use slipring_core::rates::{Bucket, LAG_US_MAX, PER_SECOND_MAX, SharedBucket};
use slipring_core::{Rate, RateError};

const TOKEN: u128 = 1_000_000;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::with_burst(per_second, burst).expect("a rate")
}

/// The bucket as a child would build it.
struct Model {
    rate: Rate,
    level: u128,
    now_us: u64,
}

impl Model {
    fn new(rate: Rate, now_us: u64) -> Self {
        Self { rate, level: u128::from(rate.burst()) * TOKEN, now_us }
    }

    fn take(&mut self, now_us: u64) -> Result<(), u64> {
        let passed_us = u128::from(now_us - self.now_us);
        let per_second = u128::from(self.rate.per_second());
        self.now_us = now_us;
        self.level =
            (self.level + passed_us * per_second).min(u128::from(self.rate.burst()) * TOKEN);
        match self.level.checked_sub(TOKEN) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => Err((TOKEN - self.level).div_ceil(per_second) as u64),
        }
    }
}

/// Tokens to be had by `now_us` from a bucket that was full at 0 and has never been full since.
fn tokens(rate: Rate, now_us: u64) -> u64 {
    let grown = u128::from(now_us) * u128::from(rate.per_second()) / TOKEN;
    u64::from(rate.burst()) + grown as u64
}

// ------------------------------------------------------------------------------------------- words

#[test]
fn rates_are_read_and_written() {
    for (text, per_second, burst, written) in [
        ("1000", 1000, 1000, "1000/s"),
        ("1000/s", 1000, 1000, "1000/s"),
        ("1000:50", 1000, 50, "1000/s:50"),
        ("1000/s:50", 1000, 50, "1000/s:50"),
        ("7:7", 7, 7, "7/s"),
        ("1", 1, 1, "1/s"),
        ("1:4294967295", 1, u32::MAX, "1/s:4294967295"),
        ("1000000", 1_000_000, 1_000_000, "1000000/s"),
        ("007", 7, 7, "7/s"),
    ] {
        let rate: Rate = text.parse().expect(text);
        assert_eq!((rate.per_second(), rate.burst()), (per_second, burst), "{text}");
        assert_eq!(rate.to_string(), written);
        assert_eq!(written.parse(), Ok(rate));
    }
}

#[test]
fn bad_rates_are_refused_with_cause_and_remedy() {
    for (text, cause, remedy) in [
        ("0", "a rate of 0", "leave it out for no limit"),
        ("0/s", "a rate of 0", "at least 1"),
        ("0:5", "a rate of 0", "at least 1"),
        ("0:0", "a rate of 0", "at least 1"),
        ("5:0", "a burst of 0", "leave it out for one second's worth"),
        ("1000001", "1000001 a second", "at most 1000000"),
        ("4294967296", "4294967296 a second", "at most 1000000"),
        ("99999999999999999999", "18446744073709551615 a second", "at most 1000000"),
        ("5:4294967296", "a burst of 4294967296", "at most 4294967295"),
        ("600/m", "`/m` is not /s", "how many a second"),
        ("50/100ms", "`/100ms` is not /s", "how many a second"),
        ("50/", "`/` is not /s", "how many a second"),
        ("50/s/s", "`/s/s` is not /s", "how many a second"),
        ("50/S", "`/S` is not /s", "how many a second"),
        ("", "`` is not a whole number", "such as 1000 or 1000/s"),
        ("/s", "`/s` is not a whole number", "such as 1000"),
        (":5", "`:5` is not a whole number", "such as 1000"),
        ("5:", "`5:` is not a whole number", "1000:50"),
        ("5:5:5", "`5:5:5` is not a whole number", "1000:50"),
        ("5:5/s", "`5:5/s` is not a whole number", "1000:50"),
        ("-5", "`-5` is not a whole number", "such as 1000"),
        ("+5", "`+5` is not a whole number", "such as 1000"),
        ("0.5", "`0.5` is not a whole number", "such as 1000"),
        ("1k", "`1k` is not a whole number", "such as 1000"),
        (" 5", "` 5` is not a whole number", "such as 1000"),
        ("never", "`never` is not a whole number", "such as 1000"),
    ] {
        let error = text.parse::<Rate>().expect_err(text).to_string();
        let (said_cause, said_remedy) = error.split_once("; ").expect("a cause and a remedy");
        assert!(said_cause.contains(cause), "{text}: {error}");
        assert!(said_remedy.contains(remedy), "{text}: {error}");
    }
}

#[test]
fn numbers_are_judged_like_words() {
    assert_eq!(Rate::new(0), Err(RateError::Zero));
    assert_eq!(Rate::with_burst(0, 1), Err(RateError::Zero));
    assert_eq!(Rate::with_burst(1, 0), Err(RateError::NoBurst));
    let per_second = u64::from(PER_SECOND_MAX) + 1;
    assert_eq!(Rate::new(PER_SECOND_MAX + 1), Err(RateError::TooFast { per_second }));
    assert_eq!(Rate::new(PER_SECOND_MAX).map(|rate| rate.burst()), Ok(PER_SECOND_MAX));
}

// -------------------------------------------------------------------------------------- one bucket

#[test]
fn a_burst_at_once_and_then_one_by_one() {
    let mut bucket = Bucket::new(rate(3, 2), 0);
    assert_eq!([bucket.take(0), bucket.take(0), bucket.take(0)], [Ok(()), Ok(()), Err(333_334)]);
    assert_eq!(bucket.take(333_333), Err(1), "a third of a microsecond is missing");
    assert_eq!(bucket.take(333_334), Ok(()));
    assert_eq!(bucket.take(666_666), Err(1));
    assert_eq!(bucket.take(666_667), Ok(()));
    assert_eq!(bucket.take(999_999), Err(1));
    assert_eq!(bucket.take(1_000_000), Ok(()), "and after a second nothing was lost");
}

#[test]
fn rest_fills_it_to_the_brim_and_no_further() {
    let mut bucket = Bucket::new(rate(1000, 5), 0);
    for now_us in [0, 1_000_000_000, u64::MAX / 2, u64::MAX] {
        for taken in 0..5 {
            assert_eq!(bucket.take(now_us), Ok(()), "{taken} at {now_us}");
        }
        assert_eq!(bucket.take(now_us), Err(1000));
    }
}

/// With more demand than there is, each token comes at its own microsecond: no drift over a million of them,
/// at rates that fit a second's microseconds well, badly and not at all, early and late on the clock.
#[test]
fn no_token_is_lost_or_won_over_a_million() {
    for start_us in [0, 1, 1 << 44, u64::MAX / 3] {
        for per_second in [1, 3, 7, 1000, 333_333, 999_983, 999_999, 1_000_000] {
            let rate = rate(per_second, 10);
            let mut bucket = Bucket::new(rate, start_us);
            let mut now_us = start_us;
            for token in 0..1_000_000_u64 {
                // The token beyond the burst that this is, and the microsecond in which it is whole.
                let grown = u128::from(token.saturating_sub(9));
                let due_us = start_us + (grown * TOKEN).div_ceil(per_second.into()) as u64;
                if due_us > now_us {
                    assert_eq!(bucket.take(now_us), Err(due_us - now_us), "{rate}, token {token}");
                    if due_us > now_us + 1 {
                        assert_eq!(bucket.take(due_us - 1), Err(1), "{rate}, token {token}");
                    }
                    now_us = due_us;
                }
                assert_eq!(bucket.take(now_us), Ok(()), "{rate}, token {token}");
            }
        }
    }
}

#[test]
fn the_ends_of_all_numbers_hold() {
    for per_second in [1, 999_999, PER_SECOND_MAX] {
        for burst in [1, u32::MAX] {
            let rate = rate(per_second, burst);
            for now_us in [0, 1, u64::MAX - 1, u64::MAX] {
                let mut bucket = Bucket::new(rate, now_us);
                assert_eq!(bucket.take(now_us), Ok(()), "{rate} at {now_us}");
                let second = bucket.take(now_us);
                assert_eq!(second.is_ok(), burst > 1, "{rate} at {now_us}");
                if let Err(wait_us) = second {
                    assert_eq!(wait_us, 1_000_000_u64.div_ceil(per_second.into()));
                }
            }
        }
    }
}

#[test]
fn a_clock_that_stands_still_gives_the_burst_and_no_more() {
    for now_us in [0, 5, u64::MAX] {
        let mut bucket = Bucket::new(rate(PER_SECOND_MAX, 1000), now_us);
        let taken = (0..5000).filter(|_| bucket.take(now_us).is_ok()).count();
        assert_eq!(taken, 1000);
    }
}

#[test]
fn a_clock_behind_finds_less_and_never_more() {
    let mut bucket = Bucket::new(rate(10, 5), 100_000_000);
    assert_eq!(bucket.take(100_000_000), Ok(()));
    // Five seconds behind: 50 tokens less than none.
    assert_eq!(bucket.take(95_000_000), Err(4_700_000));
    assert_eq!(bucket.take(95_000_000 + 4_700_000), Ok(()), "by its own clock");
    let left = (0..9).filter(|_| bucket.take(100_000_000).is_ok()).count();
    assert_eq!(left, 3, "what the one behind took is gone");
}

#[test]
fn a_minute_behind_is_behind_at_every_rate() {
    for per_second in [1, 7, 1000, 333_333, 999_983, PER_SECOND_MAX] {
        let rate = rate(per_second, 2);
        let now_us = 2 * LAG_US_MAX;
        let token_us = 1_000_000_u64.div_ceil(per_second.into());
        for (behind_us, wait_us) in [
            (1, token_us + 1),
            (30_000_000, 30_000_000 + token_us),
            (LAG_US_MAX, LAG_US_MAX + token_us),
        ] {
            let mut bucket = Bucket::new(rate, now_us);
            (0..2).for_each(|_| bucket.take(now_us).expect("a burst"));
            assert_eq!(bucket.take(now_us - behind_us), Err(wait_us), "{rate}, {behind_us} us");
        }
        // And a little more is too much to be told from the past.
        let mut bucket = Bucket::new(rate, now_us);
        (0..2).for_each(|_| bucket.take(now_us).expect("a burst"));
        assert_eq!(bucket.take(now_us - LAG_US_MAX - 1), Ok(()), "{rate}");
    }
}

#[test]
fn a_clock_far_behind_panics_nowhere_and_is_bounded_by_the_burst() {
    for (from_us, to_us) in [(u64::MAX, 0), (1 << 60, 1), (2 * LAG_US_MAX, 0)] {
        let mut bucket = Bucket::new(rate(7, 3), from_us);
        assert_eq!(bucket.take(from_us), Ok(()));
        let taken = (0..9).filter(|_| bucket.take(to_us).is_ok()).count();
        assert!(taken <= 3, "{taken} at once");
    }
}

/// Past the end of what a word tells apart a bucket may look emptier, never fuller, and not for long.
#[test]
fn a_bucket_unused_for_ages_is_bounded_both_ways() {
    let rate = rate(999_999, 5);
    // 2^64 units on: the arrival of then looks like one of now.
    let wrap_us = (1_u128 << 64).div_ceil(999_999) as u64;
    for off_us in [0, 1, 5, LAG_US_MAX - 1, LAG_US_MAX, LAG_US_MAX + 7] {
        let mut bucket = Bucket::new(rate, 0);
        (0..5).for_each(|_| bucket.take(0).expect("a burst"));
        let now_us = wrap_us - off_us;
        let mut waited_us = 0;
        let mut taken = 0;
        while taken < 5 {
            match bucket.take(now_us + waited_us) {
                Ok(()) => taken += 1,
                Err(wait_us) => waited_us += wait_us,
            }
        }
        assert!(waited_us <= LAG_US_MAX + 10, "{waited_us} us, {off_us} us before the end");
        assert!(bucket.take(now_us + waited_us).is_err(), "more than a burst");
    }
}

fn any_rate() -> impl Strategy<Value = Rate> {
    let per_second = prop_oneof![
        3 => 1..20_u32,
        2 => prop::sample::select(vec![1000, 333_333, 999_983, 999_999, PER_SECOND_MAX]),
        2 => 1..=PER_SECOND_MAX,
    ];
    let burst = prop_oneof![4 => 1..6_u32, 1 => 1..5000_u32, 1 => Just(u32::MAX)];
    (per_second, burst).prop_map(|(per_second, burst)| rate(per_second, burst))
}

/// How much time passes: none, about a token's, long. The longest is below what a word tells apart.
fn passing() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => Just(0),
        3 => 0..50_u64,
        3 => 0..2_000_000_u64,
        1 => 0..1_u64 << 43,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 800, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_bucket_holds_what_was_dropped_into_it(
        rate in any_rate(),
        start_us in prop_oneof![Just(0), any::<u64>(), (u64::MAX - 5_000_000)..=u64::MAX],
        passed in prop::collection::vec((passing(), 1..4_u32, any::<bool>()), 1..60),
    ) {
        let mut model = Model::new(rate, start_us);
        let mut bucket = Bucket::new(rate, start_us);
        let shared = SharedBucket::new(rate, start_us);
        let mut now_us = start_us;
        for (passed_us, takes, patient) in passed {
            now_us = now_us.saturating_add(passed_us);
            for _ in 0..takes {
                let expected = model.take(now_us);
                prop_assert_eq!(bucket.take(now_us), expected);
                prop_assert_eq!(shared.take(now_us), expected);
                if let (Err(wait_us), true) = (expected, patient) {
                    now_us = now_us.saturating_add(wait_us);
                }
            }
        }
    }

    #[test]
    fn a_token_given_back_was_never_taken(
        rate in any_rate(),
        passed in prop::collection::vec((passing(), any::<bool>()), 1..60),
    ) {
        let (with, without) = (SharedBucket::new(rate, 0), SharedBucket::new(rate, 0));
        let mut now_us = 0_u64;
        for (passed_us, for_nothing) in passed {
            now_us += passed_us;
            if for_nothing {
                if with.take(now_us).is_ok() {
                    with.give_back();
                }
            } else {
                prop_assert_eq!(with.take(now_us), without.take(now_us));
            }
        }
    }

    #[test]
    fn no_text_panics(text in "[0-9/s:]{0,24}|\\PC{0,12}") {
        if let Err(error) = text.parse::<Rate>() {
            prop_assert!(error.to_string().contains("; "));
        }
    }
}

// ------------------------------------------------------------------------------------- one for all

const THREADS: u64 = 4;

#[test]
fn threads_at_one_moment_share_one_burst() {
    let bucket = SharedBucket::new(rate(1000, 5_000), 77);
    let taken = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mine = (0..10_000).filter(|_| bucket.take(77).is_ok()).count();
                taken.fetch_add(mine as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(taken.into_inner(), 5_000);
}

/// Each thread reads the clock and takes, and may be overtaken in between: it is then behind the others, as
/// reactors are. The bucket is never full meanwhile, so in the end every token was taken, and none twice.
#[test]
fn threads_over_time_take_what_has_grown_and_nothing_else() {
    const ATTEMPTS: u64 = 100_000;
    let rate = rate(333_333, 1000);
    let bucket = SharedBucket::new(rate, 0);
    (0..1000).for_each(|_| bucket.take(0).expect("a burst"));
    let clock_us = AtomicU64::new(0);
    let taken = AtomicU64::new(1000);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ATTEMPTS {
                    let now_us = clock_us.fetch_add(1, Ordering::SeqCst) + 1;
                    if bucket.take(now_us).is_ok() {
                        let before = taken.fetch_add(1, Ordering::SeqCst);
                        let latest_us = clock_us.load(Ordering::SeqCst);
                        assert!(before < tokens(rate, latest_us), "{before} by {latest_us} us");
                    }
                }
            });
        }
    });
    let now_us = clock_us.into_inner();
    assert_eq!(now_us, THREADS * ATTEMPTS);
    let left = (0..2000).filter(|_| bucket.take(now_us).is_ok()).count() as u64;
    assert_eq!(taken.into_inner() + left, tokens(rate, now_us));
}
