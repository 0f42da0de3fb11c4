//! Readers that do not read: which they are, and how they give up the buffers they hold.
//!
//! A connection whose socket takes no more keeps what waits for it in buffers of the ring. That is free while
//! there are buffers; when they run short, the bytes are copied to plain memory and the buffers go back.

use std::collections::VecDeque;

use super::{Connections, Slot};
use crate::connection::State;
use crate::slab::Slab;
use crate::token::Key;

/// Fewer stale keys than this are not worth a look.
const DEAD_MIN: usize = 64;

impl<S> Connections<S> {
    /// Copies what stalled readers hold of the ring to plain memory, until `enough` buffers are free.
    pub(crate) fn spill(&mut self, enough: u32) {
        for _ in 0..self.stalled.len() {
            if self.memory.buffers_free() >= enough {
                return;
            }
            let Some(key) = self.stalled.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(key) else { continue };
            slot.listed = false;
            let dialed = matches!(slot.connection.state(), State::Opening { .. });
            if !(slot.connection.is_blocked() || dialed) || slot.connection.is_sending() {
                continue;
            }
            let memory = &self.memory;
            let mut spilled = 0;
            let mut refused = false;
            slot.connection.outbox.replace_each(&mut self.pieces, |span| {
                let was_ring = span.buffer().is_ring();
                match memory.spill(span) {
                    Ok(copy) => {
                        spilled += 1;
                        copy
                    }
                    Err(span) => {
                        refused |= was_ring;
                        span
                    }
                }
            });
            self.counters.buffers_spilled += spilled;
            if refused || dialed {
                // No more may be owned, or more may come while it is dialed: it keeps its place in the list.
                slot.listed = true;
                self.stalled.push_back(key);
            }
        }
    }

    /// Remembers a connection whose socket takes no more.
    pub(crate) fn note_blocked(&mut self, key: Key) {
        self.counters.sends_blocked += 1;
        self.list_stalled(key);
    }

    /// Puts a connection that holds buffers and sends none of them on the list for [`Self::spill`].
    #[inline(never)]
    pub(super) fn list_stalled(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if std::mem::replace(&mut slot.listed, true) {
            return;
        }
        forget_the_dead(&mut self.stalled, &self.slots);
        self.stalled.push_back(key);
    }
}

/// Drops the keys that have become stale, once they are the most: a list of living connections, each at
/// most once in it, stays as short as they are few.
pub(crate) fn forget_the_dead<S>(list: &mut VecDeque<Key>, slots: &Slab<Slot<S>>) {
    if list.len() > 2 * slots.len() as usize + DEAD_MIN {
        list.retain(|key| slots.get(*key).is_some());
    }
}
