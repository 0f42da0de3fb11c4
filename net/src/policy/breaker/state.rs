//! The breaker's word, shared by all reactors.
//!
//! Is: the functions of `word` in loops of compare-and-swap. Is not: where anything is decided. While the breaker is
//! closed or open nobody writes here, so its cache line stays with all who read it.
//!
//! All accesses are relaxed: nothing else is read or written because of what is found here, and changes of one word
//! have one order anyway.

use std::fmt;
use std::time::Duration;

use super::outcome::Outcome;
use super::sync::{AtomicU64, Ordering};
use super::word::{Admitted, Change, Open, Probe, Rules, Standing, Ticket, Word};

/// How the breaker of an upstream stands, for all reactors: in an `Arc`, with a `Breaker` on each of them.
///
/// New, it is closed. On a pair of cache lines of its own.
#[repr(align(128))]
pub struct BreakerState {
    word: AtomicU64,
}

impl BreakerState {
    /// A closed one.
    #[must_use]
    pub fn new() -> Self {
        Self { word: AtomicU64::new(Word::NEW.pack()) }
    }

    /// How it stands. What is due shows when somebody calls: see [`Standing::Open`].
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.word().standing()
    }

    /// How often in a row it has opened, counted to 31. Its next opening starts from one again if it has been closed
    /// for a window.
    #[must_use]
    pub fn openings(&self) -> u32 {
        self.word().openings.into()
    }

    /// A call comes to nothing, and nobody knows why: it was dropped. A probe's permit is free again; nothing is
    /// counted. Needs no `Breaker`, so that it can be called from a drop, wherever that happens.
    pub fn give_back(&self, now: Duration, ticket: Ticket) {
        if let Admitted::Probe(probe) = ticket.0 {
            self.change(|word| (word.give_back(probe, now), ()));
        }
    }

    /// The epoch, if it is closed: one load and one comparison.
    #[inline]
    pub(super) fn closed_epoch(&self) -> Option<u16> {
        Word::closed_epoch(self.word.load(Ordering::Relaxed))
    }

    pub(super) fn admit(&self, now: Duration, rules: &Rules) -> Result<Ticket, Open> {
        self.change(|word| word.admit(now, rules)).map(Ticket)
    }

    pub(super) fn report(
        &self,
        probe: Probe,
        outcome: Outcome,
        now: Duration,
        rules: &Rules,
    ) -> Option<Change> {
        self.change(|word| word.report(probe, outcome, now, rules))
    }

    pub(super) fn trip(&self, epoch: u16, now: Duration, rules: &Rules) -> Option<Change> {
        self.change(|word| word.trip(epoch, now, rules))
    }

    pub(super) fn settle(&self, now: Duration, rules: &Rules) {
        self.change(|word| (word.settle(now, rules), ()));
    }

    pub(super) fn word(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Relaxed))
    }

    /// Writes nothing where nothing changes. Who has to try again does so because another has got on.
    fn change<T>(&self, step: impl Fn(Word) -> (Word, T)) -> T {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let (next, result) = step(Word::unpack(seen));
            let next = next.pack();
            if next == seen {
                return result;
            }
            let swapped =
                self.word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return result,
                Err(other) => seen = other,
            }
        }
    }
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BreakerState").field(&self.word()).finish()
    }
}
