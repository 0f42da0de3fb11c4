//! The atomics of what several threads change without a lock, by one name.
//!
//! Is: a re-export, and the word that no slip (`slip`) is made. Is not: a wrapper; in every build of this crate these
//! are
//! the standard library's. `core/tests/models.rs` compiles a file that imports from here once more, with atomics that
//! let
//! a model of threads decide who moves next, and then tries every order.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use crate::slip::Slip;

/// How often somebody who finds nothing looks again while others are moving things.
pub(crate) const LOOKS_MAX: u32 = 64;

/// Whether this mistake is made: not in a build of this crate.
#[inline(always)]
pub(crate) const fn slips(_: Slip) -> bool {
    false
}
