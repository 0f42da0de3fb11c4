//! The harness of the comparison benches: start servers, drive them in turn, print rows of ratios.
//!
//! ```text
//!   binaries ──> contenders ──> round: start A, load A, end A, start B, ...  ──> samples ──> table
//!                               round: ...                                  (ratios in a round)
//! ```
//! Absolute figures drift from minute to minute, so every ratio is taken between two runs of one
//! round, a few seconds apart, and the median and the spread over the rounds are printed. The
//! server has CPU 0 to itself, the load generator CPU 1. The main figure is the server's CPU time a
//! unit of work: it holds still when wall throughput does not.
//!
//! All of it is loopback on one machine: no network card, no wire, no packet loss. It is not a
//! criterion bench and keeps no history; a result worth keeping is written into
//! `docs/performance.md` by whoever ran it. The rows that time a function of this process (P6, P7)
//! are criterion's; [`micro`] is what they share. [`heap`] is for those that may allocate nothing.

pub mod binaries;
pub mod certificate;
pub mod clock;
pub mod contenders;
pub mod drive;
pub mod heap;
pub mod held;
pub mod micro;
pub mod probe;
pub mod process;
pub mod proxies;
pub mod rounds;
pub mod settings;
pub mod table;
pub mod usage;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Where servers run, and where everything that loads them does.
pub const SERVER_CPU: usize = 0;
/// See `SERVER_CPU`.
pub const CLIENT_CPU: usize = 1;

/// One line of the report, on standard output.
pub fn say(line: impl Display) {
    // A closed pipe is the reader's choice; the children must still be ended in order.
    drop(writeln!(io::stdout(), "{line}"));
}

/// One line about what goes on, on standard error, so that the report can be kept apart.
pub fn note(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}

/// The `main` of a bench: pins it to the clients' CPU, runs it, tells what failed.
pub fn run_bench(title: &str, bench: impl FnOnce() -> io::Result<()>) -> ExitCode {
    note(format_args!("{title}: servers on CPU {SERVER_CPU}, clients on CPU {CLIENT_CPU}"));
    match crate::pin::pin_to_cpu(CLIENT_CPU).and_then(|()| bench()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("{title}: {error}"));
            ExitCode::FAILURE
        }
    }
}
