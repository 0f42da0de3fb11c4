//! How one task waits for another, or ends it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slipring_core::canary::{Canary, sings};

use super::waking::{TaskId, wake_waiter};
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

enum State<T> {
    Running(Option<Waker>),
    Ended(Result<T, JoinError>),
    /// Somebody has the result.
    Taken,
}

/// Says how a task ended, however it ends: held by its future.
struct Ending<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> Ending<T> {
    fn set(&self, result: Result<T, JoinError>) {
        let before = self.state.replace(State::Ended(result));
        if let State::Running(Some(waker)) = before {
            wake_waiter(waker);
        }
    }
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        if matches!(*self.state.borrow(), State::Running(_)) {
            let panicked = Executor::with(|executor| executor.is_unwinding()).unwrap_or(false);
            let error = if panicked { JoinError::Panicked } else { JoinError::Cancelled };
            self.set(Err(error));
        }
    }
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
    let executor = Executor::here();
    let state = Rc::new(RefCell::new(State::Running(None)));
    let ending = Ending { state: Rc::clone(&state) };
    let id = executor.spawn(Kind::Beside, async move {
        let result = future.await;
        ending.set(Ok(result));
    });
    JoinHandle { id, state }
}

/// Waits for a task of [`spawn_local`]: a future of its result. Dropping it lets the task run on.
#[must_use = "dropping the handle lets the task run on, with nobody to learn how it ends"]
pub struct JoinHandle<T> {
    id: TaskId,
    state: Rc<RefCell<State<T>>>,
}

impl<T> JoinHandle<T> {
    /// Ends the task: its future is dropped, at once, or behind its poll if that runs. One that has ended has ended.
    pub fn cancel(&self) {
        // Of one that has ended, another may have the place by now.
        if !self.is_finished() || sings(Canary::TaskGenerationIgnored) {
            Executor::with(|executor| executor.cancel(self.id));
        }
    }

    fn take_result(&self) -> Option<Result<T, JoinError>> {
        let mut state = self.state.borrow_mut();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Ended(result) => Some(result),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(*self.state.borrow(), State::Running(_))
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again behind its result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let mut state = self.state.borrow_mut();
        let before = match &mut *state {
            State::Running(waits) => keep(waits, waker),
            State::Ended(_) => match std::mem::replace(&mut *state, State::Taken) {
                State::Ended(result) => return Poll::Ready(result),
                _ => unreachable!("just looked at"),
            },
            State::Taken => panic!("polled after it was ready"),
        };
        drop(state);
        drop(before);
        Poll::Pending
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

/// Tasks that end together: dropping it ends all that are left.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example() {
/// let mut scope = slipring::Scope::new();
/// for worker in 0..4_u64 {
///     scope.spawn(async move { slipring::sleep(Duration::from_millis(worker)).await });
/// }
/// scope.join_next().await; // one is done; the other three end here
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Scope {
    tasks: Vec<JoinHandle<()>>,
    /// How those ended that were taken off the list before anybody asked.
    ended: Vec<Result<(), JoinError>>,
}

impl Scope {
    /// A scope without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future as a task of the scope.
    ///
    /// # Panics
    /// As [`spawn_local`].
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F)
    where
        F: Future + 'static,
    {
        // Places of those that have ended, found now and then: the list is at most twice as long as it has to be.
        if self.tasks.len() == self.tasks.capacity() {
            let Self { tasks, ended } = self;
            tasks.retain(|task| match task.take_result() {
                Some(result) => {
                    ended.push(result);
                    false
                }
                None => true,
            });
        }
        self.tasks.push(spawn_local(async move {
            future.await;
        }));
    }

    /// Waits until one more has ended, and says how; `None` if there is none left.
    pub async fn join_next(&mut self) -> Option<Result<(), JoinError>> {
        std::future::poll_fn(|cx| {
            if let Some(result) = self.ended.pop() {
                return Poll::Ready(Some(result));
            }
            if self.tasks.is_empty() {
                return Poll::Ready(None);
            }
            for at in 0..self.tasks.len() {
                if let Poll::Ready(result) = Pin::new(&mut self.tasks[at]).poll(cx) {
                    drop(self.tasks.swap_remove(at));
                    return Poll::Ready(Some(result));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until all have ended. The first that did not end by itself, if one did not.
    ///
    /// # Errors
    /// Why that one has no result. The others have ended too.
    pub async fn join_all(mut self) -> Result<(), JoinError> {
        let mut all = Ok(());
        while let Some(result) = self.join_next().await {
            all = all.and(result);
        }
        all
    }

    /// Ends all that are left, and forgets how the others did.
    pub fn cancel(&mut self) {
        self.ended.clear();
        self.tasks.drain(..).for_each(|task| task.cancel());
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.cancel();
    }
}
