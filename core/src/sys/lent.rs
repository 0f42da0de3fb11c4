//! A value lent for the time of a call to whatever runs beneath it on the same thread.
//!
//! Handlers get their connections as a parameter; a future that is polled has no room for one. So who polls lends the
//! connections to the thread, and the methods of what the future holds borrow them back, one at a time.
//!
//! ```text
//!   lend(&mut value) ----------------------------------------------> returns: lent no more
//!      |  polls
//!      +--> borrow(|value| ..)     the place is empty meanwhile: who borrows within gets None
//! ```
//!
//! Is not: a lock, since the place is a thread's own; nor a global, since outside of `lend` there is nothing in it.

use std::cell::Cell;
use std::ptr;

/// The place of one value of a thread: see the module's documentation. Made for `thread_local!`.
///
/// ```
/// use slipring_core::sys::Lent;
///
/// thread_local! {
///     static COUNT: Lent<u32> = const { Lent::empty() };
/// }
///
/// fn count() -> bool {
///     COUNT.with(|place| place.borrow(|count| *count += 1)).is_some()
/// }
///
/// let mut counted = 0;
/// assert!(!count(), "nothing is lent");
/// COUNT.with(|place| place.lend(&mut counted, || assert!(count() && count())));
/// assert_eq!((counted, count()), (2, false));
/// ```
#[derive(Debug)]
pub struct Lent<T> {
    place: Cell<*mut T>,
}

impl<T> Lent<T> {
    /// A place with nothing in it.
    #[must_use]
    pub const fn empty() -> Self {
        Self { place: Cell::new(ptr::null_mut()) }
    }

    /// Lends the value for the time of the call. What was lent before is lent again afterwards.
    #[inline]
    pub fn lend<R>(&self, value: &mut T, during: impl FnOnce() -> R) -> R {
        let _lent = PutBack { place: &self.place, before: self.place.replace(value) };
        during()
    }

    /// Calls with the value, if one is lent and nobody has borrowed it already.
    #[inline]
    pub fn borrow<R>(&self, call: impl FnOnce(&mut T) -> R) -> Option<R> {
        let lent = self.place.replace(ptr::null_mut());
        if lent.is_null() {
            return None;
        }
        let _lent = PutBack { place: &self.place, before: lent };
        // SAFETY: a pointer in the place was made from the `&mut T` of a `lend` that has not returned, for that puts
        // back what was there before, and so does its unwinding. The thread is the same, since a cell is not shared.
        // It is not aliased: the lender has given its reference away for the call, and the place is empty until this
        // borrow has ended.
        let value = unsafe { &mut *lent };
        Some(call(value))
    }
}

/// Puts back what was in the place before, by a panic too.
struct PutBack<'a, T> {
    place: &'a Cell<*mut T>,
    before: *mut T,
}

impl<T> Drop for PutBack<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.place.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn who_borrows_within_a_borrow_gets_nothing() {
        let place = Lent::empty();
        let mut value = 1;
        place.lend(&mut value, || {
            let within = place.borrow(|value| {
                *value += 1;
                place.borrow(|_| ()).is_some()
            });
            assert_eq!(within, Some(false));
            assert_eq!(place.borrow(|value| *value), Some(2), "it is back");
        });
        assert_eq!(place.borrow(|_| ()), None);
    }

    #[test]
    fn what_is_lent_within_hides_what_was_before() {
        let place = Lent::empty();
        let (mut outer, mut inner) = (1, 10);
        place.lend(&mut outer, || {
            place.lend(&mut inner, || place.borrow(|value| *value += 1));
            place.borrow(|value| *value += 1);
        });
        assert_eq!((outer, inner), (2, 11));
    }

    #[test]
    fn a_panic_takes_nothing_along() {
        let place = Lent::empty();
        let mut value = 1;
        place.lend(&mut value, || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                place.borrow(|_| panic!("while it is borrowed"));
            }));
            assert!(panicked.is_err());
            assert_eq!(place.borrow(|value| *value), Some(1));
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            place.lend(&mut value, || panic!("while it is lent"));
        }));
        assert!(panicked.is_err());
        assert_eq!(place.borrow(|_| ()), None, "its lender has gone");
    }
}
