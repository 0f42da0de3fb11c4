//! What fails a run, and what is said then.

use std::panic::{AssertUnwindSafe, catch_unwind};

use slipring_core::{Ctx, Handler, Lease};
use slipring_sim::{End, Failure, Script, Sim, SimBuilder, check, explore};

use crate::handlers::{Echo, Mute, Obedient};

/// What a panic of this said.
fn panic_of(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("a panic");
    *panic.downcast::<String>().expect("a message")
}

#[test]
fn a_panic_in_the_handler_fails_the_run_and_names_the_seed() {
    let report = panic_of(|| {
        let mut sim = Sim::new(1234, |_| Obedient::default());
        sim.connect(Script::new().send(b"p").expect_gone());
        sim.run();
    });
    assert!(
        report.starts_with("seed 1234: the handler of reactor 0 panicked in on_data"),
        "{report}"
    );
    assert!(report.contains("told to panic"), "{report}");
    assert!(report.contains("SLIPRING_SIM_SEED=1234 cargo test failures::a_panic_in"), "{report}");
    assert!(report.contains("sends 1 byte \"p\""), "{report}");
    assert!(report.lines().count() <= 45, "{report}");
}

#[test]
fn a_panic_that_is_tolerated_ends_its_connection_only() {
    check(50, |seed| {
        let mut sim = SimBuilder::new(seed).tolerate_panics().start(|_| Obedient::default());
        let bad = sim.connect(Script::new().send(b"p").expect_reset());
        sim.connect(Script::new().send(b"x").expect(b"x"));
        sim.finish();
        assert_eq!(sim.end_of(bad), Some(End::Reset));
        assert_eq!(sim.counters(0).handler_panics, 1);
    });
}

#[test]
fn a_lease_that_is_kept_for_ever_is_left_behind() {
    check(20, |seed| {
        let mut sim = Sim::new(seed, |_| Obedient::default());
        sim.connect(Script::new().send(b"k").close());
        sim.run();
        let failure = sim.try_finish().expect_err("a leak");
        assert_eq!(failure.what, "left behind at the end: reactor 0: 1 buffers held");
    });
}

#[test]
fn a_run_that_gets_no_further_says_what_its_reactors_hold() {
    let mut sim = SimBuilder::new(3).reactors(2).start(|_| Obedient::default());
    sim.connect(Script::new().send(b"k").expect(b"never"));
    let failure = sim.try_run().expect_err("it keeps what came");
    let lines: Vec<_> = failure.what.lines().collect();
    assert!(lines[0].starts_with("no script gets any further within"), "{failure}");
    assert!(lines[1].starts_with("  peer 0 waits at step 2 of 2"), "{failure}");
    let held = |line: &str| line.contains(" 1 connections, 1 of ") && line.contains("buffers held");
    assert_eq!(lines[2..].iter().filter(|line| held(line)).count(), 1, "{failure}");
    assert!(lines[2].starts_with("  reactor 0: ") && lines[3].starts_with("  reactor 1: "));
}

/// Forgets to close once its peer has said all.
struct Forgetful;

impl Handler for Forgetful {
    type State = ();

    fn on_data(&mut self, _: &mut Ctx<'_, ()>, _: Lease) {}

    fn on_eof(&mut self, _: &mut Ctx<'_, ()>) {}
}

#[test]
fn a_connection_that_outlives_its_peer_is_a_failure_unless_it_may() {
    for script in [Script::new().send(b"x").shutdown(), Script::new().close(), Script::new()] {
        check(20, |seed| {
            let mut sim = Sim::new(seed, |_| Forgetful);
            sim.connect(script.clone());
            sim.run();
            let failure = sim.try_finish().expect_err("it is forgotten");
            let expected = "still open 5s after the end of its peer: [reactor 0 slot 0/0]";
            assert_eq!(failure.what, expected);
        });
        check(20, |seed| {
            let mut sim = SimBuilder::new(seed).tolerate_lingering().start(|_| Forgetful);
            sim.connect(script.clone());
            sim.finish();
        });
    }
}

#[test]
fn check_names_the_first_seed_that_fails() {
    let report = panic_of(|| {
        check(100, |seed| {
            let mut sim = Sim::new(seed, |_| Mute);
            let wish = if seed < 17 { Script::new() } else { Script::new().expect(b"x") };
            sim.connect(wish);
            sim.run();
        });
    });
    let lines: Vec<_> = report.lines().collect();
    assert!(
        lines[0].starts_with("seed 17 fails, after 17 that passed: seed 17: no script"),
        "{report}"
    );
    assert!(lines[1].contains("SLIPRING_SIM_SEED=17 cargo test"), "{report}");
}

#[test]
fn check_takes_assertions_of_the_test_too() {
    let report = panic_of(|| check(10, |seed| assert_ne!(seed, 3, "not this one")));
    assert!(report.starts_with("seed 3 fails, after 3 that passed: assertion"), "{report}");
}

#[test]
fn explore_finds_nothing_where_nothing_is_wrong() {
    let found = explore(0..20, |seed| -> Result<(), Failure> {
        let mut sim = Sim::new(seed, |_| Echo);
        sim.connect(Script::new().send(b"x").expect(b"x"));
        sim.try_finish()
    });
    assert_eq!(found, None);
}
