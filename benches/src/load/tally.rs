//! What a run counts: messages, bytes and latencies of the measured window, faults of all of it.
//!
//! Before the window (warm-up) and after it (the last answers come in) only faults are counted: a
//! wrong byte is wrong at any time.

use hdrhistogram::Histogram;

use super::fault::{Fault, Faults};
use super::tls::Handshakes;

/// The longest latency that is told from longer ones: above the longest timeout.
const LATENCY_MAX_NS: u64 = 100_000 * 1_000_000_000;
/// Decimal digits a latency is kept with.
const LATENCY_DIGITS: u8 = 3;

/// The counts.
#[derive(Debug)]
pub struct Tally {
    recording: bool,
    /// Messages answered (connections, with churn).
    pub completed: u64,
    /// Bytes that came back, all of them right.
    pub bytes: u64,
    /// Nanoseconds from the start of a message to its last byte.
    pub latency_ns: Histogram<u64>,
    /// Full TLS handshakes of connections that were completed.
    pub full: u64,
    /// Resumptions of connections that were completed.
    pub resumed: u64,
    /// What went wrong.
    pub faults: Faults,
}

impl Tally {
    /// Nothing counted, and not recording.
    #[must_use]
    pub fn new() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS);
        Self {
            recording: false,
            completed: 0,
            bytes: 0,
            full: 0,
            resumed: 0,
            latency_ns: latency_ns.expect("1 to the maximum, 3 digits, are valid bounds"),
            faults: Faults::default(),
        }
    }

    /// Begins or ends the measured window.
    pub fn record(&mut self, recording: bool) {
        self.recording = recording;
    }

    /// A message is complete.
    pub fn complete(&mut self, latency_ns: u64) {
        if self.recording {
            self.completed += 1;
            self.latency_ns.saturating_record(latency_ns);
        }
    }

    /// The connection of a complete message had this handshake.
    pub fn shake_hands(&mut self, handshake: Option<Handshakes>) {
        match handshake {
            Some(Handshakes::Full) if self.recording => self.full += 1,
            Some(Handshakes::Resumed) if self.recording => self.resumed += 1,
            _ => {}
        }
    }

    /// A message was due and is not complete: it took this long at least.
    pub fn leave_unanswered(&mut self, waited_ns: u64) {
        if self.recording {
            self.latency_ns.saturating_record(waited_ns);
        }
    }

    /// Bytes came back, and were right.
    pub fn receive(&mut self, bytes: u64) {
        if self.recording {
            self.bytes += bytes;
        }
    }

    /// A connection ended before its time.
    pub fn fail(&mut self, fault: Fault) {
        self.faults.count(fault);
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_is_measured_but_faults_always_count() {
        let mut tally = Tally::new();
        for recording in [false, true, false] {
            tally.record(recording);
            tally.receive(10);
            tally.complete(5_000);
            tally.leave_unanswered(7_000);
            tally.shake_hands(Some(Handshakes::Full));
            tally.shake_hands(Some(Handshakes::Resumed));
            tally.shake_hands(None);
            tally.fail(Fault::EarlyEof);
        }
        assert_eq!((tally.completed, tally.bytes, tally.latency_ns.len()), (1, 10, 2));
        assert_eq!((tally.full, tally.resumed), (1, 1));
        assert_eq!(tally.faults.counts().map(|(_, count)| count).sum::<u64>(), 3);
    }
}
