//! A thousand seeds of the swarm: what every change is run against before anything longer. SLIPRING_SEEDS is how
//! many, if it is set (scripts/coverage has more).

use slipring_sim::Marks;
use slipring_sim::swarm::{Options, run};

fn seeds() -> u64 {
    std::env::var("SLIPRING_SEEDS").map_or(1_000, |seeds| seeds.parse().expect("a number of seeds"))
}

#[test]
fn a_thousand_seeds_break_nothing() {
    let seeds = seeds();
    let mut marks = Marks::default();
    let mut broken = Vec::new();
    for seed in 0..seeds {
        let outcome = run(seed, &Options::default());
        marks.add(&outcome.marks);
        broken.extend(outcome.failure.map(|failure| (seed, failure)));
    }
    assert!(broken.is_empty(), "{} of {seeds} seeds, the first: {:?}", broken.len(), broken[0]);
    let missed = marks.missed();
    assert!(missed.len() <= 2, "rare events that are none any more: {missed:?}");
}

#[test]
fn a_thousand_seeds_of_tasks_break_nothing() {
    let tasks = Options { tasks: true, ..Options::default() };
    let seeds = 0..seeds();
    let failed = seeds.filter_map(|seed| run(seed, &tasks).failure.map(|failure| (seed, failure)));
    let broken: Vec<_> = failed.collect();
    assert!(broken.is_empty(), "{} seeds, the first: {:?}", broken.len(), broken[0]);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    for seed in 0..100 {
        let (first, again) = (run(seed, &Options::default()), run(seed, &Options::default()));
        assert_eq!((first.hash, first.events), (again.hash, again.events), "seed {seed}");
    }
}

#[test]
fn records_change_nothing() {
    for seed in 0..20 {
        let kept = run(seed, &Options { records: true, ..Options::default() });
        assert_eq!(kept.hash, run(seed, &Options::default()).hash, "seed {seed}");
        // A story is the part that is worth reading, under a line that says so.
        assert!((2..=61).contains(&kept.story.len()), "seed {seed}");
    }
}
