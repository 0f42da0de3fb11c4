//! CPU time of the server and of the load itself, over the measured window.
//!
//! The main figure of a comparison: wall throughput moves with the rest of the machine, CPU time a
//! message hardly does. Nanoseconds of all threads where the kernel keeps them
//! ([`usage::cpu_time`]), else the clock ticks of `stat`, a hundredth of a second each.

use std::fs;
use std::io;
use std::time::Duration;

use crate::measure::usage;

/// What one clock tick of `stat` is, on every architecture Linux has today.
const TICK: Duration = Duration::from_millis(10);

/// Fields of `stat` after the program's name, of which `utime` and `stime` are wanted.
const UTIME_FIELD: usize = 11;

/// Readings tried while threads of the process come and go.
const TRIES: usize = 20;

/// One process to read the CPU time of.
#[derive(Clone, Copy, Debug)]
pub struct CpuMeter {
    pid: u32,
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Nanoseconds,
    Ticks,
}

impl CpuMeter {
    /// A meter on a process, which reads the finest source there is.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let precise = Self { pid, source: Source::Nanoseconds };
        let coarse = Self { pid, source: Source::Ticks };
        if precise.read().is_ok() { Ok(precise) } else { coarse.read().map(|_| coarse) }
    }

    /// A meter on this process.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// CPU time so far.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn read(&self) -> io::Result<Duration> {
        match self.source {
            Source::Nanoseconds => nanoseconds(self.pid),
            Source::Ticks => ticks(&fs::read_to_string(format!("/proc/{}/stat", self.pid))?),
        }
    }
}

/// CPU time of all threads. One that ends between being listed and being read fails the reading,
/// so it is tried again; what an ended thread had used is in no later reading.
fn nanoseconds(pid: u32) -> io::Result<Duration> {
    let mut reading = usage::cpu_time(pid);
    for _ in 1..TRIES {
        if reading.is_ok() {
            break;
        }
        reading = usage::cpu_time(pid);
    }
    reading
}

/// `utime` and `stime` of a `stat` line.
fn ticks(stat: &str) -> io::Result<Duration> {
    // The name stands in brackets and may itself hold spaces and brackets.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    let times: Vec<u32> =
        fields.skip(UTIME_FIELD).take(2).filter_map(|field| field.parse().ok()).collect();
    match times[..] {
        [user, system] => Ok(TICK * (user + system)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "stat: not as expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 1 0 99 1 2\n";
        assert_eq!(ticks(stat).ok(), Some(Duration::from_millis(1750)));
        assert!(ticks("42 (x) S 1").is_err());
    }

    #[test]
    fn this_process_can_be_read_both_ways() {
        let pid = std::process::id();
        for source in [Source::Nanoseconds, Source::Ticks] {
            assert!(CpuMeter { pid, source }.read().is_ok(), "{source:?}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_has_no_meter() {
        assert!(CpuMeter::of(u32::MAX).is_err());
    }
}
