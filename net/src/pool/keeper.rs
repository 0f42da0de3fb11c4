//! The two tasks of a pool on each reactor.
//!
//! *The watcher* waits for all that is idle: whichever stirs wakes it, and it looks at all of them, once for all that
//! stirred in a turn. A task for each connection would know which one it was, and cost more memory than the connection.
//!
//! *The keeper* waits for what is due, for what others want, and for the order to drain. It sleeps as long as there is
//! nothing, and who changes that wakes it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Establish;
use super::room::{Kept, PoolRoom, look_at};
use crate::policy::pool::{MAINTENANCE, Mode, PoolLimits};
use crate::tasks::{Executor, Sleep, draining, now, put_aside, sleep};

impl<E: Establish> PoolRoom<E> {
    pub(super) async fn watch(self: Rc<Self>) {
        poll_fn(|cx| {
            let before = self.watcher.replace(Some(cx.waker().clone()));
            put_aside(before);
            self.look_at_all(cx);
            Poll::<()>::Pending
        })
        .await;
    }

    /// Whoever has stirred is given to nobody any more.
    fn look_at_all(&self, cx: &mut Context<'_>) {
        let places = self.kept.borrow().len();
        for index in 0..places {
            let found = {
                let mut kept = self.kept.borrow_mut();
                match kept.get_mut(index) {
                    Some(slot @ Kept::Conn { .. }) => std::mem::replace(slot, Kept::Nothing),
                    _ => continue,
                }
            };
            let Kept::Conn { place, mut conn, served } = found else { continue };
            let stir = look_at(&mut conn, served, cx);
            self.lay(place, conn, served);
            if stir.is_some() {
                self.book.borrow_mut().ended(place, now());
            }
        }
        self.settle();
    }

    pub(super) async fn look_after(self: Rc<Self>) {
        let mut alarm = sleep(Duration::ZERO);
        let mut draining = pin!(draining());
        let mut runtime_drains = false;
        poll_fn(|cx| {
            if !runtime_drains && draining.as_mut().poll(cx).is_ready() {
                runtime_drains = true;
                self.keep_none_idle();
            }
            self.poll_look_after(cx, &mut alarm)
        })
        .await;
        Executor::with(|executor| executor.end_room(self.pool.number));
    }

    /// The runtime drains, or the endpoint has left its upstream: those who are served may need connections still,
    /// those who come next will not.
    pub(super) fn keep_none_idle(&self) {
        let mut book = self.book.borrow_mut();
        let mode = Mode::Dynamic { min_idle: 0, max: book.limits().mode.max() };
        let limits = PoolLimits { mode, keep_alive: None, ..*book.limits() };
        if limits == *book.limits() {
            return;
        }
        if let Err(error) = book.set_limits(limits, now()) {
            tracing::error!("a pool keeps its idle connections in a drain: {error}");
        }
    }

    /// Ready once the pool is drained.
    fn poll_look_after(&self, cx: &mut Context<'_>, alarm: &mut Sleep) -> Poll<()> {
        let before = self.keeper.replace(Some(cx.waker().clone()));
        match before {
            None => self.places().listen(self.reactor, Some(cx.waker().clone())),
            before => put_aside(before),
        }
        // It looks what is due when it has done all this, so nobody needs to wake it for that until then.
        self.keeper_until.set(Duration::ZERO);
        if self.is_to_drain() {
            self.drain();
        }
        self.take_returned();
        self.spare_for_others();
        self.book.borrow_mut().maintain(now());
        self.settle();
        self.say();
        if self.book.borrow().is_drained() {
            return Poll::Ready(());
        }
        // What others ask for from elsewhere is at most so old.
        let is_in_use = self.book.borrow().held() > 0 || self.book.borrow().waiters() > 0;
        let next = self.book.borrow().next_maintenance();
        let next = if is_in_use {
            let said_again = now() + MAINTENANCE;
            Some(next.map_or(said_again, |next| next.min(said_again)))
        } else {
            next
        };
        // Whoever brings that forward from here on wakes it again.
        self.keeper_until.set(next.unwrap_or(Duration::MAX));
        let Some(next) = next else { return Poll::Pending };
        alarm.reset(next);
        if Pin::new(alarm).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
