//! What a completion queue entry means: from the kernel's numbers to a [`Completion`].
//!
//! Plain data in, plain data out, so that every driver whose kernel speaks in CQEs, real or simulated, takes
//! them in by the same lines. Here the two rules of ownership are kept that a result's sign says nothing
//! about:
//!
//! * a receive buffer is ours when the flags say so (F_BUFFER), whatever the result;
//! * what a zero-copy send reads is the kernel's until its notification (F_NOTIF). [`Intake::hold`] keeps a
//!   reference until then; a result without F_MORE has no notification behind it, and ends it too.
//!
//! Tokens of sends repeat after 256 of them, and a notification may take longer than that. Which of two sends
//! with one token is meant cannot be told then: both are kept until both have been notified of.

use std::rc::Rc;

use io_uring::cqueue;

use super::errno;
use super::memory::Memory;
use crate::canary::{Canary, sings};
use crate::driver::Completion;
use crate::error::Fault;
use crate::span::{Segment, Span};
use crate::token::{Op, Token};

/// In a notification's result: the bytes were copied.
const ZC_COPIED: u32 = 1 << 31;
/// In a watch's result: writing need not wait, for there is room, or nothing to wait for. (POLLRDHUP, which is
/// told unasked, is the peer's FIN, and says nothing of writing.)
const ROOM: i32 = (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) as i32;
/// Of those: the socket is broken. Which way, the next operation is told.
const BROKEN: i32 = libc::POLLERR as i32;

/// The tokens of what a driver asks for itself are numbered from here on, 2^52 of them. They name no operation.
pub(super) const QUESTIONS: u64 = 0xf << 60;
const QUESTIONS_END: u64 = QUESTIONS + (1 << 52);

/// A completion queue entry, in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cqe {
    /// The token's bits.
    pub user_data: u64,
    /// A number of bytes or a descriptor, or an errno below zero.
    pub result: i32,
    /// IORING_CQE_F_*, and the buffer's number in the upper half.
    pub flags: u32,
}

/// A zero-copy send whose notification is awaited.
#[derive(Debug)]
struct Held {
    token: Token,
    /// The references to what it reads.
    spans: Vec<Span>,
    /// Its result came.
    answered: bool,
    /// It was notified of, as far as can be told from one with the same token.
    notified: bool,
}

/// Takes CQEs in.
pub struct Intake {
    memory: Rc<Memory>,
    held: Vec<Held>,
    /// A receive has found no buffer since somebody last asked.
    starved: bool,
    /// Completions of operations nobody here pushed: must stay zero.
    foreign: u64,
}

impl Intake {
    /// For buffers of this store.
    #[must_use]
    pub fn new(memory: Rc<Memory>) -> Self {
        Self { memory, held: Vec::new(), starved: false, foreign: 0 }
    }

    /// Zero-copy sends whose notification is awaited.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Completions of operations nobody here pushed.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Whether a receive has found no buffer since the last call.
    #[inline]
    pub fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Keeps what a zero-copy send reads until the kernel lets go of it.
    pub fn hold(&mut self, token: Token, segments: &[Segment]) {
        let spans = segments.iter().map(|segment| self.memory.retain(*segment)).collect();
        self.held.push(Held { token, spans, answered: false, notified: false });
    }

    /// The meaning of an entry; `None` if it is of no operation of ours.
    #[inline]
    pub fn translate(&mut self, cqe: Cqe) -> Option<Completion> {
        let Cqe { user_data, result, flags } = cqe;
        let Some(token) = Token::from_bits(user_data) else {
            // An answer that came too late is no surprise.
            self.foreign += u64::from(!(QUESTIONS..QUESTIONS_END).contains(&user_data));
            return None;
        };
        let notification = cqueue::notif(flags);
        let more = cqueue::more(flags);
        // A notification's result is no errno, however negative.
        let outcome = match notification {
            true => Ok(0),
            false => u32::try_from(result).map_err(|_| errno::fault(-result)),
        };
        // A send without a copy may fail so too, for want of pinned memory.
        self.starved |= outcome == Err(Fault::NoBuffers) && token.is_of(Op::Receive);
        let span = cqueue::buffer_select(flags).and_then(|number| {
            let span = self.memory.claim(number, outcome.unwrap_or(0));
            if span.length() == 0 {
                if sings(Canary::EmptyBufferKept) {
                    drop(span);
                } else {
                    self.memory.release(span);
                }
                return None;
            }
            Some(span)
        });
        let hint = if notification {
            self.on_notification(token);
            result as u32 & ZC_COPIED != 0
        } else {
            if !self.held.is_empty() && token.is_of(Op::Send) {
                self.on_result(token, more);
            }
            cqueue::sock_nonempty(flags) | (token.is_of(Op::Watch) & (result & ROOM != 0))
        };
        // Asked for what has a hint only.
        let is_broken = hint && token.is_of(Op::Watch) && result & BROKEN != 0;
        let result = if is_broken { Err(Fault::BrokenPipe) } else { outcome };
        Some(Completion { token, result, span, more, notification, hint })
    }

    /// A send has its result. Of one connection one is in flight: it is the one without an answer.
    fn on_result(&mut self, token: Token, more: bool) {
        let unanswered = |held: &Held| held.token == token && !held.answered;
        let Some(place) = self.held.iter().position(unanswered) else { return };
        if more && !sings(Canary::ZeroCopyReleasedAtResult) {
            self.held[place].answered = true;
        } else {
            self.release(place);
        }
    }

    /// The kernel is done with the memory of a zero-copy send.
    #[cold]
    fn on_notification(&mut self, token: Token) {
        let awaited = |held: &Held| held.token == token && held.answered && !held.notified;
        let Some(place) = self.held.iter().position(awaited) else { return };
        self.held[place].notified = true;
        if self.held.iter().any(awaited) {
            return;
        }
        while let Some(place) = self.held.iter().position(|h| h.token == token && h.notified) {
            self.release(place);
        }
    }

    fn release(&mut self, place: usize) {
        let held = self.held.swap_remove(place);
        held.spans.into_iter().for_each(|span| self.memory.release(span));
    }
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("memory", &self.memory)
            .field("held", &self.held.len())
            .field("foreign", &self.foreign)
            .finish_non_exhaustive()
    }
}
