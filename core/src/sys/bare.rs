//! A ring at the level of its queues, for scripts that compare kernels: any submission in, raw completions out.
//!
//! Is: safe, and plain data on both sides. What a submission points to, the ring owns: bytes to send,
//! addresses, buffers to fill. It keeps them until the last completion (of a send without a copy: until the
//! notification), and a ring that is dropped with anything in flight leaks them: the kernel winds a ring up
//! after its descriptor is closed, and may look at them meanwhile.
//!
//! Is not: a [`Driver`](crate::driver::Driver). Nothing is checked that a script may want to do wrong, every
//! operation is allowed, and each call is a system call or two. The runtime uses none of this.
//!
//! `words` says what is said, `buffers` keeps the buffers (for any kernel, real or simulated), `sockets` asks
//! the kernel about sockets and limits what the `std` has no calls for.

mod buffers;
mod sockets;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::entries::{GROUP, SharedEntries};
use super::memory::Memory;
use super::probe::set_up_error;
use super::ring::set_optlen;
use crate::error::SetupError;
use crate::span::Span;

pub use buffers::RawBuffers;
pub use sockets::{
    Readiness, Shortage, bytes_waiting, clients_waiting, close, info, local, peer, readiness,
    set_abortive,
};
pub use words::{Completion, Entered, File, Manner, Operation, Setup, Target};

/// Report whether a zero-copy send was one.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
const ENTER_GETEVENTS: u32 = 1;
/// Set in the tokens of what other rings post, so that it ends nothing of this one's.
const FOREIGN: u64 = 1 << 63;
/// Bytes of all sends in flight, at most.
const OWNED_BYTES_MAX: u64 = 64 << 20;

/// What submissions of one token point to.
#[derive(Default)]
struct Held {
    spans: Vec<Span>,
    /// Boxed: the kernel has their addresses.
    #[expect(clippy::vec_box, reason = "an element must not move when another is added")]
    addresses: Vec<Box<socket2::SockAddr>>,
    /// Completions that are still to come, as far as can be told.
    awaited: u32,
}

/// See the module's documentation.
pub struct BareRing {
    // Dropped in this order: the ring before the memory that the kernel knows through it.
    ring: IoUring,
    /// `None` only in `drop`.
    buffers: Option<RawBuffers<SharedEntries>>,
    memory: Rc<Memory>,
    held: BTreeMap<u64, Held>,
}

/// Builds an entry on a file, however it is named.
macro_rules! on {
    ($file:expr, |$fd:ident| $entry:expr) => {
        match $file {
            File::Descriptor(number) => {
                let $fd = Fd(number as i32);
                $entry
            }
            File::Direct(place) => {
                let $fd = Fixed(place);
                $entry
            }
        }
    };
}

impl BareRing {
    /// Sets a ring up. It belongs to the calling thread from now on.
    ///
    /// # Errors
    /// [`SetupError`] with cause and remedy.
    pub fn new(setup: &Setup) -> Result<Self, SetupError> {
        let step = |step| move |source| SetupError::Step { step, source };
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(setup.completions);
        let ring: IoUring = builder.build(setup.submissions).map_err(set_up_error)?;
        let memory = Memory::try_new(setup.buffers, setup.buffer_bytes, OWNED_BYTES_MAX)
            .map_err(step("mapping the buffers"))?;
        let entries = SharedEntries::new(setup.buffers as u16);
        let entries = entries.map_err(step("mapping the buffer ring"))?;
        let submitter = ring.submitter();
        entries.register(&submitter).map_err(step("registering the buffer ring"))?;
        if setup.places > 0 {
            submitter
                .register_files_sparse(setup.places)
                .map_err(step("registering the descriptor table"))?;
        }
        let mut buffers = RawBuffers::new(entries, Rc::clone(&memory), 0);
        buffers.publish_all();
        Ok(Self { ring, buffers: Some(buffers), memory, held: BTreeMap::new() })
    }

    /// The ring's descriptor, for messages to it.
    #[must_use]
    pub fn descriptor(&self) -> u32 {
        self.ring.as_raw_fd() as u32
    }

    fn buffers(&mut self) -> &mut RawBuffers<SharedEntries> {
        self.buffers.as_mut().expect("there until the ring is dropped")
    }

    /// Queues a submission; false if the queue is full.
    ///
    /// # Panics
    /// If the token has its highest bit set.
    pub fn push(&mut self, token: u64, operation: Operation) -> bool {
        assert!(token & FOREIGN == 0, "the highest bit of a token is the ring's own");
        let mut held = Held { awaited: 1, ..Held::default() };
        let entry = self.entry_of(&mut held, operation).user_data(token);
        // SAFETY: what the entry points to is the store's, by a span in `held`, or boxed there. Both stay
        // until the last completion, and are leaked with the ring while there is none.
        let pushed = unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !pushed {
            held.spans.into_iter().for_each(|span| self.memory.release(span));
            return false;
        }
        let all = self.held.entry(token).or_default();
        all.spans.append(&mut held.spans);
        all.addresses.append(&mut held.addresses);
        all.awaited += held.awaited;
        true
    }

    fn entry_of(&self, held: &mut Held, operation: Operation) -> squeue::Entry {
        match operation {
            Operation::Nop => opcode::Nop::new().build(),
            Operation::Unfit => opcode::Nop::new().build().flags(squeue::Flags::BUFFER_SELECT),
            Operation::Accept { on, many, direct } => accept(on, many, direct),
            Operation::Poll { on, write, many } => {
                let events = if write { libc::POLLOUT } else { libc::POLLIN };
                on!(on, |fd| opcode::PollAdd::new(fd, events as u32).multi(many).build())
            }
            Operation::Receive { on, many: false, .. } => {
                // As much as the buffer that is chosen holds.
                on!(on, |fd| opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                    .buf_group(GROUP)
                    .build())
                .flags(squeue::Flags::BUFFER_SELECT)
            }
            Operation::Receive { on, many: true, cap } => {
                let mut entry = on!(on, |fd| opcode::RecvMulti::new(fd, GROUP).build());
                set_optlen(&mut entry, cap);
                entry
            }
            Operation::Send { on, bytes, manner } => self.send(held, on, bytes, manner),
            Operation::Connect { on, to } => {
                let address = Box::new(socket2::SockAddr::from(to));
                let (start, length) = (address.as_ptr().cast(), address.len());
                held.addresses.push(address);
                on!(on, |fd| opcode::Connect::new(fd, start, length).build())
            }
            Operation::Shutdown { on } => {
                on!(on, |fd| opcode::Shutdown::new(fd, libc::SHUT_WR).build())
            }
            Operation::Cancel(target) => opcode::AsyncCancel2::new(cancel(target)).build(),
            Operation::Close(file) => on!(file, |fd| opcode::Close::new(fd).build()),
            Operation::Message { to, token, result } => {
                opcode::MsgRingData::new(Fd(to as i32), result as i32, token | FOREIGN, None)
                    .build()
            }
            Operation::Pass { to, place, into, token } => {
                let slot = match into {
                    Some(place) => DestinationSlot::try_from_slot_target(place),
                    None => Ok(DestinationSlot::auto_target()),
                };
                let slot = slot.unwrap_or_else(|_| DestinationSlot::auto_target());
                opcode::MsgRingSendFd::new(Fd(to as i32), Fixed(place), slot, token | FOREIGN)
                    .build()
            }
        }
    }

    fn send(&self, held: &mut Held, on: File, bytes: Vec<u8>, manner: Manner) -> squeue::Entry {
        let length = bytes.len() as u32;
        let span = self.memory.adopt(bytes).expect("scripts send less than the store holds");
        let start = self.memory.locate(span.segment()).as_ptr().cast_const();
        held.spans.push(span);
        let wait = if manner.waits { 0 } else { libc::MSG_DONTWAIT };
        let flags = wait | if manner.whole { libc::MSG_WAITALL } else { 0 };
        if manner.zero_copy {
            let zc = SEND_ZC_REPORT_USAGE;
            on!(on, |fd| opcode::SendZc::new(fd, start, length).flags(flags).zc_flags(zc).build())
        } else {
            on!(on, |fd| opcode::Send::new(fd, start, length).flags(flags).build())
        }
    }

    /// Hands over what is queued and makes completions of what is ready, without waiting. Submissions taken.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn submit(&mut self) -> io::Result<usize> {
        let taken = if self.ring.submission().is_empty() { 0 } else { self.ring.submit()? };
        // SAFETY: no argument is passed, and what queued submissions point to is kept (see `push`).
        unsafe { self.ring.submitter().enter::<()>(0, 0, ENTER_GETEVENTS, None) }?;
        Ok(taken)
    }

    /// Puts a descriptor into a place of the table, at once.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn fill(&self, place: u32, descriptor: u32) -> io::Result<()> {
        self.ring.submitter().register_files_update(place, &[descriptor as i32]).map(drop)
    }

    /// Submissions that were not taken yet.
    pub fn unsubmitted(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Completions that can be reaped.
    pub fn standing(&mut self) -> usize {
        self.ring.completion().len()
    }

    /// Waits until `want` completions stand in the queue, at most so long. Submits nothing.
    pub fn wait(&mut self, want: u32, at_most: Duration) -> Entered {
        let time = Timespec::from(at_most);
        let arguments = SubmitArgs::new().timespec(&time);
        match self.ring.submitter().submit_with_args(want as usize, &arguments) {
            Ok(_) => Entered::Done,
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Entered::TimeUp,
            Err(error) => Entered::Failed(error.raw_os_error().unwrap_or(0)),
        }
    }

    /// Takes the oldest completion.
    pub fn reap(&mut self) -> Option<Completion> {
        let cqe = self.ring.completion().next()?;
        let (token, flags) = (cqe.user_data(), cqe.flags());
        let more = cqueue::more(flags);
        if !more {
            self.let_go(token);
        }
        let buffer = cqueue::buffer_select(flags);
        let length = cqe.result().max(0) as u32;
        let bytes = buffer.map_or_else(Vec::new, |number| self.buffers().take(number, length));
        Some(Completion {
            token: token & !FOREIGN,
            result: cqe.result(),
            more,
            notification: cqueue::notif(flags),
            nonempty: cqueue::sock_nonempty(flags),
            buffer,
            bytes,
        })
    }

    /// A last completion of this token came: with none awaited, nothing it pointed to is the kernel's.
    fn let_go(&mut self, token: u64) {
        let Some(held) = self.held.get_mut(&token) else { return };
        held.awaited -= 1;
        if held.awaited == 0
            && let Some(held) = self.held.remove(&token)
        {
            held.spans.into_iter().for_each(|span| self.memory.release(span));
            self.memory.settle();
        }
    }

    /// Publishes a held buffer again.
    pub fn recycle(&mut self, buffer: u16) {
        self.buffers().recycle(buffer);
    }
}

fn accept(on: File, many: bool, direct: bool) -> squeue::Entry {
    let null = std::ptr::null_mut;
    match (many, direct) {
        (true, true) => {
            on!(on, |fd| opcode::AcceptMulti::new(fd).allocate_file_index(true).build())
        }
        (true, false) => {
            on!(on, |fd| opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build())
        }
        (false, true) => {
            let slot = Some(DestinationSlot::auto_target());
            on!(on, |fd| opcode::Accept::new(fd, null(), null().cast()).file_index(slot).build())
        }
        (false, false) => {
            let flags = libc::SOCK_CLOEXEC;
            on!(on, |fd| opcode::Accept::new(fd, null(), null().cast()).flags(flags).build())
        }
    }
}

fn cancel(target: Target) -> CancelBuilder {
    match target {
        Target::Token(token) => CancelBuilder::user_data(token),
        Target::AllOfToken(token) => CancelBuilder::user_data(token).all(),
        Target::OneOn(file) => on!(file, |fd| CancelBuilder::fd(fd)),
        Target::AllOn(file) => on!(file, |fd| CancelBuilder::fd(fd)).all(),
        Target::Everything => CancelBuilder::any(),
    }
}

impl Drop for BareRing {
    fn drop(&mut self) {
        if self.held.is_empty() {
            return;
        }
        // The kernel is still winding up when the ring's descriptor is closed.
        std::mem::forget(std::mem::take(&mut self.held));
        std::mem::forget(self.buffers.take());
        std::mem::forget(Rc::clone(&self.memory));
    }
}

impl std::fmt::Debug for BareRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BareRing").field("memory", &self.memory).finish_non_exhaustive()
    }
}
