//! What the owner of a ring was told of its connections: what it can know, as the kernel sees it.
//!
//! Deadlines count from what a reactor has heard, not from what has happened: a completion may stand in the
//! queue for a while. So whether one came early is told from here, and not from the sockets.

use slipring_core::token::{Op, Token};
use slipring_core::{CloseReason, Key};

use super::operations::{State, is_write_watch};
use super::queues::{Pending, Work};
use super::stream::Phase;
use super::{FileId, Kernel, OperationId};
use crate::trace::Party;

/// What a token says of its connection: slot and generation.
const KEY_BITS: u64 = (1 << 52) - 1;
/// A shorter turn makes nothing late.
const LONG_TURN_US: u64 = 1_000;
/// Long turns are remembered for so long: nobody asks for one of before.
const REMEMBERED_US: u64 = 120_000_000;

/// What is known of one connection. Times are microseconds, zero for never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    file: Option<FileId>,
    /// Bytes of its send under way, or of its last.
    sending: usize,
    /// Of those some were not taken, for want of room; when that was heard last.
    pub(super) blocked: bool,
    pub(crate) blocked_us: u64,
    /// Its dial was asked for, no sooner than this.
    pub(crate) dialed_us: u64,
    /// The first bytes came.
    pub(crate) heard_us: u64,
    /// Bytes came, or the kernel took some.
    pub(crate) moved_us: u64,
    /// The kernel took bytes, or has room for some, or a look at the send queue found fewer than the one before.
    pub(crate) progress_us: u64,
    /// Completions of its receives.
    receives: u64,
    /// The peer's FIN came.
    pub(crate) end_us: u64,
    /// Its own FIN was pushed.
    pub(crate) shut: bool,
    /// Bytes in the send queue at the last look since the kernel took some.
    looked: Option<u32>,
}

/// For so long nothing has moved on a connection that goes to another reactor.
pub(crate) const MOVED_IDLE_US: u64 = 1_000_000;

/// A connection whose owner has just given it up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp {
    pub(crate) who: Party,
    pub(crate) why: CloseReason,
    pub(crate) at_us: u64,
    pub(crate) told: Told,
    /// When the last byte left its socket, if some wait there and nobody was about to add to them.
    pub(crate) left_us: Option<u64>,
}

impl Kernel {
    /// A reactor begins a turn.
    pub(crate) fn begin_turn(&mut self, ring: u16) {
        let now_us = self.now_us;
        let turns_us = &mut self.ring(ring).turns_us;
        *turns_us = [turns_us[1], now_us];
    }

    /// The turn that a reactor has begun just now lasts until then.
    pub(crate) fn end_turn(&mut self, ring: u16, until_us: u64) {
        let now_us = self.now_us;
        if until_us - now_us < LONG_TURN_US {
            return;
        }
        let long_turns_us = &mut self.ring(ring).long_turns_us;
        while long_turns_us.front().is_some_and(|(_, end_us)| end_us + REMEMBERED_US < now_us) {
            long_turns_us.pop_front();
        }
        long_turns_us.push_back((now_us, until_us));
    }

    /// When the owner of a connection begins its first turn from `at_us` on, if it is waiting for that time: then,
    /// or when the turn ends that it is in.
    pub(crate) fn turn_from_us(&self, who: Party, at_us: u64) -> u64 {
        let long_turns_us = &self.rings[usize::from(who.ring())].long_turns_us;
        let within = long_turns_us.iter().find(|(from, until)| (from + 1..*until).contains(&at_us));
        within.map_or(at_us, |(_, until_us)| *until_us)
    }

    /// The owner of a ring pushes something for a connection.
    pub(super) fn note_pushed(&mut self, ring: u16, token: Token, work: &Work, file: FileId) {
        let ring = self.ring(ring);
        let turn_before_us = ring.turns_us[0];
        let told = ring.told.entry(token.to_bits() & KEY_BITS).or_default();
        told.file = Some(file);
        match work {
            Work::Send { segments, .. } => {
                told.sending = segments.iter().map(|segment| segment.length as usize).sum();
            }
            // Asked for in this turn, or at the end of the one before.
            Work::Connect { .. } => told.dialed_us = turn_before_us,
            Work::Shutdown { .. } => told.shut = true,
            _ => {}
        }
    }

    /// A connection has been moved: what it was told is known there.
    pub(super) fn note_moved(&mut self, from: Party, to: Party) {
        if let Some(told) = self.ring(from.ring()).told.remove(&from.key_bits()) {
            // Times are of whole milliseconds.
            if told.moved_us > 0 && self.now_us - told.moved_us < MOVED_IDLE_US - 1_000 {
                self.violate(format!("{from} was moved, and had just moved bytes"));
            }
            self.ring(to.ring()).told.insert(to.key_bits(), told);
        }
        self.moves.push((from, to));
    }

    /// The owner of a ring takes the result of an operation of a connection.
    pub(super) fn note_told(&mut self, ring: u16, token: Token, result: i32) {
        let now_us = self.now_us;
        let key = token.to_bits() & KEY_BITS;
        let Some(told) = self.ring(ring).told.get_mut(&key) else { return };
        told.receives += u64::from(token.is_of(Op::Receive));
        match token.decode().0 {
            Op::Receive if result > 0 => {
                told.moved_us = now_us;
                told.heard_us = if told.heard_us == 0 { now_us } else { told.heard_us };
            }
            Op::Receive if result == 0 => told.end_us = now_us,
            Op::Send if result > 0 => {
                told.moved_us = now_us;
                told.progress_us = now_us;
                told.looked = None;
                told.blocked = (result as usize) < told.sending;
                told.blocked_us = now_us;
            }
            Op::Send => {
                told.blocked = result == -libc::EAGAIN;
                told.blocked_us = now_us;
            }
            Op::Watch
                if result > 0
                    && result & i32::from(libc::POLLOUT | libc::POLLERR)
                        == i32::from(libc::POLLOUT) =>
            {
                told.moved_us = now_us;
                told.progress_us = now_us;
            }
            Op::Close => drop(self.ring(ring).told.remove(&key)),
            _ => {}
        }
    }

    /// The owner of a ring looks how many bytes are in the send queue of a connection.
    pub(crate) fn look_at_unsent(&mut self, ring: u16, descriptor: u32) -> Option<u32> {
        let now_us = self.now_us;
        let id = self.lookup_for(ring, descriptor)?;
        let unsent = self.stream(id)?.unsent() as u32;
        let party = self.file(id)?.party.filter(|party| party.ring() == ring);
        let told = party.and_then(|party| self.ring(ring).told.get_mut(&party.key_bits()));
        if let Some(told) = told {
            if told.looked.is_some_and(|before| unsent < before) {
                told.moved_us = now_us;
                told.progress_us = now_us;
            }
            told.looked = Some(unsent);
        }
        Some(unsent)
    }

    /// What the owner of a connection was told of it; `None` before it has asked for anything, and once it is
    /// closed.
    pub(crate) fn told_of(&self, who: Party) -> Option<Told> {
        self.rings[usize::from(who.ring())].told.get(&who.key_bits()).copied()
    }

    /// Completions of receives that a connection has had; `None` once it is closed.
    pub(crate) fn receives_of(&self, who: Party) -> Option<u64> {
        let (ring, key) = (who.ring(), who.key_bits());
        Some(self.rings[usize::from(ring)].told.get(&key)?.receives)
    }

    /// A connection that waits for room which there is, and of which nobody will tell it any more. The owner
    /// of the ring sleeps.
    pub(crate) fn find_unwoken(&self, ring: u16) -> Option<String> {
        if self.has_news(ring) {
            return None;
        }
        let queues = &self.rings[usize::from(ring)];
        let blocked = queues.told.iter().filter(|(_, told)| told.blocked);
        let unwoken = |told: &Told| {
            let file = self.file(told.file?)?;
            let stream = self.stream(told.file?)?;
            let room = stream.phase == Phase::Connected && stream.is_writable();
            let waits = |id: &&OperationId| {
                let operation = self.operation(**id).filter(|o| o.state == State::Armed);
                is_write_watch(self, **id) && operation.is_some()
            };
            let watched = file.armed.iter().any(|id| waits(&id));
            let sending = |op: &Pending| op.file == told.file && op.op == Some(Op::Send);
            let sends = queues.pending.values().any(sending);
            (room && watched && !sends && stream.no_room_since_us.is_none()).then_some(())
        };
        let (key, _) = blocked.into_iter().find(|(_, told)| unwoken(told).is_some())?;
        let who = Party::new(ring, *key);
        Some(format!("{who} waits for room, there is some, and nobody will tell it"))
    }

    /// Whether bytes wait in the socket of a connection, and no receive is under way that would bring them.
    pub(crate) fn is_unheard(&self, who: Party) -> bool {
        let ring = &self.rings[usize::from(who.ring())];
        let file = ring.told.get(&who.key_bits()).and_then(|told| told.file);
        let waits = file.and_then(|id| self.stream(id)).is_some_and(|s| s.inbox_len() > 0);
        let receives = |op: &Pending| op.file == file && op.op == Some(Op::Receive);
        waits && !ring.pending.values().any(receives)
    }

    /// The owner of a ring has given a connection up.
    pub(crate) fn given_up(&self, ring: u16, key: Key, why: CloseReason) -> GivenUp {
        let who = Party::of(usize::from(ring), key);
        let ring = &self.rings[usize::from(ring)];
        let told = ring.told.get(&who.key_bits()).copied().unwrap_or_default();
        let sending = |op: &Pending| op.file == told.file && op.op == Some(Op::Send);
        let sends = ring.pending.values().any(sending);
        let stream = told.file.and_then(|id| self.stream(id));
        let full = stream.filter(|stream| stream.unsent() > 0 && !sends);
        let left_us = full.map(|stream| stream.progress_us);
        GivenUp { who, why, at_us: self.now_us, told, left_us }
    }
}
