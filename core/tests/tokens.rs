//! Tokens against a plain counter, in one thread, and hammered by real threads.
//!
//! In one thread everything is exact: what is free is found, what is refused is refused for want of a token, and
//! who is rung is known. Orders of several threads are tried in `models.rs`; here they only meet.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use slipring_core::Tokens;

fn rung(tokens: &Tokens) -> Arc<Mutex<BTreeSet<usize>>> {
    let rung = Arc::new(Mutex::new(BTreeSet::new()));
    let note = Arc::clone(&rung);
    tokens.connect(move |reactor| {
        note.lock().expect("no panic").insert(reactor);
    });
    rung
}

fn heard(rung: &Mutex<BTreeSet<usize>>) -> Vec<usize> {
    std::mem::take(&mut *rung.lock().expect("no panic")).into_iter().collect()
}

// ---------------------------------------------------------------------------------------- one by one

#[test]
fn tokens_end_at_the_cap_and_come_back() {
    let tokens = Tokens::new(2, 2);
    let rung = rung(&tokens);
    assert!(tokens.take(0) && tokens.take(1));
    assert!(!tokens.take(1) && !tokens.try_take(0) && !tokens.has_free(1));
    assert_eq!((tokens.used(), tokens.free(), tokens.is_exhausted()), (2, 0, true));
    assert!(!tokens.give(0));
    assert_eq!(heard(&rung), [1], "only who waited");
    assert!(tokens.take(1));
    assert!(!tokens.give(0));
    assert!(heard(&rung).is_empty(), "nobody waits");
}

#[test]
fn a_cap_of_none_has_none() {
    let tokens = Tokens::new(0, 3);
    assert!(!tokens.take(0) && !tokens.try_take(1) && !tokens.has_free(2) && !tokens.reserve(1, 1));
    assert!(tokens.is_exhausted());
}

#[test]
fn what_lies_with_others_is_found_at_once() {
    for reactors in [2, 3, 64, 65, 100] {
        // Blocks of 64: the last of a hundred reactors has most of what is free.
        let cap = 64 * 8 * reactors as u32;
        let tokens = Tokens::new(cap, reactors);
        for _ in 0..cap {
            assert!(tokens.take(0));
        }
        for _ in 0..100 {
            assert!(!tokens.give(reactors - 1));
        }
        for taken in 0..100 {
            assert!(tokens.take(1), "{taken} of 100 were found, with {reactors} reactors");
        }
        assert!(!tokens.take(1) && tokens.is_exhausted());
    }
}

#[test]
fn who_gives_is_told_that_it_waits_itself() {
    let tokens = Tokens::new(1, 2);
    let rung = rung(&tokens);
    assert!(tokens.take(1));
    assert!(!tokens.take(0) && !tokens.take(1));
    assert!(tokens.give(0), "it waits, and is not rung");
    assert_eq!(heard(&rung), [1]);
    assert!(tokens.take(0));
    assert!(!tokens.give(0), "its note was taken off");
}

#[test]
fn a_look_is_no_give() {
    let tokens = Tokens::new(1, 3);
    let rung = rung(&tokens);
    assert!(tokens.has_free(0) && tokens.take(0));
    assert!(!tokens.has_free(1) && !tokens.has_free(2));
    assert!(heard(&rung).is_empty());
    assert!(!tokens.give(0));
    assert_eq!(heard(&rung), [1, 2]);
}

#[test]
fn reactors_past_the_sixty_fourth_share_notes() {
    let tokens = Tokens::new(1, 66);
    let rung = rung(&tokens);
    assert!(tokens.take(0) && !tokens.take(65));
    assert!(!tokens.give(0));
    assert_eq!(heard(&rung), [1, 65], "one of them waited; both look");
}

#[test]
fn what_is_set_aside_is_all_or_nothing() {
    let tokens = Tokens::new(10, 2);
    let rung = rung(&tokens);
    assert!(tokens.reserve(0, 6));
    assert!(!tokens.reserve(1, 5), "four are left");
    assert_eq!((tokens.free(), tokens.reserved(), tokens.used()), (4, 6, 0));
    assert!((0..4).all(|_| tokens.take(1)));
    assert!(!tokens.take(1) && !tokens.is_exhausted());
    assert_eq!(heard(&rung), [0], "who has some set aside is called on");
    assert!(!tokens.reserve(0, 1), "not while somebody waits");
    tokens.take_reserved(0);
    assert_eq!((tokens.reserved(), tokens.used()), (5, 5));
    assert!(!tokens.unreserve(0, 5));
    assert_eq!(heard(&rung), [1]);
    assert!(tokens.take(1));
    assert_eq!((tokens.free(), tokens.used()), (4, 6));
}

#[test]
fn what_lies_in_blocks_can_be_set_aside() {
    let tokens = Tokens::new(100, 3);
    assert!((0..100).all(|n| tokens.take(n % 3)));
    assert!((0..100).all(|n| !tokens.give(n % 3)));
    assert!(tokens.reserve(2, 100));
    assert!(!tokens.try_take(0));
}

#[test]
#[should_panic(expected = "3 tokens given back of 2")]
fn what_was_not_set_aside_cannot_be_given_back() {
    let tokens = Tokens::new(10, 1);
    assert!(tokens.reserve(0, 2));
    let _ = tokens.unreserve(0, 3);
}

#[test]
#[should_panic(expected = "none that were set aside")]
fn what_was_not_set_aside_cannot_be_taken() {
    Tokens::new(10, 1).take_reserved(0);
}

// ------------------------------------------------------------------------------------ against a model

/// What can be done.
#[derive(Clone, Copy, Debug)]
enum Step {
    Take,
    TryTake,
    Look,
    Give,
    Reserve(u32),
    TakeReserved,
    Unreserve,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        6 => Just(Step::Take),
        2 => Just(Step::TryTake),
        1 => Just(Step::Look),
        6 => Just(Step::Give),
        2 => (0..40_u32).prop_map(Step::Reserve),
        2 => Just(Step::TakeReserved),
        2 => Just(Step::Unreserve),
    ];
    prop::collection::vec((0..4_usize, step), 0..300)
}

/// A counter, and a set of those that wait.
struct Model {
    cap: u32,
    out: u32,
    reserved: Vec<u32>,
    waiting: BTreeSet<usize>,
}

impl Model {
    fn free(&self) -> u32 {
        self.cap - self.out - self.reserved.iter().sum::<u32>()
    }

    /// Whether the reactor itself was among those that waited; the others, who are rung.
    fn come_back(&mut self, reactor: usize) -> (bool, Vec<usize>) {
        let itself = self.waiting.remove(&reactor);
        (itself, std::mem::take(&mut self.waiting).into_iter().collect())
    }

    /// It waits from now on; these are called on.
    fn refuse(&mut self, reactor: usize) -> Vec<usize> {
        self.waiting.insert(reactor);
        let holds = |&other: &usize| other != reactor && self.reserved[other] > 0;
        (0..self.reserved.len()).filter(holds).collect()
    }
}

fn step(tokens: &Tokens, model: &mut Model, reactor: usize, step: Step) -> Vec<usize> {
    let free = model.free();
    match step {
        Step::Take | Step::Look => {
            let is_take = matches!(step, Step::Take);
            let granted = if is_take { tokens.take(reactor) } else { tokens.has_free(reactor) };
            assert_eq!(granted, free > 0);
            model.out += u32::from(granted && is_take);
            if granted { Vec::new() } else { model.refuse(reactor) }
        }
        Step::TryTake => {
            let granted = tokens.try_take(reactor);
            assert_eq!(granted, free > 0);
            model.out += u32::from(granted);
            Vec::new()
        }
        Step::Give if model.out > 0 => {
            model.out -= 1;
            let (itself, others) = model.come_back(reactor);
            assert_eq!(tokens.give(reactor), itself);
            others
        }
        Step::Reserve(count) => {
            let granted = tokens.reserve(reactor, count);
            assert_eq!(granted, free >= count && model.waiting.is_empty());
            model.reserved[reactor] += if granted { count } else { 0 };
            Vec::new()
        }
        Step::TakeReserved if model.reserved[reactor] > 0 => {
            tokens.take_reserved(reactor);
            model.reserved[reactor] -= 1;
            model.out += 1;
            Vec::new()
        }
        Step::Unreserve => {
            let count = std::mem::take(&mut model.reserved[reactor]);
            let (itself, others) = model.come_back(reactor);
            assert_eq!(tokens.unreserve(reactor, count), itself);
            others
        }
        Step::Give | Step::TakeReserved => Vec::new(),
    }
}

proptest! {
    #[test]
    fn tokens_are_a_counter(cap in 0..200_u32, reactors in 1..5_usize, steps in steps()) {
        let tokens = Tokens::new(cap, reactors);
        let bells = rung(&tokens);
        let reserved = vec![0; reactors];
        let mut model = Model { cap, out: 0, reserved, waiting: BTreeSet::new() };
        for (reactor, what) in steps {
            let rings = step(&tokens, &mut model, reactor % reactors, what);
            let reserved = model.reserved.iter().sum::<u32>();
            assert_eq!(
                (tokens.free(), tokens.reserved(), tokens.used()),
                (model.free(), reserved, model.out)
            );
            assert_eq!(tokens.is_exhausted(), model.out == cap);
            assert_eq!(tokens.is_awaited(), !model.waiting.is_empty());
            assert_eq!(heard(&bells), rings);
        }
    }
}

// -------------------------------------------------------------------------------------- real threads

/// How long one may wait for its bell before the test says that it was not rung.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().expect("no panic") = true;
        self.heard.notify_one();
    }

    fn wait(&self) {
        let rung = self.rung.lock().expect("no panic");
        let (mut rung, late) =
            self.heard.wait_timeout_while(rung, PATIENCE, |rung| !*rung).expect("no panic");
        assert!(!late.timed_out(), "it waits, and nobody rang");
        *rung = false;
    }
}

/// So many threads take and give; each is served as often as it asks, and never are too many out.
fn hammer(cap: u32, reactors: usize, rounds: u32) {
    let tokens = Tokens::new(cap, reactors);
    let bells: Arc<Vec<Bell>> = Arc::new(
        (0..reactors).map(|_| Bell { rung: Mutex::new(false), heard: Condvar::new() }).collect(),
    );
    let ringing = Arc::clone(&bells);
    tokens.connect(move |reactor| ringing[reactor].ring());
    let (out, most, served) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for reactor in 0..reactors {
            let (tokens, bells, out, most, served) = (&tokens, &bells, &out, &most, &served);
            scope.spawn(move || {
                let mut held = 0;
                for round in 0..rounds {
                    while !tokens.take(reactor) {
                        // What it holds others may wait for.
                        if held > 0 {
                            out.fetch_sub(1, Ordering::SeqCst);
                            held -= 1;
                            let _ = tokens.give(reactor);
                        } else {
                            bells[reactor].wait();
                        }
                    }
                    let now = out.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    served.fetch_add(1, Ordering::Relaxed);
                    held += 1;
                    // Some are kept for a while, and given back wherever they end.
                    let keeps = round % 7;
                    while held > keeps {
                        out.fetch_sub(1, Ordering::SeqCst);
                        held -= 1;
                        let at = (reactor + held as usize) % reactors;
                        // Who gives for another passes on what it is told.
                        if tokens.give(at) {
                            bells[at].ring();
                        }
                    }
                    if round % 101 == 0 && tokens.reserve(reactor, cap / 2) {
                        let _ = tokens.unreserve(reactor, cap / 2);
                    }
                }
                while held > 0 {
                    out.fetch_sub(1, Ordering::SeqCst);
                    held -= 1;
                    let _ = tokens.give(reactor);
                }
            });
        }
    });
    let most = most.into_inner();
    assert!(most <= cap, "{most} were out of {cap}");
    assert_eq!(served.into_inner(), u64::from(rounds) * reactors as u64);
    assert_eq!((tokens.free(), tokens.reserved(), tokens.used()), (cap, 0, 0));
}

#[test]
fn threads_never_pass_the_cap_and_are_all_served() {
    hammer(1, 2, 20_000);
    hammer(2, 4, 20_000);
    hammer(7, 4, 20_000);
    hammer(300, 3, 50_000);
}
