//! Wishes out: the only caller of `push` for connections.

use super::Reactor;
use crate::canary::{Canary, sings};
use crate::config::{SEGMENTS_PER_SEND_MAX, SUBMISSIONS_PER_CONNECTION_MAX};
use crate::connection::{Action, Input, State};
use crate::driver::{Driver, QueueFull, Share, Submission, Wait};
use crate::error::{CloseReason, Fault};
use crate::handler::{Ctx, Handler};
use crate::outbox::{Outbox, Pieces};
use crate::span::Segment;
use crate::sys::memory::Memory;
use crate::token::{Key, Op, Token};

const SOCKET: &str = "only what has a socket wants something of it";

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Carries out what every dirty connection wants. What does not fit the submission queue stays dirty.
    pub(super) fn apply_all(&mut self) {
        self.apply_dials();
        // Those behind are put off to the next turn. Taken out last: a panic leaves them for `after_panic`.
        let count = self.connections.dirty.len();
        for at in 0..count {
            self.apply(self.connections.dirty[at]);
        }
        self.connections.dirty.drain(..count);
        self.acceptor.poll(&mut self.driver);
        self.take_in_clients();
        if !self.wake_armed {
            let token = Token::new(Op::Wake, Key::new(0, 0), 0);
            self.wake_armed = self.driver.push_wake(token).is_ok();
        }
    }

    /// Carries out what one connection wants.
    #[inline]
    fn apply(&mut self, key: Key) {
        let Some(mut slot) = self.connections.slots.get_mut(key) else { return };
        let ending = matches!(slot.connection.state(), State::Closing { .. });
        let share = if ending { Share::Management } else { Share::Data };
        if !has_room(&mut self.driver, share) {
            if sings(Canary::FullQueueForgets) {
                slot.dirty = false;
                return;
            }
            return self.connections.dirty.push(key);
        }
        slot.dirty = false;
        loop {
            let connection = &mut slot.connection;
            match connection.poll_action(&self.connections.rules) {
                None => return,
                Some(Action::Send) => {
                    let pieces = &self.connections.pieces;
                    // One is what a message in, a message out makes: it needs no list.
                    let only = connection.outbox.only_segment(pieces);
                    let (segments, bytes) = match &only {
                        Some(segment) => (std::slice::from_ref(segment), segment.length),
                        None => list_segments(&connection.outbox, pieces, &mut self.segments),
                    };
                    let memory = &self.connections.memory;
                    let zero_copy = connection
                        .begin_send(bytes, &self.connections.rules, || may_keep_buffers(memory));
                    let descriptor = connection.descriptor().expect(SOCKET);
                    let send = Submission::Send { descriptor, segments, zero_copy };
                    if !push_send(&mut self.driver, connection.token(Op::Send, key), send) {
                        return self.on_send_unqueued(key);
                    }
                    self.sends_queued += 1;
                    self.connections.counters.zero_copy_sends += u64::from(zero_copy);
                    if connection.is_settled() {
                        return;
                    }
                }
                Some(action) => {
                    self.apply_rarer(key, action, share);
                    let Some(again) = self.connections.slots.get_mut(key) else { return };
                    slot = again;
                }
            }
        }
    }

    /// Carries out an action that is no send.
    #[cold]
    fn apply_rarer(&mut self, key: Key, action: Action, share: Share) {
        const ROOM: &str = "room was made for all that a connection can want";
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        let descriptor = connection.descriptor();
        let (op, submission) = match action {
            Action::SetTimer(deadline_ms) => {
                return connection.timer_stands_at(self.wheel.arm(key.index(), deadline_ms));
            }
            Action::Free(reason) => return self.end(key, reason),
            Action::Cancel(op) => {
                let target = Submission::Cancel(connection.token(op, key));
                let token = Token::new(Op::Cancel, key, op as u8);
                return self.driver.push(token, target, Share::Management).expect(ROOM);
            }
            Action::Send => unreachable!("dealt with by the caller"),
            Action::Receive => {
                let descriptor = descriptor.expect(SOCKET);
                (Op::Receive, Submission::Receive { descriptor, cap: self.receive_cap })
            }
            Action::Watch { many } => {
                let descriptor = descriptor.expect(SOCKET);
                (Op::Watch, Submission::WatchWritable { descriptor, many })
            }
            Action::Shutdown => {
                (Op::Shutdown, Submission::ShutdownWrite(descriptor.expect(SOCKET)))
            }
            Action::Close { abortive } => {
                let descriptor = descriptor.expect(SOCKET);
                if abortive {
                    self.driver.set_abortive(descriptor);
                }
                (Op::Close, Submission::Close(descriptor))
            }
        };
        self.driver.push(connection.token(op, key), submission, share).expect(ROOM);
    }

    /// The kernel takes nothing for now: the send counts as cancelled, and is asked for again next turn.
    #[cold]
    fn on_send_unqueued(&mut self, key: Key) {
        self.connections.handle(key, Input::Sent { result: Err(Fault::Cancelled), more: false });
    }

    /// Gives dials their sockets, in the order they were asked for.
    fn apply_dials(&mut self) {
        let mut dials = std::mem::take(&mut self.connections.dials);
        while let Some((key, address)) = dials.pop_front() {
            let Some(slot) = self.connections.slots.get_mut(key) else { continue };
            if !matches!(slot.connection.state(), State::Opening { .. }) {
                continue;
            }
            let descriptor = match self.driver.open_socket(&address) {
                Ok(descriptor) => descriptor,
                Err(fault) => {
                    self.connections.handle(key, Input::Connected(Err(fault)));
                    continue;
                }
            };
            slot.connection.connecting(descriptor);
            let token = slot.connection.token(Op::Connect, key);
            let connect = Submission::Connect { descriptor, address: &address };
            let mut pushed = self.driver.push(token, connect, Share::Data);
            if pushed == Err(QueueFull) {
                let _ = self.driver.enter(Wait::NOT);
                pushed = self.driver.push(token, connect, Share::Data);
            }
            if pushed == Err(QueueFull) {
                // The kernel takes nothing for now: the dial failed for want of memory, and can be tried
                // again by who asked for it.
                self.connections.handle(key, Input::Connected(Err(Fault::Memory)));
            }
        }
        self.connections.dials = dials;
    }

    /// The kernel holds nothing of the connection any more: tell, and free.
    fn end(&mut self, key: Key, reason: CloseReason) {
        self.current = Some((key, true));
        self.handler.on_close(&mut Ctx::new(&mut self.connections, key), reason);
        self.current = None;
        self.free(key);
    }
}

/// Whether all that one connection can want fits; hands the queue to the kernel to make room.
#[inline]
fn has_room<D: Driver>(driver: &mut D, share: Share) -> bool {
    if driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX {
        return true;
    }
    // Its failures show again at the turn's own enter.
    let _ = driver.enter(Wait::NOT);
    driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX
}

/// Queues a send. The driver may have no place for so many vectored ones between two enters.
#[inline]
fn push_send<D: Driver>(driver: &mut D, token: Token, send: Submission<'_>) -> bool {
    if driver.push(token, send, Share::Data).is_ok() {
        return true;
    }
    // Its failures show again at the turn's own enter.
    let _ = driver.enter(Wait::NOT);
    driver.push(token, send, Share::Data).is_ok()
}

/// What one send can carry of an outbox, and its bytes.
fn list_segments<'a>(
    outbox: &Outbox,
    pieces: &Pieces,
    into: &'a mut Vec<Segment>,
) -> (&'a [Segment], u32) {
    into.clear();
    let bytes = outbox.segments(pieces, SEGMENTS_PER_SEND_MAX, into);
    (into, bytes)
}

/// Whether a send may leave its buffers with the kernel. They stay there until the peer has read: half of
/// them at most, or readers that stall would keep them all.
fn may_keep_buffers(memory: &Memory) -> bool {
    memory.buffers_free() > memory.buffers() / 2
}
