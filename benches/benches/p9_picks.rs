//! P9: a pick of one of a thousand endpoints, by each algorithm, and the making of a balancer's tables.
//!
//! The endpoints have weights from 1 to 256, a few calls under way each and a latency that was noted. Each pick has
//! another hash. What is under way does not change with the picks: to count it is a few instructions of the room.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use criterion::Criterion;
use slipring::policy::balancer::{
    Algorithm, Availability, Balancer, BalancerLimits, Endpoint, Endpoints, Wish,
};
use slipring::policy::outcome::Outcome;
use slipring_benches::measure::clock::now;
use slipring_benches::measure::micro::{Samples, figure, row};
use slipring_benches::measure::{CLIENT_CPU, note};
use slipring_benches::pin::pin_to_cpu;

const ENDPOINTS: u32 = 1000;
const AT: Duration = Duration::from_secs(100);
const AIM_NS: f64 = 50.0;
const REBUILD_AIM_US: f64 = 50_000.0;

const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("least of two", Algorithm::LeastOfTwo),
    ("round robin", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("peak EWMA", Algorithm::Ewma),
    ("Maglev", Algorithm::Maglev),
];

fn endpoints(balancer: &mut Balancer, rng: &mut fastrand::Rng) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for identity in 0..u64::from(ENDPOINTS) {
        let endpoint = Endpoint { weight: rng.u32(1..=256), ..Endpoint::new(identity) };
        let number = endpoints.insert(endpoint).expect("a weight that there is");
        endpoints.set_others(number, rng.u32(..5));
        let latency = Duration::from_micros(rng.u64(100..9_000));
        balancer.note(&mut endpoints, number, AT, latency, Outcome::Success);
    }
    endpoints
}

fn picks(criterion: &mut Criterion, name: &str, algorithm: Algorithm) -> Option<f64> {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut balancer = Balancer::new(algorithm, BalancerLimits::default());
    let endpoints = endpoints(&mut balancer, &mut rng);
    balancer.rebuild(&endpoints);
    let samples = Samples::default();
    let mut key = 0u64;
    criterion.bench_function(&format!("p9/pick/{name}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let start = now();
            for _ in 0..iterations {
                key += 1;
                let wish = Wish { hash: Some(key), ..Wish::default() };
                black_box(balancer.pick(&endpoints, AT, &mut rng, wish));
            }
            samples.note(start.elapsed(), iterations)
        });
    });
    samples.median()
}

/// One endpoint goes and comes, each time: the table is made anew.
fn rebuilds(criterion: &mut Criterion, name: &str, algorithm: Algorithm) -> Option<f64> {
    let mut rng = fastrand::Rng::with_seed(9);
    let mut balancer = Balancer::new(algorithm, BalancerLimits::default());
    let mut endpoints = endpoints(&mut balancer, &mut rng);
    let samples = Samples::default();
    let mut is_up = true;
    criterion.bench_function(&format!("p9/rebuild/{name}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let start = now();
            for _ in 0..iterations {
                is_up = !is_up;
                let availability = if is_up { Availability::Up } else { Availability::Down };
                endpoints.set_availability(0, availability, None).expect("it is there");
                balancer.rebuild(black_box(&endpoints));
            }
            samples.note(start.elapsed(), iterations)
        });
    });
    samples.median()
}

fn main() -> ExitCode {
    if let Err(error) = pin_to_cpu(CLIENT_CPU) {
        note(format_args!("p9_picks: not pinned, figures will waver: {error}"));
    }
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let mut figures = Vec::new();
    for (name, algorithm) in ALGORITHMS {
        let picked = picks(&mut criterion, name, algorithm);
        figures.push((name, algorithm, picked, rebuilds(&mut criterion, name, algorithm)));
    }
    criterion.final_summary();
    for (name, algorithm, picked, rebuilt) in figures {
        // A heap of a thousand: it has no aim.
        let aim_ns = (algorithm != Algorithm::RoundRobin).then_some(AIM_NS);
        let rebuilt = rebuilt.map_or_else(
            || "not run".to_owned(),
            |ns| format!("rebuild {:.0} us (aim <= {REBUILD_AIM_US})", ns / 1e3),
        );
        row("P9", format_args!("pick of 1000, {name}"), &[figure(picked, aim_ns), rebuilt]);
    }
    ExitCode::SUCCESS
}
