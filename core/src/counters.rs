//! What one reactor counts, and how it stands. Plain numbers: the reactor alone writes them, a report copies
//! them out.
//!
//! * [`Counters`] only grow: what has happened since the start.
//! * [`Snapshot`] has them, and beside them what is so at the moment of the report.

/// Numbers of one reactor since it started. Bytes are bytes; everything else is a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Passes of the reactor.
    pub turns: u64,
    /// Completions taken from the kernel.
    pub completions: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Dials begun.
    pub dialed: u64,
    /// Connections that ended here.
    pub closed: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes the kernel took.
    pub bytes_sent: u64,
    /// Completions of a connection that no longer was there, or of an earlier activation.
    pub stale_completions: u64,
    /// Receives that found no free buffer, or that left the last ones to others, and were parked.
    pub receives_parked: u64,
    /// Completions put off to the next turn because their connection had used its share of this one.
    pub completions_deferred: u64,
    /// Connections with much to move that were put off to the next turn, since others with little were there.
    pub large_put_off: u64,
    /// Sends that the socket took only in part, or not at all.
    pub sends_blocked: u64,
    /// Buffers freed early by copying the bytes of a stalled reader to plain memory.
    pub buffers_spilled: u64,
    /// Sends made without a copy, and those of them that the kernel copied all the same.
    pub zero_copy_sends: u64,
    /// See `zero_copy_sends`.
    pub zero_copy_copied: u64,
    /// Clients handed over to another reactor, and those taken over from others. Who serves them counts them as
    /// accepted.
    pub handed_over: u64,
    /// See `handed_over`.
    pub taken_over: u64,
    /// Connections that came from other reactors when those had too many, and that went to others.
    pub moved_in: u64,
    /// See `moved_in`.
    pub moved_out: u64,
    /// Connections that were to go to others, and were needed here or kept by their handler.
    pub moves_given_up: u64,
    /// Clients that were to be handed over and stayed, because the other's mailbox was full.
    pub mailboxes_full: u64,
    /// Clients accepted from the listeners of a reactor that did not turn.
    pub stood_in: u64,
    /// Clients that were reset because their address may not connect.
    pub refused_access: u64,
    /// Clients that were reset because their source had as many connections as it may.
    pub refused_source_full: u64,
    /// Clients that were reset because their source came too often.
    pub refused_source_rate: u64,
    /// Times the reactor had too much, and accepted nobody for a while; and idle connections it closed then.
    pub strained: u64,
    /// See `strained`.
    pub shed: u64,
    /// Accepts that failed, of any cause.
    pub accept_errors: u64,
    /// Times the acceptor stopped for want of descriptors.
    pub accept_pauses: u64,
    /// Times a client had to wait for a token of an accept rate.
    pub accepts_paced: u64,
    /// Clients that were reset because there was no place for them (`OnFull::Reject`).
    pub refused_full: u64,
    /// Idle connections that were closed for a client that found no place (`OnFull::EvictIdle`).
    pub evicted: u64,
    /// Of those, for a client that waited at another reactor.
    pub evicted_for_others: u64,
    /// Connections that were reset because a phase did not end in time (`CloseReason::PhaseTimeout`).
    pub phase_timeouts: u64,
    /// Handlers that panicked, each of which ended its connection.
    pub handler_panics: u64,
    /// Turns that found their completions by polling, and those that polled in vain.
    pub polls_paid: u64,
    /// See `polls_paid`.
    pub polls_vain: u64,
    /// Connections the drain deadline aborted.
    pub drain_aborted: u64,
    /// Turns that took a second and more, in which others did its work at the door.
    pub stalls: u64,
    /// How long turns took, without the waiting.
    pub turn_times: TurnTimes,
}

impl Counters {
    /// Connections that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.accepted + self.dialed + self.moved_in - self.closed - self.moved_out
    }

    /// Clients that were turned away, for whatever reason.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused_full
            + self.refused_access
            + self.refused_source_full
            + self.refused_source_rate
    }
}

/// How long the turns of a reactor took, in powers of two: for a quantile that is right to a factor of two, and
/// that costs one addition a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnTimes {
    /// Turns of less than 1 us, less than 2, less than 4, and so on; the last has all that were longer.
    powers: [u64; TURN_POWERS],
    longest_us: u64,
}

/// The last power is of turns of 8.4 s and more.
const TURN_POWERS: usize = 25;

impl TurnTimes {
    #[inline]
    pub(crate) fn note(&mut self, us: u64) {
        let power = (u64::BITS - us.leading_zeros()) as usize;
        self.powers[power.min(TURN_POWERS - 1)] += 1;
        self.longest_us = self.longest_us.max(us);
    }

    /// Turns noted.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.powers.iter().sum()
    }

    /// The longest turn, microseconds.
    #[must_use]
    pub fn longest_us(&self) -> u64 {
        self.longest_us
    }

    /// So many turns of a thousand took no longer than this, microseconds: up to twice what is true, never less.
    /// Zero if there was no turn.
    #[must_use]
    pub fn permille_us(&self, permille: u32) -> u64 {
        let wanted = (self.turns() * u64::from(permille)).div_ceil(1000);
        let mut seen = 0;
        for (power, count) in self.powers.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return ((1 << power) - 1).min(self.longest_us);
            }
        }
        self.longest_us
    }

    /// What came since `before`. The longest is the longest of all.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut powers = self.powers;
        for (power, before) in powers.iter_mut().zip(&before.powers) {
            *power -= before;
        }
        Self { powers, longest_us: self.longest_us }
    }
}

/// One reactor, as it stood when it last reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it had counted.
    pub counters: Counters,
    /// When that was, microseconds on the runtime's clock.
    pub at_us: u64,
    /// Microseconds of processor time that its thread had used.
    pub ran_us: u64,
    /// Connections it held, accepted and dialed.
    pub connections: u32,
    /// Receives that waited for a buffer.
    pub receives_waiting: u32,
    /// Timers armed.
    pub timers: u32,
    /// Clients that others had handed over, and connections that had moved, that it had not looked at yet.
    pub mail: u32,
    /// What its memory was used for.
    pub memory: Ledger,
}

/// What the memory of one reactor is used for, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// All buffers of its ring.
    pub buffers: u64,
    /// Those of them that hold bytes: received, or waiting to be sent.
    pub buffers_held: u64,
    /// Plain memory that waits to be sent.
    pub owned: u64,
    /// Slots of its connections.
    pub slots: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_never_too_low_and_less_than_twice_too_high() {
        let mut times = TurnTimes::default();
        assert_eq!(times.permille_us(500), 0);
        (1..=1000).for_each(|us| times.note(us));
        for (permille, us) in [(1, 1), (500, 500), (990, 990), (1000, 1000)] {
            let told = times.permille_us(permille);
            assert!((us..us * 2).contains(&told), "{permille}: {told}");
        }
        assert_eq!((times.turns(), times.longest_us()), (1000, 1000));
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        let mut times = TurnTimes::default();
        times.note(0);
        assert_eq!(times.permille_us(1000), 0);
        times.note(u64::MAX);
        assert_eq!(times.permille_us(500), 0);
        assert_eq!(times.longest_us(), u64::MAX);
    }

    #[test]
    fn what_came_since_leaves_out_what_was_before() {
        let mut times = TurnTimes::default();
        times.note(5);
        let before = times;
        times.note(100);
        assert_eq!(times.since(&before).turns(), 1);
        assert!(times.since(&before).permille_us(1) >= 100);
    }
}
