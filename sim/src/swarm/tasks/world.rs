//! What tasks say of themselves, and what their reactor has told: one for each reactor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use slipring::{End, RemoteJoin, Spawner};
use slipring_core::{CloseReason, Key, Origin};

use super::super::book::{Book, party};
use super::super::pattern::Reader;
use super::waits::{Pool, Wait};
use crate::dice::Dice;

/// What is known of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Bytes that the reactor has delivered, and those of them that a task has taken for good.
    pub(super) came: u64,
    pub(super) taken: u64,
    /// The peer's FIN was told of.
    pub(super) is_ended: bool,
    /// Its end was told of.
    pub(super) ended: Option<CloseReason>,
    pub(super) is_open: bool,
    /// It was opened, and no task has it yet.
    pub(super) is_new: bool,
    pub(super) handles: u32,
    /// No half is left that receives.
    pub(super) is_deaf: bool,
    /// No half is left that sends, or it was shut down.
    pub(super) is_shut: bool,
    /// It was asked to end.
    pub(super) is_asked: bool,
    /// A task that held it has panicked.
    pub(super) is_condemned: bool,
    /// By then both directions had ended: it may have closed in order, and nobody been told yet.
    pub(super) was_over: bool,
}

impl Told {
    /// Whether a wait for bytes is over.
    pub(super) fn has_something(&self) -> bool {
        self.came > self.taken || self.is_ended || self.ended.is_some()
    }
}

/// See the module's documentation.
pub(in super::super) struct World {
    pub(super) reactor: usize,
    pub(super) book: Rc<RefCell<Book>>,
    dice: RefCell<Dice>,
    /// Chances in a thousand of a panic.
    panics: u32,
    meant: Rc<Cell<u64>>,
    pub(super) upstreams: Vec<SocketAddr>,
    pub(super) dials_left: Cell<u32>,
    /// What an outbox may hold, bytes.
    pub(super) outbox_bytes_max: usize,
    pub(super) told: RefCell<BTreeMap<Key, Told>>,
    readers: RefCell<BTreeMap<Key, Reader>>,
    pub(super) waits: RefCell<BTreeMap<u64, Wait>>,
    /// Polls that are under way with a waker that is late.
    pub(super) late_polls: Cell<u32>,
    /// Wakers to be woken by somebody else.
    pub(super) pool: Pool,
    /// Futures of tasks that there are.
    pub(super) alive: Cell<usize>,
    pub(super) timers: Cell<usize>,
    pub(super) drain_waiters: Cell<usize>,
    pub(super) dialing: Cell<usize>,
    remote_alive: Arc<AtomicUsize>,
    pub(super) remote_joins: RefCell<Vec<RemoteJoin<u64>>>,
    pub(super) spawner: RefCell<Option<Spawner>>,
    /// What a task held that has panicked is being dropped.
    is_panicking: Cell<bool>,
    now_us: Cell<u64>,
    /// When a drain may end though tasks serve: at its deadline, or at an abort.
    waits_until_us: Cell<Option<u64>>,
}

/// Of what a world is made.
pub(in super::super) struct Conditions<'a> {
    pub(in super::super) reactor: usize,
    pub(in super::super) book: &'a Rc<RefCell<Book>>,
    pub(in super::super) dice: Dice,
    pub(in super::super) panics: u32,
    pub(in super::super) meant: &'a Rc<Cell<u64>>,
    pub(in super::super) upstreams: Vec<SocketAddr>,
    pub(in super::super) outbox_bytes_max: u32,
}

impl World {
    pub(in super::super) fn new(of: Conditions<'_>) -> Rc<Self> {
        Rc::new(Self {
            reactor: of.reactor,
            book: Rc::clone(of.book),
            dice: RefCell::new(of.dice),
            panics: of.panics,
            meant: Rc::clone(of.meant),
            upstreams: of.upstreams,
            dials_left: Cell::new(12),
            outbox_bytes_max: of.outbox_bytes_max as usize,
            told: RefCell::default(),
            readers: RefCell::default(),
            waits: RefCell::default(),
            late_polls: Cell::new(0),
            pool: Pool::default(),
            alive: Cell::new(0),
            timers: Cell::new(0),
            drain_waiters: Cell::new(0),
            dialing: Cell::new(0),
            remote_alive: Arc::default(),
            remote_joins: RefCell::default(),
            spawner: RefCell::new(None),
            is_panicking: Cell::new(false),
            now_us: Cell::new(0),
            waits_until_us: Cell::new(None),
        })
    }

    pub(super) fn complain(&self, what: impl Into<String>) {
        self.book.borrow_mut().complain(what);
    }

    /// Tasks behave from now on.
    pub(super) fn is_healed(&self) -> bool {
        self.book.borrow().healed
    }

    pub(super) fn throw<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.dice.borrow_mut())
    }

    pub(super) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    // ------------------------------------------------------------------------ what the reactor says

    pub(super) fn told_of<R>(&self, key: Key, note: impl FnOnce(&mut Told) -> R) -> R {
        note(self.told.borrow_mut().entry(key).or_default())
    }

    pub(super) fn opened(&self, key: Key, origin: Origin, now_ms: u64) {
        self.book.borrow_mut().opened(party(self.reactor, key), origin, now_ms);
        self.told_of(key, |told| {
            told.is_open = true;
            told.is_new = matches!(origin, Origin::Accepted(_));
        });
    }

    pub(super) fn closed(&self, key: Key, reason: CloseReason) {
        let who = party(self.reactor, key);
        self.book.borrow_mut().closed(who, reason);
        let told = self.told_of(key, |told| {
            told.ended = Some(reason);
            *told
        });
        if reason == CloseReason::HandlerPanic && !told.is_condemned {
            self.complain(format!("{who}: ended for a panic that was none of its own"));
        }
        let in_order = reason == CloseReason::LocalClosed && !told.is_asked && !told.was_over;
        if in_order && told.is_condemned {
            self.complain(format!("{who}: closed in order, and its task has panicked"));
        }
    }

    pub(super) fn begin_turn(&self, now_us: u64) {
        self.now_us.set(now_us);
        self.is_panicking.set(false);
    }

    pub(super) fn end_turn(&self) {
        self.is_panicking.set(false);
        // Its task was made in this turn.
        self.told.borrow_mut().values_mut().for_each(|told| told.is_new = false);
    }

    // ------------------------------------------------------------------------- what tasks say

    /// A task received these bytes, and will not put them back.
    pub(super) fn take(&self, key: Key, bytes: &[u8]) {
        let who = party(self.reactor, key);
        let told = self.told_of(key, |told| {
            told.taken += bytes.len() as u64;
            *told
        });
        if told.taken > told.came {
            self.complain(format!("{who}: {} bytes came, {} were received", told.came, told.taken));
        }
        let taken = self.readers.borrow_mut().entry(key).or_default().take(bytes);
        if let Err(difference) = taken {
            self.complain(format!("{who}: {difference}"));
        }
    }

    /// A task was told that nothing more comes, and why.
    pub(super) fn heard_end(&self, key: Key, end: Option<End>) {
        let told = self.told_of(key, |told| *told);
        let is_right = match end {
            None => false,
            Some(End::ReadTimeout) => return,
            Some(End::Eof) => told.is_ended,
            Some(End::Closed(reason)) => told.ended == Some(reason),
        };
        if !is_right || told.came != told.taken {
            let who = party(self.reactor, key);
            self.complain(format!("{who}: received {end:?}, and it stands so: {told:?}"));
        }
    }

    /// A send has taken these bytes.
    pub(super) fn give(&self, key: Key, bytes: &[u8]) {
        self.book.borrow_mut().give(party(self.reactor, key), bytes);
    }

    /// How many of the bytes given last were sent is not told: nothing is sent behind them.
    pub(super) fn give_up(&self, key: Key) {
        self.book.borrow_mut().uncertain.insert(party(self.reactor, key));
    }

    /// Nothing more will be sent.
    pub(super) fn ends_sending(&self, key: Key) {
        self.told_of(key, |told| told.is_shut = true);
        self.book.borrow_mut().asked_to_end.insert(party(self.reactor, key));
    }

    pub(super) fn is_panicking(&self) -> bool {
        self.is_panicking.get()
    }

    /// What was dropped in between is dropped.
    pub(super) fn calm_down(&self) {
        self.is_panicking.set(false);
    }

    /// What panics meanwhile is caught: it does not end who calls.
    pub(super) fn apart(&self, call: impl FnOnce()) {
        let before = self.is_panicking.get();
        call();
        self.is_panicking.set(before);
    }

    /// Whether it is time for a panic, which has to follow then.
    pub(super) fn means_to_panic(&self, times: u32) -> bool {
        let means = !self.is_healed() && self.throw(|dice| dice.permille(self.panics * times));
        if means {
            self.meant.set(self.meant.get() + 1);
            self.is_panicking.set(true);
        }
        means
    }

    pub(super) fn may_panic_later(&self) -> bool {
        self.throw(|dice| dice.coin())
    }

    pub(super) fn may_panic(&self) {
        if self.means_to_panic(1) {
            // As a panic, but for the message that the hook would print.
            std::panic::resume_unwind(Box::new("meant"));
        }
    }

    // ---------------------------------------------------------------------------- from outside

    pub(super) fn remote_alive(&self) -> usize {
        self.remote_alive.load(Ordering::Relaxed)
    }

    pub(super) fn count_remote(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.remote_alive)
    }

    /// A drain was ordered, which waits for tasks until then.
    pub(super) fn drains(&self, until_us: u64) {
        let until_us = self.waits_until_us.get().map_or(until_us, |us| us.min(until_us));
        self.waits_until_us.set(Some(until_us));
    }

    pub(super) fn is_waited_for(&self, now_us: u64) -> bool {
        self.waits_until_us.get().is_some_and(|until_us| now_us + 1_000 < until_us)
    }

    /// The reactor has ended: nothing goes on, and whoever waits for a task of it knows.
    pub(super) fn check_end(&self) {
        let left = self.alive.get() + self.remote_alive() + self.timers.get();
        if left > 0 {
            self.complain(format!(
                "reactor {} has ended, and {left} futures have not",
                self.reactor
            ));
        }
        let mut context = std::task::Context::from_waker(Waker::noop());
        for mut join in std::mem::take(&mut *self.remote_joins.borrow_mut()) {
            if std::pin::Pin::new(&mut join).poll(&mut context).is_pending() {
                self.complain("a task from another thread never ends, and its reactor has");
            }
        }
        self.pool.clear();
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}

/// One of something, for as long as it lives.
pub(super) struct Counted {
    world: Rc<World>,
    of: fn(&World) -> &Cell<usize>,
}

impl Counted {
    pub(super) fn new(world: &Rc<World>, of: fn(&World) -> &Cell<usize>) -> Self {
        of(world).set(of(world).get() + 1);
        Self { world: Rc::clone(world), of }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.of)(&self.world);
        count.set(count.get() - 1);
    }
}
