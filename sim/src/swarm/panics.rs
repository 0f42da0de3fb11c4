//! Panics of runs: kept for the failure's text instead of being printed.
//!
//! A run that panics is a result, and a campaign has thousands: the default hook would bury everything else
//! under messages. The hook that [`capture_panics`] installs keeps message and place of the first panic of the
//! run on its thread; panics of threads that run nothing go to the hook that was there before. A panic while
//! another one unwinds ends the process, and no failure is ever reported: its seed is printed at once.
//!
//! Is not: what catches panics. The reactor catches those of handlers, [`run`](super::run) the others. Handlers
//! that panic on purpose unwind without a hook, so they are neither printed nor kept.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

/// A run under way.
struct Run {
    seed: u64,
    /// Its first panic, if it had one.
    first: Option<String>,
}

thread_local! {
    /// The run under way on this thread, if there is one.
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

/// How the standard library begins the message of a panic after which it aborts.
const LAST_WORDS: &str = "panic in a ";

/// From now on, and for the whole process: panics of runs are kept for their failures and not printed.
pub fn capture_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !keep(info) {
                before(info);
            }
        }));
    });
}

/// Whether a run of this thread took it.
fn keep(info: &PanicHookInfo<'_>) -> bool {
    // A panic while the note is being read is nobody's to keep.
    RUN.with(|run| match run.try_borrow_mut() {
        Ok(mut run) => run.as_mut().is_some_and(|run| {
            let text = described(info);
            if text.starts_with(LAST_WORDS) {
                let first = run.first.as_deref().unwrap_or("no panic before it");
                let line = format!("seed {} ends the process: {text}; first: {first}\n", run.seed);
                drop(io::stderr().write_all(line.as_bytes()));
            }
            run.first.get_or_insert(text);
            true
        }),
        Err(_) => false,
    })
}

fn described(info: &PanicHookInfo<'_>) -> String {
    let text = text_of(info.payload());
    match info.location() {
        Some(place) => format!("{text}, at {}:{}", place.file(), place.line()),
        None => text,
    }
}

/// What a panic said.
pub(super) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// A run of this thread begins.
pub(super) fn begin(seed: u64) {
    RUN.set(Some(Run { seed, first: None }));
}

/// It has ended: the first panic it had, if any was captured.
pub(super) fn end() -> Option<String> {
    RUN.take()?.first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_of_a_run_is_kept_with_its_place() {
        capture_panics();
        begin(7);
        for text in ["one", "two"] {
            let caught = panic::catch_unwind(|| panic!("{text} of them"));
            assert!(caught.is_err());
        }
        let meant = panic::catch_unwind(|| panic::resume_unwind(Box::new("meant")));
        assert!(meant.is_err());
        let first = end().expect("there were two");
        assert!(first.starts_with("one of them, at ") && first.contains("panics.rs:"), "{first}");
        begin(7);
        assert_eq!(end(), None);
    }
}
