//! Many seeds: run them, find out what those that fail have in common, and make each as small as it gets.
//!
//! ```text
//!  from, seeds --> jobs (threads, a chunk of seeds each) --> Tally, merged in the order of the seeds
//!                                                              | of each kind of failure the first seed
//!                                                              v
//!                        report (text, JSON) <-- Finding <-- shrink: fewer knobs, fewer events
//! ```
//!
//! Is: what the binary `sim` does, without its command line, its progress bar and its exit codes; tests and
//! other programs can use it. Is not: what a seed does ([`swarm`](crate::swarm)).
//!
//! A seed is independent of all others: everything of a run lives in one thread. So nothing that is reported
//! depends on the number of jobs, but for the seconds it took.

pub mod canary;
pub mod corpus;
mod finding;
mod jobs;
pub mod knobs;
mod report;
mod shrink;
mod single;

pub use finding::{Finding, findings, reproduce};
pub use jobs::{Campaign, Stuck};
pub use report::{Report, demands_marks};
pub use shrink::{Shrunk, shrink};
pub use single::narrate;

use crate::marks::Marks;
use crate::swarm::Outcome;

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What went wrong.
    pub failure: String,
}

/// What became of seeds, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed, in their order.
    pub failed: Vec<Failed>,
    /// How much happened.
    pub events: u64,
    /// Completions the reactors took.
    pub completions: u64,
    /// A hash over the hashes of all, in their order.
    pub hash: u64,
    /// Rare events that were met.
    pub marks: Marks,
}

impl Tally {
    /// Takes in the next seed.
    pub fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.completions += outcome.completions;
        self.hash = (self.hash.rotate_left(5) ^ outcome.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.marks.add(&outcome.marks);
        let seed = outcome.seed;
        self.failed.extend(outcome.failure.map(|failure| Failed { seed, failure }));
    }
}

/// What kind of failure a text tells of: without digits, and without the details in brackets.
///
/// Two seeds that fail in one way, or one seed before and after it was made smaller, differ in numbers; which
/// details are in brackets is up to whoever writes the text.
#[must_use]
pub fn kind(failure: &str) -> String {
    let mut depth = 0_u32;
    let mut kind = String::new();
    for c in failure.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ if depth > 0 || c.is_ascii_digit() => {}
            _ => kind.push(c),
        }
    }
    kind.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_kind_differ_in_numbers_and_details() {
        let one = "peer 23 read a whole stream of 2231 bytes, but 8 of them (None)";
        let two = "peer 7 read a whole stream of 1 bytes, but 0 of them (Some(IdleTimeout))";
        assert_eq!(kind(one), "peer read a whole stream of bytes, but of them");
        assert_eq!(kind(one), kind(two));
        assert_ne!(kind(one), kind("the drain did not end by its deadline"));
        assert_eq!(kind("peers: peer 2 (Talk { sent: 3 }), peer 4 ([])"), "peers: peer , peer");
        assert_eq!(kind(")) unbalanced ("), "unbalanced");
    }
}
