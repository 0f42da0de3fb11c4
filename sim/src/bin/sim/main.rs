//! `sim`: runs seeds under the simulated kernel, and makes those that fail small.
//!
//! The report is on standard output, everything else on standard error. Exit codes: 0 all seeds passed (and
//! in a long run every mark was reached), 1 one failed or a mark was missed, 2 it could not start or not write
//! its report (one line: the cause; the remedy), 130 it was interrupted and all seeds so far passed. What it
//! does is in `slipring_sim::campaign`; here are its command line, its progress bar and its exit.

mod options;
mod progress;
mod say;
mod signals;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use slipring_core::clock::MonotonicClock;
use slipring_sim::campaign::{
    Campaign, Report, Tally, canary, corpus, demands_marks, findings, narrate,
};
use slipring_sim::swarm::{self, Options};

use options::{NoTask, Task, What};
use progress::Progress;

/// A seed failed, or a mark was missed that had to be reached.
const EXIT_FAILED: u8 = 1;
/// Nothing was run, for a reason the caller can put right.
const EXIT_REFUSED: u8 = 2;
/// It was stopped by a signal before anything failed: 128 and SIGINT, as a shell has it.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let task = match Task::parse(std::env::args()) {
        Ok(task) => task,
        Err(NoTask::Help(text)) => return say(&text, ExitCode::SUCCESS),
        Err(NoTask::Refused(refusal)) => return refuse(&refusal),
    };
    swarm::capture_panics();
    match &task.what {
        What::Canary(ask, campaign) => match canary::hunt(ask, campaign, signals::run_group) {
            Ok(answer) => say(&answer.text, exit_code(answer.all_found)),
            Err(refusal) => refuse(&refusal),
        },
        What::Corpus => run_corpus(&task),
        What::One(seed, options) => run_one(&task, *seed, options),
        What::Many(campaign) => run_many(&task, campaign),
    }
}

fn run_many(task: &Task, campaign: &Campaign) -> ExitCode {
    let stop = match signals::stop_on_signal() {
        Ok(stop) => stop,
        Err(error) => return refuse(&format!("cannot watch for signals: {error}; report this")),
    };
    let clock = MonotonicClock::start();
    let mut progress = Progress::new(!task.json, campaign.seeds);
    let result = campaign.run_until(&stop, |tally| progress.show(tally, clock.now_us()));
    drop(progress);
    match result {
        Ok(tally) => {
            let seconds = seconds(&clock);
            let is_over = || stop.load(Ordering::Relaxed);
            let findings = findings(&tally.failed, &campaign.options, is_over);
            let options = campaign.options.clone();
            let interrupted_of = (tally.seeds < campaign.seeds).then_some(campaign.seeds);
            let demands_marks = interrupted_of.is_none()
                && !options.tasks
                && !options.upstreams
                && (task.marks || demands_marks(tally.seeds));
            tell(task, &Report { tally, options, findings, seconds, demands_marks, interrupted_of })
        }
        Err(stuck) => {
            say::err(&format!("sim: {stuck}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run_one(task: &Task, seed: u64, options: &Options) -> ExitCode {
    let clock = MonotonicClock::start();
    let options = Options { records: true, ..options.clone() };
    let outcome = swarm::run(seed, &options);
    let seconds = seconds(&clock);
    if !task.json {
        return say(&narrate(&outcome, &options), exit_code(outcome.failure.is_none()));
    }
    let mut tally = Tally::default();
    tally.add(outcome);
    let report = Report {
        tally,
        options,
        findings: Vec::new(),
        seconds,
        demands_marks: false,
        interrupted_of: None,
    };
    tell(task, &report)
}

fn run_corpus(task: &Task) -> ExitCode {
    let entries = match corpus::entries(corpus::TEXT) {
        Ok(entries) => entries,
        Err(refusal) => return refuse(&refusal),
    };
    let clock = MonotonicClock::start();
    let (tally, findings) = corpus::run(&entries);
    let report = Report {
        tally,
        options: Options::default(),
        findings,
        seconds: seconds(&clock),
        demands_marks: false,
        interrupted_of: None,
    };
    tell(task, &report)
}

fn tell(task: &Task, report: &Report) -> ExitCode {
    let text = if task.json { report.json() + "\n" } else { report.text() };
    let code = match (report.is_clean(), report.interrupted_of) {
        (true, Some(_)) => ExitCode::from(EXIT_INTERRUPTED),
        (is_clean, _) => exit_code(is_clean),
    };
    say(&text, code)
}

fn seconds(clock: &MonotonicClock) -> f64 {
    clock.now_us() as f64 / 1e6
}

fn exit_code(is_clean: bool) -> ExitCode {
    if is_clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

fn refuse(refusal: &str) -> ExitCode {
    say::err(&format!("sim: {refusal}\n"));
    ExitCode::from(EXIT_REFUSED)
}

/// Ends with this code, unless what it means to say is lost.
fn say(text: &str, code: ExitCode) -> ExitCode {
    say::exit("sim", say::out(text), code)
}
