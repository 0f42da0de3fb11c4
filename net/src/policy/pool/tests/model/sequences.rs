//! The sequences, and that they reach everything.

use super::*;

/// Small ones, so that everything runs into everything.
pub(super) fn limits(by: u16) -> PoolLimits {
    let by = u32::from(by);
    let max = 1 + by % 4 * (by / 1024 % 3);
    let mode = match by / 4 % 4 {
        0 | 1 => Mode::Dynamic { min_idle: 0, max },
        2 => Mode::Dynamic { min_idle: (by / 16 % 3).min(max), max },
        _ => Mode::Fixed(max),
    };
    let pick = |every: u32, value: u64| (by / 16 % every != 0).then(|| ms(value));
    PoolLimits {
        mode,
        dials_max: 1 + by / 48 % 3,
        waiters_max: 1 + by / 64 % 5,
        idle_timeout: pick(5, 4000),
        max_lifetime: pick(6, 20_000),
        keep_alive: pick(3, 3000),
        validate_after: [Some(Duration::ZERO), Some(ms(2000)), Some(ms(2000)), None]
            [by as usize / 128 % 4],
        leak_after: pick(7, 5000),
        hung_after: ms(u64::from(by / 512 % 2) * 1000),
        ..PoolLimits::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn book_and_model_agree(
        by in any::<u16>(),
        off in any::<u16>(),
        free in 0_usize..8,
        steps in proptest::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..160),
    ) {
        let limits = limits(by);
        prop_assume!(limits.check().is_ok());
        let mut rig = Rig::new(limits, free);
        rig.off = off;
        rig.settle();
        for step in steps {
            rig.step(step);
        }
        rig.settle();
        rig.end();
    }
}

/// The sequences above are no better than what they reach: everything, and often.
#[test]
fn sequences_reach_everything() {
    let mut sum = PoolCounters::default();
    let (mut withdrawn, mut fresh_left) = (0, 0);
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::new(limits(rng.u16(..)), rng.usize(0..8));
        rig.off = rng.u16(..);
        rig.settle();
        for _ in 0..200 {
            rig.step((rng.u8(..), rng.u16(..), rng.u16(..)));
        }
        rig.settle();
        rig.end();
        withdrawn += rig.withdrawn;
        fresh_left += rig.fresh_left;
        let counters = rig.book.counters();
        for (of, by) in sum.closes.iter_mut().zip(counters.closes) {
            *of += by;
        }
        let PoolCounters { hits, waits, saturated, refused, claimed, failed, .. } = *counters;
        for (of, by) in [
            (&mut sum.hits, hits),
            (&mut sum.waits, waits),
            (&mut sum.saturated, saturated),
            (&mut sum.refused, refused),
            (&mut sum.claimed, claimed),
            (&mut sum.failed, failed),
            (&mut sum.timeouts, counters.timeouts),
            (&mut sum.left, counters.left),
            (&mut sum.dials, counters.dials),
            (&mut sum.refills, counters.refills),
            (&mut sum.fresh, counters.fresh),
            (&mut sum.dials_failed, counters.dials_failed),
            (&mut sum.dials_cancelled, counters.dials_cancelled),
            (&mut sum.validations, counters.validations),
            (&mut sum.pings, counters.pings),
            (&mut sum.leaks, counters.leaks),
            (&mut sum.stale, counters.stale),
        ] {
            *of += by;
        }
    }
    let text = format!("{sum:?}, {withdrawn} withdrawn, {fresh_left} left");
    let PoolCounters { closes, .. } = sum;
    assert!(closes.iter().all(|count| *count > 20), "{text}");
    for count in [
        sum.hits,
        sum.waits,
        sum.saturated,
        sum.refused,
        sum.claimed,
        sum.failed,
        sum.timeouts,
        sum.left,
        sum.dials,
        sum.refills,
        sum.fresh,
        sum.dials_failed,
        sum.dials_cancelled,
        sum.validations,
        sum.pings,
        sum.leaks,
        sum.stale,
        withdrawn,
        fresh_left,
    ] {
        assert!(count > 20, "{text}");
    }
}

/// All that `limits` makes can be met: otherwise the sequences above would not be what they seem.
#[test]
fn limits_of_the_model_are_sound() {
    for by in 0..=u16::MAX {
        assert_eq!(limits(by).check(), Ok(()), "{by}");
    }
}
