//! Calls of what users wrote, where a panic must not take along what comes behind it.
//!
//! A panic brings a value with it, which is dropped where it is caught; and that is code of users too.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls it; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(panic) => {
            if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                // There is no end to it otherwise.
                std::mem::forget(another);
            }
            None
        }
    }
}

/// Drops each by itself; how many of them panicked.
pub(super) fn drop_each<T>(values: impl IntoIterator<Item = T>) -> u64 {
    values.into_iter().map(|value| u64::from(catch(|| drop(value)).is_none())).sum()
}
