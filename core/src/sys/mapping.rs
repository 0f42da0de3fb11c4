//! Anonymous memory straight from the kernel: page-aligned, zero, and touched only as it is used.
//!
//! The allocator would do for the size, but not for the promise: asked for aligned zeroed memory it writes
//! the zeroes, and an idle reactor would hold every page of its buffers.
//!
//! Large mappings ask for huge pages: the copies of bulk data walk through megabytes of buffers, and a relay
//! of 256 KiB messages spent a twentieth of its time on translations (docs/performance.md). The price is
//! that memory is touched 2 MiB at a time.

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
        let bytes = Self::footprint(bytes);
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
        let start = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }

    /// Its first byte; the others follow, as many as were asked for.
    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length; whoever used it borrowed it from here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
