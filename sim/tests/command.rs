//! The binary as scripts use it: what it prints where, and how it exits.
#![cfg(feature = "cli")]

// A build that carries canaries makes no other.
#[cfg(not(feature = "canaries"))]
#[path = "command/hunts.rs"]
mod hunts;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// What a pipe holds, on Linux.
const PIPE_BYTES: usize = 1 << 16;

fn sim(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    command.args(arguments.split_whitespace()).output().expect("it can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is text")
}

/// The value of a key at the top of the JSON, as it stands there.
fn value<'a>(json: &'a str, key: &str) -> &'a str {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).expect(key);
    rest.split([',', '}']).next().expect("split gives one at least")
}

#[test]
fn the_json_is_one_object_and_the_same_for_any_number_of_jobs() {
    let run = |jobs: u32| {
        let output = sim(&format!("--seeds 40 --from 1000 --jobs {jobs} --json"));
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        let json = text(&output.stdout);
        assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
        assert_eq!(json.lines().count(), 1);
        let clean = json.contains("\"failures\":[]");
        assert_eq!(output.status.code(), Some(i32::from(!clean)));
        json
    };
    let (one, two) = (run(1), run(2));
    assert_eq!(value(&one, "seeds"), "40");
    for key in ["hash", "events", "completions", "failures", "IdleTimeout"] {
        assert_eq!(value(&one, key), value(&two, key), "{key}");
    }
    for key in ["seconds", "seeds_per_second", "completions_per_second"] {
        assert!(value(&one, key).parse::<f64>().is_ok_and(|number| number > 0.0), "{key}");
    }
    assert!(one.contains("\"missed\":["));
}

#[test]
fn one_seed_is_told_at_length() {
    let output = sim("--seed 1 --knobs - --events 500");
    let story = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{story}");
    for words in ["seed 1\n", "service ", "timeouts ", "knobs     all at rest", "passed\n"] {
        assert!(story.contains(words), "{words}: {story}");
    }
}

#[test]
fn marks_that_are_missed_fail_a_run_that_has_to_reach_them() {
    let output = sim("--seeds 1 --from 1 --marks");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("marks that were missed:"));
}

#[test]
fn the_corpus_is_in_the_binary() {
    let output = sim("--corpus");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    for bad in [
        "--off nothing",
        "--seed 1 --seeds 2",
        "--jobs many",
        "--canary NoSuch",
        "--canary all --json",
    ] {
        let output = sim(bad);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert!(output.stdout.is_empty(), "{bad}");
        let line = text(&output.stderr);
        assert!(line.starts_with("sim: ") && line.contains("; "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn a_report_that_is_lost_is_said_in_one_line() {
    for arguments in ["--seeds 1", "--seed 1 --knobs - --events 9", "--canary list", "--help"] {
        let full = File::create("/dev/full").expect("Linux has it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
        let command = command.args(arguments.split_whitespace()).stdout(full);
        let output = command.output().expect("it can be run");
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        let line = text(&output.stderr);
        assert!(line.starts_with("sim: the report cannot be written: "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

/// A run that takes an hour, under way: from then on it catches signals.
fn start_long(stdout: impl Into<Stdio>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sim"));
    let command = command.args(["--seeds", "10000000", "--jobs", "1", "--json"]);
    let mut child = command.stdout(stdout).spawn().expect("it can be run");
    let tasks = format!("/proc/{}/task", child.id());
    let runs_seeds = || {
        let mut tasks = std::fs::read_dir(&tasks).expect("it is not waited for").flatten();
        tasks.any(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name == "sim-0\n")
        })
    };
    while !runs_seeds() {
        assert_eq!(child.try_wait().expect("it is ours"), None);
        std::thread::yield_now();
    }
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it is ours, and not waited for");
}

#[test]
fn an_interrupted_run_tells_what_it_has_run() {
    for wanted in [Signal::INT, Signal::TERM] {
        let child = start_long(Stdio::piped());
        signal(&child, wanted);
        let output = child.wait_with_output().expect("it ends");
        let json = text(&output.stdout);
        assert_eq!(value(&json, "interrupted"), "true");
        let seeds: u64 = value(&json, "seeds").parse().expect("a number");
        assert!(seeds < 10_000_000, "{seeds}");
        let clean = json.contains("\"failures\":[]");
        assert_eq!(output.status.code(), Some(if clean { 130 } else { 1 }), "{json}");
    }
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    // A pipe that is full: the report after the first signal is never taken.
    let (_reader, mut writer) = std::io::pipe().expect("a pipe can be had");
    writer.write_all(&[0; PIPE_BYTES]).expect("it has room");
    let mut child = start_long(writer);
    signal(&child, Signal::INT);
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        signal(&child, Signal::TERM);
        std::thread::yield_now();
    };
    assert!(matches!(status.signal(), Some(libc::SIGINT | libc::SIGTERM)), "{status}");
}
