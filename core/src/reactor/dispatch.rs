//! Completions in: the only `match` over operations.

use std::hint::cold_path;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Reactor;
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::connection::{Event, Input};
use crate::connections::{Placed, Received};
use crate::driver::{Completion, Driver};
use crate::error::{CloseReason, Fault};
use crate::handler::{Handler, Origin};
use crate::span::{Segment, Span};
use crate::token::{Key, Op, Token};

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Takes one completion in. What is called rarely gets its parts: see [`Span::into_segment`].
    #[inline]
    pub(super) fn dispatch(&mut self, completion: Completion) {
        let token = completion.token;
        // The two that matter come first, and need no table.
        if token.is_of(Op::Receive) {
            return self.on_receive(completion);
        }
        if token.is_of(Op::Send) {
            return self.on_send(completion);
        }
        let Completion { result, more, hint, .. } = completion;
        self.dispatch_rarer(token, result, more, hint);
    }

    #[cold]
    fn dispatch_rarer(&mut self, token: Token, result: Result<u32, Fault>, more: bool, hint: bool) {
        let (span, notification) = (None, false);
        let completion = &Completion { token, result, span, more, notification, hint };
        let (op, key, activation) = token.decode();
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
    fn on_stale(&mut self, segment: Option<Segment>) {
        self.connections.counters.stale_completions += 1;
        if let Some(segment) = segment {
            self.connections.memory.release(Span::mint(segment));
        }
    }

    #[inline]
    fn on_receive(&mut self, completion: Completion) {
        let Completion { token, result, span, more, .. } = completion;
        let Some(span) = span else { return self.on_receive_ended(token, result, more) };
        let (key, bytes) = (token.key(), span.length());
        let event = match self.connections.received(key, token.activation(), Some(bytes), more) {
            Received::Now(event) => event,
            Received::Stale => return self.on_stale(Some(span.into_segment())),
            Received::Later => {
                return self.defer(token, result, Some(span.into_segment()), more);
            }
        };
        self.connections.counters.bytes_received += u64::from(bytes);
        if event != Event::Data {
            return self.discard(span.into_segment());
        }
        let lease = self.connections.memory.lease(span);
        self.call(Callback::OnData, key, |handler, ctx| handler.on_data(ctx, lease));
    }

    /// Bytes came that nobody wants any more.
    #[cold]
    fn discard(&mut self, segment: Segment) {
        let span = Span::mint(segment);
        if sings(Canary::DiscardedKept) {
            drop(self.connections.memory.lease(span).into_span());
        } else {
            self.connections.memory.release(span);
        }
    }

    #[cold]
    fn defer(
        &mut self,
        token: Token,
        result: Result<u32, Fault>,
        segment: Option<Segment>,
        more: bool,
    ) {
        self.connections.counters.completions_deferred += 1;
        let (span, notification, hint) = (segment.map(Span::mint), false, false);
        self.deferred.push(Completion { token, result, span, more, notification, hint });
    }

    /// A receive is over, and brought nothing.
    #[cold]
    fn on_receive_ended(&mut self, token: Token, result: Result<u32, Fault>, more: bool) {
        let key = token.key();
        match self.connections.received(key, token.activation(), None, more) {
            Received::Now(_) => {}
            Received::Stale => return self.on_stale(None),
            Received::Later => return self.defer(token, result, None, more),
        }
        let input = match result {
            Ok(_) => Input::EndOfStream,
            Err(fault) => Input::ReceiveEnded(fault),
        };
        let event = self.connections.handle(key, input);
        self.tell(key, event);
    }

    #[inline]
    fn on_send(&mut self, completion: Completion) {
        let Completion { token, result, more, notification, hint, .. } = completion;
        let (key, activation) = (token.key(), token.activation());
        if notification {
            cold_path();
            return self.on_notification(key, hint);
        }
        let input = Input::Sent { result, more };
        let Some(event) = self.connections.handle_end((Op::Send, key, activation), input) else {
            return self.on_stale(None);
        };
        if let Ok(bytes) = result {
            self.connections.counters.bytes_sent += u64::from(bytes);
        }
        if event != Event::None {
            cold_path();
            self.on_send_told(key, event);
        }
    }

    /// The kernel is done with the memory of a send without a copy.
    #[inline(never)]
    fn on_notification(&mut self, key: Key, copied: bool) {
        let slot = self.connections.slots.get(key);
        if !slot.is_some_and(|slot| slot.connection.expects_notification()) {
            return self.on_stale(None);
        }
        self.connections.counters.zero_copy_copied += u64::from(copied);
        self.connections.handle(key, Input::Notified { copied });
    }

    /// A send had a consequence.
    #[inline(never)]
    fn on_send_told(&mut self, key: Key, event: Event) {
        let slot = self.connections.slots.get(key);
        if event == Event::Blocked || slot.is_some_and(|slot| slot.connection.is_blocked()) {
            self.connections.note_blocked(key);
        }
        if event != Event::Blocked {
            self.tell(key, event);
        }
    }

    #[inline(never)]
    fn on_other(&mut self, op: Op, key: Key, activation: u8, completion: &Completion) {
        let nothing = completion.result.map(|_| ());
        let input = match op {
            Op::Connect => Input::Connected(nothing),
            Op::Watch => {
                // A watch that fails tells nothing: the send will.
                let fails = completion.result.is_err();
                let (room, reads) = (fails || completion.hint, completion.hint && !fails);
                Input::Watched { room, reads, more: completion.more }
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
        match event {
            Event::Opened => {
                self.call(Callback::OnOpen, key, |h, ctx| h.on_open(ctx, Origin::Dialed));
                self.abort_latecomer(key);
            }
            Event::EndOfStream => self.call(Callback::OnEof, key, H::on_eof),
            Event::Writable => self.call(Callback::OnWritable, key, H::on_writable),
            Event::KeepAlive => self.call(Callback::OnKeepAlive, key, H::on_keep_alive),
            Event::Parked => self.park(key),
            Event::None | Event::Data | Event::Discard | Event::Blocked => {}
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
            self.end_making(key);
            self.acceptor.release(listener);
            self.acceptor.eviction_over(key);
            self.front.loads().remove(self.number);
            self.forget_source(key);
        }
        // Its state is the handler's, and this may be called because that has panicked already.
        if catch_unwind(AssertUnwindSafe(|| drop(slot))).is_err() {
            self.connections.counters.handler_panics += 1;
        }
    }
}
