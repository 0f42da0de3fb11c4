//! What is said to a bare ring and what it says, as plain values: no pointers, no errno turned into a word.

use std::net::SocketAddr;

/// What a bare ring is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Places of the submission queue; a power of two.
    pub submissions: u32,
    /// Places of the completion queue; a power of two, and no fewer.
    pub completions: u32,
    /// Buffers for the kernel to fill, all published at first; a power of two.
    pub buffers: u32,
    /// Bytes of each.
    pub buffer_bytes: u32,
    /// Places of the ring's own descriptor table.
    pub places: u32,
}

impl Setup {
    /// Eight submissions, sixteen completions, eight buffers of sixteen bytes, no table.
    pub const SMALL: Self =
        Self { submissions: 8, completions: 16, buffers: 8, buffer_bytes: 16, places: 0 };
}

/// A file as a submission names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum File {
    /// By a descriptor of the process.
    Descriptor(u32),
    /// By a place in the ring's own table.
    Direct(u32),
}

/// How to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Without copying, if that can be.
    pub zero_copy: bool,
    /// Wait in the kernel for room.
    pub waits: bool,
    /// All of it, not as much as fits (MSG_WAITALL).
    pub whole: bool,
}

/// What to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The operation of this token.
    Token(u64),
    /// All operations of this token.
    AllOfToken(u64),
    /// One operation on this file.
    OneOn(File),
    /// All operations on this file.
    AllOn(File),
    /// Every operation of the ring.
    Everything,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing.
    Nop,
    /// A submission that the kernel refuses on looking at it: a buffer selected for nothing.
    Unfit,
    /// Accept one client, or until told otherwise; as a descriptor, or into the ring's table.
    Accept {
        /// The listener.
        on: File,
        /// Until told otherwise.
        many: bool,
        /// Into the ring's own table.
        direct: bool,
    },
    /// Wait until the file can be read from, or written to.
    Poll {
        /// The file.
        on: File,
        /// Written to.
        write: bool,
        /// Whenever something changes, until told otherwise.
        many: bool,
    },
    /// Receive into a buffer of the ring, once or until told otherwise.
    Receive {
        /// The socket.
        on: File,
        /// Until told otherwise.
        many: bool,
        /// With `many`: bytes after which it ends by itself; 0: it does not.
        cap: u32,
    },
    /// Send the bytes.
    Send {
        /// The socket.
        on: File,
        /// What to send, at least one byte.
        bytes: Vec<u8>,
        /// How.
        manner: Manner,
    },
    /// Connect.
    Connect {
        /// A socket that is not connected.
        on: File,
        /// Where to.
        to: SocketAddr,
    },
    /// Half-close: our FIN.
    Shutdown {
        /// The socket.
        on: File,
    },
    /// End operations early.
    Cancel(Target),
    /// Close the descriptor, or empty the place.
    Close(File),
    /// Post a completion to another ring.
    Message {
        /// The other ring's descriptor.
        to: u32,
        /// The completion's token.
        token: u64,
        /// Its result.
        result: u32,
    },
    /// Give another ring a file of this ring's table: a second reference to it.
    Pass {
        /// The other ring's descriptor.
        to: u32,
        /// The place in this ring's table.
        place: u32,
        /// The place in the other's; `None`: any that is free.
        into: Option<u32>,
        /// The token of the completion the other ring gets.
        token: u64,
    },
}

/// A completion queue entry, with the bytes it brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Of which submission.
    pub token: u64,
    /// As the kernel said it: a number, or an errno below zero.
    pub result: i32,
    /// F_MORE.
    pub more: bool,
    /// F_NOTIF.
    pub notification: bool,
    /// F_SOCK_NONEMPTY.
    pub nonempty: bool,
    /// The buffer it brought, which is held until it is recycled.
    pub buffer: Option<u16>,
    /// A copy of what it brought.
    pub bytes: Vec<u8>,
}

/// How an enter ended that was to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Completions stand in the queue: as many as were waited for, or fewer when the time was up.
    Done,
    /// The time was up, and there are none (ETIME).
    TimeUp,
    /// Another errno.
    Failed(i32),
}
