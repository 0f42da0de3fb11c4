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

/// Microseconds that the calling thread has run, in the kernel too.
pub(super) fn ran_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live `timespec`. The clock is there on every Linux: nothing to check.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}
