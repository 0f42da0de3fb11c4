//! Eighty seeds of upstreams: pools, retries, breakers and limits, with servers that die, dawdle and come back.
//! SLIPRING_SEEDS is how many, if it is set.

use slipring_sim::swarm::{Options, run};

fn options() -> Options {
    Options { upstreams: true, ..Options::default() }
}

#[test]
fn eighty_seeds_of_upstreams_break_nothing() {
    let seeds = std::env::var("SLIPRING_SEEDS")
        .map_or(80, |seeds| seeds.parse().expect("a number of seeds"));
    let failed =
        (0..seeds).filter_map(|seed| run(seed, &options()).failure.map(|failure| (seed, failure)));
    let broken: Vec<(u64, String)> = failed.collect();
    assert!(broken.is_empty(), "{} of {seeds} seeds, the first: {:?}", broken.len(), broken[0]);
}

#[test]
fn a_seed_of_upstreams_is_the_same_run_every_time() {
    for seed in 0..10 {
        let (first, again) = (run(seed, &options()), run(seed, &options()));
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}
