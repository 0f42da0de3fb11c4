//! Time for tasks: sleeping, timeouts, the order to drain.
//!
//! Time is the reactor's: it stands still during a turn, and is virtual under simulation. What sleeps is woken within
//! a millisecond of its time, never before it, as far as the reactor turns by then.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::canary::{Canary, sings};
use slipring_core::clock::millis;

use super::entries::Kept;
use super::timers::Armed;
use super::waking::drop_replaced;
use super::{Executor, Timer};

/// The time since the reactor's clock started, as of this turn.
///
/// # Panics
/// Outside of a reactor's tasks.
#[must_use]
#[track_caller]
pub fn now() -> Duration {
    Executor::look(Executor::time).unwrap_or_else(|| Executor::here().time())
}

/// The times of the reactor's clock as instants.
///
/// # Panics
/// Outside of a reactor's tasks.
#[cfg(feature = "hyper")]
#[track_caller]
pub(crate) fn instants() -> slipring_core::clock::Instants {
    let executor = Executor::here();
    let from_now = || slipring_core::clock::Instants::from_now(executor.now_us.get());
    *executor.instants.get_or_init(from_now)
}

/// Waits for so long, from the call on.
///
/// # Panics
/// Outside of a reactor's tasks.
#[track_caller]
pub fn sleep(span: Duration) -> Sleep {
    let now_us = Executor::here().now_us.get();
    let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let until_us = now_us.saturating_add(span_us);
    if sings(Canary::SleepRoundedDown) {
        return Sleep::until_ms(until_us / 1000);
    }
    Sleep::until_ms(until_us.div_ceil(1000))
}

/// Waits until this time of the reactor's clock: see [`now`].
pub fn sleep_until(at: Duration) -> Sleep {
    Sleep::until_ms(millis(at))
}

/// The wait of [`sleep`] or [`sleep_until`].
///
/// It is `Send` and `Sync` in type, for libraries that want that; it stays with the reactor that first polls it.
#[derive(Debug)]
#[must_use = "it waits once it is polled"]
pub struct Sleep {
    deadline_ms: u64,
    timer: Timer,
}

impl Sleep {
    pub(crate) fn until_ms(deadline_ms: u64) -> Self {
        Self { deadline_ms, timer: Timer::default() }
    }

    /// Waits until then instead.
    pub fn reset(&mut self, at: Duration) {
        self.deadline_ms = millis(at);
    }

    /// When it ends, on the reactor's clock.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline_ms = self.deadline_ms;
        self.timer.poll(deadline_ms, cx)
    }
}

/// A future did not end in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not done within {within:?}")]
pub struct Elapsed {
    /// The time it had.
    pub within: Duration,
}

/// Gives a future so long, from the call on. What is not done by then is dropped.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(conn: &mut slipring::Conn) {
/// match slipring::timeout(Duration::from_secs(5), conn.recv()).await {
///     Ok(Some(data)) => println!("{} bytes", data.len()),
///     Ok(None) => println!("the end"),
///     Err(elapsed) => println!("{elapsed}"), // nothing is lost: a later `recv` gives what comes
/// }
/// # }
/// ```
///
/// # Panics
/// Outside of a reactor's tasks.
#[track_caller]
pub fn timeout<F: Future>(
    within: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    let sleep = sleep(within);
    async move {
        let (mut future, mut sleep) = (pin!(future), pin!(sleep));
        poll_fn(|cx| {
            // The future first: what is done at its deadline is done.
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            sleep.as_mut().poll(cx).map(|()| Err(Elapsed { within }))
        })
        .await
    }
}

/// Lets all others that are ready have their polls first.
pub async fn yield_now() {
    let has_yielded = Cell::new(false);
    poll_fn(|cx| {
        if has_yielded.replace(true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits for the order to drain: new work should not be begun then. Ready at once if it was given already.
///
/// A connection whose task waits for its bytes is closed when it has been quiet for a moment, whether anybody asks for
/// this or not ([`Drained`](slipring_core::CloseReason::Drained)). One whose task does something else has its time
/// until the drain's deadline, and is aborted then: so a task that never receives should ask.
pub async fn draining() {
    let mut waiting = Waiting { armed: None };
    poll_fn(|cx| waiting.poll(cx)).await;
}

struct Waiting {
    armed: Option<Armed>,
}

impl Waiting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let executor = Executor::here();
        if self.armed.is_some_and(|armed| armed.executor != executor.id) {
            self.let_go();
        }
        if executor.is_draining.get() {
            self.let_go();
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let mut waiters = executor.drain_waiters.borrow_mut();
        let before = match self.armed.and_then(|armed| waiters.get_mut(armed.entry)) {
            Some(noted) => Some(std::mem::replace(noted, waker)),
            None => {
                let entry = waiters.insert(waker);
                self.armed = Some(Armed { executor: executor.id, entry });
                None
            }
        };
        drop(waiters);
        drop_replaced(before);
        Poll::Pending
    }

    fn let_go(&mut self) {
        if let Some(armed) = self.armed.take() {
            Kept::DrainWaiter(armed.entry).let_go(armed.executor);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !sings(Canary::DrainWaiterKept) {
            self.let_go();
        }
    }
}
