//! How a reactor ends: by a drain, by an abort, or because its driver failed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Reactor, TIMER_DRAIN};
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::connection::Input;
use crate::drain::{Drain, Step};
use crate::driver::{Completion, Driver, Wait};
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::token::{Key, Op};

/// How often a failed ring is asked for more. Not until there is no more: somebody may connect all the time.
const LAST_ENTERS: u32 = 256;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Drains, if that was ordered and it is time: from the order on it is not ready any more, and goes on accepting
    /// for as long as those who send clients may take to notice.
    pub(super) fn look_for_order(&mut self) {
        if !self.control.drain_ordered() || self.drain.is_some() {
            return;
        }
        let now_ms = self.connections.now_ms();
        let ordered_ms = *self.ordered_ms.get_or_insert(now_ms);
        self.connections.ready = false;
        let stops_ms = ordered_ms + self.not_ready_ms;
        if now_ms < stops_ms && !self.control.abort_ordered() && !sings(Canary::NotReadySkipped) {
            if !sings(Canary::NotReadyForEver) {
                self.wheel.arm(self.own_timer(TIMER_DRAIN), stops_ms);
            }
            return;
        }
        self.begin_drain(ordered_ms);
    }

    fn begin_drain(&mut self, ordered_ms: u64) {
        let now_ms = self.connections.now_ms();
        self.acceptor.stop();
        self.connections.draining = true;
        // Its time counts from the order.
        let until_ms = ordered_ms + u64::from(self.control.drain_ms());
        let drain = Drain::new(now_ms, until_ms.saturating_sub(now_ms));
        self.drain = Some(drain);
        // Not at once: what has come for a connection together with the order has not been looked at yet.
        self.wheel.arm(self.own_timer(TIMER_DRAIN), drain.next_ms());
    }

    pub(super) fn on_drain_timer(&mut self) {
        let now_ms = self.connections.now_ms();
        let Some(drain) = &mut self.drain else { return self.look_for_order() };
        let step = drain.poll(now_ms);
        let drain = *drain;
        match step {
            Step::Wait => {}
            Step::Nudge(below) => self.nudge(below, now_ms, drain.quiet_ms()),
            Step::Abort => return self.abort_all(CloseReason::DrainDeadline),
        }
        let next_ms = drain.next_ms();
        self.wheel.arm(self.own_timer(TIMER_DRAIN), next_ms);
    }

    /// Asks the quiet ones to go. Who has not been listened to is not quiet: its bytes may wait for a buffer, for
    /// another's outbox, for its handler, or behind more completions than a turn takes. Nor is one whose handler has
    /// something under way for it.
    fn nudge(&mut self, below: u64, now_ms: u64, quiet_ms: u64) {
        if self.driver.has_completions() {
            return;
        }
        let (slots, handler) = (&self.connections.slots, &self.handler);
        let quiet = |key: &Key| {
            slots.get(*key).is_some_and(|slot| {
                let connection = &slot.connection;
                let silent = now_ms >= connection.active_at_ms() + quiet_ms;
                let heard = connection.is_heard() || sings(Canary::UnheardIsQuiet);
                silent && heard && connection.outbox.is_empty() && handler.is_idle(&slot.state)
            })
        };
        let concerned = slots.keys().filter(|key| Drain::concerns(key.index(), below));
        let keys: Vec<Key> = concerned.filter(quiet).collect();
        for key in keys {
            self.connections.ask(key, Input::Close(CloseReason::Drained));
        }
    }

    pub(super) fn abort_all(&mut self, reason: CloseReason) {
        self.connections.ending = true;
        let keys: Vec<Key> = self.connections.slots.keys().collect();
        for key in keys {
            self.connections.counters.drain_aborted += 1;
            self.connections.ask(key, Input::Abort(reason));
        }
    }

    /// The driver has failed, or the reactor itself: what it held is closed here, at once, and told as over.
    /// The kernel lets go of what it still holds when the driver is dropped.
    ///
    /// What the kernel never told stays unknown: a client whose completion was lost, a close that it does not
    /// take.
    pub(super) fn abandon(&mut self) {
        self.connections.ending = true;
        self.take_in_the_last();
        let keys: Vec<Key> = self.connections.slots.keys().collect();
        for key in keys {
            let told = catch_unwind(AssertUnwindSafe(|| {
                self.call(Callback::OnClose, key, |handler, ctx| {
                    handler.on_close(ctx, CloseReason::DriverFailed);
                });
            }));
            self.calling.end();
            self.connections.counters.handler_panics += u64::from(told.is_err());
            let slot = self.connections.slots.get(key);
            if let Some(descriptor) = slot.and_then(|slot| slot.connection.descriptor_to_close()) {
                self.driver.set_abortive(descriptor);
                self.driver.close_now(descriptor);
            }
            self.free(key);
        }
        // To ask for a reset may take an enter, in which somebody may have come.
        self.take_in_what_came(Vec::new());
        self.acceptor.abandon(&mut self.driver);
        self.abandon_mail();
    }

    /// The handler's last call. What it asks for now is not carried out, so nothing new is let in.
    pub(super) fn end_handler(&mut self) {
        self.connections.ending = true;
        self.calling.begin_alone(Callback::OnEnd);
        let Self { handler, connections, .. } = self;
        if catch_unwind(AssertUnwindSafe(|| handler.on_end(connections))).is_err() {
            self.connections.counters.handler_panics += 1;
        }
        self.calling.end();
    }

    /// Of the completions that nobody will dispatch, those that bring something: clients and buffers.
    fn take_in_the_last(&mut self) {
        let mut last = self.inbox.split_off(self.taken);
        self.inbox.clear();
        self.taken = 0;
        last.append(&mut self.deferred);
        self.driver.reap(&mut last, usize::MAX);
        // A ring that has lost completions works on: those behind the full queue come, a queue at a time, and
        // what was pushed is taken, closes among it.
        // One that brings nothing may have been interrupted.
        for _ in 0..LAST_ENTERS {
            if self.driver.enter(Wait::NOT).is_err() {
                break;
            }
            self.driver.reap(&mut last, usize::MAX);
        }
        self.take_in_what_came(last);
    }

    /// Takes in clients and buffers of these completions and of those that stand in the queue.
    fn take_in_what_came(&mut self, mut last: Vec<Completion>) {
        self.driver.reap(&mut last, usize::MAX);
        for mut completion in last {
            if let Some(span) = completion.span.take() {
                self.connections.memory.release(span);
            }
            let (op, key, activation) = completion.token.decode();
            if op == Op::AcceptMany {
                self.acceptor.handle(op, key, activation, &completion);
            }
        }
    }
}
