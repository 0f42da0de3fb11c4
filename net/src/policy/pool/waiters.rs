//! Those that wait for a connection, first come, first served.
//!
//! ```text
//!   enter ---> Waiting ---> settled, to be woken ---> settled, woken ---> gone (claim, leave)
//!                 ^                 |                      |
//!                 +----- withdrawn: what was granted has ended by itself
//! ```
//!
//! Why who is settled stays: the task that waits is woken now and polled later, and may be dropped in between. Until it
//! claims what it was given, that is the book's to give to somebody else.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::lists::{FREE, Lists};
use super::{Place, Ticket};
use crate::failure::Error;

const WAITING: usize = FREE + 1;
const TO_WAKE: usize = FREE + 2;
const WOKEN: usize = FREE + 3;

/// What came of a wait.
pub(super) enum Outcome {
    /// Nothing yet.
    None,
    Granted(Place),
    Failed(Arc<Error>),
    Draining,
}

pub(super) struct Waiter {
    /// Who came before whom.
    arrival: u64,
    pub(super) since: Duration,
    pub(super) at: &'static Location<'static>,
    outcome: Outcome,
}

pub(super) struct Waiters {
    lists: Lists<Waiter, 4>,
    arrivals: u64,
}

impl Waiters {
    pub(super) fn new() -> Self {
        Self { lists: Lists::new(), arrivals: 0 }
    }

    /// Those that wait still.
    pub(super) fn len(&self) -> u32 {
        self.lists.len(WAITING)
    }

    pub(super) fn enter(&mut self, since: Duration, at: &'static Location<'static>) -> Ticket {
        let waiter = Waiter { arrival: self.arrivals, since, at, outcome: Outcome::None };
        self.arrivals += 1;
        let index = self.lists.insert(waiter, WAITING);
        self.ticket(index)
    }

    pub(super) fn first(&self) -> Option<&Waiter> {
        self.lists.front(WAITING).map(|index| &self.lists[index])
    }

    /// Says to the first what came of its wait, if anybody waits; who that is.
    pub(super) fn settle_first(&mut self, outcome: Outcome) -> Option<Ticket> {
        let index = self.lists.front(WAITING)?;
        self.lists[index].outcome = outcome;
        self.lists.move_back(index, TO_WAKE);
        Some(self.ticket(index))
    }

    /// Takes back what was said to somebody: it waits again, in the order of arrival.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        let Ticket { index, .. } = ticket;
        self.lists[index].outcome = Outcome::None;
        let arrival = self.lists[index].arrival;
        // Past those that were withdrawn before, and came before: as a rule, nobody.
        let (mut earlier, mut next) = (None, self.lists.front(WAITING));
        while let Some(other) = next.filter(|other| self.lists[*other].arrival < arrival) {
            (earlier, next) = (next, self.lists.behind(other));
        }
        self.lists.move_behind(index, WAITING, earlier);
    }

    /// The next that is to be woken.
    pub(super) fn poll_wake(&mut self) -> Option<Ticket> {
        let index = self.lists.front(TO_WAKE)?;
        self.lists.move_back(index, WOKEN);
        Some(self.ticket(index))
    }

    /// Whether it waits still; `None` if there is no such ticket.
    pub(super) fn is_waiting(&self, ticket: Ticket) -> Option<bool> {
        let list = self.lists.list(ticket.index, ticket.generation)?;
        Some(list == WAITING)
    }

    /// What was given to who waited with this ticket.
    pub(super) fn granted(&self, ticket: Ticket) -> Option<Place> {
        self.lists.list(ticket.index, ticket.generation)?;
        match self.lists[ticket.index].outcome {
            Outcome::Granted(place) => Some(place),
            Outcome::None | Outcome::Failed(_) | Outcome::Draining => None,
        }
    }

    /// Ends a ticket; what had come of it.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Outcome {
        let outcome = std::mem::replace(&mut self.lists[ticket.index].outcome, Outcome::None);
        self.lists.free(ticket.index);
        outcome
    }

    fn ticket(&self, index: u32) -> Ticket {
        Ticket { index, generation: self.lists.generation(index) }
    }

    pub(super) fn census(&self) -> u32 {
        self.lists.census()[WAITING]
    }
}
