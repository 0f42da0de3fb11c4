//! Wakers that are a number: nothing is allocated, counted or freed for them.
//!
//! The standard library makes wakers of an `Arc`. What a reactor wakes is a task in a table, and says so with the
//! task's number: a clone is a copy, a drop is nothing, and whoever wakes looks the number up.

use std::marker::PhantomData;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// Wakes what a number stands for.
pub trait WakeNumber: 'static {
    /// The table of its wakers: a `static`, by whose address they are known again.
    fn table() -> &'static WakerTable;

    /// Called by [`Waker::wake`], from any thread and at any time: the number may be of something long gone.
    fn wake(number: u64);
}

/// What the wakers of one [`WakeNumber`] call.
#[derive(Debug)]
pub struct WakerTable(RawWakerVTable);

impl WakerTable {
    /// The table of `W`.
    #[must_use]
    pub const fn new<W: WakeNumber>() -> Self {
        Self(RawWakerVTable::new(
            Calls::<W>::copy,
            Calls::<W>::wake,
            Calls::<W>::wake,
            Calls::<W>::drop,
        ))
    }
}

struct Calls<W>(PhantomData<W>);

impl<W: WakeNumber> Calls<W> {
    fn copy(number: *const ()) -> RawWaker {
        RawWaker::new(number, &W::table().0)
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
/// use slipring_core::sys::{WakeNumber, WakerTable, number_of, waker};
///
/// static WOKEN: AtomicU64 = AtomicU64::new(0);
/// static TABLE: WakerTable = WakerTable::new::<Task>();
///
/// struct Task;
///
/// impl WakeNumber for Task {
///     fn table() -> &'static WakerTable {
///         &TABLE
///     }
///     fn wake(number: u64) {
///         WOKEN.store(number, Ordering::Relaxed);
///     }
/// }
///
/// let first = waker::<Task>(17);
/// assert!(first.will_wake(&first.clone()) && !first.will_wake(&waker::<Task>(18)));
/// assert_eq!(number_of::<Task>(&first.clone()), Some(17));
/// std::thread::spawn(move || first.wake()).join().unwrap();
/// assert_eq!(WOKEN.load(Ordering::Relaxed), 17);
/// ```
#[inline]
#[must_use]
pub fn waker<W: WakeNumber>(number: u64) -> Waker {
    const { assert!(size_of::<usize>() == 8, "a number has 64 bits") };
    let data = ptr::without_provenance(number as usize);
    // SAFETY: the data is a number, of which a copy is as good as the first, and which needs no dropping; it is never
    // followed. All functions of a table, whichever it is, take such a number and no other state along, so they may be
    // called by any thread.
    unsafe { Waker::new(data, &W::table().0) }
}

/// The number of a waker that [`waker`] made for `W`; `None` of any other.
#[inline]
#[must_use]
pub fn number_of<W: WakeNumber>(waker: &Waker) -> Option<u64> {
    ptr::eq(waker.vtable(), &W::table().0).then(|| waker.data().addr() as u64)
}
