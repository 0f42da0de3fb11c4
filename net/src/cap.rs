//! A cap that tasks of several reactors share: connections of a pool, requests of an upstream, dials of an endpoint.
//!
//! ```text
//!   take ----> a token, or "you will be woken"
//!   give ----> whom another reactor wants one for, or back to all
//! ```
//!
//! Is: [`Tokens`], and on each reactor whom to wake when one may be had. Is not: a line of those that wait; a reactor
//! has its own (`cap/line.rs`, a pool's book), and tries again for the first in it when it is woken.
//!
//! *Wanting.* A reactor that was refused and has somebody waiting *wants* one, for as long as that is so. The others
//! see that: who holds what it does not need, or more than its share, gives one up. Such a token is *passed* to the
//! reactor that wants it, and to nobody else: on its way through the common stock, who gave it up would be the first
//! to find it there again, and the other would starve.

mod line;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use slipring_core::canary::{Canary, sings};
use slipring_core::tokens::Tokens;

use crate::tasks::wake_waiter;

pub(crate) use line::{Line, Token};

/// How long who has one of too few keeps it, as long as there is work for it: 20 ms †. A dial is to cost little of
/// that.
pub(crate) const TURN: Duration = Duration::from_millis(20);

/// What a reactor has here.
#[derive(Default)]
struct Seat {
    /// Whom to wake when it is worth trying again.
    waker: Mutex<Option<Waker>>,
    wants: AtomicBool,
    /// The others were told, and nothing has come since.
    has_asked: AtomicBool,
    /// Tokens passed to it that it has not come for.
    passed: AtomicU32,
}

impl Seat {
    fn wake(&self) {
        // Cloned: whatever a waker does, it is not done while this is locked.
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waker.into_iter().for_each(wake_waiter);
    }

    /// Whether it wants one, and none is on its way to it.
    fn lacks(&self) -> bool {
        self.wants.load(Ordering::SeqCst) && self.passed.load(Ordering::SeqCst) == 0
    }

    fn take_passed(&self) -> bool {
        let less = |passed: u32| passed.checked_sub(1);
        self.passed.load(Ordering::SeqCst) > 0
            && self.passed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
    }
}

/// A cap shared by the reactors of one runtime. Never more tokens than the cap are out, those passed on included.
pub(crate) struct Cap {
    tokens: Tokens,
    seats: Arc<[Seat]>,
    /// Reactors that want one.
    wanting: AtomicU32,
}

impl Cap {
    pub(crate) fn new(cap: u32, reactors: usize) -> Self {
        let seats: Arc<[Seat]> = (0..reactors.max(1)).map(|_| Seat::default()).collect();
        let tokens = Tokens::new(cap, reactors);
        let rung = Arc::clone(&seats);
        tokens.connect(move |reactor| rung[reactor].wake());
        Self { tokens, seats, wanting: AtomicU32::new(0) }
    }

    /// Who is woken on this reactor from now on, when a token may be had or others want one.
    pub(crate) fn listen(&self, reactor: usize, waker: Option<Waker>) {
        let mut place = self.seats[reactor].waker.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, waker);
        drop(place);
        drop(before);
    }

    /// Takes one. Refused, the reactor wants one from now on, and is woken when it is worth trying again.
    #[must_use = "true: a token was taken, and has to be given back"]
    #[inline]
    pub(crate) fn take(&self, reactor: usize) -> bool {
        let seat = &self.seats[reactor];
        if seat.take_passed() || self.tokens.try_take(reactor) {
            if seat.has_asked.load(Ordering::SeqCst) {
                // If it wants another, it asks again: who gave this one has forgotten.
                seat.has_asked.store(false, Ordering::SeqCst);
            }
            return true;
        }
        self.want(reactor)
    }

    /// The same, for who will not wait.
    #[must_use = "true: a token was taken, and has to be given back"]
    pub(crate) fn try_take(&self, reactor: usize) -> bool {
        self.seats[reactor].take_passed() || self.tokens.try_take(reactor)
    }

    #[cold]
    fn want(&self, reactor: usize) -> bool {
        let seat = &self.seats[reactor];
        if !seat.wants.swap(true, Ordering::SeqCst) {
            self.wanting.fetch_add(1, Ordering::SeqCst);
        }
        // Behind the note: who gives either sees it, or gave before this look.
        let is_taken = seat.take_passed() || self.tokens.take(reactor);
        if is_taken {
            seat.has_asked.store(false, Ordering::SeqCst);
        } else if !seat.has_asked.swap(true, Ordering::SeqCst) {
            self.others(reactor).for_each(Seat::wake);
        }
        is_taken
    }

    /// The reactor wants no more than it has. What was passed to it meanwhile goes back.
    pub(crate) fn be_content(&self, reactor: usize) {
        let seat = &self.seats[reactor];
        if seat.wants.load(Ordering::SeqCst) && seat.wants.swap(false, Ordering::SeqCst) {
            self.wanting.fetch_sub(1, Ordering::SeqCst);
        }
        if seat.has_asked.load(Ordering::SeqCst) {
            seat.has_asked.store(false, Ordering::SeqCst);
        }
        while seat.take_passed() {
            self.give(reactor);
        }
    }

    /// Whether another reactor wants one, and none is on its way to it.
    #[inline]
    pub(crate) fn is_wanted_by_others(&self, reactor: usize) -> bool {
        self.wanting.load(Ordering::SeqCst) > 0 && self.others(reactor).any(Seat::lacks)
    }

    /// The seats of the others, from the next on.
    fn others(&self, reactor: usize) -> impl Iterator<Item = &Seat> {
        let reactors = self.seats.len();
        (1..reactors).map(move |step| &self.seats[(reactor + step) % reactors])
    }

    /// Gives one back: to the next of the other reactors that wants one, or to all. Whoever waits for it is woken, this
    /// reactor included.
    pub(crate) fn give(&self, reactor: usize) {
        if self.is_wanted_by_others(reactor) && self.pass(reactor) {
            return;
        }
        if self.tokens.give(reactor) {
            self.seats[reactor].wake();
        }
    }

    #[cold]
    fn pass(&self, reactor: usize) -> bool {
        for seat in self.others(reactor).filter(|seat| seat.lacks()) {
            if !sings(Canary::PassedTokenLost) {
                seat.passed.fetch_add(1, Ordering::SeqCst);
            }
            // If it has become content in between, it may not look again for long: either it has found the token as it
            // did, or this look finds that it wants none, and takes it back.
            if !seat.wants.load(Ordering::SeqCst) && seat.take_passed() {
                continue;
            }
            seat.wake();
            return true;
        }
        false
    }

    /// Wakes all who listen.
    pub(crate) fn wake_all(&self) {
        self.seats.iter().for_each(Seat::wake);
    }

    /// Tokens there are.
    pub(crate) fn cap(&self) -> u32 {
        self.tokens.cap()
    }

    /// Tokens that are out: exact when nobody is at work.
    pub(crate) fn used(&self) -> u32 {
        self.tokens.used()
    }

    /// Whether a reactor that has so many is to give one up that another wants, though it needs that itself: above its
    /// share. Where there are fewer than reactors, each has them in turn, for as long as is worth a dial.
    pub(crate) fn is_to_yield(&self, held: u32, had_for: Duration) -> bool {
        let reactors = u32::try_from(self.seats.len()).unwrap_or(u32::MAX);
        let share = (self.tokens.cap() / reactors).max(1);
        held > share || (self.tokens.cap() < reactors && had_for >= TURN)
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cap")
            .field("cap", &self.cap())
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn cap(tokens: u32, reactors: usize) -> (Cap, Vec<Arc<Woken>>) {
        let cap = Cap::new(tokens, reactors);
        let woken: Vec<_> = (0..reactors).map(|_| Arc::new(Woken::default())).collect();
        for (reactor, woken) in woken.iter().enumerate() {
            cap.listen(reactor, Some(Waker::from(Arc::clone(woken))));
        }
        (cap, woken)
    }

    fn count(woken: &Woken) -> usize {
        woken.0.load(Ordering::SeqCst)
    }

    #[test]
    fn what_is_given_back_goes_to_who_wants_it_and_not_to_who_is_first_to_ask() {
        let (cap, woken) = cap(2, 2);
        assert!(cap.take(0) && cap.take(0) && !cap.take(1));
        assert!(cap.is_wanted_by_others(0) && !cap.is_wanted_by_others(1));
        assert_eq!((count(&woken[0]), count(&woken[1])), (1, 0), "who holds some is told");
        cap.give(0);
        assert_eq!(count(&woken[1]), 1);
        assert!(!cap.try_take(0), "it was passed to the other");
        assert_eq!(cap.used(), 2);
        assert!(cap.take(1));
        cap.be_content(1);
        assert!(!cap.is_wanted_by_others(0));
    }

    #[test]
    fn what_was_passed_to_who_wants_it_no_more_goes_back_to_all() {
        let (cap, woken) = cap(1, 3);
        assert!(cap.take(0) && !cap.take(1) && !cap.take(2));
        cap.give(0);
        assert_eq!((count(&woken[1]), count(&woken[2])), (2, 1), "the next, and only it");
        cap.be_content(1);
        assert!(!cap.take(1), "the other that waits has it");
        cap.be_content(1);
        assert!(cap.take(2));
        cap.be_content(2);
        cap.give(2);
        assert!(cap.take(0));
        assert_eq!(cap.used(), 1);
    }

    #[test]
    fn who_wants_several_asks_again_for_each_and_not_while_one_is_on_its_way() {
        let (cap, woken) = cap(3, 2);
        assert!((0..3).all(|_| cap.take(0)) && !cap.take(1) && !cap.take(1));
        for asked in 1..=3 {
            assert_eq!(count(&woken[0]), asked, "once for each");
            assert!(cap.is_wanted_by_others(0));
            cap.give(0);
            assert!(!cap.is_wanted_by_others(0), "it is on its way");
            assert!(cap.take(1) && !cap.take(1));
        }
        cap.be_content(1);
        assert!(!cap.is_wanted_by_others(0));
    }

    #[test]
    fn a_reactor_that_waits_for_its_own_is_woken_by_them() {
        let (cap, woken) = cap(1, 1);
        assert!(cap.take(0) && !cap.take(0));
        assert!(!cap.is_wanted_by_others(0));
        cap.give(0);
        assert_eq!(count(&woken[0]), 1);
        assert!(cap.take(0));
    }
}
