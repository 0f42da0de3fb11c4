//! Checks whether this machine's kernel does what the simulation says that kernels do.
//!
//! Exit codes: 0 if every outcome was foreseen; 1 if one was not; 2 if io_uring cannot be used at all, if the
//! report cannot be written, or for a wrong argument.

#[path = "sim/say.rs"]
mod say;

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use slipring_core::sys::{Features, probe};
use slipring_sim::conformance::{Case, Outcome, allowed, calm, cases, real};

const USAGE: &str = "\
usage: selftest [--json] [--list] [NAME...]

Runs small scripts against this machine's kernel and compares what they see with what the simulated
kernel can do. A NAME runs the scripts whose name contains it.

  --list   name the scripts and what each pins, and run none
  --json   one object per line instead of the table";

/// How a script fared.
enum Verdict {
    Allowed(Outcome),
    Unforeseen(Outcome),
    /// It cannot run here, for this reason.
    Skipped(String),
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "allowed",
            Self::Unforeseen(_) => "NOT FORESEEN",
            Self::Skipped(_) => "cannot run here",
        }
    }

    fn outcome(&self) -> &[String] {
        match self {
            Self::Allowed(outcome) | Self::Unforeseen(outcome) => outcome,
            Self::Skipped(reason) => std::slice::from_ref(reason),
        }
    }
}

fn main() -> ExitCode {
    let (mut json, mut list, mut names) = (false, false, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--list" => list = true,
            "-h" | "--help" => return exit(say::out(&format!("{USAGE}\n")), ExitCode::SUCCESS),
            flag if flag.starts_with('-') => return refuse(&format!("unknown argument {flag}")),
            name => names.push(name.to_owned()),
        }
    }
    let chosen = |case: &Case| names.is_empty() || names.iter().any(|n| case.name.contains(&**n));
    let chosen: Vec<Case> = cases().into_iter().filter(chosen).collect();
    if chosen.is_empty() {
        return refuse("no script has such a name");
    }
    if list {
        let row = |case: &Case| format!("{:28} {}\n", case.name, case.pins);
        let rows: String = chosen.iter().map(row).collect();
        return exit(say::out(&rows), ExitCode::SUCCESS);
    }
    let features = match probe() {
        Ok(features) => features,
        Err(error) => {
            say::err(&format!("selftest: {error}\n"));
            return ExitCode::from(2);
        }
    };
    match run(&chosen, &features, json) {
        Ok(unforeseen) => ExitCode::from(u8::from(unforeseen > 0)),
        Err(error) => exit(Err(error), ExitCode::SUCCESS),
    }
}

fn refuse(why: &str) -> ExitCode {
    say::err(&format!("selftest: {why}\n\n{USAGE}\n"));
    ExitCode::from(2)
}

fn exit(report: io::Result<()>, code: ExitCode) -> ExitCode {
    say::exit("selftest", report, code)
}

/// Runs scripts and tells of each; how many outcomes were not foreseen.
fn run(chosen: &[Case], features: &Features, json: bool) -> io::Result<usize> {
    if !json {
        say::out(&format!("tier: {features}\n"))?;
    }
    let (mut unforeseen, mut skipped) = (0, 0);
    for case in chosen {
        let allowed = allowed(case);
        let verdict = match real(case, features) {
            Err(reason) => Verdict::Skipped(reason),
            Ok(outcome) if allowed.contains(&outcome) => Verdict::Allowed(outcome),
            Ok(outcome) => Verdict::Unforeseen(outcome),
        };
        unforeseen += usize::from(matches!(verdict, Verdict::Unforeseen(_)));
        skipped += usize::from(matches!(verdict, Verdict::Skipped(_)));
        say::out(&match json {
            true => object(case, &verdict, allowed.len()),
            false => row(case, &verdict),
        })?;
    }
    if !json {
        let allowed = chosen.len() - unforeseen - skipped;
        let sum =
            format!("{allowed} allowed, {unforeseen} not foreseen, {skipped} cannot run here\n");
        say::out(&sum)?;
    }
    Ok(unforeseen)
}

/// A row of the table, or several.
fn row(case: &Case, verdict: &Verdict) -> String {
    let mut lines = verdict.outcome().iter();
    let first = lines.next().map_or("", String::as_str);
    let mut row = format!("{:28} {:16} {first}\n", case.name, verdict.word());
    for line in lines {
        let _ = writeln!(row, "{:28} {:16} {line}", "", "");
    }
    if let Verdict::Unforeseen(_) = verdict {
        let _ = writeln!(row, "{:28} it pins: {}", "", case.pins);
        let _ = writeln!(row, "{:28} a healthy simulated kernel: {:?}", "", calm(case));
    }
    row
}

/// A line of JSON.
fn object(case: &Case, verdict: &Verdict, allowed: usize) -> String {
    let outcome: Vec<String> = verdict.outcome().iter().map(|line| quoted(line)).collect();
    format!(
        "{{\"script\":{},\"pins\":{},\"verdict\":{},\"outcome\":[{}],\"allowed\":{allowed}}}\n",
        quoted(case.name),
        quoted(case.pins),
        quoted(verdict.word()),
        outcome.join(","),
    )
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
