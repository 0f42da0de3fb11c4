//! The one room where an errno becomes a word.

use std::io;

use crate::error::Fault;

/// The meaning of a positive errno.
#[must_use]
pub fn fault(errno: i32) -> Fault {
    match errno {
        libc::ENOBUFS => Fault::NoBuffers,
        libc::EAGAIN => Fault::WouldBlock,
        libc::ECANCELED | libc::EINTR => Fault::Cancelled,
        libc::ENOENT | libc::EALREADY => Fault::NotFound,
        libc::ECONNRESET | libc::ECONNABORTED => Fault::Reset,
        libc::EPIPE => Fault::BrokenPipe,
        libc::ECONNREFUSED => Fault::Refused,
        libc::ETIMEDOUT => Fault::TimedOut,
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            Fault::Unreachable
        }
        libc::EACCES | libc::EPERM => Fault::Denied,
        libc::EADDRNOTAVAIL => Fault::AddressUnavailable,
        libc::EMFILE => Fault::DescriptorsOfProcess,
        libc::ENFILE => Fault::DescriptorsOfHost,
        libc::ENOMEM => Fault::Memory,
        libc::ENOTCONN => Fault::NotConnected,
        other => Fault::Other(other),
    }
}

/// The meaning of an error of the standard library.
pub(super) fn fault_of(error: &io::Error) -> Fault {
    error.raw_os_error().map_or(Fault::Other(0), fault)
}
