//! A reference to bytes of the store, as user code holds it: to read, and while it is the only one, to write.
//!
//! Not where bytes are counted or freed: that is [`Memory`]. The claims that make the reading and writing sound
//! stand at the head of `memory`; here they are used.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::Memory;
use crate::span::{BufferId, Span};

/// Received bytes, where the kernel put them.
///
/// Read it as a slice, keep it, cut it down, or send it on: to the connection it came from or to another
/// of the same reactor, without a copy. Dropping it gives the buffer back. A lease that is kept keeps a
/// whole buffer of the reactor's ring, of which there are few: copy what is to be kept for long.
///
/// ```
/// # use slipring_core::sys::memory::Memory;
/// # let memory = Memory::new(1, 64, 1024);
/// # let span = memory.adopt(b"hello world".to_vec()).unwrap();
/// let mut lease = memory.lease(span);
/// let hello = lease.split_to(5);
/// lease.advance(1);
/// assert_eq!((&*hello, &*lease), (&b"hello"[..], &b"world"[..]));
/// ```
pub struct Lease {
    start: NonNull<u8>,
    /// `None` only while it is being taken apart.
    span: Option<Span>,
    memory: Rc<Memory>,
}

impl Lease {
    /// Of this span of this store, which starts there.
    #[inline]
    pub(super) fn new(start: NonNull<u8>, span: Span, memory: Rc<Memory>) -> Self {
        Self { start, span: Some(span), memory }
    }

    fn span_mut(&mut self) -> &mut Span {
        self.span.as_mut().expect("a lease has its span until it is taken apart")
    }

    /// Drops the first `bytes`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("no longer than a lease");
        self.span_mut().advance(bytes);
        // SAFETY: `advance` has checked that the bytes are within the span.
        self.start = unsafe { self.start.add(bytes as usize) };
    }

    /// Keeps the first `bytes` only; does nothing if there are fewer.
    pub fn truncate(&mut self, bytes: usize) {
        self.span_mut().truncate(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Cuts off the first `bytes` as a lease of their own, of the same buffer.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn split_to(&mut self, bytes: usize) -> Self {
        let mut front = self.clone();
        self.advance(bytes);
        front.truncate(bytes);
        front
    }

    /// The same bytes in plain memory, so that no buffer of the ring is kept: for what is not read soon.
    ///
    /// # Errors
    /// The lease as it was, when the reactor may not own so many more bytes
    /// ([`Limits::owned_bytes_max`](crate::Limits::owned_bytes_max)).
    pub fn spill(self) -> Result<Self, Self> {
        let memory = Rc::clone(&self.memory);
        let span = self.into_span();
        if !span.buffer().is_ring() {
            return Ok(memory.lease(span));
        }
        match memory.spill(span) {
            Ok(copy) => Ok(memory.lease(copy)),
            Err(span) => Err(memory.lease(span)),
        }
    }

    /// The bytes, to be changed where they are, as when they are decrypted: `None` while anybody else refers to
    /// the same buffer, be it a clone, a part that was split off, or an outbox; and for bytes that live for ever.
    ///
    /// ```
    /// # use slipring_core::sys::memory::Memory;
    /// # let memory = Memory::new(1, 64, 1024);
    /// let mut lease = memory.lease(memory.adopt(b"hello world".to_vec()).unwrap());
    /// lease.bytes_mut().unwrap()[..5].make_ascii_uppercase();
    /// let hello = lease.split_to(5);
    /// assert!(lease.bytes_mut().is_none()); // `hello` is of the same buffer
    /// assert_eq!(&*hello, b"HELLO");
    /// ```
    #[must_use]
    pub fn bytes_mut(&mut self) -> Option<LeaseMut<'_>> {
        let segment = self.span.as_ref()?.segment();
        // Kept, to be read through as well: a block was located by a look that allowed no writing.
        self.start = self.memory.begin_writing(segment)?;
        let length = segment.length as usize;
        // SAFETY: the bytes of a lease are inside the store. This lease has the only reference to their buffer,
        // and is borrowed for as long as the slice lives; the count, which says that it is written to, lets
        // nobody have a second one meanwhile, and the kernel has none (see the head of `memory`).
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), length) };
        Some(LeaseMut { bytes, memory: &self.memory, buffer: segment.buffer })
    }

    /// Bytes of one's own as a lease, of the store that this one is of: what was put together of received ones
    /// can go where they go. It takes plain memory, of which a reactor has so much and no more
    /// ([`Limits`](crate::Limits)).
    ///
    /// # Errors
    /// The bytes, if the store may not hold so many more.
    pub fn adopt_beside(&self, bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
        self.memory.adopt(bytes).map(|span| self.memory.lease(span))
    }

    /// The reference, as a plain value.
    #[inline]
    pub(crate) fn into_span(self) -> Span {
        // Field by field: the drop of a whole lease asks whether its span is still there, for every message.
        let mut lease = ManuallyDrop::new(self);
        let span = lease.span.take().expect("a lease has its span until it is taken apart");
        // SAFETY: `lease` is neither dropped nor looked at again.
        drop(unsafe { ptr::read(&lease.memory) });
        span
    }

    /// Whether the bytes belong to this store.
    #[inline]
    pub(crate) fn is_of(&self, memory: &Rc<Memory>) -> bool {
        Rc::ptr_eq(&self.memory, memory)
    }
}

impl Clone for Lease {
    /// A second reference to the same bytes.
    fn clone(&self) -> Self {
        let segment = self.span.as_ref().expect("a lease has its span").segment();
        let span = self.memory.retain(segment);
        Self { start: self.start, span: Some(span), memory: Rc::clone(&self.memory) }
    }
}

impl Deref for Lease {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        let length = self.span.as_ref().map_or(0, Span::length) as usize;
        // SAFETY: `locate` found these bytes inside the store and `advance`, `truncate` only narrow them;
        // the reference in `span` keeps the kernel from writing to them and the block from being freed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), length) }
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len())
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.memory.release(span);
        }
    }
}

/// The bytes of a lease while they are changed; see [`Lease::bytes_mut`].
///
/// One that is forgotten instead of dropped leaves its buffer marked as written to for good: it is lost to the
/// reactor, and whoever wants to share its lease panics.
pub struct LeaseMut<'a> {
    bytes: &'a mut [u8],
    memory: &'a Memory,
    buffer: BufferId,
}

impl Deref for LeaseMut<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for LeaseMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl fmt::Debug for LeaseMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseMut({} bytes)", self.len())
    }
}

impl Drop for LeaseMut<'_> {
    fn drop(&mut self) {
        self.memory.end_writing(self.buffer);
    }
}
