//! When to watch the completion queue before sleeping.
//!
//! Falling asleep and being woken is the largest part of a lightly loaded reactor's latency (some 40 us of
//! 60 in a ping-pong on loopback), and watching the queue instead costs a core. So it is done only where it
//! pays: completions come one at a time and soon. When they come in batches, watching makes the batches
//! smaller and every byte dearer; when they come late, it is heat.
//!
//! Adaptive: watch if the last waits were short and their batches small, both as moving averages over about
//! eight turns. A watch in vain is a long wait by definition, so the average itself backs off.

use crate::config::Poll;

/// Longest watch, microseconds.
pub const SPIN_US_MAX: u32 = 50;
/// Completions a wait, in sixteenths: more than this is a batch.
const BATCH_MAX: u32 = 24;
/// Averages are kept in sixteenths and move by an eighth.
const SCALE: u32 = 16;
/// A wait counts for no more than this, so that one long one is forgotten within a dozen short ones.
const WAIT_US_CLIP: u32 = 400;

/// The decision and what it is made from.
#[derive(Debug, Clone, Copy)]
pub struct Polling {
    mode: Poll,
    wait: u32,
    batch: u32,
}

impl Polling {
    /// Starts out sleeping.
    #[must_use]
    pub fn new(mode: Poll) -> Self {
        Self { mode, wait: WAIT_US_CLIP * SCALE, batch: SCALE }
    }

    /// How long to watch before the next sleep, microseconds.
    #[inline]
    #[must_use]
    pub fn spin_us(&self) -> u32 {
        match self.mode {
            Poll::Off => 0,
            Poll::Always => u32::MAX,
            Poll::Adaptive if self.wait < SPIN_US_MAX * SCALE && self.batch <= BATCH_MAX => {
                SPIN_US_MAX
            }
            Poll::Adaptive => 0,
        }
    }

    /// A wait took `waited_us` and brought so many completions, those of sends left out.
    #[inline]
    pub fn note(&mut self, waited_us: u64, completions: u32) {
        let waited = (waited_us.min(u64::from(WAIT_US_CLIP)) as u32) * SCALE;
        self.wait = self.wait - self.wait / 8 + waited / 8;
        self.batch = self.batch - self.batch / 8 + completions.min(64) * SCALE / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(waits: &[(u64, u32)]) -> Polling {
        let mut polling = Polling::new(Poll::Adaptive);
        for &(waited_us, completions) in waits {
            polling.note(waited_us, completions);
        }
        polling
    }

    #[test]
    fn a_ping_pong_is_watched_for() {
        assert_eq!(after(&[(20, 1); 30]).spin_us(), SPIN_US_MAX);
    }

    #[test]
    fn an_idle_reactor_sleeps_at_once() {
        assert_eq!(after(&[]).spin_us(), 0);
        assert_eq!(after(&[(10_000, 1); 3]).spin_us(), 0);
    }

    #[test]
    fn batches_are_left_to_grow() {
        assert_eq!(after(&[(20, 8); 30]).spin_us(), 0);
    }

    #[test]
    fn a_few_vain_watches_end_it_and_short_waits_bring_it_back() {
        let mut polling = after(&[(20, 1); 30]);
        let mut vain = 0;
        while polling.spin_us() > 0 {
            polling.note(5_000, 1);
            vain += 1;
        }
        assert!(vain <= 2, "{vain} vain watches");
        let mut short = 0;
        while polling.spin_us() == 0 {
            polling.note(20, 1);
            short += 1;
        }
        assert!(short <= 16, "{short} short waits");
    }

    #[test]
    fn off_and_always_do_not_look() {
        assert_eq!(Polling::new(Poll::Off).spin_us(), 0);
        assert_eq!(Polling::new(Poll::Always).spin_us(), u32::MAX);
    }
}
