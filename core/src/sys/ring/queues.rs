//! The ring itself: its two queues, the call that hands over what is queued, and questions with a call of their own.
//!
//! Everything here takes `&self`: what answers questions about sockets in the table has a share in it, since handlers
//! ask, and the driver is not at hand then. That share is a weak one: the ring goes when its driver does, before the
//! memory that the kernel knows through it.
//!
//! A question is an entry of the queue, and an enter follows at once. What is queued before it is handed over with it,
//! and what completes in that meanwhile is kept here for `reap`: nothing is dispatched inside a question.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;

use io_uring::{IoUring, squeue};

use super::super::errno;
use super::super::intake::{Cqe, QUESTIONS};
use crate::driver::{DriverFailed, QueueFull};
use crate::error::Fault;

/// Enters that an answer is waited for: as a rule it is there after the first, but the kernel may have no memory for
/// the question at the moment.
const ENTERS_MAX: u32 = 64;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;

#[repr(C)]
struct GetEvents {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// See the module's documentation.
pub(super) struct Queues {
    pub(super) ring: IoUring,
    enter_fd: i32,
    enter_flags: u32,
    /// Questions asked so far: each has a token of its own.
    questions: Cell<u64>,
    /// What completed while an answer was awaited, the oldest first.
    kept: RefCell<VecDeque<Cqe>>,
    has_kept: Cell<bool>,
    /// The enter of a question failed, and nobody could be told.
    failed: Cell<Option<DriverFailed>>,
}

impl Queues {
    /// Of a ring that is entered by this descriptor and with these flags beside the usual.
    pub(super) fn new(ring: IoUring, enter_fd: i32, flags: u32) -> Self {
        Self {
            ring,
            enter_fd,
            enter_flags: ENTER_GETEVENTS | ENTER_EXT_ARG | flags,
            questions: Cell::new(0),
            kept: RefCell::default(),
            has_kept: Cell::new(false),
            failed: Cell::new(None),
        }
    }

    /// A look at the submission queue.
    #[inline]
    fn submissions<T>(&self, look: impl FnOnce(&mut squeue::SubmissionQueue<'_>) -> T) -> T {
        // SAFETY: one thread has this, and no other view of the queue is alive: none leaves this function, and no
        // `look` of this file looks again.
        let mut queue = unsafe { self.ring.submission_shared() };
        look(&mut queue)
    }

    /// Entries that are queued, and that fit.
    #[inline]
    pub(super) fn filled(&self) -> (usize, usize) {
        self.submissions(|queue| (queue.len(), queue.capacity()))
    }

    /// Whether the kernel has taken all that was queued.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.filled().0 == 0
    }

    /// Whether the kernel has work to do for the ring, which an enter does.
    pub(super) fn has_work(&self) -> bool {
        self.submissions(|queue| queue.taskrun())
    }

    #[inline]
    pub(super) fn push(&self, entry: &squeue::Entry) -> Result<(), QueueFull> {
        // SAFETY: what the entry points to is the store's (held by the reactor's spans until the
        // completion, or by `intake` until the notification) or the arena's (kept until the kernel has taken
        // every queued submission), or constant; all of them outlive the ring.
        self.submissions(|queue| unsafe { queue.push(entry) }).map_err(|_| QueueFull)
    }

    /// The system call. An interrupted or refused one is an early return.
    pub(super) fn enter(&self, wait_for: u32, sleep_us: Option<u64>) -> Result<(), DriverFailed> {
        let to_submit = self.filled().0 as u32;
        let timeout = sleep_us.map(|us| libc::timespec {
            tv_sec: (us / 1_000_000) as libc::time_t,
            tv_nsec: (us % 1_000_000 * 1000) as libc::c_long,
        });
        let argument = GetEvents {
            sigmask: 0,
            sigmask_bytes: 0,
            min_wait_us: 0,
            timeout: timeout.as_ref().map_or(0, |spec| std::ptr::from_ref(spec) as u64),
        };
        // SAFETY: the argument and the time it points to live until the call returns.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                to_submit,
                wait_for,
                self.enter_flags,
                &raw const argument,
                size_of::<GetEvents>(),
            )
        };
        if taken < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                Some(libc::EBADR) => {
                    return Err(DriverFailed { cause: "the kernel lost completions".to_owned() });
                }
                _ => return Err(DriverFailed { cause: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Whether something has completed that nobody has taken.
    #[inline]
    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: as in `submissions`, of the other queue.
        !unsafe { self.ring.completion_shared() }.is_empty() || self.has_kept.get()
    }

    /// The oldest completion that stands in the ring's own queue: those kept are older.
    #[inline]
    pub(super) fn next(&self) -> Option<Cqe> {
        // SAFETY: as in `submissions`, of the other queue.
        let cqe = unsafe { self.ring.completion_shared() }.next()?;
        Some(Cqe { user_data: cqe.user_data(), result: cqe.result(), flags: cqe.flags() })
    }

    #[inline]
    pub(super) fn has_kept(&self) -> bool {
        self.has_kept.get()
    }

    /// The oldest of those that completed while an answer was awaited.
    #[cold]
    pub(super) fn next_kept(&self) -> Option<Cqe> {
        let mut kept = self.kept.borrow_mut();
        let cqe = kept.pop_front();
        self.has_kept.set(!kept.is_empty());
        cqe
    }

    /// The failure of an enter that had nobody to tell it to.
    #[inline]
    pub(super) fn failure(&self) -> Result<(), DriverFailed> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Asks, and waits for the answer.
    #[cold]
    pub(super) fn ask(&self, question: &squeue::Entry) -> Result<u32, Fault> {
        self.questions.set(self.questions.get() + 1);
        let token = QUESTIONS | self.questions.get();
        let question = question.clone().user_data(token);
        if self.push(&question).is_err() {
            self.enter_aside()?;
            self.push(&question).map_err(|_| Fault::Memory)?;
        }
        for _ in 0..ENTERS_MAX {
            self.enter_aside()?;
            while let Some(cqe) = self.next() {
                if cqe.user_data == token {
                    return u32::try_from(cqe.result).map_err(|_| errno::fault(-cqe.result));
                }
                self.kept.borrow_mut().push_back(cqe);
                self.has_kept.set(true);
            }
        }
        Err(Fault::Memory)
    }

    /// Enters without a wait. A failure shows again at the turn's own enter.
    fn enter_aside(&self) -> Result<(), Fault> {
        self.enter(0, Some(0)).map_err(|failed| {
            self.failed.set(Some(failed));
            Fault::Cancelled
        })
    }
}
