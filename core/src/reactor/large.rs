//! Who has much to move goes behind those who have little, and when both are there, so much a turn and no more.
//!
//! ```text
//!   dirty --- little ---> carried out at once: its send is the first of the enter
//!       \--- much -----> large --- as long as the turn's share of them lasts ---> carried out
//!                           ^                                              \
//!                           +--- the others, in their order, next turn <----+
//! ```
//!
//! A send runs inside the enter that submits it, and so does a receive that finds bytes: a connection that
//! streams costs some 10 us for each 64 KiB, every other connection waits for that, and for all of those that
//! stream one after the other. So while anybody has little to move, they take turns: one send or one receive of
//! half a connection's share, then comes the next enter, which brings what came for the others meanwhile. What
//! a message waits for does not depend on how many stream then.
//!
//! **Why not always?** Where all stream nobody gains by it, and it costs them a third (`docs/decisions/0003`): a
//! turn is then as long as all of them want.
//!
//! **Much** is a quarter of a connection's share of a turn. A receive counts as much if the one before it
//! brought so much: what it will bring nobody knows. Who has moved much lately and now moves little (the rest of
//! a message) is not taken for somebody who waits.
//!
//! Where receives have no cap (before Linux 6.17) one that is armed brings what there is; the rest holds there too.

use std::collections::VecDeque;

use super::Reactor;
use super::apply::has_room;
use crate::canary::{Canary, sings};
use crate::connections::Slot;
use crate::driver::{Driver, Share};
use crate::handler::Handler;
use crate::token::Key;

/// The part of a connection's share of a turn that counts as much.
const MUCH_PART: u32 = 4;
/// The part of it that all with much to move have together while others wait; and of which a receive is then.
const TIGHT_PART: u32 = 2;
/// How long nobody may have had little to move until turns are as long as they come, milliseconds.
const TIGHT_MS: u64 = 100;
/// So many small wishes in a row make somebody small who had much to move.
const MUCH_MEMORY: u8 = 64;

/// Whose time of a turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    /// Of everybody who is dirty.
    OfAll,
    /// Of those with much to move, behind the others.
    OfLarge,
}

/// The connections with much to move.
#[derive(Debug)]
pub(super) struct Large {
    /// Those that want to, whoever came first first. Each is dirty, and stands on no other list; but for those
    /// that have ended since.
    pub(super) keys: VecDeque<Key>,
    /// From so many bytes on it is much.
    much_bytes: u32,
    /// What they may move together in a turn while others wait.
    tight_bytes: u32,
    /// What they have moved in this turn.
    pub(super) moved_bytes: u64,
    /// When somebody with little to move was last seen beside them.
    small_at_ms: Option<u64>,
}

impl Large {
    pub(super) fn new(turn_bytes_max: u32) -> Self {
        Self {
            keys: VecDeque::new(),
            much_bytes: (turn_bytes_max / MUCH_PART).max(1),
            tight_bytes: (turn_bytes_max / TIGHT_PART).max(1),
            moved_bytes: 0,
            small_at_ms: None,
        }
    }

    #[inline]
    pub(super) fn is_much(&self, bytes: u32) -> bool {
        bytes >= self.much_bytes
    }

    /// Whether others were there with little to move, in this turn or a moment ago.
    pub(super) fn is_tight(&self, now_ms: u64) -> bool {
        self.small_at_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < TIGHT_MS)
    }

    /// What a receive may bring that is armed now.
    pub(super) fn cap(&self, receive_cap: u32, time: Time, now_ms: u64) -> u32 {
        let is_tight = time == Time::OfLarge && self.is_tight(now_ms);
        if is_tight { receive_cap.min(self.tight_bytes) } else { receive_cap }
    }
}

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Carries out what those want who have much to move; the others are the first `asked` of the dirty.
    #[inline(never)]
    pub(super) fn apply_large(&mut self, asked: usize) {
        self.look_for_small(asked);
        let share_bytes = match self.large.is_tight(self.connections.now_ms()) {
            true => u64::from(self.large.tight_bytes),
            false => u64::MAX,
        };
        self.large.moved_bytes = 0;
        while self.large.moved_bytes < share_bytes {
            let Some(key) = self.large.keys.pop_front() else { break };
            // Who has ended since was not here.
            let waits = |slot: &&mut Slot<H::State>| slot.is_large;
            let Some(slot) = self.connections.slots.get_mut(key).filter(waits) else { continue };
            if !has_room(&mut self.driver, Share::Data) {
                self.large.keys.push_front(key);
                break;
            }
            (slot.dirty, slot.is_large, slot.much) = (false, false, MUCH_MEMORY);
            self.apply_all_of(key, Share::Data, Time::OfLarge);
        }
        if sings(Canary::LargeForgotten) {
            self.large.keys.pop_back();
        }
        self.connections.counters.large_put_off += self.large.keys.len() as u64;
    }

    /// One that is dirty has much to move: it is carried out in its time, behind those that wait already.
    #[cold]
    pub(super) fn put_to_large(&mut self, key: Key) {
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        (slot.dirty, slot.is_large) = (true, true);
        match self.parked.is_favoured(key) {
            true => self.large.keys.push_front(key),
            false => self.large.keys.push_back(key),
        }
    }

    /// Looks whether somebody with little to move sends it in this turn.
    fn look_for_small(&mut self, asked: usize) {
        let now_ms = self.connections.now_ms();
        for at in 0..asked {
            let key = self.connections.dirty[at];
            let Some(slot) = self.connections.slots.get_mut(key) else { continue };
            if slot.dirty {
                continue;
            }
            // Who only reads on, or ends, has nobody wait.
            if !slot.connection.is_sending() {
                continue;
            }
            if slot.much == 0 {
                self.large.small_at_ms = Some(now_ms);
                return;
            }
            slot.much -= 1;
        }
    }
}
