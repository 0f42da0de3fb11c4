//! The kernel calls that neither std nor socket2 offers: epoll, one socket option, one limit.
//!
//! Is: a thin wrapper whose safe functions cannot be misused into undefined behaviour. Is not: a
//! reactor; what an event means is for the caller.
//!
//! Sockets are watched edge-triggered, for reading and writing at once and for good: one
//! `epoll_ctl` a connection, however often its writes block. The price is the caller's duty to go
//! on reading until a read comes back short, and to come back by itself when it stops earlier.

#![expect(unsafe_code, reason = "epoll, setsockopt and rlimits have no safe form in std")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// Events taken by one wait.
const EVENTS_MAX: usize = 1024;

const WATCHED: i32 = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
const READABLE: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;
const WRITABLE: i32 = libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR;
const ENDING: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR;

/// An epoll instance and the events of its last wait.
#[derive(Debug)]
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// What became of one watched socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the socket was watched as.
    pub index: usize,
    /// A read will not block: data, the end, or an error.
    pub readable: bool,
    /// A write that blocked may be tried again, or will fail.
    pub writable: bool,
    /// The end or an error stands behind the data: a short read is not the last one.
    pub ending: bool,
}

impl Poll {
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made, and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket until it is closed. Its events carry `index`.
    ///
    /// # Errors
    /// When the kernel has no memory or watch left.
    pub fn watch(&self, socket: &impl AsFd, index: usize) -> io::Result<()> {
        let mut event = libc::epoll_event { events: WATCHED as u32, u64: index as u64 };
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_fd().as_raw_fd());
        // SAFETY: `event` lives across the call.
        check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &raw mut event) })
            .map(drop)
    }

    /// Waits for events, at most `patience`. Returns how many there are for [`Self::event`].
    ///
    /// # Errors
    /// Only what would be a mistake in here; an interrupted wait is one without events.
    pub fn wait(&mut self, patience: Duration) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: patience.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(patience.subsec_nanos() as i32),
        };
        let (epoll, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
        let (max, no_mask) = (EVENTS_MAX as i32, std::ptr::null());
        // SAFETY: `events` has the capacity for `max` events, and `timeout` lives across the call.
        let ready = unsafe { libc::epoll_pwait2(epoll, events, max, &raw const timeout, no_mask) };
        let ready = match check(ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            ready => ready? as usize,
        };
        // SAFETY: the kernel has just written the first `ready` events, no more than the capacity.
        unsafe { self.events.set_len(ready) };
        Ok(ready)
    }

    /// Number `nth` of the events of the last wait.
    #[must_use]
    pub fn event(&self, nth: usize) -> Event {
        let libc::epoll_event { events, u64: index } = self.events[nth];
        let any_of = |flags: i32| events & flags as u32 != 0;
        Event {
            index: index as usize,
            readable: any_of(READABLE),
            writable: any_of(WRITABLE),
            ending: any_of(ENDING),
        }
    }
}

impl Event {
    /// Nothing happened to the socket, but there may be something to send.
    #[must_use]
    pub fn none(index: usize) -> Self {
        Self { index, readable: false, writable: false, ending: false }
    }

    /// Anything may have happened to the socket: try all, until the kernel says no.
    #[must_use]
    pub fn all(index: usize) -> Self {
        Self { index, readable: true, writable: true, ending: true }
    }
}

/// Lets a socket that is bound to an address pick its port when it connects.
///
/// The port then need be free only towards the one peer, not towards everybody.
///
/// # Errors
/// When the socket is not an IPv4 or IPv6 one.
pub fn choose_port_at_connect(socket: &impl AsFd) -> io::Result<()> {
    let (socket, on) = (socket.as_fd().as_raw_fd(), 1_i32);
    let (level, option) = (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the pointer and the length are those of one integer that lives across the call.
    check(unsafe { libc::setsockopt(socket, level, option, (&raw const on).cast(), len) }).map(drop)
}

/// Allows this process as many descriptors as it may have. Returns how many that is.
///
/// # Errors
/// None that is known; the calls have no cause to fail.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives across the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` lives across the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
