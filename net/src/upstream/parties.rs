//! Who has the connections of an upstream, on one reactor: the pool of each endpoint, and requests with one of their
//! own.
//!
//! Is: what each party has, what it waits for, and which of them gives one up at the cap though callers of its own
//! wait. Is not: the cap, which knows nobody; who is next in its line gets what is given back.
//!
//! *Why a comparison, and not a share of the cap for each*: endpoints that nobody asks for would have theirs too, and
//! who is asked for would close connections for nobody's sake. Who has two more than another that wants gives one up;
//! from then on neither gives any to the other, so none is closed twice for the same want. A party that has none at
//! all, at a cap of fewer than there are parties, has its turn.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::cap::{TURN, Token};

/// One of those.
#[derive(Debug, Default)]
pub(super) struct Party {
    held: Cell<u32>,
    wanted: Cell<u32>,
}

impl Party {
    /// Connections it has.
    pub(super) fn held(&self) -> u32 {
        self.held.get()
    }

    /// Whether it waits for any.
    pub(super) fn is_wanting(&self) -> bool {
        self.wanted.get() > 0
    }

    /// Whether it is to have one of this other's, which was had for so long.
    pub(super) fn is_behind(&self, other: &Self, had_for: Duration) -> bool {
        let (own, theirs) = (self.held.get(), other.held.get());
        self.wanted.get() > 0 && (own + 1 < theirs || (own == 0 && had_for >= TURN))
    }
}

/// That a party waits for one.
pub(super) struct Wanting(Rc<Party>);

impl Wanting {
    pub(super) fn of(party: &Rc<Party>) -> Self {
        party.wanted.set(party.wanted.get() + 1);
        Self(Rc::clone(party))
    }
}

impl Drop for Wanting {
    fn drop(&mut self) {
        self.0.wanted.set(self.0.wanted.get() - 1);
    }
}

/// A connection's place under the cap, and whose it is.
#[derive(Debug)]
pub(super) struct Place {
    _token: Token,
    party: Rc<Party>,
    since: Duration,
    /// Counts those that are being given up.
    yielding: Option<Rc<Cell<u32>>>,
}

impl Place {
    pub(super) fn new(token: Token, party: &Rc<Party>, since: Duration) -> Self {
        party.held.set(party.held.get() + 1);
        Self { _token: token, party: Rc::clone(party), since, yielding: None }
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }

    /// It is given up for another party, and counted there until it has come back.
    pub(super) fn give_up(&mut self, yielding: &Rc<Cell<u32>>) {
        yielding.set(yielding.get() + 1);
        if let Some(before) = self.yielding.replace(Rc::clone(yielding)) {
            before.set(before.get() - 1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.party.held.set(self.party.held.get() - 1);
        if let Some(yielding) = self.yielding.take() {
            yielding.set(yielding.get() - 1);
        }
    }
}
