//! What the kernel is asked about a socket: the addresses of both ends, and TCP_INFO.
//!
//! getpeername(2) refuses (ENOTCONN) once a reset has come or both ends have closed, which is when a log wants to know
//! who that was. The name stays with the socket until its close, and SO_PEERNAME tells it then too. Not at first: it
//! takes the exact length of the address only, so of IPv6 it would be a call more.

use std::io;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use socket2::SockAddr;

use super::errno::fault_of;
use super::socket::{address_of, borrow};
use crate::driver::TcpInfo;
use crate::error::Fault;
use crate::token::Descriptor;

/// The address at the other end, of a connection that has been reset too.
pub(super) fn peer(of: Descriptor) -> Result<SocketAddr, Fault> {
    let name = match borrow(of).peer_addr() {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => name_that_was(of),
        name => name,
    };
    name.and_then(address_of).map_err(|error| fault_of(&error))
}

/// Whether a reset has come, or both ends have closed.
pub(super) fn is_lost(of: Descriptor) -> Result<bool, Fault> {
    let name = borrow(of).peer_addr();
    Ok(name.is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN)))
}

#[cold]
fn name_that_was(of: Descriptor) -> io::Result<SockAddr> {
    let name = peer_name(of, size_of::<libc::sockaddr_in>())?;
    match i32::from(name.family()) {
        // Cut short.
        libc::AF_INET6 => peer_name(of, size_of::<libc::sockaddr_in6>()),
        _ => Ok(name),
    }
}

fn peer_name(of: Descriptor, bytes: usize) -> io::Result<SockAddr> {
    let fd = of.0 as RawFd;
    let ask = |name: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: `try_init` passes a pointer to a live length, which nobody else has.
        unsafe { length.write(bytes as libc::socklen_t) };
        // SAFETY: the kernel writes at most `bytes`, the size of an address, to a storage for any of them.
        match unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERNAME, name.cast(), length)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the kernel has written an address, and how long it is; what is behind it is zero.
    let ((), name) = unsafe { SockAddr::try_init(ask) }?;
    Ok(name)
}

/// The address at this end.
pub(super) fn local(of: Descriptor) -> Result<SocketAddr, Fault> {
    let local = borrow(of).local_addr().and_then(address_of);
    local.map_err(|error: io::Error| fault_of(&error))
}

/// The kernel's `struct tcp_info`, as far as anything of it is wanted. A kernel that knows less of it writes less.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    _states: [u8; 8],
    _timeouts_us: [u32; 2],
    send_mss: u32,
    _receive_mss: u32,
    unacked: u32,
    _sacked: u32,
    lost: u32,
    /// Retransmitted and forward segments, four times since something, the path's MTU, the receiver's threshold.
    _eight: [u32; 8],
    rtt_us: u32,
    rtt_variance_us: u32,
    _send_threshold: u32,
    congestion_window: u32,
    /// The advertised MSS, reordering, the receiver's round trip and space.
    _four: [u32; 4],
    total_retransmits: u32,
    _pacing_rates: [u64; 2],
    acked_bytes: u64,
    received_bytes: u64,
    /// Segments out and in, bytes not sent.
    _three: [u32; 3],
    min_rtt_us: u32,
    _data_segments: [u32; 2],
    delivery_rate: u64,
    busy_us: u64,
    rwnd_limited_us: u64,
    sndbuf_limited_us: u64,
}
// As in the kernel's own header.
const _: () = assert!(offset_of!(Told, send_mss) == 16 && offset_of!(Told, lost) == 32);
const _: () = assert!(offset_of!(Told, rtt_us) == 68 && offset_of!(Told, total_retransmits) == 100);
const _: () = assert!(offset_of!(Told, acked_bytes) == 120 && offset_of!(Told, min_rtt_us) == 148);
const _: () = assert!(offset_of!(Told, delivery_rate) == 160 && size_of::<Told>() == 192);

/// How the connection goes.
pub(super) fn info(of: Descriptor) -> Result<TcpInfo, Fault> {
    let mut told = Told::default();
    let mut length = size_of::<Told>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to a live struct of as many, of integers alone.
    let result = unsafe {
        libc::getsockopt(
            of.0 as RawFd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut told).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(told.into()),
        _ => Err(fault_of(&io::Error::last_os_error())),
    }
}

impl From<Told> for TcpInfo {
    /// What was not told is zero in both.
    fn from(told: Told) -> Self {
        Self {
            rtt_us: told.rtt_us,
            rtt_variance_us: told.rtt_variance_us,
            // What the kernel says as long as it has seen none.
            min_rtt_us: if told.min_rtt_us == u32::MAX { 0 } else { told.min_rtt_us },
            retransmits: told.total_retransmits,
            lost_segments: told.lost,
            unacked_segments: told.unacked,
            congestion_window_segments: told.congestion_window,
            send_mss_bytes: told.send_mss,
            acked_bytes: told.acked_bytes,
            received_bytes: told.received_bytes,
            delivery_bytes_per_s: told.delivery_rate,
            busy_us: told.busy_us,
            rwnd_limited_us: told.rwnd_limited_us,
            sndbuf_limited_us: told.sndbuf_limited_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_no_connection_has_nobody_at_the_other_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let descriptor = Descriptor(listener.as_raw_fd() as u32);
        assert_eq!(peer(descriptor), Err(Fault::NotConnected));
        assert_eq!(local(descriptor), Ok(listener.local_addr().expect("it is bound")));
    }

    #[test]
    fn a_connection_is_lost_with_a_reset_and_not_with_a_fin() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let peer = std::net::TcpStream::connect(address).expect("it listens");
        let (stream, _) = listener.accept().expect("somebody has connected");
        let descriptor = Descriptor(stream.as_raw_fd() as u32);
        assert_eq!(is_lost(descriptor), Ok(false));
        peer.shutdown(std::net::Shutdown::Write).expect("an open socket");
        assert_eq!(is_lost(descriptor), Ok(false));
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&peer).set_linger(linger).expect("an open socket");
        drop(peer);
        assert_eq!(is_lost(descriptor), Ok(true));
    }

    #[test]
    fn what_the_kernel_does_not_know_is_zero() {
        let told = Told { min_rtt_us: u32::MAX, rtt_us: 7, ..Told::default() };
        let info = TcpInfo { rtt_us: 7, ..TcpInfo::default() };
        assert_eq!(TcpInfo::from(told), info);
    }
}
