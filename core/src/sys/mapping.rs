//! Anonymous memory straight from the kernel: page-aligned, zero, and touched only as it is used.
//!
//! The allocator would do for the size, but not for the promise: asked for aligned zeroed memory it writes
//! the zeroes, and an idle reactor would hold every page of its buffers.
//!
//! Large mappings ask for huge pages: the copies of bulk data walk through megabytes of buffers, and a relay
//! of 256 KiB messages spent a twentieth of its time on translations (docs/performance.md). The price is
//! that memory is touched 2 MiB at a time.
//!
//! Tools that check memory see nothing of a mapping: Miri has no madvise, and AddressSanitizer does not know
//! where one ends. Under Miri and with `--cfg slipring_heap` (scripts/sanitize) the same bytes are allocated.

use std::io;
use std::ptr::NonNull;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// A private mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Bytes of address space that a mapping of `bytes` takes: whole huge pages, if it is to have any. The
    /// kernel aligns no others to them.
    pub(super) fn footprint(bytes: usize) -> usize {
        if bytes < HUGE { bytes } else { bytes.next_multiple_of(HUGE) }
    }

    /// Maps `bytes`, which must not be zero.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        // What is allocated ends where it was asked to end: nobody may look behind it.
        let bytes = if cfg!(any(miri, slipring_heap)) { bytes } else { Self::footprint(bytes) };
        Ok(Self { start: source::take(bytes)?, bytes })
    }

    /// Its first byte; the others follow, as many as were asked for.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: taken in `new` with this length; whoever used it borrowed it from here.
        unsafe { source::give_back(self.start, self.bytes) };
    }
}

/// The kernel.
#[cfg(not(any(miri, slipring_heap)))]
mod source {
    use super::{HUGE, NonNull, io};

    pub(super) fn take(bytes: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: an anonymous private mapping at no fixed address touches nothing that exists; a size of
        // zero is refused by the kernel.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if bytes >= HUGE {
            // A wish: a kernel without huge pages maps small ones.
            // SAFETY: advice about the mapping just made changes nothing of what can be seen of it.
            unsafe { libc::madvise(address, bytes, libc::MADV_HUGEPAGE) };
        }
        NonNull::new(address.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// It was taken with this length, and nobody uses it any more.
    pub(super) unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        // SAFETY: by the caller's promise, the whole of a mapping of ours.
        unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
    }
}

/// The allocator, where it is watched.
#[cfg(any(miri, slipring_heap))]
mod source {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use super::{NonNull, io};

    fn layout(bytes: usize) -> io::Result<Layout> {
        const PAGE: usize = 4096;
        Layout::from_size_align(bytes, PAGE).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    pub(super) fn take(bytes: usize) -> io::Result<NonNull<u8>> {
        // As the kernel does.
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc_zeroed(layout(bytes)?) };
        NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// It was taken with this length, and nobody uses it any more.
    pub(super) unsafe fn give_back(start: NonNull<u8>, bytes: usize) {
        if let Ok(layout) = layout(bytes) {
            // SAFETY: by the caller's promise, allocated with this layout.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}
