//! One seed, told at length: what was drawn for it, how it went, and what it met.

use std::fmt::Write as _;

use super::reproduce;
use crate::marks::Mark;
use crate::swarm::{Options, Outcome};

/// Lines for a person, each ended by a line break.
#[must_use]
pub fn narrate(outcome: &Outcome, options: &Options) -> String {
    let mut text = format!("seed {}\n", outcome.seed);
    for line in &outcome.plan {
        let _ = writeln!(text, "  {line}");
    }
    let met: Vec<String> = Mark::ALL
        .iter()
        .filter(|mark| outcome.marks.count(**mark) > 0)
        .map(|mark| format!("{mark:?}={}", outcome.marks.count(*mark)))
        .collect();
    let _ = writeln!(text, "  marks     {} of {}: {}", met.len(), Mark::ALL.len(), met.join(" "));
    let _ = writeln!(
        text,
        "  came to   {} events, {} completions, hash {:016x}",
        outcome.events, outcome.completions, outcome.hash,
    );
    match &outcome.failure {
        None => text += "passed\n",
        Some(failure) => {
            let _ = writeln!(text, "failed: {failure}");
            let _ = writeln!(text, "  {}", reproduce(outcome.seed, options));
            for line in &outcome.story {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}
