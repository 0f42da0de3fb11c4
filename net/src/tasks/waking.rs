//! How a task is woken: by its number, from anywhere.
//!
//! ```text
//!  63        48 47                  24 23                   0
//! +------------+----------------------+----------------------+
//! |  executor  |      generation      |        index         |
//! +------------+----------------------+----------------------+
//! ```
//!
//! A number that has outlived its task finds nothing, or, after 2^24 tasks of its executor, another task in the same
//! place, which is polled once for nothing: a future has to stand that. The same goes for one that has outlived its
//! executor: the next of that number counts on.

use std::task::Waker;

use slipring_core::sys::{WakeNumber, WakerTable, number_of};

use super::catching::{catch, drop_each};
use super::{Executor, remote};

pub(super) const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
pub(super) const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;

/// Names a task for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    pub(super) executor: u16,
    pub(super) generation: u32,
    pub(super) index: u32,
}

impl TaskId {
    pub(super) fn to_bits(self) -> u64 {
        let generation = u64::from(self.generation) << INDEX_BITS;
        u64::from(self.executor) << (INDEX_BITS + GENERATION_BITS)
            | generation
            | u64::from(self.index)
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            executor: (bits >> (INDEX_BITS + GENERATION_BITS)) as u16,
            generation: (bits >> INDEX_BITS) as u32 & GENERATION_MAX,
            index: bits as u32 & ((1 << INDEX_BITS) - 1),
        }
    }

    /// Whose waker it is, if it is a task's own.
    #[inline]
    pub(super) fn of(waker: &Waker) -> Option<Self> {
        number_of::<TaskWake>(waker).map(Self::from_bits)
    }
}

static TABLE: WakerTable = WakerTable::new::<TaskWake>();

/// What the wakers of tasks call.
pub(super) struct TaskWake;

impl WakeNumber for TaskWake {
    fn table() -> &'static WakerTable {
        &TABLE
    }

    fn wake(number: u64) {
        let id = TaskId::from_bits(number);
        let is_here = Executor::with(|executor| {
            let is_own = executor.id.number == id.executor;
            if is_own {
                executor.wake(id);
            }
            is_own
        });
        if is_here != Some(true) {
            remote::wake(id);
        }
    }
}

/// Wakes whoever waits for an end, from wherever that is said: its own panic would take the end of another task for one
/// of that task, or, said while a panic takes that apart, the process along.
pub(crate) fn wake_waiter(waker: Waker) {
    if TaskId::of(&waker).is_some() {
        waker.wake();
    } else if catch(|| waker.wake()).is_none() {
        Executor::with(|executor| executor.note_panics_of_wakers(1));
    }
}

/// Drops such wakers: each by itself, for the same reason.
#[cfg(any(feature = "tls", feature = "tower"))]
pub(crate) fn drop_waiters(wakers: impl IntoIterator<Item = Waker>) {
    let panics = drop_each(wakers);
    Executor::with(|executor| executor.note_panics_of_wakers(panics));
}

/// Drops a waker that another has taken the place of, when nothing is borrowed any more: with one that is not ours,
/// anything may be dropped, and its panic is not that of who polls.
#[inline]
pub(super) fn drop_replaced(waker: Option<Waker>) {
    if let Some(waker) = waker
        && TaskId::of(&waker).is_none()
        && drop_each([waker]) > 0
    {
        Executor::with(|executor| executor.note_panics_of_wakers(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_s_own_waker_is_known_for_one() {
        let id = TaskId { executor: 3, generation: 2, index: 1 };
        let waker = slipring_core::sys::waker::<TaskWake>(id.to_bits());
        assert_eq!(TaskId::of(&waker.clone()), Some(id));
        assert_eq!(TaskId::of(Waker::noop()), None);
    }

    #[test]
    fn a_number_has_room_for_all_of_it() {
        for executor in [0, 7, u16::MAX] {
            for generation in [0, 1, GENERATION_MAX] {
                for index in [0, 1, (1 << INDEX_BITS) - 1] {
                    let id = TaskId { executor, generation, index };
                    assert_eq!(TaskId::from_bits(id.to_bits()), id);
                }
            }
        }
    }
}
