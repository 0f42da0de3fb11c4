//! Runs seeds under the simulated kernel.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::collections::BTreeMap;

use slipring_sim::Marks;
use slipring_sim::swarm::{Options, run};

fn number(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().and_then(|text| text.parse().ok())
}

fn main() {
    let from = number("--from").unwrap_or(0);
    let seeds = number("--seeds").unwrap_or(100);
    let mut options = Options::default();
    options.events = number("--events").unwrap_or(options.events);
    if let Some(seed) = number("--seed") {
        options.records = true;
        let outcome = run(seed, &options);
        outcome.story.iter().for_each(|line| println!("{line}"));
        println!("{:?}: {:?} {:x}", outcome.failure, outcome.turned, outcome.hash);
        return;
    }
    let mut marks = Marks::default();
    let mut kinds = BTreeMap::<String, (u64, u64)>::new();
    let (mut events, mut completions) = (0, 0);
    for seed in from..from + seeds {
        let outcome = run(seed, &options);
        marks.add(&outcome.marks);
        events += outcome.events;
        completions += outcome.completions;
        if let Some(failure) = outcome.failure {
            let kind = failure.chars().filter(|c| !c.is_ascii_digit()).take(90).collect();
            kinds.entry(kind).or_insert((seed, 0)).1 += 1;
        }
    }
    for (kind, (seed, count)) in kinds {
        println!("{count:6} x seed {seed}: {kind}");
    }
    println!("{seeds} seeds, {events} events, {completions} completions");
    println!("missed: {:?}", marks.missed());
}
