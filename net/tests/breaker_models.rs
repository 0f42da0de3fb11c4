//! Models of the breaker's word under several threads: every order of their steps, or many of them, by `shuttle`.
//!
//! Is: `word` and `state` of the breaker, compiled once more with atomics that shuttle decides about. Is not: a test of
//! what one reactor sees; that is beside the breaker. Nor of weak memory: all accesses are to one word, whose changes
//! have one order on every machine.
//!
//! As in `core/tests/models.rs`, each model is also run with a mistake made, which it has to find: here a
//! compare-and-swap that is not one step.
#![allow(dead_code, unreachable_pub, reason = "files of the crate, of which models use a part")]

#[path = "../src/policy/outcome.rs"]
mod outcome;
#[path = "../src/policy/breaker/state.rs"]
mod state;
#[path = "../src/policy/breaker/word.rs"]
mod word;

/// What `sync` is to the breaker, for the models.
mod sync {
    use std::cell::Cell;

    pub(crate) use shuttle::sync::atomic::Ordering;

    thread_local! {
        /// The threads of a model are all on the thread of its test.
        static TORN: Cell<bool> = const { Cell::new(false) };
        /// Changes that were tried.
        static SWAPS: Cell<u32> = const { Cell::new(0) };
    }

    pub(crate) struct AtomicU64(shuttle::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(shuttle::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, _: Ordering) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            _: Ordering,
            _: Ordering,
        ) -> Result<u64, u64> {
            SWAPS.set(SWAPS.get() + 1);
            if TORN.get() {
                let found = self.0.load(Ordering::SeqCst);
                if found != current {
                    return Err(found);
                }
                self.0.store(new, Ordering::SeqCst);
                return Ok(found);
            }
            self.0.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
        }
    }

    /// How many changes are tried meanwhile.
    pub(crate) fn swaps(run: impl FnOnce()) -> u32 {
        let before = SWAPS.get();
        run();
        SWAPS.get() - before
    }

    /// Runs with the mistake made.
    pub(crate) fn torn<T>(run: impl FnOnce() -> T) -> T {
        TORN.set(true);
        let result = run();
        TORN.set(false);
        result
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use outcome::Outcome;
use shuttle::sync::atomic::{AtomicU32, Ordering};
use state::BreakerState;
use word::{Admitted, Change, Rules, Standing, Ticket};

/// Orders tried where all of them are too many.
const SOME: usize = 20_000;
const PERMITS: u32 = 3;
const OPENED: Duration = Duration::from_secs(100);
const DUE: Duration = Duration::from_secs(130);
const VOID: Duration = Duration::from_secs(140);

fn rules() -> Rules {
    let seconds = Duration::from_secs;
    Rules::new(seconds(30), seconds(300), PERMITS, 3, seconds(10), seconds(10))
}

fn every_order(model: fn()) {
    shuttle::check_dfs(model, None);
}

fn many_orders(model: fn()) {
    shuttle::check_random(model, SOME / 2);
    shuttle::check_pct(model, SOME / 2, 3);
}

/// The model with the mistake fails, and without it passes.
fn finds_what_is_torn(check: fn(fn()), model: fn()) {
    let found = sync::torn(|| catch_unwind(AssertUnwindSafe(|| check(model))).is_err());
    assert!(found, "a torn change was made, and the model did not find it");
    check(model);
}

/// Open, and due at `DUE`.
fn open() -> Arc<BreakerState> {
    let state = Arc::new(BreakerState::new());
    let change = state.trip(0, OPENED, &rules());
    assert_eq!(change, Some(Change::Opened { until: DUE, openings: 1 }));
    state
}

/// Half-open, with no permit out.
fn half_open() -> Arc<BreakerState> {
    let state = open();
    let ticket = state.admit(DUE, &rules()).expect("it is due");
    state.give_back(DUE, ticket);
    assert_eq!(state.standing(), Standing::HalfOpen { permits: 0, successes: 0 });
    state
}

fn threads<T: Send + 'static>(
    count: usize,
    state: &Arc<BreakerState>,
    run: impl Fn(&BreakerState, usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let run = Arc::new(run);
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let (state, run) = (Arc::clone(state), Arc::clone(&run));
            shuttle::thread::spawn(move || run(&state, number))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("it did not panic")).collect()
}

fn probe(ticket: &Ticket) -> word::Probe {
    match ticket.0 {
        Admitted::Probe(probe) => probe,
        other => panic!("{other:?}"),
    }
}

fn permits_out(state: &BreakerState) -> u32 {
    match state.standing() {
        Standing::HalfOpen { permits, .. } => permits,
        other => panic!("{other:?}"),
    }
}

/// Four ask at once, and nobody gives back: three are let through, whoever they are, from the open state too.
fn four_ask(state: &Arc<BreakerState>) {
    let admitted = threads(4, state, |state, _| state.admit(DUE, &rules()));
    let let_through = admitted.iter().filter(|admitted| admitted.is_ok()).count();
    assert_eq!(let_through as u32, PERMITS);
    let epochs: Vec<_> = admitted.iter().flatten().map(|ticket| probe(ticket).epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]), "it was opened half once");
    assert_eq!(permits_out(state), PERMITS);
}

#[test]
fn exactly_three_are_let_through() {
    finds_what_is_torn(many_orders, || four_ask(&half_open()));
    finds_what_is_torn(many_orders, || four_ask(&open()));
}

/// Five take and give back, again and again: at no time are more than three out, whoever asks while there is one gets
/// it, and none is lost.
fn permits_go_round() {
    let state = half_open();
    let out = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&out);
    threads(5, &state, move |state, _| {
        for _ in 0..2 {
            if let Ok(ticket) = state.admit(DUE, &rules()) {
                let now_out = counter.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(now_out <= PERMITS, "{now_out} are out");
                counter.fetch_sub(1, Ordering::SeqCst);
                state.give_back(DUE, ticket);
            }
        }
    });
    assert_eq!((permits_out(&state), out.load(Ordering::SeqCst)), (0, 0), "one was lost");
    four_ask(&state);
}

#[test]
fn permits_are_neither_made_nor_lost() {
    finds_what_is_torn(many_orders, permits_go_round);
}

/// Three with as many permits: nobody is refused, however often they take and give back.
fn enough_for_all() {
    let state = half_open();
    threads(3, &state, |state, _| {
        for _ in 0..2 {
            let ticket = state.admit(DUE, &rules()).expect("one is free for each");
            let _ = state.report(probe(&ticket), Outcome::Ignored, DUE, &rules());
        }
    });
    assert_eq!(permits_out(&state), 0);
}

#[test]
fn who_asks_while_one_is_free_gets_it() {
    finds_what_is_torn(many_orders, enough_for_all);
}

/// Two take and give back, in every order there is.
fn two_and_every_order() {
    let state = half_open();
    threads(2, &state, |state, _| {
        let ticket = state.admit(DUE, &rules()).expect("one is free for each");
        state.give_back(DUE, ticket);
    });
    assert_eq!(permits_out(&state), 0);
}

#[test]
fn two_permits_in_every_order() {
    finds_what_is_torn(every_order, two_and_every_order);
}

/// Three probes end at once: one change is told, once, and the state is the one that was told.
fn three_end(outcomes: [Outcome; 3]) {
    let state = half_open();
    let probes: Vec<_> =
        (0..3).map(|_| probe(&state.admit(DUE, &rules()).expect("a permit"))).collect();
    let changes = threads(3, &state, move |state, number| {
        state.report(probes[number], outcomes[number], DUE, &rules())
    });
    let changes: Vec<_> = changes.into_iter().flatten().collect();
    let failures = outcomes.iter().filter(|outcome| **outcome == Outcome::Failure).count();
    let expected = match failures {
        0 => Change::Closed,
        _ => Change::Opened { until: DUE + Duration::from_secs(60), openings: 2 },
    };
    assert_eq!(changes, [expected]);
    let stands = match expected {
        Change::Closed => Standing::Closed,
        Change::Opened { until, .. } => Standing::Open { until },
    };
    assert_eq!(state.standing(), stands);
}

#[test]
fn one_change_is_told_once() {
    use Outcome::{Failure, Success};
    finds_what_is_torn(many_orders, || three_end([Success, Success, Success]));
    finds_what_is_torn(many_orders, || three_end([Failure, Failure, Failure]));
    many_orders(|| three_end([Success, Failure, Success]));
}

/// All reactors find at once that too much has failed: it opens once, for as long as one opening is.
fn all_trip() {
    let state = Arc::new(BreakerState::new());
    let changes = threads(3, &state, |state, _| state.trip(0, OPENED, &rules()));
    let changes: Vec<_> = changes.into_iter().flatten().collect();
    assert_eq!(changes, [Change::Opened { until: DUE, openings: 1 }]);
    assert_eq!(state.openings(), 1);
}

#[test]
fn it_opens_once() {
    finds_what_is_torn(every_order, all_trip);
}

/// Permits become void while their probes come back: what is given out anew is three, and who comes back late frees
/// none of those.
fn void_while_they_come_back() {
    let state = half_open();
    let old: Vec<_> =
        (0..3).map(|_| probe(&state.admit(DUE, &rules()).expect("a permit"))).collect();
    let given = threads(4, &state, move |state, number| match number {
        0 | 1 => {
            state.give_back(VOID, Ticket(Admitted::Probe(old[number])));
            None
        }
        _ => Some(state.admit(VOID, &rules()).expect("void, or given back")),
    });
    let given = given.into_iter().flatten().count() as u32;
    let before = permits_out(&state);
    assert!(before >= given, "{before} are out, and {given} were given");
    let rest = (0..4).filter(|_| state.admit(VOID, &rules()).is_ok()).count() as u32;
    assert_eq!((before + rest, permits_out(&state)), (PERMITS, PERMITS));
}

#[test]
fn void_permits_are_given_out_anew_once() {
    finds_what_is_torn(many_orders, void_while_they_come_back);
}

/// Who is refused, who has nothing to tell and who merges in quiet times leaves the word's cache line alone.
fn quiet() {
    let rules = rules();
    let state = open();
    let refused = || assert!(state.admit(OPENED, &rules).is_err());
    assert_eq!(sync::swaps(refused), 0, "open");
    assert_eq!(sync::swaps(|| state.settle(OPENED, &rules)), 0, "open");
    assert_eq!(sync::swaps(|| assert_eq!(state.trip(0, OPENED, &rules), None)), 0, "open");
    let ticket = state.admit(DUE, &rules).expect("it is due");
    let stale = probe(&ticket);
    let change = state.report(stale, Outcome::Failure, DUE, &rules);
    assert!(change.is_some());
    assert_eq!(sync::swaps(|| state.give_back(DUE, ticket)), 0, "a stale ticket");
    let report = || assert_eq!(state.report(stale, Outcome::Success, DUE, &rules), None);
    assert_eq!(sync::swaps(report), 0, "a stale ticket");
    let state = half_open();
    four_ask(&state);
    assert_eq!(sync::swaps(|| assert!(state.admit(DUE, &rules).is_err())), 0, "all are out");
    assert_eq!(sync::swaps(|| assert!(state.admit(VOID, &rules).is_ok())), 1, "one more");
}

#[test]
fn who_changes_nothing_writes_nothing() {
    shuttle::check_random(quiet, 10);
}

/// While one closes it, others ask: whoever is a probe was let through before, whoever is a call after.
fn ask_while_it_closes() {
    let state = half_open();
    let mut probes = (0..3).map(|_| probe(&state.admit(DUE, &rules()).expect("a permit")));
    for _ in 0..2 {
        let first = probes.next().expect("there are three");
        assert_eq!(state.report(first, Outcome::Success, DUE, &rules()), None);
    }
    let last = probes.next().expect("there are three");
    let said = threads(3, &state, move |state, number| {
        if number == 0 {
            let closed = state.report(last, Outcome::Success, DUE, &rules());
            assert_eq!(closed, Some(Change::Closed));
            return;
        }
        let ticket = state.admit(DUE, &rules()).expect("two are free, and then it is closed");
        match ticket.0 {
            Admitted::Probe(late) => {
                // It may have closed meanwhile: then this is nothing.
                let change = state.report(late, Outcome::Ignored, DUE, &rules());
                assert_eq!(change, None);
            }
            admitted => assert_eq!(
                state.closed_epoch().map(|epoch| Admitted::Call { epoch }),
                Some(admitted)
            ),
        }
    });
    assert_eq!((said.len(), state.standing()), (3, Standing::Closed));
}

#[test]
fn what_closes_stays_closed() {
    finds_what_is_torn(many_orders, ask_while_it_closes);
}
