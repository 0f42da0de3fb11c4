//! Where clients end up: many of them over many reactors, while some leave and others come.

use std::time::Duration;

use slipring_core::{Limits, Placement, Timeout, Timeouts};
use slipring_sim::{Knobs, Script, Sim, SimBuilder};

use crate::handlers::Echo;

const REACTORS: usize = 16;
const CLIENTS: u64 = 4000;
/// So often, once a second, a twentieth of the clients leaves and as many come.
const CHURNS: u64 = 20;

/// By then all of the first are there, and none has left.
const OPENED_S: u64 = 10;

/// Most to mean that counts as even.
const EVEN: f64 = 1.05;

#[derive(Clone, Copy)]
enum Faults {
    None,
    Drawn,
}

/// Connections of each reactor.
fn stand(sim: &Sim<Echo>) -> Vec<u64> {
    (0..REACTORS).map(|reactor| sim.counters(reactor).open()).collect()
}

fn most_to_mean(stands: &[u64]) -> f64 {
    let most = stands.iter().max().copied().unwrap_or(0);
    (most * stands.len() as u64) as f64 / stands.iter().sum::<u64>() as f64
}

fn simulation(seed: u64, placement: Placement, faults: Faults) -> Sim<Echo> {
    let limits = Limits {
        accepted_max: 4 * CLIENTS as u32,
        backlog: 512,
        buffers: 16,
        buffer_bytes: 64,
        submissions: 256,
        ..Limits::default()
    };
    let timeouts = Timeouts { idle: Timeout::Never, ..Timeouts::default() };
    let builder = SimBuilder::new(seed).reactors(REACTORS).limits(limits).timeouts(timeouts);
    let builder = match faults {
        Faults::None => builder.faults(Knobs::calm()),
        Faults::Drawn => builder,
    };
    builder.placement(placement).start(|_| Echo)
}

/// Most to mean once all are there, and after each round of the churn.
fn churn(seed: u64, placement: Placement, faults: Faults) -> Vec<f64> {
    let mut sim = simulation(seed, placement, faults);
    // Those of the first round leave in an order that is no order of coming.
    let stay = |number: u64| OPENED_S + number * 7919 % CHURNS;
    let client = |seconds: u64| {
        Script::new().send(b"x").expect(b"x").pause(Duration::from_secs(seconds)).close()
    };
    for number in 0..CLIENTS {
        sim.connect(client(stay(number)));
    }
    sim.run_for(Duration::from_secs(OPENED_S));
    let stands = stand(&sim);
    assert_eq!(stands.iter().sum::<u64>(), CLIENTS, "all are there, seed {seed}");
    let mut ratios = vec![most_to_mean(&stands)];
    for _ in 0..CHURNS {
        sim.run_for(Duration::from_millis(500));
        // Whose time has come has left.
        for _ in sim.open_connections()..CLIENTS {
            sim.connect(client(3600));
        }
        sim.run_for(Duration::from_millis(500));
        ratios.push(most_to_mean(&stand(&sim)));
    }
    ratios
}

#[test]
fn sixteen_reactors_have_about_as_many_each_while_clients_come_and_go() {
    for seed in 0..2 {
        let ratios = churn(seed, Placement::default(), Faults::None);
        assert!(ratios.iter().all(|ratio| *ratio <= EVEN), "seed {seed}: {ratios:?}");
    }
    let by_hash = churn(0, Placement::Kernel, Faults::None);
    assert!(by_hash.iter().all(|ratio| *ratio > EVEN), "the hash alone is not: {by_hash:?}");
}

#[test]
fn what_stalls_made_uneven_is_even_once_all_have_left_and_others_come() {
    // All come in an instant: of a reactor that stands still just then the others get all.
    for seed in [0, 3, 5] {
        let ratios = churn(seed, Placement::default(), Faults::Drawn);
        assert!(ratios[CHURNS as usize] <= EVEN, "seed {seed}: {ratios:?}");
    }
}
