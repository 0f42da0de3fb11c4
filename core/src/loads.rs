//! How much each reactor has to do, as all of them see it.
//!
//! A reactor's *load* is the connections it was given and has not ended, and a little more while it is busy.
//! Whoever gives it one counts it at once, and so does its owner when one ends. A count that its owner
//! alone keeps, and tells when it gets round to it, is always too low while clients stream in: everything would
//! go to the reactor that last said it had nothing.
//!
//! Each stands on cache lines of its own: counting touches no line of another reactor, looking reads one for
//! each reactor looked at.
//!
//! What is read here was true a moment ago. Nothing but balance depends on it: no permit, no limit, no owner.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::calling::Calling;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What a reactor that is always busy counts for, in connections.
pub(crate) const BUSY_WEIGHT: u64 = 8;
/// How often the share of the time that a reactor is busy is taken anew, microseconds.
pub(crate) const WINDOW_US: u64 = 20_000;
/// A share of so long ago says nothing any more: nobody watches.
pub(crate) const STALE_US: u64 = 1_000_000;
/// Shares of the time are in thousandths.
const WHOLE: u64 = 1000;

/// One reactor's.
#[derive(Debug, Default)]
struct Load {
    connections: AtomicU32,
    /// Thousandths of the last window that its thread ran.
    busy: AtomicU32,
    /// When that was taken.
    busy_at_us: AtomicU64,
    /// When the turn it is in began; zero while it sleeps.
    turning_since_us: AtomicU64,
    /// It takes no more clients, ever.
    gone: AtomicBool,
    /// It does not turn.
    stalled: AtomicBool,
    /// It has too much, and accepts nobody.
    strained: AtomicBool,
}

/// All reactors' loads.
#[derive(Debug)]
pub struct Loads {
    each: Box<[CachePadded<Load>]>,
    /// The callback that each is in, if it is in one. Its own, and not a part of the load: it is written for every
    /// message, and those who look at loads would take its line away.
    calling: Box<[Arc<Calling>]>,
    /// Connections that each has room for in the table of its ring.
    room: u32,
}

impl Loads {
    /// For so many reactors, none of which has anything to do.
    #[must_use]
    pub fn new(reactors: usize) -> Self {
        Self {
            each: (0..reactors).map(|_| CachePadded::new(Load::default())).collect(),
            calling: (0..reactors).map(|_| Arc::default()).collect(),
            room: u32::MAX,
        }
    }

    /// The same, of reactors that have room for so many connections each.
    #[must_use]
    pub fn with_room(mut self, connections: u32) -> Self {
        self.room = connections;
        self
    }

    /// Reactors.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.each.len()
    }

    /// A reactor is given a connection, be it by itself.
    #[inline]
    pub fn add(&self, reactor: usize) {
        self.each[reactor].connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection of a reactor is over, or goes elsewhere.
    #[inline]
    pub fn remove(&self, reactor: usize) {
        self.each[reactor].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections a reactor was given and has not ended.
    #[must_use]
    pub fn connections(&self, reactor: usize) -> u32 {
        self.each[reactor].connections.load(Ordering::Relaxed)
    }

    /// Whether a reactor has as many connections as it has room for. Another one is not refused, but costs a
    /// descriptor of the process.
    #[must_use]
    pub fn is_full(&self, reactor: usize) -> bool {
        self.connections(reactor) >= self.room
    }

    /// What placement compares: connections, and up to eight more the busier the reactor is.
    #[must_use]
    pub fn score(&self, reactor: usize, now_us: u64) -> u64 {
        let load = &self.each[reactor];
        let told_us = now_us.saturating_sub(load.busy_at_us.load(Ordering::Relaxed));
        let busy = match told_us {
            0..STALE_US => u64::from(load.busy.load(Ordering::Relaxed)),
            _ => 0,
        };
        u64::from(load.connections.load(Ordering::Relaxed)) + busy * BUSY_WEIGHT / WHOLE
    }

    /// A reactor begins to work on what it was woken by.
    #[inline]
    pub(crate) fn begin_turn(&self, reactor: usize, now_us: u64) {
        self.each[reactor].turning_since_us.store(now_us.max(1), Ordering::Relaxed);
    }

    /// A reactor is about to wait.
    #[inline]
    pub(crate) fn end_turn(&self, reactor: usize) {
        self.each[reactor].turning_since_us.store(0, Ordering::Relaxed);
    }

    /// For how long a reactor has been in one turn, microseconds.
    #[must_use]
    pub fn turning_for_us(&self, reactor: usize, now_us: u64) -> u64 {
        match self.each[reactor].turning_since_us.load(Ordering::Relaxed) {
            0 => 0,
            since_us => now_us.saturating_sub(since_us),
        }
    }

    /// Where a reactor says which callback it is in.
    #[must_use]
    pub fn calling(&self, reactor: usize) -> &Arc<Calling> {
        &self.calling[reactor]
    }

    fn tell_busy(&self, reactor: usize, busy: u32, now_us: u64) {
        let load = &self.each[reactor];
        load.busy.store(busy, Ordering::Relaxed);
        load.busy_at_us.store(now_us, Ordering::Relaxed);
    }

    /// A reactor does not turn, or turns again. Whether that is news.
    pub(crate) fn set_stalled(&self, reactor: usize, stalled: bool) -> bool {
        self.each[reactor].stalled.swap(stalled, Ordering::SeqCst) != stalled
    }

    /// Whether a reactor does not turn.
    #[inline]
    #[must_use]
    pub fn is_stalled(&self, reactor: usize) -> bool {
        self.each[reactor].stalled.load(Ordering::Relaxed)
    }

    /// A reactor has too much, or no longer.
    pub(crate) fn set_strained(&self, reactor: usize, strained: bool) {
        self.each[reactor].strained.store(strained, Ordering::Relaxed);
    }

    /// Whether a reactor has too much: others give it nobody either.
    #[must_use]
    pub fn is_strained(&self, reactor: usize) -> bool {
        self.each[reactor].strained.load(Ordering::Relaxed)
    }

    /// A reactor takes no more clients.
    pub(crate) fn leave(&self, reactor: usize) {
        self.each[reactor].gone.store(true, Ordering::SeqCst);
    }

    /// Whether a reactor takes no more clients.
    #[must_use]
    pub fn is_gone(&self, reactor: usize) -> bool {
        self.each[reactor].gone.load(Ordering::SeqCst)
    }
}

/// What share of the time a reactor keeps its processor busy, taken window by window by somebody who watches it.
///
/// By the time its thread has run, as the system counts it: most of a reactor's work is done in the kernel, inside
/// the call that also waits. And not by the reactor: to ask the system is a call, and a busy reactor only enters
/// its ring.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Business {
    since_us: u64,
    ran_us: u64,
}

impl Business {
    /// At `now_us` its thread has run for `ran_us`: tells `loads` if a window is over.
    pub(crate) fn note(&mut self, loads: &Loads, reactor: usize, now_us: u64, ran_us: u64) {
        let window_us = now_us.saturating_sub(self.since_us);
        if window_us >= WINDOW_US {
            let busy = ran_us.saturating_sub(self.ran_us).min(window_us) * WHOLE / window_us;
            loads.tell_busy(reactor, busy as u32, now_us);
            *self = Self { since_us: now_us, ran_us };
        }
    }
}
