//! How many connections the process accepts, exactly, over all its reactors.
//!
//! The cap is never passed, not by one, and no client is kept waiting while there is room. What makes that
//! hard is the multishot accept: once armed it takes in whatever queues at the listener, without asking. So
//! an armed multishot *reserves* a whole backlog of the cap; near the cap nobody may arm one, those armed
//! are recalled, and clients are accepted one by one, each with a permit taken before.
//!
//! One word of shared memory: connections open, and multishots armed. Touched once an accept and once a
//! close; a reactor that found no permit leaves its bit in `waiting` and is rung when one comes back.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::canary::{Canary, sings};

/// Rings the reactor of a number; set once, when all of them exist.
type Ring = Box<dyn Fn(usize) + Send + Sync>;

/// The process's count of accepted connections against its cap.
pub struct Admission {
    cap: u32,
    /// Places of the cap that one armed multishot reserves.
    reserve: u32,
    /// Open connections in the low half, armed multishots in the high one.
    word: AtomicU64,
    /// Bit `i % 64`: reactor `i` found no permit.
    waiting: AtomicU64,
    /// Dialed connections: bounded too, but nobody waits for one.
    dialed: AtomicU32,
    dialed_cap: u32,
    reactors: usize,
    ring: OnceLock<Ring>,
}

fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

const ONE_OPEN: u64 = 1;
const ONE_ARMED: u64 = 1 << 32;

impl Admission {
    /// Room for `cap` accepted and `dialed_cap` dialed connections over `reactors`, whose listeners queue at
    /// most `backlog` clients each.
    #[must_use]
    pub fn new(cap: u32, dialed_cap: u32, backlog: u32, reactors: usize) -> Self {
        Self {
            cap,
            // The kernel's queue takes one more than it is told.
            reserve: backlog.saturating_add(1),
            word: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            dialed: AtomicU32::new(0),
            dialed_cap,
            reactors,
            ring: OnceLock::new(),
        }
    }

    /// Says how reactors are rung. Later calls change nothing.
    pub fn connect(&self, ring: impl Fn(usize) + Send + Sync + 'static) {
        let _ = self.ring.set(Box::new(ring));
    }

    /// Clients that can queue for one reactor.
    #[must_use]
    pub(crate) fn queue_max(&self) -> u32 {
        self.reserve
    }

    /// Accepted connections that are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        split(self.word.load(Ordering::Relaxed)).0
    }

    fn used(&self, open: u32, armed: u32) -> u64 {
        u64::from(open) + u64::from(armed) * u64::from(self.reserve)
    }

    fn update(&self, change: impl Fn(u32, u32) -> Option<u64>) -> bool {
        let change = |word| {
            let (open, armed) = split(word);
            change(open, armed)
        };
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).is_ok()
    }

    /// Reserves a backlog for a multishot accept; false near the cap.
    pub fn arm(&self) -> bool {
        self.update(|open, armed| {
            let fits = self.used(open, armed + 1) <= u64::from(self.cap);
            fits.then_some(u64::from(open) + u64::from(armed + 1) * ONE_ARMED)
        })
    }

    /// Gives the reservation of a multishot back, after its last completion.
    pub fn disarm(&self, reactor: usize) {
        self.word.fetch_sub(ONE_ARMED, Ordering::SeqCst);
        self.ring_waiting(reactor);
    }

    /// Whether the armed multishots reserve more than is left: each has to be given up.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        let (open, armed) = split(self.word.load(Ordering::SeqCst));
        armed > 0
            && (self.used(open, armed) > u64::from(self.cap)
                || self.waiting.load(Ordering::SeqCst) != 0)
    }

    /// Counts in what an armed multishot accepted. False only if it accepted more than it had reserved: the
    /// client is to be kept aside until [`take`](Self::take) lets it in.
    pub fn admit(&self) -> bool {
        self.update(|open, armed| {
            (open < self.cap).then_some(u64::from(open + 1) + u64::from(armed) * ONE_ARMED)
        })
    }

    /// Takes a permit for one connection. Without one, `reactor` is rung when it is worth asking again.
    pub fn take(&self, reactor: usize) -> bool {
        self.succeed_or_wait(reactor, || {
            self.update(|open, armed| {
                let taken = u64::from(open) + ONE_OPEN + u64::from(armed) * ONE_ARMED;
                self.has_place(open, armed).then_some(taken)
            })
        })
    }

    /// Whether a permit could be had now. If not, `reactor` is rung when it is worth asking again.
    ///
    /// It only looks. To take one and give it back would be a release: others would find none meanwhile, and
    /// it would take notes off that whoever is releasing just now has not seen.
    pub fn has_room(&self, reactor: usize) -> bool {
        self.succeed_or_wait(reactor, || {
            let (open, armed) = split(self.word.load(Ordering::SeqCst));
            self.has_place(open, armed)
        })
    }

    fn has_place(&self, open: u32, armed: u32) -> bool {
        let over = u64::from(sings(Canary::CapExceeded));
        self.used(open, armed) < u64::from(self.cap) + over
    }

    /// Tries twice: before and after noting that the reactor waits.
    fn succeed_or_wait(&self, reactor: usize, attempt: impl Fn() -> bool) -> bool {
        if attempt() {
            return true;
        }
        self.waiting.fetch_or(1 << (reactor % 64), Ordering::SeqCst);
        // A permit may have come back between the look and the note.
        if attempt() {
            return true;
        }
        if split(self.word.load(Ordering::SeqCst)).1 > 0 {
            // Others reserve what is missing here: they see that it is tight when they look.
            (0..self.reactors)
                .filter(|&other| other != reactor)
                .for_each(|other| self.ring_one(other));
        }
        false
    }

    /// A connection of `reactor` is over, or its permit was not needed. Others that wait are rung; whether
    /// the caller waits too is the answer: it is not rung, and has to look again for itself.
    pub fn release(&self, reactor: usize) -> bool {
        self.word.fetch_sub(ONE_OPEN, Ordering::SeqCst);
        self.ring_waiting(reactor)
    }

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

    /// Whether the caller is among those that wait.
    fn ring_waiting(&self, caller: usize) -> bool {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let waiting = self.waiting.swap(0, Ordering::SeqCst);
        for reactor in (0..self.reactors).filter(|reactor| waiting & 1 << (reactor % 64) != 0) {
            if reactor != caller {
                self.ring_one(reactor);
            }
        }
        waiting & 1 << (caller % 64) != 0
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

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (open, armed) = split(self.word.load(Ordering::Relaxed));
        f.debug_struct("Admission")
            .field("cap", &self.cap)
            .field("open", &open)
            .field("multishots", &armed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn rung(admission: &Admission) -> Arc<Mutex<Vec<usize>>> {
        let rung = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&rung);
        admission.connect(move |reactor| note.lock().expect("no panic").push(reactor));
        rung
    }

    #[test]
    fn permits_end_at_the_cap_and_come_back() {
        let admission = Admission::new(2, 0, 8, 2);
        let rung = rung(&admission);
        assert!(!admission.arm(), "a backlog of 8 does not fit a cap of 2");
        assert!(admission.take(0) && admission.take(1));
        assert!(!admission.take(1) && !admission.admit());
        assert_eq!(admission.open(), 2);
        admission.release(0);
        assert_eq!(*rung.lock().expect("no panic"), [1], "only who waited is rung");
        assert!(admission.take(1));
    }

    /// The other has given its permit back, and not looked yet who waits.
    fn give_back_unseen(admission: &Admission) {
        admission.word.fetch_sub(ONE_OPEN, Ordering::SeqCst);
    }

    #[test]
    fn a_look_in_between_forgets_nobody() {
        let admission = Admission::new(1, 0, 8, 2);
        let rung = rung(&admission);
        assert!(admission.take(1));
        assert!(!admission.has_room(0), "for its first listener");
        give_back_unseen(&admission);
        assert!(admission.has_room(0), "for its second");
        admission.ring_waiting(1);
        assert_eq!(*rung.lock().expect("no panic"), [0], "the first waits still");
    }

    #[test]
    fn who_releases_is_told_that_it_waits_itself() {
        let admission = Admission::new(1, 0, 8, 2);
        let rung = rung(&admission);
        assert!(admission.take(1));
        assert!(!admission.take(0), "for its first listener");
        give_back_unseen(&admission);
        assert!(admission.take(0), "for its second, whose client has gone");
        assert!(admission.release(0), "the first has to look again");
        admission.ring_waiting(1);
        assert!(rung.lock().expect("no panic").is_empty());
        assert!(admission.take(0));
        assert!(!admission.release(0), "nobody waits any more");
    }

    #[test]
    fn dials_end_at_their_cap_and_come_back() {
        let admission = Admission::new(1, 1, 8, 1);
        assert!(admission.dial() && !admission.dial());
        admission.end_dial();
        assert!(admission.dial());
    }

    #[test]
    fn an_armed_multishot_holds_a_backlog_until_it_is_recalled() {
        let admission = Admission::new(10, 0, 4, 2);
        let rung = rung(&admission);
        assert!(admission.arm() && admission.arm() && !admission.arm());
        assert!(!admission.is_tight());
        assert!(!admission.take(0), "all ten are reserved");
        assert!(admission.is_tight());
        assert_eq!(*rung.lock().expect("no panic"), [1], "the other reactor is recalled");
        admission.disarm(1);
        assert_eq!(*rung.lock().expect("no panic"), [1, 0]);
        assert!(admission.take(0));
        for _ in 0..5 {
            assert!(admission.admit());
        }
        assert!(admission.is_tight());
    }
}
