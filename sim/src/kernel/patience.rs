//! Deadlines as seen from outside: for how long a connection of a ring may be what it is.
//!
//! Told from the sockets alone, so that a reactor which is wrong about its own deadlines shows.

use super::operations::is_write_watch;
use super::stream::Phase;
use super::{FileId, Kernel};

/// The longest that each may take, with what timers may be late, microseconds; `None` for ever.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Nothing moves.
    pub(crate) idle: Option<u64>,
    /// One direction has ended, and nothing moves in the other.
    pub(crate) half_closed: Option<u64>,
    /// The socket is full, its owner watches for room, and nothing leaves it.
    pub(crate) write_stall: Option<u64>,
    /// A dial goes on.
    pub(crate) dial: Option<u64>,
}

impl Kernel {
    /// A connection of a ring that should have ended by now, in words.
    pub(crate) fn find_overdue(&self, patience: &Patience) -> Option<String> {
        self.descriptors.iter().flatten().find_map(|id| self.overdue(*id, patience))
    }

    fn overdue(&self, id: FileId, patience: &Patience) -> Option<String> {
        let stream = self.stream(id)?;
        let (local, remote) = (stream.local, stream.remote);
        let party = stream.other.and_then(|other| self.behind(other));
        let who = party.map_or_else(String::new, |party| format!(", {party}"));
        let say = |what: &str, for_us: u64, bound_us: Option<u64>| {
            let late = bound_us.is_some_and(|bound_us| for_us > bound_us);
            late.then(|| format!("{local} - {remote}{who}: {what} for {} ms", for_us / 1000))
        };
        let since = |then_us: u64| self.now_us.saturating_sub(then_us);
        if stream.phase == Phase::Connecting {
            return say("dialed", since(stream.moved_us), patience.dial);
        }
        if stream.phase != Phase::Connected || self.file(id)?.party.is_none() {
            return None;
        }
        let watched = self.file(id)?.armed.iter().any(|id| is_write_watch(self, *id));
        // Whose last send was whole has nothing to send: a watch that goes on is no wish.
        let told = self.file(id)?.party.and_then(|party| self.told_of(party));
        let blocked = watched && told.is_some_and(|told| told.blocked);
        if let Some(from_us) = stream.no_room_since_us.filter(|_| blocked) {
            // Whoever closes in order waits for nothing but room.
            return say("stalled", since(stream.progress_us.max(from_us)), patience.write_stall);
        }
        let moved_us = stream.moved_us.max(stream.told_end_us).max(stream.progress_us);
        let quiet_us = since(moved_us);
        // It may have been stalled until just now.
        let stalled_us = patience.write_stall.filter(|_| stream.unsent() > 0).unwrap_or(0);
        let bound_us = match stream.told_end || stream.has_sent_fin() {
            true => patience.half_closed,
            false => patience.idle.map(|idle_us| idle_us.max(stalled_us)),
        };
        say("silent", quiet_us, bound_us)
    }
}
