//! What tasks sleep by: a wheel of their own, beside that of the connections.
//!
//! A wheel is late by up to an eighth of the time it was armed for; a sleep is not to be. So a timer is armed for seven
//! eighths of what is left, and again when it fires, until the wheel is exact. A timeout that is never reached, as most
//! are not, costs what it did: one arm, one disarm.

use std::task::{Context, Poll, Waker};

use slipring_core::canary::{Canary, sings};
use slipring_core::wheel::Wheel;

use super::Executor;
use super::entries::{Entries, Entry, Kept};
use super::remote::ExecutorId;
use super::waking::drop_replaced;

/// Timers of one reactor. The wheel takes eight bytes for each, once they are used.
const TIMERS_MAX: u32 = 1 << 22;
/// Up to here a wheel is exact, milliseconds.
const EXACT_MS: u64 = 32;
/// Timers looked at in one go.
const BATCH: usize = 256;

struct Deadline {
    deadline_ms: u64,
    /// `None` once it was woken.
    waker: Option<Waker>,
}

#[derive(Default)]
pub(super) struct Timers {
    /// Made with the first timer.
    wheel: Option<Wheel>,
    entries: Entries<Deadline>,
    due: Vec<u32>,
}

impl Timers {
    fn arm(wheel: &mut Wheel, index: u32, deadline_ms: u64, now_ms: u64) {
        let left_ms = deadline_ms.saturating_sub(now_ms);
        let in_ms = if left_ms <= EXACT_MS { left_ms } else { left_ms - left_ms / 8 };
        wheel.arm(index, now_ms + in_ms);
    }

    fn insert(&mut self, deadline_ms: u64, waker: Waker, now_ms: u64) -> Entry {
        assert!(
            self.entries.len() < TIMERS_MAX as usize,
            "a reactor has {TIMERS_MAX} timers at most"
        );
        let wheel = self.wheel.get_or_insert_with(|| Wheel::new(TIMERS_MAX, now_ms));
        wheel.advance(now_ms);
        let entry = self.entries.insert(Deadline { deadline_ms, waker: Some(waker) });
        Self::arm(wheel, entry.index, deadline_ms, now_ms);
        entry
    }

    /// Its waker comes back, to be dropped when nothing is borrowed any more.
    #[must_use]
    pub(super) fn remove(&mut self, entry: Entry) -> Option<Waker> {
        let removed = self.entries.remove(entry)?;
        if let Some(wheel) = &mut self.wheel {
            wheel.disarm(entry.index);
        }
        removed.waker
    }

    /// Those whose time has come, some at a time; `None` once there are no more.
    pub(super) fn expire(&mut self, now_ms: u64) -> Option<Vec<Waker>> {
        let wheel = self.wheel.as_mut()?;
        wheel.advance(now_ms);
        self.due.clear();
        wheel.expire(now_ms, BATCH, &mut self.due);
        if self.due.is_empty() {
            return None;
        }
        let mut woken = Vec::new();
        for index in self.due.drain(..) {
            let Some(deadline) = self.entries.at(index) else { continue };
            if deadline.deadline_ms > now_ms {
                if sings(Canary::SleepNotArmedAgain) {
                    continue;
                }
                Self::arm(wheel, index, deadline.deadline_ms, now_ms);
                continue;
            }
            woken.extend(deadline.waker.take());
        }
        Some(woken)
    }

    /// The wakers of all. There is no use for it any more.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> {
        self.entries.take_all().into_iter().filter_map(|deadline| deadline.waker)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn next_ms(&self) -> Option<u64> {
        self.wheel.as_ref()?.next_expiry_ms()
    }
}

/// One deadline, and whoever waits for it. Belongs to the reactor it was first polled on.
///
/// It holds numbers only, so that what holds it may be `Send` and `Sync`, as some libraries want of a sleep; it is of
/// use on its reactor alone, and may be dropped anywhere.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    armed: Option<Armed>,
}

/// Where something is kept for a future that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armed {
    pub(super) executor: ExecutorId,
    pub(super) entry: Entry,
}

impl Timer {
    /// Whether the deadline has come; wakes when it does, if not.
    ///
    /// # Panics
    /// Outside of a reactor's tasks, and on another reactor than before.
    pub(crate) fn poll(&mut self, deadline_ms: u64, cx: &mut Context<'_>) -> Poll<()> {
        let executor = Executor::here();
        if let Some(armed) = self.armed {
            assert!(
                armed.executor == executor.id,
                "a sleep that began on one reactor was polled on another; a sleep stays with its own"
            );
        }
        let now_ms = executor.now_us.get() / 1000;
        if now_ms >= deadline_ms {
            self.let_go();
            return Poll::Ready(());
        }
        // Cloned with nothing borrowed: with one that is not ours, that is code of users.
        let waker = cx.waker().clone();
        let mut timers = executor.timers.borrow_mut();
        let armed = self.armed.map(|armed| armed.entry);
        let before = match armed.and_then(|entry| timers.entries.get_mut(entry)) {
            Some(deadline) if deadline.deadline_ms == deadline_ms => deadline.waker.replace(waker),
            _ => {
                let before = armed.and_then(|entry| timers.remove(entry));
                let entry = timers.insert(deadline_ms, waker, now_ms);
                self.armed = Some(Armed { executor: executor.id, entry });
                before
            }
        };
        drop(timers);
        drop_replaced(before);
        Poll::Pending
    }

    fn let_go(&mut self) {
        if let Some(armed) = self.armed.take() {
            Kept::Timer(armed.entry).let_go(armed.executor);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if !sings(Canary::SleepLeftArmed) {
            self.let_go();
        }
    }
}
