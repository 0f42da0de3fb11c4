//! What other threads may tell a reactor, and what it tells them: a few words of shared memory. Nothing
//! here is on the way of a byte.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::counters::Snapshot;

const RUN: u32 = 0;
const DRAIN: u32 = 1;
const ABORT: u32 = 2;

/// Shared by the reactors of a runtime and its handle.
#[derive(Debug)]
pub struct Control {
    order: AtomicU32,
    drain_ms: u32,
    reports: Mutex<Vec<Snapshot>>,
}

impl Control {
    /// For so many reactors; a drain takes at most `drain_ms` milliseconds.
    #[must_use]
    pub fn new(reactors: usize, drain_ms: u32) -> Self {
        Self {
            order: AtomicU32::new(RUN),
            drain_ms,
            reports: Mutex::new(vec![Snapshot::default(); reactors]),
        }
    }

    /// Orders a drain. The reactors have to be rung to see it.
    pub fn order_drain(&self) {
        self.order.fetch_max(DRAIN, Ordering::Release);
    }

    /// Orders an end at once. The reactors have to be rung to see it.
    pub fn order_abort(&self) {
        self.order.fetch_max(ABORT, Ordering::Release);
    }

    /// Whether a drain, or more, was ordered.
    #[must_use]
    pub fn drain_ordered(&self) -> bool {
        self.order.load(Ordering::Acquire) >= DRAIN
    }

    /// Whether an end at once was ordered.
    #[must_use]
    pub fn abort_ordered(&self) -> bool {
        self.order.load(Ordering::Acquire) >= ABORT
    }

    /// How long a drain may take.
    #[must_use]
    pub fn drain_ms(&self) -> u32 {
        self.drain_ms
    }

    /// A reactor says how it stands. Called when it was asked to, and when it ends.
    pub fn report(&self, reactor: usize, snapshot: &Snapshot) {
        let mut reports = self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(report) = reports.get_mut(reactor) {
            *report = *snapshot;
        }
    }

    /// The last reports of all reactors.
    #[must_use]
    pub fn reports(&self) -> Vec<Snapshot> {
        self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
