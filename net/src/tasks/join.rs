//! How one task waits for another, or ends it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slipring_core::canary::{Canary, sings};

use super::ending::{Ending, Outcome, SaidTo};
use super::waking::{TaskId, drop_replaced};
use super::{Executor, Kind};

/// Why a task has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It was cancelled, or its reactor ended.
    #[error("the task was cancelled")]
    Cancelled,
    /// It panicked. The panic hook has said where.
    #[error("the task panicked")]
    Panicked,
    /// It was blocking work ([`unblock`](crate::unblock)), and the system has no thread for it.
    #[error(
        "no thread could be started for it; raise the limit on threads of the process or its group"
    )]
    NoThread,
}

/// Runs a future as a task of its own on the reactor of the caller. It goes on when the handle is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), slipring::JoinError> {
/// let sum = slipring::spawn_local(async { 1 + 1 });
/// assert_eq!(sum.await?, 2);
/// # Ok(())
/// # }
/// ```
///
/// A drain does not wait for it: once nobody is served any more, it is dropped where it stands.
///
/// # Panics
/// Outside of a reactor's tasks.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let outcome = Rc::default();
    let id = spawn_ending(&Executor::here(), Rc::clone(&outcome), future);
    JoinHandle { id, outcome }
}

/// A task beside that says there how it ended.
pub(super) fn spawn_ending<F, P>(executor: &Executor, place: P, future: F) -> TaskId
where
    F: Future + 'static,
    P: SaidTo<F::Output> + 'static,
{
    let ending = Ending::new(place);
    executor.spawn(Kind::Beside, async move {
        let result = future.await;
        ending.set(Ok(result));
    })
}

impl<T> SaidTo<T> for Rc<RefCell<Outcome<T>>> {
    fn end(&self, result: Result<T, JoinError>) -> Option<Waker> {
        self.borrow_mut().end(result)
    }
}

/// Waits for a task of [`spawn_local`]: a future of its result. Dropping it lets the task run on.
#[must_use = "dropping the handle lets the task run on, with nobody to learn how it ends"]
pub struct JoinHandle<T> {
    id: TaskId,
    outcome: Rc<RefCell<Outcome<T>>>,
}

impl<T> JoinHandle<T> {
    /// Ends the task: its future is dropped, at once, or behind its poll if that runs. One that has ended has ended.
    pub fn cancel(&self) {
        // Of one that has ended, another may have the place by now.
        if !self.is_finished() || sings(Canary::TaskGenerationIgnored) {
            Executor::with(|executor| executor.cancel(self.id));
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.outcome.borrow().has_come()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again behind its result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let (polled, left) = self.outcome.borrow_mut().poll(waker);
        drop_replaced(left);
        polled
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Writes down whoever polls. Who was there before is given back, to be dropped when nothing is borrowed any more: with
/// a waker that is not one of ours, anything may be dropped.
#[inline]
#[must_use]
pub(crate) fn note(place: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    match place {
        Some(waker) if waker.will_wake(cx.waker()) || sings(Canary::WakerNotReplaced) => None,
        place => place.replace(cx.waker().clone()),
    }
}

/// The same with a waker that was cloned before anything was borrowed: that too may be code of users.
#[must_use]
pub(crate) fn keep(place: &mut Option<Waker>, waker: Waker) -> Option<Waker> {
    if place.is_some() && sings(Canary::WakerNotReplaced) {
        return Some(waker);
    }
    place.replace(waker)
}

/// Drops a waker when nothing is borrowed any more. One of a task needs no dropping.
#[inline]
pub(crate) fn put_aside(waker: Option<Waker>) {
    if let Some(waker) = waker
        && TaskId::of(&waker).is_none()
    {
        Executor::with(|executor| executor.aside.borrow_mut().push(waker));
    }
}
