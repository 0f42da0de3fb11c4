use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

const SEC: Duration = Duration::from_secs(1);

fn shared(members: u32) -> Ejections {
    let shared = Ejections::new(members);
    shared.set_members(members);
    shared
}

fn outlier() -> Outlier {
    Outlier::new(OutlierLimits::default())
}

/// Fails until it is ejected.
fn fail(outlier: &mut Outlier, shared: &Ejections, endpoint: u32, now: Duration) -> Ejected {
    let mut notes = (0..5).map(|_| outlier.note(shared, endpoint, now, Outcome::Failure));
    notes.find_map(|ejected| ejected).expect("five failures in a row eject")
}

/// Those whose word says ejected.
fn words_ejected(shared: &Ejections) -> u32 {
    let states = (0..shared.words.len() as u32).filter_map(|endpoint| shared.state(endpoint));
    states.filter(|state| state.is_ejected).count() as u32
}

#[test]
fn five_failures_in_a_row_eject() {
    let (shared, mut outlier) = (shared(4), outlier());
    for _ in 0..10 {
        for _ in 0..4 {
            assert_eq!(outlier.note(&shared, 1, SEC, Outcome::Failure), None);
            assert_eq!(outlier.note(&shared, 1, SEC, Outcome::Ignored), None);
        }
        assert_eq!(outlier.failures(1), 4);
        assert_eq!(outlier.note(&shared, 1, SEC, Outcome::Success), None);
    }
    let ejected = fail(&mut outlier, &shared, 1, SEC);
    assert_eq!(ejected, Ejected { until: SEC * 31, times: 1, is_dials_only: false });
    assert!(shared.is_ejected(1, SEC) && !shared.is_ejected(0, SEC));
    assert_eq!(shared.ejected(), 1);
}

#[test]
fn rows_are_those_of_a_reactor_and_of_an_endpoint() {
    let (shared, mut one, mut other) = (shared(4), outlier(), outlier());
    for _ in 0..4 {
        assert_eq!(one.note(&shared, 0, SEC, Outcome::Failure), None);
        assert_eq!(one.note(&shared, 1, SEC, Outcome::Failure), None);
        assert_eq!(other.note(&shared, 0, SEC, Outcome::Failure), None);
    }
    other.note(&shared, 0, SEC, Outcome::Success);
    assert!(one.note(&shared, 0, SEC, Outcome::Failure).is_some());
    assert_eq!(one.failures(1), 4);
}

#[test]
fn ejections_grow_to_the_longest_and_are_forgotten_one_by_one() {
    let (shared, mut outlier) = (shared(4), outlier());
    let mut now = SEC;
    for times in 1..=12 {
        let ejected = fail(&mut outlier, &shared, 0, now);
        assert_eq!(ejected.until - now, SEC * (30 * times).min(300));
        assert_eq!(ejected.times, times.min(10));
        now = ejected.until;
        assert!(!shared.is_ejected(0, now));
    }
    // Just short of three bases: two are forgotten of ten.
    now += SEC * 90 - Duration::from_millis(1);
    let ejected = fail(&mut outlier, &shared, 0, now);
    assert_eq!(ejected.times, 9);
    let ejected = fail(&mut outlier, &shared, 0, ejected.until + SEC * 90);
    assert_eq!(ejected.times, 7);
    let ejected = fail(&mut outlier, &shared, 0, ejected.until + SEC * 3000);
    assert_eq!((ejected.times, shared.ejected()), (1, 1));
}

#[test]
fn ejection_is_not_shorter_for_the_word_and_not_longer_than_the_longest() {
    let (shared, mut row) = (shared(4), outlier());
    let now = SEC + Duration::from_nanos(1);
    let until = fail(&mut row, &shared, 0, now).until;
    assert_eq!(until, SEC * 31 + Duration::from_millis(1));
    assert!(shared.is_ejected(0, now + SEC * 30));

    // Five times the base are more than the longest.
    let mut row = Outlier::new(OutlierLimits { base: SEC * 70, ..OutlierLimits::default() });
    let mut now = SEC;
    let lasted: Vec<u64> = (0..6)
        .map(|_| {
            let (began, until) = (now, fail(&mut row, &shared, 1, now).until);
            now = until;
            (until - began).as_secs()
        })
        .collect();
    assert_eq!(lasted, [70, 140, 210, 280, 300, 300]);
}

#[test]
fn one_dial_that_timed_out_is_enough_unless_that_is_switched_off() {
    let shared = shared(4);
    let mut row = outlier();
    let ejected = row.note(&shared, 0, SEC, Outcome::DialTimeout).expect("at once");
    assert!(ejected.is_dials_only && shared.probed(0, SEC * 2) && !shared.is_ejected(0, SEC * 2));
    // Behind a failure of another kind, a connect alone does not bring it back.
    assert_eq!(row.note(&shared, 1, SEC * 2, Outcome::Failure), None);
    let ejected = row.note(&shared, 1, SEC * 2, Outcome::DialTimeout).expect("at once");
    assert!(!ejected.is_dials_only && !shared.probed(1, SEC * 3));

    let limits = OutlierLimits { ejects_on_dial_timeout: false, ..OutlierLimits::default() };
    let mut row = Outlier::new(limits);
    for _ in 0..4 {
        assert_eq!(row.note(&shared, 2, SEC * 3, Outcome::DialTimeout), None);
    }
    assert!(row.note(&shared, 2, SEC * 3, Outcome::DialTimeout).is_some());
}

#[test]
fn expiry_gives_the_place_back_once() {
    let (shared, mut outlier) = (shared(8), outlier());
    let until = fail(&mut outlier, &shared, 3, SEC).until;
    fail(&mut outlier, &shared, 4, SEC * 2);
    assert_eq!((shared.next_expiry(), shared.changes()), (Some(until), 2));
    assert!(shared.is_ejected(3, until - Duration::from_nanos(1)));
    assert_eq!(shared.expire(until - Duration::from_nanos(1)), 0);
    for _ in 0..3 {
        assert!(!shared.is_ejected(3, until));
        assert_eq!(shared.ejected(), 1);
    }
    assert_eq!(shared.expire(until), 0);
    assert!(!shared.uneject(3, until) && !shared.probed(3, until));
    assert_eq!((shared.ejected(), shared.changes()), (1, 3));
    assert_eq!(shared.expire(SEC * 32), 1);
    assert_eq!((shared.ejected(), shared.next_expiry()), (0, None));
}

#[test]
fn half_at_most_and_never_the_last() {
    for (members, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let (shared, mut outlier) = (shared(members.max(1)), outlier());
        shared.set_members(members);
        for _ in 0..20 {
            for endpoint in 0..members.max(1) {
                outlier.note(&shared, endpoint, SEC, Outcome::Failure);
            }
        }
        assert_eq!((shared.ejected(), words_ejected(&shared)), (most, most), "of {members}");
    }
    let limits =
        |ejected_max_percent| OutlierLimits { ejected_max_percent, ..OutlierLimits::default() };
    assert_eq!(limits(100).ejected_max(10), 9);
    assert_eq!(limits(100).ejected_max(1), 0);
    assert_eq!(limits(1).ejected_max(2), 1);
    assert_eq!(limits(0).ejected_max(100), 0);
    assert_eq!(limits(100).ejected_max(u32::MAX), u32::MAX - 1);
}

/// A place that is held by somebody whose time has come is no reason to refuse another.
#[test]
fn refused_one_is_ejected_when_a_place_is_free() {
    let (shared, mut outlier) = (shared(2), outlier());
    let until = fail(&mut outlier, &shared, 0, SEC).until;
    for _ in 0..9 {
        assert_eq!(outlier.note(&shared, 1, SEC, Outcome::Failure), None);
    }
    let ejected = outlier.note(&shared, 1, until, Outcome::Failure).expect("a place is free");
    assert_eq!((ejected.times, shared.ejected()), (1, 1));
    assert!(!shared.is_ejected(0, until) && shared.is_ejected(1, until));
}

#[test]
fn what_fails_while_ejected_counts_for_nothing() {
    let (shared, mut one, mut other) = (shared(4), outlier(), outlier());
    for _ in 0..4 {
        other.note(&shared, 0, SEC, Outcome::Failure);
    }
    let until = fail(&mut one, &shared, 0, SEC).until;
    for _ in 0..20 {
        assert_eq!(one.note(&shared, 0, until - SEC, Outcome::Failure), None);
    }
    let mut third = outlier();
    for _ in 0..4 {
        third.note(&Ejections::new(1), 0, SEC, Outcome::Failure);
    }
    third.note(&shared, 0, until - SEC, Outcome::Failure);
    assert_eq!(third.failures(0), 0);
    // The other one had four, and has noted nothing since: its row begins anew as well.
    for outlier in [&mut one, &mut other] {
        for _ in 0..4 {
            assert_eq!(outlier.note(&shared, 0, until, Outcome::Failure), None);
        }
        outlier.note(&shared, 0, until, Outcome::Success);
    }
    assert_eq!(fail(&mut other, &shared, 0, until).times, 2);
}

#[test]
fn probe_brings_back_who_was_ejected_for_dials_only() {
    let (shared, mut outlier) = (shared(4), outlier());
    let eject = |outlier: &mut Outlier, now, first| {
        outlier.note(&shared, 0, now, first);
        let mut notes = (0..4).map(|_| outlier.note(&shared, 0, now, Outcome::DialFailure));
        notes.find_map(|ejected| ejected).expect("five in a row")
    };
    assert!(eject(&mut outlier, SEC, Outcome::DialFailure).is_dials_only);
    assert!(shared.state(0).expect("a word").is_dials_only);
    assert!(shared.probed(0, SEC * 2) && !shared.probed(0, SEC * 2));
    assert!(!shared.is_ejected(0, SEC * 2));
    assert_eq!(shared.ejected(), 0);

    // Back early, it is forgiven from then on: not after the 30 s that it would have been away.
    let state = shared.state(0).expect("a word");
    assert_eq!((state.until, state.is_dials_only), (SEC * 2, false));
    assert_eq!(state.times_lately(SEC * 32, &OutlierLimits::default()), 0);

    let ejected = eject(&mut outlier, SEC * 3, Outcome::Failure);
    assert_eq!((ejected.is_dials_only, ejected.times), (false, 2));
    assert!(!shared.probed(0, SEC * 4), "a connection proves nothing about what failed");
    assert!(shared.is_ejected(0, SEC * 4));
    assert!(shared.uneject(0, SEC * 4));
    assert_eq!(shared.ejected(), 0);
}

/// A success between counts: what came before it has not led to the ejection.
#[test]
fn dials_only_is_of_the_row() {
    let (shared, mut outlier) = (shared(4), outlier());
    outlier.note(&shared, 0, SEC, Outcome::Failure);
    outlier.note(&shared, 0, SEC, Outcome::Success);
    let mut notes = (0..5).map(|_| outlier.note(&shared, 0, SEC, Outcome::DialFailure));
    assert!(notes.find_map(|ejected| ejected).expect("five in a row").is_dials_only);
}

#[test]
fn a_connection_ends_a_row_of_failed_dials_and_none_of_failed_calls() {
    let (shared, mut outlier) = (shared(4), outlier());
    for _ in 0..20 {
        assert_eq!(outlier.note(&shared, 1, SEC, Outcome::DialFailure), None);
        outlier.connected(1);
    }
    outlier.connected(3);
    for _ in 0..4 {
        assert_eq!(outlier.note(&shared, 2, SEC, Outcome::Failure), None);
        outlier.connected(2);
    }
    assert!(outlier.note(&shared, 2, SEC, Outcome::Failure).is_some());
}

#[test]
fn forgotten_number_starts_without_a_past() {
    let (shared, mut outlier) = (shared(4), outlier());
    fail(&mut outlier, &shared, 0, SEC);
    outlier.note(&shared, 1, SEC, Outcome::Failure);
    for endpoint in [0, 1, 2, 9] {
        shared.forget(endpoint);
        outlier.forget(endpoint);
    }
    assert_eq!((shared.ejected(), outlier.failures(1)), (0, 0));
    assert_eq!(shared.state(0), Some(EjectionState::default()));
    assert_eq!(fail(&mut outlier, &shared, 0, SEC).times, 1);
    assert_eq!(outlier.note(&shared, 9, SEC, Outcome::Failure), None, "it has no word");
    assert_eq!((shared.state(9), shared.is_ejected(9, SEC)), (None, false));
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let (shared, mut outlier) = (shared(4), outlier());
    outlier.note(&shared, 0, SEC * 100, Outcome::Success);
    assert_eq!(fail(&mut outlier, &shared, 0, SEC).until, SEC * 130);
}

#[test]
fn limits_that_make_no_sense_are_told_with_a_remedy() {
    let fine = OutlierLimits::default();
    assert_eq!(fine.check(), Ok(()));
    let cases = [
        (OutlierLimits { failures: 0, ..fine }, OutlierLimitsError::Failures),
        (OutlierLimits { base: Duration::ZERO, ..fine }, OutlierLimitsError::Base),
        (
            OutlierLimits { longest: SEC, ..fine },
            OutlierLimitsError::Longest { base: SEC * 30, longest: SEC },
        ),
        (
            OutlierLimits { ejected_max_percent: 101, ..fine },
            OutlierLimitsError::Percent { percent: 101 },
        ),
    ];
    for (limits, error) in cases {
        assert_eq!(limits.check(), Err(error));
        assert!(error.to_string().contains("; say "), "{error}");
    }
}

/// What the rules say of one endpoint, with no word and no atomics: times of ejections are kept as they are.
#[derive(Clone, Default)]
struct Model {
    rows: Vec<(u32, bool)>,
    ejected: Option<(u64, bool)>,
    times: u64,
    /// Since when it is in, in milliseconds.
    since_ms: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Note(usize, u32, Outcome),
    Pass(u64),
    Probed(u32),
    Unejected(u32),
    Expire,
}

fn step(members: u32) -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        1 => Just(Outcome::Success),
        8 => Just(Outcome::Failure),
        8 => Just(Outcome::DialFailure),
        1 => Just(Outcome::Ignored),
    ];
    prop_oneof![
        30 => (0..2usize, 0..members, outcome).prop_map(|(reactor, endpoint, outcome)| {
            Step::Note(reactor, endpoint, outcome)
        }),
        2 => (0..40_000u64).prop_map(Step::Pass),
        1 => (0..members).prop_map(Step::Probed),
        1 => (0..members).prop_map(Step::Unejected),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn two_reactors_do_what_the_rules_say(
        (members, steps) in (1u32..6).prop_flat_map(|members| {
            (Just(members), prop::collection::vec(step(members), 0..400))
        }),
    ) {
        let shared = shared(members);
        let mut outliers = [outlier(), outlier()];
        let fresh = Model { rows: vec![(0, true); 2], ..Model::default() };
        let mut models = vec![fresh; members as usize];
        let mut now_ms = 0;
        for step in steps {
            let now = Duration::from_millis(now_ms);
            // Those whose time has come are in, whoever looks.
            for model in &mut models {
                if let Some((until_ms, _)) = model.ejected.filter(|(until_ms, _)| *until_ms <= now_ms) {
                    (model.ejected, model.since_ms) = (None, until_ms);
                }
            }
            let away = models.iter().filter(|model| model.ejected.is_some()).count() as u32;
            match step {
                Step::Pass(passed_ms) => now_ms += passed_ms,
                Step::Expire => {
                    shared.expire(now);
                    prop_assert_eq!(shared.ejected(), away);
                }
                Step::Probed(endpoint) | Step::Unejected(endpoint) => {
                    let model = &mut models[endpoint as usize];
                    let is_probe = matches!(step, Step::Probed(_));
                    // One whose time has come may still be there to be brought back: it is in either way.
                    let is_back = model.ejected.is_some_and(|(_, is_dials)| is_dials || !is_probe);
                    shared.is_ejected(endpoint, now);
                    let was = if is_probe { shared.probed(endpoint, now) } else { shared.uneject(endpoint, now) };
                    prop_assert_eq!(was, is_back);
                    if is_back {
                        (model.ejected, model.since_ms) = (None, now_ms);
                    }
                }
                Step::Note(reactor, endpoint, outcome) => {
                    let ejected = outliers[reactor].note(&shared, endpoint, now, outcome);
                    let model = &mut models[endpoint as usize];
                    let row = &mut model.rows[reactor];
                    match outcome {
                        Outcome::Ignored => {}
                        Outcome::Success => *row = (0, true),
                        _ if model.ejected.is_some() => {}
                        _ => *row = (row.0 + 1, row.1 && outcome == Outcome::DialFailure),
                    }
                    let is_failure = matches!(outcome, Outcome::Failure | Outcome::DialFailure);
                    let max = if members < 2 { 0 } else { (members / 2).max(1) };
                    if is_failure && model.ejected.is_none() && row.0 >= 5 && away < max {
                        let is_dials_only = row.1;
                        let forgotten = (now_ms - model.since_ms) / 30_000;
                        model.times = (model.times.saturating_sub(forgotten) + 1).min(10);
                        let until_ms = now_ms + 30_000 * model.times;
                        model.ejected = Some((until_ms, is_dials_only));
                        model.rows = vec![(0, true); 2];
                        let until = Duration::from_millis(until_ms);
                        let times = model.times as u32;
                        prop_assert_eq!(ejected, Some(Ejected { until, times, is_dials_only }));
                    } else {
                        prop_assert_eq!(ejected, None);
                    }
                }
            }
            let now = Duration::from_millis(now_ms);
            for (endpoint, model) in (0..).zip(&models) {
                let is_away = model.ejected.is_some_and(|(until_ms, _)| now_ms < until_ms);
                // Not of all, so that expiry is also met by others who look.
                if endpoint % 2 == 0 {
                    prop_assert_eq!(shared.is_ejected(endpoint, now), is_away);
                }
            }
            prop_assert_eq!(shared.ejected(), words_ejected(&shared));
        }
    }

    #[test]
    fn words_say_what_was_put_in(
        until_ms in 0..1u64 << 44,
        times in 0..=u32::from(u16::MAX),
        is_ejected in any::<bool>(),
        is_dials_only in any::<bool>(),
    ) {
        let until = Duration::from_millis(until_ms);
        let state = EjectionState { until, times, is_ejected, is_dials_only };
        prop_assert_eq!(EjectionState::unpack(state.pack()), state);
    }

    #[test]
    fn nothing_panics(
        secs in prop::array::uniform2(prop::sample::select(vec![0, 1, 1 << 40, u64::MAX])),
        counts in prop::array::uniform3(prop::sample::select(vec![0, 1, 2, u32::MAX])),
        times in prop::collection::vec(prop::sample::select(vec![0, 7, 1 << 34, u64::MAX]), 0..30),
    ) {
        let limits = OutlierLimits {
            failures: counts[0],
            ejects_on_dial_timeout: counts[0] % 2 == 0,
            base: Duration::from_secs(secs[0]),
            longest: Duration::from_secs(secs[1]),
            ejected_max_percent: counts[1],
        };
        let shared = shared(3);
        shared.set_members(counts[2]);
        let mut outlier = Outlier::new(limits);
        for secs in times {
            let now = Duration::from_secs(secs).saturating_add(Duration::from_nanos(1));
            for endpoint in [0, 1, 2, 3] {
                outlier.note(&shared, endpoint, now, Outcome::DialFailure);
                shared.is_ejected(endpoint, now);
            }
            shared.expire(Duration::from_secs(secs));
            shared.probed(1, now);
            shared.uneject(2, now);
            prop_assert_eq!(shared.ejected(), words_ejected(&shared));
        }
    }
}

/// Ejections, returns, expiries and a number that is given away, all at once from several threads.
#[test]
fn places_are_exact_under_races() {
    const MEMBERS: u32 = 8;
    let shared = shared(MEMBERS);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reactors: Vec<_> = (0..3u64)
            .map(|seed| {
                let shared = &shared;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let limits = OutlierLimits { failures: 1, ..OutlierLimits::default() };
                    let mut outlier = Outlier::new(limits);
                    let mut ejections = 0u32;
                    for step in 0..30_000u64 {
                        // All see a time of about the same, as reactors do, and half a minute is over soon.
                        let now = Duration::from_millis(step * 100);
                        let endpoint = rng.u32(..MEMBERS);
                        match rng.u32(..10) {
                            0 => drop(shared.uneject(endpoint, now)),
                            1 => drop(shared.probed(endpoint, now)),
                            2 => drop(shared.expire(now)),
                            3 => drop(shared.is_ejected(endpoint, now)),
                            4 => shared.forget(endpoint),
                            _ => {
                                let noted =
                                    outlier.note(shared, endpoint, now, Outcome::DialFailure);
                                ejections += u32::from(noted.is_some());
                            }
                        }
                    }
                    ejections
                })
            })
            .collect();
        let (shared, is_over) = (&shared, &is_over);
        let watcher = scope.spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                assert!(shared.ejected() <= MEMBERS / 2);
                std::thread::yield_now();
            }
        });
        let ejections: u32 = reactors.into_iter().map(|it| it.join().expect("no panic")).sum();
        is_over.store(true, Ordering::Release);
        watcher.join().expect("never more than half");
        assert!(ejections > 1_000, "{ejections}");
    });
    assert_eq!(shared.ejected(), words_ejected(&shared));
    shared.expire(Duration::MAX);
    assert_eq!((shared.ejected(), words_ejected(&shared)), (0, 0));
}

/// Where two threads meet, as closely as can be had.
#[derive(Default)]
struct Meeting {
    arrivals: AtomicU32,
    is_one_gone: AtomicBool,
}

impl Meeting {
    fn wait(&self, meetings: &mut u32) {
        *meetings += 1;
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0;
        while self.arrivals.load(Ordering::Acquire) < 2 * *meetings {
            assert!(!self.is_one_gone.load(Ordering::Acquire), "the other one has panicked");
            looks += 1;
            if looks > 2_000 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// Whoever panics keeps nobody waiting.
struct Leaving<'a>(&'a Meeting);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_one_gone.store(true, Ordering::Release);
        }
    }
}

/// Two do the same in the same moment, again and again: to the same endpoint, or to two of which one may be ejected.
/// One place is taken, and one is given back.
#[test]
fn one_place_is_taken_and_given_back_by_two_at_once() {
    const ROUNDS: u32 = 3_000;
    let (shared, meeting) = (shared(4), Meeting::default());
    let limits = OutlierLimits { failures: 1, ..OutlierLimits::default() };
    let run = |is_first: bool| {
        let _leaving = Leaving(&meeting);
        let mut outlier = Outlier::new(limits);
        let (mut meetings, mut ejections) = (0, 0u32);
        for round in 1..=ROUNDS {
            // Later than the longest ejection of the round before.
            let now = SEC * round * 1000;
            let is_same = round % 2 == 0;
            if is_first {
                shared.set_members(if is_same { 4 } else { 2 });
            }
            let endpoint = u32::from(!is_same && !is_first);
            let check = |meetings: &mut u32, ejected| {
                meeting.wait(meetings);
                if is_first {
                    assert_eq!((shared.ejected(), words_ejected(&shared)), (ejected, ejected));
                }
                meeting.wait(meetings);
            };
            meeting.wait(&mut meetings);
            let noted = outlier.note(&shared, endpoint, now, Outcome::DialFailure);
            ejections += u32::from(noted.is_some());
            check(&mut meetings, 1);
            let which = (0..2).find(|it| shared.is_ejected(*it, now)).expect("one is ejected");
            meeting.wait(&mut meetings);
            match (round % 5, is_first) {
                (0, _) => drop(shared.is_ejected(which, now + SEC * 300)),
                (1, _) => drop(shared.probed(which, now + SEC)),
                (2, true) => drop(shared.uneject(which, now + SEC)),
                (2, false) => drop(shared.is_ejected(which, now + SEC * 300)),
                (3, true) | (4, false) => shared.forget(which),
                (3, false) => drop(shared.probed(which, now + SEC)),
                _ => drop(shared.expire(now + SEC * 300)),
            }
            check(&mut meetings, 0);
        }
        ejections
    };
    let ejections = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(false));
        run(true) + other.join().expect("no panic")
    });
    assert_eq!(ejections, ROUNDS, "one of the two, each time");
}
