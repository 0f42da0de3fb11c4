//! Listeners with a rate of accepting, their own or that of the process.
//!
//! ```text
//!             a client waits            a token for it
//!   Watching ----------------> Ready --------------------> accepted, and the next one looked for
//!                               | ^
//!              no token, yet    | |  the time has come
//!                               v |
//!                              Paced
//! ```
//!
//! A place is looked for first, then the tokens are taken, then the permit: so a client waits for a token only
//! if it has a place to go to, and what a full listener does with its clients (`acceptor/full.rs`) it does at no
//! rate. What was taken for somebody who was not there after all is given back at once.
//!
//! One that waits for a token keeps its word that a client waits: nothing is in flight, and nobody watches. The
//! acceptor knows no clock: it says when to look, and is told when that is.

use super::{Acceptor, Entry, State};
use crate::config::PACED_PER_TURN_MAX;
use crate::driver::Driver;
use crate::token::Descriptor;

impl Acceptor {
    /// Whether the listener's clients need tokens.
    pub(super) fn is_paced(&self, number: usize) -> bool {
        self.pace.applies(number as u16)
    }

    /// Lets those in for whom there are tokens, not all in one turn; what came of the first one. Of the others it
    /// is not known that they are there: the next watch tells.
    pub(super) fn let_in_at_rate<D: Driver>(
        &mut self,
        number: usize,
        now_us: u64,
        driver: &mut D,
    ) -> Entry {
        let descriptor = self.listeners[number].descriptor;
        let first = self.enter_at_rate(descriptor, number as u16, now_us, driver);
        self.untold.paced += u64::from(matches!(first, Entry::NoToken { .. }));
        let mut last = first;
        for _ in 1..PACED_PER_TURN_MAX {
            if last != Entry::In {
                break;
            }
            last = self.enter_at_rate(descriptor, number as u16, now_us, driver);
        }
        first
    }

    /// Lets one in who queues at a listener of this number, here or on another reactor, if there is a place and a
    /// token for it.
    pub(super) fn enter_at_rate<D: Driver>(
        &mut self,
        descriptor: Descriptor,
        listener: u16,
        now_us: u64,
        driver: &mut D,
    ) -> Entry {
        if !self.admission.has_room(self.reactor, listener) {
            return Entry::NoPermit;
        }
        if let Err(until_us) = self.pace.take(listener, now_us) {
            return Entry::NoToken { until_us };
        }
        let entry = self.enter(descriptor, listener, driver);
        if entry != Entry::In {
            self.pace.give_back(listener);
        }
        entry
    }

    /// When the first of those that wait for a token is to look again, microseconds.
    pub(crate) fn next_token_us(&self) -> Option<u64> {
        let until_us = |listener: &super::Listener| match listener.state {
            State::Paced { until_us } => Some(until_us),
            _ => None,
        };
        self.listeners.iter().filter_map(until_us).min()
    }

    /// It is so late: there may be tokens for those that have waited for them.
    pub(crate) fn look_for_tokens(&mut self, now_us: u64) {
        for listener in &mut self.listeners {
            if matches!(listener.state, State::Paced { until_us } if until_us <= now_us) {
                listener.state = State::Ready;
                self.changed = true;
            }
        }
    }
}
