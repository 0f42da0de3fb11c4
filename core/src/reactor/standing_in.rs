//! Accepting for a reactor that has stalled.
//!
//! The kernel goes on giving it clients: to it a listener is a listener. They would wait until it turns again, so
//! the next reactor that does turn takes them in, in its own name, and places them as its own clients.
//!
//! By plain calls, a few dozen times a second, and not through the ring: so nothing of another's listener is in
//! flight here when that reactor wakes up and closes it. While a call is made the listener is *borrowed*
//! ([`Front::borrow_listeners`]), and its owner puts a close off for as long as that takes.
//!
//! What the stalled reactor itself has accepted already, and not looked at, is out of reach.

use std::sync::Arc;

use super::{Reactor, TIMER_STAND_IN};
use crate::canary::{Canary, sings};
use crate::driver::Driver;
use crate::handler::Handler;

/// How often the listeners of a stalled reactor are looked at, milliseconds.
const LOOK_MS: u64 = 20;
/// Clients taken in for another reactor in one look at most.
const CLIENTS_MAX: usize = 64;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Takes in whom a stalled reactor keeps waiting, if this is the one to do it; and goes on until it turns again.
    pub(super) fn stand_in(&mut self) {
        if self.drain.is_some() || !self.front.has_stalled() {
            return;
        }
        let reactors = self.front.loads().reactors();
        for stalled in 0..reactors {
            if self.front.stands_in(self.number, stalled) {
                self.accept_for(stalled);
            }
        }
        let timer = self.own_timer(TIMER_STAND_IN);
        self.wheel.arm(timer, self.connections.now_ms() + LOOK_MS);
    }

    /// Takes in who queues at the listeners of another. No handler is called meanwhile: the other may be waiting for
    /// its listeners, and one that panics must not lose the clients behind its own.
    fn accept_for(&mut self, stalled: usize) {
        let front = Arc::clone(&self.front);
        let Some(borrowed) = front.borrow_listeners(stalled) else { return };
        let now_us = self.connections.now_us();
        for (listener, number) in borrowed.listeners().iter().zip(0..) {
            for _ in 0..CLIENTS_MAX {
                if !self.acceptor.let_in_from(*listener, number, now_us, &mut self.driver) {
                    break;
                }
                self.connections.counters.stood_in += 1;
            }
        }
        // Not of the first, whose ring may fail in a simulation: it would wait for ever.
        if sings(Canary::BorrowKept) && stalled > 0 {
            std::mem::forget(borrowed);
        } else {
            drop(borrowed);
        }
        self.take_in_clients();
    }
}
