//! The store of all bytes a reactor holds: the buffers it shares with the kernel, and owned blocks.
//!
//! It decides who may look at which bytes, and nothing else; where they go is the outbox's business.
//!
//! ```text
//!            claim (driver, on a completion)          release x references
//!  published ------------------------------> held ------------------------> returned
//!      ^      the kernel may write             | lease: read, keep, send        |
//!      +---------------------------------------------------------------------- +
//!                       take_returned (driver, when it recycles)
//! ```
//!
//! *Soundness.* Bytes are read through a [`Lease`] only. A lease is one counted reference, a [`Span`] is one
//! counted reference, and only this file makes either (beyond it a span is at most taken apart and put together
//! again, by `Span::into_segment` and `Span::mint`); a buffer with references is not published, so the
//! kernel does not write to what a lease shows. Owned blocks are freed when their last reference goes, but
//! not before the next `settle`: a send that was pushed in between still reads them.
//!
//! Bytes are written through a [`LeaseMut`] only, which is to be had while a lease is the only reference to its
//! buffer. So no other lease shows them, and no send reads them: an outbox keeps its references until the result,
//! and a driver that sends without a copy keeps its own until the notification. As long as somebody writes, the
//! count says so, and no second reference can be had.
//!
//! Buffers stand `COLOUR` bytes further apart than they are long, so that the first lines of all of them do
//! not compete for the same few sets of the cache.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use super::mapping::Mapping;
use crate::canary::{Canary, sings};
use crate::span::{BufferId, Segment, Span};

mod lease;

pub use lease::{Lease, LeaseMut};

/// Bytes between the end of a buffer and the start of the next: one cache line.
const COLOUR: usize = 64;
/// In the count of a buffer: it is published, the kernel may write to it.
const PUBLISHED: u32 = u32::MAX;
/// In the count of a buffer or block: its one lease is being written to.
const WRITTEN: u32 = PUBLISHED - 1;

/// Whether so many references are some, and nobody writes to what they refer to.
#[inline]
fn are_readers(references: u32) -> bool {
    references.wrapping_sub(1) < WRITTEN - 1
}

/// The bytes of a block, in the form they came.
#[derive(Debug)]
enum Bytes {
    Heap(Box<[u8]>),
    /// A copy of what was in a ring buffer.
    Spilled(Box<[u8]>),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) | Self::Spilled(bytes) => bytes,
            Self::Static(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    references: u32,
}

/// The store of one reactor. Shared by its driver and its leases; never leaves its thread.
pub struct Memory {
    ring: Mapping,
    stride: usize,
    buffer_bytes: u32,
    /// References to each buffer, or `PUBLISHED`.
    counts: Box<[Cell<u32>]>,
    /// Returned buffers: a stack, of which so many places are in use.
    returned: Box<[Cell<u16>]>,
    returned_count: Cell<u32>,
    /// Buffers the kernel has.
    published: Cell<u32>,
    blocks: RefCell<slab::Slab<Block>>,
    /// Blocks without references that a pushed send may still read.
    retired: RefCell<Vec<Bytes>>,
    owned_bytes: Cell<u64>,
    /// Of those the ones that were spilled.
    spilled_bytes: Cell<u64>,
    owned_bytes_max: u64,
}

/// From the start of a buffer to the start of the next.
fn stride(buffer_bytes: u32) -> usize {
    (buffer_bytes as usize).next_multiple_of(COLOUR) + COLOUR
}

/// Bytes that the ring buffers of a store take at most, once all have been used.
pub(crate) fn ring_bytes(buffers: u32, buffer_bytes: u32) -> u64 {
    Mapping::footprint(stride(buffer_bytes) * buffers as usize) as u64
}

impl Memory {
    /// A store of `buffers` ring buffers of `buffer_bytes` each, all of them returned (not yet published),
    /// that takes at most `owned_bytes_max` bytes of owned blocks. The pages are touched when used.
    ///
    /// # Errors
    /// When the kernel has no address space for the sum of the buffers.
    ///
    /// # Panics
    /// If there are none, or more than 32768.
    pub fn try_new(buffers: u32, buffer_bytes: u32, owned_bytes_max: u64) -> io::Result<Rc<Self>> {
        assert!((1..=1 << 15).contains(&buffers), "1 to 32768 buffers");
        let stride = stride(buffer_bytes);
        let ring = Mapping::new(stride * buffers as usize)?;
        Ok(Rc::new(Self {
            ring,
            stride,
            buffer_bytes,
            counts: (0..buffers).map(|_| Cell::new(0)).collect(),
            // Lowest number last: the first published is the first used.
            returned: (0..buffers as u16).rev().map(Cell::new).collect(),
            returned_count: Cell::new(buffers),
            published: Cell::new(0),
            blocks: RefCell::new(slab::Slab::new()),
            retired: RefCell::new(Vec::new()),
            owned_bytes: Cell::new(0),
            spilled_bytes: Cell::new(0),
            owned_bytes_max,
        }))
    }

    /// The same, for tests and small stores.
    ///
    /// # Panics
    /// If it cannot be had.
    #[must_use]
    pub fn new(buffers: u32, buffer_bytes: u32, owned_bytes_max: u64) -> Rc<Self> {
        Self::try_new(buffers, buffer_bytes, owned_bytes_max)
            .expect("address space for the buffers")
    }

    /// Ring buffers in all.
    #[must_use]
    pub fn buffers(&self) -> u32 {
        self.counts.len() as u32
    }

    /// Bytes of each.
    #[must_use]
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Buffers nobody refers to: with the kernel, or on their way to it.
    #[must_use]
    pub fn buffers_free(&self) -> u32 {
        self.published.get() + self.returned_count.get()
    }

    /// Buffers the kernel can fill now.
    #[must_use]
    pub fn buffers_published(&self) -> u32 {
        self.published.get()
    }

    /// Bytes in owned blocks.
    #[must_use]
    pub fn owned_bytes(&self) -> u64 {
        self.owned_bytes.get()
    }

    /// Bytes that owned blocks may have at most.
    #[must_use]
    pub fn owned_bytes_max(&self) -> u64 {
        self.owned_bytes_max
    }

    /// Of the owned bytes those that were spilled: they are what readers that stall have not taken.
    #[must_use]
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes.get()
    }

    /// Takes over bytes, as a span of all of them; gives them back if the store may not hold so many more.
    ///
    /// # Errors
    /// The bytes, when the bound on owned bytes would be passed.
    pub fn adopt(&self, bytes: Vec<u8>) -> Result<Span, Vec<u8>> {
        self.own(bytes, Bytes::Heap)
    }

    fn own(&self, bytes: Vec<u8>, kind: fn(Box<[u8]>) -> Bytes) -> Result<Span, Vec<u8>> {
        if !self.may_own(bytes.len() as u64) || bytes.len() > u32::MAX as usize {
            return Err(bytes);
        }
        self.owned_bytes.set(self.owned_bytes.get() + bytes.len() as u64);
        Ok(self.block(kind(bytes.into_boxed_slice())))
    }

    /// Whether the store may own so many bytes more.
    fn may_own(&self, bytes: u64) -> bool {
        self.owned_bytes.get() + bytes <= self.owned_bytes_max
    }

    /// A span of bytes that live for ever; they count towards no bound.
    ///
    /// # Panics
    /// If there are 4 GiB of them or more.
    pub fn borrow_static(&self, bytes: &'static [u8]) -> Span {
        assert!(u32::try_from(bytes.len()).is_ok(), "4 GiB or more in one piece");
        self.block(Bytes::Static(bytes))
    }

    fn block(&self, bytes: Bytes) -> Span {
        let length = bytes.len() as u32;
        let number = self.blocks.borrow_mut().insert(Block { bytes, references: 1 });
        Span::mint(Segment { buffer: BufferId::owned(number), offset: 0, length })
    }

    /// Makes the reference readable.
    ///
    /// # Panics
    /// If the span lies outside its buffer: it is of another store.
    #[inline]
    pub fn lease(self: &Rc<Self>, span: Span) -> Lease {
        Lease::new(self.locate(span.segment()), span, Rc::clone(self))
    }

    /// Ends one reference.
    ///
    /// # Panics
    /// If its buffer has none: the span is of another store.
    #[inline]
    pub fn release(&self, span: Span) {
        self.release_buffer(span.buffer());
    }

    #[inline]
    fn release_buffer(&self, buffer: BufferId) {
        if !buffer.is_ring() {
            return self.release_block(buffer.number());
        }
        let count = &self.counts[buffer.number()];
        let references = count.get();
        assert!(are_readers(references), "released a buffer nobody held");
        count.set(references - 1);
        if references == 1 {
            let place = self.returned_count.get();
            self.returned[place as usize].set(buffer.number() as u16);
            self.returned_count.set(place + 1);
            if sings(Canary::ReturnedTwice) && (place as usize + 1) < self.returned.len() {
                self.returned[place as usize + 1].set(buffer.number() as u16);
                self.returned_count.set(place + 2);
            }
        }
    }

    fn release_block(&self, number: usize) {
        let mut blocks = self.blocks.borrow_mut();
        let block = &mut blocks[number];
        block.references -= 1;
        if block.references == 0 {
            let bytes = blocks.remove(number).bytes;
            if let Bytes::Heap(heap) | Bytes::Spilled(heap) = &bytes {
                self.owned_bytes.set(self.owned_bytes.get() - heap.len() as u64);
            }
            if let Bytes::Spilled(copy) = &bytes {
                self.spilled_bytes.set(self.spilled_bytes.get() - copy.len() as u64);
            }
            self.retired.borrow_mut().push(bytes);
        }
    }

    /// One more reference to the buffer of a segment. For drivers, which keep one while the kernel reads.
    ///
    /// # Panics
    /// If nobody holds the buffer, or somebody writes to it.
    pub fn retain(&self, segment: Segment) -> Span {
        let buffer = segment.buffer;
        if buffer.is_ring() {
            let count = &self.counts[buffer.number()];
            let references = count.get();
            assert!(are_readers(references), "retained a buffer nobody holds, or is written to");
            count.set(references + 1);
        } else {
            let references = &mut self.blocks.borrow_mut()[buffer.number()].references;
            assert!(are_readers(*references), "retained a block that is written to");
            *references += 1;
        }
        Span::mint(segment)
    }

    /// A copy of a ring buffer's span in an owned block, after which the span is released; the span itself
    /// if it is no ring buffer's or the store may not own so many more bytes.
    ///
    /// # Errors
    /// The span, unchanged.
    pub fn spill(self: &Rc<Self>, span: Span) -> Result<Span, Span> {
        // Asked before anything is copied: who is refused asks again, with whatever there is of it.
        if !span.buffer().is_ring() || !self.may_own(u64::from(span.length())) {
            return Err(span);
        }
        let lease = self.lease(span);
        match self.own(lease.to_vec(), Bytes::Spilled) {
            Ok(copy) => {
                self.spilled_bytes.set(self.spilled_bytes.get() + u64::from(copy.length()));
                if sings(Canary::SpilledKept) {
                    std::mem::forget(lease);
                }
                Ok(copy)
            }
            Err(_) => Err(lease.into_span()),
        }
    }

    /// The first byte of a segment. Valid as long as somebody holds a reference to its buffer.
    #[inline]
    pub(crate) fn locate(&self, segment: Segment) -> NonNull<u8> {
        let Segment { buffer, offset, length } = segment;
        let end = u64::from(offset) + u64::from(length);
        if buffer.is_ring() {
            let references = self.counts[buffer.number()].get();
            assert!(are_readers(references), "looked at a buffer nobody holds, or is written to");
            assert!(end <= u64::from(self.buffer_bytes), "looked past the end of a buffer");
            // SAFETY: the number is below the count of buffers (indexing just checked it) and the offset
            // within a buffer, so the sum stays inside the allocation.
            unsafe { self.ring.start().add(buffer.number() * self.stride + offset as usize) }
        } else {
            let blocks = self.blocks.borrow();
            let bytes = &blocks[buffer.number()].bytes;
            assert!(end <= bytes.len() as u64, "looked past the end of a block");
            NonNull::from(&bytes[offset as usize..]).cast()
        }
    }

    /// Marks the buffer of a segment as written to and says where the segment starts; `None` if somebody else
    /// refers to it, or nobody may write to it.
    fn begin_writing(&self, segment: Segment) -> Option<NonNull<u8>> {
        let Segment { buffer, offset, .. } = segment;
        if buffer.is_ring() {
            if self.counts[buffer.number()].get() != 1 {
                return None;
            }
            let start = self.locate(segment);
            self.counts[buffer.number()].set(WRITTEN);
            return Some(start);
        }
        let mut blocks = self.blocks.borrow_mut();
        let block = &mut blocks[buffer.number()];
        let (1, Bytes::Heap(bytes) | Bytes::Spilled(bytes)) = (block.references, &mut block.bytes)
        else {
            return None;
        };
        block.references = WRITTEN;
        Some(NonNull::from(&mut bytes[offset as usize..]).cast())
    }

    /// The one reference is a reader's again.
    fn end_writing(&self, buffer: BufferId) {
        if buffer.is_ring() {
            self.counts[buffer.number()].set(1);
        } else {
            self.blocks.borrow_mut()[buffer.number()].references = 1;
        }
    }

    /// Where buffer `number` starts. For the driver that publishes it.
    pub(crate) fn buffer_start(&self, number: u16) -> NonNull<u8> {
        assert!(usize::from(number) < self.counts.len(), "no such buffer");
        // SAFETY: the number is below the count of buffers, so the sum stays inside the allocation.
        unsafe { self.ring.start().add(usize::from(number) * self.stride) }
    }

    /// The next returned buffer, which is published thereby: the kernel may fill it from now on.
    #[inline]
    pub fn take_returned(&self) -> Option<u16> {
        let place = self.returned_count.get().checked_sub(1)?;
        self.returned_count.set(place);
        let number = self.returned[place as usize].get();
        self.counts[usize::from(number)].set(PUBLISHED);
        self.published.set(self.published.get() + 1);
        Some(number)
    }

    /// Publishes returned buffers, the last returned first, each by `publish`, until `window` are published;
    /// returns how many.
    #[inline]
    pub fn publish_up_to(&self, window: u32, mut publish: impl FnMut(u16)) -> u32 {
        let returned = self.returned_count.get();
        let count = returned.min(window.saturating_sub(self.published.get()));
        self.returned_count.set(returned - count);
        self.published.set(self.published.get() + count);
        let last = &self.returned[(returned - count) as usize..returned as usize];
        for number in last.iter().rev() {
            self.counts[usize::from(number.get())].set(PUBLISHED);
            publish(number.get());
        }
        count
    }

    /// The kernel filled the first `length` bytes of a published buffer: it is held from now on.
    ///
    /// # Panics
    /// If the buffer was not published, or is shorter.
    #[inline]
    pub fn claim(&self, number: u16, length: u32) -> Span {
        let count = &self.counts[usize::from(number)];
        assert!(count.get() == PUBLISHED, "the kernel filled a buffer it did not have");
        assert!(length <= self.buffer_bytes, "the kernel filled more than a buffer");
        count.set(1);
        self.published.set(self.published.get() - 1);
        Span::mint(Segment { buffer: BufferId::ring(number), offset: 0, length })
    }

    /// Writes to a published buffer as a kernel would. For drivers that are not one.
    ///
    /// # Panics
    /// If the buffer is not published, or is shorter.
    pub fn fill(&self, number: u16, offset: u32, bytes: &[u8]) {
        assert!(self.counts[usize::from(number)].get() == PUBLISHED, "not the kernel's buffer");
        assert!(
            offset as usize + bytes.len() <= self.buffer_bytes as usize,
            "wrote past the end of a buffer"
        );
        let start = self.buffer_start(number);
        // SAFETY: within the buffer, as the assertion above says.
        let target = unsafe { start.add(offset as usize) };
        // SAFETY: nobody has a reference to the buffer, so no lease shows these bytes, and `bytes` lies
        // elsewhere, since a borrowed slice is never part of a published buffer.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Frees retired blocks. For the driver: after the kernel took every pushed send.
    #[inline]
    pub fn settle(&self) {
        let mut retired = self.retired.borrow_mut();
        if !retired.is_empty() {
            retired.clear();
            retired.shrink_to(64);
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("buffers", &self.buffers())
            .field("buffer_bytes", &self.buffer_bytes)
            .field("published", &self.published.get())
            .field("owned_bytes", &self.owned_bytes.get())
            .finish_non_exhaustive()
    }
}
