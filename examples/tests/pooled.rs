//! `pooled_client` and `failover` as processes: what they print, and that they end by themselves in time.

mod support;

use std::process::Command;
use std::time::Duration;

use support::{Serving, now, refusal};

const POOLED: &str = env!("CARGO_BIN_EXE_pooled_client");
const FAILOVER: &str = env!("CARGO_BIN_EXE_failover");

/// What it prints until it ends by itself, in order.
#[track_caller]
fn lines(program: &str, arguments: &[&str], within: Duration) -> Vec<String> {
    let begun = now();
    let (status, stderr, lines) = Serving::start(program, arguments).ended();
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0), "{lines:#?}\n{stderr}");
    assert!(took < within, "it took {took:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    lines
}

/// The numbers in the line that begins like this.
#[track_caller]
fn numbers(lines: &[String], begins: &str) -> Vec<f64> {
    let line = lines.iter().find(|line| line.trim_start().starts_with(begins));
    let line = line.unwrap_or_else(|| panic!("no line begins with {begins}: {lines:#?}"));
    let words = line.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn requests_to_endpoints_in_trouble_are_answered_and_what_was_done_is_printed() {
    let arguments = ["--for", "3500ms", "--rate", "200"];
    let lines = lines(POOLED, &arguments, Duration::from_secs(9));
    let [answered, failed] = numbers(&lines, "requests:")[..] else { panic!("{lines:#?}") };
    assert!((answered + failed - 700.0).abs() < 0.5, "{lines:#?}");
    assert!(failed <= 14.0, "more than 2 % failed: {lines:#?}");
    let of = |begins, least: usize| {
        let numbers = numbers(&lines, begins);
        assert!(numbers.len() >= least, "{begins}: {lines:#?}");
        numbers
    };
    assert!(of("retries:", 3)[0] >= 1.0, "one endpoint dies, and one resets: {lines:#?}");
    assert!(of("ejections:", 2)[0] >= 1.0, "who refuses is left alone: {lines:#?}");
    of("breaker:", 3);
    let checkouts = of("checkouts:", 4);
    assert!(checkouts[0] > checkouts[1], "connections are kept: {lines:#?}");
    assert!(of("connections closed:", 1).iter().sum::<f64>() >= 1.0, "{lines:#?}");
    let [connection, answer] = of("slowest:", 2)[..] else { panic!("{lines:#?}") };
    assert!(connection <= answer && answer < 2100.0, "{lines:#?}");
}

#[test]
fn a_standby_takes_over_and_gives_back() {
    let arguments = ["--for", "4500ms", "--switch-every", "1s"];
    let lines = lines(FAILOVER, &arguments, Duration::from_secs(9));
    let (mut is_up, mut answers) = (true, "");
    for line in &lines {
        let what = line.split_once(" s  ").map_or("", |(_, what)| what);
        match what {
            "the primary is stopped" => is_up = false,
            "the primary is started" => is_up = true,
            _ => {}
        }
        let Some((who, rest)) = what.split_once(" answers, ") else { continue };
        assert_eq!(who, if is_up { "the primary" } else { "the standby" }, "{lines:#?}");
        let took = rest.split_once(" ms").and_then(|(ms, _)| ms.parse::<u64>().ok());
        assert!(took.is_some_and(|ms| ms < 950), "{line}");
        answers = who;
    }
    // Up, down, up, down, up: it has followed to the end.
    assert_eq!((is_up, answers), (true, "the primary"), "{lines:#?}");
    let switches = lines.iter().filter(|line| line.contains(" answers, ")).count();
    assert_eq!(switches, 5, "{lines:#?}");
    let end = lines.last().expect("a last line");
    assert!(end.contains(" 0 failed"), "{end}");
}

#[test]
fn what_cannot_be_done_is_refused_in_one_line() {
    for (program, arguments, says) in [
        (POOLED, ["--rate", "0"], "--rate"),
        (POOLED, ["--for", "soon"], "duration"),
        (FAILOVER, ["--switch-every", "never"], "never"),
    ] {
        let line = refusal(Command::new(program).args(arguments));
        assert!(line.contains(says), "{line}");
    }
}
