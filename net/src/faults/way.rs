//! One direction of a relay with faults: the bytes that its course counts.
//!
//! Is: leases in their order, moved as the course says. Is not: what becomes of the connections when it ends them
//! (`faults/relaying.rs`).
//!
//! *Reading* stops when the course wants no more, when the other side's outbox is high, and when what is held could not
//! be moved out of the ring's buffers. What is delivered goes to the outbox, whether that is high or not: it is what
//! was held already, so all together stays bounded.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use slipring_core::{Lease, SendRefused};

use crate::conn::Conn;
use crate::policy::faults::{Course, Step};
use crate::tasks::{Sleep, sleep_until};

/// Leases that are received in one poll; the rest is for the next, so that others have theirs.
const RECEIVES_PER_POLL_MAX: usize = 16;
/// A wait is looked at again after so long, however long it is.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// What a direction comes to in a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It goes on when it is woken.
    Waits,
    /// Its FIN passes on now.
    Ends,
    /// Both connections are to be closed.
    Closes,
    /// Both are to be reset: behind what was delivered, or at once.
    Resets { is_behind_bytes: bool },
}

#[derive(Debug)]
pub(super) struct Way {
    course: Course,
    held: VecDeque<Lease>,
    /// Of those at the front, as many lie in plain memory.
    spilled: usize,
    timer: Option<Sleep>,
    delivered_bytes: u64,
    is_read: bool,
    is_over: bool,
    /// Somebody waits for bytes, and so for a reset.
    is_receiving: bool,
}

impl Way {
    pub(super) fn new(course: Course) -> Self {
        Self {
            course,
            held: VecDeque::new(),
            spilled: 0,
            timer: None,
            delivered_bytes: 0,
            is_read: false,
            is_over: false,
            is_receiving: false,
        }
    }

    /// Whether the connection that it comes from is received from.
    pub(super) fn is_receiving(&self) -> bool {
        self.is_receiving
    }

    /// Whether its FIN has passed, or nothing passes any more.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether something waits here to pass.
    pub(super) fn is_under_way(&self) -> bool {
        !self.is_over && (self.is_read || !self.held.is_empty())
    }

    /// Bytes that went to the outbox.
    pub(super) fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// Nothing passes any more.
    pub(super) fn discard(&mut self) {
        self.is_over = true;
        self.held.clear();
        self.spilled = 0;
        self.timer = None;
    }

    /// Moves what is to be moved now.
    pub(super) fn turn(
        &mut self,
        (from, to): (&mut Conn, &mut Conn),
        now: Duration,
        cx: &mut Context<'_>,
    ) -> Turn {
        if self.is_over {
            return Turn::Waits;
        }
        let mut receives = RECEIVES_PER_POLL_MAX;
        self.is_receiving = false;
        let until = loop {
            let until = match self.course.next(now) {
                Step::Deliver(bytes) => match self.deliver(bytes, to) {
                    Ok(()) => continue,
                    // Bytes are missing now: nobody is to take the rest for the whole.
                    Err(Full) => return Turn::Resets { is_behind_bytes: false },
                },
                Step::WaitUntil(until) => Some(until),
                Step::Nothing => None,
                Step::End => return Turn::Ends,
                Step::Close => return Turn::Closes,
                Step::Reset { is_behind_bytes } => return Turn::Resets { is_behind_bytes },
            };
            self.spill();
            if !self.may_receive(to, cx) {
                break until;
            }
            if receives == 0 {
                cx.waker().wake_by_ref();
                break until;
            }
            receives -= 1;
            match from.poll_recv(cx) {
                Poll::Pending => {
                    self.is_receiving = true;
                    break until;
                }
                Poll::Ready(Some(lease)) => {
                    self.course.push(now, lease.len());
                    self.held.push_back(lease);
                }
                Poll::Ready(None) => {
                    self.course.push_end(now);
                    self.is_read = true;
                }
            }
        };
        self.wait(until, now, cx);
        Turn::Waits
    }

    fn may_receive(&self, to: &mut Conn, cx: &mut Context<'_>) -> bool {
        // To whom nothing can be sent any more it is dropped: the end of who sends it is still to be heard of.
        !self.is_read
            && self.course.wants()
            && self.spilled == self.held.len()
            && to.poll_ready(cx).is_ready()
    }

    /// The first so many bytes go out.
    fn deliver(&mut self, bytes: usize, to: &mut Conn) -> Result<(), Full> {
        let mut left = bytes;
        while left > 0 {
            let Some(first) = self.held.front_mut() else { break };
            let part = match first.len() > left {
                true => first.split_to(left),
                false => {
                    self.spilled = self.spilled.saturating_sub(1);
                    let Some(whole) = self.held.pop_front() else { break };
                    whole
                }
            };
            left -= part.len();
            self.delivered_bytes += part.len() as u64;
            if let Err(SendRefused::Full(_)) = to.try_send(part) {
                return Err(Full);
            }
        }
        Ok(())
    }

    /// What is held from here on lies in plain memory, so that the ring has its buffers. If there is none for it, it
    /// stays where it is, and nothing more is read.
    fn spill(&mut self) {
        while let Some(lease) = self.held.get_mut(self.spilled) {
            match lease.clone().spill() {
                Ok(copy) => *lease = copy,
                Err(_) => return,
            }
            self.spilled += 1;
        }
    }

    fn wait(&mut self, until: Option<Duration>, now: Duration, cx: &mut Context<'_>) {
        // Memory may be free again, and nobody tells.
        let retry = Duration::from_millis(5);
        let again = (self.spilled < self.held.len()).then(|| now.saturating_add(retry));
        let Some(until) = until.into_iter().chain(again).min() else {
            self.timer = None;
            return;
        };
        let until = until.min(now.saturating_add(WAIT_MAX));
        let timer = self.timer.get_or_insert_with(|| sleep_until(until));
        timer.reset(until);
        if Pin::new(timer).poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// An outbox took no more.
struct Full;
