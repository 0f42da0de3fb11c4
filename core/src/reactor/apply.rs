//! Wishes out: the only caller of `push` for connections.

use super::Reactor;
use crate::config::{SEGMENTS_PER_SEND_MAX, SUBMISSIONS_PER_CONNECTION_MAX};
use crate::connection::{Action, Input, State};
use crate::driver::{Driver, QueueFull, Share, Submission, Wait};
use crate::error::{CloseReason, Fault};
use crate::handler::{Ctx, Handler};
use crate::token::{Key, Op, Token};

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Carries out what every dirty connection wants. What does not fit the submission queue stays dirty.
    pub(super) fn apply_all(&mut self) {
        self.apply_dials();
        for _ in 0..self.connections.dirty.len() {
            let Some(key) = self.connections.dirty.pop_front() else { break };
            let Some(slot) = self.connections.slots.get_mut(key) else { continue };
            slot.dirty = false;
            let ending = matches!(slot.connection.state(), State::Closing { .. });
            let share = if ending { Share::Management } else { Share::Data };
            if self.has_room(share) {
                self.apply(key, share);
            } else {
                self.connections.mark_dirty(key);
            }
        }
        while let Some((descriptor, listener)) = self.acceptor.poll_early() {
            self.open(descriptor, listener);
        }
        // A queue without room leaves these as they are: the next turn asks again.
        let _ = self.acceptor.poll(&mut self.driver);
        if !self.wake_armed {
            let token = Token::new(Op::Wake, Key::new(0, 0), 0);
            self.wake_armed = self.driver.push_wake(token).is_ok();
        }
    }

    /// Whether all that one connection can want fits; hands the queue to the kernel to make room.
    fn has_room(&mut self, share: Share) -> bool {
        if self.driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX {
            return true;
        }
        // Its failures show again at the turn's own enter.
        let _ = self.driver.enter(Wait::NOT);
        self.driver.room(share) >= SUBMISSIONS_PER_CONNECTION_MAX
    }

    #[inline]
    fn apply(&mut self, key: Key, share: Share) {
        loop {
            let Some(slot) = self.connections.slots.get_mut(key) else { return };
            let Some(action) = slot.connection.poll_action(&self.connections.rules) else { return };
            let connection = &slot.connection;
            let Some(descriptor) = connection.descriptor() else {
                // Neither a socket nor anything in flight: only its end and its timer can be wanted.
                match action {
                    Action::Free(reason) => return self.end(key, reason),
                    Action::SetTimer(deadline_ms) => self.wheel.arm(key.index(), deadline_ms),
                    other => unreachable!("{other:?} of a connection without a socket"),
                }
                continue;
            };
            let (op, submission) = match action {
                Action::Send => {
                    self.apply_send(key);
                    continue;
                }
                Action::SetTimer(deadline_ms) => {
                    self.wheel.arm(key.index(), deadline_ms);
                    continue;
                }
                Action::Receive => {
                    (Op::Receive, Submission::Receive { descriptor, cap: self.receive_cap })
                }
                Action::Watch => (Op::Watch, Submission::WatchWritable(descriptor)),
                Action::Cancel(op) => {
                    let target = Submission::Cancel(connection.token(op, key));
                    let token = Token::new(Op::Cancel, key, op as u8);
                    let pushed = self.driver.push(token, target, Share::Management);
                    pushed.expect("room was made for all that a connection can want");
                    continue;
                }
                Action::Shutdown => (Op::Shutdown, Submission::ShutdownWrite(descriptor)),
                Action::Close { abortive } => {
                    if abortive {
                        self.driver.set_abortive(descriptor);
                    }
                    (Op::Close, Submission::Close(descriptor))
                }
                Action::Free(_) => unreachable!("a slot is freed after its socket is closed"),
            };
            let token = connection.token(op, key);
            let pushed = self.driver.push(token, submission, share);
            pushed.expect("room was made for all that a connection can want");
        }
    }

    #[inline]
    fn apply_send(&mut self, key: Key) {
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        self.segments.clear();
        let segments = &mut self.segments;
        let bytes =
            connection.outbox.segments(&self.connections.pieces, SEGMENTS_PER_SEND_MAX, segments);
        // The kernel keeps the buffers of such a send until the peer has read: of half of them at most, or
        // readers that stall would keep them all.
        let memory = &self.connections.memory;
        let may_keep = memory.buffers_free() > memory.buffers() / 2;
        let zero_copy = connection.begin_send(bytes, &self.connections.rules) && may_keep;
        let Some(descriptor) = connection.descriptor() else { return };
        let token = connection.token(Op::Send, key);
        let send = Submission::Send { descriptor, segments: &self.segments, zero_copy };
        let mut pushed = self.driver.push(token, send, Share::Data);
        if pushed == Err(QueueFull) {
            // Too many vectored sends between two enters.
            let _ = self.driver.enter(Wait::NOT);
            pushed = self.driver.push(token, send, Share::Data);
        }
        self.sends_queued += u32::from(pushed.is_ok());
        match pushed {
            Ok(()) if zero_copy => self.connections.counters.zero_copy_sends += 1,
            Ok(()) => {}
            Err(QueueFull) => {
                let input = Input::Sent { result: Err(Fault::Cancelled), more: false };
                self.connections.handle(key, input);
            }
        }
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
