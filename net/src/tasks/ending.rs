//! How a task ends, between who says it and who waits for it. Each is said once: by the task when it is done, or by
//! what it held when that is dropped before.

use std::marker::PhantomData;
use std::task::{Poll, Waker};

use super::Executor;
use super::join::{JoinError, keep};
use super::waking::wake_waiter;

/// Where an end is said to.
pub(super) trait SaidTo<T> {
    /// It has ended so. Who waits for it is given back, to be woken when nothing is borrowed or locked any more.
    fn end(&self, result: Result<T, JoinError>) -> Option<Waker>;
}

/// Says how a task ended, however it ends: held by its future, or by what would have made it; or how blocking work did.
pub(super) struct Ending<T, P: SaidTo<T>> {
    /// Until it was said.
    place: Option<P>,
    of: PhantomData<fn(T)>,
}

impl<T, P: SaidTo<T>> Ending<T, P> {
    pub(super) fn new(place: P) -> Self {
        Self { place: Some(place), of: PhantomData }
    }

    pub(super) fn set(mut self, result: Result<T, JoinError>) {
        self.say(|| result);
    }

    fn say(&mut self, result: impl FnOnce() -> Result<T, JoinError>) {
        if let Some(place) = self.place.take()
            && let Some(waker) = place.end(result())
        {
            wake_waiter(waker);
        }
    }
}

impl<T, P: SaidTo<T>> Drop for Ending<T, P> {
    fn drop(&mut self) {
        self.say(|| {
            let panicked = Executor::with(|executor| executor.is_unwinding()).unwrap_or(false);
            Err(if panicked { JoinError::Panicked } else { JoinError::Cancelled })
        });
    }
}

/// The end of one task, for one who waits.
pub(super) enum Outcome<T> {
    /// Still to come.
    Awaited(Option<Waker>),
    Is(Result<T, JoinError>),
    /// Somebody has the result.
    Taken,
}

impl<T> Default for Outcome<T> {
    fn default() -> Self {
        Self::Awaited(None)
    }
}

impl<T> Outcome<T> {
    pub(super) fn end(&mut self, result: Result<T, JoinError>) -> Option<Waker> {
        match std::mem::replace(self, Self::Is(result)) {
            Self::Awaited(waits) => waits,
            Self::Is(_) | Self::Taken => None,
        }
    }

    pub(super) fn has_come(&self) -> bool {
        !matches!(self, Self::Awaited(_))
    }

    /// The result, once there is one. Whoever comes behind another that has it already finds the task cancelled.
    pub(super) fn take(&mut self) -> Option<Result<T, JoinError>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Is(result) => Some(result),
            Self::Taken => Some(Err(JoinError::Cancelled)),
            awaited @ Self::Awaited(_) => {
                *self = awaited;
                None
            }
        }
    }

    /// Polls for the result. The waker that is not needed is given back, to be dropped when nothing is borrowed any
    /// more.
    ///
    /// # Panics
    /// If it is polled again behind its result.
    pub(super) fn poll(&mut self, waker: Waker) -> (Poll<Result<T, JoinError>>, Option<Waker>) {
        match self {
            Self::Awaited(waits) => (Poll::Pending, keep(waits, waker)),
            Self::Taken => panic!("polled after it was ready"),
            Self::Is(_) => (self.take().map_or(Poll::Pending, Poll::Ready), Some(waker)),
        }
    }
}
