//! What a reactor needs of a kernel: the seam between everything that decides and the one thing that
//! performs.
//!
//! Submissions and completions are plain data; nothing above this line knows what an SQE, an errno or a
//! pointer is. `sys::Ring` is the io_uring behind it; the `slipring-sim` crate has drivers without one.
//!
//! The contract, which a driver keeps and a reactor leans on:
//!
//! 1. Every submission that `push` took has exactly one terminal completion: the one with
//!    [`Completion::more`] clear. Multishot operations may have any number before it; a zero-copy send has
//!    its result with `more` set, then a notification.
//! 2. `push` never reaches the kernel by itself; `enter` does, in the order of the pushes.
//! 3. A buffer that a completion brings belongs to whoever takes the completion, until it is released to
//!    [`Memory`] and `recycle` is called.
//! 4. The reactor keeps the spans of a send until its result. What the kernel reads after that, as it does
//!    when it sends without a copy, the driver keeps until the notification.
//! 5. The end of a cancelled operation and the end of its cancel come in either order.
//! 6. What [`Driver::sockets`] hands out answers at any time between two calls of the driver, while a handler is
//!    called above all. An answer may take an enter that hands over what is queued; what completes by it is there
//!    for the next `reap`. Nobody asks about a descriptor whose close was pushed.

mod sockets;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::error::Fault;
use crate::span::{Segment, Span};
use crate::sys::memory::Memory;
use crate::token::{Descriptor, Token};

pub use sockets::{Sockets, TcpInfo};

/// One operation to start.
#[derive(Clone, Copy, Debug)]
pub enum Submission<'a> {
    /// Accept until told otherwise; each completion's result is a descriptor.
    AcceptMany(Descriptor),
    /// Complete once the descriptor can be read from (a listener: a client waits).
    WatchReadable(Descriptor),
    /// Complete once the descriptor can be written to, or is broken, which the completion's `hint` says; or
    /// because the peer will send no more, which polls tell unasked.
    WatchWritable {
        /// The connection's socket.
        descriptor: Descriptor,
        /// Go on, and complete whenever something changes: as a rule once for each time that a send found no
        /// room.
        many: bool,
    },
    /// Receive into buffers of the ring until told otherwise, or until `cap` bytes came (0: no cap).
    Receive {
        /// The connection's socket.
        descriptor: Descriptor,
        /// Bytes after which the operation ends by itself, on tiers that can.
        cap: u32,
    },
    /// Send the segments as one message, as far as the socket takes them without waiting.
    Send {
        /// The connection's socket.
        descriptor: Descriptor,
        /// The bytes, in order; at least one segment, none empty.
        segments: &'a [Segment],
        /// Without copying them, if the driver can.
        zero_copy: bool,
    },
    /// Connect a socket made by [`Driver::open_socket`].
    Connect {
        /// The socket.
        descriptor: Descriptor,
        /// Where to.
        address: &'a SocketAddr,
    },
    /// Half-close: our FIN.
    ShutdownWrite(Descriptor),
    /// End the operation of this token early.
    Cancel(Token),
    /// Close the descriptor.
    Close(Descriptor),
    /// Wake the reactor of this number: a `Mail` completion is put into its ring.
    Notify(usize),
}

/// Which part of the submission queue a push may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What moves data or starts something.
    Data,
    /// What ends something: it may use the management share too.
    Management,
}

/// One thing the kernel did.
#[derive(Debug)]
pub struct Completion {
    /// What was pushed with the submission.
    pub token: Token,
    /// The operation's number: bytes, a descriptor, or nothing; or what went wrong.
    pub result: Result<u32, Fault>,
    /// The received bytes, at least one, when the operation brings some.
    pub span: Option<Span>,
    /// The operation is not over: more completions of this token follow.
    pub more: bool,
    /// The kernel has let go of a zero-copy send's memory.
    pub notification: bool,
    /// With a notification: the bytes were copied after all. With an accept: more clients wait. With a watch:
    /// there is room.
    pub hint: bool,
}

const _: () = assert!(size_of::<Completion>() == 32, "two in a cache line");

impl Completion {
    /// Takes it out of a list that it need not leave, without its bytes.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        let Self { token, result, ref mut span, more, notification, hint } = *self;
        Self { token, result, span: span.take(), more, notification, hint }
    }
}

/// How long `enter` may wait for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Watch the completion queue for this long before sleeping, microseconds.
    pub spin_us: u32,
    /// Come back after this long at the latest, the watch included, microseconds; zero: do not wait; `None`:
    /// once something completes.
    pub sleep_us: Option<u64>,
}

impl Wait {
    /// Submit, take what is there, and come back.
    pub const NOT: Self = Self { spin_us: 0, sleep_us: Some(0) };
}

/// The submission queue's share is used up: enter, then push again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The driver cannot go on: completions were lost, or the ring is gone.
#[derive(Debug, thiserror::Error)]
#[error("the ring failed: {cause}")]
pub struct DriverFailed {
    /// What happened.
    pub cause: String,
}

/// Rings a reactor from another thread: its `enter` returns and a `Wake` completion follows.
pub trait Wake: Send + Sync {
    /// Rings. Rings that come before the reactor has looked may count as one.
    fn wake(&self);
}

/// What the driver can do beyond the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// A receive ends by itself after `cap` bytes.
    pub receive_cap: bool,
    /// Sends without a copy.
    pub zero_copy: bool,
}

/// A kernel, as one reactor sees it.
pub trait Driver {
    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Microseconds on its monotonic clock.
    fn now_us(&self) -> u64;

    /// Microseconds of processor time that the reactor has used; always zero if that is not known. Asked for when
    /// somebody wants to know: it may be a system call.
    fn ran_us(&self) -> u64 {
        0
    }

    /// The store of all bytes.
    fn memory(&self) -> &Rc<Memory>;

    /// Submissions that still fit into the share.
    fn room(&self, share: Share) -> u32;

    /// Queues one operation.
    ///
    /// # Errors
    /// [`QueueFull`] when the share has no room; nothing was queued then.
    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        share: Share,
    ) -> Result<(), QueueFull>;

    /// Hands everything queued to the kernel and waits. An interrupted wait is an early return.
    ///
    /// # Errors
    /// [`DriverFailed`] when the ring can no longer be trusted.
    fn enter(&mut self, wait: Wait) -> Result<(), DriverFailed>;

    /// Whether completions are there to be reaped.
    fn has_completions(&self) -> bool;

    /// Appends at most `limit` completions to `into`, oldest first.
    fn reap(&mut self, into: &mut Vec<Completion>, limit: usize);

    /// Gives released buffers back to the kernel; returns how many.
    fn recycle(&mut self) -> u32;

    /// Takes an accepted socket, with which nothing was begun, to where it stays as long as it is served here: into
    /// the table of the ring, if that has one and a place in it is free. What it is called by from now on.
    ///
    /// Everything of this trait takes a place for a descriptor but what accepts.
    fn move_in(&mut self, descriptor: Descriptor) -> Descriptor {
        descriptor
    }

    /// The other way, for one that goes to another reactor, with nothing in flight: a descriptor of the process, beside
    /// the place in the table, which is still to be [closed](Self::close_now); `None` if none is to be had. One that is
    /// in no table is what it was.
    fn move_out(&mut self, descriptor: Descriptor) -> Option<Descriptor> {
        Some(descriptor)
    }

    /// Makes a socket to dial the address with, that comes from this one of the host's addresses if one is given.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn open_socket(
        &mut self,
        address: &SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<Descriptor, Fault>;

    /// Makes the next close of the descriptor a reset.
    fn set_abortive(&mut self, descriptor: Descriptor);

    /// Accepts a client that queues at the listener, at once and without waiting for one. For when nothing
    /// of the listener is in flight.
    ///
    /// # Errors
    /// [`Fault::WouldBlock`] when none queues; otherwise the kernel's refusal.
    fn accept_queued(&mut self, listener: Descriptor) -> Result<Descriptor, Fault>;

    /// Closes the descriptor at once, whatever is in flight. For the end of a driver that has failed, and for
    /// a client that nothing was begun with.
    fn close_now(&mut self, descriptor: Descriptor);

    /// Bytes in the send queue of a connected socket: taken, but not yet acknowledged by the peer. `None` if
    /// it cannot be told. Asked for stalled connections only, a few times in each write-stall timeout.
    fn unsent(&mut self, descriptor: Descriptor) -> Option<u32> {
        let _ = descriptor;
        None
    }

    /// Queues the watch for rings of other threads; its completion has the token.
    ///
    /// # Errors
    /// [`QueueFull`] when the share has no room.
    fn push_wake(&mut self, token: Token) -> Result<(), QueueFull>;

    /// Forgets the rings so far. Call before looking for what they were about.
    fn clear_wake(&mut self);

    /// What answers questions about its sockets. Asked for once, by a reactor that is made.
    fn sockets(&self) -> Rc<dyn Sockets>;
}
