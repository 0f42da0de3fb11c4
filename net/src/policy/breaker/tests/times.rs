//! Long times, times that differ from reactor to reactor, and numbers that wrap.

use super::super::word::{HalfOpen, Kind, PERMIT_MAX_MS, TIME_MAX_MS, Word};
use super::*;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// When `void from` comes round.
const WRAP_MS: u64 = 1 << 32;

fn tomorrow_and_later() -> Vec<u64> {
    let days = [1, 7, 24, 25, 26, 40, 49, 50, 51, 99, 100, 365, 3650, 36_500];
    let mut times: Vec<u64> = days.iter().map(|days| days * DAY_MS).collect();
    for wraps in [1, 2, 3, 1000, 4095] {
        times.extend(
            [-200_000, -10_000, -1, 0, 1, 10_000, 70_001, 200_000]
                .map(|off: i64| (wraps * WRAP_MS).saturating_add_signed(off)),
        );
    }
    times
}

/// Left open, it lets a probe through whenever the next call comes, however long after.
#[test]
fn left_open_for_years_it_is_due() {
    for later in tomorrow_and_later() {
        let mut room = room();
        room.open(1000);
        assert_eq!(room.until(30_999), 31_000);
        assert!(room.admit(0, 31_000 + later).expect("it is due").is_probe(), "{later}");
        assert_eq!(room.until_full(31_000 + later), 41_000 + later);
    }
}

impl Room {
    /// All permits are taken, and this is until when.
    fn until_full(&mut self, now: u64) -> u64 {
        while self.admit(0, now).is_ok() {}
        self.until(now)
    }
}

/// Half-open with no permit out there is nothing that could be over.
#[test]
fn left_half_open_for_years_it_has_its_permits() {
    for later in tomorrow_and_later() {
        let mut room = room();
        room.open(0);
        let ticket = room.admit(0, 30_000).expect("a permit");
        room.state.give_back(at(30_000), ticket);
        room.close(30_000 + later);
    }
}

/// With permits out: void ever after. But for once in 49.7 days, where they may seem to be out for a minute and ten
/// seconds at most. That is over by itself, and a merge in between does away with it.
#[test]
fn left_half_open_with_permits_out_they_are_void() {
    for later in tomorrow_and_later() {
        let mut room = room();
        room.open(0);
        let void = room.until_full(30_000);
        let now = void + later;
        let until_wrap = (WRAP_MS - later % WRAP_MS) % WRAP_MS;
        let is_odd = later % WRAP_MS != 0 && until_wrap <= 70_000;
        match room.admit(0, now) {
            Ok(ticket) => assert!(ticket.is_probe() && !is_odd, "{later}"),
            Err(open) => {
                assert!(is_odd, "{later}");
                assert_eq!(open.until, at(now + until_wrap));
                assert!(room.admit(0, now + until_wrap).is_ok(), "it is over by itself");
            }
        }
        let mut room = super::room();
        room.open(0);
        assert_eq!(room.until_full(30_000), void);
        assert_eq!(room.merge(0, void + 100), None);
        assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 0, successes: 0 });
        room.close(now + 100);
    }
}

/// Permits that are taken just before `void from` wraps last as long as others.
#[test]
fn permits_last_across_the_wrap() {
    for before in [0, 1, 5000, 9_999, 10_000, 10_001] {
        let mut room = room();
        let now = WRAP_MS - before;
        room.open(now - 30_000);
        assert_eq!(room.until_full(now), now + 10_000);
        for later in [0, 1, before, 9_999] {
            assert!(room.admit(0, now + later.min(9_999)).is_err());
        }
        assert!(room.admit(0, now + 10_000).is_ok());
    }
}

#[test]
fn closed_for_years_it_is_forgiven() {
    for later in tomorrow_and_later() {
        let mut room = room();
        room.open(0);
        room.close(30_000);
        let now = 40_000 + later;
        let opened = Change::Opened { until: at(now + 30_000), openings: 1 };
        assert_eq!(room.calls(0, now, 20, Outcome::Failure), Some(opened));
    }
}

#[test]
fn the_end_of_time_is_no_panic_and_lets_probes_through() {
    for now in [at(TIME_MAX_MS - 1), at(TIME_MAX_MS), at(TIME_MAX_MS + 1), Duration::MAX] {
        let state = BreakerState::new();
        let mut breaker = Breaker::new(&BreakerLimits::default());
        for _ in 0..20 {
            let ticket = breaker.admit(now, &state).expect("it is closed");
            breaker.report(now, &state, ticket, Outcome::Failure);
        }
        let until = match state.standing() {
            Standing::Open { until } => until,
            other => panic!("{other:?}"),
        };
        assert_eq!(until, at(TIME_MAX_MS));
        for _ in 0..3 {
            let ticket = breaker.admit(Duration::MAX, &state).expect("time goes no further");
            breaker.report(Duration::MAX, &state, ticket, Outcome::Success);
        }
        assert_eq!(state.standing(), Standing::Closed);
        assert_eq!(breaker.merge(Duration::MAX, &state, []), None);
    }
}

/// Times are rounded so that nothing is over before its time.
#[test]
fn parts_of_a_millisecond_make_nothing_shorter() {
    let ns = Duration::from_nanos(1);
    let limits = BreakerLimits { calls_min: 1, ..BreakerLimits::default() };
    let (state, mut breaker) = (BreakerState::new(), Breaker::new(&limits));
    let ticket = breaker.admit(ns, &state).expect("it is closed");
    let opened = Change::Opened { until: at(30_001), openings: 1 };
    assert_eq!(breaker.report(ns, &state, ticket, Outcome::Failure), Some(opened));
    assert!(breaker.admit(at(30_001) - ns, &state).is_err());
    let _lost: Vec<_> =
        (0..3).map(|_| breaker.admit(at(30_001) + ns, &state).expect("a permit")).collect();
    assert!(breaker.admit(at(40_002) - ns, &state).is_err());
    assert!(breaker.admit(at(40_002), &state).is_ok());
}

// ------------------------------------------------------------------------------ clocks that differ

/// Reactors read the clock once a turn: one may be behind another, and must not take for over what has hardly begun.
#[test]
fn a_reactor_that_is_behind_makes_nothing_void() {
    for behind in [1, 50, 5000, 30_000] {
        let mut room = Room::new(&BreakerLimits::default(), 2);
        room.open(100_000);
        let now = 130_000;
        let _ahead = room.admit(0, now).expect("a permit");
        let _second = room.admit(1, now - behind).expect("a permit");
        let _third = room.admit(1, now - behind).expect("a permit");
        assert!(room.admit(1, now - behind).is_err(), "{behind} ms behind");
        assert_eq!(room.merge(1, now - behind), None);
        assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 3, successes: 0 });
        // And who is ahead keeps its permit for as long as anybody.
        assert!(room.admit(0, now + 9_999).is_err());
        assert!(room.admit(0, now + 10_000).is_ok());
    }
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let mut room = room();
    room.open(50_000);
    assert_eq!(room.until(80_000 - 1), 80_000);
    assert!(room.admit(0, 80_000).is_ok());
    // It has seen 80 s: there is nobody's probe before that.
    assert!(room.admit(0, 3).is_ok());
    assert!(room.admit(0, 3).is_ok());
    assert_eq!(room.until(3), 90_000);
    let mut room = super::room();
    room.open(50_000);
    room.close(80_000);
    let opened = Change::Opened { until: at(140_000), openings: 2 };
    assert_eq!(room.calls(0, 7, 20, Outcome::Failure), Some(opened));
}

// --------------------------------------------------------------------------------- numbers that wrap

/// Twenty thousand times open and closed again: epochs wrap twice, and each time a ticket of each state before is
/// offered, which must not count.
#[test]
fn epochs_wrap_and_stale_tickets_stay_stale() {
    let limits = BreakerLimits { calls_min: 1, successes: 1, ..BreakerLimits::default() };
    let mut room = Room::new(&limits, 1);
    let mut now = 0;
    let mut epochs = std::collections::BTreeSet::new();
    for _ in 0..20_000 {
        let (call, stale_call) = (room.admit(0, now), room.admit(0, now));
        let call = call.expect("it is closed");
        assert!(room.report(0, now, call, Outcome::Failure).is_some());
        now = room.until(now);
        let (probe, stale_probe) = (room.admit(0, now), room.admit(0, now));
        let stale_call = stale_call.expect("it was closed");
        assert_eq!(room.report(0, now, stale_call, Outcome::Failure), None);
        let probe = probe.expect("a permit");
        assert_eq!(room.report(0, now, probe, Outcome::Success), Some(Change::Closed));
        let stale_probe = stale_probe.expect("a permit");
        assert_eq!(room.report(0, now, stale_probe, Outcome::Failure), None);
        assert_eq!(room.state.standing(), Standing::Closed);
        epochs.insert(room.state.word().epoch);
        now += 10_000;
    }
    assert_eq!(epochs.len(), 8192, "three changes a time, and 8192 is no multiple of three");
}

/// A probe's ticket is worth nothing by the time its epoch can come again, with the shortest times there are.
#[test]
fn a_ticket_is_late_before_its_epoch_comes_again() {
    for (open, permit_timeout) in [(1, 1), (1, 3_600_000), (30_000, 10_000), (1, 10_000)] {
        let limits = BreakerLimits {
            calls_min: 1,
            successes: 1,
            open: at(open),
            open_max: at(open),
            permit_timeout: at(permit_timeout),
            ..BreakerLimits::default()
        };
        let mut room = Room::new(&limits, 1);
        assert!(room.calls(0, 0, 1, Outcome::Failure).is_some());
        let mut now = open;
        let stale: Vec<_> = (0..2).map(|_| room.admit(0, now).expect("a permit")).collect();
        let epoch = room.state.word().epoch;
        let is_same = |room: &Room| {
            let word = room.state.word();
            word.epoch == epoch && matches!(word.kind, Kind::HalfOpen(_))
        };
        // As fast as it can change: opened and closed at once, and open for as short as may be.
        loop {
            assert_eq!(room.calls(0, now, 1, Outcome::Success), Some(Change::Closed));
            assert!(room.calls(0, now, 1, Outcome::Failure).is_some());
            now += open;
            let _mine = room.admit(0, now).expect("a permit");
            if is_same(&room) {
                break;
            }
        }
        let before = room.state.word();
        for (ticket, outcome) in stale.into_iter().zip([Outcome::Failure, Outcome::Ignored]) {
            assert_eq!(room.report(0, now, ticket, outcome), None);
            assert_eq!(room.state.word(), before, "open for {open} ms");
        }
    }
}

/// Half an hour of probes that never come back: rounds are counted to 15 and stay there.
#[test]
fn rounds_do_not_wrap() {
    let mut room = room();
    room.open(0);
    let first = room.admit(0, 30_000).expect("a permit");
    for round in 1..200 {
        let lost = room.admit(0, 30_000 + round * 10_000).expect("void, and given anew");
        drop(lost);
    }
    let Kind::HalfOpen(HalfOpen { rounds, permits, .. }) = room.state.word().kind else {
        panic!("{:?}", room.state);
    };
    assert_eq!((rounds, permits), (15, 1));
    assert_eq!(room.report(0, 2_020_000, first, Outcome::Failure), None, "too long ago");
    room.close(2_020_000);
}

/// How long it is open goes up to the most and stays, for the longest times too.
#[test]
fn times_open_double_to_the_most_and_no_further() {
    for (open, open_max) in [(1, DAY_MS), (1, 3), (30_000, 300_000), (DAY_MS, DAY_MS)] {
        let limits =
            BreakerLimits { open: at(open), open_max: at(open_max), ..BreakerLimits::default() };
        let mut room = Room::new(&limits, 1);
        room.open(0);
        let (mut now, mut expected) = (0, open);
        for openings in 1..50 {
            assert_eq!(room.until(now) - now, expected, "{openings} of {open}");
            assert_eq!(room.state.openings(), openings.min(31));
            now += expected;
            expected = (expected * 2).min(open_max);
            assert!(room.calls(0, now, 1, Outcome::Failure).is_some());
        }
    }
}

/// Nor do they wrap, with times that `check` refuses.
#[test]
fn the_longest_times_open_do_not_wrap() {
    for open in [1 << 35, (1 << 40) + 1, TIME_MAX_MS] {
        let limits =
            BreakerLimits { open: at(open), open_max: Duration::MAX, ..BreakerLimits::default() };
        let mut before = open;
        for openings in 0..=31 {
            let kind = Kind::Closed { forgiven_ms: TIME_MAX_MS };
            let (word, _) = Word { openings, epoch: 1, kind }.trip(1, at(0), &limits.rules());
            let Kind::Open { until_ms } = word.kind else { panic!("{word:?}") };
            assert!((before..=TIME_MAX_MS).contains(&until_ms), "{until_ms} after {before}");
            before = until_ms;
        }
        assert_eq!(before, TIME_MAX_MS);
    }
}

/// The longest permits there are: the minute that clocks may differ is beside them, and they are no shorter.
#[test]
fn the_longest_permits_last() {
    let hour = u64::from(PERMIT_MAX_MS);
    let limits = BreakerLimits { permit_timeout: at(hour), ..BreakerLimits::default() };
    let mut room = Room::new(&limits, 1);
    room.open(0);
    let now = WRAP_MS - 1;
    assert_eq!(room.until_full(now), now + hour);
    assert!(room.admit(0, now + hour - 1).is_err());
    assert!(room.admit(0, now + hour).is_ok());
    assert_eq!(Word::unpack(room.state.word().pack()), room.state.word());
}

/// However short it is open: a ticket that counts no more gives no permit back, so that was void before.
#[test]
fn no_permit_outlasts_its_ticket() {
    let limits = BreakerLimits {
        calls_min: 1,
        permits: 1,
        open: at(1),
        open_max: at(1),
        permit_timeout: at(3_600_000),
        ..BreakerLimits::default()
    };
    let mut room = Room::new(&limits, 1);
    assert!(room.calls(0, 0, 1, Outcome::Failure).is_some());
    let slow = room.admit(0, 1).expect("a permit");
    assert_eq!(room.until(2), 1_025);
    room.state.give_back(at(3_000), slow);
    assert!(room.admit(0, 3_000).expect("it is free").is_probe());
}
