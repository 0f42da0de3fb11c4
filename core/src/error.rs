//! What can go wrong, in words. Errno numbers are translated in `sys` and named nowhere above it.
//!
//! * [`Fault`]: an operation failed, and how.
//! * [`CloseReason`]: why a connection ended. The only failure exit of a connection.
//! * [`SetupError`]: why a runtime cannot start: always the cause and the remedy, in one line.
//!
//! ENOBUFS, end of stream and short sends are not here: they are inputs of the machine, not errors.

use std::fmt;
use std::net::SocketAddr;

/// Why the kernel refused or ended an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The buffer ring was empty (ENOBUFS): wait, do not fail.
    NoBuffers,
    /// The operation would have had to wait (EAGAIN).
    WouldBlock,
    /// Cancelled (ECANCELED, EINTR): means what the operation's own state says it means.
    Cancelled,
    /// A cancel found nothing to cancel (ENOENT) or came too late (EALREADY).
    NotFound,
    /// The peer reset the connection (ECONNRESET, ECONNABORTED).
    Reset,
    /// Written to a connection whose peer is gone (EPIPE).
    BrokenPipe,
    /// Nobody listens there (ECONNREFUSED).
    Refused,
    /// The kernel gave up waiting for the peer (ETIMEDOUT).
    TimedOut,
    /// No route (EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN).
    Unreachable,
    /// Forbidden by a rule of the host (EACCES, EPERM).
    Denied,
    /// No free local port or no such local address (EADDRNOTAVAIL).
    AddressUnavailable,
    /// The process has no free descriptor (EMFILE).
    DescriptorsOfProcess,
    /// The host has no free descriptor (ENFILE).
    DescriptorsOfHost,
    /// The kernel has no memory for it (ENOMEM).
    Memory,
    /// The socket is not connected, or no longer (ENOTCONN).
    NotConnected,
    /// Any other errno.
    Other(i32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBuffers => f.write_str("no free buffer"),
            Self::WouldBlock => f.write_str("would block"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::NotFound => f.write_str("nothing to cancel"),
            Self::Reset => f.write_str("reset by peer"),
            Self::BrokenPipe => f.write_str("peer is gone"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Denied => f.write_str("denied by the host"),
            Self::AddressUnavailable => f.write_str("no free local port or address"),
            Self::DescriptorsOfProcess => f.write_str("the process is out of descriptors"),
            Self::DescriptorsOfHost => f.write_str("the host is out of descriptors"),
            Self::Memory => f.write_str("the kernel is out of memory"),
            Self::NotConnected => f.write_str("not connected"),
            Self::Other(errno) => write!(f, "errno {errno}"),
        }
    }
}

impl std::error::Error for Fault {}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both directions ended in order, the peer's first.
    PeerClosed,
    /// We closed, and everything we had to send was taken by the kernel.
    LocalClosed,
    /// We aborted it: the peer sees a reset, unsent bytes are gone.
    Aborted,
    /// The peer reset it.
    Reset,
    /// Another failure of the transport.
    Transport(Fault),
    /// Nothing moved in either direction for the idle timeout.
    IdleTimeout,
    /// The peer did not take our bytes for the write-stall timeout.
    WriteStall,
    /// One direction was closed and the other silent for the half-closed timeout.
    HalfClosedTimeout,
    /// A phase did not end in time: no first byte came, or a handshake took too long
    /// ([`Timeouts::first_byte`](crate::Timeouts::first_byte),
    /// [`Ctx::set_phase_deadline`](crate::Ctx::set_phase_deadline)).
    PhaseTimeout,
    /// A dial was not answered in time.
    DialTimeout,
    /// A dial failed.
    DialFailed(Fault),
    /// The handler panicked while serving it.
    HandlerPanic,
    /// The handler sent more than the outbox may hold.
    OutboxOverflow,
    /// The runtime was draining and the connection had nothing under way.
    Drained,
    /// The drain deadline passed with the connection still busy.
    DrainDeadline,
    /// It was idle for longest when a client found no place, and its listener evicts (`OnFull::EvictIdle`).
    Evicted,
    /// It was idle when its reactor had too much to do, or no descriptors.
    Shed,
    /// The reactor's ring failed, or the reactor itself: nothing more can be done for its connections.
    DriverFailed,
}

impl CloseReason {
    /// Whether the peer gets (or sent) a reset rather than an orderly end.
    #[must_use]
    pub fn is_abortive(self) -> bool {
        !matches!(
            self,
            Self::PeerClosed
                | Self::LocalClosed
                | Self::Drained
                | Self::IdleTimeout
                | Self::Evicted
                | Self::Shed
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::LocalClosed => f.write_str("closed by us"),
            Self::Aborted => f.write_str("aborted by us"),
            Self::Reset => f.write_str("reset by the peer"),
            Self::Transport(fault) => write!(f, "transport failed: {fault}"),
            Self::IdleTimeout => f.write_str("idle timeout"),
            Self::WriteStall => f.write_str("write-stall timeout: the peer stopped reading"),
            Self::HalfClosedTimeout => f.write_str("half-closed timeout"),
            Self::PhaseTimeout => f.write_str("phase timeout: the peer was not done in time"),
            Self::DialTimeout => f.write_str("dial timeout"),
            Self::DialFailed(fault) => write!(f, "dial failed: {fault}"),
            Self::HandlerPanic => f.write_str("its handler panicked"),
            Self::OutboxOverflow => f.write_str("outbox overflow: more sent than it may hold"),
            Self::Drained => f.write_str("idle when the runtime drained"),
            Self::DrainDeadline => f.write_str("still busy at the drain deadline"),
            Self::Evicted => f.write_str("idle when a client needed its place"),
            Self::Shed => f.write_str("idle when its reactor had too much"),
            Self::DriverFailed => f.write_str("the ring of its reactor failed"),
        }
    }
}

/// For those who have to hand it on as one, such as `std::io::Error`. An end in order is none of course.
impl std::error::Error for CloseReason {}

/// Why a runtime cannot start. `Display` is one line: the cause, then the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The kernel or the container's profile forbids io_uring.
    #[error("io_uring is forbidden here ({cause}); {remedy}")]
    Forbidden {
        /// What said no.
        cause: String,
        /// Who can say yes.
        remedy: String,
    },
    /// The kernel lacks something every tier needs.
    #[error("this kernel lacks {feature}; slipring needs Linux 6.1 or newer")]
    KernelTooOld {
        /// What was tried and refused.
        feature: &'static str,
    },
    /// The address is in use.
    #[error(
        "cannot listen on {address}: the port is taken; stop the other listener or choose another port \
         (port 0 picks a free one)"
    )]
    PortTaken {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Listening failed otherwise.
    #[error(
        "cannot listen on {address}: {source}; check that the address belongs to this host and that the port is permitted"
    )]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A limit of the process is below what the configuration needs.
    #[error("{limit} is {available}, but this configuration needs {needed}; {remedy}")]
    LimitTooLow {
        /// Which limit.
        limit: &'static str,
        /// What there is.
        available: u64,
        /// What it takes.
        needed: u64,
        /// How to make them meet.
        remedy: &'static str,
    },
    /// A value of the configuration makes no sense by itself or beside another.
    #[error("bad configuration: {cause}; {remedy}")]
    Config {
        /// What is wrong.
        cause: String,
        /// What would be right.
        remedy: String,
    },
    /// A core asked for cannot be pinned to.
    #[error("cannot pin a reactor to core {core}; this process may use {allowed}")]
    Core {
        /// The core asked for.
        core: usize,
        /// The cores there are.
        allowed: String,
    },
    /// Direct descriptors were asked for, and cannot be had.
    #[error(
        "direct descriptors cannot be had: this kernel lacks {lacks}; leave them out (--direct-descriptors) or use Linux 6.13 or newer"
    )]
    DirectDescriptors {
        /// What was tried and refused.
        lacks: &'static str,
    },
    /// The function that makes the handlers panicked.
    #[error(
        "the handler of reactor {reactor} could not be made: panicked with \"{cause}\"; mend what panicked, its place was printed on stderr"
    )]
    Handler {
        /// The reactor's number.
        reactor: usize,
        /// The panic's message.
        cause: String,
    },
    /// A step of the set-up failed in a way nobody foresaw.
    #[error("set-up failed at {step}: {source}; this is not a known condition, please report it")]
    Step {
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}
