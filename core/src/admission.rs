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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn rung(admission: &Admission) -> Arc<Mutex<Vec<usize>>> {
        let rung = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&rung);
        admission.connect(move |reactor| note.lock().expect("no panic").push(reactor));
        rung
    }

    fn heard(rung: &Mutex<Vec<usize>>) -> Vec<usize> {
        std::mem::take(&mut *rung.lock().expect("no panic"))
    }

    #[test]
    fn permits_end_at_the_cap_and_come_back() {
        let admission = Admission::new(2, 0, 8, 2);
        let rung = rung(&admission);
        assert!(admission.arm(0, 0).is_none(), "a backlog of 8 does not fit a cap of 2");
        assert!(admission.take(0, 0) && admission.take(1, 0));
        assert!(!admission.take(1, 0) && !admission.has_room(0, 1));
        assert_eq!(admission.open(), 2);
        assert!(admission.release(0, 0), "who releases is told that it waits itself");
        assert_eq!(heard(&rung), [1], "only who waited is rung");
        assert!(admission.take(1, 0));
    }

    #[test]
    fn a_listener_at_its_cap_keeps_nobody_from_another() {
        let admission = Admission::new(3, 0, 8, 2).with_listeners([Some(1), None]);
        let rung = rung(&admission);
        assert!(admission.take(0, 0));
        assert!(!admission.take(1, 0) && !admission.has_room(1, 0));
        assert!(admission.has_room(0, 1) && admission.take(0, 1) && admission.take(1, 1));
        assert_eq!(
            (admission.open(), admission.open_of(0), admission.open_of(1)),
            (3, Some(1), None)
        );
        assert!(!admission.take(0, 1), "the process has no more");
        // It ends on another reactor than the one that accepted it.
        assert!(admission.release(1, 0), "the caller waits for the listener");
        assert_eq!(heard(&rung), [0], "and the other for the process");
        assert!(admission.take(1, 0));
    }

    #[test]
    fn a_client_without_both_tokens_takes_neither() {
        let admission = Admission::new(1, 0, 8, 2).with_listeners([Some(5), Some(1)]);
        let rung = rung(&admission);
        assert!(admission.take(0, 0));
        assert!(!admission.take(1, 1), "the process is full");
        assert_eq!((admission.open_of(0), admission.open_of(1)), (Some(1), Some(0)));
        assert!(!admission.admit(1, 1, &mut Reservation::default()));
        assert_eq!(admission.open_of(1), Some(0));
        assert!(!admission.release(0, 0));
        assert_eq!(heard(&rung), [1]);
        assert!(admission.take(1, 1) && !admission.take(1, 0));
        assert_eq!((admission.open_of(0), admission.open_of(1)), (Some(0), Some(1)));
    }

    #[test]
    fn an_armed_multishot_holds_a_backlog_until_it_is_recalled() {
        let admission = Admission::new(10, 0, 4, 2);
        let rung = rung(&admission);
        let mut first = admission.arm(0, 0).expect("5 of 10");
        let second = admission.arm(1, 0).expect("10 of 10");
        assert!(admission.arm(0, 1).is_none());
        assert!(!admission.is_tight(0, &first) && !admission.is_tight(0, &second));
        assert!(!admission.take(0, 0), "all ten are reserved");
        assert_eq!(heard(&rung), [1], "the other reactor is called on");
        assert!(admission.is_tight(0, &first) && admission.is_tight(0, &second));
        admission.disarm(1, 0, second);
        assert_eq!(heard(&rung), [0]);
        for _ in 0..5 {
            assert!(admission.take(1, 0), "what was given back");
        }
        assert!(!admission.is_tight(0, &first), "it has what it reserved");
        for _ in 0..5 {
            assert!(admission.admit(0, 0, &mut first));
            assert!(admission.is_tight(0, &first), "it uses up what it reserved");
        }
        assert!(!admission.admit(0, 0, &mut first), "a client too many waits for a permit");
        assert_eq!((admission.open(), &first), (10, &Reservation::default()));
        admission.disarm(0, 0, first);
        assert_eq!(admission.open(), 10);
    }

    #[test]
    fn a_multishot_reserves_under_both_caps_or_neither() {
        let admission = Admission::new(100, 0, 4, 1).with_listeners([Some(9), Some(20)]);
        let armed = admission.arm(0, 0).expect("5 of 9");
        assert!(admission.arm(0, 0).is_none(), "the listener has 4 left");
        assert_eq!(admission.process.reserved(), 5);
        for _ in 0..91 {
            assert!(admission.take(0, 2));
        }
        assert!(admission.arm(0, 1).is_none(), "the process has 4 left");
        assert_eq!(admission.listeners[1].as_ref().map(Tokens::reserved), Some(0));
        admission.disarm(0, 0, armed);
        assert!(admission.arm(0, 1).is_some());
    }

    #[test]
    fn only_a_listener_whose_own_room_is_missed_gives_up() {
        let admission = Admission::new(1000, 0, 4, 2).with_listeners([Some(9), Some(9)]);
        let rung = rung(&admission);
        let (first, second) = (admission.arm(0, 0), admission.arm(0, 1));
        let (first, second) = (first.expect("5 of 9"), second.expect("5 of 9"));
        for _ in 0..4 {
            assert!(admission.take(1, 0));
        }
        assert!(!admission.take(1, 0));
        assert_eq!(heard(&rung), [0]);
        assert!(admission.is_tight(0, &first) && !admission.is_tight(1, &second));
    }

    #[test]
    fn dials_end_at_their_cap_and_come_back() {
        let admission = Admission::new(1, 1, 8, 1);
        assert!(admission.dial() && !admission.dial());
        admission.end_dial();
        assert!(admission.dial());
    }
}
