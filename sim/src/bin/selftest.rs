//! Checks whether this machine's kernel does what the simulation says that kernels do.
//!
//! Exit codes: 0 if every outcome was foreseen; 1 if one was not; 2 if io_uring cannot be used at all, or for
//! a wrong argument.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::process::ExitCode;

use slipring_core::sys::probe;
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
            "-h" | "--help" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
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
        chosen.iter().for_each(|case| println!("{:28} {}", case.name, case.pins));
        return ExitCode::SUCCESS;
    }
    run(&chosen, json)
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("selftest: {why}\n\n{USAGE}");
    ExitCode::from(2)
}

fn run(chosen: &[Case], json: bool) -> ExitCode {
    let features = match probe() {
        Ok(features) => features,
        Err(error) => {
            eprintln!("selftest: {error}");
            return ExitCode::from(2);
        }
    };
    if !json {
        println!("tier: {features}");
    }
    let (mut unforeseen, mut skipped) = (0, 0);
    for case in chosen {
        let allowed = allowed(case);
        let verdict = match real(case, &features) {
            Err(reason) => Verdict::Skipped(reason),
            Ok(outcome) if allowed.contains(&outcome) => Verdict::Allowed(outcome),
            Ok(outcome) => Verdict::Unforeseen(outcome),
        };
        unforeseen += usize::from(matches!(verdict, Verdict::Unforeseen(_)));
        skipped += usize::from(matches!(verdict, Verdict::Skipped(_)));
        if json {
            print_json(case, &verdict, allowed.len());
        } else {
            print_row(case, &verdict);
        }
    }
    if !json {
        let allowed = chosen.len() - unforeseen - skipped;
        println!("{allowed} allowed, {unforeseen} not foreseen, {skipped} cannot run here");
    }
    ExitCode::from(u8::from(unforeseen > 0))
}

fn print_row(case: &Case, verdict: &Verdict) {
    let mut lines = verdict.outcome().iter();
    let first = lines.next().map_or("", String::as_str);
    println!("{:28} {:16} {first}", case.name, verdict.word());
    lines.for_each(|line| println!("{:28} {:16} {line}", "", ""));
    if let Verdict::Unforeseen(_) = verdict {
        println!("{:28} it pins: {}", "", case.pins);
        println!("{:28} a healthy simulated kernel: {:?}", "", calm(case));
    }
}

fn print_json(case: &Case, verdict: &Verdict, allowed: usize) {
    let outcome: Vec<String> = verdict.outcome().iter().map(|line| quoted(line)).collect();
    println!(
        "{{\"script\":{},\"pins\":{},\"verdict\":{},\"outcome\":[{}],\"allowed\":{allowed}}}",
        quoted(case.name),
        quoted(case.pins),
        quoted(verdict.word()),
        outcome.join(","),
    );
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
