//! The limits of a pool: what is refused, and what it says.

use std::time::Duration;

use super::super::{Book, Cause, Mode, PoolLimits, PoolLimitsError};
use crate::policy::backoff::Backoff;

const SECOND: Duration = Duration::from_secs(1);

fn error(limits: PoolLimits) -> PoolLimitsError {
    let error = limits.check().expect_err("it makes no sense");
    assert_eq!(Book::new(limits).err(), Some(error));
    error
}

#[test]
fn defaults_are_sound_and_as_documented() {
    for mode in [Mode::default(), Mode::Dynamic { min_idle: 3, max: 3 }, Mode::Fixed(1)] {
        assert_eq!(PoolLimits::of(mode).check(), Ok(()));
    }
    let limits = PoolLimits::default();
    assert_eq!((limits.mode.min_idle(), limits.mode.max()), (0, 10));
    assert_eq!((limits.dials_max, limits.waiters_max), (16, 1024));
    assert_eq!((limits.idle_timeout, limits.keep_alive), (Some(SECOND * 90), None));
    let kept = PoolLimits::of(Mode::Fixed(4));
    assert_eq!((kept.mode.min_idle(), kept.mode.max()), (4, 4));
    assert_eq!((kept.idle_timeout, kept.keep_alive), (Some(SECOND * 600), Some(SECOND * 120)));
}

#[test]
fn sizes_by_the_machine() {
    assert_eq!(PoolLimits::sized_for(4, 1).mode, Mode::Dynamic { min_idle: 0, max: 9 });
    for (cores, spindles) in [(0, 0), (u32::MAX, u32::MAX)] {
        assert_eq!(PoolLimits::sized_for(cores, spindles).check(), Ok(()));
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_cause_and_remedy() {
    let (one, of) = (PoolLimits::of(Mode::Fixed(1)), PoolLimits::of);
    let dynamic = |min_idle, max| of(Mode::Dynamic { min_idle, max });
    let pauses = Backoff::refill();
    let refill = |refill| PoolLimits { refill, ..one };
    let table = [
        (of(Mode::Fixed(0)), "a pool of 0 connections"),
        (of(Mode::Fixed((1 << 20) + 1)), "a pool of 1048577 connections"),
        (dynamic(0, u32::MAX), "a pool of 4294967295 connections"),
        (dynamic(11, 10), "11 connections are to be kept idle and 10"),
        (PoolLimits { dials_max: 0, ..one }, "with 0 dials"),
        (PoolLimits { waiters_max: 0, ..one }, "with 0 waiters"),
        (PoolLimits { idle_timeout: Some(Duration::ZERO), ..one }, "idle_timeout is 0ns"),
        (PoolLimits { max_lifetime: Some(SECOND / 2), ..one }, "max_lifetime is 500ms"),
        (PoolLimits { keep_alive: Some(Duration::ZERO), ..one }, "keep_alive is 0ns"),
        (PoolLimits { leak_after: Some(Duration::ZERO), ..one }, "leak_after is 0ns"),
        (PoolLimits { validate_timeout: Duration::ZERO, ..one }, "with 0 s for validating"),
        (PoolLimits { checkout_timeout: Some(Duration::ZERO), ..one }, "with 0 s for a checkout"),
        (PoolLimits { checkout_timeout: Some(SECOND), ..one }, "validating may take 1s"),
        (refill(Backoff { first: Duration::ZERO, ..pauses }), "a first delay of 0"),
        (refill(Backoff { first: SECOND * 6, ..pauses }), "a first delay of 6s"),
        (
            PoolLimits { idle_timeout: Some(SECOND * 1800), ..dynamic(1, 2) },
            "idle_timeout (1800s) is not below max_lifetime (1800s)",
        ),
        (
            PoolLimits { keep_alive: Some(SECOND * 1800), ..one },
            "keep_alive (1800s) is not below max_lifetime",
        ),
        (
            PoolLimits { keep_alive: Some(SECOND * 90), ..dynamic(0, 2) },
            "keep_alive (90s) is not below idle_timeout",
        ),
    ];
    for (limits, starts) in table {
        let text = error(limits).to_string();
        assert!(text.starts_with(starts), "{text}");
        let (cause, remedy) = text.split_once("; ").expect("cause and remedy");
        assert!(!cause.is_empty() && !remedy.is_empty() && !text.contains('\n'), "{text}");
    }
}

#[test]
fn what_is_never_is_compared_with_nothing() {
    let limits = PoolLimits {
        checkout_timeout: None,
        idle_timeout: None,
        max_lifetime: None,
        keep_alive: Some(Duration::MAX),
        validate_after: None,
        leak_after: None,
        ..PoolLimits::default()
    };
    assert_eq!(limits.check(), Ok(()));
    let fixed = PoolLimits { idle_timeout: Some(Duration::MAX), ..PoolLimits::of(Mode::Fixed(2)) };
    assert_eq!(fixed.check(), Ok(()), "without effect");
}

#[test]
fn causes_have_labels_of_their_own_in_order() {
    let mut labels: Vec<_> = Cause::ALL.iter().map(|cause| cause.label()).collect();
    assert!(Cause::ALL.iter().enumerate().all(|(index, cause)| *cause as usize == index));
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), Cause::ALL.len());
}
