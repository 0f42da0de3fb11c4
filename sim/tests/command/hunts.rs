//! `sim --canary` in a build without them: what the build that has them is told, and when it ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::signal;

/// A hunt with a cargo that makes nothing.
fn hunt(arguments: &str) -> Child {
    let cargo = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/cargo");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    let command = command.args(arguments.split_whitespace()).env("CARGO", cargo);
    command.stdout(Stdio::piped()).spawn().expect("it can be run")
}

#[test]
fn a_build_for_a_hunt_is_told_all_and_ends_with_it() {
    for wanted in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut child = hunt("--canary all --seeds 7 --knobs panics=3,short_send=4 --off panics");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says something");
        for option in ["--canary all", "--seeds 7", "--knobs short_send=4,panics=3", "--off panics"]
        {
            assert!(line.contains(option), "{option}: {line}");
        }
        signal(&child, wanted);
        // All that write there have to end first.
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("it is text");
        assert_eq!(rest, "");
        let status = child.wait().expect("it is ours");
        assert_eq!(status.signal(), Some(wanted.as_raw()));
    }
}
