//! Models of what several threads do at once: every order of their steps, or many of them, by `shuttle`.
//!
//! Is: `tokens`, `admission`, `mailbox`, `places` and `front` of the crate, compiled once more with atomics that
//! shuttle decides about, and runs of them in which a lost wake-up is a deadlock and a token too many an assertion.
//! Is not: a test of what one thread sees; that is `tokens.rs` beside this file. Queues are not taken apart: a post or
//! a take is one step here.
//!
//! Why shuttle and not loom: loom takes a `SeqCst` load for an acquire one, and finds the lost wake-up that
//! `SeqCst` forbids (store a note, look for a token; put a token, look for a note). All steps here are `SeqCst`,
//! and to shuttle every step is.
//!
//! Why compiled again and not by a `cfg`: the crate stays as it is shipped, and the models run with
//! `cargo test` like everything else. `slips` makes the mistakes on purpose: a model that did not find them
//! would prove nothing.
#![allow(dead_code, unreachable_pub, reason = "files of the crate, of which models use a part")]

#[path = "../src/admission.rs"]
mod admission;
#[path = "../src/front.rs"]
mod front;
#[path = "../src/loads.rs"]
mod loads;
#[path = "models/mail.rs"]
mod mail;
#[path = "../src/mailbox.rs"]
mod mailbox;
#[path = "../src/places.rs"]
mod places;
#[path = "models/shared.rs"]
mod shared;
#[path = "../src/slip.rs"]
mod slip;
#[path = "models/sync.rs"]
mod sync;
#[path = "../src/tokens.rs"]
mod tokens;

/// No canary sings here.
mod canary {
    pub(crate) use slipring_core::canary::Canary;

    pub(crate) const fn sings(_: Canary) -> bool {
        false
    }
}

mod calling {
    pub(crate) use slipring_core::calling::Calling;
}

mod listen {
    pub(crate) use slipring_core::OnFull;
}

mod moving {
    pub(crate) use slipring_core::moving::Moved;
}

mod sources {
    pub(crate) use slipring_core::sources::Source;
}

mod token {
    pub(crate) use slipring_core::token::Descriptor;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use admission::Admission;
use shared::{Bells, spawn};
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use sync::{Slip, with};
use tokens::Tokens;

/// Orders tried where all of them are too many.
const SOME: usize = 40_000;

fn every_order(model: fn()) {
    shuttle::check_dfs(model, None);
}

fn many_orders(model: fn()) {
    shuttle::check_random(model, SOME / 2);
    shuttle::check_pct(model, SOME / 2, 3);
}

/// The model with the mistake fails, and without it passes.
fn finds(slip: Slip, check: fn(fn()), model: fn()) {
    let found = with(slip, || catch_unwind(AssertUnwindSafe(|| check(model))).is_err());
    assert!(found, "{slip:?} was made, and the model did not find it");
    check(model);
}

/// One has the token and gives it back, the other wants it: it gets it, or is rung.
fn one_gives_one_takes() {
    let tokens = Arc::new(Tokens::new(1, 2));
    let rung = Arc::new(AtomicBool::new(false));
    let ring = Arc::clone(&rung);
    tokens.connect(move |reactor| {
        assert_eq!(reactor, 1, "only who waits is rung");
        ring.store(true, Ordering::SeqCst);
    });
    assert!(tokens.take(0));
    let taker = spawn({
        let tokens = Arc::clone(&tokens);
        move || tokens.take(1)
    });
    assert!(!tokens.give(0));
    let taken = taker.join().expect("it did not panic");
    assert!(taken || rung.load(Ordering::SeqCst), "refused, and not rung");
    assert_eq!(tokens.used(), u32::from(taken));
}

#[test]
fn who_is_refused_is_rung() {
    finds(Slip::OneTry, every_order, one_gives_one_takes);
    finds(Slip::NotesFirst, every_order, one_gives_one_takes);
}

/// Two reactors and tokens that both need: each waits for its bell until it has been served.
fn everybody_is_served(cap: u32, rounds: u32) {
    let tokens = Arc::new(Tokens::new(cap, 2));
    let bells = Bells::of(&tokens, 2);
    let out = Arc::new(AtomicU32::new(0));
    let threads = [0, 1].map(|reactor| {
        let (tokens, bells, out) = (Arc::clone(&tokens), bells.clone(), Arc::clone(&out));
        spawn(move || {
            for _ in 0..rounds {
                while !tokens.take(reactor) {
                    // Nobody else will come: a ring that is lost is a deadlock.
                    bells.wait(reactor);
                }
                let now = out.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(now <= cap, "{now} tokens are out of {cap}");
                out.fetch_sub(1, Ordering::SeqCst);
                let _ = tokens.give(reactor);
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().expect("it did not panic"));
    assert_eq!((tokens.free(), tokens.used()), (cap, 0), "one was lost, or made");
}

#[test]
fn one_token_serves_both_again_and_again() {
    finds(Slip::TornTake, many_orders, || everybody_is_served(1, 3));
}

/// Two tokens for two reactors that have one each at most: one is always free, and no take may fail.
fn always_found(cap: u32, rounds: u32) {
    let tokens = Arc::new(Tokens::new(cap, 2));
    // All but two are set aside, and stay so. Those two are at the centre, and travel as a block.
    assert!(tokens.reserve(0, cap - 2));
    let threads = [0, 1].map(|reactor| {
        let tokens = Arc::clone(&tokens);
        spawn(move || {
            for _ in 0..rounds {
                assert!(tokens.try_take(reactor), "one was free");
                // To the other's block: where this one looks last.
                let _ = tokens.give(1 - reactor);
            }
        })
    });
    threads.into_iter().for_each(|thread| thread.join().expect("it did not panic"));
    assert_eq!(tokens.free(), 2);
}

#[test]
fn a_token_that_moves_is_found() {
    finds(Slip::LooksOnce, many_orders, || always_found(2, 3));
}

#[test]
fn a_block_on_its_way_is_found() {
    // Blocks of two: who takes one moves one more, and that is what the other needs.
    finds(Slip::MovesUnmarked, many_orders, || always_found(36, 1));
    many_orders(|| always_found(36, 4));
}

/// One sets a part aside while the other needs a token: whoever gets what, nothing is passed or lost.
fn reserve_against_take() {
    let tokens = Arc::new(Tokens::new(2, 2));
    let bells = Bells::of(&tokens, 2);
    let taker = {
        let (tokens, bells) = (Arc::clone(&tokens), bells.clone());
        spawn(move || {
            while !tokens.take(0) {
                bells.wait(0);
            }
            assert!(tokens.used() <= 2);
            let _ = tokens.give(0);
        })
    };
    let holder = spawn({
        let tokens = Arc::clone(&tokens);
        move || {
            if tokens.reserve(1, 2) {
                assert!(!tokens.is_exhausted(), "two are set aside");
                tokens.take_reserved(1);
                let _ = tokens.unreserve(1, 1);
                let _ = tokens.give(1);
            }
        }
    });
    taker.join().expect("it did not panic");
    holder.join().expect("it did not panic");
    assert_eq!((tokens.free(), tokens.reserved(), tokens.used()), (2, 0, 0));
}

#[test]
fn what_is_set_aside_comes_back_to_who_waits() {
    many_orders(reserve_against_take);
}

/// Exhausted is said only if at some moment every token was out.
fn is_exhausted_is_true() {
    let tokens = Arc::new(Tokens::new(2, 2));
    assert!(tokens.take(0));
    let mover = spawn({
        let tokens = Arc::clone(&tokens);
        move || {
            // At no time is the other one out.
            if tokens.reserve(1, 1) {
                let _ = tokens.unreserve(1, 1);
            }
            if tokens.reserve(0, 1) {
                let _ = tokens.unreserve(0, 1);
            }
        }
    });
    assert!(!tokens.is_exhausted(), "one of two was never out");
    mover.join().expect("it did not panic");
}

#[test]
fn what_is_set_aside_is_not_out() {
    finds(Slip::LooksOnce, many_orders, is_exhausted_is_true);
}

/// Each reactor lets clients of one listener in, and each client needs a token of two: who takes one and
/// does not get the other gives it back, and nobody waits for what is there.
fn clients_of(cap: u32, listener_max: [u32; 2], wanted: &[u16], rounds: u32) {
    let admission = Admission::new(cap, 0, 8, wanted.len()).with_listeners(listener_max.map(Some));
    let admission = Arc::new(admission);
    let bells = Bells::new(wanted.len());
    let rung = bells.clone();
    admission.connect(move |reactor| rung.ring(reactor));
    let open = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let threads = wanted.iter().enumerate().map(|(reactor, &listener)| {
        let (admission, bells, open) = (Arc::clone(&admission), bells.clone(), Arc::clone(&open));
        spawn(move || {
            for _ in 0..rounds {
                while !admission.take(reactor, listener) {
                    bells.wait(reactor);
                }
                let of = usize::from(listener);
                let now = open[of].fetch_add(1, Ordering::SeqCst) + 1;
                assert!(now <= listener_max[of], "{now} are open of {listener_max:?}");
                open[of].fetch_sub(1, Ordering::SeqCst);
                admission.release(reactor, listener);
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it did not panic"));
    assert_eq!(
        (admission.open(), admission.open_of(0), admission.open_of(1)),
        (0, Some(0), Some(0))
    );
}

#[test]
fn a_client_that_needs_two_tokens_is_let_in() {
    many_orders(|| clients_of(1, [1, 1], &[0, 1], 2));
    many_orders(|| clients_of(1, [2, 1], &[0, 0], 2));
    many_orders(|| clients_of(2, [1, 1], &[0, 0, 1], 1));
    many_orders(|| clients_of(1, [1, 2], &[0, 1, 1], 2));
}
