//! Room for a client that waits: the connection that has been idle for longest is closed for it.
//!
//! Is: the choice. Is not: when a place is wanted, which the acceptor knows; nor the end of a connection, which
//! is that of any other that is closed in order.
//!
//! Only connections that were accepted, have moved nothing for a second and have nothing to send are chosen:
//! whoever is being served is not ended for one who might be. Of 1024 slots the one that has been idle for
//! longest is taken, and the next look goes on behind them: exact in a small reactor, and a sample in a large
//! one, whose turn must not take as long as it has connections.

use super::{Reactor, TIMER_EVICT};
use crate::config::{EVICTION_IDLE_MIN_MS, EVICTION_SLOTS_MAX};
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
                // Here others could be asked for one of theirs: whoever closes one gives its place back, and
                // that rings this reactor.
                None => {
                    let timer = self.connections.slots.capacity() + TIMER_EVICT;
                    self.wheel.arm(timer, self.connections.now_ms() + EVICTION_IDLE_MIN_MS);
                }
            }
        }
    }

    /// The one that has been idle for longest, of this listener or of all.
    pub(super) fn find_idle(&mut self, of: Option<u16>) -> Option<Key> {
        let part = self.next_part();
        self.idle_in(part, of).min_by_key(|(since_ms, _)| *since_ms).map(|(_, key)| key)
    }

    /// The part of the slots that is to be looked at next: where it begins. Counts as looked at.
    pub(super) fn next_part(&mut self) -> u32 {
        let capacity = self.connections.slots.capacity();
        let from = self.look_from;
        self.look_from = (from + capacity.min(EVICTION_SLOTS_MAX)) % capacity;
        from
    }

    /// Those that are idle in a part of the slots, of this listener or of all, and since when.
    pub(super) fn idle_in(&self, from: u32, of: Option<u16>) -> impl Iterator<Item = (u64, Key)> {
        let slots = &self.connections.slots;
        let latest_ms = self.connections.now_ms().checked_sub(EVICTION_IDLE_MIN_MS);
        let capacity = slots.capacity();
        let looks = latest_ms.map_or(0, |_| capacity.min(EVICTION_SLOTS_MAX));
        let idle_since_ms = move |key: Key| {
            let slot = slots.get(key)?;
            let Placed::Accepted(listener) = slot.origin else { return None };
            let connection = &slot.connection;
            let idle = matches!(connection.state(), State::Established)
                && connection.outbox.is_empty()
                && Some(connection.active_at_ms()) <= latest_ms;
            (idle && of.is_none_or(|of| of == listener)).then_some(connection.active_at_ms())
        };
        (0..looks)
            .filter_map(move |step| slots.key_at((from + step) % capacity))
            .filter_map(move |key| Some((idle_since_ms(key)?, key)))
    }
}
