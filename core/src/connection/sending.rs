//! What becomes of a send: the bytes taken, a socket that is full, memory that the kernel lets go of.
//!
//! Is: the answers to `Send` and `Watch`, and whether a send avoids the copy. Is not: when one is wanted, which
//! `connection/actions.rs` derives.
//!
//! ```text
//! Send -> taken whole -> the next, at once
//!      -> short       -> blocked -> Watch -> room -> the next
//!      -> would block -> blocked -> Watch -> the peer's FIN -> Watch that goes on -> room -> the next
//! ```

use std::hint::cold_path;

use super::words::{Event, Rules, State};
use super::{Connection, Surroundings, ZeroCopy};
use crate::canary::{Canary, sings};
use crate::config::NOTIFICATIONS_MAX;
use crate::error::Fault;
use crate::span::Span;
use crate::token::Op;

impl Connection {
    /// The send that [`Action::Send`](super::Action::Send) asked for carries `bytes`; whether it should avoid the
    /// copy, if it may keep its buffers.
    #[inline]
    pub fn begin_send(
        &mut self,
        bytes: u32,
        rules: &Rules,
        may_keep: impl FnOnce() -> bool,
    ) -> bool {
        self.sending_bytes = bytes;
        self.sending_zero_copy = false;
        if rules.zero_copy_min == 0 || bytes < rules.zero_copy_min {
            return false;
        }
        self.sending_zero_copy = self.notifications < NOTIFICATIONS_MAX
            // The first one asks whether it pays: no second before its answer.
            && match self.zero_copy {
                ZeroCopy::Untried => self.notifications == 0,
                ZeroCopy::Pays => true,
                ZeroCopy::Off => false,
            }
            && may_keep();
        self.sending_zero_copy
    }

    #[inline]
    pub(super) fn on_sent<R: FnMut(Span)>(
        &mut self,
        result: Result<u32, Fault>,
        more: bool,
        around: Surroundings<'_, R>,
    ) -> Event {
        if !self.in_flight(Op::Send) {
            return Event::None;
        }
        self.land(Op::Send);
        self.notifications += u16::from(more);
        // Taken apart and put together again, so that only those who are called with it have it in memory.
        let Surroundings { pieces, release, rules, now_ms } = around;
        let (Ok(bytes), false) = (result, matches!(self.state, State::Closing { .. })) else {
            let around = Surroundings { pieces, release, rules, now_ms };
            return self.on_sent_for_nothing(result, more, around);
        };
        let bytes = if sings(Canary::ShortSendAsWhole) { self.sending_bytes } else { bytes };
        self.outbox.advance(pieces, bytes, release);
        self.progress_at_ms = now_ms;
        self.unsent = 0;
        self.room_came = false;
        self.blocked = false;
        if bytes < self.sending_bytes || self.high {
            cold_path();
            return self.on_sent_and_full(bytes, rules);
        }
        Event::None
    }

    /// A send was short, or taken from an outbox that is high.
    #[inline(never)]
    fn on_sent_and_full(&mut self, bytes: u32, rules: &Rules) -> Event {
        // Short: the socket is full, trying again at once would only say so. (Where the watch tells of changes
        // only, it has to say so.)
        let waits = !self.in_flight(Op::Watch) || sings(Canary::ShortWaits);
        self.blocked = bytes < self.sending_bytes && waits;
        self.look_at_the_outbox(rules)
    }

    /// A send failed, or the connection has ended meanwhile.
    #[cold]
    #[inline(never)]
    fn on_sent_for_nothing<R: FnMut(Span)>(
        &mut self,
        result: Result<u32, Fault>,
        more: bool,
        mut around: Surroundings<'_, R>,
    ) -> Event {
        let fault = match result {
            Err(fault) if !matches!(self.state, State::Closing { .. }) => fault,
            _ => {
                self.drop_outbox(result.unwrap_or(0), &mut around);
                return Event::None;
            }
        };
        self.refused += u8::from(more);
        if !self.puts_off(fault) {
            self.fail(fault, &mut around);
            return Event::None;
        }
        self.look_at_the_outbox(around.rules)
    }

    /// What a send that did not empty it makes of the outbox.
    fn look_at_the_outbox(&mut self, rules: &Rules) -> Event {
        self.timer_nearer |= self.blocked;
        if self.high
            && !sings(Canary::HighForEver)
            && self.outbox.bytes() <= rules.low_bytes
            && self.outbox.pieces() <= rules.high_pieces / 2
        {
            self.high = false;
            return Event::Writable;
        }
        if self.blocked { Event::Blocked } else { Event::None }
    }

    /// Whether a send that failed so is merely tried again.
    #[cold]
    fn puts_off(&mut self, fault: Fault) -> bool {
        // Without a copy it does not go, for want of pinned memory: with one it does.
        let unpinned = matches!(fault, Fault::NoBuffers | Fault::Memory) && self.sending_zero_copy;
        if unpinned {
            self.zero_copy = ZeroCopy::Off;
        }
        // The room may have come between the kernel's look and its word.
        let room_came = std::mem::take(&mut self.room_came) && !sings(Canary::RoomForgotten);
        self.blocked |= fault == Fault::WouldBlock && !room_came;
        unpinned || matches!(fault, Fault::WouldBlock | Fault::Cancelled)
    }

    /// A poll tells unasked that the peer's FIN is in, however full the socket: it would end at once, whenever
    /// it is armed. From the first time on the watch is one that goes on: it tells once of the FIN, then of
    /// room.
    pub(super) fn on_watched(
        &mut self,
        (room, reads): (bool, bool),
        more: bool,
        now_ms: u64,
    ) -> Event {
        if !more {
            self.land(Op::Watch);
        }
        self.watches_on |= !room && !sings(Canary::WatchSpins);
        if room {
            self.room_came = more && self.in_flight(Op::Send);
            self.blocked = false;
        }
        if reads {
            // A reactor that stalled meanwhile hears of it behind the deadline.
            self.progress_at_ms = now_ms;
        }
        Event::None
    }

    /// The kernel says of a send that it refused, too, that it was copied: that is no answer.
    pub(super) fn on_notified(&mut self, copied: bool) -> Event {
        self.notifications = self.notifications.saturating_sub(1);
        if copied && self.refused > 0 {
            self.refused -= 1;
        } else {
            self.zero_copy = if copied { ZeroCopy::Off } else { ZeroCopy::Pays };
        }
        Event::None
    }
}
