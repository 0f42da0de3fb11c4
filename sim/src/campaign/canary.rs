//! Canaries: mistakes put into the code on purpose, to see that the simulation finds them.
//!
//! Is: what `--canary` asks for, the hunt for one, and how a build that carries them comes to be. Is not: the
//! mistakes; they stand in the code that they spoil (`slipring_core::canary`), behind a feature that no
//! release build can have.
//!
//! A build without them makes one that has them, with cargo, and hands the question on.

use std::convert::Infallible;
use std::io;
use std::process::{Command, ExitStatus};
use std::str::FromStr;

use slipring_core::canary::Canary;

use super::Campaign;

/// A canary has to be found within so many seeds, if nobody says how many.
pub const SEEDS: u64 = 5_000;
/// Half of them within so many.
pub const MEDIAN_MAX: u64 = 500;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which there are.
    List,
    /// Each of them is to be found.
    All,
    /// This one is to be found.
    One(String),
}

impl FromStr for Ask {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "list" => Self::List,
            "all" => Self::All,
            name => Self::One(name.to_owned()),
        })
    }
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Everything that was to be found was.
    pub all_found: bool,
    /// In words; empty if another build has said them.
    pub text: String,
}

/// Hunts what is asked for, over the seeds of the campaign. `run` runs a program to its end, which a build
/// without canaries needs; whoever does may have signals to pass on.
///
/// # Errors
/// Cause and remedy, if there is nothing to hunt.
pub fn hunt(
    ask: &Ask,
    campaign: &Campaign,
    run: impl FnOnce(&mut Command) -> io::Result<ExitStatus>,
) -> Result<Answer, String> {
    let wanted: Vec<Canary> = match ask {
        Ask::List => return Ok(Answer { all_found: true, text: list() }),
        Ask::All => Canary::ALL.to_vec(),
        Ask::One(name) => vec![find(name)?],
    };
    carried::hunt(&wanted, campaign, run)
}

fn find(name: &str) -> Result<Canary, String> {
    let found = Canary::ALL.iter().find(|canary| canary.name() == name).copied();
    found.ok_or_else(|| {
        let names: Vec<&str> = Canary::ALL.iter().map(|canary| canary.name()).collect();
        format!("no canary is called `{name}`; there are {}", names.join(", "))
    })
}

fn list() -> String {
    let line = |canary: &Canary| format!("{:26} {}\n", canary.name(), canary.mistake());
    Canary::ALL.iter().map(line).collect()
}

/// The hunt itself, in a build that carries them.
#[cfg(feature = "canaries")]
mod carried {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::io;
    use std::process::{Command, ExitStatus};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use slipring_core::canary::{Canary, sing};

    use super::{Answer, Campaign, MEDIAN_MAX};
    use crate::swarm::{self, Options};

    pub(super) fn hunt(
        wanted: &[Canary],
        campaign: &Campaign,
        _: impl FnOnce(&mut Command) -> io::Result<ExitStatus>,
    ) -> Result<Answer, String> {
        sing(None);
        // What fails by itself proves nothing.
        let about = wanted.iter().map(|canary| (canary.is_of_tasks(), canary.is_of_upstreams()));
        for (tasks, upstreams) in about.collect::<BTreeSet<_>>() {
            let tasks = campaign.options.tasks || tasks;
            let upstreams = campaign.options.upstreams || upstreams;
            let options = Options { tasks, upstreams, ..campaign.options.clone() };
            let campaign = Campaign { options, ..campaign.clone() };
            if let Some((seed, failure)) = first_failure(&campaign, &[]) {
                return Err(format!(
                    "seed {seed} fails without a canary ({failure}); mend that first, or choose other seeds"
                ));
            }
        }
        let mut text = String::new();
        let mut seeds = Vec::new();
        for &canary in wanted {
            sing(Some(canary));
            let tasks = campaign.options.tasks || canary.is_of_tasks();
            let upstreams = campaign.options.upstreams || canary.is_of_upstreams();
            let options = Options { tasks, upstreams, ..campaign.options.clone() };
            let campaign = Campaign { options, ..campaign.clone() };
            let found = first_failure(&campaign, words_of(canary));
            sing(None);
            let name = canary.name();
            let _ = match &found {
                Some((seed, failure)) => {
                    let after = seed - campaign.from + 1;
                    seeds.push(after);
                    writeln!(text, "{name:26} found after {after:5} seeds: {failure}")
                }
                None => writeln!(text, "{name:26} NOT FOUND in {} seeds", campaign.seeds),
            };
        }
        let all = seeds.len() == wanted.len();
        seeds.sort_unstable();
        let (median, most) = (seeds.get(seeds.len() / 2), seeds.last());
        if let (Some(median), Some(most)) = (median, most) {
            let (found, wanted) = (seeds.len(), wanted.len());
            let _ = writeln!(text, "{found} of {wanted} found, median {median} seeds, most {most}");
        }
        let soon = wanted.len() == 1 || median.is_some_and(|median| *median < MEDIAN_MAX);
        Ok(Answer { all_found: all && soon, text })
    }

    /// What the check says that is meant for it, in one of these words; any check, if there are none. A mistake breaks
    /// much, and one that only others find says nothing of its own.
    fn words_of(canary: Canary) -> &'static [&'static str] {
        match canary {
            Canary::CapTokenKept => &["pending, and nobody asks", "connections are counted"],
            Canary::PassedTokenLost => &["no connection was free in time", "are counted, and"],
            Canary::ProbePermitKept => &["permits of the breaker are out"],
            Canary::OpenLetsPass => &["have passed a breaker"],
            Canary::StaleGivenOut => &["got the connection of"],
            Canary::PoolWaiterNotWoken => &["never came to an end", "all is well, and a call"],
            Canary::RepeatsAnything => &["times, and may"],
            Canary::BudgetIgnored => &["retries, and", "calls were made again"],
            Canary::UncleanKept => &["while another one was not answered", "reads the answer of"],
            Canary::DialsUncounted => &["dials to"],
            Canary::AbandonedPoolKept => &["of an upstream that is gone"],
            Canary::InFlightKept => &["in flight, and nobody asks"],
            Canary::TriedForgotten => &["one endpoint is steady, and call"],
            Canary::FailuresUntold => &["have failed", "and a call has failed"],
            _ => &[],
        }
    }

    fn is_of(failure: &str, words: &[&str]) -> bool {
        words.is_empty() || words.iter().any(|words| failure.contains(words))
    }

    /// The first seed that fails in one of these words, or in any, whatever the number of jobs.
    fn first_failure(campaign: &Campaign, words: &[&str]) -> Option<(u64, String)> {
        let (next, best) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        thread::scope(|scope| {
            for _ in 0..campaign.jobs {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        if place >= campaign.seeds || place > best.load(Ordering::Relaxed) {
                            return;
                        }
                        let failure = swarm::run(campaign.from + place, &campaign.options).failure;
                        if failure.is_some_and(|failure| is_of(&failure, words)) {
                            best.fetch_min(place, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let seed = campaign
            .from
            .checked_add(best.into_inner())
            .filter(|seed| seed - campaign.from < campaign.seeds)?;
        let failure = swarm::run(seed, &campaign.options).failure?;
        Some((seed, failure.chars().take(100).collect()))
    }
}

/// The hunt by another build, made for it.
#[cfg(not(feature = "canaries"))]
mod carried {
    use std::io;
    use std::process::{Command, ExitStatus};

    use slipring_core::canary::Canary;

    use super::{Answer, Campaign};
    use crate::campaign::knobs;

    /// How such a build is made and run.
    const BUILD: [&str; 8] =
        ["run", "--quiet", "--profile", "canary", "--features", "canaries", "--bin", "sim"];
    /// Where this build came from.
    const SOURCES: &str = env!("CARGO_MANIFEST_DIR");

    pub(super) fn hunt(
        wanted: &[Canary],
        campaign: &Campaign,
        run: impl FnOnce(&mut Command) -> io::Result<ExitStatus>,
    ) -> Result<Answer, String> {
        let name = match wanted {
            [one] => one.name(),
            _ => "all",
        };
        let remedy = format!("in the sources: cargo {} -- --canary {name}", BUILD.join(" "));
        let refuse =
            |cause: String| format!("this build carries no canaries, and {cause}; {remedy}");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(SOURCES).args(BUILD).args(["--", "--canary", name]);
        for (flag, number) in [
            ("--from", campaign.from),
            ("--seeds", campaign.seeds),
            ("--events", campaign.options.events),
            ("--jobs", campaign.jobs as u64),
        ] {
            cargo.args([flag, &number.to_string()]);
        }
        if campaign.options.tasks {
            cargo.arg("--tasks");
        }
        if campaign.options.upstreams {
            cargo.arg("--upstreams");
        }
        if !campaign.options.off.is_empty() {
            cargo.args(["--off", &campaign.options.off.join(",")]);
        }
        if let Some(turned) = &campaign.options.knobs {
            cargo.args(["--knobs", &knobs::or_dash(knobs::written(turned))]);
        }
        let status = run(&mut cargo)
            .map_err(|error| refuse(format!("one cannot be made: cargo: {error}")))?;
        match status.code() {
            Some(code @ (0 | 1)) => Ok(Answer { all_found: code == 0, text: String::new() }),
            _ => Err(refuse(format!("the one that does ended with {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_of_them_and_each_says_what_it_is() {
        assert!(Canary::ALL.len() >= 25);
        assert_eq!(list().lines().count(), Canary::ALL.len());
        for canary in Canary::ALL {
            assert_eq!(find(canary.name()), Ok(*canary));
            assert!(canary.mistake().ends_with('.'), "{}", canary.name());
        }
    }

    #[test]
    fn an_unknown_one_is_answered_with_those_there_are() {
        assert_eq!("all".parse(), Ok(Ask::All));
        assert_eq!("list".parse(), Ok(Ask::List));
        let refusal = find("EarlyBird").expect_err("there is none");
        assert!(refusal.contains("`EarlyBird`; there are NoGenerationCheck, "), "{refusal}");
    }
}
