//! Reactors, a simulated kernel and actors in one thread: who moves next, and what must hold after it.
//!
//! ```text
//!   asleep --- news, its deadline, or an early return ---> turn ---> busy for a while ---+
//!     ^                                                                                  |
//!     +---- enters, and waits <---- wants to sleep ------------------------------------- +
//!                                   still has work: turn
//! ```
//!
//! Time is virtual and moves from one thing to the next: the earliest of what the kernel has under way and
//! what the reactors will do. A turn takes some of it, so that reactors overlap. A reactor that sleeps has
//! handed its submissions over and hears of nothing but its own completions: a wake-up that is lost stays
//! lost, as it would in a thread.
//!
//! Here time moves and lanes turn; what must hold after each turn, and at the end, is `engine/checks.rs`.

mod checks;
mod evicting;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slipring_core::admission::Admission;
use slipring_core::door::Door;
use slipring_core::driver::{Wait, Wake};
use slipring_core::front::Front;
use slipring_core::reactor::{Reactor, Setup};
use slipring_core::runtime::{LOOK_US, STALL_US, Watch};
use slipring_core::token::{Descriptor, Key};
use slipring_core::{
    Builder, CloseReason, Counters, Handle, Handler, Limits, Listen, Placement, Poll, Rate,
    Runtime, SetupError, SourceLimits, Team, Timeouts,
};

use crate::dice::Dice;
use crate::kernel::{GivenUp, Kernel, Step};
use crate::knobs::Knobs;
use crate::marks::Mark;
use crate::paced::Paced;
use crate::ring::{SimRing, SimRingSetup};
use crate::trace::{Party, What};

use checks::{PutOff, Restless, find_overslept};

/// Something outside the reactors that acts on the network: a peer, another service.
pub(crate) trait Actor {
    /// Something happened to one of its sockets, or its time has come.
    fn look(&mut self, kernel: &mut Kernel, me: u32);
}

/// What a simulation is made with, beside its handlers.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) knobs: Knobs,
    pub(crate) reactors: usize,
    /// Where each reactor listens.
    pub(crate) listen: Vec<SocketAddr>,
    /// How, for the first of them; the others by default.
    pub(crate) listen_as: Vec<Listen>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) poll: Poll,
    pub(crate) placement: Placement,
    /// Idle connections are moved to reactors that have less to do.
    pub(crate) rebalance: bool,
    pub(crate) per_source: SourceLimits,
    /// How often the process lets clients in.
    pub(crate) accept_rate: Option<Rate>,
    pub(crate) drain_ms: u32,
    /// For so long of that it goes on accepting.
    pub(crate) not_ready_ms: u32,
    pub(crate) ring: SimRingSetup,
    /// The life every slot starts in.
    pub(crate) first_generation: u32,
    pub(crate) keep_records: bool,
}

impl Plan {
    /// What the reactors have in common, as a runtime with these sizes and deadlines would have it.
    fn team(&self) -> Result<Team, SetupError> {
        let builder = Runtime::builder()
            .limits(self.limits)
            .timeouts(self.timeouts)
            .poll(self.poll)
            .placement(self.placement)
            .rebalance(self.rebalance)
            .per_source(self.per_source)
            .drain_deadline(Duration::from_millis(self.drain_ms.into()))
            .not_ready(Duration::from_millis(self.not_ready_ms.into()));
        let builder = match self.accept_rate {
            Some(rate) => builder.accept_rate(rate),
            None => builder,
        };
        let listen = |builder: Builder, (number, at): (usize, &SocketAddr)| {
            builder.listen_with(*at, self.listen_as.get(number).cloned().unwrap_or_default())
        };
        self.listen.iter().enumerate().fold(builder, listen).team(self.reactors)
    }
}

/// A bell of the simulated kernel, as other threads have it.
struct SimBell {
    bells: Arc<[AtomicBool]>,
    reactor: usize,
}

impl Wake for SimBell {
    fn wake(&self) {
        self.bells[self.reactor].store(true, Ordering::Relaxed);
    }
}

/// How a reactor stands.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// It turns again at this time.
    Turning { at_us: u64 },
    /// It enters at this time, to sleep.
    Entering { at_us: u64, wait: Wait },
    /// It sleeps, until this time at most.
    Asleep { until_us: Option<u64> },
    /// It has ended.
    Ended,
}

struct Lane<H: Handler> {
    reactor: Reactor<SimRing, H>,
    doing: Doing,
    restless: Restless,
    before: Counters,
    /// The connections that are being closed.
    closing: BTreeSet<Key>,
    /// Those that a drain has asked to go.
    nudged: BTreeSet<Key>,
    put_off: PutOff,
    /// Connections that each listener has accepted and that are open here, as of its last turn: they open and end in
    /// no other's.
    accepted: BTreeMap<u16, u32>,
    /// Its ring has failed.
    failed: bool,
    listeners: Vec<u32>,
}

/// See the module's documentation.
pub(crate) struct Engine<H: Handler> {
    pub(crate) kernel: Rc<RefCell<Kernel>>,
    lanes: Vec<Lane<H>>,
    actors: Vec<Option<Box<dyn Actor>>>,
    /// As of a runtime.
    pub(crate) handle: Handle,
    admission: Arc<Admission>,
    front: Arc<Front>,
    door: Arc<Door>,
    watch: Watch,
    /// When somebody looks next whether the reactors turn.
    look_us: Option<u64>,
    /// Panics that handlers made on purpose.
    pub(crate) panics_meant: Rc<Cell<u64>>,
    /// Connections that were given up in the last step.
    pub(crate) given_up: Vec<GivenUp>,
    failure: Option<String>,
    accepted_max: u32,
    /// Of each listener that has a cap of its own.
    listener_max: Vec<Option<u32>>,
    paced: Paced,
    not_ready_us: u64,
    /// A drain was ordered, and lets clients in until then; with an abort no longer.
    stops_us: Option<u64>,
    /// The listeners at which nobody waits for long while another is idle.
    evicting: Vec<u16>,
    neglected: Option<evicting::Neglected>,
}

impl<H: Handler> Engine<H> {
    /// # Panics
    /// If a runtime would refuse the plan.
    #[track_caller]
    pub(crate) fn new(plan: &Plan, mut make: impl FnMut(usize, &Rc<Cell<u64>>) -> H) -> Self {
        let dice = Dice::new(plan.seed);
        let kernel = Kernel::new(dice, plan.knobs, plan.reactors, plan.keep_records);
        let kernel = Rc::new(RefCell::new(kernel));
        let limits = plan.limits;
        let team = match plan.team() {
            Ok(team) if plan.ring.places > 0 => team.with_tables(plan.ring.places),
            Ok(team) => team,
            Err(error) => panic!("{error}"),
        };
        let bells = kernel.borrow().bells();
        let bell =
            |reactor| -> Arc<dyn Wake> { Arc::new(SimBell { bells: Arc::clone(&bells), reactor }) };
        let handle = team.handle((0..plan.reactors).map(bell));
        let panics_meant = Rc::default();
        let mut lanes = Vec::new();
        for number in 0..plan.reactors {
            let ring = SimRing::new(&kernel, &plan.ring);
            let listen = |at: &SocketAddr| {
                let backlog = limits.backlog as usize;
                Descriptor(kernel.borrow_mut().listen_with_descriptor(*at, backlog))
            };
            let listeners: Vec<Descriptor> = plan.listen.iter().map(listen).collect();
            let numbers = listeners.iter().map(|listener| listener.0).collect();
            let first_generation = plan.first_generation;
            let seed = plan.seed ^ number as u64;
            let setup = Setup { first_generation, seed, ..team.setup(number, listeners) };
            let mut reactor = Reactor::new(ring, make(number, &panics_meant), setup);
            reactor.start();
            let doing = Doing::Turning { at_us: 0 };
            let before = Counters::default();
            let closing = BTreeSet::new();
            lanes.push(Lane {
                reactor,
                doing,
                restless: Restless::default(),
                before,
                closing,
                nudged: BTreeSet::new(),
                put_off: PutOff::new(),
                accepted: BTreeMap::new(),
                failed: false,
                listeners: numbers,
            });
        }
        let actors = Vec::new();
        let accepted_max = limits.accepted_max;
        let listener_max = plan.listen_as.iter().map(|how| how.max_connections).collect();
        Self {
            kernel,
            lanes,
            actors,
            handle,
            admission: Arc::clone(team.admission()),
            front: Arc::clone(team.front()),
            door: Arc::clone(team.door()),
            watch: team.watch(),
            look_us: None,
            panics_meant,
            given_up: Vec::new(),
            failure: None,
            accepted_max,
            listener_max,
            paced: Paced::new(plan.accept_rate, &plan.listen, &plan.listen_as),
            not_ready_us: u64::from(plan.not_ready_ms) * 1_000,
            stops_us: None,
            evicting: evicting::evicting(plan),
            neglected: None,
        }
    }

    /// Takes an actor in; it looks for the first time in a while.
    pub(crate) fn add_actor(
        &mut self,
        in_us: u64,
        make: impl FnOnce(&mut Kernel, u32) -> Box<dyn Actor>,
    ) -> u32 {
        let mut kernel = self.kernel.borrow_mut();
        let number = kernel.add_actor();
        let actor = make(&mut kernel, number);
        kernel.look_in(number, in_us);
        self.actors.push(Some(actor));
        number
    }

    /// Every actor looks soon.
    pub(crate) fn nudge_actors(&mut self) {
        for actor in 0..self.actors.len() as u32 {
            self.kernel.borrow_mut().look_in(actor, 1);
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.kernel.borrow().now_us
    }

    /// Whether a connection ends, at once or in order, since the last of its reactor's turns or before.
    pub(crate) fn is_ending(&self, who: Party) -> bool {
        let place = usize::from(who.ring());
        let lane = &self.lanes[place];
        let mut ending = lane.closing.iter().copied().chain(lane.reactor.draining());
        ending.any(|key| Party::of(place, key) == who)
    }

    /// What went wrong first, if anything has.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failure.get_or_insert(what.into());
    }

    /// Whether every reactor has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| matches!(lane.doing, Doing::Ended))
    }

    /// What the reactors have counted, in their order.
    pub(crate) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.lanes.iter().map(|lane| lane.reactor.counters())
    }

    pub(crate) fn reactors(&mut self) -> impl Iterator<Item = &mut Reactor<SimRing, H>> {
        self.lanes.iter_mut().map(|lane| &mut lane.reactor)
    }

    /// Orders a drain, as a signal would.
    pub(crate) fn order_drain(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        let stops_us = *self.stops_us.get_or_insert(kernel.now_us + self.not_ready_us);
        kernel.drains_from_us = stops_us;
        drop(kernel);
        self.handle.drain();
    }

    /// Orders an end at once.
    pub(crate) fn order_abort(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        let stops_us = self.stops_us.map_or(kernel.now_us, |stops_us| stops_us.min(kernel.now_us));
        (self.stops_us, kernel.drains_from_us) = (Some(stops_us), stops_us);
        drop(kernel);
        self.handle.abort();
    }

    /// The next thing that happens by `until_us`, at its time; false if there is none, or if something has
    /// gone wrong.
    pub(crate) fn step(&mut self, until_us: u64) -> bool {
        if self.failure.is_some() {
            return false;
        }
        self.given_up.clear();
        let mut kernel = self.kernel.borrow_mut();
        if kernel.hear_bells() && !kernel.is_draining() {
            kernel.marks.meet(Mark::PermitRung);
        }
        drop(kernel);
        if let Some(held_out) = self.find_held_out() {
            self.fail(held_out);
            return false;
        }
        let mut kernel = self.kernel.borrow_mut();
        let mut next = None;
        for (place, lane) in self.lanes.iter().enumerate() {
            if let Some(at_us) = due_us(&lane.doing, &kernel, place)
                && next.is_none_or(|(sooner_us, _)| at_us < sooner_us)
            {
                next = Some((at_us, place));
            }
        }
        if let Some(look_us) = self.look_us
            && look_us <= until_us
            && next.is_none_or(|(lane_us, _)| look_us <= lane_us)
            && kernel.next_event_us().is_none_or(|event_us| look_us <= event_us)
        {
            kernel.pass_to(look_us);
            drop(kernel);
            self.look_at_reactors();
            return true;
        }
        let event_us = kernel.next_event_us();
        let lane_first = match (next, event_us) {
            (Some((lane_us, _)), Some(event_us)) if lane_us == event_us => kernel.dice.coin(),
            (Some((lane_us, _)), event_us) => event_us.is_none_or(|event_us| lane_us < event_us),
            (None, _) => false,
        };
        if !lane_first {
            let step = kernel.step(until_us);
            let violation = kernel.violations.first().cloned();
            drop(kernel);
            if let Step::Actor(actor) = step {
                self.look(actor);
            }
            self.check(violation);
            return step != Step::Nothing && self.failure.is_none();
        }
        let Some((at_us, place)) = next.filter(|(at_us, _)| *at_us <= until_us) else {
            return false;
        };
        kernel.pass_to(at_us);
        drop(kernel);
        self.move_lane(place);
        let moves = std::mem::take(&mut self.kernel.borrow_mut().moves);
        for (from, to) in moves {
            let before = &mut self.lanes[usize::from(from.ring())].reactor;
            if before.connections().origin(from.key()).is_some() {
                self.fail(format!("{to} uses the descriptor of {from}, which is open"));
            }
        }
        let violation = self.kernel.borrow().violations.first().cloned();
        self.check(violation);
        self.failure.is_none()
    }

    fn check(&mut self, violation: Option<String>) {
        if let Some(violation) = violation {
            self.fail(violation);
        }
    }

    fn look(&mut self, actor: u32) {
        // An actor that has left its place looks no more.
        let Some(mut one) = self.actors[actor as usize].take() else { return };
        one.look(&mut self.kernel.borrow_mut(), actor);
        self.actors[actor as usize] = Some(one);
    }

    /// Somebody looks whether the reactors turn, and again until none has been turning for long.
    fn look_at_reactors(&mut self) {
        let now_us = self.now_us();
        let stalls = self.watch.look(now_us);
        if !stalls.is_empty() {
            self.kernel.borrow_mut().marks.meet(Mark::ReactorStalled);
        }
        let waits = |lane: &Lane<H>| match lane.doing {
            Doing::Turning { at_us } | Doing::Entering { at_us, .. } => at_us > now_us + LOOK_US,
            Doing::Asleep { .. } | Doing::Ended => false,
        };
        let again = self.lanes.iter().any(waits);
        self.look_us = again.then_some(now_us + LOOK_US);
    }

    fn move_lane(&mut self, place: usize) {
        let now_us = self.now_us();
        let lane = &mut self.lanes[place];
        match lane.doing {
            Doing::Entering { wait, .. } => {
                let wait = lane.reactor.fall_asleep(wait);
                if wait == Wait::NOT {
                    // Somebody has left a message meanwhile.
                    lane.doing = Doing::Turning { at_us: now_us };
                    return;
                }
                // A failure shows again in the turn.
                let _ = lane.reactor.driver().submit();
                let mut kernel = self.kernel.borrow_mut();
                if kernel.unsubmitted(place as u16) > 0 {
                    // Interrupted, or told that it was not all taken: it does not sleep on that.
                    lane.doing = Doing::Turning { at_us: now_us + 1 };
                    return;
                }
                // It does not sleep if its own submissions wake it at once.
                if !kernel.has_news(place as u16) {
                    lane.restless.sleep();
                }
                let mut until_us = wait.sleep_us.map(|sleep_us| now_us + sleep_us);
                let overslept = find_overslept(place, lane, (now_us, until_us));
                let chance = kernel.knobs.early_return;
                if kernel.dice.permille(chance) {
                    let early_us = now_us + kernel.dice.log_between(1, 1_000_000);
                    until_us = Some(until_us.map_or(early_us, |until_us| until_us.min(early_us)));
                }
                lane.doing = Doing::Asleep { until_us };
                let unwoken = kernel.find_unwoken(place as u16);
                drop(kernel);
                self.check(overslept.or(unwoken));
            }
            _ => self.turn(place),
        }
    }

    fn turn(&mut self, place: usize) {
        let lane = &mut self.lanes[place];
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.note(What::Turn, place as u64, 0);
            kernel.begin_turn(place as u16);
        }
        let orphans = self.front.orphans();
        let step = lane.reactor.step();
        if let ControlFlow::Break(Err(error)) = step {
            lane.doing = Doing::Ended;
            lane.failed = true;
            lane.accepted = lane.reactor.accepted_by_listener();
            let mut kernel = self.kernel.borrow_mut();
            kernel.marks.meet(Mark::DriverFailed);
            kernel.exit_ring(place as u16);
            kernel.note(What::Told, place as u64, error.cause.len() as i64);
            return;
        }
        if self.front.orphans() < orphans {
            self.kernel.borrow_mut().marks.meet(Mark::OrphanTaken);
        }
        let ended = step.is_break();
        let wait = lane.reactor.plan_wait();
        let mut kernel = self.kernel.borrow_mut();
        let stalls = kernel.knobs.stalled_turn;
        let blocks = kernel.knobs.stalled_reactor;
        let took_us = match (kernel.dice.permille(stalls), kernel.dice.permille(blocks)) {
            (_, true) => kernel.dice.between(STALL_US, 4 * STALL_US),
            (true, _) => kernel.dice.between(1_000, 500_000),
            _ => kernel.dice.log_between(1, 64),
        };
        if took_us >= STALL_US {
            let look_us = kernel.now_us + STALL_US + kernel.dice.between(0, LOOK_US);
            self.look_us = Some(self.look_us.map_or(look_us, |sooner_us| sooner_us.min(look_us)));
        }
        let at_us = kernel.now_us + took_us;
        kernel.end_turn(place as u16, at_us);
        lane.doing = match wait.sleep_us {
            _ if ended => Doing::Ended,
            Some(0) => Doing::Turning { at_us },
            _ => Doing::Entering { at_us, wait },
        };
        let before = std::mem::replace(&mut lane.before, *lane.reactor.counters());
        let accepted = lane.before.accepted > before.accepted;
        if accepted && !lane.reactor.connections().is_draining() && self.stops_us.is_some() {
            kernel.marks.meet(Mark::AcceptedNotReady);
        }
        mark_counters(&mut kernel, &before, &lane.before);
        drop(kernel);
        self.note_given_up(place);
        self.check_turn(place, &before);
    }

    /// Notes whom a reactor has given up in its last turn.
    fn note_given_up(&mut self, place: usize) {
        let (lane, kernel) = (&mut self.lanes[place], self.kernel.borrow());
        let closing: BTreeMap<Key, CloseReason> = lane.reactor.closing().collect();
        for (key, why) in closing.iter().filter(|(key, _)| !lane.closing.contains(key)) {
            self.given_up.push(kernel.given_up(place as u16, *key, *why));
        }
        lane.closing = closing.into_keys().collect();
    }
}

/// When a reactor moves next.
fn due_us(doing: &Doing, kernel: &Kernel, place: usize) -> Option<u64> {
    match *doing {
        Doing::Turning { at_us } | Doing::Entering { at_us, .. } => Some(at_us.max(kernel.now_us)),
        Doing::Asleep { .. } if kernel.has_news(place as u16) => Some(kernel.now_us),
        Doing::Asleep { until_us } => until_us.map(|until_us| until_us.max(kernel.now_us)),
        Doing::Ended => None,
    }
}

fn mark_counters(kernel: &mut Kernel, before: &Counters, after: &Counters) {
    let rose = |get: fn(&Counters) -> u64| get(after) > get(before);
    let marks = [
        (rose(|c| c.buffers_spilled), Mark::BuffersSpilled),
        (rose(|c| c.completions_deferred), Mark::CompletionsDeferred),
        (rose(|c| c.large_put_off), Mark::LargePutOff),
        (rose(|c| c.drain_aborted), Mark::DrainAborted),
        (rose(|c| c.handler_panics), Mark::HandlerPanicked),
        (rose(|c| c.handed_over), Mark::HandedOver),
        (rose(|c| c.moved_out), Mark::Moved),
        (rose(|c| c.moves_given_up), Mark::MoveGivenUp),
        (rose(|c| c.stood_in), Mark::StoodIn),
        (rose(|c| c.strained), Mark::Strained),
        (rose(|c| c.shed), Mark::IdleShed),
        (rose(|c| c.mailboxes_full), Mark::MailboxFull),
        (rose(|c| c.refused_full), Mark::ClientRefused),
        (rose(|c| c.evicted), Mark::IdleEvicted),
        (rose(|c| c.evicted_for_others), Mark::EvictedForOther),
        (rose(|c| c.accepts_paced), Mark::AcceptPaced),
        (before.accept_pauses > 0 && rose(|c| c.accepted), Mark::AcceptPausedAndResumed),
    ];
    for (met, mark) in marks {
        if met {
            kernel.marks.meet(mark);
        }
    }
}
