//! What `core/src/sync.rs` is to the crate, for the models: shuttle's atomics, and slips that are made.

use std::cell::Cell;

pub(crate) use shuttle::hint::spin_loop;
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use crate::slip::Slip;

/// No end: whoever is waited for goes on some time.
pub(crate) const LOOKS_MAX: u32 = u32::MAX;

thread_local! {
    /// The threads of a model are all on the thread of its test.
    static MADE: Cell<Option<Slip>> = const { Cell::new(None) };
}

pub(crate) fn slips(slip: Slip) -> bool {
    MADE.get() == Some(slip)
}

/// Runs with this mistake made.
pub(crate) fn with<T>(slip: Slip, run: impl FnOnce() -> T) -> T {
    MADE.set(Some(slip));
    let result = run();
    MADE.set(None);
    result
}
