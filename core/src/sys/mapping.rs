//! Anonymous memory straight from the kernel: page-aligned, zero, and touched only as it is used.
//!
//! The allocator would do for the size, but not for the promise: asked for aligned zeroed memory it writes
//! the zeroes, and an idle reactor would hold every page of its buffers.

use std::io;
use std::ptr::NonNull;

/// A private mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    /// Maps `bytes`, which must not be zero.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
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
