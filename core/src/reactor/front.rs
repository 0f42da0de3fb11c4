//! Clients in: which reactor serves them, and what other reactors send here.
//!
//! ```text
//!   acceptor --- a client with its permit ---> door ---> placement --- this one ---> open
//!                                               |            |
//!                                             reset          +--- post, wake it ---> another's mailbox
//!
//!                                                         mailbox of this one --- take ---> open
//! ```
//!
//! A permit goes with its client. A client that cannot be posted, because the other's mailbox is full, is
//! served here: nothing is refused for want of balance.

use std::panic::catch_unwind;

use super::{Reactor, TIMER_ACCEPT, TIMER_PACE};
use crate::acceptor::PAUSE_MS;
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::connections::Connections;
use crate::door::Refusal;
use crate::driver::{Driver, Share, Submission};
use crate::handler::{Handler, Origin};
use crate::mailbox::{Client, Message, Posted};
use crate::sources::Source;
use crate::token::{Descriptor, Key, Op, Token};

/// Most messages taken in a turn: the rest is for the next one.
const MESSAGES_PER_TURN_MAX: usize = 64;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Sees to the clients that the acceptor has let in, and to its pauses. So many a turn: those behind are for the
    /// next one, in their order.
    pub(super) fn take_in_clients(&mut self) {
        let failures = self.acceptor.take_failures();
        self.connections.counters.accept_errors += failures.errors;
        self.connections.counters.accept_pauses += failures.pauses;
        self.connections.counters.refused_full += failures.refused;
        if failures.pauses > 0 {
            let now_ms = self.connections.now_ms();
            self.short = Some((self.short.map_or(now_ms, |(since_ms, _)| since_ms), now_ms));
            let timer = self.own_timer(TIMER_ACCEPT);
            self.wheel.arm(timer, self.connections.now_ms() + PAUSE_MS);
        }
        self.connections.counters.accepts_paced += failures.paced;
        if failures.paced > 0 {
            self.arm_pace_timer();
        }
        while self.clients_left > 0 {
            let Some((descriptor, listener)) = self.acceptor.poll_client() else { return };
            self.clients_left -= 1;
            self.short = None;
            self.take_in(descriptor, listener);
        }
    }

    /// The acceptor looks again when there is a token for the first of its listeners that waits for one.
    fn arm_pace_timer(&mut self) {
        if let Some(at_us) = self.acceptor.next_token_us()
            && !sings(Canary::PacedForEver)
        {
            let timer = self.own_timer(TIMER_PACE);
            self.wheel.arm(timer, at_us.div_ceil(1000));
        }
    }

    pub(super) fn on_pace_timer(&mut self) {
        self.acceptor.look_for_tokens(self.connections.now_us());
        self.arm_pace_timer();
    }

    /// Whether the acceptor waits for a token, and nothing will wake it for one.
    pub(super) fn is_paced_for_ever(&self) -> bool {
        let timer = self.own_timer(TIMER_PACE);
        self.acceptor.next_token_us().is_some() && !self.wheel.is_armed(timer)
    }

    /// Serves a client, hands it over, or turns it away.
    pub(super) fn take_in(&mut self, descriptor: Descriptor, listener: u16) {
        let source = match self.door.asks(listener) {
            true => match self.ask(descriptor, listener) {
                Ok(source) => source,
                Err(refusal) => return self.refuse(descriptor, listener, refusal),
            },
            false => None,
        };
        let (loads, now_us) = (self.front.loads(), self.connections.now_us());
        let policy = &mut self.placements[usize::from(listener)];
        let to = policy.place(self.number, loads, now_us);
        // One that drains serves what it has taken in: the others do the same.
        if to == self.number || self.drain.is_some() {
            self.front.loads().add(self.number);
            return self.open(Client { descriptor, listener, source });
        }
        match self.hand(to, Message::Client(Client { descriptor, listener, source })) {
            Ok(()) => self.connections.counters.handed_over += 1,
            Err(_) if sings(Canary::FullMailboxForgets) => {}
            Err(Message::Client(client)) => {
                self.front.loads().add(self.number);
                self.open(client);
            }
            Err(Message::Moved(_)) => unreachable!("what was posted comes back"),
        }
    }

    /// Gives another reactor something to serve, which counts as its own from now on; back, if its mailbox is full.
    pub(super) fn hand(&mut self, to: usize, message: Message) -> Result<(), Message> {
        // Counted before it is there: the other may be done with it before this one gets any further.
        self.front.loads().add(to);
        match self.front.mail(to).post(message) {
            Ok(Posted::Seen) => Ok(()),
            Ok(Posted::Wake) => {
                self.notify(to);
                Ok(())
            }
            Err(message) => {
                self.connections.counters.mailboxes_full += 1;
                self.front.loads().remove(to);
                Err(message)
            }
        }
    }

    /// Whether a client may stay, by its address, which it has after a reset too. One that has none after all is gone,
    /// and whatever reads from it will be told so.
    fn ask(&self, descriptor: Descriptor, listener: u16) -> Result<Option<Source>, Refusal> {
        match self.connections.addresses.sockets.peer(descriptor) {
            Ok(peer) => self.door.ask(listener, peer.ip(), self.connections.now_us()),
            Err(_) => Ok(None),
        }
    }

    #[cold]
    fn refuse(&mut self, descriptor: Descriptor, listener: u16, refusal: Refusal) {
        let counters = &mut self.connections.counters;
        *match refusal {
            Refusal::Denied => &mut counters.refused_access,
            Refusal::SourceFull => &mut counters.refused_source_full,
            Refusal::SourceRate => &mut counters.refused_source_rate,
        } += 1;
        self.turn_away(descriptor, listener);
    }

    /// What the connection of the slot is counted for.
    pub(super) fn put_source(&mut self, key: Key, source: Option<Source>) {
        if let Some(place) = self.sources.get_mut(key.index() as usize) {
            *place = source;
        }
    }

    /// The connection of the slot counts for its source no more.
    pub(super) fn forget_source(&mut self, key: Key) {
        let slot = self.sources.get_mut(key.index() as usize);
        if let Some(source) = slot.and_then(Option::take)
            && !sings(Canary::SourceLeaked)
        {
            self.door.release(source, self.connections.now_us());
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
                Some(Message::Client(client)) => {
                    self.connections.counters.taken_over += 1;
                    self.open(client);
                }
                Some(Message::Moved(moved)) => self.arrive(*moved),
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
        if self.front.end(self.number) {
            while let Some(message) = self.front.take(self.number) {
                match message {
                    Message::Client(client) => self.drop_client(client),
                    Message::Moved(moved) => self.drop_moved(*moved),
                }
            }
        }
        self.acceptor.ring_all();
    }

    /// A client came in.
    fn open(&mut self, client: Client) {
        let Client { descriptor, listener, source } = client;
        let seated =
            self.seat(source, |connections, state| connections.accept(descriptor, listener, state));
        let key = match seated {
            Ok(key) => key,
            Err(source) => return self.drop_client(Client { descriptor, listener, source }),
        };
        let origin = Origin::Accepted(usize::from(listener));
        self.call(Callback::OnOpen, key, |handler, ctx| handler.on_open(ctx, origin));
        self.move_in(key);
        self.abort_latecomer(key);
    }

    /// A connection that comes, as a client or from another reactor, gets a slot and a state of its own, and counts for
    /// its source. That comes back if there is no state to be had: whoever came is to be reset.
    pub(super) fn seat(
        &mut self,
        source: Option<Source>,
        take_in: impl FnOnce(&mut Connections<H::State>, H::State) -> Option<Key>,
    ) -> Result<Key, Option<Source>> {
        // Made here, and not in its slot: as long as there is no connection, nobody would end it.
        let Ok(state) = catch_unwind(H::State::default) else {
            self.connections.counters.handler_panics += 1;
            tracing::error!("the making of a state panicked; its connection is reset");
            return Err(source);
        };
        let Some(key) = take_in(&mut self.connections, state) else {
            unreachable!("a permit means a slot: the slab holds as many as the process may accept");
        };
        self.put_source(key, source);
        Ok(key)
    }

    /// A connection stays here: into the ring's table with it, if there is one. Not sooner: in the mailbox it is for
    /// whoever takes it, and a place is of use to one ring only; and of a descriptor its handler has an answer sooner.
    pub(super) fn move_in(&mut self, key: Key) {
        let Some(slot) = self.connections.slots.get_mut(key) else { return };
        let Some(descriptor) = slot.connection.descriptor() else { return };
        let place = self.driver.move_in(descriptor);
        if place != descriptor {
            slot.connection.move_to(place);
            self.acceptor.descriptor_returned();
        }
    }

    /// A client that was given to this reactor comes to nothing.
    #[cold]
    pub(super) fn drop_client(&mut self, client: Client) {
        let Client { descriptor, listener, source } = client;
        if let Some(source) = source {
            self.door.release(source, self.connections.now_us());
        }
        self.front.loads().remove(self.number);
        self.turn_away(descriptor, listener);
    }

    /// A client that nobody was given is reset, and its place is free.
    #[cold]
    fn turn_away(&mut self, descriptor: Descriptor, listener: u16) {
        self.driver.set_abortive(descriptor);
        self.driver.close_now(descriptor);
        self.acceptor.descriptor_returned();
        if !sings(Canary::TurnedAwayKeepsPlace) {
            self.acceptor.release(listener);
        }
    }
}
