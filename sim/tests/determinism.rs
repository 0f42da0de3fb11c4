//! The same seed comes to the same end: again, in another thread, beside others.
//!
//! Between builds (debug and release, one commit and the next that must change nothing) scripts compare the
//! `hash` of `sim --json`; scripts/simulate does.

use slipring_sim::campaign::{Campaign, Tally};
use slipring_sim::swarm::{Options, run};

const SEEDS: u64 = 200;

fn tally(jobs: usize, tasks: bool) -> Tally {
    let options = Options { tasks, ..Options::default() };
    let campaign = Campaign { from: 0, seeds: SEEDS, jobs, options };
    campaign.run(|_| {}).expect("every seed ends")
}

#[test]
fn seeds_come_to_the_same_end_on_one_thread_and_on_two() {
    for tasks in [false, true] {
        let first = tally(1, tasks);
        assert_eq!(first.seeds, SEEDS);
        assert_ne!(first.hash, 0);
        assert!(first == tally(1, tasks), "the same again differs, tasks {tasks}");
        assert!(first == tally(2, tasks), "two threads differ from one, tasks {tasks}");
    }
}

#[test]
fn records_change_nothing() {
    for seed in 0..20 {
        let plain = run(seed, &Options::default());
        let told = run(seed, &Options { records: true, ..Options::default() });
        assert_eq!((plain.hash, &plain.failure), (told.hash, &told.failure), "seed {seed}");
        assert!(plain.story.is_empty() && plain.plan.is_empty());
        assert!(told.story.len() > 1 && !told.plan.is_empty(), "seed {seed}");
    }
}

#[test]
fn knobs_written_down_are_the_knobs_drawn() {
    for seed in 0..20 {
        let drawn = run(seed, &Options::default());
        let options = Options { knobs: Some(drawn.knobs), ..Options::default() };
        assert_eq!(run(seed, &options).hash, drawn.hash, "seed {seed}");
    }
}
