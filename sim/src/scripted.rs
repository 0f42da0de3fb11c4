//! A driver without a kernel: it keeps what was submitted, and completes what the test says.
//!
//! ```text
//!            push            enter                complete, receive, ..           reap
//!  reactor -------> queued --------> in flight -------------------------> posted ------> reactor
//!            (checked)               (the test looks: `in_flight`)      (checked)
//! ```
//!
//! Both sides are checked, each breach is a panic that says which: of the reactor, that it does nothing on
//! a closed descriptor, has one send in flight on each, none after its FIN, closes nothing that is in use
//! and keeps what is being sent; of the test, that it completes only what is in flight, and fills only
//! published buffers. [`Scripted::inject`] alone posts anything.
//!
//! `scripted.rs` is the driver the reactor sees, `scripted/script.rs` what the test says to it, and
//! `scripted/sockets.rs` the descriptors and their rules.

mod script;
mod sockets;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use slipring_core::driver::{
    self, Abilities, Completion, Driver, DriverFailed, QueueFull, Share, Submission, Wait,
};
use slipring_core::span::{Segment, Span};
use slipring_core::sys::memory::Memory;
use slipring_core::token::{Descriptor, Op, Token};
use slipring_core::{Fault, Limits};

use sockets::{Asked, Sockets};

/// A submission, as an owned value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// See [`Submission::AcceptMany`].
    AcceptMany(Descriptor),
    /// See [`Submission::WatchReadable`].
    WatchReadable(Descriptor),
    /// See [`Submission::WatchWritable`].
    WatchWritable {
        /// The connection's socket.
        descriptor: Descriptor,
        /// Whether it goes on.
        many: bool,
    },
    /// See [`Submission::Receive`].
    Receive {
        /// The connection's socket.
        descriptor: Descriptor,
        /// Bytes after which it ends.
        cap: u32,
    },
    /// See [`Submission::Send`].
    Send {
        /// The connection's socket.
        descriptor: Descriptor,
        /// The bytes, as they were when it was pushed.
        bytes: Vec<u8>,
        /// Whether the copy should be avoided.
        zero_copy: bool,
    },
    /// See [`Submission::Connect`].
    Connect {
        /// The socket.
        descriptor: Descriptor,
        /// Where to.
        address: SocketAddr,
    },
    /// See [`Submission::ShutdownWrite`].
    ShutdownWrite(Descriptor),
    /// See [`Submission::Cancel`].
    Cancel(Token),
    /// See [`Submission::Close`].
    Close(Descriptor),
    /// See [`Submission::Notify`].
    Notify(usize),
    /// [`Driver::push_wake`].
    Wake,
}

impl Submitted {
    /// The descriptor it is about; `None` for cancels and the wake.
    #[must_use]
    pub fn descriptor(&self) -> Option<Descriptor> {
        match *self {
            Self::AcceptMany(descriptor)
            | Self::WatchReadable(descriptor)
            | Self::WatchWritable { descriptor, .. }
            | Self::Receive { descriptor, .. }
            | Self::Send { descriptor, .. }
            | Self::Connect { descriptor, .. }
            | Self::ShutdownWrite(descriptor)
            | Self::Close(descriptor) => Some(descriptor),
            Self::Cancel(_) | Self::Notify(_) | Self::Wake => None,
        }
    }
}

/// Where an operation is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Pushed.
    Queued,
    /// Entered.
    Kernel,
    /// Its terminal completion waits to be reaped.
    Posted,
}

/// An operation that has not ended, as far as the reactor knows.
#[derive(Debug)]
pub struct Operation {
    /// Its token.
    pub token: Token,
    /// What was asked for.
    pub submitted: Submitted,
    /// The share it was pushed on.
    pub share: Share,
    place: Place,
    segments: Vec<Segment>,
}

impl Operation {
    /// Which operation.
    #[must_use]
    pub fn op(&self) -> Op {
        self.token.decode().0
    }
}

/// What the kernel still reads of a zero-copy send.
#[derive(Debug)]
struct Held {
    token: Token,
    spans: Vec<Span>,
    bytes: Vec<u8>,
    /// Its result is out: the notification may come.
    answered: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Scripted {
    abilities: Abilities,
    memory: Rc<Memory>,
    now_us: u64,
    queue_size: u32,
    management: u32,
    operations: Vec<Operation>,
    completions: VecDeque<Completion>,
    sockets: Rc<RefCell<Sockets>>,
    held: Vec<Held>,
    /// In the order the kernel would fill them.
    published: VecDeque<u16>,
    log: Vec<Submitted>,
    waits: Vec<Wait>,
    stuck: bool,
    sends_refused: u32,
    open_faults: VecDeque<Fault>,
    accept_faults: VecDeque<Fault>,
    /// Clients that wait at listeners.
    queued_clients: VecDeque<(Descriptor, Descriptor)>,
    enter_failure: Option<String>,
    rung: bool,
    rings: u64,
}

impl Scripted {
    /// A driver with buffers and queue as these limits say.
    #[must_use]
    pub fn new(limits: &Limits, abilities: Abilities) -> Self {
        let memory = Memory::new(limits.buffers, limits.buffer_bytes, limits.owned_bytes_max);
        let mut scripted = Self {
            abilities,
            memory,
            now_us: 0,
            queue_size: limits.submissions,
            management: limits.submissions / slipring_core::config::MANAGEMENT_SHARE,
            operations: Vec::new(),
            completions: VecDeque::new(),
            sockets: Rc::default(),
            held: Vec::new(),
            published: VecDeque::new(),
            log: Vec::new(),
            waits: Vec::new(),
            stuck: false,
            sends_refused: 0,
            open_faults: VecDeque::new(),
            accept_faults: VecDeque::new(),
            queued_clients: VecDeque::new(),
            enter_failure: None,
            rung: false,
            rings: 0,
        };
        scripted.recycle();
        scripted
    }

    /// Sets the size of the submission queue, and how much of it is for management only. A queue without room
    /// refuses every push.
    ///
    /// # Panics
    /// If the share is more than the whole.
    pub fn set_queue(&mut self, size: u32, management: u32) {
        assert!(management <= size, "a share is no more than the whole");
        self.queue_size = size;
        self.management = management;
    }

    fn queued(&self) -> u32 {
        self.operations.iter().filter(|operation| operation.place == Place::Queued).count() as u32
    }

    /// The bytes of segments that somebody holds.
    fn read(&self, segments: &[Segment]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in segments {
            bytes.extend_from_slice(&self.memory.lease(self.memory.retain(*segment)));
        }
        bytes
    }

    fn own(&self, submission: Submission<'_>) -> Submitted {
        match submission {
            Submission::AcceptMany(descriptor) => Submitted::AcceptMany(descriptor),
            Submission::WatchReadable(descriptor) => Submitted::WatchReadable(descriptor),
            Submission::WatchWritable { descriptor, many } => {
                Submitted::WatchWritable { descriptor, many }
            }
            Submission::Receive { descriptor, cap } => Submitted::Receive { descriptor, cap },
            Submission::Send { descriptor, segments, zero_copy } => {
                assert!(!segments.is_empty(), "a send without a segment");
                assert!(segments.iter().all(|s| s.length > 0), "a send of an empty segment");
                Submitted::Send { descriptor, bytes: self.read(segments), zero_copy }
            }
            Submission::Connect { descriptor, address } => {
                Submitted::Connect { descriptor, address: *address }
            }
            Submission::ShutdownWrite(descriptor) => Submitted::ShutdownWrite(descriptor),
            Submission::Cancel(token) => Submitted::Cancel(token),
            Submission::Close(descriptor) => Submitted::Close(descriptor),
            Submission::Notify(reactor) => Submitted::Notify(reactor),
        }
    }

    fn queue(&mut self, token: Token, submitted: Submitted, share: Share, segments: &[Segment]) {
        let op = token.decode().0;
        // A second cancel of the same operation's next activation has the token of the first.
        let twice = op != Op::Cancel && self.operations.iter().any(|other| other.token == token);
        assert!(!twice, "{op:?}: the token of an operation in flight was used again");
        self.sockets.borrow_mut().check(token, &submitted, &self.operations);
        if let Submitted::Send { zero_copy: true, bytes, .. } = &submitted {
            let spans = segments.iter().map(|segment| self.memory.retain(*segment)).collect();
            self.held.push(Held { token, spans, bytes: bytes.clone(), answered: false });
        }
        self.log.push(submitted.clone());
        let segments = segments.to_vec();
        self.operations.push(Operation { token, submitted, share, place: Place::Queued, segments });
    }

    fn post_wake(&mut self) {
        let is_watch = |o: &&Operation| o.submitted == Submitted::Wake && o.place == Place::Kernel;
        let watch = self.operations.iter().find(is_watch).map(|watch| watch.token);
        if self.rung
            && let Some(token) = watch
        {
            self.complete(token, Ok(1));
        }
    }
}

impl Driver for Scripted {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn now_us(&self) -> u64 {
        self.now_us
    }

    fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    fn room(&self, share: Share) -> u32 {
        let free = self.queue_size.saturating_sub(self.queued());
        match share {
            Share::Management => free,
            Share::Data => free.saturating_sub(self.management),
        }
    }

    fn push(
        &mut self,
        token: Token,
        submission: Submission<'_>,
        share: Share,
    ) -> Result<(), QueueFull> {
        if self.room(share) == 0 {
            return Err(QueueFull);
        }
        let segments = match submission {
            Submission::Send { segments, .. } => segments,
            _ => &[],
        };
        if self.sends_refused > 0 && token.decode().0 == Op::Send {
            self.sends_refused -= 1;
            return Err(QueueFull);
        }
        let submitted = self.own(submission);
        self.queue(token, submitted, share, segments);
        Ok(())
    }

    fn enter(&mut self, wait: Wait) -> Result<(), DriverFailed> {
        self.waits.push(wait);
        if let Some(cause) = self.enter_failure.take() {
            return Err(DriverFailed { cause });
        }
        if self.stuck {
            return Ok(());
        }
        for operation in &mut self.operations {
            if operation.place == Place::Queued {
                operation.place = Place::Kernel;
            }
        }
        self.memory.settle();
        self.post_wake();
        Ok(())
    }

    fn has_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    fn reap(&mut self, into: &mut Vec<Completion>, limit: usize) {
        for _ in 0..limit {
            let Some(completion) = self.completions.pop_front() else { return };
            let token = completion.token;
            // After the result of a send only its notification follows, which is not the operation's.
            let last = !completion.more || token.decode().0 == Op::Send;
            if last && !completion.notification {
                let ended = |o: &Operation| o.token == token && o.place == Place::Posted;
                if let Some(place) = self.operations.iter().position(ended) {
                    self.operations.remove(place);
                }
            }
            into.push(completion);
        }
    }

    fn recycle(&mut self) -> u32 {
        let before = self.published.len();
        while let Some(number) = self.memory.take_returned() {
            self.published.push_back(number);
        }
        (self.published.len() - before) as u32
    }

    fn open_socket(&mut self, _: &SocketAddr, _: Option<IpAddr>) -> Result<Descriptor, Fault> {
        match self.open_faults.pop_front() {
            Some(fault) => Err(fault),
            None => Ok(self.sockets.borrow_mut().open()),
        }
    }

    fn set_abortive(&mut self, descriptor: Descriptor) {
        self.sockets.borrow_mut().set_abortive(descriptor);
    }

    fn accept_queued(&mut self, listener: Descriptor) -> Result<Descriptor, Fault> {
        assert!(
            self.sockets.borrow_mut().is_open(listener),
            "accept_queued at {listener:?}, which is closed"
        );
        let used = self.operations.iter().any(|o| o.submitted.descriptor() == Some(listener));
        assert!(!used, "accept_queued at {listener:?} beside an operation in flight");
        match self.accept_faults.pop_front() {
            Some(fault) => Err(fault),
            None => self.take_queued_client(listener).ok_or(Fault::WouldBlock),
        }
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        self.sockets.borrow_mut().close_now(descriptor);
    }

    fn unsent(&mut self, descriptor: Descriptor) -> Option<u32> {
        self.sockets.borrow_mut().unsent(descriptor)
    }

    fn push_wake(&mut self, token: Token) -> Result<(), QueueFull> {
        if self.room(Share::Management) == 0 {
            return Err(QueueFull);
        }
        self.queue(token, Submitted::Wake, Share::Management, &[]);
        Ok(())
    }

    fn clear_wake(&mut self) {
        self.rung = false;
    }

    fn sockets(&self) -> Rc<dyn driver::Sockets> {
        Rc::new(Asked(Rc::clone(&self.sockets)))
    }
}
