//! Connections that come from another reactor, and that go to one.

use super::{Connections, Placed, Slot};
use crate::connection::{Connection, Packed};
use crate::token::Key;

impl<S: Default + 'static> Connections<S> {
    /// Takes in a connection that was another reactor's; `None` when every slot is taken.
    pub(crate) fn arrive(&mut self, packed: &Packed, listener: u16, state: S) -> Option<Key> {
        let (now_ms, rules) = (self.now_ms(), &self.rules);
        let key = self.slots.insert_with(|_| {
            let connection = Connection::unpacked(packed, rules, now_ms);
            Self::slot(connection, state, Placed::Accepted(listener))
        })?;
        self.counters.moved_in += 1;
        self.mark_dirty(key);
        Some(key)
    }

    /// The connection is another reactor's from now on: its slot is free.
    pub(crate) fn leave(&mut self, key: Key) -> Option<Slot<S>> {
        let slot = self.slots.remove(key)?;
        self.addresses.forget(key);
        self.counters.moved_out += 1;
        Some(slot)
    }
}
