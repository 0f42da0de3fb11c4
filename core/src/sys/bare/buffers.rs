//! The buffers of a bare ring: what is held is known by number, and goes back in any order.
//!
//! For any kernel: where the entries stand is the arm's business, as with
//! [`BufferRing`](super::super::BufferRing). Unlike that it publishes everything, and one by one.

use std::rc::Rc;

use super::super::buffer_ring::Entries;
use super::super::memory::Memory;
use crate::span::Span;

/// See the module's documentation.
#[derive(Debug)]
pub struct RawBuffers<E> {
    entries: E,
    memory: Rc<Memory>,
    tail: u16,
    /// By number: the reference to what was received.
    held: Vec<Option<Span>>,
}

impl<E: Entries> RawBuffers<E> {
    /// No buffer published yet; the kernel's counter is at `tail`.
    #[must_use]
    pub fn new(entries: E, memory: Rc<Memory>, tail: u16) -> Self {
        let held = (0..memory.buffers()).map(|_| None).collect();
        Self { entries, memory, tail, held }
    }

    /// Publishes every buffer that is not held.
    pub fn publish_all(&mut self) {
        while self.publish_one() {}
    }

    fn publish_one(&mut self) -> bool {
        let Some(number) = self.memory.take_returned() else { return false };
        let mask = self.memory.buffers() as u16 - 1;
        // At most as many buffers as places exist, so the kernel has consumed this one.
        self.entries.write(self.tail & mask, number, &self.memory);
        self.tail = self.tail.wrapping_add(1);
        self.entries.publish(self.tail);
        true
    }

    /// The kernel filled `length` bytes of the buffer: it is held from now on. A copy of them.
    pub fn take(&mut self, number: u16, length: u32) -> Vec<u8> {
        let span = self.memory.claim(number, length);
        let bytes = self.memory.lease(self.memory.retain(span.segment())).to_vec();
        self.held[usize::from(number)] = Some(span);
        bytes
    }

    /// Publishes a held buffer again.
    pub fn recycle(&mut self, number: u16) {
        if let Some(span) = self.held[usize::from(number)].take() {
            self.memory.release(span);
            // The last one returned is the first one taken.
            self.publish_one();
        }
    }
}
