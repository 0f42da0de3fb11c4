//! Wishes out: the only caller of `push` for connections.

use std::hint::cold_path;

use super::Reactor;
use super::large::Time;
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::config::{SEGMENTS_PER_SEND_MAX, SUBMISSIONS_PER_CONNECTION_MAX};
use crate::connection::{Action, Connection, Input, Rules, State};
use crate::driver::{Driver, QueueFull, Share, Submission, Wait};
use crate::error::{CloseReason, Fault};
use crate::handler::Handler;
use crate::span::Segment;
use crate::sys::memory::Memory;
use crate::token::{Key, Op, Token};

const SOCKET: &str = "only what has a socket wants something of it";

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Carries out what every dirty connection wants. What does not fit the submission queue stays dirty.
    pub(super) fn apply_all(&mut self) {
        self.apply_dials();
        self.apply_dirty();
        self.acceptor.poll(self.connections.now_us(), &mut self.driver);
        self.make_room();
        self.make_room_for_others();
        self.take_in_clients();
        if !self.wake_armed {
            let token = Token::new(Op::Wake, Key::new(0, 0), 0);
            self.wake_armed = self.driver.push_wake(token).is_ok();
        }
    }

    #[inline(never)]
    fn apply_dirty(&mut self) {
        // Those behind are put off to the next turn. Taken out last: a panic leaves them for `after_panic`.
        let count = self.connections.dirty.len();
        for at in 0..count {
            self.apply(self.connections.dirty[at]);
        }
        if !self.large.keys.is_empty() {
            self.apply_large(count);
        }
        self.connections.dirty.drain(..count);
    }

    /// Carries out what one connection wants, unless it has much to move: that has its time behind the others. A
    /// message in, a message out is carried out here: one piece to be sent, and nothing else.
    #[inline]
    fn apply(&mut self, key: Key) {
        let Self { driver, connections, .. } = self;
        let Some(slot) = connections.slots.get_mut(key) else { return };
        let ending = matches!(slot.connection.state(), State::Closing { .. });
        let share = if ending { Share::Management } else { Share::Data };
        if !has_room(driver, share) {
            if sings(Canary::FullQueueForgets) {
                slot.dirty = false;
                return;
            }
            return connections.dirty.push(key);
        }
        if self.large.is_much(slot.connection.outbox.bytes()) && slot.connection.sends_now() {
            cold_path();
            return self.put_to_large(key);
        }
        slot.dirty = false;
        let connection = &mut slot.connection;
        if let Some(segment) = connection.outbox.only_segment(&connections.pieces)
            && connection.poll_send()
        {
            let (rules, memory) = (&connections.rules, &connections.memory);
            let Ok(zero_copy) = send(driver, connection, key, &[segment], rules, memory) else {
                return self.on_send_unqueued(key);
            };
            self.sends_queued += 1;
            if zero_copy {
                connections.counters.zero_copy_sends += 1;
            }
            if connection.is_settled_beside_send() {
                return;
            }
        }
        cold_path();
        self.apply_all_of(key, share, Time::OfAll);
    }

    /// Carries out what one connection wants, whatever it is.
    #[inline(never)]
    pub(super) fn apply_all_of(&mut self, key: Key, share: Share, time: Time) {
        loop {
            let Self { driver, connections, segments, .. } = self;
            let Some(slot) = connections.slots.get_mut(key) else { return };
            let connection = &mut slot.connection;
            if !connection.poll_send() {
                if self.apply_rarer(key, share, time) {
                    continue;
                }
                return;
            }
            segments.clear();
            let bytes =
                connection.outbox.segments(&connections.pieces, SEGMENTS_PER_SEND_MAX, segments);
            self.large.moved_bytes += u64::from(bytes);
            let (rules, memory) = (&connections.rules, &connections.memory);
            let Ok(zero_copy) = send(driver, connection, key, segments, rules, memory) else {
                return self.on_send_unqueued(key);
            };
            self.sends_queued += 1;
            connections.counters.zero_copy_sends += u64::from(zero_copy);
            if connection.is_settled_beside_send() {
                return;
            }
        }
    }

    /// Carries out the next wish of a connection that wants to send nothing; whether there was one.
    #[cold]
    fn apply_rarer(&mut self, key: Key, share: Share, time: Time) -> bool {
        const ROOM: &str = "room was made for all that a connection can want";
        let Some(slot) = self.connections.slots.get(key) else { return false };
        let is_much = self.large.is_much(slot.share_bytes);
        if is_much && slot.connection.receives_now() {
            if time == Time::OfAll {
                self.put_to_large(key);
                return false;
            }
            if self.leaves_buffers(key) {
                self.park(key);
            }
        }
        let cap = self.large.cap(self.receive_cap, time, self.connections.now_ms());
        let Some(slot) = self.connections.slots.get_mut(key) else { return false };
        let connection = &mut slot.connection;
        let Some(action) = connection.poll_action(&self.connections.rules) else { return false };
        let descriptor = connection.descriptor();
        let (op, submission) = match action {
            Action::SetTimer(deadline_ms) => {
                connection.timer_stands_at(self.wheel.arm(key.index(), deadline_ms));
                return true;
            }
            Action::Free(reason) => {
                self.end(key, reason);
                return true;
            }
            Action::Cancel(op) => {
                let target = Submission::Cancel(connection.token(op, key));
                let token = Token::new(Op::Cancel, key, op as u8);
                self.driver.push(token, target, Share::Management).expect(ROOM);
                return true;
            }
            Action::Send => unreachable!("dealt with by the caller"),
            Action::Receive => {
                let descriptor = descriptor.expect(SOCKET);
                if is_much {
                    self.large.moved_bytes += u64::from(cap);
                }
                (Op::Receive, Submission::Receive { descriptor, cap })
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
        true
    }

    /// The kernel takes nothing for now: the send counts as cancelled, and is asked for again next turn.
    #[cold]
    fn on_send_unqueued(&mut self, key: Key) {
        self.connections.handle(key, Input::Sent { result: Err(Fault::Cancelled), more: false });
    }

    /// Gives dials their sockets, in the order they were asked for.
    fn apply_dials(&mut self) {
        let mut dials = std::mem::take(&mut self.connections.dials);
        while let Some((key, address, from)) = dials.pop_front() {
            let Some(slot) = self.connections.slots.get_mut(key) else { continue };
            if !matches!(slot.connection.state(), State::Opening { .. }) {
                continue;
            }
            let descriptor = match self.driver.open_socket(&address, from) {
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
        self.connections.counters.phase_timeouts += u64::from(reason == CloseReason::PhaseTimeout);
        self.call(Callback::OnClose, key, |handler, ctx| handler.on_close(ctx, reason));
        self.free(key);
    }
}

/// Whether all that one connection can want fits; hands the queue to the kernel to make room.
#[inline]
pub(super) fn has_room<D: Driver>(driver: &mut D, share: Share) -> bool {
    if driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX {
        return true;
    }
    // Its failures show again at the turn's own enter.
    let _ = driver.enter(Wait::NOT);
    driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX
}

/// Queues a send of the segments; whether it avoids the copy. The driver may have no place for so many vectored
/// ones between two enters.
#[inline(always)]
fn send<D: Driver>(
    driver: &mut D,
    connection: &mut Connection,
    key: Key,
    segments: &[Segment],
    rules: &Rules,
    memory: &Memory,
) -> Result<bool, QueueFull> {
    let bytes = segments.iter().map(|segment| segment.length).sum();
    let zero_copy = connection.begin_send(bytes, rules, || may_keep_buffers(memory));
    let descriptor = connection.descriptor().expect(SOCKET);
    let token = connection.token(Op::Send, key);
    let send = Submission::Send { descriptor, segments, zero_copy };
    if driver.push(token, send, Share::Data).is_err() {
        // Its failures show again at the turn's own enter.
        let _ = driver.enter(Wait::NOT);
        driver.push(token, send, Share::Data)?;
    }
    Ok(zero_copy)
}

/// Whether a send may leave its buffers with the kernel. They stay there until the peer has read: half of
/// them at most, or readers that stall would keep them all.
fn may_keep_buffers(memory: &Memory) -> bool {
    memory.buffers_free() > memory.buffers() / 2
}
