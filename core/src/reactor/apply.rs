//! Wishes out: the only caller of `push` for connections.

use super::Reactor;
use crate::config::{SEGMENTS_PER_SEND_MAX, SUBMISSIONS_PER_CONNECTION_MAX};
use crate::connection::{Action, Input, State};
use crate::driver::{Driver, QueueFull, Share, Submission, Wait};
use crate::error::{CloseReason, Fault};
use crate::handler::{Ctx, Handler};
use crate::sys::memory::Memory;
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
        // A queue without room leaves these as they are: the next turn asks again.
        let _ = self.acceptor.poll(&mut self.driver);
        while let Some((descriptor, listener)) = self.acceptor.poll_early() {
            self.open(descriptor, listener);
        }
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

    /// Carries out what one connection wants, for which there is room in the queue.
    #[inline]
    fn apply(&mut self, key: Key, share: Share) {
        const ROOM: &str = "room was made for all that a connection can want";
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        let connection = &mut slot.connection;
        while !connection.is_settled() {
            let Some(action) = connection.poll_action(&self.connections.rules) else { return };
            let descriptor = match (action, connection.descriptor()) {
                (Action::SetTimer(deadline_ms), _) => {
                    self.wheel.arm(key.index(), deadline_ms);
                    continue;
                }
                (Action::Free(reason), _) => return self.end(key, reason),
                (_, Some(descriptor)) => descriptor,
                (other, None) => unreachable!("{other:?} of a connection without a socket"),
            };
            let (op, submission) = match action {
                Action::Send => {
                    let pieces = &self.connections.pieces;
                    self.segments.clear();
                    let bytes = connection.outbox.segments(
                        pieces,
                        SEGMENTS_PER_SEND_MAX,
                        &mut self.segments,
                    );
                    let zero_copy = connection.begin_send(bytes, &self.connections.rules)
                        && may_keep_buffers(&self.connections.memory);
                    let send = Submission::Send { descriptor, segments: &self.segments, zero_copy };
                    if !push_send(&mut self.driver, connection.token(Op::Send, key), send) {
                        return self.on_send_unqueued(key);
                    }
                    self.sends_queued += 1;
                    self.connections.counters.zero_copy_sends += u64::from(zero_copy);
                    continue;
                }
                Action::Receive => {
                    (Op::Receive, Submission::Receive { descriptor, cap: self.receive_cap })
                }
                Action::Watch => (Op::Watch, Submission::WatchWritable(descriptor)),
                Action::Cancel(op) => {
                    let target = Submission::Cancel(connection.token(op, key));
                    let token = Token::new(Op::Cancel, key, op as u8);
                    self.driver.push(token, target, Share::Management).expect(ROOM);
                    continue;
                }
                Action::Shutdown => (Op::Shutdown, Submission::ShutdownWrite(descriptor)),
                Action::Close { abortive } => {
                    if abortive {
                        self.driver.set_abortive(descriptor);
                    }
                    (Op::Close, Submission::Close(descriptor))
                }
                Action::SetTimer(_) | Action::Free(_) => unreachable!("dealt with above"),
            };
            self.driver.push(connection.token(op, key), submission, share).expect(ROOM);
        }
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

/// Whether a send may leave its buffers with the kernel. They stay there until the peer has read: half of
/// them at most, or readers that stall would keep them all.
fn may_keep_buffers(memory: &Memory) -> bool {
    memory.buffers_free() > memory.buffers() / 2
}
