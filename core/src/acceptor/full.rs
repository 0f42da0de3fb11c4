//! What a listener does with a client when every place is taken (`OnFull`).
//!
//! ```text
//!  Backlog     asks for nobody until there is room
//!  Reject      watches, accepts who waits and resets it: a bounded number a turn
//!  EvictIdle   watches, and says that a place is wanted: once for a client that waits
//!
//!              a client waits                 chosen                   it is over
//!   None ------------------------> Wanted --------------> Closing ------------------> None
//!    ^                                |   none is idle here
//!    +-- a place is there, or --- Asking <--- of the other reactors (`places`)
//!        after a while
//! ```
//!
//! *Taken*, and not merely reserved: what a multishot holds back may yet be given to who waits, so nobody is
//! refused, and nobody closed, on its account. That a client waits is the watch's word, which may be wrong or
//! out of date: then an idle connection goes for the next one that comes. Descriptors run short as ever: then
//! accepting pauses, and those
//! that would be refused wait in the backlog.

use super::Acceptor;
use crate::canary::{Canary, sings};
use crate::config::REFUSALS_PER_TURN_MAX;
use crate::driver::Driver;
use crate::error::Fault;
use crate::listen::OnFull;
use crate::places::Place;
use crate::token::{Descriptor, Key};

/// How a listener stands that has a client waiting and evicts for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eviction {
    /// It may want a place.
    None,
    /// It wants one, and nobody has looked yet.
    Wanted,
    /// This connection makes room, and is not over yet.
    Closing(Key),
    /// Nobody here was idle for long enough: the other reactors are asked, and it is looked again later.
    Asking,
}

impl Acceptor {
    /// A place that is wanted for a client of this listener, whether only one of its own connections can make
    /// room, and what is to be told what came of it: [`evicts`](Self::evicts).
    pub(crate) fn poll_wanted(&mut self) -> Option<(u16, bool)> {
        let wanted = |listener: &super::Listener| listener.eviction == Eviction::Wanted;
        let number = self.listeners.iter().position(wanted)? as u16;
        Some((number, self.admission.is_own_full(number)))
    }

    /// This connection makes room for a client of the listener; or none can here, for now, and the others are asked.
    pub(crate) fn evicts(&mut self, listener: u16, victim: Option<Key>) {
        let eviction = victim.map_or(Eviction::Asking, Eviction::Closing);
        self.listeners[usize::from(listener)].eviction = eviction;
        if eviction == Eviction::Asking && !sings(Canary::AsksNobody) {
            self.front.places().ask(self.reactor, listener);
            let loads = self.front.loads();
            let others = (0..loads.reactors()).filter(|other| *other != self.reactor);
            let may_have_one = |other: &usize| loads.connections(*other) > 0;
            others.filter(may_have_one).for_each(|other| self.admission.ring_one(other));
        }
    }

    /// Of whose connections one would make room for a client of the listener, if no place is free: of its own, or of
    /// all.
    pub(crate) fn find_full(&self, listener: u16) -> Option<Option<u16>> {
        let own = self.admission.is_own_full(listener);
        (own || self.admission.is_full(listener)).then_some(own.then_some(listener))
    }

    /// One that was to make room is over, if it was one.
    pub(crate) fn eviction_over(&mut self, key: Key) {
        for listener in &mut self.listeners {
            if listener.eviction == Eviction::Closing(key) && !sings(Canary::EvictionForgotten) {
                listener.eviction = Eviction::None;
                self.changed = true;
            }
        }
    }

    /// Whether a listener waits for the end of a connection that is over.
    pub(crate) fn waits_for_the_dead(&self, lives: impl Fn(Key) -> bool) -> bool {
        let waits = |listener: &super::Listener| match listener.eviction {
            Eviction::Closing(key) => !lives(key),
            Eviction::None | Eviction::Wanted | Eviction::Asking => false,
        };
        self.listeners.iter().any(waits)
    }

    /// Whether a listener has found nobody idle here, and is to look again.
    pub(crate) fn has_looked_in_vain(&self) -> bool {
        self.listeners.iter().any(|listener| listener.eviction == Eviction::Asking)
    }

    /// Somebody may be idle by now, here or elsewhere. Whether it has to be looked again, since another still makes
    /// the place.
    pub(crate) fn look_for_idle(&mut self) -> bool {
        let mut again = false;
        for number in 0..self.listeners.len() {
            let listener = number as u16;
            match self.front.places().get(self.reactor, listener) {
                Place::Made(by) if !self.front.is_absent(by) => {
                    again |= self.listeners[number].eviction == Eviction::Asking;
                }
                Place::Made(by) => self.front.places().end(by, (self.reactor, listener)),
                Place::Asked | Place::Free => self.ask_no_more(number),
            }
        }
        self.hear_of_places();
        again
    }

    /// The listener needs no place of another reactor, unless one is being made for it.
    pub(super) fn ask_no_more(&mut self, number: usize) {
        if self.listeners[number].eviction == Eviction::Asking {
            self.front.places().withdraw(self.reactor, number as u16);
            self.hear_of_places();
        }
    }

    /// The same of all of them: nobody is to be accepted any more, or for now.
    pub(super) fn ask_for_none(&mut self) {
        (0..self.listeners.len()).for_each(|number| self.ask_no_more(number));
    }

    /// What was asked for is there, or has been withdrawn: it may be wanted again.
    pub(super) fn hear_of_places(&mut self) {
        for (number, listener) in self.listeners.iter_mut().enumerate() {
            if listener.eviction == Eviction::Asking
                && self.front.places().get(self.reactor, number as u16) == Place::Free
            {
                listener.eviction = Eviction::None;
                self.changed = true;
            }
        }
    }

    /// Whether who comes is to be reset: only if every place is taken, and not merely reserved.
    pub(super) fn refuses(&self, listener: u16) -> bool {
        self.admission.on_full(listener) == OnFull::Reject && self.admission.is_full(listener)
    }

    pub(super) fn refuse<D: Driver>(&mut self, client: Descriptor, driver: &mut D) {
        driver.set_abortive(client);
        driver.close_now(client);
        self.untold.refused += 1;
    }

    /// Resets those that queue at the listener, as long as there is no place; not all in one turn.
    fn refuse_queued<D: Driver>(&mut self, number: usize, driver: &mut D) {
        for _ in 0..REFUSALS_PER_TURN_MAX {
            if !self.refuses(number as u16) {
                return;
            }
            match driver.accept_queued(self.listeners[number].descriptor) {
                Ok(client) => self.refuse(client, driver),
                Err(Fault::WouldBlock) => return,
                Err(fault) => return self.on_failure(fault),
            }
        }
    }

    /// A client waits, and there was no permit for it.
    pub(super) fn meet_full<D: Driver>(&mut self, number: usize, driver: &mut D) {
        match self.admission.on_full(number as u16) {
            OnFull::Backlog => {}
            OnFull::Reject => self.refuse_queued(number, driver),
            OnFull::EvictIdle => self.want_place(number),
        }
    }

    /// One that evicts wants a place, if it has not asked for one that is to come yet.
    pub(super) fn want_place(&mut self, number: usize) {
        let evicts = self.admission.on_full(number as u16) == OnFull::EvictIdle;
        let eviction = &mut self.listeners[number].eviction;
        if evicts && *eviction == Eviction::None && self.admission.is_full(number as u16) {
            *eviction = Eviction::Wanted;
        }
    }

    /// Whether the listener wants to know who comes although there is no place.
    pub(super) fn meets_full(&self, number: usize) -> bool {
        match self.admission.on_full(number as u16) {
            OnFull::Backlog => false,
            OnFull::Reject => self.admission.is_full(number as u16),
            OnFull::EvictIdle => {
                let may_want = self.listeners[number].eviction == Eviction::None;
                may_want && self.admission.is_full(number as u16)
            }
        }
    }
}
