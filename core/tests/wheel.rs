//! The wheel against a list of deadlines: never early, late by no more than its table says, each
//! timer delivered once.
//!
//! The model is a map from index to promise, an interval in which the timer has to fall due. It
//! knows the table of the wheel's header and nothing of buckets. Time is a number throughout.

use std::collections::BTreeMap;

use proptest::prelude::*;
use slipring_core::wheel::Wheel;

const HORIZON_MS: u64 = 63 << 21;

/// The header's table: the granule of the first level that covers the distance.
fn granule_ms(distance_ms: u64) -> u64 {
    (0..8).map(|level| 8_u64.pow(level)).find(|g| distance_ms <= 63 * g).expect("clamped")
}

/// When a timer falls due at the earliest, and at the latest.
#[derive(Debug, Clone, Copy)]
struct Promise {
    earliest_ms: u64,
    latest_ms: u64,
}

impl Promise {
    fn new(now_ms: u64, deadline_ms: u64) -> Self {
        let distance_ms = deadline_ms.saturating_sub(now_ms).min(HORIZON_MS);
        let earliest_ms = now_ms + distance_ms;
        let late_ms = granule_ms(distance_ms) - 1;
        assert!(late_ms * 63 < distance_ms * 8 || late_ms == 0, "the table is off");
        Self { earliest_ms, latest_ms: earliest_ms + late_ms }
    }
}

/// The wheel and its model, moved together; every step checks one against the other.
struct Pair {
    wheel: Wheel,
    promises: BTreeMap<u32, Promise>,
    now_ms: u64,
}

impl Pair {
    fn new(capacity: u32, now_ms: u64) -> Self {
        Self { wheel: Wheel::new(capacity, now_ms), promises: BTreeMap::new(), now_ms }
    }

    fn arm(&mut self, index: u32, deadline_ms: u64) {
        let fires_at_ms = self.wheel.arm(index, deadline_ms);
        let promise = Promise::new(self.now_ms, deadline_ms);
        assert!((promise.earliest_ms..=promise.latest_ms).contains(&fires_at_ms), "{promise:?}");
        // It says when, and keeps to that.
        let promise = Promise { earliest_ms: fires_at_ms, latest_ms: fires_at_ms };
        self.promises.insert(index, promise);
        self.check();
    }

    fn disarm(&mut self, index: u32) {
        self.wheel.disarm(index);
        self.promises.remove(&index);
        self.check();
    }

    fn advance(&mut self, now_ms: u64) {
        self.wheel.advance(now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        self.check();
    }

    /// Expires once; returns how many came and whether more are due.
    fn expire(&mut self, now_ms: u64, limit: usize) -> (usize, bool) {
        let mut due = Vec::new();
        let more = self.wheel.expire(now_ms, limit, &mut due);
        self.now_ms = self.now_ms.max(now_ms);
        assert!(due.len() <= limit, "{} delivered, limit {limit}", due.len());
        assert!(!more || due.len() == limit, "it stopped before the limit");
        for index in &due {
            let promise = self.promises.remove(index).expect("delivered, but not armed");
            assert!(promise.earliest_ms <= self.now_ms, "{index} early: {promise:?}");
        }
        if !more {
            for (index, promise) in &self.promises {
                assert!(promise.latest_ms > self.now_ms, "{index} late: {promise:?}");
            }
        }
        self.check();
        (due.len(), more)
    }

    fn expire_all(&mut self, now_ms: u64, limit: usize) -> usize {
        let mut delivered = 0;
        loop {
            let (count, more) = self.expire(now_ms, limit);
            delivered += count;
            if !more {
                return delivered;
            }
        }
    }

    /// Sleeps as long as the wheel allows: a millisecond before nothing is due, then some is.
    fn sleep(&mut self, limit: usize) {
        let Some(expiry_ms) = self.wheel.next_expiry_ms() else { return };
        if expiry_ms > self.now_ms {
            assert_eq!(self.expire(expiry_ms - 1, usize::MAX), (0, false), "due before it said");
        }
        assert_ne!(self.expire(expiry_ms, limit).0, 0, "nothing due when it said");
    }

    /// What holds at any time.
    fn check(&self) {
        assert_eq!(self.wheel.armed() as usize, self.promises.len());
        let Some(expiry_ms) = self.wheel.next_expiry_ms() else {
            return assert!(self.promises.is_empty(), "armed timers, and no expiry");
        };
        let earliest_ms = self.promises.values().map(|p| p.earliest_ms).min();
        let latest_ms = self.promises.values().map(|p| p.latest_ms).min();
        assert!(earliest_ms.expect("an expiry, and no timer") <= expiry_ms, "waking up early");
        assert!(expiry_ms <= latest_ms.unwrap().max(self.now_ms), "sleeping too long");
        for (index, promise) in self.promises.iter().take(CAPACITY as usize) {
            let granule = self.wheel.granule(*index).expect("armed, and it stands nowhere");
            assert!(*granule.start() <= promise.earliest_ms, "{index} stands late: {granule:?}");
            let due = *granule.end() <= self.now_ms;
            let width = granule.end() + 1 - granule.start();
            assert!(
                due || width.ilog2().is_multiple_of(3) && width.is_power_of_two(),
                "{index}: {granule:?}"
            );
            assert!(
                due || *granule.end() == promise.latest_ms,
                "{index}: {promise:?}, {granule:?}"
            );
            assert_eq!(due, promise.latest_ms <= self.now_ms, "{index}: {promise:?}, {granule:?}");
        }
    }

    fn drain(mut self, limit: usize) {
        let left = self.promises.len();
        let delivered = self.expire_all(self.now_ms + 2 * HORIZON_MS, limit);
        assert_eq!(delivered, left);
        assert_eq!(self.wheel.armed(), 0);
        assert_eq!(self.wheel.next_expiry_ms(), None);
    }
}

// -------------------------------------------------------------------- any order of anything at all

/// Few indices and few buckets, so that timers meet.
const CAPACITY: u32 = 24;

#[derive(Debug, Clone)]
enum Step {
    Arm { index: u32, ahead_ms: u64 },
    ArmPast { index: u32, behind_ms: u64 },
    ArmNever { index: u32 },
    ArmAgain { index: u32 },
    Disarm { index: u32 },
    Advance { by_ms: u64 },
    Expire { by_ms: u64, limit: usize },
    ExpireAll { by_ms: u64 },
    Sleep { limit: usize },
    Back { by_ms: u64 },
}

/// Distances of every level, its edges more often than chance would have it.
fn distance_ms() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 0..70_u64,
        3 => 0..5_000_u64,
        2 => (0..8_u32, 0..7_u64).prop_map(|(level, off)| (63 << (3 * level)) - 3 + off),
        2 => (0..8_u32, 0..7_u64).prop_map(|(level, off)| (64 << (3 * level)) - 3 + off),
        1 => 0..2 * HORIZON_MS,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let limit = || 0..4_usize;
    let index = || 0..CAPACITY;
    prop_oneof![
        8 => (index(), distance_ms()).prop_map(|(index, ahead_ms)| Step::Arm { index, ahead_ms }),
        1 => (index(), 0..9_u64).prop_map(|(index, behind_ms)| Step::ArmPast { index, behind_ms }),
        1 => index().prop_map(|index| Step::ArmNever { index }),
        2 => index().prop_map(|index| Step::ArmAgain { index }),
        3 => index().prop_map(|index| Step::Disarm { index }),
        2 => distance_ms().prop_map(|by_ms| Step::Advance { by_ms }),
        3 => (distance_ms(), limit()).prop_map(|(by_ms, limit)| Step::Expire { by_ms, limit }),
        2 => distance_ms().prop_map(|by_ms| Step::ExpireAll { by_ms }),
        3 => (1..4_usize).prop_map(|limit| Step::Sleep { limit }),
        1 => (0..1_000_u64).prop_map(|by_ms| Step::Back { by_ms }),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

fn take(pair: &mut Pair, step: &Step) {
    let now_ms = pair.now_ms;
    match *step {
        Step::Arm { index, ahead_ms } => pair.arm(index, now_ms + ahead_ms),
        Step::ArmPast { index, behind_ms } => pair.arm(index, now_ms.saturating_sub(behind_ms)),
        Step::ArmNever { index } => pair.arm(index, u64::MAX),
        Step::ArmAgain { index } => {
            if let Some(promise) = pair.promises.get(&index) {
                pair.arm(index, promise.earliest_ms);
            }
        }
        Step::Disarm { index } => pair.disarm(index),
        Step::Advance { by_ms } => pair.advance(now_ms + by_ms),
        Step::Expire { by_ms, limit } => {
            pair.expire(now_ms + by_ms, limit);
        }
        Step::ExpireAll { by_ms } => {
            pair.expire_all(now_ms + by_ms, 3);
        }
        Step::Sleep { limit } => pair.sleep(limit),
        Step::Back { by_ms } => {
            pair.expire(now_ms.saturating_sub(by_ms), 1);
        }
    }
    let armed = (0..CAPACITY).filter(|&index| pair.wheel.is_armed(index));
    assert!(armed.eq(pair.promises.keys().copied()), "armed, as the model has it");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn keeps_its_promises_in_any_order_of_calls(
        start_ms in 0..1_u64 << 40,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut pair = Pair::new(CAPACITY, start_ms);
        for step in &steps {
            take(&mut pair, step);
        }
        pair.drain(5);
    }

    /// Nobody but the wheel moves time: every sleep is as long as it says, to the last timer.
    #[test]
    fn a_reactor_that_only_sleeps_misses_nothing(
        start_ms in 0..1_u64 << 40,
        distances in prop::collection::vec(distance_ms(), 1..CAPACITY as usize),
    ) {
        let mut pair = Pair::new(CAPACITY, start_ms);
        for (index, distance_ms) in distances.iter().enumerate() {
            pair.arm(index as u32, start_ms + distance_ms);
        }
        for _ in 0..distances.len() {
            pair.sleep(usize::MAX);
        }
        assert_eq!(pair.wheel.armed(), 0, "one sleep a timer is more than enough");
    }
}

// ------------------------------------------------------------------------------- levels and times

#[test]
fn every_level_keeps_the_table_at_its_edges() {
    for level in 0..8 {
        for distance_ms in (63_u64 << (3 * level)).saturating_sub(2)..=(63 << (3 * level)) + 2 {
            for start_ms in [0, 1, 7, 8, 63, 64, 511, 123_456_789, (1 << 40) - 1] {
                let mut pair = Pair::new(1, start_ms);
                pair.arm(0, start_ms + distance_ms);
                pair.sleep(1);
                pair.drain(1);
            }
        }
    }
}

#[test]
fn a_lone_timer_falls_due_on_the_granule_after_its_deadline() {
    // (deadline, expiry), from 1,000 ms on.
    for (deadline_ms, expiry_ms) in
        [(1_001, 1_001), (1_063, 1_063), (1_064, 1_064), (1_065, 1_072), (1_505, 1_536)]
    {
        let mut wheel = Wheel::new(1, 1_000);
        wheel.arm(0, deadline_ms);
        assert_eq!(wheel.next_expiry_ms(), Some(expiry_ms));
    }
}

#[test]
fn a_deadline_beyond_the_horizon_fires_at_the_horizon() {
    let mut pair = Pair::new(2, 5);
    assert_eq!(Wheel::HORIZON_MS, HORIZON_MS);
    pair.arm(0, u64::MAX);
    pair.arm(1, 5 + HORIZON_MS);
    assert_eq!(pair.expire_all(5 + HORIZON_MS - 1, 8), 0);
    assert_eq!(pair.expire_all(5 + HORIZON_MS + (1 << 21) - 1, 8), 2);
}

#[test]
fn a_deadline_that_has_passed_fires_at_the_next_expiry() {
    let mut pair = Pair::new(3, 1_000);
    for (index, deadline_ms) in [(0, 0), (1, 999), (2, 1_000)] {
        pair.arm(index, deadline_ms);
    }
    assert_eq!(pair.wheel.next_expiry_ms(), Some(1_000));
    assert_eq!(pair.expire_all(1_000, 2), 3);
}

#[test]
fn a_stall_of_days_delivers_everything_once() {
    let mut pair = Pair::new(600, 77);
    for index in 0..600 {
        pair.arm(index, 77 + u64::from(index).pow(3));
    }
    assert_eq!(pair.expire_all(77 + 10 * HORIZON_MS, 7), 600);
    pair.drain(1);
}

#[test]
fn time_that_goes_back_is_the_last_time_seen() {
    let mut pair = Pair::new(2, 1_000);
    pair.advance(500);
    pair.arm(0, 1_005);
    assert_eq!(pair.expire(0, 8), (0, false));
    assert_eq!(pair.expire(1_005, 8), (1, false));
    pair.arm(1, 1_006);
    assert_eq!(pair.expire(1_004, 8), (0, false));
    assert_eq!(pair.wheel.next_expiry_ms(), Some(1_006));
}

#[test]
fn a_timer_armed_after_a_long_sleep_is_as_precise_as_any() {
    let mut wheel = Wheel::new(1, 0);
    wheel.advance(3_600_000);
    wheel.arm(0, 3_600_010);
    assert_eq!(wheel.next_expiry_ms(), Some(3_600_010));
}

// ------------------------------------------------------------------------- due, and not delivered

#[test]
fn a_lap_later_is_not_due_with_the_rest_of_the_bucket() {
    let mut pair = Pair::new(8, 0);
    for index in 0..4 {
        pair.arm(index, 10);
    }
    assert_eq!(pair.expire(10, 1), (1, true));
    // The same bucket of level 0, the next lap: 64 ms on, seen from 11 ms.
    pair.advance(11);
    pair.arm(4, 74);
    assert_eq!(pair.expire_all(73, 1), 3);
    assert_eq!(pair.expire_all(74, 1), 1);
}

#[test]
fn a_due_timer_armed_into_the_bucket_it_came_from_waits_again() {
    for other in [None, Some(1)] {
        let mut pair = Pair::new(2, 0);
        pair.arm(0, 10);
        if let Some(index) = other {
            pair.arm(index, 10);
        }
        pair.advance(11);
        pair.arm(0, 74);
        assert_eq!(pair.expire_all(73, 8), usize::from(other.is_some()));
        assert_eq!(pair.expire_all(74, 8), 1);
    }
}

#[test]
fn a_due_timer_can_be_disarmed() {
    let mut pair = Pair::new(3, 0);
    for index in 0..3 {
        pair.arm(index, 5);
    }
    pair.advance(9);
    for index in [1, 0, 2] {
        pair.disarm(index);
    }
    assert_eq!(pair.expire(9, 8), (0, false));
}

#[test]
fn due_timers_keep_their_place_before_later_ones() {
    let mut wheel = Wheel::new(8, 0);
    let mut due = Vec::new();
    for (index, deadline_ms) in [(5, 3), (1, 3), (3, 3), (0, 4)] {
        wheel.arm(index, deadline_ms);
    }
    assert!(wheel.expire(3, 1, &mut due));
    assert!(!wheel.expire(4, 8, &mut due));
    assert_eq!(due, [5, 1, 3, 0]);
}

// ---------------------------------------------------------------------------------------- size

#[test]
fn a_million_timers_of_one_bucket_come_in_bounded_parts() {
    const TIMERS: u32 = 1_000_000;
    const LIMIT: usize = 1024;
    let mut wheel = Wheel::new(TIMERS, 0);
    for index in 0..TIMERS {
        wheel.arm(index, 50);
    }
    let mut delivered = vec![false; TIMERS as usize];
    let mut due = Vec::with_capacity(LIMIT);
    let (mut calls, mut now_ms, mut more) = (0, 50, true);
    while more {
        due.clear();
        more = wheel.expire(now_ms, LIMIT, &mut due);
        assert!(due.len() == LIMIT || !more);
        for &index in &due {
            assert!(!std::mem::replace(&mut delivered[index as usize], true), "{index} twice");
        }
        calls += 1;
        now_ms += 1; // A turn takes its time, too.
    }
    assert_eq!(calls, TIMERS.div_ceil(LIMIT as u32));
    assert!(delivered.iter().all(|&delivered| delivered));
    assert_eq!((wheel.armed(), wheel.next_expiry_ms()), (0, None));
}

#[test]
fn untouched_indices_cost_no_memory() {
    let resident_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
    };
    let before_kib = resident_kib();
    let mut wheel = Wheel::new(1 << 25, 0); // 256 MiB of timers; other tests need some, too.
    wheel.arm((1 << 25) - 1, 10);
    assert!(resident_kib() < before_kib + (128 << 10), "the wheel's pages were touched");
}

#[test]
fn printed_it_tells_the_time_and_how_many_are_armed_and_not_each() {
    let mut wheel = Wheel::new(1 << 20, 5_000);
    wheel.arm(7, 5_060);
    assert_eq!(format!("{wheel:?}"), "Wheel { now_ms: 5000, armed: 1, .. }");
}

#[test]
#[should_panic(expected = "timer 4 of a wheel of 4")]
fn an_index_beyond_the_capacity_cannot_be_armed() {
    Wheel::new(4, 0).arm(4, 1);
}

#[test]
#[should_panic(expected = "timer 4294967295 of a wheel of 0")]
fn a_wheel_of_none_has_no_index() {
    Wheel::new(0, 0).disarm(u32::MAX);
}
