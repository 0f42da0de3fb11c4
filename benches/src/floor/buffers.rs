//! The floors' receive buffers: a provided-buffer ring, and queues of what was received in them.
//!
//! The memory is mapped once and never unmapped: a floor lives as long as its process, so no
//! operation can outlive the bytes it was given. Every `SAFETY` line leans on that one fact.
//!
//! ```text
//!   kernel ──take──> lease {start, end} ──Queue::push──> outbox ──advance──> give back ──> kernel
//! ```
//! A queue is a list threaded through the lease table: no allocation, whatever the load.

#![expect(unsafe_code, reason = "maps memory and shares it with the kernel")]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Buffers of a floor. A power of two, as the kernel wants it.
pub(super) const BUFFERS: u16 = 1024;

/// The one buffer group of a floor's ring.
pub(super) const GROUP: u16 = 0;

/// The end of a list.
const NONE: u16 = u16::MAX;

/// The buffers and what each holds while it is ours.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    buffer_bytes: u32,
    tail: u16,
    /// Buffers the kernel may fill, as far as completions have told us.
    free: u16,
    leases: Vec<Lease>,
}

/// The bytes `start..end` of a buffer, still to be sent.
#[derive(Clone, Copy)]
struct Lease {
    start: u32,
    end: u32,
    next: u16,
}

impl Buffers {
    /// Maps the buffers and registers all of them.
    pub(super) fn register(submitter: &Submitter<'_>, buffer_bytes: u32) -> io::Result<Self> {
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let bytes = map(usize::from(BUFFERS) * buffer_bytes as usize)?;
        // SAFETY: `entries` is page aligned, holds `BUFFERS` entries and stays mapped for good.
        unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, BUFFERS, GROUP, 0)
        }?;
        let leases = vec![Lease { start: 0, end: 0, next: NONE }; usize::from(BUFFERS)];
        let mut buffers = Self { entries, bytes, buffer_bytes, tail: 0, free: 0, leases };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// How many buffers the kernel may still fill.
    pub(super) fn free(&self) -> u16 {
        self.free
    }

    /// Records that the kernel filled `id` with `len` bytes.
    pub(super) fn take(&mut self, id: u16, len: u32) {
        assert!(len <= self.buffer_bytes, "the kernel filled more than a buffer");
        self.free -= 1;
        self.leases[usize::from(id)] = Lease { start: 0, end: len, next: NONE };
    }

    /// Puts `id` back in the ring; the kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, id: u16) {
        let address = self.bytes.as_ptr() as u64 + u64::from(id) * u64::from(self.buffer_bytes);
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `place` is masked to the `BUFFERS` entries of the mapping.
        let entry = unsafe { self.entries.add(place) }.as_ptr();
        // SAFETY: entries at and after the tail are ours until it moves past them.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    /// Shows the kernel everything given back so far.
    pub(super) fn publish(&self) {
        // SAFETY: the ring has entries, and the tail is a field of the first.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: an aligned u16 that stays mapped; only we store to it, the kernel loads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Where the unsent bytes of `id` begin, and how many there are.
    pub(super) fn unsent(&self, id: u16) -> (*const u8, u32) {
        let lease = self.leases[usize::from(id)];
        let offset = usize::from(id) * self.buffer_bytes as usize + lease.start as usize;
        (self.bytes.as_ptr().wrapping_add(offset).cast_const(), lease.end - lease.start)
    }
}

/// Leases waiting to be sent on one connection, oldest first.
pub(super) struct Queue {
    head: u16,
    tail: u16,
    len: u16,
}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> u16 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffer to send first.
    pub(super) fn front(&self) -> Option<u16> {
        (self.head != NONE).then_some(self.head)
    }

    pub(super) fn push(&mut self, buffers: &mut Buffers, id: u16) {
        if self.head == NONE {
            self.head = id;
        } else {
            buffers.leases[usize::from(self.tail)].next = id;
        }
        self.tail = id;
        self.len += 1;
    }

    /// The buffers in the order they are to be sent.
    pub(super) fn iter<'a>(&self, buffers: &'a Buffers) -> impl Iterator<Item = u16> + use<'a> {
        let mut next = self.head;
        std::iter::from_fn(move || {
            let id = (next != NONE).then_some(next)?;
            next = buffers.leases[usize::from(id)].next;
            Some(id)
        })
    }

    /// `sent` bytes went out: buffers sent in full go back, the first of the rest is shortened.
    pub(super) fn advance(&mut self, buffers: &mut Buffers, mut sent: u32) {
        while let Some(id) = self.front() {
            let lease = &mut buffers.leases[usize::from(id)];
            let step = sent.min(lease.end - lease.start);
            lease.start += step;
            sent -= step;
            if lease.start < lease.end {
                break;
            }
            self.pop(buffers);
        }
        assert_eq!(sent, 0, "the kernel sent more than it was given");
    }

    /// Gives everything back unsent: the peer is gone.
    pub(super) fn clear(&mut self, buffers: &mut Buffers) {
        while !self.is_empty() {
            self.pop(buffers);
        }
    }

    fn pop(&mut self, buffers: &mut Buffers) {
        let id = self.head;
        self.head = buffers.leases[usize::from(id)].next;
        self.len -= 1;
        buffers.give_back(id);
    }
}

/// Zeroed memory for the life of the process, touched only as it is used.
fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping, which overlaps nothing.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}
