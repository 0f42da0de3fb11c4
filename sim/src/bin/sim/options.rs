//! The command line of `sim`, and what it asks for once it has been understood.
//!
//! Is: text in, a [`Task`] out, whose parts fit together. Is not: a run.

use clap::Parser;
use slipring_sim::Knobs;
use slipring_sim::campaign::canary::{self, Ask};
use slipring_sim::campaign::{Campaign, knobs};
use slipring_sim::swarm::Options;

/// Seeds, if nobody says how many.
const SEEDS: u64 = 1_000;
/// More threads than any machine makes use of.
const JOBS_MAX: u64 = 1_024;

/// Runs reactors, handlers and peers under a simulated kernel, each run drawn from a seed.
///
/// Seeds that fail are made smaller, and come with the line that runs them again. Ends with 0 when all
/// passed, 1 when one failed or a long run missed a mark, 2 when it could not start.
#[derive(Parser, Debug)]
#[command(name = "sim", args_override_self = true)]
struct Arguments {
    /// How many seeds [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,

    /// The first of them [default: 0]
    #[arg(long, value_name = "SEED")]
    from: Option<u64>,

    /// This seed only, told at length
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,

    /// Events after which the faults end [default: 5000]
    #[arg(long, value_name = "N")]
    events: Option<u64>,

    /// Knobs to put to rest
    #[arg(long, value_name = "KNOB,KNOB..", value_parser = names)]
    off: Option<Names>,

    /// Knobs to turn instead of those drawn; the others are at rest
    #[arg(long, value_name = "KNOB=N,..", value_parser = knobs::settings)]
    knobs: Option<Knobs>,

    /// Services that are tasks, and not the handlers that the seeds draw
    #[arg(long)]
    tasks: bool,

    /// Pools, retries and breakers of upstreams that die and come back, and not the services that seeds draw
    #[arg(long)]
    upstreams: bool,

    /// The seeds that once found something
    #[arg(long)]
    corpus: bool,

    /// Whether mistakes made on purpose are found: one of them, or each; or which there are
    #[arg(long, value_name = "NAME|list|all")]
    canary: Option<Ask>,

    /// Threads [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=JOBS_MAX))]
    jobs: Option<u64>,

    /// A mark that is missed is a failure, however few the seeds
    #[arg(long)]
    marks: bool,

    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// (An alias, because clap reads a `Vec` as "may be repeated".)
type Names = Vec<String>;

fn names(text: &str) -> Result<Names, String> {
    knobs::names(text)
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// One seed.
    One(u64, Options),
    /// Many.
    Many(Campaign),
    /// Those of the corpus.
    Corpus,
    /// Those that find a mistake made on purpose.
    Canary(Ask, Campaign),
}

/// What to do, and how to tell of it.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) what: What,
    pub(crate) marks: bool,
    pub(crate) json: bool,
}

/// Why there is no task.
#[derive(Debug)]
pub(crate) enum NoTask {
    /// Help was asked for; this is it.
    Help(String),
    /// The command line is wrong: the cause; the remedy.
    Refused(String),
}

impl Task {
    /// Reads a command line, the program's name first.
    pub(crate) fn parse(command_line: impl IntoIterator<Item = String>) -> Result<Self, NoTask> {
        let given = Arguments::try_parse_from(command_line).map_err(|error| {
            let text = error.to_string();
            if error.use_stderr() { NoTask::Refused(one_line(&text)) } else { NoTask::Help(text) }
        })?;
        given.check().map_err(NoTask::Refused)?;
        let (marks, json) = (given.marks, given.json);
        Ok(Self { what: given.what().map_err(NoTask::Refused)?, marks, json })
    }
}

impl Arguments {
    /// Refuses what does not go together.
    fn check(&self) -> Result<(), String> {
        let tasks = [
            (self.seed.is_some(), "--seed"),
            (self.corpus, "--corpus"),
            (self.canary.is_some(), "--canary"),
        ];
        if self.tasks && self.marks {
            return Err(
                "--tasks does not go with --marks, which are of handlers too; leave one out"
                    .to_owned(),
            );
        }
        if self.upstreams && (self.marks || self.tasks) {
            return Err("--upstreams does not go with --marks and --tasks, which are of services; leave them out"
                .to_owned());
        }
        let tasks: Vec<&str> =
            tasks.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
        let &[task, ref others @ ..] = tasks.as_slice() else { return Ok(()) };
        // A hunt may be given its seeds, and how they are run; it has words of its own.
        let hunts = task == "--canary";
        let settings = [
            (self.seeds.is_some() && !hunts, "--seeds"),
            (self.from.is_some() && !hunts, "--from"),
            (self.jobs.is_some() && !hunts, "--jobs"),
            (self.marks, "--marks"),
            (self.json && hunts, "--json"),
            (self.events.is_some() && task == "--corpus", "--events"),
            (self.tasks && task == "--corpus", "--tasks"),
            (self.upstreams && task == "--corpus", "--upstreams"),
            (self.off.is_some() && task == "--corpus", "--off"),
            (self.knobs.is_some() && task == "--corpus", "--knobs"),
        ];
        let given = settings.iter().filter(|(given, _)| *given).map(|(_, name)| *name);
        match others.iter().copied().chain(given).next() {
            Some(other) => Err(format!("{task} does not go with {other}; leave one of them out")),
            None => Ok(()),
        }
    }

    fn what(self) -> Result<What, String> {
        if self.corpus {
            return Ok(What::Corpus);
        }
        let defaults = Options::default();
        let options = Options {
            events: self.events.unwrap_or(defaults.events),
            knobs: self.knobs,
            off: self.off.unwrap_or_default(),
            tasks: self.tasks,
            upstreams: self.upstreams,
            ..defaults
        };
        if let Some(seed) = self.seed {
            return Ok(What::One(seed, options));
        }
        let seeds = if self.canary.is_some() { canary::SEEDS } else { SEEDS };
        let (from, seeds) = (self.from.unwrap_or(0), self.seeds.unwrap_or(seeds));
        if from.checked_add(seeds).is_none() {
            return Err(format!("there are no {seeds} seeds from {from} on; begin lower"));
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.jobs.map_or_else(cores, |jobs| jobs as usize);
        let campaign = Campaign { from, seeds, jobs, options };
        Ok(match self.canary {
            Some(ask) => What::Canary(ask, campaign),
            None => What::Many(campaign),
        })
    }
}

/// What clap says before it shows the usage, without its line breaks.
fn one_line(text: &str) -> String {
    let cause = text.split("\n\n").next().unwrap_or(text).trim_start_matches("error: ");
    let words: Vec<&str> = cause.split_whitespace().collect();
    let line = words.join(" ");
    // Refusals of our own bring their remedy.
    if line.contains("; ") { line } else { format!("{line}; see sim --help") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Task, NoTask> {
        let words = std::iter::once("sim").chain(arguments.split_whitespace());
        Task::parse(words.map(str::to_owned))
    }

    fn campaign(arguments: &str) -> Campaign {
        match parse(arguments) {
            Ok(Task { what: What::Many(campaign), .. }) => campaign,
            other => panic!("{arguments}: {other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let all = campaign("");
        assert_eq!((all.from, all.seeds), (0, 1_000));
        assert_eq!(all.options.events, Options::default().events);
        assert!(all.jobs >= 1 && all.options.off.is_empty());
        let given = campaign("--seeds 5 --from 7 --events 9 --off panics,scribble --jobs 3 --json");
        assert_eq!((given.from, given.seeds, given.jobs, given.options.events), (7, 5, 3, 9));
        assert_eq!(given.options.off, ["panics", "scribble"]);
        assert!(!given.options.tasks && campaign("--tasks").options.tasks);
    }

    #[test]
    fn one_seed_the_corpus_and_canaries_are_tasks_of_their_own() {
        let one = parse("--seed 7 --events 40 --knobs panics=3 --off -").expect("it is complete");
        assert!(matches!(one.what, What::One(7, Options { events: 40, knobs: Some(_), .. })));
        let corpus = parse("--corpus --json").expect("it is complete");
        assert!(matches!(corpus, Task { what: What::Corpus, json: true, .. }));
        let canary =
            parse("--canary early_free --seeds 5000 --knobs panics=3").expect("it is complete");
        assert!(matches!(canary.what, What::Canary(Ask::One(name), _) if name == "early_free"));
    }

    #[test]
    fn bad_input_is_refused_in_one_line() {
        for bad in [
            "--seeds 0",
            "--seeds many",
            "--seeds -1",
            "--from x",
            "--jobs 0",
            "--jobs 1025",
            "--off no_such_knob",
            "--knobs panics",
            "--seed 1 --seeds 2",
            "--seed 1 --from 2",
            "--seed 1 --corpus",
            "--seed 1 --marks",
            "--seed 1 --jobs 2",
            "--corpus --off panics",
            "--corpus --tasks",
            "--tasks --marks",
            "--upstreams --marks",
            "--upstreams --tasks",
            "--corpus --upstreams",
            "--corpus --canary all",
            "--canary all --json",
            "--canary list --marks",
            "--from 18446744073709551615 --seeds 2",
            "--verbose",
            "7",
        ] {
            match parse(bad) {
                Err(NoTask::Refused(text)) => {
                    assert!(text.contains("; ") && !text.contains('\n'), "{bad}: {text}");
                }
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_knob_is_answered_with_those_there_are() {
        let Err(NoTask::Refused(text)) = parse("--off short_sends") else {
            panic!("it is unknown")
        };
        assert!(
            text.contains("no knob is called `short_sends`") && text.contains("lost_dial"),
            "{text}"
        );
    }

    #[test]
    fn help_is_not_a_refusal() {
        assert!(matches!(parse("--help"), Err(NoTask::Help(text)) if text.contains("--canary")));
    }
}
