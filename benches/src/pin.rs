//! Pinning to a CPU: servers on one, clients on another, or the figures mean nothing.

#![expect(unsafe_code, reason = "sched_setaffinity has no safe form in std")]

use std::io;

/// Keeps the calling thread, and the threads and processes it starts, on one CPU.
///
/// # Errors
/// When this machine has no such CPU, or the process may not use it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a CPU set is an array of bits, for which all zeroes is a value.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    // SAFETY: `cpu` is below the number of bits in the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: 0 is the calling thread; the set lives across the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
