//! Why sealing costs no page faults: the allocator is brought to keep what it gets back.
//!
//! Each record is sealed into bytes of its own, which are freed when the kernel has taken them. With 64 connections
//! that echo 16 KiB that is a megabyte a turn, taken and given back. glibc returns the end of a heap to the kernel as
//! soon as 128 KiB of it are free, so that the next turn pays a page fault for each 4 KiB: a quarter of its CPU time.
//! But it learns: once it has seen a larger block freed, it keeps twice that size, in each thread's heap. So it is
//! shown one.
//!
//! The block is never touched, so it takes no memory. Allocators that keep what they get (most do) are not changed by
//! it, nor is a glibc that was told what to keep (`MALLOC_TRIM_THRESHOLD_`).

use std::hint::black_box;

/// Twice this is kept. Enough for the records of a turn in which 500 connections send 16 KiB each.
const BLOCK_BYTES: usize = 4 << 20;

/// Shows the allocator a large block, for the whole process. Cheap: two system calls.
pub(super) fn keep_freed_memory() {
    let mut block = Vec::<u8>::new();
    // Without it all goes on as before, only slower.
    let _ = block.try_reserve_exact(BLOCK_BYTES);
    // Or the compiler would see that nobody uses it.
    drop(black_box(block));
}
