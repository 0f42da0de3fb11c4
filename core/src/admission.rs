//! Who may come in: a client needs a token of the process and one of its listener, if that has a cap.
//!
//! Exact over all reactors: no cap is ever passed, not by one, and no client is kept waiting while there is
//! room. What makes that hard is the multishot accept: once armed it takes in whatever queues at the listener,
//! without asking. So an armed multishot *reserves* a whole backlog under both caps; near either of them
//! nobody may arm one, those armed are recalled, and clients are accepted one by one, each with its tokens
//! taken before.
//!
//! ```text
//!                             process      listener
//!   client of a multishot     free, or of what the multishot has reserved: then it is recalled
//!   client let in alone       free         free                 both, or neither
//!   multishot armed           backlog      backlog              both, or neither
//! ```
//!
//! The counting is done by [`Tokens`]: a block for each reactor, so that an accept far from the caps touches
//! nothing that another reactor writes. A reactor that found no token is rung when one comes back; who has
//! some reserved is rung when another finds none.
//!
//! Tokens are alike: a connection may end on another reactor than the one that accepted it.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::canary::{Canary, sings};
use crate::listen::OnFull;
use crate::tokens::Tokens;

/// Rings the reactor of a number; set once, when all of them exist.
type Ring = Arc<dyn Fn(usize) + Send + Sync>;

/// The process's count of accepted connections against its cap, and against those of its listeners.
pub struct Admission {
    process: Tokens,
    /// By the listener's number; `None`, and none beyond the end: as many as the process may hold.
    listeners: Vec<Option<Tokens>>,
    /// By the listener's number; the default beyond the end.
    on_full: Vec<OnFull>,
    /// Places under each cap that one armed multishot reserves.
    reserve: u32,
    /// Dialed connections: bounded too, but nobody waits for one.
    dialed: AtomicU32,
    dialed_cap: u32,
    reactors: usize,
    ring: OnceLock<Ring>,
}

/// What an armed multishot has reserved and its clients have not used up; nothing while none is armed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reservation {
    process: u32,
    listener: u32,
}

impl Admission {
    /// Room for `cap` accepted and `dialed_cap` dialed connections over `reactors`, each of whose listeners
    /// queues at most `backlog` clients.
    #[must_use]
    pub fn new(cap: u32, dialed_cap: u32, backlog: u32, reactors: usize) -> Self {
        Self {
            process: Tokens::new(cap + u32::from(sings(Canary::CapExceeded)), reactors),
            listeners: Vec::new(),
            on_full: Vec::new(),
            // The kernel's queue takes one more than it is told.
            reserve: backlog.saturating_add(1),
            dialed: AtomicU32::new(0),
            dialed_cap,
            reactors,
            ring: OnceLock::new(),
        }
    }

    /// The same, with a cap for each listener that has one, in the order of their numbers.
    #[must_use]
    pub fn with_listeners(mut self, caps: impl IntoIterator<Item = Option<u32>>) -> Self {
        let reactors = self.reactors;
        let tokens = |cap: Option<u32>| cap.map(|cap| Tokens::new(cap, reactors));
        self.listeners = caps.into_iter().map(tokens).collect();
        self
    }

    /// The same, with what each listener does when it is full, in the order of their numbers.
    #[must_use]
    pub fn with_on_full(mut self, on_full: impl IntoIterator<Item = OnFull>) -> Self {
        self.on_full = on_full.into_iter().collect();
        self
    }

    /// What becomes of a listener's clients for whom there is no place.
    #[must_use]
    pub fn on_full(&self, listener: u16) -> OnFull {
        self.on_full.get(usize::from(listener)).copied().unwrap_or_default()
    }

    /// Whether there was a moment just now when every place was taken, under one of the two caps: not even
    /// reserved for somebody who may yet give it back. Who was refused a permit before is rung when the answer
    /// changes.
    #[must_use]
    pub fn is_full(&self, listener: u16) -> bool {
        self.process.is_exhausted() || self.is_own_full(listener)
    }

    /// The same of the listener's own cap: nobody but one of its clients can make room.
    #[must_use]
    pub fn is_own_full(&self, listener: u16) -> bool {
        self.own(listener).is_some_and(Tokens::is_exhausted)
    }

    /// Says how reactors are rung. Later calls change nothing.
    pub fn connect(&self, ring: impl Fn(usize) + Send + Sync + 'static) {
        let ring: Ring = Arc::new(ring);
        let _ = self.ring.set(Arc::clone(&ring));
        for tokens in self.listeners.iter().flatten().chain([&self.process]) {
            let ring = Arc::clone(&ring);
            tokens.connect(move |reactor| ring(reactor));
        }
    }

    /// Clients that can queue at one listener of one reactor.
    #[must_use]
    pub(crate) fn queue_max(&self) -> u32 {
        self.reserve
    }

    /// Accepted connections that are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.process.used()
    }

    /// Those of a listener that has a cap of its own.
    #[must_use]
    pub fn open_of(&self, listener: usize) -> Option<u32> {
        self.listeners.get(listener)?.as_ref().map(Tokens::used)
    }

    /// The listener's own tokens, if it has a cap.
    fn own(&self, listener: u16) -> Option<&Tokens> {
        if sings(Canary::ListenerCapIgnored) {
            return None;
        }
        self.listeners.get(usize::from(listener))?.as_ref()
    }

    /// Whether both caps have room, for whoever only wants to know.
    #[must_use]
    pub fn is_open(&self, listener: u16) -> bool {
        self.process.free() > 0 && self.own(listener).is_none_or(|own| own.free() > 0)
    }

    // ------------------------------------------------------------------------------ multishots

    /// Reserves a backlog for a multishot accept; `None` near a cap, or while somebody waits under one.
    #[must_use = "what was reserved has to be given back by `disarm`"]
    pub fn arm(&self, reactor: usize, listener: u16) -> Option<Reservation> {
        let own = self.own(listener);
        if !own.is_none_or(|own| own.reserve(reactor, self.reserve)) {
            return None;
        }
        if !self.process.reserve(reactor, self.reserve) {
            // Whoever asks for a multishot and gets none asks for room next.
            let _ = own.is_some_and(|own| own.unreserve(reactor, self.reserve));
            return None;
        }
        let listener = if own.is_some() { self.reserve } else { 0 };
        Some(Reservation { process: self.reserve, listener })
    }

    /// Gives back what a multishot has left, after its last completion. Those that wait are rung; whether the
    /// caller waits too is the answer, as of [`release`](Self::release).
    pub fn disarm(&self, reactor: usize, listener: u16, left: Reservation) -> bool {
        let waits = self.process.unreserve(reactor, left.process);
        let own = self.own(listener);
        own.is_some_and(|own| own.unreserve(reactor, left.listener)) || waits
    }

    /// Whether an armed multishot has to be given up: it has begun to use up what it reserved, or somebody
    /// waits for room that it may hold.
    #[must_use]
    pub fn is_tight(&self, listener: u16, left: &Reservation) -> bool {
        let own = self.own(listener);
        left.process < self.reserve
            || self.process.is_awaited()
            || own.is_some_and(|own| left.listener < self.reserve || own.is_awaited())
    }

    /// Counts in what an armed multishot accepted. False only if it accepted more than it had reserved: the
    /// client is to be kept aside until [`take`](Self::take) lets it in. The caller has to look again, whatever
    /// comes of it.
    pub fn admit(&self, reactor: usize, listener: u16, left: &mut Reservation) -> bool {
        let own = self.own(listener);
        if !own.is_none_or(|own| draw(own, reactor, &mut left.listener)) {
            return false;
        }
        let admitted = draw(&self.process, reactor, &mut left.process);
        if !admitted {
            let _ = own.is_some_and(|own| own.give(reactor));
        }
        admitted
    }

    // ------------------------------------------------------------------------------ one by one

    /// Takes a permit for one connection. Without one, `reactor` is rung when it is worth asking again.
    #[must_use = "true: the permit has to be given back by `release`"]
    pub fn take(&self, reactor: usize, listener: u16) -> bool {
        let own = self.own(listener);
        // A look first: one taken in vain is one that others of the listener miss meanwhile.
        if !self.process.has_free(reactor) || !own.is_none_or(|own| own.take(reactor)) {
            return false;
        }
        let taken = self.process.take(reactor);
        if !taken {
            // It waits for the process, whose ring makes it look at every listener.
            let _ = own.is_some_and(|own| own.give(reactor));
        }
        taken
    }

    /// Whether a permit could be had now. If not, `reactor` is rung when it is worth asking again.
    ///
    /// It only looks. To take one and give it back would be a release: others would find none meanwhile, and
    /// it would take notes off that whoever is releasing just now has not seen.
    #[must_use]
    pub fn has_room(&self, reactor: usize, listener: u16) -> bool {
        self.process.has_free(reactor) && self.own(listener).is_none_or(|own| own.has_free(reactor))
    }

    /// A connection of `listener` is over, on this reactor or another, or its permit was not needed. Others
    /// that wait are rung; whether the caller waits too is the answer: it is not rung, and has to look again
    /// for itself.
    pub fn release(&self, reactor: usize, listener: u16) -> bool {
        let leaks = sings(Canary::ListenerPlaceLeaked);
        let own = self.own(listener).filter(|_| !leaks);
        let waits = self.process.give(reactor);
        own.is_some_and(|own| own.give(reactor)) || waits
    }

    // ---------------------------------------------------------------------------------- dialed

    /// Dialed connections that are open.
    #[must_use]
    pub fn dialed(&self) -> u32 {
        self.dialed.load(Ordering::Relaxed)
    }

    /// Counts one dialed connection in; false when there are as many as may be.
    pub fn dial(&self) -> bool {
        let more = |dialed| (dialed < self.dialed_cap).then_some(dialed + 1);
        self.dialed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A dialed connection is over.
    pub fn end_dial(&self) {
        self.dialed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Dialed connections there may be.
    #[must_use]
    pub fn dialed_cap(&self) -> u32 {
        self.dialed_cap
    }

    /// Reactors that share it.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.reactors
    }

    /// Rings every reactor.
    pub fn ring_all(&self) {
        (0..self.reactors).for_each(|reactor| self.ring_one(reactor));
    }

    /// Rings one reactor.
    pub(crate) fn ring_one(&self, reactor: usize) {
        if let Some(ring) = self.ring.get() {
            ring(reactor);
        }
    }
}

/// One for a client that is in already: of those that are free, or else of those reserved for it.
fn draw(tokens: &Tokens, reactor: usize, reserved: &mut u32) -> bool {
    if tokens.try_take(reactor) {
        return true;
    }
    if *reserved == 0 {
        return false;
    }
    tokens.take_reserved(reactor);
    *reserved -= 1;
    true
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("process", &self.process)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}
