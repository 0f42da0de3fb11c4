//! The entries of the buffer ring where the kernel reads them.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::buffer_ring::Entries;
use super::mapping::Mapping;
use super::memory::Memory;

/// The one group of a ring.
pub(super) const GROUP: u16 = 0;

/// Memory shared with the kernel. Must be dropped after the ring it is registered with.
pub(super) struct SharedEntries {
    mapping: Mapping,
    count: u16,
}

impl SharedEntries {
    /// Room for `count` entries, at least one.
    pub(super) fn new(count: u16) -> io::Result<Self> {
        let mapping = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        Ok(Self { mapping, count })
    }

    fn first(&self) -> NonNull<BufRingEntry> {
        self.mapping.start().cast()
    }

    /// Tells the kernel where the entries are.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.first().as_ptr() as u64;
        // SAFETY: the mapping is page-aligned, holds `count` entries, and outlives the ring: `Ring` drops
        // the ring first.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
    }
}

impl Entries for SharedEntries {
    #[inline]
    fn write(&mut self, place: u16, number: u16, memory: &Memory) {
        assert!(place < self.count, "no such entry");
        // SAFETY: the place is below `count`, so this stays inside the mapping.
        let slot = unsafe { self.first().add(usize::from(place)) };
        // SAFETY: the kernel has consumed this entry; until the tail is stored only we look at it.
        let entry = unsafe { &mut *slot.as_ptr() };
        entry.set_addr(memory.buffer_start(number).as_ptr() as u64);
        entry.set_len(memory.buffer_bytes());
        entry.set_bid(number);
    }

    #[inline]
    fn publish(&mut self, tail: u16) {
        // SAFETY: the first entry of a mapping with at least one; the tail overlays its last field,
        // which is not touched by the setters above.
        let place = unsafe { BufRingEntry::tail(self.first().as_ptr()) };
        // SAFETY: aligned for u16 inside the mapping, and written only through this atomic.
        let place = unsafe { AtomicU16::from_ptr(place.cast_mut()) };
        place.store(tail, Ordering::Release);
    }
}
