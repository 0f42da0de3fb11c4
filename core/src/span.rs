//! A range of received or owned bytes, as a plain value.
//!
//! [`Span`] is what the machine and the outbox move about: buffer number, offset, length, no memory. It is
//! *linear*: whoever has it owns one reference to the buffer, so it can be neither cloned nor made up, and
//! it must end in `Memory::release` or in a `Lease`. [`Segment`] is a look at one: it owns nothing, and
//! tells the driver which bytes to send.

use std::fmt;
use std::num::NonZeroU32;

/// Which buffer: a place in the buffer ring, or a block of owned bytes.
///
/// Never zero, so that an optional span is no larger than a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BufferId(NonZeroU32);

/// Set in the ids of the ring's buffers. Those of owned blocks start at one.
const RING: NonZeroU32 = NonZeroU32::new(1 << 31).expect("not zero");

impl BufferId {
    /// A buffer of the ring.
    #[inline]
    pub fn ring(number: u16) -> Self {
        Self(RING | u32::from(number))
    }

    /// A block of owned bytes.
    ///
    /// # Panics
    /// From 2^31 - 1 blocks on.
    #[inline]
    pub fn owned(number: usize) -> Self {
        let id = u32::try_from(number + 1).ok().filter(|&id| id < RING.get());
        Self(id.and_then(NonZeroU32::new).expect("fewer than 2^31 - 1 blocks"))
    }

    /// Whether the kernel may fill it again once it is released.
    #[inline]
    pub fn is_ring(self) -> bool {
        self.0 >= RING
    }

    /// The number within its kind.
    #[inline]
    pub fn number(self) -> usize {
        let first = if self.is_ring() { RING.get() } else { 1 };
        (self.0.get() - first) as usize
    }
}

/// Some bytes of one buffer, without a claim on it.
///
/// In this order: what says whether there is a span comes last, so that an optional one and one that is there
/// are moved by the same two words. With others it goes by way of the stack, in every message.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// First byte, from the buffer's start.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
    /// The buffer.
    pub buffer: BufferId,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("buffer", &self.buffer)
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish()
    }
}

/// One reference to a buffer, and the bytes of it that are meant.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a span that is not released keeps its buffer for ever"]
pub struct Span {
    segment: Segment,
}

impl Span {
    /// Only the store of the memory mints spans, one for each reference it counts; and who took one apart.
    #[inline]
    pub(crate) fn mint(segment: Segment) -> Self {
        Self { segment }
    }

    /// Takes it apart. Who does so puts it together again: [`mint`](Self::mint).
    ///
    /// A span that is handed to a function is in memory from when it came, and one that is handed over in parts
    /// is not: those that every message passes on its way stay in registers, for all that might be called.
    #[inline]
    pub(crate) fn into_segment(self) -> Segment {
        self.segment
    }

    /// The bytes meant.
    #[inline]
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// The buffer referred to.
    #[inline]
    pub fn buffer(&self) -> BufferId {
        self.segment.buffer
    }

    /// Bytes left.
    #[inline]
    pub fn length(&self) -> u32 {
        self.segment.length
    }

    /// Drops the first `bytes`.
    ///
    /// # Panics
    /// If the span has fewer.
    #[inline]
    pub fn advance(&mut self, bytes: u32) {
        assert!(bytes <= self.segment.length, "advanced past the end of a span");
        self.segment.offset += bytes;
        self.segment.length -= bytes;
    }

    /// Keeps the first `bytes` only.
    #[inline]
    pub fn truncate(&mut self, bytes: u32) {
        self.segment.length = self.segment.length.min(bytes);
    }
}
