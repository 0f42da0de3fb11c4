//! Tasks that end together.
//!
//! Whoever waits for the next of many that ends must not look at each: it is the tasks that say it, to one place, with
//! one waker.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

use slab::Slab;

use super::Executor;
use super::ending::SaidTo;
use super::join::{JoinError, keep, spawn_ending};
use super::waking::{TaskId, drop_replaced};

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
#[derive(Default)]
pub struct Scope {
    members: Rc<RefCell<Members>>,
}

#[derive(Default)]
struct Members {
    tasks: Slab<TaskId>,
    /// How those ended that nobody has asked for yet, in their order.
    ended: VecDeque<Result<(), JoinError>>,
    /// Waits for the next that ends.
    waits: Option<Waker>,
}

/// Where one of them says its end.
struct Member {
    of: Rc<RefCell<Members>>,
    index: usize,
}

impl SaidTo<()> for Member {
    fn end(&self, result: Result<(), JoinError>) -> Option<Waker> {
        let members = &mut *self.of.borrow_mut();
        members.tasks.try_remove(self.index);
        members.ended.push_back(result);
        members.waits.take()
    }
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
    /// As [`spawn_local`](crate::spawn_local).
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F)
    where
        F: Future + 'static,
    {
        let executor = Executor::here();
        let index = self.members.borrow().tasks.vacant_key();
        let member = Member { of: Rc::clone(&self.members), index };
        let future = async move {
            future.await;
        };
        let id = spawn_ending(&executor, member, future);
        // It has not been polled yet: the place is still the one it was given.
        self.members.borrow_mut().tasks.insert(id);
    }

    /// Waits until one more has ended, and says how; `None` if there is none left. In the order in which they end.
    pub async fn join_next(&mut self) -> Option<Result<(), JoinError>> {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut members = self.members.borrow_mut();
            if let Some(result) = members.ended.pop_front() {
                return Poll::Ready(Some(result));
            }
            if members.tasks.is_empty() {
                return Poll::Ready(None);
            }
            let before = keep(&mut members.waits, waker);
            drop(members);
            drop_replaced(before);
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
        // What these still say, nobody hears.
        let members = std::mem::take(&mut self.members);
        let Members { tasks, .. } = members.take();
        Executor::with(|executor| tasks.into_iter().for_each(|(_, id)| executor.cancel(id)));
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = self.members.borrow();
        f.debug_struct("Scope")
            .field("tasks", &members.tasks.len())
            .field("ended", &members.ended.len())
            .finish()
    }
}
