//! The table of `--stats`: one row for each reactor, once a second, on stderr.
//!
//! ```text
//! reactor  conns  acc/s  close/s  given/s  taken/s  no/s   in MB/s  out MB/s  cpu %   turn us p50/p99/max  held KiB
//!       0   5003   1201     1198       40       12     3       1.5       1.5     37           15/63/140       192
//! ```
//!
//! Rates are of the time between two reports of a reactor, so they are right however late one comes. Turn times
//! are powers of two, rounded up. On a terminal each table is drawn over the one before; into a file or a pipe one
//! follows the other.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use slipring::{Counters, Handle, Snapshot};

const EVERY: Duration = Duration::from_secs(1);
const MEGA: f64 = 1e6;

/// Draws until it is dropped.
#[derive(Debug)]
pub struct Stats {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stats {
    /// Begins to draw how the reactors of these runtimes stand.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn draw(handles: Vec<Handle>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("stats".to_owned());
        let thread = thread.spawn(move || draw_until(&stopped, &handles))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only draws: a panic in it is told by the panic hook.
            let _ = thread.join();
        }
    }
}

fn draw_until(stopped: &Receiver<()>, handles: &[Handle]) {
    let look = || -> Vec<Snapshot> { handles.iter().flat_map(Handle::snapshots).collect() };
    let draws_over = io::stderr().is_terminal();
    let mut before = look();
    let mut lines = 0;
    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let now = look();
        let table = table(&before, &now);
        let up =
            if draws_over && lines > 0 { format!("\x1b[{lines}F\x1b[J") } else { String::new() };
        lines = table.lines().count();
        // Whoever closed stderr does not want to see it.
        let _ = write!(io::stderr().lock(), "{up}{table}");
        before = now;
    }
}

/// The table of what happened between two looks at the same reactors.
fn table(before: &[Snapshot], now: &[Snapshot]) -> String {
    let mut text = format!(
        "{:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>5} {:>19} {:>8} {:>8} {:>7} {:>6}\n",
        "reactor",
        "conns",
        "acc/s",
        "close/s",
        "given/s",
        "taken/s",
        "no/s",
        "in MB/s",
        "out MB/s",
        "cpu %",
        "turn us p50/p99/max",
        "held KiB",
        "own KiB",
        "timers",
        "parked",
    );
    for (reactor, (before, now)) in before.iter().zip(now).enumerate() {
        let _ = writeln!(text, "{reactor:>7} {}", row(before, now));
    }
    text
}

fn row(before: &Snapshot, now: &Snapshot) -> String {
    let us = now.at_us.saturating_sub(before.at_us);
    let seconds = us as f64 / 1e6;
    let rate = |count: fn(&Counters) -> u64| {
        let count = count(&now.counters) - count(&before.counters);
        if us == 0 { 0.0 } else { count as f64 / seconds }
    };
    let ran = now.ran_us.saturating_sub(before.ran_us);
    let cpu = if us == 0 { 0.0 } else { ran as f64 * 100.0 / us as f64 };
    let turns = now.counters.turn_times.since(&before.counters.turn_times);
    let turns = format!(
        "{}/{}/{}",
        turns.permille_us(500),
        turns.permille_us(990),
        turns.permille_us(1000)
    );
    format!(
        "{:>7} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>8.1} {:>8.1} {:>5.0} {:>19} {:>8} {:>8} {:>7} {:>6}",
        now.connections,
        rate(|c| c.accepted),
        rate(|c| c.closed),
        rate(|c| c.handed_over + c.moved_out),
        rate(|c| c.taken_over + c.moved_in),
        rate(Counters::refused),
        rate(|c| c.bytes_received) / MEGA,
        rate(|c| c.bytes_sent) / MEGA,
        cpu,
        turns,
        now.memory.buffers_held >> 10,
        now.memory.owned >> 10,
        now.timers,
        now.receives_waiting,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_two_reports() {
        let before = Snapshot::default();
        let mut now = before;
        now.at_us = 2_000_000;
        now.ran_us = 500_000;
        now.connections = 7;
        now.counters.accepted = 20;
        now.counters.bytes_received = 3_000_000;
        let table = table(&[before], &[now]);
        let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row[..9], ["0", "7", "10", "0", "0", "0", "0", "1.5", "0.0"]);
        assert_eq!(row[9], "25");
    }

    #[test]
    fn a_reactor_that_has_not_reported_again_has_no_rate() {
        let table = table(&[Snapshot::default()], &[Snapshot::default()]);
        assert!(table.lines().nth(1).expect("a row").contains(" 0.0 "));
    }

    #[test]
    fn columns_stand_under_their_names() {
        let table = table(&[Snapshot::default()], &[Snapshot::default()]);
        let lengths: Vec<usize> = table.lines().map(str::len).collect();
        assert_eq!(lengths[0], lengths[1]);
    }
}
