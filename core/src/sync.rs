//! The atomics that reactors talk to each other by, in one room: where the interleavings of threads are
//! explored, others stand in for them.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
