//! What the reactors of a runtime have in common, whoever runs them, and how other threads reach them.
//!
//! No thread and no system call here: a simulation makes its reactors by the same lines.

use std::sync::Arc;

use super::watch::Watch;
use crate::admission::Admission;
use crate::config::{Limits, Poll, Timeouts};
use crate::control::Control;
use crate::counters::{Counters, Snapshot};
use crate::door::Door;
use crate::driver::Wake;
use crate::front::Front;
use crate::listen::{Listen, Placement};
use crate::pace::Pace;
use crate::reactor::Setup;
use crate::token::Descriptor;

/// The reactors of a runtime, before there are any.
#[derive(Debug)]
pub struct Team {
    limits: Limits,
    timeouts: Timeouts,
    poll: Poll,
    not_ready_ms: u32,
    placements: Vec<Placement>,
    rebalance: bool,
    seed: u64,
    control: Arc<Control>,
    admission: Arc<Admission>,
    front: Arc<Front>,
    door: Arc<Door>,
    pace: Arc<Pace>,
}

impl Team {
    /// So many reactors, each with these listeners. A drain takes at most `drain_ms` milliseconds. Nothing is
    /// checked: see [`Builder::team`](super::Builder::team).
    #[must_use]
    pub fn new(
        (reactors, listen): (usize, &[Listen]),
        limits: Limits,
        timeouts: Timeouts,
        poll: Poll,
        drain_ms: u32,
    ) -> Self {
        let cap = limits.accepted_max;
        let admission = Admission::new(cap, limits.dialed_max, limits.backlog, reactors)
            .with_listeners(listen.iter().map(|how| how.max_connections))
            .with_on_full(listen.iter().map(|how| how.on_full.unwrap_or_default()));
        let control = Arc::new(Control::new(reactors, drain_ms));
        let front = Front::new(reactors, limits.messages_max);
        Self {
            limits,
            timeouts,
            poll,
            not_ready_ms: 0,
            placements: listen.iter().map(|how| how.placement.unwrap_or_default()).collect(),
            rebalance: false,
            seed: fastrand::u64(..),
            control,
            admission: Arc::new(admission),
            front: Arc::new(front),
            door: Arc::default(),
            pace: Arc::default(),
        }
    }

    /// Whether idle connections are moved to reactors that have clearly fewer. Without it, not.
    #[must_use]
    pub fn with_rebalance(mut self, rebalance: bool) -> Self {
        self.rebalance = rebalance;
        self
    }

    /// Who may come in by these listeners. Without it, everybody.
    #[must_use]
    pub fn with_door(mut self, door: Door) -> Self {
        self.door = Arc::new(door);
        self
    }

    /// How often clients may come in by these listeners. Without it, as often as they like.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = Arc::new(pace);
        self
    }

    /// For how long they go on accepting behind the order of a drain, of the time that it has. Without it, not at all.
    #[must_use]
    pub fn with_not_ready(mut self, not_ready_ms: u32) -> Self {
        self.not_ready_ms = not_ready_ms;
        self
    }

    /// The rings of these reactors have tables of so many places. Without it, they have none.
    #[must_use]
    pub fn with_tables(mut self, places: u32) -> Self {
        let (reactors, messages) = (self.front.loads().reactors(), self.limits.messages_max);
        self.front = Arc::new(Front::new(reactors, messages).with_room(places));
        self
    }

    /// What the reactor of this number is made with. It closes the listeners.
    #[must_use]
    pub fn setup(&self, number: usize, listeners: Vec<Descriptor>) -> Setup {
        Setup {
            number,
            listeners,
            limits: self.limits,
            timeouts: self.timeouts,
            poll: self.poll,
            admission: Arc::clone(&self.admission),
            control: Arc::clone(&self.control),
            not_ready_ms: self.not_ready_ms,
            front: Arc::clone(&self.front),
            placements: self.placements.clone(),
            rebalance: self.rebalance,
            door: Arc::clone(&self.door),
            pace: Arc::clone(&self.pace),
            seed: self.seed.wrapping_add(number as u64),
            first_generation: 0,
        }
    }

    /// Orders and reports.
    #[must_use]
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Who may come in.
    #[must_use]
    pub fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Somebody who looks whether the reactors turn.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.front), Arc::clone(&self.admission))
    }

    /// How much the reactors have to do, and their mailboxes.
    #[must_use]
    pub fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// The process's caps.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Reaches the reactors, from now on, by these bells: one each, in the order of their numbers.
    pub fn handle(&self, bells: impl IntoIterator<Item = Arc<dyn Wake>>) -> Handle {
        let handle =
            Handle { control: Arc::clone(&self.control), bells: bells.into_iter().collect() };
        let rung = handle.clone();
        self.admission.connect(move |reactor| rung.ring(reactor));
        handle
    }
}

/// Stops a runtime from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) control: Arc<Control>,
    bells: Arc<[Arc<dyn Wake>]>,
}

impl Handle {
    fn ring(&self, reactor: usize) {
        if let Some(bell) = self.bells.get(reactor) {
            bell.wake();
        }
    }

    fn ring_all(&self) {
        self.bells.iter().for_each(|bell| bell.wake());
    }

    /// Is not ready any more, stops accepting when those who send clients have had their time to notice, lets
    /// connections finish, and aborts what is left at the drain deadline.
    pub fn drain(&self) {
        self.control.order_drain();
        self.ring_all();
    }

    /// Drains without patience: everything is aborted now.
    pub fn abort(&self) {
        self.control.order_abort();
        self.ring_all();
    }

    /// Whether new clients should come: false from the order of a drain on, be it because a reactor has failed. For
    /// whoever answers a load balancer that asks. It accepts on for [`Builder::not_ready`](crate::Builder::not_ready).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.control.drain_ordered()
    }

    /// The counters of each reactor, as of its last report; asks for new ones.
    #[must_use]
    pub fn counters(&self) -> Vec<Counters> {
        self.snapshots().iter().map(|snapshot| snapshot.counters).collect()
    }

    /// How each reactor stood at its last report; asks for new ones. Whoever looks once a second sees what was
    /// so a second ago.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.ring_all();
        self.control.reports()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle")
            .field("control", &self.control)
            .field("reactors", &self.bells.len())
            .finish()
    }
}
