//! An allocator that counts, for benches and tests of what promises to allocate nothing.
//!
//! Each thread counts its own: what the harness, or a server beside, allocates meanwhile is not in the figure. Whoever
//! wants it says so:
//!
//! ```
//! use slipring_benches::measure::heap::{Counting, allocations};
//!
//! #[global_allocator]
//! static ALLOCATOR: Counting = Counting;
//!
//! let before = allocations();
//! drop(Box::new(1));
//! assert_eq!(allocations() - before, 1);
//! ```

#![expect(unsafe_code, reason = "a global allocator that counts has to implement an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what is allocated or moved; freeing is free to happen.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    // Without a destructor, so that it is there as long as its thread allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// What this thread has allocated or moved so far; nothing, where [`Counting`] is not the allocator.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(block, layout, bytes) }
    }
}
