//! A bell another thread can ring: an eventfd that the reactor's ring watches.
//!
//! For what is rare: start of a drain, a permit that came back. Reactors talk to each other by other means.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;

use crate::driver::Wake;

/// Both ends of the bell.
#[derive(Debug, Clone)]
pub struct Bell {
    file: Arc<File>,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { file: Arc::new(file) })
    }

    pub(super) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Forgets the rings so far. It does not block: a bell that was not rung is clear already.
    pub(super) fn clear(&self) {
        let mut count = [0; 8];
        let _ = (&*self.file).read(&mut count);
    }
}

impl Wake for Bell {
    fn wake(&self) {
        // Fails only when the counter is full: then it has been rung.
        let _ = (&*self.file).write(&1_u64.to_ne_bytes());
    }
}
