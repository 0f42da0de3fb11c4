//! One thread's loop: what completed goes to machines and handlers, what they want goes to the driver.
//!
//! ```text
//!   enter ---> reap ---> dispatch ---> expire ---> apply ---> recycle
//!     ^      (bounded)  (handlers)    (bounded)  (the pushes)    |
//!     +----------------------------------------------------------+
//! ```
//!
//! One `enter` a turn submits what the turn before wanted and waits. No user code runs while completions
//! are taken, and none between two actions of a connection. Each connection's share of a turn is bounded:
//! what comes beyond is put off, in order, to the next turn, which then does not sleep.
//!
//! A panic of a handler is caught here, around the whole of a turn's work: the turn goes on behind the
//! connection it was called for, which is aborted.
//!
//! This file is the loop; `reactor/dispatch.rs` takes completions in, `reactor/front.rs` clients,
//! `reactor/evicting.rs` makes room for them, `reactor/moving.rs` gives some away, `reactor/apply.rs` carries wishes
//! out, `reactor/large.rs` those of who has much to move, `reactor/waiting.rs` says how long a turn waits,
//! `reactor/parking.rs` has receives that wait for a buffer, `reactor/ending.rs` ends it all, `reactor/audit.rs` says
//! whether it all still fits together.

mod apply;
mod audit;
mod dispatch;
mod ending;
mod evicting;
mod front;
mod large;
mod moving;
mod parking;
mod shedding;
mod standing_in;
mod waiting;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::acceptor::Acceptor;
use crate::admission::Admission;
use crate::calling::{Callback, Calling};
use crate::canary::{Canary, sings};
use crate::config::{
    CLIENTS_PER_TURN_MAX, COMPLETIONS_PER_TURN_MAX, Limits, Poll, SEGMENTS_PER_SEND_MAX,
    TIMERS_PER_TURN_MAX, Timeouts,
};
use crate::connection::{Input, Rules};
use crate::connections::{Addresses, Connections, Sizes, slot_bytes};
use crate::control::Control;
use crate::counters::{Counters, Ledger, Snapshot};
use crate::door::Door;
use crate::drain::Drain;
use crate::driver::{Completion, Driver, DriverFailed};
use crate::error::CloseReason;
use crate::front::Front;
use crate::handler::{Ctx, Handler};
use crate::listen::Placement;
use crate::pace::Pace;
use crate::placement::{Place, policy};
use crate::polling::Polling;
use crate::shedding::Shedding;
use crate::sources::Source;
use crate::span::Segment;
use crate::token::{Descriptor, Key};
use crate::wheel::Wheel;

use large::Large;
use moving::Leaving;
use parking::Parked;

/// The reactor's own timers: see [`Reactor::own_timer`].
const TIMER_ACCEPT: u32 = 0;
const TIMER_DRAIN: u32 = 1;
const TIMER_EVICT: u32 = 2;
const TIMER_STAND_IN: u32 = 3;
const TIMER_SHED: u32 = 4;
const TIMER_PACE: u32 = 5;
const TIMER_MOVE: u32 = 6;
const EXTRA_TIMERS: u32 = 7;

/// What a reactor is made with.
#[derive(Debug)]
pub struct Setup {
    /// Its number in the runtime.
    pub number: usize,
    /// Its listeners; it closes them.
    pub listeners: Vec<Descriptor>,
    /// Sizes.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// What it does before sleeping.
    pub poll: Poll,
    /// The process's cap.
    pub admission: Arc<Admission>,
    /// Orders and reports.
    pub control: Arc<Control>,
    /// For how long it goes on accepting behind the order of a drain.
    pub not_ready_ms: u32,
    /// What it has of the other reactors.
    pub front: Arc<Front>,
    /// Where the clients of each listener go.
    pub placements: Vec<Placement>,
    /// Whether idle connections go on to a reactor that has less to do.
    pub rebalance: bool,
    /// Who may come in.
    pub door: Arc<Door>,
    /// How often.
    pub pace: Arc<Pace>,
    /// What it draws is drawn from this.
    pub seed: u64,
    /// The life that every slot starts in: zero, but in tests of what happens when it wraps.
    pub first_generation: u32,
}

/// One reactor: its driver, its handler, its connections.
pub struct Reactor<D, H: Handler> {
    driver: D,
    handler: H,
    connections: Connections<H::State>,
    acceptor: Acceptor,
    control: Arc<Control>,
    front: Arc<Front>,
    placements: Vec<Box<dyn Place>>,
    door: Arc<Door>,
    /// What the connection of each slot is counted for; empty if nothing is counted.
    sources: Vec<Option<Source>>,
    /// Messages sent to other rings, of which each has a token of its own.
    notified: u8,
    /// Clients that may still be taken in in this turn.
    clients_left: usize,
    /// It hands nothing over any more.
    is_retired: bool,
    number: usize,
    wheel: Wheel,
    /// Completions to deal with, the oldest first.
    inbox: Vec<Completion>,
    /// How many of them have been dealt with, or begun with: a panic loses none and repeats none.
    taken: usize,
    /// Completions put off to the next turn, the oldest first.
    deferred: Vec<Completion>,
    large: Large,
    /// Timers to deal with.
    due: Vec<u32>,
    more_due: bool,
    /// Receives that wait for a buffer.
    parked: Parked,
    polling: Polling,
    not_ready_ms: u64,
    /// When it heard of the order to drain.
    ordered_ms: Option<u64>,
    drain: Option<Drain>,
    /// Where the next look for an idle connection begins.
    look_from: u32,
    /// Connections on their way to others, if any are to be moved.
    leaving: Option<Leaving>,
    /// Connections that make room for a client of another reactor: whose, and of which listener.
    making: Vec<(Key, (usize, u16))>,
    /// It was rung in this turn: another may have asked for a place.
    is_rung: bool,
    /// The handler has had its own part of this turn.
    has_turned: bool,
    /// Turns since the drain's deadline without a connection.
    last_turns: u32,
    /// The callback that it is in, and the connection which that is called for.
    calling: Arc<Calling>,
    segments: Vec<Segment>,
    /// Sends queued since the last enter: they complete in the next one, which is no news.
    sends_queued: u32,
    /// Its turn is over, and the next has not begun.
    is_waiting: bool,
    shedding: Shedding,
    /// Since when accepting fails, and when it last did, milliseconds.
    short: Option<(u64, u64)>,
    receive_cap: u32,
    wake_armed: bool,
}

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// A reactor that serves the listeners of `setup` once it runs.
    pub fn new(driver: D, handler: H, setup: Setup) -> Self {
        let Setup { number, listeners, limits, timeouts, poll, admission, control, .. } = setup;
        let placements = setup.placements.iter().zip(0..);
        let placements =
            placements.map(|(placement, listener)| policy(*placement, setup.seed ^ listener));
        let abilities = driver.abilities();
        let rules = Rules::new(&limits, &timeouts, abilities.receive_cap, abilities.zero_copy);
        let sizes = Sizes {
            reactor: number,
            slots: limits.slots(),
            first_generation: setup.first_generation,
            dial_ms: timeouts.dial.to_ms(),
            turn_bytes_max: limits.turn_bytes_max,
            turn_receives_max: limits.turn_receives_max,
        };
        let store = (Rc::clone(driver.memory()), Addresses::new(driver.sockets(), limits.slots()));
        let mut connections = Connections::new(sizes, rules, store, Arc::clone(&admission));
        connections.set_now_us(driver.now_us());
        let moves = setup.rebalance && setup.front.loads().reactors() > 1;
        let leaving = moves.then(|| Leaving::new(&setup.placements, setup.seed)).flatten();
        let counted = if setup.door.counts_sources() { limits.slots() } else { 0 };
        let sources = (0..counted).map(|_| None);
        let calling = Arc::clone(setup.front.loads().calling(number));
        connections.calling = Arc::clone(&calling);
        Self {
            acceptor: Acceptor::new(
                listeners,
                (admission, Arc::clone(&setup.front), setup.pace),
                number,
            ),
            control,
            front: setup.front,
            placements: placements.collect(),
            sources: sources.collect(),
            door: setup.door,
            notified: 0,
            clients_left: CLIENTS_PER_TURN_MAX,
            is_retired: false,
            number,
            wheel: Wheel::new(limits.slots() + EXTRA_TIMERS, connections.now_ms()),
            inbox: Vec::with_capacity(COMPLETIONS_PER_TURN_MAX),
            taken: 0,
            deferred: Vec::new(),
            large: Large::new(limits.turn_bytes_max),
            due: Vec::with_capacity(TIMERS_PER_TURN_MAX),
            more_due: false,
            parked: Parked::default(),
            polling: Polling::new(poll),
            not_ready_ms: setup.not_ready_ms.into(),
            ordered_ms: None,
            drain: None,
            look_from: 0,
            leaving,
            making: Vec::new(),
            is_rung: false,
            has_turned: false,
            last_turns: 0,
            calling,
            segments: Vec::with_capacity(SEGMENTS_PER_SEND_MAX),
            sends_queued: 0,
            is_waiting: false,
            shedding: Shedding::new(limits.owned_bytes_max),
            short: None,
            receive_cap: if abilities.receive_cap { limits.turn_bytes_max } else { 0 },
            wake_armed: false,
            driver,
            handler,
            connections,
        }
    }

    /// Runs until a drain is complete.
    ///
    /// # Errors
    /// [`DriverFailed`] when the ring cannot be trusted any more. Every connection has been told of its end
    /// then, with [`CloseReason::DriverFailed`], and every descriptor is closed that it knows of.
    ///
    /// # Panics
    /// If anything but the handler does. What holds after a failure holds then too: descriptors are numbers,
    /// nothing closes them because a thread unwinds, and clients would wait for the end of the process.
    pub fn run(&mut self) -> Result<(), DriverFailed> {
        let run = AssertUnwindSafe(|| {
            self.start();
            loop {
                if let ControlFlow::Break(result) = self.step() {
                    return result;
                }
            }
        });
        catch_unwind(run).unwrap_or_else(|panic| {
            self.abandon();
            self.report();
            resume_unwind(panic)
        })
    }

    /// One pass, and what follows if it was the last, for whoever runs a reactor without a thread of its own.
    /// Breaks once a drain is complete, or with [`DriverFailed`]: as [`run`](Self::run) ends.
    pub fn step(&mut self) -> ControlFlow<Result<(), DriverFailed>> {
        let result = self.turn();
        if result.is_err() {
            self.abandon();
        } else if !self.is_drained() {
            return ControlFlow::Continue(());
        } else {
            self.front.end(self.number);
        }
        self.end_handler();
        self.report();
        ControlFlow::Break(result)
    }

    fn report(&self) {
        self.control.report(self.number, &self.snapshot());
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        let (memory, connections) = (&self.connections.memory, self.connections.len());
        let buffer_bytes = u64::from(memory.buffer_bytes());
        let buffers_held = memory.buffers() - memory.buffers_free();
        let slots = &self.connections.slots;
        let parked = self.parked.iter().filter(|key| slots.get(*key).is_some());
        Snapshot {
            counters: *self.counters(),
            at_us: self.connections.now_us(),
            ran_us: self.driver.ran_us(),
            connections,
            receives_waiting: parked.count() as u32,
            timers: self.wheel.armed(),
            mail: self.front.mail(self.number).len() as u32,
            memory: Ledger {
                buffers: u64::from(memory.buffers()) * buffer_bytes,
                buffers_held: u64::from(buffers_held) * buffer_bytes,
                owned: memory.owned_bytes(),
                slots: u64::from(connections) * slot_bytes::<H::State>() as u64,
            },
        }
    }

    /// Tells the handler that the reactor runs, and queues what is wanted from the first turn on.
    pub fn start(&mut self) {
        self.front.loads().begin_turn(self.number, self.driver.now_us());
        let Self { handler, connections, .. } = self;
        self.calling.begin_alone(Callback::OnStart);
        if catch_unwind(AssertUnwindSafe(|| handler.on_start(connections))).is_err() {
            self.connections.counters.handler_panics += 1;
        }
        self.calling.end();
        self.begin_to_move();
        self.work_through_panics();
    }

    /// One pass.
    ///
    /// # Errors
    /// [`DriverFailed`] when the ring cannot be trusted any more.
    pub fn turn(&mut self) -> Result<(), DriverFailed> {
        self.enter()?;
        self.connections.counters.turns += 1;
        self.has_turned = false;
        self.last_turns += u32::from(self.connections.ending && self.connections.is_empty());
        self.expire();
        self.work_through_panics();
        // Those that the end of a connection released.
        self.driver.recycle();
        if self.drain.is_some() && self.acceptor.is_stopped() {
            self.retire();
        }
        Ok(())
    }

    fn work_through_panics(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.after_panic();
        }
    }

    /// What has been counted so far.
    pub fn counters(&self) -> &Counters {
        &self.connections.counters
    }

    /// The connections.
    pub fn connections(&mut self) -> &mut Connections<H::State> {
        &mut self.connections
    }

    /// The driver.
    pub fn driver(&mut self) -> &mut D {
        &mut self.driver
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Whether a drain was ordered and nothing is left, here or on its way here.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some()
            && self.connections.is_empty()
            && !self.waits_for_handler()
            && self.acceptor.is_stopped()
            && self.front.is_retired()
            && self.front.is_empty(self.number)
    }

    /// Submits, waits, reaps.
    fn enter(&mut self) -> Result<(), DriverFailed> {
        let mut wait = self.plan_wait();
        let before_us = self.connections.now_us();
        if wait.sleep_us != Some(0) {
            wait = self.fall_asleep(wait);
        }
        self.driver.enter(wait)?;
        let now_us = self.driver.now_us();
        if !std::mem::take(&mut self.is_waiting) {
            // With what the kernel did in it.
            self.end_turn(now_us);
        }
        let loads = self.front.loads();
        loads.begin_turn(self.number, now_us);
        self.front.mail(self.number).wake_up();
        self.connections.set_now_us(now_us);
        self.clients_left = CLIENTS_PER_TURN_MAX;
        self.wheel.advance(self.connections.now_ms());
        // All of the last turn's are dealt with, but for those put off, which come first. As a rule there are none, and
        // the inbox stays where it is: it has room for all that a turn takes in.
        if !self.deferred.is_empty() {
            std::mem::swap(&mut self.inbox, &mut self.deferred);
        }
        let before = self.inbox.len();
        self.driver.reap(&mut self.inbox, COMPLETIONS_PER_TURN_MAX);
        let reaped = (self.inbox.len() - before) as u32;
        if sings(Canary::DeferredOvertaken) {
            self.inbox.rotate_left(before);
        }
        self.connections.counters.completions += u64::from(reaped);
        let news = reaped.saturating_sub(std::mem::take(&mut self.sends_queued));
        if wait.sleep_us != Some(0) && news > 0 {
            self.polling.note(self.connections.now_us() - before_us, news);
            if wait.spin_us > 0 {
                self.count_poll(wait.spin_us, before_us);
            }
        }
        Ok(())
    }

    fn expire(&mut self) {
        let now_ms = self.connections.now_ms();
        self.more_due = self.wheel.expire(now_ms, TIMERS_PER_TURN_MAX, &mut self.due);
    }

    /// Everything of a turn that may call a handler. After a panic it is called again, and goes on.
    ///
    /// What is done for every message stands in two functions of its own, each with as little around it as can
    /// be: there, what a loop needs fits the registers.
    fn work(&mut self) {
        self.take_mail();
        self.take_in_clients();
        self.dispatch_all();
        while let Some(timer) = self.due.pop() {
            self.on_timer(timer);
        }
        if self.leaving.as_ref().is_some_and(|leaving| !leaving.is_empty()) {
            self.see_off();
        }
        self.turn_of_handler();
        self.tend_buffers();
        self.watch_strain();
        self.apply_all();
    }

    #[inline(never)]
    fn dispatch_all(&mut self) {
        while let Some(completion) = self.inbox.get_mut(self.taken) {
            self.taken += 1;
            let completion = completion.take();
            self.dispatch(completion);
        }
        self.inbox.clear();
        self.taken = 0;
    }

    /// Calls the handler for a connection. Whoever looks meanwhile sees which callback the reactor is in; a panic
    /// leaves it standing there.
    #[inline(always)]
    fn call<T>(
        &mut self,
        callback: Callback,
        key: Key,
        call: impl FnOnce(&mut H, &mut Ctx<'_, H::State>) -> T,
    ) -> T {
        self.calling.begin(callback, key);
        let result = call(&mut self.handler, &mut Ctx::new(&mut self.connections, key));
        if !sings(Canary::CallStillNamed) {
            self.calling.end();
        }
        result
    }

    /// A handler panicked: its connection ends, everything else goes on.
    fn after_panic(&mut self) {
        self.connections.counters.handler_panics += u64::from(!sings(Canary::PanicUncounted));
        self.connections.forget_the_asked();
        let Some(call) = self.calling.get() else { return };
        self.calling.end();
        let Some(key) = call.key else { return };
        let (slot, callback) = (key.index(), call.callback.name());
        tracing::error!(slot, callback, "a handler panicked; its connection is aborted");
        if call.callback == Callback::OnClose {
            self.free(key);
        } else {
            self.connections.ask(key, Input::Abort(CloseReason::HandlerPanic));
        }
    }

    /// The place in the wheel of a timer that is the reactor's own: behind those of the slots.
    fn own_timer(&self, which: u32) -> u32 {
        self.connections.slots.capacity() + which
    }

    fn on_timer(&mut self, timer: u32) {
        match timer.checked_sub(self.own_timer(0)) {
            None => self.on_connection_timer(timer),
            Some(TIMER_ACCEPT) => self.acceptor.look_again(),
            Some(TIMER_EVICT) => self.on_evict_timer(),
            Some(TIMER_STAND_IN) => self.stand_in(),
            Some(TIMER_SHED) => self.on_shed_timer(),
            Some(TIMER_PACE) => self.on_pace_timer(),
            Some(TIMER_MOVE) => self.on_move_timer(),
            Some(_) => self.on_drain_timer(),
        }
    }

    /// Another thread rang.
    fn on_wake(&mut self) {
        self.wake_armed = sings(Canary::HeardOnce);
        self.driver.clear_wake();
        self.acceptor.look_again();
        self.report();
        self.stand_in();
        self.is_rung = true;
        self.look_for_order();
        if self.control.abort_ordered() && !self.connections.ending {
            self.abort_all(CloseReason::DrainDeadline);
        }
    }
}

impl<D: std::fmt::Debug, H: Handler> std::fmt::Debug for Reactor<D, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("number", &self.number)
            .field("driver", &self.driver)
            .field("acceptor", &self.acceptor)
            .field("counters", &self.connections.counters)
            .finish_non_exhaustive()
    }
}
