//! The kernel's room: everything `unsafe`, everything with an errno, every system call.
//!
//! Other modules of this crate name from here only [`memory`], the store whose types they pass about; [`Lent`] and
//! [`waker()`] are for those that run tasks.
#![allow(unsafe_code, reason = "the one place for it: each block names the invariant it leans on")]

pub mod bare;
mod buffer_ring;
mod entries;
mod errno;
mod intake;
mod lent;
mod mapping;
pub mod memory;
mod probe;
mod process;
mod questions;
mod ring;
mod socket;
mod table;
mod wake;
mod waker;

pub use buffer_ring::{BufferRing, Entries};
pub use errno::fault;
pub use intake::{Cqe, Intake};
pub use lent::Lent;
pub use probe::{Features, Tier, probe, probe_table};
pub use process::ThreadClock;
pub(crate) use process::{descriptors_max, ensure_descriptors};
pub use ring::{Ring, RingConfig};
pub use socket::Listening;
pub use table::Places;
pub use wake::Bell;
pub use waker::{WakeNumber, WakerTable, number_of, waker};
