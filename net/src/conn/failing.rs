//! How connections end, as `std::io` puts it.
//!
//! | reason | kind |
//! |---|---|
//! | the peer reset it, or the transport did | `ConnectionReset`, or what the kernel said |
//! | a timeout of any kind, a read deadline | `TimedOut` |
//! | we ended it: an abort, a drain, no place left, a panic | `ConnectionAborted` |
//! | to be sent behind our FIN, or to a connection that ended in order | `BrokenPipe` |
//!
//! What stands in the [`io::Error`] is the reason itself: `error.get_ref()`, downcast to a [`CloseReason`], or to a
//! [`SendError`] where the connection has not ended.
//!
//! An end of the stream is not among these, and nothing here is ever passed off as one: a reader that was told of an
//! end where the peer has sent no FIN would take half a message for a whole.

use std::io::{Error, ErrorKind};

use slipring_core::{CloseReason, Fault};

use super::{Conn, shell};

/// Why bytes were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(CloseReason),
    /// It is being closed, by its drain or an idle timeout, or after an abort: its end is still to come.
    #[error("the connection is being closed")]
    Closing,
    /// [`shutdown`](Conn::shutdown) was called before.
    #[error("nothing can be sent behind a shutdown")]
    ShutDown,
    /// More bytes at once than an outbox may hold ([`Limits::outbox_bytes_max`](crate::Limits)).
    #[error(
        "{bytes} bytes at once, and an outbox holds at most {most}; cut them, as `send_all` does"
    )]
    TooMany {
        /// Those to be sent.
        bytes: usize,
        /// What an outbox may hold.
        most: usize,
    },
    /// More bytes at once than the reactor may own ([`Limits::owned_bytes_max`](crate::Limits)), which counts those of
    /// all its connections together.
    #[error(
        "{bytes} bytes at once, and a reactor owns at most {most}; cut them, as `send_all` does, or raise \
         `Limits::owned_bytes_max`"
    )]
    TooManyOwned {
        /// Those to be sent.
        bytes: usize,
        /// What the reactor may own.
        most: u64,
    },
}

/// How receiving came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer sent its FIN: all that it had to say has come.
    Eof,
    /// Nothing came within the read deadline. The connection is as it was.
    ReadTimeout,
    /// The connection has ended, for this reason.
    Closed(CloseReason),
}

fn kind_of_fault(fault: Fault) -> ErrorKind {
    match fault {
        Fault::Reset => ErrorKind::ConnectionReset,
        Fault::BrokenPipe => ErrorKind::BrokenPipe,
        Fault::Refused => ErrorKind::ConnectionRefused,
        Fault::TimedOut => ErrorKind::TimedOut,
        Fault::Unreachable => ErrorKind::HostUnreachable,
        Fault::Denied => ErrorKind::PermissionDenied,
        Fault::AddressUnavailable => ErrorKind::AddrNotAvailable,
        Fault::Memory => ErrorKind::OutOfMemory,
        Fault::NotConnected => ErrorKind::NotConnected,
        _ => ErrorKind::Other,
    }
}

pub(crate) fn kind_of(reason: CloseReason) -> ErrorKind {
    match reason {
        CloseReason::PeerClosed | CloseReason::LocalClosed => ErrorKind::NotConnected,
        CloseReason::Reset => ErrorKind::ConnectionReset,
        CloseReason::Transport(fault) | CloseReason::DialFailed(fault) => kind_of_fault(fault),
        CloseReason::IdleTimeout
        | CloseReason::WriteStall
        | CloseReason::HalfClosedTimeout
        | CloseReason::PhaseTimeout
        | CloseReason::DialTimeout => ErrorKind::TimedOut,
        _ => ErrorKind::ConnectionAborted,
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Ended(reason @ (CloseReason::PeerClosed | CloseReason::LocalClosed)) => {
                Self::new(ErrorKind::BrokenPipe, reason)
            }
            SendError::Ended(reason) => Self::new(kind_of(reason), reason),
            SendError::Closing | SendError::ShutDown => Self::new(ErrorKind::BrokenPipe, error),
            SendError::TooMany { .. } | SendError::TooManyOwned { .. } => {
                Self::new(ErrorKind::InvalidInput, error)
            }
        }
    }
}

/// Nothing came within the read deadline.
#[derive(Debug, thiserror::Error)]
#[error("nothing came within the read deadline")]
struct NothingCame;

impl Conn {
    /// For adapters: what a reader is told whom [`poll_recv`](Self::poll_recv) has given `None`.
    ///
    /// # Errors
    /// Why that was no end of the stream: the peer's FIN has not come.
    pub fn read_end(&self) -> Result<(), Error> {
        match self.end() {
            Some(End::Eof) => Ok(()),
            Some(End::ReadTimeout) => Err(Error::new(ErrorKind::TimedOut, NothingCame)),
            // With the FIN in, how the rest went is told to who sends.
            Some(End::Closed(_)) if self.has_peer_ended() => Ok(()),
            Some(End::Closed(CloseReason::PeerClosed)) => Ok(()),
            Some(End::Closed(reason)) => Err(Error::new(kind_of(reason), reason)),
            // Nothing is known of it any more: its reactor is going.
            None => Err(Error::new(ErrorKind::ConnectionAborted, CloseReason::DriverFailed)),
        }
    }

    fn has_peer_ended(&self) -> bool {
        self.with(|_, key| shell::with_remain(key, |remain| remain.is_ended)).unwrap_or(false)
    }

    /// For adapters: what a writer is told who asks how it went, at a flush for instance.
    ///
    /// # Errors
    /// The connection has ended, and what was sent may be lost.
    pub fn write_end(&self) -> Result<(), Error> {
        match self.reason() {
            Some(reason) if reason.is_abortive() => Err(Error::new(kind_of(reason), reason)),
            _ => Ok(()),
        }
    }
}
