//! Tasks of a reactor: futures that it polls between what the kernel tells it and what it tells the kernel.
//!
//! ```text
//!   on_data ---> inbox of the connection, waker ---> queue of those that are ready
//!                                                          |
//!   another thread ---> incoming, a ring of the bell ------+
//!   timers ------------------------------------------------+
//!                                                          v
//!                                     on_turn: poll ---> recv, send, spawn ... on the connections lent meanwhile
//! ```
//!
//! Why no allocation, no count and no atomic for a wake on the own reactor: a waker is the task's number
//! ([`slipring_core::sys::waker`]). Whoever wakes on the reactor's thread sets a bit in the task's entry and puts its
//! index on a queue; anybody else leaves the number where the reactor looks once a turn, and rings.
//!
//! *Fairness.* A turn polls tasks in rounds: those that became ready during one round are polled in the next, for as
//! many rounds and polls as a turn may have; the rest is for the next turn, which then does not wait. So tasks that
//! wake each other without end do not keep the kernel's news out.
//!
//! *Panics.* One in a task ends that task: what it owned is dropped, and the connections among that are aborted. One in
//! a waker that is not a task's own, woken or dropped here, ends nothing but that wake.
//!
//! This file is the table of tasks and their turn; `tasks/waking.rs` is how they are woken, `tasks/timers.rs` what they
//! sleep by, `tasks/join.rs` and `tasks/scope.rs` how one waits for others, `tasks/ending.rs` how their ends are said
//! to whoever waits, `tasks/entries.rs` what is kept for them while they wait, `tasks/rooms.rs` what lives beside them,
//! `tasks/catching.rs` how panics of users' code are caught, `tasks/remote.rs` what other threads reach them by,
//! `tasks/blocking.rs` where work goes that would block them.

mod blocking;
mod catching;
mod ending;
mod entries;
mod join;
mod remote;
mod rooms;
mod scope;
mod time;
mod timers;
mod waking;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use slipring_core::Doorbell;
use slipring_core::calling::{self, TaskNotes};
use slipring_core::canary::{Canary, sings};
use slipring_core::sys::{Lent, waker};

#[cfg(feature = "dns")]
pub(crate) use blocking::run_on_any_core;
pub use blocking::{
    BlockingLimits, BlockingLimitsError, BlockingSnapshot, blocking_snapshot, set_blocking_limits,
    unblock,
};
pub use join::{JoinError, JoinHandle, spawn_local};
pub(crate) use join::{keep, note, put_aside};
pub use remote::{RemoteJoin, Spawner};
pub(crate) use rooms::{Room, new_number};
pub use scope::Scope;
#[cfg(feature = "hyper")]
pub(crate) use time::instants;
pub use time::{Elapsed, Sleep, draining, now, sleep, sleep_until, timeout, yield_now};
pub(crate) use timers::Timer;
#[cfg(any(feature = "tls", feature = "tower"))]
pub(crate) use waking::drop_waiters;
pub(crate) use waking::wake_waiter;

pub(crate) use catching::catch;
use catching::drop_each;
use entries::{Entries, Kept};
use remote::{ExecutorId, Remote};
use rooms::Rooms;
use timers::Timers;
use waking::{TaskId, TaskWake};

/// Rounds of polls in one turn.
const ROUNDS_PER_TURN_MAX: usize = 8;
/// Polls in one turn.
const POLLS_PER_TURN_MAX: usize = 1024;
/// How often tasks may spawn others as they are dropped at the end, before those are left.
const ROUNDS_OF_DROPS_MAX: usize = 16;
/// Tasks of one reactor: what their numbers have room for.
const TASKS_MAX: usize = 1 << waking::INDEX_BITS;

/// A future whose result nobody wants. Of any future, without another around it: that would have it twice.
trait Run {
    fn run(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

impl<F: Future> Run for F {
    #[inline]
    fn run(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx).map(drop)
    }
}

type Boxed = Pin<Box<dyn Run>>;

thread_local! {
    /// The executor whose reactor turns.
    static CURRENT: Lent<Rc<Executor>> = const { Lent::empty() };
}

/// What a drain does about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It serves a connection: a drain waits for it, until its deadline.
    Serving,
    /// It is dropped once nobody is served any more.
    Beside,
}

struct Task {
    /// `None` while it is polled.
    future: Option<Boxed>,
    /// What it is called while it is polled.
    name: calling::Task,
    generation: u32,
    kind: Kind,
    /// It stands in the queue.
    is_ready: bool,
    /// To be dropped as soon as its poll returns.
    is_cancelled: bool,
}

/// All tasks, and those that are to be polled.
#[derive(Default)]
struct Table {
    tasks: Slab<Task>,
    ready: VecDeque<u32>,
}

impl Table {
    #[inline]
    fn get(&mut self, id: TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id.index as usize).filter(|task| task.generation == id.generation)
    }

    #[inline]
    fn wake(&mut self, id: TaskId) {
        if let Some(task) = self.get(id)
            && !(sings(Canary::WakeLostInPoll) && task.future.is_none())
            && !std::mem::replace(&mut task.is_ready, true)
        {
            self.ready.push_back(id.index);
        }
    }

    /// The next to be polled, and its future.
    #[inline]
    fn next(&mut self) -> Option<(u32, u32, calling::Task, Boxed)> {
        let index = self.ready.pop_front()?;
        // It may have been cancelled since, its place taken by another, which stands behind it then.
        let task = self.tasks.get_mut(index as usize).filter(|task| task.is_ready)?;
        task.is_ready = false;
        Some((index, task.generation, task.name, task.future.take()?))
    }
}

/// What the tasks of one reactor hold: [`Tasks::census`](crate::Tasks::census).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Census {
    /// Tasks there are.
    pub tasks: usize,
    /// Those of them that a drain waits for: they serve a connection, or were started from another thread.
    pub serving: usize,
    /// Places in the queue of those to be polled.
    pub ready: usize,
    /// Timers of sleeps, timeouts and read deadlines.
    pub timers: usize,
    /// Tasks that wait for the order to drain.
    pub drain_waiters: usize,
    /// Connections that have ended, and whose handles are still held.
    pub ended: usize,
}

/// The tasks of one reactor.
pub(crate) struct Executor {
    id: ExecutorId,
    table: RefCell<Table>,
    timers: RefCell<Timers>,
    remote: Arc<Remote>,
    /// Who is polled, for others to see. There once its reactor is.
    notes: OnceCell<TaskNotes>,
    /// What wakes its reactor. There once that is.
    bell: OnceCell<Doorbell>,
    generation: Cell<u32>,
    /// Tasks that serve.
    serving: Cell<usize>,
    /// What a task that panicked has owned is being dropped.
    is_unwinding: Cell<bool>,
    panics: Cell<u64>,
    is_draining: Cell<bool>,
    drain_waiters: RefCell<Entries<Waker>>,
    /// Wakers that were replaced while something was borrowed.
    aside: RefCell<Vec<Waker>>,
    /// What was to be done while nothing was lent.
    later: RefCell<Vec<Box<dyn FnOnce()>>>,
    rooms: Rooms,
    now_us: Cell<u64>,
    /// Blocking work runs on this thread, and takes so long.
    inline_blocking: Cell<Option<Duration>>,
    /// Made when somebody asks for one.
    #[cfg(feature = "hyper")]
    instants: OnceCell<slipring_core::clock::Instants>,
}

impl Executor {
    pub(crate) fn new() -> Rc<Self> {
        let (id, generation, remote) = remote::register();
        Rc::new(Self {
            id,
            table: RefCell::default(),
            timers: RefCell::default(),
            remote,
            notes: OnceCell::new(),
            bell: OnceCell::new(),
            generation: Cell::new(generation),
            serving: Cell::new(0),
            is_unwinding: Cell::new(false),
            panics: Cell::new(0),
            is_draining: Cell::new(false),
            drain_waiters: RefCell::default(),
            aside: RefCell::default(),
            later: RefCell::default(),
            rooms: Rooms::default(),
            now_us: Cell::new(0),
            inline_blocking: Cell::new(None),
            #[cfg(feature = "hyper")]
            instants: OnceCell::new(),
        })
    }

    /// Calls with the executor of the reactor that turns on this thread; `None` if none does.
    #[inline]
    pub(crate) fn with<R>(call: impl FnOnce(&Rc<Self>) -> R) -> Option<R> {
        // Cloned, so that what is called may ask for it again: the place is empty as long as it is borrowed.
        let current = CURRENT.with(|place| place.borrow(|executor| Rc::clone(executor)))?;
        Some(call(&current))
    }

    /// The same, for what makes no sense elsewhere.
    ///
    /// # Panics
    /// If no reactor turns on this thread.
    #[track_caller]
    pub(crate) fn here() -> Rc<Self> {
        let Some(executor) = Self::with(Rc::clone) else {
            panic!(
                "called outside of a reactor's tasks; call it within what `serve`, `spawn_local` or \
                 `Spawner::spawn` run"
            )
        };
        executor
    }

    /// Makes this executor the one of this thread, for the time of the call.
    #[inline]
    pub(crate) fn enter<R>(self: &Rc<Self>, call: impl FnOnce() -> R) -> R {
        let mut own = Rc::clone(self);
        CURRENT.with(|place| place.lend(&mut own, call))
    }

    /// Calls as another thread would: without an executor.
    pub(crate) fn elsewhere<R>(call: impl FnOnce() -> R) -> R {
        let mut call = Some(call);
        let mut called = || call.take().map(|call| call());
        let called = CURRENT.with(|place| place.borrow(|_| called())).flatten();
        called.unwrap_or_else(|| {
            let call = call.take().expect("it was not called, for nothing was lent");
            call()
        })
    }

    /// Blocking work of its tasks runs where they do, from now on.
    pub(crate) fn block_inline(&self, takes: Duration) {
        self.inline_blocking.set(Some(takes));
    }

    /// Other threads reach it from now on.
    pub(crate) fn connect(&self, bell: Doorbell, notes: TaskNotes) {
        self.remote.connect(bell.clone());
        // It starts once.
        let _ = (self.notes.set(notes), self.bell.set(bell));
    }

    /// Runs what is of one task, named meanwhile.
    #[inline]
    fn run_as<T>(&self, name: calling::Task, run: impl FnOnce() -> T) -> Option<T> {
        let Some(notes) = self.notes.get() else { return catch(run) };
        notes.begin(name);
        let result = catch(run);
        notes.end();
        result
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    /// Adds a task, which is polled for the first time in the next round.
    ///
    /// # Panics
    /// If there are as many as have numbers.
    pub(crate) fn spawn<F: Future + 'static>(&self, kind: Kind, future: F) -> TaskId {
        self.spawn_as(calling::Task::BESIDE, kind, future)
    }

    fn spawn_as<F: Future + 'static>(&self, name: calling::Task, kind: Kind, future: F) -> TaskId {
        let generation = self.generation.get().wrapping_add(1) & waking::GENERATION_MAX;
        self.generation.set(generation);
        let table = &mut *self.table.borrow_mut();
        assert!(table.tasks.len() < TASKS_MAX, "a reactor has {TASKS_MAX} tasks at most");
        let future: Option<Boxed> = Some(Box::pin(future));
        let task = Task { future, name, generation, kind, is_ready: true, is_cancelled: false };
        let index = table.tasks.insert(task) as u32;
        if kind == Kind::Serving {
            self.serving.set(self.serving.get() + 1);
        }
        table.ready.push_back(index);
        TaskId { executor: self.id.number, generation, index }
    }

    /// Adds a task that serves a connection: `make` is user code too.
    pub(crate) fn serve<F>(&self, name: calling::Task, make: impl FnOnce() -> F)
    where
        F: Future + 'static,
    {
        // For want of a number for the task it panics too: whoever was accepted behind it has a task all the same.
        let spawn = |future| catch(|| self.spawn_as(name, Kind::Serving, future));
        if self.run_as(name, make).and_then(spawn).is_none() {
            self.note_panic();
        }
    }

    /// Puts a task on the queue, if it is there and not on it already.
    #[inline]
    pub(crate) fn wake(&self, id: TaskId) {
        self.table.borrow_mut().wake(id);
    }

    /// Wakes whoever waits, in the shortest way if that is a task of this reactor.
    #[inline]
    pub(crate) fn wake_waker(self: &Rc<Self>, waker: Waker) {
        match TaskId::of(&waker) {
            Some(id) if id.executor == self.id.number => self.wake(id),
            _ => self.wake_foreign(waker),
        }
    }

    /// One that somebody else made is code of theirs. Who waits behind it is woken all the same.
    #[cold]
    fn wake_foreign(self: &Rc<Self>, waker: Waker) {
        if catch(|| self.enter(|| waker.wake())).is_none() {
            self.note_panics_of_wakers(1);
        }
    }

    /// Drops a task, wherever it stands. One that is being polled is dropped when its poll returns.
    pub(crate) fn cancel(&self, id: TaskId) {
        if id.executor != self.id.number {
            // Another reactor's: those of a simulation share a thread.
            return;
        }
        let future = {
            let mut table = self.table.borrow_mut();
            let found = match sings(Canary::TaskGenerationIgnored) {
                true => table.tasks.get_mut(id.index as usize),
                false => table.get(id),
            };
            let Some(task) = found else { return };
            let Some(future) = task.future.take() else {
                task.is_cancelled = !sings(Canary::CancelInPollForgotten);
                return;
            };
            let kind = table.tasks.remove(id.index as usize).kind;
            self.note_end(kind);
            future
        };
        self.drop_future(future);
    }

    /// Does it in the next turn, when everything is lent: for what is dropped at a time when nothing is.
    pub(crate) fn later(&self, act: impl FnOnce() + 'static) {
        self.later.borrow_mut().push(Box::new(act));
    }

    fn note_end(&self, kind: Kind) {
        if kind == Kind::Serving {
            self.serving.set(self.serving.get() - 1);
        }
    }

    /// User code runs when a future is dropped, and may panic.
    fn drop_future(&self, future: Boxed) {
        if catch(|| drop(future)).is_none() && !sings(Canary::TaskPanicUncounted) {
            self.note_panic();
        }
    }

    pub(crate) fn note_panic(&self) {
        self.panics.set(self.panics.get() + 1);
        tracing::error!("a task panicked; its connections are aborted");
    }

    fn note_panics_of_wakers(&self, panics: u64) {
        if panics > 0 {
            self.panics.set(self.panics.get() + panics);
            tracing::error!("a waker that is no task's own panicked");
        }
    }

    /// Panics since it was last asked.
    pub(crate) fn take_panics(&self) -> u64 {
        self.panics.take()
    }

    /// Whether what is dropped now was owned by a task that has panicked.
    pub(crate) fn is_unwinding(&self) -> bool {
        self.is_unwinding.get() || std::thread::panicking()
    }

    /// One turn of all that is ready, within [`enter`](Self::enter) and with the connections lent.
    pub(crate) fn turn(self: &Rc<Self>, now_us: u64, is_draining: bool) {
        self.now_us.set(now_us);
        if is_draining && !self.is_draining.replace(true) {
            let waiters = self.drain_waiters.borrow_mut().take_all();
            waiters.into_iter().for_each(|waiter| self.wake_waker(waiter));
        }
        let later = std::mem::take(&mut *self.later.borrow_mut());
        later.into_iter().for_each(|act| act());
        self.take_incoming();
        self.expire();
        let mut polls = 0;
        for _ in 0..ROUNDS_PER_TURN_MAX {
            let round = self.table.borrow().ready.len().min(POLLS_PER_TURN_MAX - polls);
            if round == 0 {
                break;
            }
            for _ in 0..round {
                self.poll_next();
            }
            polls += round;
            self.drop_aside();
        }
        self.drop_aside();
    }

    fn drop_aside(&self) {
        loop {
            // Not borrowed any more when it is dropped: that may put others aside.
            let waker = self.aside.borrow_mut().pop();
            if waker.is_none() {
                return;
            }
            self.note_panics_of_wakers(drop_each(waker));
        }
    }

    fn poll_next(self: &Rc<Self>) {
        let next = self.table.borrow_mut().next();
        let Some((index, generation, name, mut future)) = next else { return };
        let id = TaskId { executor: self.id.number, generation, index };
        let waker = waker::<TaskWake>(id.to_bits());
        let mut context = Context::from_waker(&waker);
        let polled = self.run_as(name, || future.as_mut().run(&mut context));
        {
            let tasks = &mut self.table.borrow_mut().tasks;
            let task = &mut tasks[index as usize];
            if polled.is_some_and(|polled| polled.is_pending()) && !task.is_cancelled {
                task.future = Some(future);
                return;
            }
            let kind = tasks.remove(index as usize).kind;
            if !(sings(Canary::PanickedStillServes) && polled.is_none()) {
                self.note_end(kind);
            }
        }
        if polled.is_none() {
            self.note_panic();
            self.is_unwinding.set(true);
        }
        self.drop_future(future);
        self.is_unwinding.set(false);
    }

    fn expire(self: &Rc<Self>) {
        let now_ms = self.now_us.get() / 1000;
        loop {
            let due = self.timers.borrow_mut().expire(now_ms);
            let Some(due) = due else { return };
            due.into_iter().for_each(|waker| self.wake_waker(waker));
        }
    }

    fn take_incoming(self: &Rc<Self>) {
        let Some(incoming) = self.remote.take() else { return };
        for bits in incoming.woken {
            self.wake(TaskId::from_bits(bits));
        }
        incoming.let_go.into_iter().for_each(|kept| self.take_back(kept));
        for make in incoming.spawned {
            // It is not the user's code that can panic here, but the want of a number for the task.
            if catch(|| make(self)).is_none() {
                self.note_panic();
            }
        }
    }

    /// Nobody waits for it any more. With a waker that is not one of ours, anything may be dropped: when nothing is
    /// borrowed any more.
    fn take_back(&self, kept: Kept) {
        let waker = match kept {
            Kept::Timer(entry) => self.timers.borrow_mut().remove(entry),
            Kept::DrainWaiter(entry) => self.drain_waiters.borrow_mut().remove(entry),
        };
        self.note_panics_of_wakers(drop_each(waker));
    }

    /// When it has to turn next though nothing happens, milliseconds; zero for at once.
    pub(crate) fn next_turn_ms(&self) -> Option<u64> {
        let has_more = !self.table.borrow().ready.is_empty() || !self.later.borrow().is_empty();
        if (has_more && !sings(Canary::RestOfTurnForgotten)) || self.remote.has_incoming() {
            return Some(0);
        }
        self.timers.borrow().next_ms()
    }

    /// Whether there are tasks that a drain waits for: those that serve a connection, or did, and those on their way
    /// from other threads.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving.get() > 0 || self.remote.has_spawned()
    }

    /// What there is of everything.
    pub(crate) fn census(&self) -> Census {
        Census {
            tasks: self.table.borrow().tasks.len(),
            serving: self.serving.get(),
            ready: self.table.borrow().ready.len(),
            timers: self.timers.borrow().len(),
            drain_waiters: self.drain_waiters.borrow().len(),
            ended: 0,
        }
    }

    /// Drops all tasks, and those that they spawn meanwhile, and then the rooms.
    pub(crate) fn clear(self: &Rc<Self>) {
        let incoming = self.remote.close();
        self.enter(|| {
            incoming.let_go.into_iter().for_each(|kept| self.take_back(kept));
            // They say that they were cancelled; what else they own is dropped with them.
            (0..drop_each(incoming.spawned)).for_each(|_| self.note_panic());
            for _ in 0..ROUNDS_OF_DROPS_MAX {
                let tasks = std::mem::take(&mut self.table.borrow_mut().tasks);
                if tasks.is_empty() {
                    break;
                }
                self.serving.set(0);
                tasks.into_iter().filter_map(|(_, task)| task.future).for_each(|future| {
                    self.drop_future(future);
                });
            }
            (0..self.rooms.end()).for_each(|_| self.note_panic());
        });
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        remote::forget(self.id, self.generation.get());
        // What somebody else made may panic as it is dropped, one after the other.
        drop_each(self.timers.get_mut().take_all());
        drop_each(self.drain_waiters.get_mut().take_all());
        drop_each(self.aside.get_mut().drain(..));
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tasks = self.table.borrow().tasks.len();
        f.debug_struct("Executor")
            .field("number", &self.id.number)
            .field("tasks", &tasks)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
