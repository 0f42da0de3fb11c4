//! What a connection may take of one turn: so many bytes, so many receives.
//!
//! What comes beyond is put off to the next turn, and all that comes behind it of that connection too: nothing
//! overtakes. So a peer that sends without end makes others wait for a share, and for no more.
//!
//! The first completion of a turn is always within the share, and with most connections it is the only one.

use super::{Connections, Slot};
use crate::canary::{Canary, sings};
use crate::connection::Event;
use crate::token::{Key, Op};

/// What becomes of a receive's completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It is for the machine: its event.
    Now(Event),
    /// It is put off to the next turn.
    Later,
    /// Nobody awaits it.
    Stale,
}

impl<S> Connections<S> {
    /// A receive brought so many bytes, which count against the connection's share of the turn; or `None`, and
    /// then the machine is still to be told why. A completion waits behind those of its connection that were put
    /// off, whatever it brings.
    #[inline(always)]
    pub(crate) fn received(
        &mut self,
        key: Key,
        activation: u8,
        bytes: Option<u32>,
        more: bool,
    ) -> Received {
        let turn = self.counters.turns as u32 >> u32::from(sings(Canary::ShareForTwoTurns));
        let now_ms = self.now_ms();
        let Some(slot) = self.slots.get_mut(key) else { return Received::Stale };
        if !slot.connection.expects(Op::Receive, activation) {
            return Received::Stale;
        }
        let (mut used_bytes, mut used_receives) = (0, 0);
        if slot.share_turn == turn {
            if slot.has_to_wait(bytes.is_some(), self.turn_bytes_max, self.turn_receives_max) {
                return Received::Later;
            }
            (used_bytes, used_receives) = (slot.share_bytes, slot.share_receives);
        }
        // An end uses nothing, and what the last receives brought tells what the next will.
        let Some(bytes) = bytes else { return Received::Now(Event::None) };
        if slot.share_turn != turn {
            // Nothing of the share is used: there is always room for the first.
            slot.share_turn = turn;
            slot.deferred = false;
        }
        slot.share_bytes = used_bytes + bytes;
        slot.share_receives = used_receives + 1;
        let event = slot.connection.on_received(bytes, more, now_ms);
        // Bytes for the handler change no wish, as long as the receive goes on.
        let settled = (more && event == Event::Data) || slot.connection.is_settled();
        if !slot.dirty && !settled {
            slot.dirty = true;
            self.dirty.push(key);
        }
        Received::Now(event)
    }
}

impl<S> Slot<S> {
    /// Whether another completion in this turn is put off to the next.
    #[cold]
    fn has_to_wait(&mut self, brings: bool, bytes_max: u32, receives_max: u16) -> bool {
        let used_up = self.share_bytes >= bytes_max || self.share_receives >= receives_max;
        let behind = self.deferred && (brings || !sings(Canary::EndOvertakesBytes));
        let waits = behind || (brings && used_up);
        self.deferred |= waits;
        waits
    }
}
