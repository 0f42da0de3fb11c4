//! How tasks wait: what for, for whoever looks whether it has come; and by combinators that do what they may with
//! futures and wakers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slipring_core::Key;

use super::super::book::party;
use super::world::World;

/// How long a send waits that found no memory, milliseconds, with the one that it may be late.
pub(super) const NO_MEMORY_MS: u64 = 6;
/// Wakers that are kept to be woken for nothing.
const KEPT_MAX: usize = 16;

/// What a task waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum On {
    /// Bytes of a connection, or that no more come.
    Bytes(Key),
    /// To send.
    Room(Key),
    End(Key),
    /// This time of the reactor's clock, milliseconds.
    Time(u64),
}

/// A wait that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) on: On,
    pub(super) since_ms: u64,
    /// Turns since it is over, and its task was not polled.
    pub(super) turns: u32,
    reactor: usize,
}

impl Wait {
    pub(super) fn who(&self) -> String {
        match self.on {
            On::Bytes(key) => format!("{}: its task, for bytes,", party(self.reactor, key)),
            On::Room(key) => format!("{}: its task, for room,", party(self.reactor, key)),
            On::End(key) => format!("{}: its task, for the end,", party(self.reactor, key)),
            On::Time(until_ms) => {
                format!("a task of reactor {}, until {until_ms} ms,", self.reactor)
            }
        }
    }

    pub(super) fn until_ms(&self) -> Option<u64> {
        match self.on {
            On::Time(until_ms) => Some(until_ms),
            _ => None,
        }
    }
}

/// A future whose wait is known.
struct Known<F> {
    future: Pin<Box<F>>,
    on: On,
    world: Rc<World>,
    wait: Option<u64>,
}

/// Waits, known to the world as long as its waker is an honest one.
pub(super) fn known<F: Future>(
    world: &Rc<World>,
    on: On,
    future: F,
) -> impl Future<Output = F::Output> {
    Known { future: Box::pin(future), on, world: Rc::clone(world), wait: None }
}

impl<F> Known<F> {
    fn forget(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.world.waits.borrow_mut().remove(&wait);
        }
    }
}

impl<F: Future> Future for Known<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.forget();
        let polled = self.future.as_mut().poll(cx);
        if polled.is_pending() && self.world.late_polls.get() == 0 {
            let mut waits = self.world.waits.borrow_mut();
            let number = waits.last_key_value().map_or(0, |(last, _)| last + 1);
            let since_ms = self.world.now_us() / 1000;
            let reactor = self.world.reactor;
            waits.insert(number, Wait { on: self.on, since_ms, turns: 0, reactor });
            drop(waits);
            self.wait = Some(number);
        }
        polled
    }
}

impl<F> Drop for Known<F> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Wakers that somebody else has: some will be woken, since what they stand for has come; some for nothing.
#[derive(Default)]
pub(super) struct Pool(Arc<Mutex<Wakers>>);

#[derive(Default)]
struct Wakers {
    due: VecDeque<Waker>,
    kept: VecDeque<Waker>,
}

impl Pool {
    fn with<R>(&self, call: impl FnOnce(&mut Wakers) -> R) -> R {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps one, to be woken at any time.
    pub(super) fn keep(&self, waker: &Waker) {
        self.with(|wakers| {
            wakers.kept.push_back(waker.clone());
            wakers.kept.truncate(KEPT_MAX);
        });
    }

    pub(super) fn take_due(&self) -> Option<Waker> {
        self.with(|wakers| wakers.due.pop_front())
    }

    /// One of those that are kept; it stays, if it is to.
    pub(super) fn take_kept(&self, stays: bool) -> Option<Waker> {
        self.with(|wakers| {
            let waker = wakers.kept.pop_front()?;
            if stays {
                wakers.kept.push_back(waker.clone());
            }
            Some(waker)
        })
    }

    pub(super) fn clear(&self) {
        drop(self.with(std::mem::take));
    }
}

/// A waker that is woken later, by somebody else.
struct Late {
    waker: Waker,
    pool: Arc<Mutex<Wakers>>,
}

impl Wake for Late {
    fn wake(self: Arc<Self>) {
        let mut wakers = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.due.push_back(self.waker.clone());
    }
}

/// Awaits a future in a way that is drawn: as it is, with polls for nothing, with a waker that nobody wakes before the
/// right one, or with wakers that are late.
pub(super) async fn anyhow<F: Future>(world: &Rc<World>, future: F) -> F::Output {
    let mut future = Box::pin(future);
    let way = if world.is_healed() { 0 } else { world.throw(|dice| dice.below(10)) };
    poll_fn(|cx| {
        match way {
            0..5 => {}
            5 => {
                let mut nobody = Context::from_waker(Waker::noop());
                world.late_polls.set(world.late_polls.get() + 1);
                let polled = future.as_mut().poll(&mut nobody);
                world.late_polls.set(world.late_polls.get() - 1);
                if polled.is_ready() {
                    return polled;
                }
            }
            6 => world.pool.keep(cx.waker()),
            7 => {
                if world.throw(|dice| dice.permille(400)) {
                    let wakers = [cx.waker().clone(), cx.waker().clone()];
                    wakers.into_iter().for_each(Waker::wake);
                }
            }
            _ => {
                let late = Late { waker: cx.waker().clone(), pool: Arc::clone(&world.pool.0) };
                let waker = Waker::from(Arc::new(late));
                world.late_polls.set(world.late_polls.get() + 1);
                let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
                world.late_polls.set(world.late_polls.get() - 1);
                return polled;
            }
        }
        future.as_mut().poll(cx)
    })
    .await
}

/// Which of two futures was ready first.
pub(super) enum First<A, B> {
    One(A),
    Other(B),
}

/// Awaits two futures, polled in an order that is drawn, and drops the one that is not ready first.
pub(super) async fn race<A: Future, B: Future>(
    world: &Rc<World>,
    one: A,
    other: B,
) -> First<A::Output, B::Output> {
    let (mut one, mut other) = (Box::pin(one), Box::pin(other));
    poll_fn(|cx| {
        let one_first = world.throw(crate::dice::Dice::coin);
        for turn in [one_first, !one_first] {
            if turn {
                if let Poll::Ready(output) = one.as_mut().poll(cx) {
                    return Poll::Ready(First::One(output));
                }
            } else if let Poll::Ready(output) = other.as_mut().poll(cx) {
                return Poll::Ready(First::Other(output));
            }
        }
        Poll::Pending
    })
    .await
}

/// Polls a future once, and drops it.
pub(super) async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}
