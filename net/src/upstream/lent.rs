//! What requests get: a stream, and what has to be given back with it.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use slipring_core::Timeout;
use slipring_core::canary::{Canary, sings};

use super::call::Call;
use super::dialer::{Counted, Dialer};
use super::parties::Place;
use crate::connector::Stream;
use crate::failure::Error;
use crate::policy::outcome::Outcome;
use crate::pool::Pooled;
use crate::tasks::Executor;

/// A stream of the request's own. Dropped, it ends in order, and its place under the cap is free.
#[must_use = "dropped, the connection ends"]
pub struct Connected {
    counted: Counted,
    call: Call,
}

/// That an endpoint has something under way, and the upstream a connection: to be kept for as long as the connection
/// is.
#[must_use = "dropped, the connection is not counted any more"]
pub struct Held {
    _place: Place,
    _call: Call,
}

impl Connected {
    pub(super) fn new(counted: Counted, call: Call) -> Self {
        Self { counted, call }
    }

    /// Whom it leads to.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.call.member().address()
    }

    /// The stream by itself, for [`relay`](crate::relay) or whoever wants to own it, and what counts it.
    pub fn into_parts(self) -> (Stream, Held) {
        let (stream, place) = self.counted.into_parts();
        (stream, Held { _place: place, _call: self.call })
    }
}

impl Deref for Connected {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.counted
    }
}

impl DerefMut for Connected {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.counted
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

/// A stream of a pool. Dropped, it goes back, and counts as a success, or as what failed on it last; during a panic it
/// is closed and counts for nothing.
#[must_use = "dropped, it goes back to the pool"]
pub struct Lent {
    pooled: Pooled<Dialer>,
    call: Call,
}

impl Lent {
    pub(super) fn new(mut pooled: Pooled<Dialer>, call: Call) -> Self {
        // That of somebody who had it before is not this one's.
        pooled.set_read_deadline(Timeout::Never);
        Self { pooled, call }
    }

    /// Whom it leads to.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.call.member().address()
    }

    /// When its request began, and this reactor's number of the endpoint.
    pub(super) fn begun(&self) -> (Duration, u32) {
        (self.call.started(), self.call.endpoint)
    }

    /// Whether it has been in use before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.pooled.is_reused()
    }

    /// What was done with it failed like this: that counts for the breaker and the endpoint, and the connection is
    /// closed.
    pub fn failed(mut self, error: &Error) {
        self.call.failed(error, false);
        self.pooled.mark_unclean();
    }

    /// Something is on its way: dropped from now on, it is closed, and counts for nothing.
    pub(super) fn begins(&mut self) {
        if sings(Canary::UncleanKept) {
            return;
        }
        self.pooled.mark_unclean();
    }

    /// All that was asked has been answered.
    pub(super) fn succeeded(mut self) {
        self.pooled.mark_clean();
        self.call.judge(Outcome::Success, false);
    }

    /// Dropped from now on, it is closed instead of kept: see [`Pooled::mark_unclean`].
    pub fn mark_unclean(&mut self) {
        self.pooled.mark_unclean();
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let is_unwinding = Executor::look(Executor::is_unwinding).unwrap_or(false);
        if self.pooled.is_clean() && !is_unwinding {
            self.call.judge(self.pooled.failed().unwrap_or(Outcome::Success), false);
        }
        let room = &self.call.room;
        if room.connections.is_pressed() {
            let is_to_yield = room.is_to_yield(self.call.pooled(), self.pooled.place());
            if self.pooled.spare(is_to_yield) && is_to_yield {
                self.pooled.place().give_up(&room.yielding);
            }
        }
    }
}

impl Deref for Lent {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.pooled
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Stream {
        &mut self.pooled
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}
