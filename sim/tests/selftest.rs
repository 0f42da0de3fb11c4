//! The command line of `selftest`, as far as it needs no kernel of its own.

use std::fs::File;
use std::process::{Command, Output};

fn selftest(arguments: &[&str]) -> Output {
    let command = env!("CARGO_BIN_EXE_selftest");
    Command::new(command).args(arguments).output().expect("the binary can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_list_names_each_script_once_and_says_what_it_pins() {
    let output = selftest(&["--list"]);
    assert_eq!(output.status.code(), Some(0));
    let list = text(&output.stdout);
    let names: Vec<_> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert!(names.len() >= 80, "{} scripts", names.len());
    assert_eq!(distinct.len(), names.len());
    assert!(list.lines().all(|line| line.split_whitespace().count() > 4), "{list}");
}

#[test]
fn a_script_is_run_by_a_part_of_its_name() {
    let output = selftest(&["--json", "overflow-flush"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = text(&output.stdout);
    assert_eq!(line.lines().count(), 1, "{line}");
    let expected = r#""verdict":"allowed","outcome":["first: done","second: done","third: done","#;
    assert!(
        line.starts_with(r#"{"script":"overflow-flush","#) && line.contains(expected),
        "{line}"
    );
}

#[test]
fn what_it_does_not_know_it_refuses() {
    for argument in ["--frobnicate", "no-such-script"] {
        let output = selftest(&[argument]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).starts_with("selftest: "));
    }
}

#[test]
fn a_reader_who_has_left_is_no_error() {
    for argument in ["--help", "--list", "overflow-flush"] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be had");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_selftest"));
        let output = command.arg(argument).stdout(writer).output().expect("it can be started");
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert_eq!(text(&output.stderr), "", "{argument}");
    }
}

#[test]
fn a_report_that_is_lost_is_said_in_one_line() {
    for argument in ["--help", "--list", "overflow-flush"] {
        let full = File::create("/dev/full").expect("Linux has it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_selftest"));
        let output = command.arg(argument).stdout(full).output().expect("it can be started");
        assert_eq!(output.status.code(), Some(2), "{argument}");
        let line = text(&output.stderr);
        assert!(line.starts_with("selftest: the report cannot be written: "), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}
