//! Limits of the process, and what its threads use of the processor.

use std::io;

use crate::error::SetupError;

/// The soft and the hard limit of descriptors.
fn descriptors() -> Result<libc::rlimit, SetupError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        let source = io::Error::last_os_error();
        return Err(SetupError::Step { step: "reading RLIMIT_NOFILE", source });
    }
    Ok(limit)
}

/// Descriptors the process may come to have open.
pub(crate) fn descriptors_max() -> Result<u64, SetupError> {
    descriptors().map(|limit| limit.rlim_max)
}

/// Makes room for `needed` descriptors: raises the soft limit if it must.
pub(crate) fn ensure_descriptors(needed: u64) -> Result<(), SetupError> {
    let mut limit = descriptors()?;
    if limit.rlim_cur >= needed {
        return Ok(());
    }
    if limit.rlim_max < needed {
        return Err(SetupError::LimitTooLow {
            limit: "RLIMIT_NOFILE (open descriptors)",
            available: limit.rlim_max,
            needed,
            remedy: "lower --max-connections, or raise the hard limit (`ulimit -Hn`, LimitNOFILE=)",
        });
    }
    limit.rlim_cur = needed;
    // SAFETY: the pointer is to a live `rlimit`.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        let source = io::Error::last_os_error();
        return Err(SetupError::Step { step: "raising RLIMIT_NOFILE", source });
    }
    Ok(())
}

/// The clock of what one thread uses of the processor, in the kernel too. Any thread of the process may read it.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// The calling thread's.
    #[must_use]
    pub fn own() -> Self {
        let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: it only says who calls.
        let own = unsafe { libc::pthread_self() };
        // SAFETY: the thread runs, and the pointer is to a live number, which stays as it is if the call fails.
        unsafe { libc::pthread_getcpuclockid(own, &raw mut clock) };
        Self(clock)
    }

    /// Microseconds that the thread has run. A system call; zero once the thread has ended.
    #[must_use]
    pub fn ran_us(self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live `timespec`, which stays zero if there is no such clock any more.
        unsafe { libc::clock_gettime(self.0, &raw mut time) };
        time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
    }
}
