//! Idle connections go to a reactor that has less to do.
//!
//! ```text
//!   tick: clearly more than another? --- yes ---> leaving: its receive is cancelled
//!                                                    |
//!          stays, and reads on <--- bytes came ------+------ nothing flies ---> handler: on_leave
//!                                                                                   |
//!          stays: on_arrive here <--- the other's mailbox is full ---- its luggage -+
//!                                                                                   |
//!                                                     on_arrive there <--- post ----+
//! ```
//!
//! Placement spreads connections as they come; how long they last is up to them, and after hours one reactor may
//! have most of those that are left. Only those are moved that have been idle for a second, so nobody's bytes
//! wait for it, and only to a reactor to which a new client would be handed over too. A connection with a watch that
//! goes on, whose peer has closed its side while our bytes waited, stays.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Reactor, TIMER_MOVE};
use crate::calling::Callback;
use crate::canary::{Canary, sings};
use crate::config::EVICTION_IDLE_MIN_MS;
use crate::connection::Pause;
use crate::connections::Placed;
use crate::driver::Driver;
use crate::handler::Handler;
use crate::listen::Placement;
use crate::mailbox::{Client, Message};
use crate::moving::{Luggage, Moved};
use crate::placement::{Place, policy};
use crate::token::Key;

/// How often a reactor compares itself with others, milliseconds.
const LOOK_MS: u64 = 1000;
/// And while it has too much.
const LOOK_AGAIN_MS: u64 = 50;
/// Connections that leave at a time.
const LEAVING_MAX: u32 = 64;

/// Who leaves, and where to.
#[derive(Debug)]
pub(super) struct Leaving {
    policy: Box<dyn Place>,
    /// Of each listener: whether its clients go where there is least to do. Others stay where they were put.
    may_move: Vec<bool>,
    to: usize,
    /// Their receives are being cancelled.
    keys: Vec<Key>,
    /// Connections that had left when these were chosen.
    left_before: u64,
}

impl Leaving {
    /// For listeners whose clients are placed so; `None` if none of them may move. What it draws comes from the seed.
    pub(super) fn new(placements: &[Placement], seed: u64) -> Option<Self> {
        let spread = |placement: &Placement| {
            matches!(placement, Placement::LeastLoaded | Placement::RoundRobin)
        };
        let may_move: Vec<bool> = placements.iter().map(spread).collect();
        may_move.contains(&true).then(|| Self {
            policy: policy(Placement::LeastLoaded, seed),
            may_move,
            to: 0,
            keys: Vec::new(),
            left_before: 0,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.keys.contains(&key)
    }
}

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// Compares itself with others from now on, if connections are to be moved at all.
    pub(super) fn begin_to_move(&mut self) {
        if self.leaving.is_some() {
            self.look_in_ms(LOOK_MS);
        }
    }

    fn look_in_ms(&mut self, ms: u64) {
        let timer = self.own_timer(TIMER_MOVE);
        self.wheel.arm(timer, self.connections.now_ms() + ms);
    }

    pub(super) fn on_move_timer(&mut self) {
        let Some(mut leaving) = self.leaving.take() else { return };
        if self.drain.is_none() {
            let in_ms = self.choose(&mut leaving);
            self.look_in_ms(in_ms);
        }
        self.leaving = Some(leaving);
    }

    /// Chooses who leaves, if somebody should; when to look again, milliseconds.
    fn choose(&mut self, leaving: &mut Leaving) -> u64 {
        if !leaving.is_empty() {
            return LOOK_AGAIN_MS;
        }
        let (loads, now_us) = (self.front.loads(), self.connections.now_us());
        leaving.to = leaving.policy.place(self.number, loads, now_us);
        let more = loads.connections(self.number).saturating_sub(loads.connections(leaving.to));
        if leaving.to == self.number || more < 2 {
            return LOOK_MS;
        }
        let idle = self.idle_in_part(None);
        let (slots, rules) = (&self.connections.slots, &self.connections.rules);
        let soon_ms = self.connections.now_ms() + LOOK_MS;
        let moves = |key: &Key| {
            slots.get(*key).is_some_and(|slot| match slot.origin {
                Placed::Accepted(listener) => {
                    let may_move = leaving.may_move[usize::from(listener)];
                    let is_over_soon = slot.connection.deadline_ms(rules) <= soon_ms;
                    may_move && slot.connection.is_quiet() && !is_over_soon
                }
                Placed::Dialed => false,
            })
        };
        let idle = idle.into_iter().map(|(_, key)| key).filter(moves);
        leaving.keys = idle.take((more / 2).min(LEAVING_MAX) as usize).collect();
        let Some(last) = leaving.keys.last() else { return LOOK_MS };
        // Those behind are asked next, whatever these say.
        self.look_from = last.index() + 1;
        for &key in &leaving.keys {
            self.connections.pause_for(key, Pause::Move);
        }
        let left = self.connections.counters.moved_out;
        match std::mem::replace(&mut leaving.left_before, left) == left {
            // Of the last ones nobody left.
            true => LOOK_MS,
            false => LOOK_AGAIN_MS,
        }
    }

    /// Those whose receives have ended go; those that are needed here after all read on. Each is taken off the list
    /// before a handler is asked: one that panics is asked once.
    #[cold]
    pub(super) fn see_off(&mut self) {
        let mut at = 0;
        while let Some(leaving) = &mut self.leaving
            && let Some(&key) = leaving.keys.get(at)
        {
            let slot = self.connections.slots.get(key);
            let is_quiet = slot.is_some_and(|slot| slot.connection.is_quiet());
            let is_loose = slot.is_some_and(|slot| slot.connection.is_loose());
            // Bytes may have come before the cancel did.
            let latest_ms = self.connections.now_ms().checked_sub(EVICTION_IDLE_MIN_MS);
            let is_idle =
                slot.is_some_and(|slot| Some(slot.connection.active_at_ms()) <= latest_ms);
            let stays = !is_quiet || !is_idle || self.drain.is_some();
            if !stays && !is_loose {
                at += 1;
                continue;
            }
            let to = leaving.to;
            leaving.keys.swap_remove(at);
            if !sings(Canary::StayerForgotten) || !stays {
                self.connections.resume_for(key, Pause::Move);
            }
            if stays || !self.ask_to_leave(key, to) {
                self.connections.counters.moves_given_up += 1;
            }
        }
    }

    /// Nothing holds it here but its handler. Whether it has left.
    fn ask_to_leave(&mut self, key: Key, to: usize) -> bool {
        let luggage = self.call(Callback::OnLeave, key, H::on_leave);
        let Some(luggage) = luggage else { return false };
        let slot = self.connections.slots.get(key).expect("only the end of a turn frees a slot");
        let Placed::Accepted(listener) = slot.origin else {
            unreachable!("only accepted connections are chosen")
        };
        // The handler may have found something to do for it.
        if !slot.connection.is_loose() {
            self.unpack(key, luggage);
            return false;
        }
        let mut connection = slot.connection.pack();
        let here = connection.descriptor;
        let Some(descriptor) = self.driver.move_out(here) else {
            self.unpack(key, luggage);
            return false;
        };
        connection.descriptor = descriptor;
        let source = self.sources.get_mut(key.index() as usize).and_then(Option::take);
        let addresses = self.connections.addresses.known(key);
        let moved = Moved { connection, listener, source, addresses, luggage };
        let message = Message::Moved(Box::new(moved));
        match self.hand(to, message) {
            Ok(()) => {
                if here != descriptor {
                    self.driver.close_now(here);
                }
                self.front.loads().remove(self.number);
                self.wheel.disarm(key.index());
                let slot = self.connections.leave(key);
                if catch_unwind(AssertUnwindSafe(|| drop(slot))).is_err() {
                    self.connections.counters.handler_panics += 1;
                }
                true
            }
            Err(Message::Moved(moved)) => {
                if here != descriptor {
                    self.driver.close_now(descriptor);
                }
                self.put_source(key, moved.source);
                self.unpack(key, moved.luggage);
                false
            }
            Err(Message::Client(_)) => unreachable!("what was posted comes back"),
        }
    }

    /// A connection of another reactor is this one's from now on.
    pub(super) fn arrive(&mut self, moved: Moved) {
        let Moved { connection, listener, source, addresses, luggage } = moved;
        let seated = self
            .seat(source, |connections, state| connections.arrive(&connection, listener, state));
        let key = match seated {
            Ok(key) => key,
            Err(source) => {
                let moved = Moved { connection, listener, source, addresses, luggage };
                return self.drop_moved(moved);
            }
        };
        self.connections.addresses.put(key, addresses);
        self.unpack(key, luggage);
        self.move_in(key);
        self.abort_latecomer(key);
    }

    fn unpack(&mut self, key: Key, luggage: Luggage) {
        self.call(Callback::OnArrive, key, |handler, ctx| handler.on_arrive(ctx, luggage));
    }

    /// There is no reactor left for it, or no state: it ends here, and nobody can be told.
    #[cold]
    pub(super) fn drop_moved(&mut self, moved: Moved) {
        let Moved { connection, listener, source, luggage, .. } = moved;
        self.connections.counters.moved_in += 1;
        self.connections.counters.closed += 1;
        if catch_unwind(AssertUnwindSafe(|| drop(luggage))).is_err() {
            self.connections.counters.handler_panics += 1;
        }
        self.drop_client(Client { descriptor: connection.descriptor, listener, source });
    }
}
