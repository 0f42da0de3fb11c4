//! Receives that wait for a buffer: who comes next when one is back, and who leaves the last ones to others.
//!
//! ```text
//!   no buffer, brings little --------> the line of little --- a buffer each ------> armed
//!   no buffer, or few, brings much --> the line of much ---- what they leave ----> armed
//! ```
//!
//! Buffers are what all connections of a reactor share, and who streams takes as many as there are: what it has
//! sent waits for its turn ([`large`](super::large)), and keeps them meanwhile. A message of somebody else would
//! wait for all of that. So those that wait for a buffer stand in two lines, each in the order of parking. Those with
//! little to move come first, and while some of them are there, or were a moment ago, the others leave an eighth of all
//! buffers alone. Each eighth time that there are buffers the first of the others has one before anybody else, so that
//! neither line stands still.

use std::collections::VecDeque;

use super::Reactor;
use crate::canary::{Canary, sings};
use crate::connection::Input;
use crate::connections::forget_the_dead;
use crate::driver::Driver;
use crate::handler::Handler;
use crate::token::Key;

/// Below this part of all buffers there are few: stalled readers give theirs up then.
const FEW_PART: u32 = 8;
/// Each time of so many that there are buffers, one with much to move comes first.
const FAVOUR_EACH: u32 = 8;

/// The connections whose receives wait for a buffer.
#[derive(Debug, Default)]
pub(super) struct Parked {
    little: VecDeque<Key>,
    much: VecDeque<Key>,
    /// Times that there were buffers for those that waited.
    times: u32,
    /// It has much to move, and its receive is armed in this turn all the same.
    favoured: Option<Key>,
}

impl Parked {
    pub(super) fn is_empty(&self) -> bool {
        self.little.is_empty() && self.much.is_empty()
    }

    /// Whether this one, with much to move, goes before the others of its kind in this turn.
    pub(super) fn is_favoured(&self, key: Key) -> bool {
        self.favoured == Some(key)
    }

    /// Those that wait, and some that have ended since.
    pub(super) fn iter(&self) -> impl Iterator<Item = Key> {
        self.little.iter().chain(&self.much).copied()
    }
}

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Gives buffers back, and lets parked receives have a go at them.
    pub(super) fn tend_buffers(&mut self) {
        let few = self.few_buffers();
        if self.connections.memory.buffers_free() < few && !self.connections.stalled.is_empty() {
            self.connections.spill(few);
        }
        self.driver.recycle();
        self.parked.favoured = None;
        if self.can_unpark() {
            self.unpark();
        }
    }

    /// Whether a receive is parked that would find a buffer.
    pub(super) fn can_unpark(&self) -> bool {
        !self.parked.is_empty() && self.connections.memory.buffers_published() > 0
    }

    /// Whether the receive of this one, which will bring much, has to leave the last buffers to others.
    pub(super) fn leaves_buffers(&self, key: Key) -> bool {
        self.large.is_tight(self.connections.now_ms())
            && self.connections.memory.buffers_free() <= self.few_buffers()
            && !self.large.keys.is_empty()
            && !self.parked.is_favoured(key)
    }

    /// A receive found no buffer, or should not take one now.
    #[cold]
    pub(super) fn park(&mut self, key: Key) {
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        slot.connection.park();
        let is_much = self.large.is_much(slot.share_bytes);
        let line = if is_much { &mut self.parked.much } else { &mut self.parked.little };
        forget_the_dead(line, &self.connections.slots);
        line.push_back(key);
        self.connections.counters.receives_parked += 1;
    }

    /// One attempt for each buffer there is.
    #[cold]
    fn unpark(&mut self) {
        let mut buffers = self.connections.memory.buffers_published();
        self.parked.times = self.parked.times.wrapping_add(1);
        if self.parked.times.is_multiple_of(FAVOUR_EACH) {
            self.parked.favoured = self.parked.much.front().copied();
            buffers -= self.unpark_much(1);
        }
        let left = buffers - self.unpark_some(|parked| &mut parked.little, buffers);
        // Where none of them has anything to send, nothing would come back if they waited.
        let least = u32::from(self.large.keys.is_empty());
        let free = self.connections.memory.buffers_free() + left - buffers;
        let spare = match self.large.is_tight(self.connections.now_ms()) {
            true => free.saturating_sub(self.few_buffers()).max(least),
            false => left,
        };
        self.unpark_much(spare.min(left));
    }

    /// Unparks so many of those with much to move; how many there were.
    fn unpark_much(&mut self, most: u32) -> u32 {
        if sings(Canary::LargeParkedForgotten) {
            return 0;
        }
        self.unpark_some(|parked| &mut parked.much, most)
    }

    /// Unparks so many of a line; how many there were.
    fn unpark_some(&mut self, line: impl Fn(&mut Parked) -> &mut VecDeque<Key>, most: u32) -> u32 {
        let count = most.min(line(&mut self.parked).len() as u32);
        for _ in 0..count {
            if let Some(key) = line(&mut self.parked).pop_front()
                && !sings(Canary::ParkedForgotten)
            {
                self.connections.handle(key, Input::Unparked);
            }
        }
        count
    }

    fn few_buffers(&self) -> u32 {
        (self.connections.memory.buffers() / FEW_PART).max(1)
    }
}
