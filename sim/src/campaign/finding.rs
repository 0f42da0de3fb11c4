//! What is found out about a failure: the smallest run that shows it, and the line that runs it.

use slipring_core::clock::MonotonicClock;

use super::{Failed, kind, knobs, shrink};
use crate::swarm::{self, Options, Outcome};

/// What the shrinking of one seed may take, microseconds.
const SHRINKING_US: u64 = 10_000_000;
/// The worst that a seed can do.
const UNSTEADY: &str =
    "it passes when it is run again: something besides its seed has a part in it";
/// Kinds of failures that are looked into. With more, something more basic is wrong.
const KINDS_MAX: usize = 5;

/// A failure, looked into.
#[derive(Clone, Debug)]
pub struct Finding {
    /// How it is run, as small as it got.
    pub options: Options,
    /// What becomes of it then, with its story.
    pub outcome: Outcome,
    /// What kind of failure it is.
    pub kind: String,
    /// Seeds that failed like this.
    pub seeds: u64,
}

impl Finding {
    /// Looks into a failing seed, for ten seconds at most, or until `is_over` says that it is enough.
    #[must_use]
    pub fn of(failed: &Failed, options: &Options, is_over: impl Fn() -> bool) -> Self {
        if is_over() {
            return Self::as_it_is(failed, options);
        }
        let clock = MonotonicClock::start();
        let attempt = |options: &Options| swarm::run(failed.seed, options);
        let shrunk = shrink(options, attempt, || is_over() || clock.now_us() > SHRINKING_US);
        Self::as_it_is(failed, shrunk.as_ref().map_or(options, |shrunk| &shrunk.options))
    }

    /// Looks into a failing seed, without making it smaller.
    #[must_use]
    pub fn as_it_is(failed: &Failed, options: &Options) -> Self {
        let options = Options { records: true, ..options.clone() };
        let mut outcome = swarm::run(failed.seed, &options);
        outcome
            .failure
            .get_or_insert_with(|| format!("{UNSTEADY}; once it said: {}", failed.failure));
        Self { options, outcome, kind: kind(&failed.failure), seeds: 1 }
    }

    /// The line that runs it.
    #[must_use]
    pub fn reproduce(&self) -> String {
        reproduce(self.outcome.seed, &self.options)
    }

    /// The line by which the corpus remembers it.
    #[must_use]
    pub fn corpus_line(&self) -> String {
        let (seed, events) = (self.outcome.seed, self.options.events);
        let off = knobs::or_dash(self.options.off.join(","));
        let turned = knobs::or_dash(knobs::written(&self.outcome.knobs));
        let tasks = match (self.options.upstreams, self.options.tasks) {
            (true, _) => " upstreams",
            (false, true) => " tasks",
            (false, false) => "",
        };
        format!("{seed} {events} {off} {turned}{tasks} # {}", self.kind)
    }
}

/// The command line that runs a seed as it was run.
#[must_use]
pub fn reproduce(seed: u64, options: &Options) -> String {
    let mut line = format!("sim --seed {seed} --events {}", options.events);
    if options.tasks {
        line += " --tasks";
    }
    if options.upstreams {
        line += " --upstreams";
    }
    if let Some(turned) = &options.knobs {
        line += &format!(" --knobs {}", knobs::or_dash(knobs::written(turned)));
    }
    if !options.off.is_empty() {
        line += &format!(" --off {}", options.off.join(","));
    }
    line
}

/// The first failure of each kind, looked into, in the order of their seeds. Once `is_over` says so, what is
/// left stays as large as it is.
#[must_use]
pub fn findings(failed: &[Failed], options: &Options, is_over: impl Fn() -> bool) -> Vec<Finding> {
    let mut kinds: Vec<(String, &Failed, u64)> = Vec::new();
    for one in failed {
        let kind = kind(&one.failure);
        match kinds.iter_mut().find(|(known, _, _)| *known == kind) {
            Some((_, _, seeds)) => *seeds += 1,
            None => kinds.push((kind, one, 1)),
        }
    }
    let looked_into = kinds.into_iter().take(KINDS_MAX);
    let look = |first| Finding::of(first, options, &is_over);
    looked_into.map(|(_, first, seeds)| Finding { seeds, ..look(first) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Knobs;

    #[test]
    fn the_line_says_all_that_differs() {
        let mut options = Options { events: 40, ..Options::default() };
        assert_eq!(reproduce(5, &options), "sim --seed 5 --events 40");
        options.off = vec!["panics".to_owned(), "scribble".to_owned()];
        assert_eq!(reproduce(5, &options), "sim --seed 5 --events 40 --off panics,scribble");
        options.tasks = true;
        let tasks = "sim --seed 5 --events 40 --tasks --off panics,scribble";
        assert_eq!(reproduce(5, &options), tasks);
        options.tasks = false;
        options.knobs = Some(Knobs::calm());
        options.off.clear();
        assert_eq!(reproduce(5, &options), "sim --seed 5 --events 40 --knobs -");
    }
}
