//! What the loop and the two kinds of load have in common: the [`Rig`] and the [`Work`] on it.
//!
//! ```text
//!   run (loop, phases)  ──serve, advance, expire, stop──>  Work: Streams | Churn
//!                                                            │ uses
//!                                                            v
//!                                    Rig: poll, clock, tally, two buffers
//! ```
//! The loop knows time and phases but no connection; the work knows connections but no phase. All
//! connections share the two buffers, since nothing stays in them from one call to the next.

use std::io;
use std::time::{Duration, Instant};

use super::poll::{Event, Poll};
use super::tally::Tally;
use crate::measure::clock;

/// Bytes moved by one call: a few calls for a large message, and both buffers stay in the cache.
const BUFFER_BYTES: usize = 128 * 1024;

/// How often a connection may go on receiving and sending before it is the others' turn.
pub const ROUNDS_MAX: usize = 8;

/// What every kind of load works with.
#[derive(Debug)]
pub struct Rig {
    /// Where sockets are watched.
    pub poll: Poll,
    /// The time of the run.
    pub clock: Clock,
    /// What was measured.
    pub tally: Tally,
    /// Scratch room for one receive.
    pub incoming: Vec<u8>,
    /// Scratch room for one send.
    pub outgoing: Vec<u8>,
}

/// Nanoseconds since the run began: short to keep, quick to subtract.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

/// A kind of load.
pub trait Work {
    /// Reacts to what became of one socket.
    fn serve(&mut self, rig: &mut Rig, event: Event);

    /// Starts what is due, and goes on with what was left for others' sake.
    fn advance(&mut self, rig: &mut Rig, now_ns: u64);

    /// Whether `advance` is wanted at once, without an event.
    fn has_more(&self) -> bool;

    /// When `advance` is wanted to start something; `u64::MAX` when only an event starts anything.
    fn advance_due_ns(&self) -> u64;

    /// Ends connections that have waited for an answer for too long.
    fn expire(&mut self, rig: &mut Rig, now_ns: u64);

    /// Starts nothing more. Returns how many messages are due and unanswered; in an open loop the
    /// time those have waited so far goes into the tally.
    fn stop(&mut self, rig: &mut Rig, now_ns: u64) -> u64;

    /// Messages started and not answered.
    fn in_flight(&self) -> u64;

    /// Whether all connections have failed, so that nothing can happen any more.
    fn is_over(&self) -> bool;
}

impl Rig {
    /// A rig whose time begins now.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            clock: Clock { origin: clock::now() },
            tally: Tally::new(),
            incoming: vec![0; BUFFER_BYTES],
            outgoing: vec![0; BUFFER_BYTES],
        })
    }
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        nanoseconds(clock::now() - self.origin)
    }
}

/// A duration as the run's clock counts; the longest it can hold if it is longer.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
