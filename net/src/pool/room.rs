//! One reactor's side of a pool: the book, the connections by the numbers of their places, and who waits.
//!
//! Is: what is told to the book, and when it is asked what to do. Is not: what is done then (`steps`).
//!
//! *Nothing of a user's runs while something here is borrowed*: a connection is taken out of the array before it is
//! polled or closed, since it may be a type of theirs, and its code may come back here.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slipring_core::canary::{Canary, sings};

use super::{Establish, Keep, Pooled, Said, Shared, Team};
use crate::cap::Cap;
use crate::conn::Stir;
use crate::failure::{self, Error};
use crate::policy::pool::{Book, Checkout, Claim, Place, PoolSnapshot, Return, Ticket};
use crate::tasks::{Executor, JoinHandle, Room, catch, keep, now, put_aside, spawn_local};

/// What is kept in a place.
pub(super) enum Kept<C> {
    /// Nothing: it is free, or its connection is in use.
    Nothing,
    /// A connection, and how often it has been in use.
    Conn { place: Place, conn: C, served: u64 },
    /// Something is being done: a dial, a look, a closing.
    Busy(JoinHandle<()>),
}

/// A connection that comes back at a time when nothing can be done with it.
struct Returned<C> {
    place: Place,
    conn: Option<C>,
    served: u64,
    how: Return,
}

pub(crate) struct PoolRoom<E: Establish> {
    pub(super) pool: Arc<Shared<E>>,
    pub(super) reactor: usize,
    /// The executor that it is of.
    home: u16,
    me: Weak<Self>,
    pub(super) book: RefCell<Book>,
    pub(super) kept: RefCell<Vec<Kept<E::Connection>>>,
    /// By the numbers of their tickets.
    pub(super) waiting: RefCell<Vec<Option<Waker>>>,
    pub(super) rng: RefCell<fastrand::Rng>,
    /// Whom an idle connection wakes; `None` until that task has been polled.
    pub(super) watcher: RefCell<Option<Waker>>,
    pub(super) keeper: RefCell<Option<Waker>>,
    /// Until when the keeper sleeps.
    pub(super) keeper_until: Cell<Duration>,
    returned: RefCell<Vec<Returned<E::Connection>>>,
    is_settling: Cell<bool>,
    /// Closings under way for the sake of other reactors.
    pub(super) yielding: Cell<u32>,
    /// The reactor has ended, or the pool is gone.
    pub(super) is_over: Cell<bool>,
    /// It was opened when the pool drained already: what was counted is another's, and stays.
    is_late: bool,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl<E: Establish> PoolRoom<E> {
    /// Opens this reactor's side, and starts its tasks.
    ///
    /// # Panics
    /// If the pool is used by two runtimes.
    pub(super) fn open(pool: &Arc<Shared<E>>, executor: &Executor) -> Rc<Self> {
        let _ = pool.team(executor.bell());
        let (reactor, reactors) = executor.bell().reactor();
        let limits = pool.limits_of(reactor, reactors);
        let room = Rc::new_cyclic(|me| Self {
            pool: Arc::clone(pool),
            reactor,
            home: executor.number(),
            me: me.clone(),
            book: RefCell::new(Book::new(limits).expect("they were checked")),
            kept: RefCell::default(),
            waiting: RefCell::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(pool.seed ^ (reactor as u64) << 32)),
            watcher: RefCell::default(),
            keeper: RefCell::default(),
            keeper_until: Cell::new(Duration::ZERO),
            returned: RefCell::default(),
            is_settling: Cell::new(false),
            yielding: Cell::new(0),
            is_over: Cell::new(false),
            is_late: pool.is_draining.load(Ordering::SeqCst),
            tasks: RefCell::default(),
        });
        let tasks =
            [spawn_local(Rc::clone(&room).watch()), spawn_local(Rc::clone(&room).look_after())];
        room.tasks.borrow_mut().extend(tasks);
        room
    }

    pub(super) fn team(&self) -> &Team {
        self.pool.team.get().expect("it is there once there is a room")
    }

    pub(super) fn places(&self) -> &Cap {
        &self.team().places
    }

    pub(super) fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("who calls has it")
    }

    pub(super) fn error(&self, kind: impl Into<failure::Kind>) -> Error {
        Error::new(kind).at(self.pool.endpoint)
    }

    // ------------------------------------------------------------------------------ checkout

    /// An idle connection at once, a ticket to wait with, or why not.
    pub(super) fn begin(
        &self,
        at: &'static Location<'static>,
    ) -> Result<Result<Pooled<E>, Ticket>, Error> {
        loop {
            if self.is_over.get() {
                return Err(self.error(failure::Drain::Refusing));
            }
            if self.is_to_drain() {
                self.drain();
            }
            let now = now();
            let answer = self.book.borrow_mut().checkout(now, at);
            let begun = match answer {
                Checkout::Hit(place) => match self.hand_over(place) {
                    Some(pooled) => Ok(Ok(pooled)),
                    None => continue,
                },
                Checkout::Wait(ticket) => Ok(Err(ticket)),
                Checkout::Saturated(snapshot) => {
                    Err(self.error(failure::Checkout::Saturated(snapshot)))
                }
                Checkout::Draining => Err(self.error(failure::Drain::Refusing)),
            };
            self.settle_at(now);
            return begun;
        }
    }

    /// An idle connection at once, or nothing: no dial is begun for who does not wait for it.
    pub(crate) fn try_checkout(&self, at: &'static Location<'static>) -> Option<Pooled<E>> {
        loop {
            if self.is_over.get() {
                return None;
            }
            if self.is_to_drain() {
                self.drain();
            }
            let now = now();
            let place = self.book.borrow_mut().try_checkout(now, at)?;
            let pooled = self.hand_over(place);
            self.settle_at(now);
            if pooled.is_some() {
                return pooled;
            }
        }
    }

    /// Whether waiting has come to something.
    pub(super) fn poll_claim(
        &self,
        ticket: Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Pooled<E>, Error>> {
        let waker = cx.waker().clone();
        self.end_the_dead(ticket);
        let claim = self.book.borrow_mut().claim(ticket, now());
        let polled = self.claimed(claim);
        if polled.is_pending() {
            let mut waiting = self.waiting.borrow_mut();
            let index = ticket.index as usize;
            if waiting.len() <= index {
                waiting.resize_with(index + 1, || None);
            }
            let before = keep(&mut waiting[index], waker);
            drop(waiting);
            put_aside(before);
        }
        self.settle();
        polled
    }

    /// Time is up.
    pub(super) fn expire(&self, ticket: Ticket) -> Result<Pooled<E>, Error> {
        self.end_the_dead(ticket);
        let claim = self.book.borrow_mut().expire(ticket, now());
        let polled = self.claimed(claim);
        self.forget_waiter(ticket);
        self.settle();
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => unreachable!("whose time is up waits no more"),
        }
    }

    /// That somebody's time is up who stands in no line.
    pub(super) fn timed_out(&self) -> Error {
        let last_dial_error = self.book.borrow().last_dial_error().cloned();
        self.error(failure::Checkout::Timeout { snapshot: self.snapshot(), last_dial_error })
    }

    pub(super) fn leave(&self, ticket: Ticket) {
        self.book.borrow_mut().leave(ticket, self.now_or_before());
        self.forget_waiter(ticket);
        self.settle();
    }

    fn forget_waiter(&self, ticket: Ticket) {
        let waker = self.waiting.borrow_mut().get_mut(ticket.index as usize).and_then(Option::take);
        put_aside(waker);
    }

    /// One that was given to who waits, and has ended before it came for it, is not given: it waits on, where it stood.
    fn end_the_dead(&self, ticket: Ticket) {
        loop {
            let granted = self.book.borrow().granted(ticket);
            let Some(place) = granted else { return };
            let Some((conn, served)) = self.take(place) else { return };
            if self.put(place, conn, served).is_none() {
                return;
            }
            self.book.borrow_mut().ended(place, now());
            self.settle();
        }
    }

    fn claimed(&self, claim: Claim) -> Poll<Result<Pooled<E>, Error>> {
        Poll::Ready(match claim {
            Claim::Wait => return Poll::Pending,
            Claim::Place(place) => {
                self.hand_over(place).ok_or_else(|| self.error(failure::Drain::Refusing))
            }
            Claim::Failed(error) => Err(Error::clone(&error)),
            Claim::TimedOut { snapshot, last_dial_error } => {
                Err(self.error(failure::Checkout::Timeout { snapshot, last_dial_error }))
            }
            Claim::Draining | Claim::Stale => Err(self.error(failure::Drain::Refusing)),
        })
    }

    /// The connection of a place that was given out; `None` if it turns out not to be fit any more.
    fn hand_over(&self, place: Place) -> Option<Pooled<E>> {
        let Some((mut conn, served)) = self.take(place) else {
            // It is not there: the code of whoever made it has panicked with it.
            self.book.borrow_mut().checkin(place, now(), Return::Discard);
            self.settle();
            return None;
        };
        if self.stir(&mut conn, served).is_some() {
            self.lay(place, conn, served);
            let mut book = self.book.borrow_mut();
            book.ended(place, now());
            book.checkin(place, now(), Return::Clean);
            drop(book);
            self.settle();
            return None;
        }
        // Its guard first: if this panics, it is the guard that gives the place back.
        let mut pooled = Pooled::new(self.me(), place, conn, served);
        Keep::forget_stir(&mut *pooled);
        Some(pooled)
    }

    /// A connection comes back. From anywhere: at a time when this reactor does not turn, it is noted.
    pub(super) fn give_back(
        &self,
        place: Place,
        conn: Option<E::Connection>,
        served: u64,
        how: Return,
    ) {
        if self.is_over.get() {
            return;
        }
        let Some(now) = self.now_here() else {
            self.returned.borrow_mut().push(Returned { place, conn, served, how });
            self.wake_keeper();
            return;
        };
        let how = match conn {
            None => Return::Discard,
            Some(conn) if how == Return::Clean => match self.put(place, conn, served) {
                None if self.is_to_yield(place, now) => Return::Yielded,
                None => Return::Clean,
                Some(Stir::Spoke) => Return::Unclean,
                Some(Stir::Ended) => {
                    self.book.borrow_mut().ended(place, now);
                    Return::Clean
                }
            },
            Some(conn) => {
                self.lay(place, conn, served);
                how
            }
        };
        self.book.borrow_mut().checkin(place, now, how);
        if how == Return::Yielded {
            self.yielding.set(self.yielding.get() + 1);
        } else {
            self.spare_for_others();
        }
        self.settle_at(now);
    }

    pub(super) fn take_returned(&self) {
        let returned = std::mem::take(&mut *self.returned.borrow_mut());
        for Returned { place, conn, served, how } in returned {
            self.give_back(place, conn, served, how);
        }
    }

    /// Whether another reactor wants a connection that callers of this one wait for, too, and this one has more than
    /// its share, or has had it for its turn. One at a time: until that has arrived, others are not given up for the
    /// same want.
    fn is_to_yield(&self, place: Place, now: Duration) -> bool {
        if self.yielding.get() > 0 || !self.places().is_wanted_by_others(self.reactor) {
            return false;
        }
        let book = self.book.borrow();
        let had_for = book.age(place, now).unwrap_or_default();
        book.waiters() > 0 && self.places().is_to_yield(book.held(), had_for)
    }

    /// Closes an idle connection if another reactor wants one.
    pub(super) fn spare_for_others(&self) {
        if self.yielding.get() == 0
            && self.places().is_wanted_by_others(self.reactor)
            && self.book.borrow_mut().give_up_idle(now())
        {
            self.yielding.set(self.yielding.get() + 1);
        }
    }

    /// Closes the connection that is idle for longest, if nobody waits. Whether there was one.
    pub(super) fn spare(&self) -> bool {
        if self.is_over.get() || !self.book.borrow_mut().give_up_idle(self.now_or_before()) {
            return false;
        }
        self.yielding.set(self.yielding.get() + 1);
        self.settle();
        true
    }

    pub(super) fn waiters(&self) -> u32 {
        self.book.borrow().waiters()
    }

    pub(super) fn is_wanted(&self) -> bool {
        let book = self.book.borrow();
        book.waiters() > 0 || book.dials_fresh() > 0
    }

    // ------------------------------------------------------------------------------ the array

    /// Takes a connection out of its place.
    pub(super) fn take(&self, place: Place) -> Option<(E::Connection, u64)> {
        let mut kept = self.kept.borrow_mut();
        let slot = kept.get_mut(place.index as usize)?;
        match slot {
            Kept::Conn { place: its, .. } if *its == place => {}
            _ => return None,
        }
        match std::mem::replace(slot, Kept::Nothing) {
            Kept::Conn { conn, served, .. } => Some((conn, served)),
            _ => None,
        }
    }

    /// Lays it into its place, whatever state it is in.
    pub(super) fn lay(&self, place: Place, conn: E::Connection, served: u64) {
        self.occupy(place, Kept::Conn { place, conn, served });
    }

    pub(super) fn occupy(&self, place: Place, what: Kept<E::Connection>) {
        let mut kept = self.kept.borrow_mut();
        let index = place.index as usize;
        if kept.len() <= index {
            kept.resize_with(index + 1, || Kept::Nothing);
        }
        let before = std::mem::replace(&mut kept[index], what);
        drop(kept);
        drop(before);
    }

    /// Lays it into its place, to be watched from now on. If it is not fit to be given out: why.
    pub(super) fn put(&self, place: Place, mut conn: E::Connection, served: u64) -> Option<Stir> {
        let stir = self.stir(&mut conn, served);
        self.lay(place, conn, served);
        stir
    }

    /// Why a connection is not fit to be given out, if it is not. Whatever happens to it later wakes the watcher.
    fn stir(&self, conn: &mut E::Connection, served: u64) -> Option<Stir> {
        let watcher = self.watcher.borrow().clone()?;
        look_at(conn, served, &mut Context::from_waker(&watcher))
    }

    // ------------------------------------------------------------------------------ settling

    /// Does what the book asks for, until there is nothing to do. Called within itself, it leaves that to the first;
    /// at a time when this reactor does not turn, to the keeper, since its tasks cannot be started then.
    pub(super) fn settle(&self) {
        match self.now_here() {
            Some(now) => self.settle_at(now),
            None if self.is_over.get() => {}
            None => self.wake_keeper(),
        }
    }

    fn settle_at(&self, now: Duration) {
        if self.is_over.get() || self.is_settling.replace(true) {
            return;
        }
        let settling = Settling(&self.is_settling);
        let places = self.places();
        loop {
            let act = self.book.borrow_mut().poll_act(now, || places.take(self.reactor));
            let Some(act) = act else { break };
            self.act(act);
        }
        drop(settling);
        let (lacks, next) = {
            let book = self.book.borrow();
            (book.lacks() > 0, book.next_maintenance())
        };
        if !lacks {
            places.be_content(self.reactor);
        }
        if next.is_some_and(|next| next < self.keeper_until.get()) {
            self.wake_keeper();
        }
    }

    /// The clock, as far as it can be read; a book takes a time that it has seen for the latest.
    pub(super) fn now_or_before(&self) -> Duration {
        self.now_here().unwrap_or_default()
    }

    /// The clock, if this reactor turns now.
    #[inline]
    fn now_here(&self) -> Option<Duration> {
        Executor::look(|executor| (executor.number() == self.home).then(|| executor.time()))?
    }

    pub(super) fn wake_keeper(&self) {
        // Until its next look there is no need for another.
        self.keeper_until.set(Duration::ZERO);
        let keeper = self.keeper.borrow().clone();
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }

    pub(super) fn snapshot(&self) -> PoolSnapshot {
        self.book.borrow().snapshot(self.now_or_before())
    }

    /// Tells who asks from elsewhere.
    pub(super) fn say(&self) {
        if self.is_late {
            return;
        }
        let book = self.book.borrow();
        let said = Said {
            snapshot: book.snapshot(self.now_or_before()),
            counters: *book.counters(),
            last_dial_error: book.last_dial_error().cloned(),
        };
        drop(book);
        let mut place = self.team().said[self.reactor]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *place = Some(said);
    }

    pub(super) fn is_to_drain(&self) -> bool {
        self.pool.is_draining.load(Ordering::SeqCst)
    }

    /// The order to drain is passed on to the book, once.
    pub(super) fn drain(&self) {
        if !self.book.borrow().is_draining() {
            self.book.borrow_mut().drain(self.now_or_before());
        }
    }
}

/// Why a connection is not fit to be given out, if it is not. One whose look panics is not: neither who gives it back
/// nor the watch over the others is to end with that.
pub(super) fn look_at<C: Keep>(conn: &mut C, served: u64, cx: &mut Context<'_>) -> Option<Stir> {
    let Some(stir) = catch(|| conn.poll_stir(cx)) else {
        Executor::look(Executor::note_panic);
        return Some(Stir::Ended);
    };
    match stir {
        Poll::Pending => None,
        Poll::Ready(_) if sings(Canary::StaleGivenOut) => None,
        // Who speaks first, before anything was asked, has a greeting for whoever comes.
        Poll::Ready(Stir::Spoke) if served == 0 => None,
        Poll::Ready(stir) => Some(stir),
    }
}

/// Ends the settling, also if what was done has panicked.
struct Settling<'a>(&'a Cell<bool>);

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<E: Establish> Room for PoolRoom<E> {
    fn end(&self) {
        if self.is_over.replace(true) {
            return;
        }
        self.say();
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        tasks.iter().for_each(JoinHandle::cancel);
        let kept = std::mem::take(&mut *self.kept.borrow_mut());
        let returned = std::mem::take(&mut *self.returned.borrow_mut());
        self.places().listen(self.reactor, None);
        self.places().be_content(self.reactor);
        // Connections in use end with this reactor too, or, if only the pool is gone, are their holders' alone.
        let held = self.book.borrow().held();
        (0..held).for_each(|_| self.places().give(self.reactor));
        // Last, since code of whoever made them may panic.
        for kept in kept {
            if let Kept::Busy(task) = &kept {
                task.cancel();
            }
        }
        drop(returned);
    }
}
