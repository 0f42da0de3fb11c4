//! The atomics of the breaker's word, by one name.
//!
//! Is: a re-export; in every build of this crate these are the standard library's. Is not: a wrapper.
//! `net/tests/breaker_models.rs` compiles `state` and `word` once more, with atomics that let a model of threads decide
//! who moves next.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
