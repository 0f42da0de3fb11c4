//! Accept rates under a crowd: as fast as they allow, and not faster.
//!
//! That no more come in than a rate allows is looked at by every simulation, after every turn. Here is the other
//! half: that they come in as soon as it does, whatever goes wrong around them.
//!
//! A few seeds in `cargo test`; more by `SLIPRING_SIM_SEEDS=1000 cargo test --release -p slipring-sim --test paces`.

use std::time::Duration;

use slipring_core::{Ctx, Handler, Lease, Limits, Listen, OnFull, Rate};
use slipring_sim::{Knobs, Script, Sim, SimBuilder, check};

/// Seeds, unless the environment says otherwise (`check`).
const SEEDS: u64 = 20;

struct Echo;

impl Handler for Echo {
    type State = ();

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::with_burst(per_second, burst).expect("a rate")
}

fn builder(seed: u64, listen_as: &[Listen]) -> SimBuilder {
    SimBuilder::new(seed)
        .reactors(1 + (seed % 3) as usize)
        .listeners(listen_as.len())
        .listen_as(listen_as.iter().cloned())
}

fn count(sim: &Sim<Echo>, reactors: usize, get: fn(&slipring_core::Counters) -> u64) -> u64 {
    (0..reactors).map(|reactor| get(&sim.counters(reactor))).sum()
}

/// On a healthy kernel a crowd is in as soon as its rate allows, to a few milliseconds.
#[test]
fn a_crowd_takes_as_long_as_its_rate_says_and_not_longer() {
    for (per_second, burst, reactors) in [(100, 10, 1), (100, 10, 3), (20, 2, 2), (2000, 20, 2)] {
        let limits = Limits { backlog: 512, accepted_max: 512, ..Limits::default() };
        let mut sim = SimBuilder::new(7)
            .faults(Knobs::calm())
            .limits(Limits { buffers: 64, buffer_bytes: 512, ..limits })
            .reactors(reactors)
            .accept_rate(rate(per_second, burst))
            .start(|_| Echo);
        for _ in 0..200 {
            sim.connect(Script::new().send(b"hello").expect(b"hello").shutdown().expect_end());
        }
        sim.run();
        let took = sim.now().as_secs_f64();
        let least = f64::from(200 - burst) / f64::from(per_second);
        assert!((least..least + 0.05).contains(&took), "{per_second}/s:{burst}: {took} s");
        assert!(count(&sim, reactors, |c| c.accepts_paced) > 0);
        sim.finish();
        assert_eq!(count(&sim, reactors, |c| c.refused()), 0);
    }
}

/// The rate of one listener, that of another and that of the process hold beside one another.
#[test]
fn each_listener_keeps_to_its_own_rate_and_to_that_of_the_process() {
    check(SEEDS, |seed| {
        let slow = Listen::new().accept_rate(rate(20, 2));
        let fast = Listen::new().accept_rate(rate(200, 5));
        let listen_as = [slow, fast, Listen::new()];
        let mut sim = builder(seed, &listen_as).accept_rate(rate(100, 8)).start(|_| Echo);
        for number in 0..90 {
            let script = Script::new().send(b"hello").expect(b"hello").shutdown().expect_end();
            sim.connect_to(number % 3, script);
        }
        sim.run();
        assert!(sim.now() >= Duration::from_millis(1400), "30 at 20/s:2 in {:?}", sim.now());
        sim.finish();
    });
}

/// Whoever finds no place is refused, and whoever finds no token is not.
#[test]
fn who_has_a_place_is_not_refused_for_a_rate() {
    check(SEEDS, |seed| {
        let listen_as = [Listen::new().accept_rate(rate(50, 3)).on_full(OnFull::Reject)];
        let reactors = 1 + (seed % 3) as usize;
        let mut sim = builder(seed, &listen_as).start(|_| Echo);
        for _ in 0..60 {
            sim.connect(Script::new().send(b"hello").expect(b"hello").shutdown().expect_end());
        }
        sim.run();
        sim.finish();
        assert_eq!(count(&sim, reactors, |c| c.accepted), 60);
        assert_eq!(count(&sim, reactors, |c| c.refused()), 0);
    });
}
