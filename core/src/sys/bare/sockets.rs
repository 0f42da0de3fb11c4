//! What scripts ask the kernel about sockets, what they do to them past the ring, and the shortage of
//! descriptors they bring about.

use std::fs::File as StdFile;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::super::{questions, socket};
use crate::driver::TcpInfo;
use crate::error::Fault;
use crate::token::Descriptor;

/// Closes a descriptor that a ring brought, at once.
pub fn close(descriptor: u32) {
    socket::close(Descriptor(descriptor));
}

/// Makes the next close of the socket a reset.
pub fn set_abortive(descriptor: u32) {
    socket::set_abortive(Descriptor(descriptor));
}

/// What poll(2) says of a descriptor at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// POLLIN.
    pub readable: bool,
    /// POLLOUT.
    pub writable: bool,
    /// POLLRDHUP: the peer's FIN has come.
    pub ended: bool,
    /// POLLERR or POLLHUP: the connection is over.
    pub broken: bool,
}

/// Looks at a descriptor without waiting.
#[must_use]
pub fn readiness(descriptor: u32) -> Readiness {
    let events = libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP;
    let mut one = libc::pollfd { fd: descriptor as RawFd, events, revents: 0 };
    // SAFETY: one live entry, and the count says one.
    let told = unsafe { libc::poll(&raw mut one, 1, 0) };
    let has = |event: i16| told > 0 && one.revents & event != 0;
    Readiness {
        readable: has(libc::POLLIN),
        writable: has(libc::POLLOUT),
        ended: has(libc::POLLRDHUP),
        broken: has(libc::POLLERR | libc::POLLHUP),
    }
}

/// Bytes that a connected socket has received and nobody has read.
#[must_use]
pub fn bytes_waiting(descriptor: u32) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one integer to a live one.
    let told = unsafe { libc::ioctl(descriptor as RawFd, libc::FIONREAD, &raw mut bytes) };
    if told == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Who is at the other end of a socket.
///
/// # Errors
/// The kernel's refusal.
pub fn peer(descriptor: u32) -> Result<SocketAddr, Fault> {
    questions::peer(Descriptor(descriptor))
}

/// The address of this end of a socket.
///
/// # Errors
/// The kernel's refusal.
pub fn local(descriptor: u32) -> Result<SocketAddr, Fault> {
    questions::local(Descriptor(descriptor))
}

/// How a connection goes.
///
/// # Errors
/// The kernel's refusal.
pub fn info(descriptor: u32) -> Result<TcpInfo, Fault> {
    questions::info(Descriptor(descriptor))
}

/// Clients that wait at a listener.
#[must_use]
pub fn clients_waiting(listener: u32) -> usize {
    // Of a listener, `tcpi_unacked` is the length of its accept queue: the seventh word, after eight bytes.
    const UNACKED: usize = 6;
    let mut words = [0_u32; 26];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to a live array of as many.
    let told = unsafe {
        libc::getsockopt(
            listener as RawFd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if told == 0 { words[UNACKED] as usize } else { 0 }
}

/// A shortage of descriptors in this process, which ends when this is dropped.
#[derive(Debug)]
pub struct Shortage {
    before: libc::rlimit,
    /// What stands in the way of new descriptors.
    fillers: Vec<StdFile>,
}

impl Shortage {
    /// From now on the process can open `left` more descriptors, and no others.
    ///
    /// # Errors
    /// When the limit cannot be read or set.
    pub fn begin(left: usize) -> io::Result<Self> {
        let before = limit()?;
        let null = StdFile::open("/dev/null")?;
        let highest = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
            .max()
            .unwrap_or(2);
        let rlim_cur = before.rlim_max.min(highest + 1 + left as u64);
        set_limit(libc::rlimit { rlim_cur, ..before })?;
        let mut fillers = Vec::new();
        while let Ok(filler) = null.try_clone() {
            fillers.push(filler);
        }
        fillers.truncate(fillers.len() - left.min(fillers.len()));
        fillers.push(null);
        Ok(Self { before, fillers })
    }

    /// One more descriptor can be opened.
    pub fn relent(&mut self) {
        self.fillers.pop();
    }
}

impl Drop for Shortage {
    fn drop(&mut self) {
        let _ = set_limit(self.before);
    }
}

fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

fn set_limit(limit: libc::rlimit) -> io::Result<()> {
    // SAFETY: the pointer is to a live `rlimit`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
