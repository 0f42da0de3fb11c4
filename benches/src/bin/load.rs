//! `load`: loads an echo server and measures it.
//!
//! The report is on standard output, everything else on standard error. Exit codes: 0 all was well,
//! 1 something was wrong with the answers, 2 it could not start (one line: the cause; the remedy).
//! What it does, and how, is told in `slipring_benches::load`.

use std::io;
use std::process::ExitCode;

use slipring_benches::load::options::{NoPlan, Plan, Refusal};
use slipring_benches::load::run::run;

/// The answers were wrong, late or missing.
const EXIT_FAULTS: u8 = 1;
/// Nothing was measured, for a reason the caller can put right.
const EXIT_REFUSED: u8 = 2;

fn main() -> ExitCode {
    let plan = match Plan::parse(std::env::args()) {
        Ok(plan) => plan,
        Err(NoPlan::Help(text)) => {
            say(&mut io::stdout(), &text);
            return ExitCode::SUCCESS;
        }
        Err(NoPlan::Refused(refusal)) => return refuse(&refusal),
    };
    match run(&plan) {
        Err(refusal) => refuse(&refusal),
        Ok(report) => {
            let text = if plan.json { report.json() + "\n" } else { report.text() };
            say(&mut io::stdout(), &text);
            if let Some(error) = &report.faults().first_other {
                let text = format!("load: the first of the other errors: {error}\n");
                say(&mut io::stderr(), &text);
            }
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) }
        }
    }
}

fn refuse(refusal: &Refusal) -> ExitCode {
    say(&mut io::stderr(), &format!("load: {refusal}\n"));
    ExitCode::from(EXIT_REFUSED)
}

/// Writes text. A reader who has gone does not want it; the exit code still tells how it went.
fn say(to: &mut impl io::Write, text: &str) {
    drop(to.write_all(text.as_bytes()));
    drop(to.flush());
}
