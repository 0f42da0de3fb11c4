//! Where threads run, and before whom: servers on one CPU, clients on another, and a probe before the load it
//! measures beside, or the figures mean nothing.

#![expect(
    unsafe_code,
    reason = "sched_setaffinity and sched_setscheduler have no safe form in std"
)]

use std::io;

/// Keeps the calling thread, and the threads and processes it starts, on one CPU.
///
/// # Errors
/// When this machine has no such CPU, or the process may not use it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    pin_to_cpus(&[cpu])
}

/// [`pin_to_cpu`], for any of several.
///
/// # Errors
/// When this machine has none of them, or the process may not use them.
pub fn pin_to_cpus(cpus: &[usize]) -> io::Result<()> {
    // SAFETY: a CPU set is an array of bits, for which all zeroes is a value.
    let mut set = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: `cpu` is below the number of bits in the set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: 0 is the calling thread; the set lives across the call.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The calling thread runs before all others of its CPU that are not real-time too, until this is dropped.
///
/// What the thread starts meanwhile does not inherit it.
#[derive(Debug)]
pub struct RealTime(());

impl RealTime {
    /// # Errors
    /// When the process may not: it takes root, or the capability SYS_NICE.
    pub fn begin() -> io::Result<Self> {
        schedule(libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, REAL_TIME_PRIORITY)?;
        Ok(Self(()))
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        // Back to what everybody may be; nothing to be done should it fail.
        drop(schedule(libc::SCHED_OTHER, 0));
    }
}

/// Low among the real-time ones: the kernel's own come first.
const REAL_TIME_PRIORITY: i32 = 10;

fn schedule(policy: i32, priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: 0 is the calling thread; the parameter lives across the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
