//! Services that are tasks: async code that does everything it may do with connections, timers and other tasks, and
//! what must hold of it.
//!
//! ```text
//!   Checked, a handler: notes what the reactor tells ---> Tasks, as in production ---> deeds, drawn
//!        ^                                                                              |
//!        +---- after each turn: what was told, what the tasks say of themselves <-------+  World
//! ```
//!
//! | looked at | must hold |
//! |---|---|
//! | who waits | not for what has come: such a task has been polled, or its reactor turns again at once |
//! | who sleeps | the reactor wakes in time for the first of them; nobody wakes early |
//! | who was told of an end | has received all that came before it |
//! | inboxes | who left something in one is not read from, everybody else is |
//! | handles | a connection without one is being closed; one without a half that sends has ended its direction |
//! | panics | each is counted once, resets the connections of its task, and no other |
//! | the census | as many tasks as there are futures, no timer without somebody who sleeps, nothing at the end |
//!
//! What peers read is compared with what sends took, as of any handler that does anything (`Expect::Given`). Here is
//! the handler; `tasks/world.rs` is what tasks say of themselves, `tasks/deeds.rs` what they do, `tasks/held.rs` and
//! `tasks/waits.rs` how they hold connections and wait, `tasks/outside.rs` what other threads do to them.

mod deeds;
mod held;
mod outside;
mod waits;
mod world;

use std::future::Future;
use std::rc::Rc;

use slipring::{Conn, Tasks};
use slipring_core::{CloseReason, Connections, Ctx, Handler, Key, Lease, Origin};

pub(super) use deeds::serve;
pub(super) use outside::Outside;
pub(super) use world::{Conditions, World};

use super::book::party;
use waits::On;

/// Turns that a task waits for its poll at most, once there is what it waits for.
const TURNS_TO_POLL_MAX: u32 = 64;

/// Tasks under observation. See the module's documentation.
#[derive(Debug)]
pub(super) struct Checked<S> {
    tasks: Tasks<S>,
    world: Rc<World>,
}

impl<S> Checked<S> {
    pub(super) fn new(tasks: Tasks<S>, world: &Rc<World>) -> Self {
        *world.spawner.borrow_mut() = Some(tasks.spawner());
        Self { tasks, world: Rc::clone(world) }
    }

    fn complain(&self, what: impl Into<String>) {
        self.world.complain(what);
    }
}

impl<S, F> Checked<S>
where
    S: FnMut(Conn) -> F,
    F: Future + 'static,
{
    /// Whoever waits, waits for something that has not come.
    fn check_waits<T>(&self, connections: &Connections<T>) {
        let next_ms = self.tasks.next_turn_ms();
        let (now_ms, turns_at_once) = (connections.now_ms(), next_ms == Some(0));
        let told = self.world.told.borrow();
        let mut lost = None;
        for wait in self.world.waits.borrow_mut().values_mut() {
            let told_of = |key: &Key| told.get(key).copied().unwrap_or_default();
            let is_due = match &wait.on {
                On::Bytes(key) => told_of(key).has_something(),
                On::Room(key) => {
                    let has_room =
                        !connections.is_outbox_high(*key) && connections.may_send_to(*key);
                    let is_retried = now_ms <= wait.since_ms + waits::NO_MEMORY_MS;
                    told_of(key).ended.is_some() || (has_room && !is_retried)
                }
                On::End(key) => told_of(key).ended.is_some(),
                On::Time(until_ms) => *until_ms <= now_ms,
            };
            if !is_due {
                wait.turns = 0;
                continue;
            }
            wait.turns += 1;
            if !turns_at_once || wait.turns > TURNS_TO_POLL_MAX {
                lost.get_or_insert_with(|| format!("{} waits for what is there", wait.who()));
            }
        }
        let first_ms = self.world.waits.borrow().values().filter_map(|wait| wait.until_ms()).min();
        if let Some(first_ms) = first_ms
            && next_ms.is_none_or(|next_ms| next_ms > first_ms)
        {
            lost.get_or_insert(format!(
                "a task of reactor {} sleeps until {first_ms} ms, and the next turn is at {next_ms:?}",
                self.world.reactor
            ));
        }
        drop(told);
        lost.into_iter().for_each(|lost| self.complain(lost));
    }

    /// Who left something is not read from; everybody else is. Who has no handle is being closed.
    fn check_connections<T>(&self, connections: &Connections<T>) {
        let told = self.world.told.borrow();
        for (key, told) in told.iter().filter(|(key, _)| connections.origin(**key).is_some()) {
            let who = party(self.world.reactor, *key);
            let (held, is_paused) = (told.handles > 0, connections.is_paused(*key));
            let is_unread = held && !told.is_deaf && told.came > told.taken;
            // Who is being closed is read from all the same, for its peer's FIN.
            if held && is_unread != is_paused {
                let (came, taken) = (told.came, told.taken);
                return self.complain(format!(
                    "{who}: paused {is_paused}, of {came} bytes {taken} taken, {} handles, deaf {}",
                    told.handles, told.is_deaf
                ));
            }
            let may_send = connections.may_send_to(*key);
            let unheld = told.is_open && !held && !told.is_new && self.world.dialing.get() == 0;
            if may_send && (unheld || told.is_shut) {
                return self.complain(format!(
                    "{who}: no handle that sends is left, and its direction goes on"
                ));
            }
        }
    }

    /// What there is, is somebody's.
    fn check_census(&self) {
        let (census, world) = (self.tasks.census(), &self.world);
        let alive = world.alive.get() + world.remote_alive();
        let told = world.told.borrow();
        let ended = told.values().filter(|told| told.ended.is_some() && told.handles > 0).count();
        let ended = ended + world.dialing.get();
        drop(told);
        if census.tasks != alive || census.serving > census.tasks {
            self.complain(format!("{alive} futures of tasks are left, and it says {census:?}"));
        }
        let sleep = world.timers.get() + world.remote_alive();
        if census.timers > sleep {
            self.complain(format!("{sleep} sleep, and it says {census:?}"));
        }
        if census.ended > ended {
            self.complain(format!("{ended} handles of ended connections, and it says {census:?}"));
        }
        if census.drain_waiters > world.drain_waiters.get() {
            let waiters = world.drain_waiters.get();
            self.complain(format!("{waiters} wait for a drain, and it says {census:?}"));
        }
    }
}

impl<S, F> Handler for Checked<S>
where
    S: FnMut(Conn) -> F,
    F: Future + 'static,
{
    type State = <Tasks<S> as Handler>::State;

    fn on_start(&mut self, connections: &mut Connections<Self::State>) {
        self.tasks.on_start(connections);
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Self::State>, origin: Origin) {
        let key = ctx.key();
        self.world.opened(key, origin, ctx.now_ms());
        self.tasks.on_open(ctx, origin);
    }

    fn on_data(&mut self, ctx: &mut Ctx<'_, Self::State>, data: Lease) {
        self.world.told_of(ctx.key(), |told| told.came += data.len() as u64);
        self.tasks.on_data(ctx, data);
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.world.told_of(ctx.key(), |told| told.is_ended = true);
        self.tasks.on_eof(ctx);
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Self::State>) {
        self.tasks.on_writable(ctx);
    }

    fn on_turn(&mut self, connections: &mut Connections<Self::State>) {
        self.world.begin_turn(connections.now_us());
        self.tasks.on_turn(connections);
        self.world.end_turn();
        self.check_waits(connections);
        self.check_connections(connections);
        self.check_census();
    }

    fn next_turn_ms(&self) -> Option<u64> {
        self.tasks.next_turn_ms()
    }

    fn is_busy(&self) -> bool {
        self.tasks.is_busy()
    }

    fn is_idle(&self, state: &Self::State) -> bool {
        self.tasks.is_idle(state)
    }

    fn on_end(&mut self, connections: &mut Connections<Self::State>) {
        let census = self.tasks.census();
        if census.serving > 0 && self.world.is_waited_for(connections.now_us()) {
            self.complain(format!("a drain has ended before its tasks: {census:?}"));
        }
        self.tasks.on_end(connections);
        self.world.end_turn();
        let census = self.tasks.census();
        if census != slipring::Census::default() && census.ready == 0 {
            self.complain(format!("left behind by the tasks: {census:?}"));
        }
        self.world.check_end();
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Self::State>, reason: CloseReason) {
        self.world.closed(ctx.key(), reason);
        self.tasks.on_close(ctx, reason);
    }
}
