//! What a budget grants, how reactors share it, and that nobody gets more of it than was promised.

use proptest::prelude::*;

use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn one(percent: u32, per_second: u32) -> Budget {
    Budget::new(&BudgetLimits { percent, per_second, ..BudgetLimits::default() }, 0, 1)
}

/// How many retries are granted in a row.
fn spend(budget: &mut Budget, now: Duration) -> u64 {
    let left = budget.left(now);
    let granted = (0..1_000_000).take_while(|_| budget.try_retry(now)).count() as u64;
    assert_eq!((granted, budget.left(now)), (left, 0));
    granted
}

#[test]
fn without_requests_the_constant_part_is_affordable() {
    let mut budget = Budget::new(&BudgetLimits::default(), 0, 1);
    assert_eq!(spend(&mut budget, at(0)), 100, "10 each second of 10 s");
    assert_eq!(budget.left(at(9999)), 0);
    assert_eq!(spend(&mut budget, at(10_000)), 100, "the window is over");
}

#[test]
fn a_share_of_the_first_attempts_is_affordable() {
    let mut budget = one(20, 0);
    for (firsts, left) in [(4, 0), (5, 1), (9, 1), (10, 2)] {
        while budget.window.sum(at(0)).firsts < firsts {
            budget.note_first(at(0));
        }
        assert_eq!(budget.left(at(0)), left, "of {firsts}");
    }
    assert_eq!(spend(&mut budget, at(0)), 2);
    (0..500).for_each(|_| budget.note_first(at(5000)));
    assert_eq!(spend(&mut budget, at(5000)), 100);
    assert_eq!(budget.left(at(10_000)), 0, "ten firsts and two retries are forgotten together");
    assert_eq!(budget.left(at(15_000)), 0);
}

/// What was spent stays spent as long as what earned it is remembered, and longer.
#[test]
fn retries_after_their_first_attempts_are_owed() {
    let mut budget = one(20, 0);
    (0..100).for_each(|_| budget.note_first(at(0)));
    assert_eq!(spend(&mut budget, at(9999)), 20);
    (0..50).for_each(|_| budget.note_first(at(10_000)));
    assert_eq!(budget.left(at(10_000)), 0, "10 earned, and 20 spent lately");
    (0..55).for_each(|_| budget.note_first(at(10_000)));
    assert_eq!(budget.left(at(10_000)), 1);
}

#[test]
fn nothing_is_never_affordable() {
    let mut budget = Budget::new(&BudgetLimits::never(), 0, 1);
    (0..1000).for_each(|_| budget.note_first(at(0)));
    assert_eq!(spend(&mut budget, at(0)), 0);
    assert_eq!(BudgetLimits::never().check(), Ok(()));
}

#[test]
fn time_that_goes_back_earns_nothing() {
    let mut budget = one(20, 1);
    assert_eq!(spend(&mut budget, at(20_000)), 10);
    assert_eq!(spend(&mut budget, at(0)), 0);
    assert_eq!(spend(&mut budget, at(29_999)), 0);
    assert_eq!(spend(&mut budget, at(30_000)), 10);
}

#[test]
fn reactors_share_the_constant_part_without_a_rest() {
    for (per_second, reactors) in
        [(10, 1), (10, 3), (10, 64), (10, 100), (10, 101), (1, 64), (0, 4)]
    {
        let limits = BudgetLimits { per_second, ..BudgetLimits::default() };
        let shares: Vec<u64> = (0..reactors)
            .map(|reactor| spend(&mut Budget::new(&limits, reactor, reactors), at(0)))
            .collect();
        let all = u64::from(per_second) * 10;
        assert_eq!(shares.iter().sum::<u64>(), all, "{shares:?}");
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{shares:?}");
        assert!(all < reactors as u64 || shares.iter().all(|share| *share > 0), "{shares:?}");
    }
}

#[test]
fn a_reactor_of_no_such_number_has_the_least_share() {
    let limits = BudgetLimits::default();
    assert_eq!(spend(&mut Budget::new(&limits, 3, 3), at(0)), 33);
    assert_eq!(spend(&mut Budget::new(&limits, usize::MAX, usize::MAX), at(0)), 0);
    assert_eq!(spend(&mut Budget::new(&limits, 0, 0), at(0)), 100, "of none: it is alone");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_remedy() {
    let good = BudgetLimits::default();
    assert_eq!(good.check(), Ok(()));
    let error = BudgetLimits { percent: 1001, ..good }.check().expect_err("it is too much");
    assert_eq!(error.to_string(), "a budget of 1001 % of the first attempts; say from 0 to 1000");
    for window in [Duration::ZERO, at(999), at(3_600_001), Duration::MAX] {
        let error = BudgetLimits { window, ..good }.check();
        assert_eq!(error, Err(BudgetLimitsError::Window { window }));
    }
    assert_eq!(
        BudgetLimitsError::Window { window: at(999) }.to_string(),
        "a budget over 999ms; say from 1s to 3600s"
    );
    for window in [at(1000), at(3_600_000)] {
        assert_eq!(BudgetLimits { window, percent: 1000, ..good }.check(), Ok(()));
    }
}

#[test]
fn no_number_is_too_large_or_too_small() {
    for window in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for (percent, per_second) in [(0, 0), (u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
            let limits = BudgetLimits { percent, per_second, window };
            for now in [Duration::ZERO, Duration::MAX] {
                let mut budget = Budget::new(&limits, 0, 7);
                budget.window.add(now, Attempts { firsts: u64::MAX, retries: 0 });
                budget.note_first(now);
                assert_eq!(budget.try_retry(now), percent > 0 || budget.constant > 0);
                budget.window.add(now, Attempts { firsts: 0, retries: u64::MAX });
                let _ = budget.left(now);
            }
        }
    }
    let endless = BudgetLimits { per_second: u32::MAX, window: Duration::MAX, percent: 0 };
    assert_eq!(endless.constant(), u64::MAX);
    // 9 s of 10 a second and a bit: what does not make a whole retry is left out.
    let odd = BudgetLimits { window: at(9099), ..BudgetLimits::default() };
    assert_eq!(odd.constant(), 90);
}

/// What happened, by the moment at which it did.
#[derive(Default)]
struct List {
    firsts: Vec<u64>,
    retries: Vec<u64>,
}

fn within(list: &[u64], from: u64, to: u64) -> u64 {
    list.iter().filter(|at| (from..=to).contains(at)).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What the top of the file promises, over any sequence, counted from a list: exactly so many are granted as ten
    /// buckets allow; and over any stretch of nine tenths of the window, no more than it says.
    #[test]
    fn retries_never_pass_their_share(
        percent in 0..120_u32, per_second in 0..3_u32, window_ms in 1000..4000_u64,
        (reactor, reactors) in (1..5_usize).prop_flat_map(|n| (0..n, Just(n))),
        steps in prop::collection::vec((0..400_u64, 0..6_u32, 0..5_u32), 1..150),
    ) {
        let limits = BudgetLimits { percent, per_second, window: at(window_ms) };
        let mut budget = Budget::new(&limits, reactor, reactors);
        let constant = u64::from(per_second) * window_ms / 1000;
        let share = constant / reactors as u64 + u64::from((reactor as u64) < constant % reactors as u64);
        let affords = |firsts: u64| firsts * u64::from(percent) / 100 + share;
        let mut list = List::default();
        let mut now_ns = 0_u64;
        for (step_ms, firsts, retries) in steps {
            // Not on whole milliseconds, so that ends of buckets are met from both sides.
            now_ns += step_ms * 999_983;
            let now = Duration::from_nanos(now_ns);
            (0..firsts).for_each(|_| budget.note_first(now));
            list.firsts.extend((0..firsts).map(|_| now_ns));
            for _ in 0..retries {
                let width = window_ms * 100_000;
                let from = (now_ns / width).saturating_sub(9) * width;
                let may = affords(within(&list.firsts, from, now_ns));
                let had = within(&list.retries, from, now_ns);
                prop_assert_eq!(budget.left(now), may.saturating_sub(had));
                if budget.try_retry(now) {
                    list.retries.push(now_ns);
                    prop_assert!(had < may);
                } else {
                    prop_assert!(had >= may);
                }
            }
        }
        let (whole, nine_tenths) = (window_ms * 1_000_000, window_ms * 900_000);
        for (index, &last) in list.retries.iter().enumerate() {
            let from = last.saturating_sub(nine_tenths - 1);
            let had = within(&list.retries[..=index], from, last);
            let may = affords(within(&list.firsts, last.saturating_sub(whole), last));
            prop_assert!(had <= may, "{} retries of {} in a stretch that ends at {}", had, may, last);
        }
    }

    /// All reactors together: the sum of what they grant is within the whole limit.
    #[test]
    fn reactors_together_never_pass_the_limit(
        percent in 0..50_u32, per_second in 0..4_u32,
        firsts in prop::collection::vec(0..60_u32, 1..70),
    ) {
        let limits = BudgetLimits { percent, per_second, ..BudgetLimits::default() };
        let mut granted = 0;
        for (reactor, own) in firsts.iter().enumerate() {
            let mut budget = Budget::new(&limits, reactor, firsts.len());
            (0..*own).for_each(|_| budget.note_first(at(1)));
            granted += spend(&mut budget, at(1));
        }
        let all: u64 = firsts.iter().map(|firsts| u64::from(*firsts)).sum();
        prop_assert!(granted <= all * u64::from(percent) / 100 + u64::from(per_second) * 10);
    }
}
