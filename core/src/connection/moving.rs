//! Leaving a reactor for another: when a connection can, and what of it goes along.
//!
//! It can while the kernel holds nothing of it: no operation is in flight, and it has nothing to send. Its receive
//! is cancelled for that ([`Pause::Move`]); bytes that come meanwhile wait in the socket.

use super::words::{Pause, Rules, State};
use super::{Connection, NEVER, ZeroCopy};
use crate::canary::{Canary, sings};
use crate::token::{Descriptor, Op};

const RECEIVE: u8 = 1 << Op::Receive as u8;

/// A connection on its way between two reactors. Its times are those of the clock that all have in common.
#[derive(Debug)]
pub struct Packed {
    /// Its socket, which belongs to whoever has this.
    pub descriptor: Descriptor,
    heard_at_ms: u64,
    progress_at_ms: u64,
    kept_at_ms: u64,
    idle_ms: u32,
    keep_alive_ms: u32,
    zero_copy: ZeroCopy,
}

impl Connection {
    /// Whether it is quiet enough to be moved: it is established, nothing is to be sent, and but for its receive
    /// nothing is under way. A phase that runs is for the handler that began it.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self.state, State::Established)
            && self.outbox.is_empty()
            && self.flights & !RECEIVE == 0
            && self.notifications == 0
            && self.paused & !(Pause::Move as u8) == 0
            && !self.parked
            && self.phase_deadline_ms() == NEVER
    }

    /// Whether the kernel has let go of it too.
    #[must_use]
    pub fn is_loose(&self) -> bool {
        self.is_quiet() && self.flights == 0 && self.cancels == 0
    }

    /// What goes along. It must be [loose](Self::is_loose), and be freed then.
    #[must_use]
    pub fn pack(&self) -> Packed {
        debug_assert!(self.is_loose(), "the kernel holds something of it");
        Packed {
            descriptor: self.descriptor.expect("an established connection has a socket"),
            heard_at_ms: self.heard_at_ms,
            progress_at_ms: self.progress_at_ms,
            kept_at_ms: self.kept_at_ms,
            idle_ms: self.idle_ms,
            keep_alive_ms: self.keep_alive_ms,
            zero_copy: self.zero_copy,
        }
    }

    /// The connection, where it has arrived.
    #[must_use]
    pub fn unpacked(packed: &Packed, rules: &Rules, now_ms: u64) -> Self {
        let fresh = sings(Canary::ArrivesFresh);
        Self {
            heard_at_ms: if fresh { now_ms } else { packed.heard_at_ms },
            progress_at_ms: packed.progress_at_ms,
            kept_at_ms: packed.kept_at_ms,
            idle_ms: packed.idle_ms,
            keep_alive_ms: packed.keep_alive_ms,
            zero_copy: packed.zero_copy,
            ..Self::new(State::Established, Some(packed.descriptor), rules, now_ms)
        }
    }
}
