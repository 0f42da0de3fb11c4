//! Wakers that are a number: nothing is allocated, counted or freed for them.
//!
//! The standard library makes wakers of an `Arc`. What a reactor wakes is a task in a table, and says so with the
//! task's number: a clone is a copy, a drop is nothing, and whoever wakes looks the number up.

use std::marker::PhantomData;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// Wakes what a number stands for.
pub trait WakeNumber: 'static {
    /// Called by [`Waker::wake`], from any thread and at any time: the number may be of something long gone.
    fn wake(number: u64);
}

struct Table<W>(PhantomData<W>);

impl<W: WakeNumber> Table<W> {
    const TABLE: RawWakerVTable =
        RawWakerVTable::new(Self::copy, Self::wake, Self::wake, Self::drop);

    fn copy(number: *const ()) -> RawWaker {
        RawWaker::new(number, &Self::TABLE)
    }

    fn wake(number: *const ()) {
        W::wake(number.addr() as u64);
    }

    fn drop(_: *const ()) {}
}

/// The waker of this number.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use slipring_core::sys::{WakeNumber, waker};
///
/// static WOKEN: AtomicU64 = AtomicU64::new(0);
///
/// struct Task;
///
/// impl WakeNumber for Task {
///     fn wake(number: u64) {
///         WOKEN.store(number, Ordering::Relaxed);
///     }
/// }
///
/// let first = waker::<Task>(17);
/// assert!(first.will_wake(&first.clone()) && !first.will_wake(&waker::<Task>(18)));
/// std::thread::spawn(move || first.wake()).join().unwrap();
/// assert_eq!(WOKEN.load(Ordering::Relaxed), 17);
/// ```
#[inline]
#[must_use]
pub fn waker<W: WakeNumber>(number: u64) -> Waker {
    const { assert!(size_of::<usize>() == 8, "a number has 64 bits") };
    let data = ptr::without_provenance(number as usize);
    // SAFETY: the data is a number, of which a copy is as good as the first, and which needs no dropping; it is never
    // followed. Waking calls a function of `W` that takes no state along, so it may be called by any thread.
    unsafe { Waker::new(data, &Table::<W>::TABLE) }
}

/// The number of a waker that [`waker`] made for `W`; `None` of others, and it may be so of one of those too.
#[inline]
#[must_use]
pub fn number_of<W: WakeNumber>(waker: &Waker) -> Option<u64> {
    let ours = ptr::eq(waker.vtable(), &Table::<W>::TABLE);
    ours.then(|| waker.data().addr() as u64)
}
