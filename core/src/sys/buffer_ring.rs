//! The ring through which the kernel is given buffers to fill (provided buffers).
//!
//! The entries are shared memory: we write at the tail, the kernel reads at its own head. Which buffers are
//! ours and which the kernel's is the store's business ([`Memory`]); this file only publishes, and not more
//! than are needed: the kernel takes them in turn, so that a ring with all of them in it walks through all
//! of their memory, however little comes in at a time.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::mapping::Mapping;
use super::memory::Memory;

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers published at first. Whenever they do not suffice, twice as many.
const WINDOW: u32 = 32;

/// The shared entries. Must be dropped after the ring it is registered with.
pub(super) struct BufferRing {
    entries: Mapping,
    count: u16,
    tail: u16,
    /// Buffers that may be published at a time.
    window: u32,
    memory: Rc<Memory>,
}

impl BufferRing {
    /// Maps the entries for all buffers of the store; nothing is published yet.
    pub(super) fn new(memory: Rc<Memory>) -> io::Result<Self> {
        let count = memory.buffers() as u16;
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Self { entries, count, tail: 0, window: WINDOW, memory })
    }

    fn first_entry(&self) -> NonNull<BufRingEntry> {
        self.entries.start().cast()
    }

    /// Tells the kernel where the entries are.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.first_entry().as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and outlives the ring: `Ring` drops
        // the ring first.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
    }

    /// The kernel found none: from now on more are published, if there are more.
    pub(super) fn widen(&mut self) {
        self.window = (self.window * 2).min(self.memory.buffers().max(WINDOW));
    }

    /// Publishes returned buffers, those that were used last first, as far as the window goes; returns how
    /// many.
    #[inline]
    pub(super) fn publish_returned(&mut self) -> u32 {
        let (first, mask) = (self.first_entry(), self.count - 1);
        let (memory, tail) = (&self.memory, &mut self.tail);
        let published = memory.publish_up_to(self.window, |number| {
            // SAFETY: the masked tail is below `count`, so this stays inside the mapping.
            let slot = unsafe { first.add(usize::from(*tail & mask)) };
            // SAFETY: at most `count` buffers exist, so the kernel has consumed this entry; until the tail
            // is stored only we look at it.
            let entry = unsafe { &mut *slot.as_ptr() };
            entry.set_addr(memory.buffer_start(number).as_ptr() as u64);
            entry.set_len(memory.buffer_bytes());
            entry.set_bid(number);
            *tail = tail.wrapping_add(1);
        });
        if published > 0 {
            // SAFETY: the first entry of a mapping with at least one; the tail overlays its last field,
            // which is not touched by the setters above.
            let tail = unsafe { BufRingEntry::tail(self.first_entry().as_ptr()) };
            // SAFETY: aligned for u16 inside the mapping, and written only through this atomic.
            let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
        published
    }
}
