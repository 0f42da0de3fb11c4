//! What the tests on real sockets share: servers that are checked at their end, a journal of what a
//! handler was told, clients that compare every byte, and the only places that wait or read the clock.
//!
//! Nothing here decides whether a test passes, but for two promises that hold in every test: a server's
//! counters balance when it is over (`Server::finish`, `end`), and no test runs longer than `bounded` lets it.
#![allow(dead_code, reason = "each test file is a crate of its own and uses its share of this")]
#![expect(
    clippy::disallowed_methods,
    reason = "the one place of the tests with threads and a clock"
)]

mod bytes;
mod clients;
mod files;
mod relays;
mod servers;
mod services;

use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) use bytes::*;
#[allow(unused_imports, reason = "not every test connects to what it tests")]
pub(crate) use clients::*;
#[allow(unused_imports, reason = "few tests have files")]
pub(crate) use files::*;
#[allow(unused_imports, reason = "few tests relay by tasks")]
pub(crate) use relays::*;
pub(crate) use servers::*;
#[allow(unused_imports, reason = "not every test has a service of `async` code")]
pub(crate) use services::*;

/// What a timer, a busy machine and a scheduler may add to a deadline beside its 30 %.
pub(crate) const SLACK: Duration = Duration::from_millis(400);
/// How long anything that should happen at once may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(run)
}

/// Runs a test, and fails it when it has not ended after 30 s: a test that hangs says nothing.
#[track_caller]
pub(crate) fn bounded(test: impl FnOnce() + Send + 'static) {
    bounded_by(Duration::from_secs(30), test);
}

#[track_caller]
pub(crate) fn bounded_by(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel::<()>();
    let thread = spawn(move || {
        // Told by its drop, after a panic too.
        let _done = done;
        test();
    });
    if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs: not over after {limit:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Waits until something is so. For what nobody can be asked to tell; everything else blocks on a socket
/// or on the journal.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = now() + PATIENCE;
    while !is_so() {
        assert!(now() < end, "never so: {what}");
        std::thread::park_timeout(ms(2));
    }
}

/// Asserts that a deadline of `timeout` was kept: not before it, and not long after.
#[track_caller]
pub(crate) fn assert_kept(what: &str, took: Duration, timeout: Duration) {
    // The reactor's clock and ours may round apart by a millisecond each.
    assert!(took + ms(2) >= timeout, "{what}: {took:?} is before its deadline of {timeout:?}");
    let latest = timeout.mul_f64(1.3) + SLACK;
    assert!(took <= latest, "{what}: {took:?} is long after its deadline of {timeout:?}");
}

/// Holds the file's other tests off, for a test that counts what belongs to the process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count() - 1
}

/// Bytes of this process in memory.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("statm has a second number");
    pages * 4096
}

/// The cores this process may use.
pub(crate) fn cores() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let parse = |text: &str| text.trim().parse::<usize>().expect("a core's number");
    let mut cores = Vec::new();
    for part in line.expect("the list of cores").split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(parse(first)..=parse(last));
    }
    cores
}
