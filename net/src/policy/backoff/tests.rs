//! Delays: how they grow, between which bounds each jitter draws, and where their mean lies.

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const DRAWS: u32 = 4000;

fn with(jitter: Jitter) -> Backoff {
    Backoff { jitter, ..Backoff::default() }
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

/// Many draws of the delay after so many others.
fn draws(backoff: Backoff, after: u32) -> Vec<Duration> {
    let mut rng = rng();
    let draw = |_| {
        let mut delays = backoff.delays();
        (0..after).for_each(|_| _ = delays.next(&mut rng));
        delays.next(&mut rng)
    };
    (0..DRAWS).map(draw).collect()
}

/// All lie in the range, come close to both of its ends, and have this mean.
#[track_caller]
fn assert_spread(draws: &[Duration], least: Duration, most: Duration, mean: Duration) {
    let near = (most - least) / 100;
    let smallest = *draws.iter().min().expect("there are some");
    let largest = *draws.iter().max().expect("there are some");
    assert!((least..=least + near).contains(&smallest), "the smallest is {smallest:?}");
    assert!((most - near..=most).contains(&largest), "the largest is {largest:?}");
    let found = draws.iter().sum::<Duration>() / DRAWS;
    // The deviation of an even draw is 0.29 of its range, that of the mean of 4000 is 0.0046: this is 4 of those.
    let off = found.abs_diff(mean);
    assert!(off < (most - least) / 50, "the mean is {found:?}, not {mean:?}");
}

#[test]
fn without_jitter_each_is_twice_the_one_before_up_to_the_most() {
    let mut delays = with(Jitter::None).delays();
    let found: Vec<_> = (0..12).map(|_| delays.next(&mut rng()).as_millis()).collect();
    assert_eq!(
        found,
        [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000]
    );
    delays.reset();
    assert_eq!(delays.next(&mut rng()), 100 * MS);
    let mut even = Backoff { factor: 1, ..with(Jitter::None) }.delays();
    assert!((0..9).all(|_| even.next(&mut rng()) == 100 * MS));
}

#[test]
fn full_draws_from_nothing_to_the_whole() {
    assert_eq!(Backoff::default().jitter, Jitter::Full);
    assert_spread(&draws(with(Jitter::Full), 0), Duration::ZERO, 100 * MS, 50 * MS);
    assert_spread(&draws(with(Jitter::Full), 3), Duration::ZERO, 800 * MS, 400 * MS);
    assert_spread(&draws(with(Jitter::Full), 40), Duration::ZERO, 30_000 * MS, 15_000 * MS);
}

#[test]
fn equal_keeps_half_and_draws_the_other() {
    assert_spread(&draws(with(Jitter::Equal), 0), 50 * MS, 100 * MS, 75 * MS);
    assert_spread(&draws(with(Jitter::Equal), 3), 400 * MS, 800 * MS, 600 * MS);
    assert_spread(&draws(with(Jitter::Equal), 40), 15_000 * MS, 30_000 * MS, 22_500 * MS);
}

#[test]
fn decorrelated_draws_from_the_first_to_three_times_the_one_before() {
    assert_spread(&draws(with(Jitter::Decorrelated), 0), 100 * MS, 300 * MS, 200 * MS);
    // The second: first ..= 3 * d, with d even in 100..=300 ms; its mean is (100 + 600) / 2.
    let second = draws(with(Jitter::Decorrelated), 1);
    assert!(second.iter().all(|delay| (100 * MS..=900 * MS).contains(delay)));
    assert!(second.iter().any(|delay| *delay > 700 * MS));
    let mean = second.iter().sum::<Duration>() / DRAWS;
    assert!(mean.abs_diff(350 * MS) < 15 * MS, "{mean:?}");
    // Far on it wanders beneath the most: there in 27 of 100 draws, and never beyond.
    let late = draws(with(Jitter::Decorrelated), 60);
    let at_most = late.iter().filter(|delay| **delay == 30_000 * MS).count();
    assert!(late.iter().all(|delay| (100 * MS..=30_000 * MS).contains(delay)));
    assert!((960..1200).contains(&at_most), "{at_most} of {DRAWS}");
}

#[test]
fn decorrelated_starts_over_too() {
    let mut delays = with(Jitter::Decorrelated).delays();
    let mut rng = rng();
    (0..30).for_each(|_| _ = delays.next(&mut rng));
    delays.reset();
    assert_eq!(delays, with(Jitter::Decorrelated).delays());
    assert!(delays.next(&mut rng) <= 300 * MS);
}

#[test]
fn a_seed_repeats_a_run() {
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        let run = |seed| {
            let (mut delays, mut rng) = (with(jitter).delays(), fastrand::Rng::with_seed(seed));
            (0..20).map(|_| delays.next(&mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }
}

#[test]
fn a_pool_fills_itself_up_faster() {
    let mut delays = Backoff { jitter: Jitter::None, ..Backoff::refill() }.delays();
    let found: Vec<_> = (0..8).map(|_| delays.next(&mut rng()).as_millis()).collect();
    assert_eq!(found, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert_eq!(Backoff::refill().jitter, Jitter::Full);
    assert_eq!(Backoff::refill().check(), Ok(()));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_remedy() {
    let good = Backoff::default();
    assert_eq!(good.check(), Ok(()));
    assert_eq!(Backoff { first: Duration::ZERO, ..good }.check(), Err(BackoffError::First));
    assert_eq!(Backoff { factor: 0, ..good }.check(), Err(BackoffError::Factor));
    assert_eq!(Backoff { first: good.most, ..good }.check(), Ok(()));
    let error = Backoff { most: 99 * MS, ..good }.check().expect_err("100 ms are more");
    assert_eq!(
        error.to_string(),
        "a first delay of 100ms, and none longer than 99ms; raise `most` or lower `first`"
    );
}

/// And used all the same it does no harm.
#[test]
fn what_was_refused_does_no_harm() {
    let good = Backoff { jitter: Jitter::None, ..Backoff::default() };
    let mut reversed = Backoff { most: 9 * MS, ..good }.delays();
    assert_eq!([reversed.next(&mut rng()), reversed.next(&mut rng())], [9 * MS; 2]);
    let mut factorless = Backoff { factor: 0, ..good }.delays();
    assert_eq!([factorless.next(&mut rng()), factorless.next(&mut rng())], [100 * MS; 2]);
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        Just(Duration::MAX),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, ns)| Duration::new(s, ns)),
        (0..100_000_u64).prop_map(Duration::from_millis),
    ]
}

fn jitters() -> impl Strategy<Value = Jitter> {
    prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::Decorrelated)
    ]
}

proptest! {
    /// Whatever it is made of: no delay is longer than the most, and none leaves the range of its jitter.
    #[test]
    fn no_delay_leaves_its_range(
        first in durations(), most in durations(), factor in prop_oneof![0..4_u32, Just(u32::MAX)],
        jitter in jitters(), seed: u64,
    ) {
        let backoff = Backoff { first, factor, most, jitter };
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut delays = backoff.delays();
        let start = first.min(most);
        let (mut whole, mut before) = (start, start);
        for _ in 0..40 {
            let delay = delays.next(&mut rng);
            let (least, longest) = match jitter {
                Jitter::None => (whole, whole),
                Jitter::Full => (Duration::ZERO, whole),
                Jitter::Equal => (whole / 2, whole),
                Jitter::Decorrelated => (start, before.saturating_mul(3).min(most)),
            };
            prop_assert!((least..=longest).contains(&delay), "{:?} of {:?}", delay, (least, longest));
            whole = whole.saturating_mul(factor.max(1)).min(most);
            before = delay;
        }
    }
}
