//! Completions in: the only `match` over operations.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Reactor;
use crate::canary::{Canary, sings};
use crate::connection::{Event, Input};
use crate::connections::{Placed, Received, forget_the_dead};
use crate::driver::{Completion, Driver};
use crate::error::{CloseReason, Fault};
use crate::handler::{Ctx, Handler, Origin};
use crate::span::Span;
use crate::token::{Key, Op};

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Takes one completion in.
    #[inline]
    pub(super) fn dispatch(&mut self, completion: Completion) {
        let token = completion.token;
        // The two that matter come first, and need no table.
        if token.is_of(Op::Receive) {
            return self.on_receive(completion);
        }
        if token.is_of(Op::Send) {
            return self.on_send(&completion);
        }
        self.dispatch_rarer(&completion);
    }

    #[cold]
    fn dispatch_rarer(&mut self, completion: &Completion) {
        let (op, key, activation) = completion.token.decode();
        match op {
            Op::Receive | Op::Send => unreachable!("dealt with above"),
            Op::Connect | Op::Watch | Op::Shutdown | Op::Close => {
                self.on_other(op, key, activation, completion);
            }
            Op::Cancel => {
                self.connections.handle(key, Input::CancelDone);
            }
            Op::AcceptMany | Op::WatchListener | Op::CancelAccept | Op::CloseOther => {
                self.acceptor.handle(op, key, activation, completion);
                self.take_in_clients();
            }
            Op::Wake => self.on_wake(),
            // What there is was taken before.
            Op::Mail => {}
            Op::Notify => self.on_notified(key.index() as usize, completion.result.is_ok()),
        }
    }

    #[cold]
    fn on_stale(&mut self, span: Option<Span>) {
        self.connections.counters.stale_completions += 1;
        if let Some(span) = span {
            self.connections.memory.release(span);
        }
    }

    #[inline]
    fn on_receive(&mut self, completion: Completion) {
        let (key, activation) = (completion.token.key(), completion.token.activation());
        let bytes = completion.span.as_ref().map_or(0, Span::length);
        let event = match self.connections.received(key, activation, bytes, completion.more) {
            Received::Now(event) => event,
            Received::Stale => return self.on_stale(completion.span),
            Received::Later => return self.defer(completion),
        };
        let Some(span) = completion.span else {
            return self.on_receive_ended(key, completion.result);
        };
        self.connections.counters.bytes_received += u64::from(bytes);
        match event {
            Event::Data => {
                let lease = self.connections.memory.lease(span);
                self.current = Some((key, false));
                self.handler.on_data(&mut Ctx::new(&mut self.connections, key), lease);
                self.current = None;
            }
            _ if sings(Canary::DiscardedKept) => {
                drop(self.connections.memory.lease(span).into_span());
            }
            _ => self.connections.memory.release(span),
        }
    }

    #[cold]
    fn defer(&mut self, completion: Completion) {
        self.connections.counters.completions_deferred += 1;
        self.deferred.push(completion);
    }

    /// A receive is over, and brought nothing.
    #[cold]
    fn on_receive_ended(&mut self, key: Key, result: Result<u32, Fault>) {
        let input = match result {
            Ok(_) => Input::EndOfStream,
            Err(fault) => Input::ReceiveEnded(fault),
        };
        let event = self.connections.handle(key, input);
        self.tell(key, event);
    }

    #[inline]
    fn on_send(&mut self, completion: &Completion) {
        let (key, activation) = (completion.token.key(), completion.token.activation());
        if completion.notification {
            let slot = self.connections.slots.get(key);
            if !slot.is_some_and(|slot| slot.connection.expects_notification()) {
                return self.on_stale(None);
            }
            self.connections.counters.zero_copy_copied += u64::from(completion.hint);
            self.connections.handle(key, Input::Notified { copied: completion.hint });
            return;
        }
        let input = Input::Sent { result: completion.result, more: completion.more };
        let Some(event) = self.connections.handle_end((Op::Send, key, activation), input) else {
            return self.on_stale(None);
        };
        self.connections.counters.bytes_sent += u64::from(completion.result.unwrap_or(0));
        match event {
            Event::None => {}
            Event::Blocked => self.connections.note_blocked(key),
            event => {
                let slot = self.connections.slots.get(key);
                if slot.is_some_and(|slot| slot.connection.is_blocked()) {
                    self.connections.note_blocked(key);
                }
                self.tell(key, event);
            }
        }
    }

    #[inline(never)]
    fn on_other(&mut self, op: Op, key: Key, activation: u8, completion: &Completion) {
        let nothing = completion.result.map(|_| ());
        let input = match op {
            Op::Connect => Input::Connected(nothing),
            Op::Watch => {
                // A watch that fails tells nothing: the send will.
                let room = completion.result.is_err() || completion.hint;
                Input::Watched { room, more: completion.more }
            }
            Op::Shutdown => Input::ShutdownDone(nothing),
            _ => Input::Closed,
        };
        let Some(event) = self.connections.handle_end((op, key, activation), input) else {
            return self.on_stale(None);
        };
        if op == Op::Close {
            self.acceptor.descriptor_returned();
        }
        self.tell(key, event);
    }

    pub(super) fn on_connection_timer(&mut self, index: u32) {
        let Some(key) = self.connections.slots.key_at(index) else { return };
        let blocked = self.connections.slots.get(key).filter(|slot| slot.connection.is_blocked());
        let socket = blocked.and_then(|slot| slot.connection.descriptor());
        if let Some(unsent) = socket.and_then(|descriptor| self.driver.unsent(descriptor)) {
            self.connections.handle(key, Input::Unsent(unsent));
        }
        let event = self.connections.handle(key, Input::TimerExpired);
        self.tell(key, event);
    }

    /// Tells the handler what it has to know.
    #[inline]
    fn tell(&mut self, key: Key, event: Event) {
        if event == Event::None {
            return;
        }
        self.current = Some((key, false));
        let ctx = &mut Ctx::new(&mut self.connections, key);
        match event {
            Event::Opened => self.handler.on_open(ctx, Origin::Dialed),
            Event::EndOfStream => self.handler.on_eof(ctx),
            Event::Writable => self.handler.on_writable(ctx),
            Event::KeepAlive => self.handler.on_keep_alive(ctx),
            Event::Parked => {
                self.connections.counters.receives_parked += 1;
                forget_the_dead(&mut self.parked, &self.connections.slots);
                self.parked.push_back(key);
            }
            Event::None | Event::Data | Event::Discard | Event::Blocked => {}
        }
        self.current = None;
        if event == Event::Opened {
            self.abort_latecomer(key);
        }
    }

    /// What opens once all have been aborted is aborted too, or nothing would ever end it.
    pub(super) fn abort_latecomer(&mut self, key: Key) {
        if self.connections.ending {
            self.connections.counters.drain_aborted += 1;
            self.connections.ask(key, Input::Abort(CloseReason::DrainDeadline));
        }
    }

    /// Ends the life of a slot: nobody holds anything of it any more.
    pub(super) fn free(&mut self, key: Key) {
        if !sings(Canary::TimerLeftArmed) {
            self.wheel.disarm(key.index());
        }
        let Some(slot) = self.connections.free(key) else { return };
        if let Placed::Accepted(listener) = slot.origin
            && !sings(Canary::PermitLeaked)
        {
            self.acceptor.release(listener);
            self.front.loads().remove(self.number);
        }
        // Its state is the handler's, and this may be called because that has panicked already.
        if catch_unwind(AssertUnwindSafe(|| drop(slot))).is_err() {
            self.connections.counters.handler_panics += 1;
        }
    }
}
