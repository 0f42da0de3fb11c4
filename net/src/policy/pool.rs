//! The book of a pool. For now: what it shows of itself.

mod snapshot;

pub use snapshot::PoolSnapshot;
