//! The words of the machine: what it stands in, takes in, tells and asks for.

use crate::config::{Limits, Timeouts};
use crate::error::{CloseReason, Fault};
use crate::token::Op;

/// What is the same for all connections of a reactor. Times in milliseconds, zero for never.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Both directions silent.
    pub idle_ms: u32,
    /// Bytes waiting and none taken.
    pub write_stall_ms: u32,
    /// One direction closed, the other silent.
    pub half_closed_ms: u32,
    /// From our FIN to the peer's.
    pub linger_ms: u32,
    /// From the accept to the peer's first byte.
    pub first_byte_ms: u32,
    /// Where the reading that feeds an outbox stops, bytes.
    pub high_bytes: u32,
    /// Where it goes on, bytes.
    pub low_bytes: u32,
    /// Where it stops, pieces.
    pub high_pieces: u32,
    /// What an outbox may hold, bytes.
    pub outbox_bytes_max: u32,
    /// From how many bytes on a send should avoid the copy; zero for never.
    pub zero_copy_min: u32,
    /// A receive ends by itself, so that pausing need not cancel it.
    pub receive_cap: bool,
}

impl Rules {
    /// The rules that follow from a configuration, on a driver whose receives end by themselves, or not.
    #[must_use]
    pub fn new(limits: &Limits, timeouts: &Timeouts, receive_cap: bool, zero_copy: bool) -> Self {
        Self {
            idle_ms: timeouts.idle.to_ms(),
            write_stall_ms: timeouts.write_stall.to_ms(),
            half_closed_ms: timeouts.half_closed.to_ms(),
            linger_ms: timeouts.linger.to_ms(),
            first_byte_ms: timeouts.first_byte.to_ms(),
            high_bytes: limits.outbox_high_bytes,
            low_bytes: limits.outbox_low_bytes,
            high_pieces: limits.outbox_pieces_high,
            outbox_bytes_max: limits.outbox_bytes_max,
            zero_copy_min: limits.zero_copy_min_bytes.filter(|_| zero_copy).unwrap_or(0),
            receive_cap,
        }
    }
}

/// Which direction of a half-closed connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// We sent, or will send, our FIN.
    Ours,
    /// The peer's FIN came.
    Theirs,
}

/// Where a connection stands.
///
/// Its kind has a byte of its own, since every message asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Dialed, not yet connected.
    Opening {
        /// When the dial is given up.
        deadline_ms: u64,
        /// Asked to shut down meanwhile.
        shut_down: bool,
    },
    /// Both directions open.
    Established,
    /// One direction open.
    HalfClosed {
        /// The one that is not.
        side: Side,
        /// Since when.
        since_ms: u64,
    },
    /// Closing in order: flush, FIN, read and drop until the peer's FIN.
    Draining {
        /// The peer's FIN has come: nothing to wait for after the flush.
        peer_done: bool,
        /// What it will have ended for.
        reason: CloseReason,
        /// Bytes dropped so far.
        discarded: u32,
        /// When waiting for the peer's FIN ends; never, until ours is out.
        linger_until_ms: u64,
    },
    /// Waiting for the kernel to let go.
    Closing {
        /// What it ended for.
        reason: CloseReason,
    },
}

/// What happened, or is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The dial's outcome.
    Connected(Result<(), Fault>),
    /// Bytes came; `more`: the receive stays armed.
    Received {
        /// How many, at least one.
        bytes: u32,
        /// Whether the receive stays armed.
        more: bool,
    },
    /// The receive ended with the peer's FIN.
    EndOfStream,
    /// The receive ended without bytes: for want of a buffer, by a cancel, or by a failure.
    ReceiveEnded(Fault),
    /// The send's outcome; `more`: a notification follows.
    Sent {
        /// Bytes the kernel took.
        result: Result<u32, Fault>,
        /// Whether a notification follows.
        more: bool,
    },
    /// The kernel let go of a zero-copy send's memory.
    Notified {
        /// It had copied the bytes.
        copied: bool,
    },
    /// The watch tells something.
    Watched {
        /// The socket has room, or is broken: sending may go on. Without, the peer's FIN is in.
        room: bool,
        /// It has room because the peer reads, and not because it is broken.
        reads: bool,
        /// Whether the watch stays armed.
        more: bool,
    },
    /// The half-close's outcome.
    ShutdownDone(Result<(), Fault>),
    /// A cancel was answered, whatever the answer.
    CancelDone,
    /// The descriptor is closed.
    Closed,
    /// The socket's send queue holds so many bytes; told before the timer of a blocked connection.
    Unsent(u32),
    /// The wheel delivered the connection's timer.
    TimerExpired,
    /// A buffer is there for a parked receive.
    Unparked,
    /// Asked: no more is sent after what waits.
    Shutdown,
    /// Asked: end in order, for this reason.
    Close(CloseReason),
    /// Asked: end at once, for this reason.
    Abort(CloseReason),
}

/// What the owner has to be told, or has to see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing.
    None,
    /// The dial succeeded.
    Opened,
    /// The bytes received are for the handler.
    Data,
    /// The bytes received are for nobody.
    Discard,
    /// The peer will send no more.
    EndOfStream,
    /// The outbox went from high to low.
    Writable,
    /// Nothing came for the keep-alive time.
    KeepAlive,
    /// The receive waits for a buffer.
    Parked,
    /// The socket takes no more for now.
    Blocked,
}

/// What the reactor has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send from the outbox: see [`begin_send`](super::Connection::begin_send).
    Send,
    /// Tell when the socket can be written to; `many`: whenever it can be again.
    Watch {
        /// Whether again and again.
        many: bool,
    },
    /// Arm the receive.
    Receive,
    /// Arm the timer.
    SetTimer(u64),
    /// Cancel the operation.
    Cancel(Op),
    /// Half-close.
    Shutdown,
    /// Close the descriptor; `abortive`: with a reset.
    Close {
        /// Whether with a reset.
        abortive: bool,
    },
    /// The connection is over: free its slot.
    Free(CloseReason),
}

/// Who holds back the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pause {
    /// The handler.
    Handler = 1,
    /// The outbox that this connection's bytes go to.
    Outbox = 2,
    /// The reactor, for a move to another: the receive is cancelled.
    Move = 4,
}
