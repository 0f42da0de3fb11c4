//! Echo on level-triggered epoll: the loop everybody has written, as bare as it gets.
//!
//! One read and one write an event, through one buffer shared by all connections. What a write did
//! not take is kept, and its connection is watched for room to write *instead of* for data until
//! the rest is out: a reader that stops reading holds one buffer's worth at most.

#![expect(unsafe_code, reason = "epoll and socket calls, without a wrapper's cost")]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use super::DESCRIPTORS_MAX;

/// Events taken by one `epoll_wait`.
const EVENTS: usize = 1024;

const READABLE: u32 = libc::EPOLLIN as u32;
const WRITABLE: u32 = libc::EPOLLOUT as u32;

struct Echo {
    epoll: i32,
    listener: i32,
    buffer: Vec<u8>,
    /// By descriptor: what a short write left. Empty and without memory but for slow readers.
    unsent: Vec<Vec<u8>>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When `epoll_create`, `epoll_wait` or the listener fails for good.
pub fn epoll_echo(listener: &TcpListener, buffer_bytes: u32) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: no memory is passed.
    let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    let mut echo = Echo {
        epoll,
        listener: listener.as_raw_fd(),
        buffer: vec![0; buffer_bytes as usize],
        unsent: (0..DESCRIPTORS_MAX).map(|_| Vec::new()).collect(),
    };
    echo.watch(libc::EPOLL_CTL_ADD, echo.listener, READABLE)?;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        // SAFETY: `events` has room for `EVENTS`.
        let ready =
            unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, -1) };
        let ready = match check(ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            ready => ready? as usize,
        };
        for event in &events[..ready] {
            let fd = event.u64 as i32;
            if fd == echo.listener {
                echo.accept_all()?;
            } else if echo.serve(fd).is_err() {
                echo.close(fd);
            }
        }
    }
}

impl Echo {
    fn accept_all(&self) -> io::Result<()> {
        loop {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let null = std::ptr::null_mut();
            // SAFETY: no address is asked for, so no memory is passed.
            let accepted = unsafe { libc::accept4(self.listener, null, null.cast(), flags) };
            match check(accepted) {
                Ok(fd) => self.watch(libc::EPOLL_CTL_ADD, fd, READABLE)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One event of one connection. An error means that it is to be closed.
    fn serve(&mut self, fd: i32) -> io::Result<()> {
        if !self.unsent[fd as usize].is_empty() {
            return self.flush(fd);
        }
        let bytes = self.buffer.as_mut_ptr().cast();
        // SAFETY: `bytes` is the start of a buffer of that length.
        let read = unsafe { libc::recv(fd, bytes, self.buffer.len(), 0) };
        let read = match check(read as i32) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            read => read? as usize,
        };
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let sent = send(fd, &self.buffer[..read])?;
        if sent < read {
            self.unsent[fd as usize].extend_from_slice(&self.buffer[sent..read]);
            self.watch(libc::EPOLL_CTL_MOD, fd, WRITABLE)?;
        }
        Ok(())
    }

    fn flush(&mut self, fd: i32) -> io::Result<()> {
        let unsent = &mut self.unsent[fd as usize];
        let sent = send(fd, unsent)?;
        unsent.drain(..sent);
        if unsent.is_empty() {
            *unsent = Vec::new();
            self.watch(libc::EPOLL_CTL_MOD, fd, READABLE)?;
        }
        Ok(())
    }

    fn watch(&self, operation: i32, fd: i32, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: `event` lives across the call.
        check(unsafe { libc::epoll_ctl(self.epoll, operation, fd, &raw mut event) }).map(drop)
    }

    fn close(&mut self, fd: i32) {
        self.unsent[fd as usize] = Vec::new();
        // SAFETY: `fd` was accepted here and is not used again; closing takes it out of the epoll.
        unsafe { libc::close(fd) };
    }
}

/// How many bytes the socket took: none when it is full.
fn send(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are one slice's.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    match check(sent as i32) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent.map(|sent| sent as usize),
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
