//! Room for a client that waits: the connection that has been idle for longest is closed for it.
//!
//! Is: the choice. Is not: when a place is wanted, which the acceptor knows; nor the end of a connection, which
//! is that of any other that is closed in order.
//!
//! Where nobody is idle, the other reactors are asked (`places`), and the first of them that has somebody closes that
//! one; so the choice is by the reactor, not by the process.
//!
//! Only connections that were accepted, have moved nothing for a second, have nothing to send, and nothing under way by
//! their handler's word ([`Handler::is_idle`]) are chosen: whoever is being served is not ended for one who might be.
//! Of 1024 connections the one that has been idle for longest is taken, and the next look goes on behind them: exact in
//! a small reactor, and a sample in a large one, whose turn must not take as long as it has connections.

use std::sync::Arc;

use super::{Reactor, TIMER_EVICT};
use crate::canary::{Canary, sings};
use crate::config::{EVICTION_IDLE_MIN_MS, IDLE_LOOKED_AT_MAX, IDLE_SLOTS_MAX};
use crate::connection::{Input, State};
use crate::connections::Placed;
use crate::driver::Driver;
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::token::Key;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Closes an idle connection for each client that the acceptor wants a place for.
    pub(super) fn make_room(&mut self) {
        while let Some((listener, of_its_own)) = self.acceptor.poll_wanted() {
            let victim = self.find_idle(of_its_own.then_some(listener));
            self.acceptor.evicts(listener, victim);
            match victim {
                Some(key) => {
                    self.connections.counters.evicted += 1;
                    self.connections.ask(key, Input::Close(CloseReason::Evicted));
                }
                None if sings(Canary::NobodyIdleForEver) => {}
                None => self.arm_evict_timer(),
            }
        }
    }

    /// Whether a listener wants a place, and nobody will look for one any more.
    pub(super) fn has_given_up_on_room(&self) -> bool {
        let timer = self.own_timer(TIMER_EVICT);
        let lives = |key| self.connections.slots.get(key).is_some();
        (self.acceptor.has_looked_in_vain() && !self.wheel.is_armed(timer))
            || self.acceptor.waits_for_the_dead(lives)
    }

    fn arm_evict_timer(&mut self) {
        let timer = self.own_timer(TIMER_EVICT);
        self.wheel.arm(timer, self.connections.now_ms() + EVICTION_IDLE_MIN_MS);
    }

    pub(super) fn on_evict_timer(&mut self) {
        if self.acceptor.look_for_idle() {
            self.arm_evict_timer();
        }
    }

    /// Closes an idle connection for each client that waits at another reactor, which has none and has rung this one;
    /// at the end of the turn, when all that has come is known.
    pub(super) fn make_room_for_others(&mut self) {
        if !std::mem::take(&mut self.is_rung) {
            return;
        }
        if !self.front.places().is_any_asked() || self.drain.is_some() {
            return;
        }
        let front = Arc::clone(&self.front);
        for wanted in front.places().asked_by_others(self.number) {
            let Some(of) = self.acceptor.find_full(wanted.1) else { continue };
            let Some(key) = self.find_idle(of) else { continue };
            if front.places().make(self.number, wanted) {
                self.connections.counters.evicted += 1;
                self.connections.counters.evicted_for_others += 1;
                self.making.push((key, wanted));
                self.connections.ask(key, Input::Close(CloseReason::Evicted));
            }
        }
    }

    /// A connection is over, and its place not given back yet: if it was made for another, that one may ask again
    /// once it is rung.
    pub(super) fn end_making(&mut self, key: Key) {
        if self.making.is_empty() || sings(Canary::MadeForEver) {
            return;
        }
        let (places, number) = (self.front.places(), self.number);
        self.making.retain(|(of, wanted)| {
            if *of == key {
                places.end(number, *wanted);
            }
            *of != key
        });
    }

    /// For how long the connection has been idle by `now_ms` that would make room, of this listener or of all,
    /// milliseconds.
    pub fn longest_idle_ms(&self, of: Option<u16>, now_ms: u64) -> Option<u64> {
        let keys = self.connections.slots.keys();
        keys.filter_map(|key| Some(now_ms - self.idle_since_ms(key, of, now_ms)?)).max()
    }

    /// Since when a connection has been idle, if it may be closed for a client of this listener, or of any.
    fn idle_since_ms(&self, key: Key, of: Option<u16>, now_ms: u64) -> Option<u64> {
        let slot = self.connections.slots.get(key)?;
        let Placed::Accepted(listener) = slot.origin else { return None };
        let connection = &slot.connection;
        let idle = matches!(connection.state(), State::Established)
            && connection.outbox.is_empty()
            && connection.active_at_ms() + EVICTION_IDLE_MIN_MS <= now_ms
            && self.handler.is_idle(&slot.state);
        (idle && of.is_none_or(|of| of == listener)).then_some(connection.active_at_ms())
    }

    /// The one that has been idle for longest, of this listener or of all.
    pub(super) fn find_idle(&mut self, of: Option<u16>) -> Option<Key> {
        self.idle_in_part(of).into_iter().min().map(|(_, key)| key)
    }

    /// Those that are idle in the next part of the connections, of this listener or of all, and since when,
    /// milliseconds. The part counts as looked at.
    pub(super) fn idle_in_part(&mut self, of: Option<u16>) -> Vec<(u64, Key)> {
        let (slots, now_ms) = (&self.connections.slots, self.connections.now_ms());
        let part = slots.keys_from(self.look_from, IDLE_SLOTS_MAX);
        let mut idle = Vec::new();
        let mut last = self.look_from;
        for key in part.take(IDLE_LOOKED_AT_MAX as usize) {
            last = key.index();
            idle.extend(self.idle_since_ms(key, of, now_ms).map(|since_ms| (since_ms, key)));
        }
        self.look_from = last + 1;
        idle
    }
}
