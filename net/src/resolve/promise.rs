//! A result that one says and several wait for, on any reactor.
//!
//! Who waits is woken with the result, or told that there will be none: whoever was to say it is gone, with its reactor
//! or in a panic. So nobody hangs on another's end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

struct State<T> {
    /// `Some(None)`: there will be none.
    said: Option<Option<T>>,
    waiting: Slab<Waker>,
}

/// Whoever is to say it. Dropped without, there will be no result.
pub(super) struct Promise<T>(Shared<T>);

/// Whoever may wait for it.
pub(super) struct Shared<T>(Arc<Mutex<State<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Promise<T> {
    pub(super) fn new() -> Self {
        let state = State { said: None, waiting: Slab::new() };
        Self(Shared(Arc::new(Mutex::new(state))))
    }

    pub(super) fn shared(&self) -> &Shared<T> {
        &self.0
    }

    pub(super) fn say(self, result: T) {
        self.0.end(Some(result));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing of users runs while it is locked but the clones of results.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it has been said, or never will be.
    pub(super) fn is_over(&self) -> bool {
        self.lock().said.is_some()
    }

    fn end(&self, result: Option<T>) {
        let mut state = self.lock();
        if state.said.is_some() {
            return;
        }
        state.said = Some(result);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// The result; `None` if there will be none.
    pub(super) fn wait(&self) -> Waiting<T> {
        Waiting { shared: self.clone(), entry: None }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

pub(super) struct Waiting<T> {
    shared: Shared<T>,
    entry: Option<usize>,
}

impl<T: Clone> Future for Waiting<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let waker = cx.waker().clone();
        let this = &mut *self;
        let mut state = this.shared.lock();
        if let Some(said) = &state.said {
            let said = said.clone();
            this.entry = None;
            return Poll::Ready(said);
        }
        let before = match this.entry {
            Some(entry) => Some(std::mem::replace(&mut state.waiting[entry], waker)),
            None => {
                this.entry = Some(state.waiting.insert(waker));
                None
            }
        };
        drop(state);
        // A waker's drop may be code of users.
        drop(before);
        Poll::Pending
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let Some(entry) = self.entry else { return };
        let mut state = self.shared.lock();
        // Said meanwhile, it has been taken out.
        let left = state.waiting.try_remove(entry);
        drop(state);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn all_who_wait_are_told_and_who_has_left_is_not() {
        let (promise, count) = (Promise::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut one = pin!(promise.shared().wait());
        let mut other = pin!(promise.shared().wait());
        let mut left = Box::pin(promise.shared().wait());
        assert!(one.as_mut().poll(&mut cx).is_pending());
        assert!(one.as_mut().poll(&mut cx).is_pending(), "twice by one is once");
        assert!(other.as_mut().poll(&mut cx).is_pending());
        assert!(left.as_mut().poll(&mut cx).is_pending());
        drop(left);
        let shared = promise.shared().clone();
        promise.say(7);
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert_eq!(one.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        assert_eq!(other.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        assert_eq!(pin!(shared.wait()).poll(&mut cx), Poll::Ready(Some(7)), "whoever comes late");
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "no waker is kept");
    }

    #[test]
    fn who_is_gone_without_a_word_has_said_so() {
        let (promise, count) = (Promise::<u32>::new(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut waiting = pin!(promise.shared().wait());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(promise);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(None));
    }
}
