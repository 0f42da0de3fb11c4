//! Each state of the word, and each event: what comes of it.
//!
//! All pairs are walked. Those of the table below change something or say something; all others must not.

use proptest::prelude::*;

use super::super::word::{Admitted, HalfOpen, Kind, Probe, TIME_MAX_MS, Word};
use super::*;

const NOW: u64 = 5_000_000;
const EPOCH: u16 = 100;
const SECOND: u64 = 1000;

fn rules() -> Rules {
    BreakerLimits::default().rules()
}

fn word(openings: u8, epoch: u16, kind: Kind) -> Word {
    Word { openings, epoch, kind }
}

fn half_open(permits: u8, successes: u8, rounds: u8, void_ms: u64) -> Kind {
    Kind::HalfOpen(HalfOpen { permits, successes, rounds, void_ms: void_ms as u32 })
}

/// As they are at `NOW`, all having opened twice in a row.
fn states() -> Vec<(&'static str, Word)> {
    [
        ("new closed", Kind::Closed { forgiven_ms: NOW + 1 }),
        ("closed", Kind::Closed { forgiven_ms: NOW }),
        ("open", Kind::Open { until_ms: NOW + 1 }),
        ("due", Kind::Open { until_ms: NOW }),
        ("none out", half_open(0, 0, 1, 0)),
        ("one out", half_open(1, 0, 1, NOW + 1)),
        ("all out", half_open(3, 1, 1, NOW + 10 * SECOND)),
        ("nearly", half_open(2, 2, 1, NOW + 10 * SECOND)),
        ("void", half_open(3, 2, 1, NOW)),
    ]
    .map(|(name, kind)| (name, word(2, EPOCH, kind)))
    .into()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Admit,
    /// Calls of so many epochs ago have failed too often.
    Trip(u16),
    /// A probe of so many epochs ago has this outcome.
    Report(u16, Outcome),
    /// A probe whose time is over has this outcome.
    Late(Outcome),
    GiveBack(u16),
    GiveBackLate,
    Settle,
}

fn events() -> Vec<Event> {
    let mut events = vec![Event::Admit, Event::Settle, Event::GiveBackLate];
    for ago in [0, 1, 2, 8191] {
        events.extend([Event::Trip(ago), Event::GiveBack(ago)]);
        let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored];
        events.extend(outcomes.map(|outcome| Event::Report(ago, outcome)));
    }
    events.extend([Outcome::Success, Outcome::Failure, Outcome::Ignored].map(Event::Late));
    events
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Nothing,
    Admitted(Admitted),
    Refused(Open),
    Changed(Change),
}

fn probe(ago: u16) -> Probe {
    let epoch = EPOCH.wrapping_sub(ago) & EPOCH_MAX;
    Probe { epoch, late_ms: NOW + 1 }
}

fn walk(word: Word, event: Event) -> (Word, Said) {
    let (now, rules) = (at(NOW), rules());
    let changed = |change: Option<Change>| change.map_or(Said::Nothing, Said::Changed);
    let late = Probe { late_ms: NOW, ..probe(0) };
    match event {
        Event::Admit => {
            let (word, admitted) = word.admit(now, &rules);
            (word, admitted.map_or_else(Said::Refused, Said::Admitted))
        }
        Event::Trip(ago) => {
            let (word, change) = word.trip(EPOCH.wrapping_sub(ago) & EPOCH_MAX, now, &rules);
            (word, changed(change))
        }
        Event::Report(ago, outcome) => {
            let (word, change) = word.report(probe(ago), outcome, now, &rules);
            (word, changed(change))
        }
        Event::Late(outcome) => {
            let (word, change) = word.report(late, outcome, now, &rules);
            (word, changed(change))
        }
        Event::GiveBack(ago) => (word.give_back(probe(ago), now), Said::Nothing),
        Event::GiveBackLate => (word.give_back(late, now), Said::Nothing),
        Event::Settle => (word.settle(now, &rules), Said::Nothing),
    }
}

/// Where something happens: the state and the event, the state after it, and what is said.
fn table() -> Vec<(&'static str, Event, Word, Said)> {
    use Outcome::{Failure, Ignored, Success};

    let call = Said::Admitted(Admitted::Call { epoch: EPOCH });
    // Of a permit: 16 rounds of 10 s.
    let admitted =
        |epoch| Said::Admitted(Admitted::Probe(Probe { epoch, late_ms: NOW + 160 * SECOND }));
    let refused = |ms| Said::Refused(Open { until: at(ms) });
    let half = |epoch, permits, successes, rounds, void_ms| {
        word(2, epoch, half_open(permits, successes, rounds, void_ms))
    };
    let opened = |openings: u8, seconds: u64| {
        let until_ms = NOW + seconds * SECOND;
        let change = Change::Opened { until: at(until_ms), openings: openings.into() };
        (word(openings, EPOCH + 1, Kind::Open { until_ms }), Said::Changed(change))
    };
    let closed = || {
        let kind = Kind::Closed { forgiven_ms: NOW + 10 * SECOND };
        (word(2, EPOCH + 1, kind), Said::Changed(Change::Closed))
    };
    let state = |name: &str| {
        states().into_iter().find(|(other, _)| *other == name).expect("there is one").1
    };
    let (later, void) = (NOW + 10 * SECOND, NOW);

    let mut table = vec![
        // Closed: calls pass, and enough that fail open it.
        ("new closed", Event::Admit, state("new closed"), call),
        ("closed", Event::Admit, state("closed"), call),
        ("new closed", Event::Trip(0), opened(3, 120).0, opened(3, 120).1),
        ("closed", Event::Trip(0), opened(1, 30).0, opened(1, 30).1),
        // Open: refused, and from its time on the first probe.
        ("open", Event::Admit, state("open"), refused(NOW + 1)),
        ("due", Event::Admit, half(EPOCH + 1, 1, 0, 0, later), admitted(EPOCH + 1)),
        // Half-open: permits.
        ("none out", Event::Admit, half(EPOCH, 1, 0, 1, later), admitted(EPOCH)),
        ("one out", Event::Admit, half(EPOCH, 2, 0, 1, later), admitted(EPOCH)),
        ("all out", Event::Admit, state("all out"), refused(later)),
        ("nearly", Event::Admit, half(EPOCH, 3, 2, 1, later), admitted(EPOCH)),
        ("void", Event::Admit, half(EPOCH + 1, 1, 2, 2, later), admitted(EPOCH + 1)),
        ("void", Event::Settle, half(EPOCH + 1, 0, 2, 2, 0), Said::Nothing),
    ];
    // Probes that say nothing free their own permit only.
    for event in [Event::GiveBack(0), Event::Report(0, Ignored)] {
        table.extend([
            ("one out", event, half(EPOCH, 0, 0, 1, 0), Said::Nothing),
            ("all out", event, half(EPOCH, 2, 1, 1, later), Said::Nothing),
            ("nearly", event, half(EPOCH, 1, 2, 1, later), Said::Nothing),
            ("void", event, half(EPOCH, 2, 2, 1, void), Said::Nothing),
        ]);
    }
    // Probes that go well: of this round, and of the one before, which is of this state too.
    table.extend([
        ("none out", Event::Report(0, Success), half(EPOCH, 0, 1, 1, 0), Said::Nothing),
        ("none out", Event::Report(1, Success), half(EPOCH, 0, 1, 1, 0), Said::Nothing),
        ("one out", Event::Report(0, Success), half(EPOCH, 0, 1, 1, 0), Said::Nothing),
        ("one out", Event::Report(1, Success), half(EPOCH, 1, 1, 1, NOW + 1), Said::Nothing),
        ("all out", Event::Report(0, Success), half(EPOCH, 2, 2, 1, later), Said::Nothing),
        ("all out", Event::Report(1, Success), half(EPOCH, 3, 2, 1, later), Said::Nothing),
    ]);
    for name in ["nearly", "void"] {
        for ago in [0, 1] {
            table.push((name, Event::Report(ago, Success), closed().0, closed().1));
        }
    }
    // Probes that fail.
    for name in ["none out", "one out", "all out", "nearly", "void"] {
        for ago in [0, 1] {
            table.push((name, Event::Report(ago, Failure), opened(3, 120).0, opened(3, 120).1));
        }
    }
    table
}

#[test]
fn every_cell_is_as_the_table_says() {
    let mut table = table();
    let mut cells = 0;
    for (name, before) in states() {
        for event in events() {
            let place = table.iter().position(|cell| (cell.0, cell.1) == (name, event));
            let expected = match place {
                Some(place) => {
                    let (_, _, word, said) = table.swap_remove(place);
                    (word, said)
                }
                None => (before, Said::Nothing),
            };
            assert_eq!(walk(before, event), expected, "{name}: {event:?}");
            cells += 1;
        }
    }
    assert_eq!((cells, table.len()), (9 * 26, 0), "{table:?}");
}

/// Epochs belong to a half-open state as long as its rounds can be told apart.
#[test]
fn probes_of_fifteen_rounds_ago_count_and_older_ones_do_not() {
    for rounds in 0..=15 {
        let before = word(1, 7, half_open(1, 0, rounds, NOW + 5));
        for ago in 0..20 {
            let epoch = 7_u16.wrapping_sub(ago) & EPOCH_MAX;
            let probe = Probe { epoch, late_ms: u64::MAX };
            let (after, _) = before.report(probe, Outcome::Success, at(NOW), &rules());
            assert_eq!(after != before, ago <= rounds.into(), "{ago} of {rounds} rounds ago");
        }
    }
    let many = word(1, 7, half_open(3, 0, 15, NOW)).settle(at(NOW), &rules());
    assert_eq!(many, word(1, 8, half_open(0, 0, 15, 0)));
}

/// The largest numbers there are, at each event: nothing overflows into its neighbours.
#[test]
fn the_fullest_words_stay_words() {
    let most = BreakerLimits { permits: 15, successes: 15, ..BreakerLimits::default() }.rules();
    for kind in [
        Kind::Closed { forgiven_ms: TIME_MAX_MS },
        Kind::Open { until_ms: TIME_MAX_MS },
        half_open(15, 15, 15, u64::MAX),
        half_open(14, 14, 15, u64::MAX),
    ] {
        let fullest = word(31, EPOCH_MAX, kind);
        assert_eq!(Word::unpack(fullest.pack()), fullest);
        for now in [Duration::ZERO, at(NOW), at(TIME_MAX_MS), Duration::MAX] {
            let probe = Probe { epoch: EPOCH_MAX, late_ms: u64::MAX };
            let outcomes = [Outcome::Success, Outcome::Failure, Outcome::Ignored];
            let after = outcomes.map(|outcome| fullest.report(probe, outcome, now, &most).0);
            let others = [
                fullest.admit(now, &most).0,
                fullest.trip(EPOCH_MAX, now, &most).0,
                fullest.give_back(probe, now),
                fullest.settle(now, &most),
            ];
            for word in after.into_iter().chain(others) {
                assert_eq!(Word::unpack(word.pack()), word, "{fullest:?} at {now:?}");
            }
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    let time = || prop_oneof![Just(0), Just(TIME_MAX_MS), 0..=TIME_MAX_MS];
    prop_oneof![
        time().prop_map(|forgiven_ms| Kind::Closed { forgiven_ms }),
        time().prop_map(|until_ms| Kind::Open { until_ms }),
        (0..16_u8, 0..16_u8, 0..16_u8, any::<u32>()).prop_map(
            |(permits, successes, rounds, void)| half_open(permits, successes, rounds, void.into())
        ),
    ]
}

proptest! {
    #[test]
    fn a_word_is_read_as_it_was_written(openings in 0..32_u8, epoch in 0..=EPOCH_MAX, kind in kinds()) {
        let word = word(openings, epoch, kind);
        prop_assert_eq!(Word::unpack(word.pack()), word);
        let closed = matches!(kind, Kind::Closed { .. }).then_some(epoch);
        prop_assert_eq!(Word::closed_epoch(word.pack()), closed);
    }

    /// Any bits at all: what is read of them is written as it was, and no event panics.
    #[test]
    fn no_bits_are_out_of_place(bits: u64, ms in prop_oneof![any::<u64>(), 0..100_000_u64]) {
        let word = Word::unpack(bits);
        prop_assert!(word.pack() == bits || bits & 3 == 3);
        let (now, rules) = (at(ms), rules());
        for (epoch, late_ms) in [(word.epoch, u64::MAX), (0, 0)] {
            let probe = Probe { epoch, late_ms };
            for outcome in [Outcome::Success, Outcome::Failure, Outcome::Ignored] {
                let (after, _) = word.report(probe, outcome, now, &rules);
                prop_assert_eq!(Word::unpack(after.pack()), after);
            }
            let (tripped, _) = word.trip(epoch, now, &rules);
            for after in [word.admit(now, &rules).0, word.give_back(probe, now), tripped] {
                prop_assert_eq!(Word::unpack(after.pack()), after);
            }
        }
    }
}
