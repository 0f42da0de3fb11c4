//! What a server used, as the kernel counts it: CPU time and memory.
//!
//! CPU time is the nanoseconds its threads have been on a CPU, in user and kernel mode together
//! (`schedstat`), since the clock ticks of `stat` are too coarse for runs of two seconds. Memory is
//! what the process itself has resident: anonymous and shared pages, so its heap, its buffers as
//! far as they were touched, and its rings. Memory the kernel keeps for sockets is not in it, and
//! is the same for everybody.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of all threads of a process so far.
///
/// # Errors
/// When there is no such process, or the kernel keeps no such statistics.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        nanoseconds += on_cpu.ok_or_else(|| invalid("schedstat"))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Bytes a process has resident of its own: `RssAnon` and `RssShmem`.
///
/// # Errors
/// When there is no such process.
pub fn memory_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name| kibibytes(&status, name).ok_or_else(|| invalid(name));
    Ok((field("RssAnon:")? + field("RssShmem:")?) * 1024)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_kibibytes() {
        let status = "VmRSS:\t    9000 kB\nRssAnon:\t    1234 kB\nThreads:\t1\n";
        assert_eq!(kibibytes(status, "RssAnon:"), Some(1234));
        assert_eq!(kibibytes(status, "RssShmem:"), None);
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let me = std::process::id();
        assert!(memory_bytes(me).is_ok_and(|bytes| bytes > 0));
        assert!(cpu_time(me).is_ok_and(|time| time > Duration::ZERO));
    }
}
