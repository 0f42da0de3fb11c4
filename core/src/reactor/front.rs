//! Clients in: which reactor serves them, and what other reactors send here.
//!
//! ```text
//!   acceptor --- a client with its permit ---> placement --- this one ---> open
//!                                                 |
//!   another's mailbox <--- post, wake it ---------+
//!                                                        mailbox of this one --- take ---> open
//! ```
//!
//! A permit goes with its client. A client that cannot be posted, because the other's mailbox is full, is
//! served here: nothing is refused for want of balance.

use std::panic::catch_unwind;

use super::{Reactor, TIMER_ACCEPT};
use crate::acceptor::PAUSE_MS;
use crate::canary::{Canary, sings};
use crate::driver::{Driver, Share, Submission};
use crate::handler::{Ctx, Handler, Origin};
use crate::mailbox::{Message, Posted};
use crate::token::{Descriptor, Key, Op, Token};

/// Most messages taken in a turn: the rest is for the next one.
const MESSAGES_PER_TURN_MAX: usize = 64;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Sees to the clients that the acceptor has let in, and to its pauses.
    pub(super) fn take_in_clients(&mut self) {
        let failures = self.acceptor.take_failures();
        self.connections.counters.accept_errors += failures.errors;
        self.connections.counters.accept_pauses += failures.pauses;
        if failures.pauses > 0 {
            let timer = self.connections.slots.capacity() + TIMER_ACCEPT;
            self.wheel.arm(timer, self.connections.now_ms() + PAUSE_MS);
        }
        while let Some((descriptor, listener)) = self.acceptor.poll_client() {
            self.place(descriptor, listener);
        }
    }

    /// Serves a client, or hands it over.
    fn place(&mut self, descriptor: Descriptor, listener: u16) {
        let (loads, now_us) = (self.front.loads(), self.connections.now_us());
        let policy = &mut self.placements[usize::from(listener)];
        let to = policy.place(self.number, loads, now_us);
        // One that drains serves what it has taken in: the others do the same.
        if to == self.number || self.drain.is_some() {
            self.front.loads().add(self.number);
            return self.open(descriptor, listener);
        }
        // Counted before it is there: the other may be done with it before this one gets any further.
        self.front.loads().add(to);
        match self.front.mail(to).post(Message::Client { descriptor, listener }) {
            Ok(posted) => {
                self.connections.counters.handed_over += 1;
                if posted == Posted::Wake {
                    self.notify(to);
                }
            }
            Err(_) if sings(Canary::FullMailboxForgets) => {}
            Err(Message::Client { descriptor, listener }) => {
                self.connections.counters.mailboxes_full += 1;
                self.front.loads().remove(to);
                self.front.loads().add(self.number);
                self.open(descriptor, listener);
            }
        }
    }

    /// Wakes another reactor, with the next enter.
    fn notify(&mut self, other: usize) {
        if sings(Canary::MailUnannounced) {
            return;
        }
        self.notified = self.notified.wrapping_add(1);
        let token = Token::new(Op::Notify, Key::new(other as u32, 0), self.notified);
        if self.driver.push(token, Submission::Notify(other), Share::Management).is_err() {
            self.acceptor.ring(other);
        }
    }

    /// The other's ring has taken the message, or not: then it is rung.
    pub(super) fn on_notified(&mut self, other: usize, is_told: bool) {
        if !is_told {
            self.acceptor.ring(other);
        }
    }

    /// Takes what other reactors have posted here.
    pub(super) fn take_mail(&mut self) {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            match self.front.take(self.number) {
                None => return,
                Some(Message::Client { descriptor, listener }) => {
                    self.connections.counters.taken_over += 1;
                    self.open(descriptor, listener);
                }
            }
        }
    }

    /// Says that it will hand nothing over any more, once that is so.
    pub(super) fn retire(&mut self) {
        if !std::mem::replace(&mut self.is_retired, true) && self.front.retire(self.number) {
            self.acceptor.ring_all();
        }
    }

    /// Its driver has failed: its mail is for the others. If there are none left, the clients in it are reset.
    pub(super) fn abandon_mail(&mut self) {
        self.front.abandon(self.number);
        self.retire();
        if self.front.end() {
            while let Some(Message::Client { descriptor, listener }) = self.front.take(self.number)
            {
                self.driver.set_abortive(descriptor);
                self.driver.close_now(descriptor);
                self.acceptor.release(listener);
            }
        }
        self.acceptor.ring_all();
    }

    /// A client came in.
    fn open(&mut self, descriptor: Descriptor, listener: u16) {
        // Made here, and not in its slot: as long as there is no connection, nobody would end it.
        let Ok(state) = catch_unwind(H::State::default) else {
            return self.turn_away(descriptor, listener);
        };
        let Some(key) = self.connections.accept(descriptor, listener, state) else {
            unreachable!("a permit means a slot: the slab holds as many as the process may accept");
        };
        self.current = Some((key, false));
        let origin = Origin::Accepted(usize::from(listener));
        self.handler.on_open(&mut Ctx::new(&mut self.connections, key), origin);
        self.current = None;
        self.abort_latecomer(key);
    }

    /// A client comes to nothing, since its state could not be made.
    #[cold]
    fn turn_away(&mut self, descriptor: Descriptor, listener: u16) {
        self.connections.counters.handler_panics += 1;
        self.driver.set_abortive(descriptor);
        self.driver.close_now(descriptor);
        self.acceptor.descriptor_returned();
        self.acceptor.release(listener);
        self.front.loads().remove(self.number);
        tracing::error!("the making of a state panicked; its client is reset");
    }
}
