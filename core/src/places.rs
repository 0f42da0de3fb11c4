//! Places that reactors ask each other for: one with a client that waits, and nobody idle to close for it.
//!
//! ```text
//!          it asks, and rings the others       one of them has somebody idle         that one is over
//!   Free ----------------------------> Asked -------------------------------> Made -----------------> Free
//!    ^                                   |                                      |
//!    +-- it needs none, or asks again ---+---- whoever makes it has stalled ----+
//! ```
//!
//! A word for each listener of each reactor. Whoever swaps it first makes the place: one client costs one
//! connection, however many others have somebody idle. Nothing is posted, so nothing can find a mailbox full, and a
//! reactor that does not turn is passed over by itself.
//!
//! Nobody is told that the place is there. It is given back like any other, and that rings who waits for one.

use std::sync::OnceLock;

use crate::sync::{AtomicU32, Ordering, Slip, slips};

const FREE: u32 = 0;
const ASKED: u32 = 1;
/// And from here on: made by the reactor of the number above this.
const MADE: u32 = 2;

/// How a place that was asked for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is not asked for; or it was, was made, and is there.
    Free,
    /// Nobody makes it yet.
    Asked,
    /// This reactor makes it.
    Made(usize),
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Places {
    each: Box<[OnceLock<Box<[AtomicU32]>>]>,
    /// Those asked for, for whoever only wants to know whether there are any.
    asked: AtomicU32,
}

impl Places {
    pub(crate) fn new(reactors: usize) -> Self {
        Self { each: (0..reactors).map(|_| OnceLock::new()).collect(), asked: AtomicU32::new(0) }
    }

    /// A reactor has so many listeners.
    pub(crate) fn tell(&self, reactor: usize, listeners: usize) {
        let _ = self.each[reactor].set((0..listeners).map(|_| AtomicU32::new(FREE)).collect());
    }

    fn word(&self, reactor: usize, listener: u16) -> Option<&AtomicU32> {
        self.each[reactor].get()?.get(usize::from(listener))
    }

    /// How the place stands that this reactor may have asked for, for a client of this listener.
    pub(crate) fn get(&self, reactor: usize, listener: u16) -> Place {
        match self.word(reactor, listener).map_or(FREE, |word| word.load(Ordering::SeqCst)) {
            FREE => Place::Free,
            ASKED => Place::Asked,
            made => Place::Made((made - MADE) as usize),
        }
    }

    /// A place is wanted by this reactor, for a client of this listener: the others are to be rung now.
    pub(crate) fn ask(&self, reactor: usize, listener: u16) {
        if let Some(word) = self.word(reactor, listener) {
            // Counted first: who finds none asked for does not look.
            self.asked.fetch_add(1, Ordering::SeqCst);
            if word.swap(ASKED, Ordering::SeqCst) == ASKED {
                self.asked.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// It is not wanted any more, unless somebody makes it already.
    pub(crate) fn withdraw(&self, reactor: usize, listener: u16) -> bool {
        self.take_off(reactor, listener, FREE)
    }

    /// This reactor makes a place that `asker` has asked for; false if it is not wanted any more, or another does.
    pub(crate) fn make(&self, reactor: usize, (asker, listener): (usize, u16)) -> bool {
        if slips(Slip::MakesUnasked) && self.get(asker, listener) == Place::Asked {
            crate::sync::spin_loop();
            if let Some(word) = self.word(asker, listener) {
                word.store(MADE + reactor as u32, Ordering::SeqCst);
            }
            return true;
        }
        self.take_off(asker, listener, MADE + reactor as u32)
    }

    fn take_off(&self, asker: usize, listener: u16, to: u32) -> bool {
        let Some(word) = self.word(asker, listener) else { return false };
        let taken = word.compare_exchange(ASKED, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.asked.fetch_sub(u32::from(taken), Ordering::SeqCst);
        taken
    }

    /// What this reactor has made for `asker` is there, or will not be waited for.
    pub(crate) fn end(&self, reactor: usize, (asker, listener): (usize, u16)) {
        if let Some(word) = self.word(asker, listener) {
            let made = MADE + reactor as u32;
            // Not if it has not been waited for, and is asked for again.
            let _ = word.compare_exchange(made, FREE, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Whether any is asked for.
    #[inline]
    pub(crate) fn is_any_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > 0
    }

    /// Those asked for by others than this reactor: by whom, and for a client of which listener.
    pub(crate) fn asked_by_others(&self, reactor: usize) -> impl Iterator<Item = (usize, u16)> {
        let others = self.each.iter().enumerate().filter(move |(other, _)| *other != reactor);
        others.flat_map(|(other, words)| {
            let words = words.get().map_or(&[][..], |words| words);
            let asked = |(_, word): &(u16, &AtomicU32)| word.load(Ordering::SeqCst) == ASKED;
            (0..).zip(words).filter(asked).map(move |(listener, _)| (other, listener))
        })
    }
}
