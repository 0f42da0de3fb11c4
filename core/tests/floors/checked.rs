//! The checker, checked: each rule against small sources held in memory.
//!
//! Is: for every rule a source that must fail, with words its message must hold, and the nearest
//! innocent one that must pass. Is not: about the repository's own files, which floors.rs reads.
//!
//! Why: a check that reads nothing passes always, and nobody notices.

use std::collections::BTreeSet;

use crate::rules::{Package, check, dependencies, wide_comments};
use crate::{CORE, FILE_LINES_MAX, NET};

/// What the rules say about one file of core (or net), with a lib.rs beside it.
fn judge(path: &str, text: &str) -> Vec<String> {
    let core_lib = "
        pub mod clock; mod handler; mod sys; mod connection;
        pub use clock::Deadline;
        pub use handler::{Ctx, Lease as Range};
    ";
    let net_lib = "#![forbid(unsafe_code)]\npub use slipring_core::Ctx;";
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let mut core = vec![file("core/src/lib.rs", core_lib)];
    let mut net = vec![file("net/src/lib.rs", net_lib)];
    if path.starts_with("core/") { &mut core } else { &mut net }.push(file(path, text));
    let crates = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let core_crates =
        crates(&["libc", "io_uring", "socket2", "slab", "thiserror", "tracing", "core_affinity"]);
    let core = Package::new("core", "slipring_core", CORE, core_crates, core);
    let net = Package::new(
        "net",
        "slipring",
        NET,
        crates(&["slipring_core", "thiserror", "rustls"]),
        net,
    );
    check(&core, &net)
}

#[track_caller]
fn assert_fails(path: &str, text: &str, parts: &[&str]) {
    let violations = judge(path, text);
    assert_eq!(violations.len(), 1, "one violation in {path}: {text}\n{violations:#?}");
    for part in parts {
        assert!(violations[0].contains(part), "`{part}` missing in: {}", violations[0]);
    }
}

#[track_caller]
fn assert_passes(path: &str, text: &str) {
    assert_eq!(judge(path, text), Vec::<String>::new(), "no violation in {path}: {text}");
}

const MACHINE: &str = "core/src/connection.rs";

#[test]
fn import_from_above_is_found() {
    assert_fails(
        MACHINE,
        "use crate::token::Token;\nuse crate::reactor::Reactor;\n",
        &["core/src/connection.rs:2: imports `crate::reactor::Reactor`", "floors 0, 1", "floor 3"],
    );
    assert_fails("core/src/token.rs", "use crate::slab::Key;", &["floor 1"]);
    assert_fails("core/src/sys/ring.rs", "use crate::reactor::turn;", &["`sys` (floor 2)"]);
    assert_fails("core/src/reactor/turn.rs", "use crate::runtime::Runtime;", &["floor 4"]);
    assert_fails("net/src/pool.rs", "use crate::upstream::X;", &["`upstream` is on floor 9"]);
}

#[test]
fn import_from_below_passes() {
    assert_passes(MACHINE, "use crate::{clock::Deadline, outbox::{self, Outbox}, slab::Key};");
    assert_passes("core/src/slab.rs", "use slab::Slab;\nuse crate::token::Generation;");
    assert_passes("core/src/sys/ring.rs", "use crate::driver::Driver; use libc::c_int;");
    assert_passes("core/src/driver.rs", "use crate::sys::memory::Store;");
    assert_passes("core/src/reactor/turn.rs", "use super::Reactor; use crate::sys::ring::Ring;");
    assert_passes("core/src/runtime.rs", "use crate::reactor::Reactor; use core_affinity::CoreId;");
    assert_passes("core/src/error.rs", "#[derive(Debug, thiserror::Error)] enum SetupError {}");
    assert_passes(
        "net/src/upstream.rs",
        "use crate::{policy::limits, pool}; use slipring_core::Ctx;",
    );
    assert_passes("net/src/policy/budget.rs", "use slipring_core::Deadline; use super::backoff;");
}

#[test]
fn every_way_of_writing_a_path_is_read() {
    let violations = [
        "use super::sys::ring;",
        "use {crate::sys};",
        "use crate::{token::{Token}, sys as s};",
        "pub(crate) use self::super::sys::*;",
        "fn f() { use crate::sys::ring::Ring as _; }",
        "fn f() -> crate::sys::Fd { todo!() }",
        "fn f() { let _ = <crate::sys::Ring as Clone>::clone; }",
        "mod inner { use super::super::sys; }",
        "mod inner { mod deeper {} fn f() { super::super::sys::f(); } }",
        "macro_rules! m { () => { $crate::sys::f() } }",
        "fn f<'a>(x: &'a str) -> char { crate::sys::f(); 'a' }",
        "const S: &str = \"// \\\" \"; use crate::sys;",
        "const S: &str = r#\"\" /* \"#; use crate::sys;",
        "/* a /* nested */ comment */ use crate::sys;",
    ];
    for text in violations {
        assert_fails(MACHINE, text, &["never names `sys`"]);
    }
    let crates = [
        ("use libc::c_int;", "libc"),
        ("use ::libc;", "libc"),
        ("extern crate libc as c;", "libc"),
        ("fn f() -> ::libc::c_int { 0 }", "libc"),
        ("use std::io; use io_uring::{squeue, cqueue::Entry};", "io_uring"),
        ("fn f(_: socket2::Socket) {}", "socket2"),
    ];
    for (text, name) in crates {
        for violation in judge(MACHINE, text) {
            assert!(violation.contains(&format!("never names `{name}`")), "{violation}");
        }
        assert!(!judge(MACHINE, text).is_empty(), "{text}");
    }
}

#[test]
fn what_is_not_code_is_not_read() {
    let innocent = [
        "// use crate::sys::ring;",
        "/// See [`crate::sys::Ring`].\nstruct A;",
        "//! `crate::reactor`\n/** crate::sys */ struct A;",
        "/* use crate::sys; /* nested */ use crate::sys; */",
        "const S: &str = \"use crate::sys; \\\" unsafe { crate::sys::f() }\";",
        "const S: &[u8] = br##\"\"# crate::sys::f() unsafe\"##;",
        "fn f<'sys>(a: &'sys str) { let q = '\"'; let e = '\\''; let u = '\\u{22}'; }",
        "#[doc = \"crate::sys::f\"] struct A;",
    ];
    for text in innocent {
        assert_passes(MACHINE, text);
    }
}

#[test]
fn tests_may_import_anything() {
    assert_passes(MACHINE, "#[cfg(test)]\nmod tests { use crate::sys; fn f() { libc::f() } }");
    assert_passes(MACHINE, "#[cfg(test)] mod tests;");
    assert_passes("core/src/connection/tests.rs", "use crate::reactor::Reactor;");
    assert_passes(MACHINE, "#[cfg(test)] use crate::sys;\n#[cfg(all(test, unix))] fn f() {}");
    assert_passes(MACHINE, "struct A { #[cfg(test)] x: crate::sys::Fd, y: u8 }");
    assert_fails(MACHINE, "#[cfg(not(test))] use crate::sys;", &["`sys`"]);
    assert_fails(MACHINE, "#[cfg(test)] mod tests {} use crate::sys;", &["`sys`"]);
    assert_fails(MACHINE, "#[cfg(test)] use std::io; use crate::sys;", &["`sys`"]);
    assert_fails(MACHINE, "mod tests;", &["without `#[cfg(test)]`"]);
}

#[test]
fn exceptions_are_as_narrow_as_written() {
    assert_fails("core/src/wheel.rs", "use slab::Slab;", &["`wheel` (floor 1)", "slab::Slab"]);
    assert_fails("core/src/token.rs", "use thiserror::Error;", &["may use std"]);
    assert_fails("core/src/driver.rs", "use crate::sys::ring::Ring;", &["`sys::memory`"]);
    assert_fails("core/src/driver.rs", "use crate::sys;", &["`sys` is on floor 2"]);
    assert_fails("core/src/reactor.rs", "use libc::c_int;", &["`libc::c_int`"]);
    assert_fails("net/src/policy/breaker.rs", "use rustls::X;", &["`policy` (floor 5)"]);
    assert_fails("net/src/policy/breaker.rs", "use slipring_core::Ctx;", &["handler::Ctx"]);
    assert_fails("net/src/policy/breaker.rs", "use crate::pool::Pool;", &["floor 8"]);
}

#[test]
fn the_root_is_no_way_round() {
    assert_fails(MACHINE, "use crate::Ctx;", &["`handler` is on floor 3"]);
    assert_fails(MACHINE, "use super::Range;", &["`handler` is on floor 3"]);
    assert_passes(MACHINE, "use crate::Deadline;");
    assert_fails(MACHINE, "use crate::*;", &["crate's root"]);
    assert_fails(MACHINE, "use crate as everything;", &["crate's root"]);
    assert_fails(MACHINE, "use crate::Unheard;", &["no module of the floors table"]);
    assert_fails("net/src/policy/mod.rs", "use crate::Ctx;", &["slipring_core::handler"]);
}

#[test]
fn a_file_without_a_floor_is_told_where_to_stand() {
    assert_fails("core/src/novel.rs", "", &["`novel`", "CORE, in core/tests/floors.rs"]);
    assert_fails("net/src/novel/mod.rs", "", &["`novel`", "NET, in core/tests/floors.rs"]);
}

#[test]
fn unsafe_stays_in_its_room() {
    let says_unsafe = "fn f() {\n    unsafe { g() }\n}";
    assert_fails(MACHINE, says_unsafe, &["connection.rs:2:", "core/src/sys only"]);
    assert_fails(MACHINE, "#[cfg(test)] mod tests { unsafe fn f() {} }", &["core/src/sys only"]);
    assert_fails("core/src/token.rs", says_unsafe, &["core/src/sys only"]);
    assert_passes("core/src/sys/ring.rs", says_unsafe);
    assert_passes(MACHINE, "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]");
}

#[test]
fn net_forbids_unsafe() {
    let none = BTreeSet::new;
    let core = Package::new("core", "slipring_core", CORE, none(), []);
    let lib = |text: &str| [("net/src/lib.rs".to_owned(), text.to_owned())];
    let net = Package::new("net", "slipring", NET, none(), lib("//! #![forbid(unsafe_code)]"));
    assert_eq!(check(&core, &net).len(), 1);
    let net = Package::new("net", "slipring", NET, none(), lib("#![forbid(unsafe_code)]"));
    assert_eq!(check(&core, &net), Vec::<String>::new());
}

#[test]
fn the_clock_has_one_room() {
    let named = [
        "use std::time::Instant;",
        "use std::{io, time::{Duration, Instant as Now}};",
        "use std::time::*;",
        "fn f(now: std::time::Instant) {}",
        "use std::time; fn f() { time::Instant::now(); }",
    ];
    for text in named {
        assert_fails("core/src/wheel.rs", text, &["core/src/clock.rs only"]);
        assert_fails("net/src/relay.rs", text, &["core/src/clock.rs only"]);
        assert_passes("core/src/clock.rs", text);
    }
    assert_passes("core/src/wheel.rs", "use std::time::Duration; use crate::clock::Instant;");
}

#[test]
fn long_files_are_split() {
    let long = "// a line\n".repeat(FILE_LINES_MAX + 1);
    assert_fails(MACHINE, &long, &["601 lines"]);
    let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"\n".repeat(FILE_LINES_MAX) + "}";
    assert_passes(MACHINE, &tests);
    assert_passes("core/src/connection/tests.rs", &long);
}

#[test]
fn wide_comments_are_found_and_wide_code_is_not() {
    let of_columns = |count: usize| format!("//! {}", "x".repeat(count - 4));
    for columns in [119, 120] {
        assert_eq!(wide_comments(MACHINE, &of_columns(columns)), Vec::<String>::new());
    }
    let text = format!("\n    {}\nlet x = \"{}\";", of_columns(117), "y".repeat(200));
    let expected = format!("{MACHINE}:2: 121 columns of comment, 120 at most");
    assert_eq!(wide_comments(MACHINE, &text), [expected]);
    // Columns are characters, not bytes.
    assert_eq!(wide_comments(MACHINE, &format!("// {}", "ü".repeat(117))), Vec::<String>::new());
}

#[test]
fn dependencies_are_read_from_the_manifest() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\n# one\nio-uring.workspace = true\n\
                    slab = \"0.4\"\n\n[dev-dependencies]\nproptest = \"1\"\n";
    assert_eq!(dependencies(manifest), ["io_uring", "slab"].map(str::to_owned).into());
}
