//! The cap under a crowd: never one too many, and nobody waits while there is room.
//!
//! Both are looked at by every simulation, after every turn: what is open against the caps and the books, and
//! each listener that rests although a client could come in. Here they are put under the crowd that makes
//! them hard to keep: fifty times as many clients as may be in at once.
//!
//! A few seeds in `cargo test`; more by `SLIPRING_SIM_SEEDS=10000 cargo test --release -p slipring-sim --test caps`.

use std::time::Duration;

use slipring_core::{Ctx, Handler, Lease, Limits, Listen, Origin};
use slipring_sim::{Script, SimBuilder, check};

/// Connections that may be open.
const CAP: u32 = 100;
/// Connections that are tried.
const ATTEMPTS: usize = 5_000;
/// Seeds, unless the environment says otherwise (`check`).
const SEEDS: u64 = 4;

/// Greets, so that a client knows that it is in, and echoes.
struct Greet;

impl Handler for Greet {
    type State = ();

    fn on_open(&mut self, ctx: &mut Ctx<'_, ()>, _: Origin) {
        ctx.send("!");
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
        ctx.send(data);
    }
}

/// They come in waves, so that the process is full, empties, and fills again.
fn crowd(seed: u64, listen_as: &[Listen]) {
    let limits = Limits {
        accepted_max: CAP,
        dialed_max: 0,
        buffers: 64,
        buffer_bytes: 512,
        submissions: 256,
        // A multishot reserves 17: some reactors have one, some watch.
        backlog: 16,
        ..Limits::default()
    };
    let reactors = 2 + (seed % 3) as usize;
    let mut sim = SimBuilder::new(seed)
        .reactors(reactors)
        .listeners(listen_as.len())
        .listen_as(listen_as.iter().cloned())
        .limits(limits)
        .turn(|knobs| knobs.latency_us = knobs.latency_us.min(2_000))
        .start(|_| Greet);
    let mut most = 0;
    for wave in 0..10 {
        for number in 0..ATTEMPTS / 10 {
            let stays = Duration::from_millis((number as u64 * 7 + seed) % 40);
            let script = Script::new().expect(b"!").pause(stays).shutdown().expect_end();
            sim.connect_to((number + wave) % listen_as.len(), script);
        }
        let served = (wave + 1) as u64 * (ATTEMPTS / 10) as u64;
        sim.run_until(|sim| {
            let open = sim.open_connections();
            most = most.max(open);
            let accepted: u64 = (0..reactors).map(|reactor| sim.counters(reactor).accepted).sum();
            open == 0 && accepted == served
        });
    }
    assert_eq!(most, u64::from(CAP), "the cap was never reached: nothing was tested");
    sim.finish();
    let accepted: u64 = (0..reactors).map(|reactor| sim.counters(reactor).accepted).sum();
    assert_eq!(accepted, ATTEMPTS as u64, "somebody was refused");
}

#[test]
fn the_cap_of_the_process_holds_under_a_crowd() {
    check(SEEDS, |seed| crowd(seed, &[Listen::new()]));
}

#[test]
fn the_caps_of_listeners_hold_under_a_crowd() {
    let small = Listen::new().max_connections(10);
    let large = Listen::new().max_connections(90);
    check(SEEDS, |seed| crowd(seed, &[small.clone(), Listen::new(), large.clone()]));
}
