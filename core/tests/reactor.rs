//! The production reactor over a scripted driver: what it submits, tells its handler and survives, for any
//! kernel the test cares to play.
//!
//! One topic a file, in `reactor/`. The driver checks the contract of every push beside
//! (`slipring_sim::Scripted`); what a test asserts is what the contract leaves open.

#[path = "reactor/accept.rs"]
mod accept;
#[path = "reactor/addresses.rs"]
mod addresses;
#[path = "reactor/budget.rs"]
mod budget;
#[path = "reactor/calling.rs"]
mod calling;
#[path = "reactor/close.rs"]
mod close;
#[path = "reactor/deadlines.rs"]
mod deadlines;
#[path = "reactor/dial.rs"]
mod dial;
#[path = "reactor/drain.rs"]
mod drain;
#[path = "reactor/feeders.rs"]
mod feeders;
#[path = "reactor/full.rs"]
mod full;
#[path = "reactor/large.rs"]
mod large;
#[path = "reactor/paced.rs"]
mod paced;
#[path = "reactor/panic.rs"]
mod panic;
#[path = "reactor/parking.rs"]
mod parking;
#[path = "reactor/receive.rs"]
mod receive;
#[path = "reactor/send.rs"]
mod send;
#[path = "reactor/shared.rs"]
mod shared;
#[path = "reactor/support.rs"]
mod support;
#[path = "reactor/turns.rs"]
mod turns;
#[path = "reactor/zero_copy.rs"]
mod zero_copy;
