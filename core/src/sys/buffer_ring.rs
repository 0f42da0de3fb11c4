//! The ring through which the kernel is given buffers to fill (provided buffers).
//!
//! The entries are shared memory: we write at the tail, the kernel reads at its own head. Which buffers are
//! ours and which the kernel's is the store's business ([`Memory`]); this file only publishes, and not more
//! than are needed: the kernel takes them in turn, so that a ring with all of them in it walks through all
//! of their memory, however little comes in at a time.
//!
//! Where the entries stand is the driver's business ([`Entries`]), so that a simulated kernel is given its
//! buffers by the same lines.

use std::rc::Rc;

use super::memory::Memory;
use crate::canary::{Canary, sings};

/// Buffers published at first. Whenever they do not suffice, twice as many.
const WINDOW: u32 = 32;

/// Where the kernel finds the buffers it may fill: as many places as there are buffers.
pub trait Entries {
    /// Writes the number of a buffer of `memory` to a place that the kernel has consumed.
    fn write(&mut self, place: u16, number: u16, memory: &Memory);

    /// Shows the kernel what was written: everything before `tail`, which counts writes and wraps.
    fn publish(&mut self, tail: u16);
}

/// The buffers given to the kernel, in the order it will fill them.
#[derive(Debug)]
pub struct BufferRing<E> {
    entries: E,
    count: u16,
    tail: u16,
    /// Buffers that may be published at a time.
    window: u32,
    memory: Rc<Memory>,
}

impl<E: Entries> BufferRing<E> {
    /// A ring with no buffer published.
    #[must_use]
    pub fn new(entries: E, memory: Rc<Memory>) -> Self {
        Self::starting_at(0, entries, memory)
    }

    /// The same after `tail` writes, for kernels whose counter starts elsewhere.
    #[must_use]
    pub fn starting_at(tail: u16, entries: E, memory: Rc<Memory>) -> Self {
        let count = memory.buffers() as u16;
        Self { entries, count, tail, window: WINDOW, memory }
    }

    /// The entries.
    pub fn entries(&mut self) -> &mut E {
        &mut self.entries
    }

    /// The kernel found none: from now on more are published, if there are more.
    pub fn widen(&mut self) {
        self.window = (self.window * 2).min(self.memory.buffers().max(WINDOW));
    }

    /// Publishes returned buffers, those that were used last first, as far as the window goes; returns how
    /// many.
    #[inline]
    pub fn publish_returned(&mut self) -> u32 {
        let mask = self.count - 1;
        let (memory, entries, tail) = (&self.memory, &mut self.entries, &mut self.tail);
        let published = memory.publish_up_to(self.window, |number| {
            // At most `count` buffers exist, so the kernel has consumed this entry.
            entries.write(*tail & mask, number, memory);
            *tail = match sings(Canary::CounterWithoutWrap) {
                true => tail.saturating_add(1),
                false => tail.wrapping_add(1),
            };
        });
        if published > 0 {
            self.entries.publish(self.tail);
        }
        published
    }
}
