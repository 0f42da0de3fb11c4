//! The breaker as rooms use it: evidence, opening, probes, closing. Each cell of the word is in `tests/cells.rs`, what
//! long times do in `tests/times.rs`, and a slow model beside it in `tests/model.rs`.

mod cells;
mod model;
mod times;

use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A room's reactors and what they share.
struct Room {
    state: BreakerState,
    reactors: Vec<Breaker>,
}

impl Room {
    fn new(limits: &BreakerLimits, reactors: usize) -> Self {
        let reactors = (0..reactors).map(|_| Breaker::new(limits)).collect();
        Self { state: BreakerState::new(), reactors }
    }

    fn admit(&mut self, reactor: usize, now: u64) -> Result<Ticket, Open> {
        self.reactors[reactor].admit(at(now), &self.state)
    }

    fn report(
        &mut self,
        reactor: usize,
        now: u64,
        ticket: Ticket,
        outcome: Outcome,
    ) -> Option<Change> {
        self.reactors[reactor].report(at(now), &self.state, ticket, outcome)
    }

    /// Calls that pass, all with this outcome. The last change that they brought about.
    fn calls(&mut self, reactor: usize, now: u64, calls: u32, outcome: Outcome) -> Option<Change> {
        (0..calls).fold(None, |change, _| {
            let ticket = self.admit(reactor, now).expect("it passes");
            self.report(reactor, now, ticket, outcome).or(change)
        })
    }

    /// Everybody publishes, and then this one merges.
    fn merge(&mut self, reactor: usize, now: u64) -> Option<Change> {
        let counts: Vec<Counts> =
            self.reactors.iter_mut().map(|breaker| breaker.own_counts(at(now))).collect();
        let others = counts.into_iter().enumerate().filter(|(other, _)| *other != reactor);
        self.reactors[reactor].merge(at(now), &self.state, others.map(|(_, counts)| counts))
    }

    /// Opened at this time, by the first reactor.
    fn open(&mut self, now: u64) {
        let change = self.calls(0, now, 20, Outcome::Failure);
        assert!(matches!(change, Some(Change::Opened { .. })), "{change:?}");
    }

    /// Closed at this time, by three probes.
    fn close(&mut self, now: u64) {
        assert_eq!(self.calls(0, now, 3, Outcome::Success), Some(Change::Closed));
    }

    fn until(&mut self, now: u64) -> u64 {
        let open = self.admit(0, now).expect_err("it is open");
        u64::try_from(open.until.as_millis()).expect("it is not that far")
    }
}

fn room() -> Room {
    Room::new(&BreakerLimits::default(), 1)
}

// ---------------------------------------------------------------------------------------- evidence

#[test]
fn it_opens_at_half_of_twenty_calls() {
    let mut room = room();
    assert_eq!(room.calls(0, 0, 10, Outcome::Success), None);
    assert_eq!(room.calls(0, 0, 9, Outcome::Failure), None, "19 calls are too few");
    let opened = Change::Opened { until: at(30_000), openings: 1 };
    assert_eq!(room.calls(0, 0, 1, Outcome::Failure), Some(opened));
    assert_eq!(room.admit(0, 29_999).expect_err("it is open"), Open { until: at(30_000) });
    assert_eq!(room.state.openings(), 1);
}

#[test]
fn fewer_than_half_do_not_open_it() {
    let mut room = room();
    assert_eq!(room.calls(0, 0, 1000, Outcome::Success), None);
    assert_eq!(room.calls(0, 0, 999, Outcome::Failure), None);
    assert!(room.calls(0, 0, 1, Outcome::Failure).is_some());
}

#[test]
fn what_says_nothing_is_no_call() {
    let mut room = room();
    assert_eq!(room.calls(0, 0, 19, Outcome::Failure), None);
    assert_eq!(room.calls(0, 0, 100, Outcome::Ignored), None);
    for _ in 0..100 {
        let ticket = room.admit(0, 0).expect("it is closed");
        room.state.give_back(at(0), ticket);
    }
    assert_eq!(room.reactors[0].own_counts(at(0)).failures(), 19);
    assert_eq!(room.reactors[0].own_counts(at(0)).successes(), 0);
}

#[test]
fn only_the_window_counts() {
    let mut room = room();
    assert_eq!(room.calls(0, 500, 19, Outcome::Failure), None);
    assert_eq!(room.calls(0, 10_000, 19, Outcome::Failure), None, "the first are forgotten");
    assert!(room.calls(0, 19_999, 1, Outcome::Failure).is_some());
}

/// Calls that go well are judged too late to open it: with the next that fails, or with the next merge.
#[test]
fn a_success_opens_nothing() {
    let mut room = room();
    assert_eq!(room.calls(0, 0, 19, Outcome::Failure), None);
    assert_eq!(room.calls(0, 0, 1, Outcome::Success), None);
    assert!(room.merge(0, 0).is_some());
}

#[test]
fn reactors_judge_together() {
    let mut room = Room::new(&BreakerLimits::default(), 4);
    for reactor in 0..4 {
        assert_eq!(room.calls(reactor, 0, 5, Outcome::Failure), None);
    }
    let opened = Change::Opened { until: at(30_100), openings: 1 };
    assert_eq!(room.merge(2, 100), Some(opened));
    assert_eq!(room.merge(3, 100), None, "it is open already");
    assert!((0..4).all(|reactor| room.admit(reactor, 100).is_err()));
}

#[test]
fn others_calls_that_go_well_count_too() {
    let mut room = Room::new(&BreakerLimits::default(), 2);
    assert_eq!(room.calls(1, 0, 100, Outcome::Success), None);
    assert_eq!(room.calls(0, 0, 19, Outcome::Failure), None);
    assert_eq!(room.merge(0, 0), None, "19 of 119");
    // On its own evidence alone it opens all the same.
    assert!(room.calls(0, 0, 1, Outcome::Failure).is_some());
}

#[test]
fn counts_travel_in_a_number() {
    let calls = Calls { successes: 3, failures: 70_000 };
    let counts = Counts::new(calls, 8191, 2048 * 9 + 2047);
    assert_eq!((counts.successes(), counts.failures()), (3, 70_000));
    assert_eq!((counts.epoch, counts.bucket), (8191, 2047));
    assert_eq!(Counts::from_bits(counts.to_bits()), counts);
    assert_eq!(Counts::default().to_bits(), 0);
    // Too many are made fewer, and stay in their ratio.
    let most = Counts::new(Calls { successes: u64::MAX, failures: u64::MAX / 4 }, 5, 7);
    assert_eq!(Counts::from_bits(most.to_bits()), most);
    assert_eq!((most.successes(), most.failures()), ((1 << 20) - 1, (1 << 18) - 1));
    let whole = Calls { successes: Counts::MAX, failures: 1 };
    assert_eq!(Counts::new(whole, 0, 0).calls(), whole, "as many as fit");
    let one_more = Counts::new(Calls { successes: 0, failures: Counts::MAX + 1 }, 0, 0);
    assert!(one_more.failures() >= CALLS_MAX, "no number of calls is out of reach");
    // What nobody wrote is read without harm.
    let odd = Counts::from_bits(u64::MAX);
    assert_eq!((odd.epoch, odd.bucket, odd.to_bits()), (EPOCH_MAX, 2047, u64::MAX));
    let _ = Breaker::new(&BreakerLimits::default()).merge(at(0), &BreakerState::new(), [odd; 3]);
}

/// A reactor that has stalled or ended publishes nothing new: what it said last is no evidence for ever.
#[test]
fn counts_of_a_reactor_that_stalls_are_left_aside() {
    for (published, merged, counts) in [
        (0, 0, true),
        (999, 3_000, true),
        (0, 3_999, true),
        (999, 4_000, false),
        (0, 9_000, false),
        (0, 60_000, false),
        // It may be ahead of us as well.
        (3_999, 0, true),
        (4_000, 999, false),
        // The number of the bucket wraps.
        (2_047_999, 2_048_000, true),
        (2_048_000, 2_047_999, true),
        (2_047_000, 2_051_000, false),
    ] {
        let mut room = Room::new(&BreakerLimits::default(), 2);
        assert_eq!(room.calls(1, published, 19, Outcome::Failure), None);
        let others = [room.reactors[1].own_counts(at(published))];
        assert_eq!(room.calls(0, merged, 1, Outcome::Failure), None);
        let change = room.reactors[0].merge(at(merged), &room.state, others);
        assert_eq!(change.is_some(), counts, "published at {published}, merged at {merged}");
    }
}

// ---------------------------------------------------------------------------------- open, half-open

#[test]
fn three_probes_that_go_well_close_it() {
    let mut room = room();
    room.open(0);
    let tickets: Vec<_> =
        (0..3).map(|_| room.admit(0, 30_000).expect("there is a permit")).collect();
    assert!(tickets.iter().all(Ticket::is_probe));
    assert_eq!(room.until(30_000), 40_000, "all are out");
    assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 3, successes: 0 });
    let changes: Vec<_> = tickets
        .into_iter()
        .map(|ticket| room.report(0, 30_001, ticket, Outcome::Success))
        .collect();
    assert_eq!(changes, [None, None, Some(Change::Closed)]);
    assert!(!room.admit(0, 30_001).expect("it is closed").is_probe());
}

#[test]
fn a_probe_that_fails_opens_it_for_twice_as_long() {
    let mut room = room();
    room.open(0);
    let mut now = 0;
    for (openings, seconds) in [(2, 60), (3, 120), (4, 240), (5, 300), (6, 300)] {
        now = room.until(now);
        assert_eq!(room.calls(0, now, 2, Outcome::Success), None);
        let until = at(now + seconds * 1000);
        let opened = Change::Opened { until, openings };
        assert_eq!(room.calls(0, now, 1, Outcome::Failure), Some(opened));
    }
    assert_eq!(room.state.openings(), 6);
}

#[test]
fn a_window_closed_is_forgiven_and_less_is_not() {
    for (closed_for, openings, seconds) in [(9_999, 2, 60), (10_000, 1, 30)] {
        let mut room = room();
        room.open(0);
        room.close(30_000);
        let now = 30_000 + closed_for;
        let opened = Change::Opened { until: at(now + seconds * 1000), openings };
        assert_eq!(room.calls(0, now, 20, Outcome::Failure), Some(opened), "{closed_for} ms");
    }
}

#[test]
fn a_probe_that_is_dropped_frees_its_permit_and_counts_nothing() {
    let mut room = room();
    room.open(0);
    let mut tickets: Vec<_> = (0..3).map(|_| room.admit(0, 30_000).expect("a permit")).collect();
    for step in 0..100 {
        let ticket = tickets.pop().expect("three are out");
        assert!(room.admit(0, 30_000 + step).is_err());
        if step % 2 == 0 {
            room.state.give_back(at(30_000 + step), ticket);
        } else {
            assert_eq!(room.report(0, 30_000 + step, ticket, Outcome::Ignored), None);
        }
        assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 2, successes: 0 });
        tickets.insert(0, room.admit(0, 30_000 + step).expect("it was freed"));
    }
}

#[test]
fn permits_that_do_not_come_back_are_given_out_again() {
    let mut room = room();
    room.open(0);
    for round in 0..40 {
        let now = 30_000 + round * 10_000;
        for _ in 0..3 {
            let lost = room.admit(0, now).expect("a permit");
            drop(lost);
        }
        assert_eq!(room.until(now + 9_999), now + 10_000);
    }
    room.close(430_000);
}

#[test]
fn none_is_void_before_its_time() {
    let mut room = room();
    room.open(0);
    let first = room.admit(0, 30_000).expect("a permit");
    let _second = room.admit(0, 30_000).expect("a permit");
    let _third = room.admit(0, 39_000).expect("a permit");
    assert_eq!(room.until(48_999), 49_000, "ten seconds after the last was taken");
    // Who keeps taking keeps the others' from being void, and has one itself all the time.
    let mut mine = first;
    for step in 1..20 {
        room.state.give_back(at(30_000 + step * 900), mine);
        mine = room.admit(0, 30_000 + step * 900).expect("its own");
        assert!(room.admit(0, 30_000 + step * 900).is_err());
    }
}

#[test]
fn what_a_void_permit_finds_out_still_counts_and_frees_nothing() {
    let mut room = room();
    room.open(0);
    let slow: Vec<_> = (0..3).map(|_| room.admit(0, 30_000).expect("a permit")).collect();
    let _next: Vec<_> = (0..3).map(|_| room.admit(0, 40_000).expect("they are void")).collect();
    let mut slow = slow.into_iter();
    let first = slow.next().expect("three");
    assert_eq!(room.report(0, 41_000, first, Outcome::Success), None);
    assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 3, successes: 1 });
    let second = slow.next().expect("three");
    room.state.give_back(at(41_000), second);
    assert!(room.admit(0, 41_000).is_err(), "its permit was given to another");
    let third = slow.next().expect("three");
    let opened = room.report(0, 41_000, third, Outcome::Failure);
    assert_eq!(opened, Some(Change::Opened { until: at(101_000), openings: 2 }));
}

/// Answers take 12 s, and permits last 10: it closes all the same.
#[test]
fn an_upstream_that_is_slow_closes_it_too() {
    let mut room = room();
    room.open(0);
    let slow: Vec<_> = (0..3).map(|_| room.admit(0, 30_000).expect("a permit")).collect();
    drop(room.admit(0, 41_000).expect("void, and given anew"));
    let changes: Vec<_> =
        slow.into_iter().map(|ticket| room.report(0, 42_000, ticket, Outcome::Success)).collect();
    assert_eq!(changes.last(), Some(&Some(Change::Closed)));
}

// ---------------------------------------------------------------------------------- stale tickets

#[test]
fn calls_from_before_it_opened_do_not_close_it() {
    let mut room = room();
    let old: Vec<_> = (0..9).map(|_| room.admit(0, 0).expect("it is closed")).collect();
    room.open(0);
    let mut old = old.into_iter();
    for ticket in old.by_ref().take(3) {
        assert_eq!(room.report(0, 1000, ticket, Outcome::Success), None);
    }
    assert_eq!(room.until(1000), 30_000);
    let _probe = room.admit(0, 30_000).expect("a permit");
    for ticket in old.by_ref().take(3) {
        assert_eq!(room.report(0, 30_000, ticket, Outcome::Success), None);
    }
    for ticket in old {
        assert_eq!(room.report(0, 30_000, ticket, Outcome::Failure), None);
    }
    assert_eq!(room.state.standing(), Standing::HalfOpen { permits: 1, successes: 0 });
}

#[test]
fn failures_from_before_it_closed_do_not_open_it() {
    let mut room = Room::new(&BreakerLimits { calls_min: 1, ..BreakerLimits::default() }, 1);
    let call = room.admit(0, 0).expect("it is closed");
    assert!(room.calls(0, 0, 1, Outcome::Failure).is_some());
    let first = room.admit(0, 30_000).expect("a permit");
    let second = room.admit(0, 30_000).expect("a permit");
    room.close_with_one_permit(30_000);
    for ticket in [call, first, second] {
        assert_eq!(room.report(0, 30_000, ticket, Outcome::Failure), None);
    }
    assert_eq!(room.merge(0, 30_000), None);
    assert_eq!(room.reactors[0].own_counts(at(30_000)).failures(), 0);
    assert_eq!(room.state.standing(), Standing::Closed);
}

impl Room {
    /// Two of three permits are out and do not come back.
    fn close_with_one_permit(&mut self, now: u64) {
        assert_eq!(self.calls(0, now, 3, Outcome::Success), Some(Change::Closed));
    }
}

/// It is open for less than the window here: what had opened it would still be in it.
#[test]
fn what_opened_it_is_forgotten_when_it_closes() {
    let limits = BreakerLimits { open: at(1000), ..BreakerLimits::default() };
    let mut room = Room::new(&limits, 3);
    assert_eq!(room.calls(1, 0, 15, Outcome::Failure), None);
    assert_eq!(room.calls(0, 0, 5, Outcome::Failure), None);
    let published = room.reactors[1].own_counts(at(0));
    assert!(room.merge(0, 0).is_some());
    room.close(1000);
    // What the second published before it knew is left aside, as is what it publishes before it calls again.
    let others = [published, room.reactors[1].own_counts(at(1000))];
    assert_eq!(others[1].failures(), 15);
    assert_eq!(room.calls(2, 1000, 10, Outcome::Failure), None);
    assert_eq!(room.reactors[2].merge(at(1000), &room.state, others), None);
    assert_eq!(room.calls(1, 1000, 1, Outcome::Failure), None, "it starts from nothing");
    assert_eq!(room.reactors[1].own_counts(at(1000)).failures(), 1);
    assert_eq!(room.merge(0, 1000), None, "11 in all");
    assert_eq!(room.reactors[0].own_counts(at(1000)).failures(), 0);
}

/// Whoever calls first after it closed, and with whatever outcome, is not judged by what was before.
#[test]
fn a_failure_is_not_judged_by_calls_of_another_time() {
    let limits = BreakerLimits { open: at(1000), ..BreakerLimits::default() };
    let mut room = Room::new(&limits, 2);
    assert_eq!(room.calls(1, 0, 19, Outcome::Failure), None);
    room.open(0);
    room.close(1000);
    assert_eq!(room.calls(1, 1000, 1, Outcome::Failure), None);
    assert_eq!(room.merge(1, 1000), None);
}

// ---------------------------------------------------------------------------------------- limits

#[test]
fn without_a_breaker_all_calls_pass() {
    let mut room = Room::new(&BreakerLimits::never(), 1);
    assert_eq!(room.calls(0, 0, 1000, Outcome::Failure), None);
    assert_eq!(room.merge(0, 0), None);
    let loud = Counts::new(Calls { successes: 0, failures: 1000 }, 0, 0);
    assert_eq!(room.reactors[0].merge(at(0), &room.state, [loud]), None);
    assert_eq!(room.state.standing(), Standing::Closed);
    // Limits may change while it is open. What was opened with others lets all pass, and stays as it is.
    let mut room = super::tests::room();
    room.open(0);
    let before = room.state.word();
    let mut never = Breaker::new(&BreakerLimits::never());
    let ticket = never.admit(at(0), &room.state).expect("there is no breaker");
    assert!(!ticket.is_probe());
    assert_eq!(never.report(at(0), &room.state, ticket, Outcome::Failure), None);
    let ticket = never.admit(at(0), &room.state).expect("there is no breaker");
    room.state.give_back(at(0), ticket);
    assert_eq!(room.state.word(), before);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_remedy() {
    let good = BreakerLimits::default();
    assert_eq!((good.check(), BreakerLimits::never().check()), (Ok(()), Ok(())));
    let day = at(24 * 3600 * 1000);
    let ns = Duration::from_nanos(1);
    for (limits, says) in [
        (
            BreakerLimits { failures_percent: 0, ..good },
            "a breaker that opens at 0 % failures; say from 1 to 100, or `BreakerLimits::never()` for none",
        ),
        (
            BreakerLimits { failures_percent: 101, ..good },
            "a breaker that opens at 101 % failures; say from 1 to 100, or `BreakerLimits::never()` for none",
        ),
        (
            BreakerLimits { calls_min: 0, ..good },
            "a breaker that opens on 0 calls; say from 1 to 524288",
        ),
        (
            BreakerLimits { calls_min: 524_289, ..good },
            "a breaker that opens on 524289 calls; say from 1 to 524288",
        ),
        (
            BreakerLimits { window: at(999), ..good },
            "a breaker that looks back 999ms; say from 1s to 3600s",
        ),
        (
            BreakerLimits { window: at(3_600_000) + ns, ..good },
            "a breaker that looks back 3600.000000001s; say from 1s to 3600s",
        ),
        (
            BreakerLimits { open: at(1) - ns, ..good },
            "a breaker that is open for 999.999µs at first and 300s at most; say from 1ms to 86400s, and no longer at \
             first than at most",
        ),
        (
            BreakerLimits { open: at(300_001), ..good },
            "a breaker that is open for 300.001s at first and 300s at most; say from 1ms to 86400s, and no longer at \
             first than at most",
        ),
        (
            BreakerLimits { open_max: day + ns, ..good },
            "a breaker that is open for 30s at first and 86400.000000001s at most; say from 1ms to 86400s, and no \
             longer at first than at most",
        ),
        (BreakerLimits { permits: 0, ..good }, "0 probes at a time; say from 1 to 15"),
        (BreakerLimits { permits: 16, ..good }, "16 probes at a time; say from 1 to 15"),
        (
            BreakerLimits { successes: 0, ..good },
            "closed by 0 probes that go well; say from 1 to 15",
        ),
        (
            BreakerLimits { successes: 16, ..good },
            "closed by 16 probes that go well; say from 1 to 15",
        ),
        (
            BreakerLimits { permit_timeout: Duration::ZERO, ..good },
            "probes may take 0ns; say from 1ms to 3600s",
        ),
        (
            BreakerLimits { permit_timeout: at(3_600_000) + ns, ..good },
            "probes may take 3600.000000001s; say from 1ms to 3600s",
        ),
    ] {
        assert_eq!(limits.check().expect_err(says).to_string(), says);
        assert_eq!(BreakerLimits { is_enabled: false, ..limits }.check(), Ok(()));
    }
    let least = BreakerLimits {
        failures_percent: 1,
        calls_min: 1,
        window: at(1000),
        open: at(1),
        open_max: at(1),
        permits: 1,
        successes: 1,
        permit_timeout: at(1),
        ..good
    };
    let most = BreakerLimits {
        failures_percent: 100,
        calls_min: 524_288,
        window: at(3_600_000),
        open: day,
        open_max: day,
        permits: 15,
        successes: 15,
        permit_timeout: at(3_600_000),
        ..good
    };
    assert_eq!((least.check(), most.check()), (Ok(()), Ok(())));
}

/// What `check` refuses is used all the same: it opens, probes and closes.
#[test]
fn what_was_refused_does_no_harm() {
    for (least, most) in [(0, Duration::ZERO), (u32::MAX, Duration::MAX)] {
        let limits = BreakerLimits {
            is_enabled: true,
            failures_percent: least,
            calls_min: least.min(1),
            window: most,
            open: most,
            open_max: Duration::ZERO,
            permits: least,
            successes: least,
            permit_timeout: most,
        };
        let mut room = Room::new(&limits, 1);
        assert_eq!(room.merge(0, 0), None, "no call speaks against it");
        assert!(room.calls(0, 5, 1, Outcome::Failure).is_some());
        let until = room.until(5);
        assert_eq!(until == 6, most.is_zero(), "{until}");
        let permits = limits.permits.clamp(1, 15);
        assert_eq!(room.calls(0, until, permits, Outcome::Success), Some(Change::Closed));
    }
}

#[test]
fn errors_and_breakers_speak_of_each_other() {
    use crate::failure::{Dial, Kind, Transfer};
    assert_eq!(Error::new(Dial::Refused).outcome(), Outcome::DialFailure);
    assert_eq!(Error::new(Dial::Denied).outcome(), Outcome::Ignored);
    assert_eq!(Error::new(Transfer::ReadTimeout).outcome(), Outcome::Ignored);
    let error = Error::from(Open { until: at(31_000) });
    let Kind::Breaker(failure::Breaker::Open { until }) = error.kind() else {
        panic!("{error} is of another kind");
    };
    assert_eq!(*until, at(31_000));
}

/// What every call pays: nothing is written, of the state or of the reactor, and time is not even looked at.
#[test]
fn while_it_is_closed_admitting_changes_nothing() {
    let mut room = room();
    assert_eq!(room.calls(0, 5000, 3, Outcome::Success), None);
    let seen = |room: &Room| format!("{:?} {:?}", room.state, room.reactors[0]);
    let before = seen(&room);
    for now in [0, 5000, 6000, 1_000_000] {
        (0..1000).for_each(|_| assert!(!room.admit(0, now).expect("it is closed").is_probe()));
    }
    assert_eq!(seen(&room), before);
}

#[test]
fn a_state_has_its_cache_lines_to_itself() {
    assert_eq!((size_of::<BreakerState>(), align_of::<BreakerState>()), (128, 128));
    assert!(size_of::<Ticket>() <= 24);
    assert_eq!(BreakerState::default().standing(), Standing::Closed);
    assert!(format!("{:?}", BreakerState::new()).contains("Closed"));
}
