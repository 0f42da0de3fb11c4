//! The cap under a crowd: never one too many, and nobody waits while there is room.
//!
//! Both are looked at by every simulation, after every turn: what is open against the caps and the books, and
//! each listener that rests although a client could come in. Here they are put under the crowd that makes
//! them hard to keep: fifty times as many clients as may be in at once.
//!
//! A few seeds in `cargo test`; more by `SLIPRING_SIM_SEEDS=10000 cargo test --release -p slipring-sim --test caps`.

use std::time::Duration;

use slipring_core::{Counters, Ctx, Handler, Lease, Limits, Listen, OnFull, Origin};
use slipring_sim::{Script, Sim, SimBuilder, check};

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

fn reactors(seed: u64) -> usize {
    2 + (seed % 3) as usize
}

fn start(seed: u64, listen_as: &[Listen]) -> Sim<Greet> {
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
    SimBuilder::new(seed)
        .reactors(reactors(seed))
        .listeners(listen_as.len())
        .listen_as(listen_as.iter().cloned())
        .limits(limits)
        .turn(|knobs| knobs.latency_us = knobs.latency_us.min(2_000))
        .start(|_| Greet)
}

/// They come in waves, so that the process is full, empties, and fills again.
fn crowd(seed: u64, listen_as: &[Listen]) {
    let mut sim = start(seed, listen_as);
    let reactors = reactors(seed);
    let mut most = 0;
    for wave in 0..10 {
        for number in 0..ATTEMPTS / 10 {
            // Long enough for a SYN that a full backlog dropped to be sent again.
            let stays = Duration::from_millis(500 + (number as u64 * 37 + seed) % 3_000);
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

/// Those that find no place are refused; that none of them could have had one, the simulation looks at itself.
#[test]
fn nobody_is_refused_while_there_is_room() {
    check(SEEDS, |seed| {
        let reject = Listen::new().on_full(OnFull::Reject);
        let mut sim = start(seed, &[reject.clone(), reject.max_connections(20)]);
        let count = |sim: &Sim<Greet>, get: fn(&Counters) -> u64| -> u64 {
            (0..reactors(seed)).map(|reactor| get(&sim.counters(reactor))).sum()
        };
        // While reactors stall nobody is refused, and those who have left meanwhile come in: then more have to come.
        let mut number = 0;
        while number < 500 || count(&sim, |c| c.refused_full) <= 100 {
            assert!(number < 20_000, "nobody was refused: nothing was tested");
            let stays = Duration::from_millis(200 + (number * 37 + seed) % 1_000);
            sim.connect_to(number as usize % 2, Script::new().pause(stays).close());
            sim.run_for(Duration::from_millis(2));
            number += 1;
        }
        sim.run_until(|sim| sim.open_connections() == 0);
        sim.finish();
        assert_eq!(count(&sim, |c| c.accepted) + count(&sim, |c| c.refused_full), number);
    });
}
