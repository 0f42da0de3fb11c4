//! What must hold between two turns, whatever happened before.
//!
//! Everything here can be told from the reactor's own structures, in a walk over all of its connections: too
//! dear for a reactor at work, and what a simulation asks after every turn.

use std::collections::{BTreeMap, BTreeSet};

use super::Reactor;
use crate::connection::{Pause, State};
use crate::connections::Placed;
use crate::driver::Driver;
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::token::Key;

impl<D: Driver, H: Handler> Reactor<D, H> {
    /// The connections that are being closed, and why. Their handlers are told when it is done.
    pub fn closing(&self) -> impl Iterator<Item = (Key, CloseReason)> {
        let slots = &self.connections.slots;
        slots.keys().filter_map(|key| match slots.get(key)?.connection.state() {
            State::Closing { reason } => Some((key, reason)),
            _ => None,
        })
    }

    /// The connections that are being closed in order: what waits is still sent.
    pub fn draining(&self) -> impl Iterator<Item = Key> {
        let slots = &self.connections.slots;
        let drains = |key: &Key| {
            let state = slots.get(*key).map(|slot| slot.connection.state());
            matches!(state, Some(State::Draining { .. }))
        };
        slots.keys().filter(drains)
    }

    /// The connections that a drain has asked to go, as long as they do.
    pub fn nudged(&self) -> impl Iterator<Item = Key> {
        let slots = &self.connections.slots;
        let state = |key: &Key| slots.get(*key).map(|slot| slot.connection.state());
        let drained = |state| matches!(state, State::Draining { reason: CloseReason::Drained, .. });
        slots.keys().filter(move |key| state(key).is_some_and(drained))
    }

    /// Clients that were let in and are to be opened in the next turns: they have their places.
    pub fn clients_waiting(&self) -> usize {
        self.acceptor.waiting()
    }

    /// Whose completions were put off to the next turn, once for each of them.
    pub fn put_off(&self) -> impl Iterator<Item = Key> {
        self.deferred.iter().map(|completion| completion.token.key())
    }

    /// A listener that keeps clients waiting although there is room for one, if nothing will make it look. To
    /// be asked while the reactor sleeps and nobody has rung it; `None` for one that rests for want of
    /// descriptors, or stops.
    pub fn find_idle_listener(&self) -> Option<usize> {
        self.acceptor.find_idle_with_room()
    }

    /// Whether it takes clients in, as far as it is up to it: it does not rest for want of descriptors, has not too
    /// much,
    /// and does not stop.
    pub fn is_accepting(&self) -> bool {
        self.acceptor.is_accepting()
    }

    /// Connections that each listener has accepted and that are open here, by the listener's number.
    pub fn accepted_by_listener(&self) -> BTreeMap<u16, u32> {
        let mut open = BTreeMap::new();
        for key in self.connections.slots.keys() {
            let slot = self.connections.slots.get(key);
            if let Some(Placed::Accepted(listener)) = slot.map(|slot| slot.origin) {
                *open.entry(listener).or_insert(0) += 1;
            }
        }
        open
    }

    /// When the first of its timers fires, microseconds: it must not sleep for longer.
    pub fn first_deadline_us(&self) -> Option<u64> {
        Some(self.wheel.next_expiry_ms()? * 1000)
    }

    /// Looks whether all structures agree with one another.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub fn audit(&self) -> Result<(), String> {
        if let Some(call) = self.calling.get() {
            return Err(format!("between two turns it says that it is in {call}"));
        }
        let connections = &self.connections;
        let counters = &connections.counters;
        let open = counters.open();
        if open != u64::from(connections.len()) {
            return Err(format!("{} connections, but {open} counted", connections.len()));
        }
        let waits = |key: &&Key| connections.slots.get(**key).is_some_and(|slot| slot.is_large);
        let large: Vec<Key> = self.large.keys.iter().filter(waits).copied().collect();
        let listed = connections.dirty.len() + large.len();
        let dirty: BTreeSet<Key> = connections.dirty.iter().chain(&large).copied().collect();
        if dirty.len() != listed {
            return Err("a dirty connection stands on a list twice".to_owned());
        }
        let parked: BTreeSet<Key> = self.parked.iter().collect();
        let mut pieces = 0;
        for key in connections.slots.keys() {
            let Some(slot) = connections.slots.get(key) else { continue };
            pieces += slot.connection.outbox.pieces();
            let say = |what: &str| Err(format!("slot {}: {what}", key.index()));
            if slot.dirty != dirty.contains(&key) {
                return say("dirty, and not on the list of the dirty; or the other way round");
            }
            if slot.connection.is_parked() && !parked.contains(&key) {
                return say("its receive waits for a buffer, and nobody will arm it again");
            }
            let leaves = self.leaving.as_ref().is_some_and(|leaving| leaving.contains(key));
            if slot.connection.is_paused(Pause::Move) && !leaves {
                return say("it is not read from because it leaves, and it does not");
            }
            if slot.connection.is_high() && slot.connection.outbox.is_empty() {
                return say("its outbox is empty and counts as high");
            }
            // What is dirty is still to say what it wants.
            if slot.dirty {
                continue;
            }
            let deadline_ms = slot.connection.deadline_ms(&connections.rules);
            let granule = self.wheel.granule(key.index());
            if deadline_ms != u64::MAX && granule.is_none() {
                return say("it has a deadline and no timer");
            }
            // Earlier is allowed: it is armed again for the rest.
            if granule.is_some_and(|granule| *granule.start() > deadline_ms) {
                return say("its timer stands behind its deadline");
            }
            if slot.connection.is_unwatched() {
                return say("its socket is full, and nobody watches for it to empty");
            }
            if slot.connection.wants_something(&connections.rules) {
                return say("it wants something, and nobody will ask what");
            }
        }
        let capacity = connections.slots.capacity();
        let dead = |index: &u32| connections.slots.key_at(*index).is_none();
        if let Some(index) = (0..capacity).filter(dead).find(|index| self.wheel.is_armed(*index)) {
            return Err(format!("slot {index} is free, and its timer armed"));
        }
        if pieces != connections.pieces.used() {
            let used = connections.pieces.used();
            return Err(format!("{used} pieces in use, {pieces} in outboxes"));
        }
        if self.is_paced_for_ever() {
            return Err("a listener waits for a token, and nobody will look for one".to_owned());
        }
        if self.has_given_up_on_room() {
            return Err("a listener wants a place, and nobody will look for one".to_owned());
        }
        self.audit_feeders()
    }

    /// Who is held back is known to as many outboxes as it is held back for, and those are high.
    fn audit_feeders(&self) -> Result<(), String> {
        let connections = &self.connections;
        let mut held_by: BTreeMap<Key, u32> = BTreeMap::new();
        for (target, feeders) in &connections.feeders {
            if !connections.slots.get(*target).is_some_and(|slot| slot.connection.is_high()) {
                return Err(format!("slot {}: holds others back, and is not high", target.index()));
            }
            feeders.iter().for_each(|feeder| *held_by.entry(*feeder).or_default() += 1);
        }
        for key in connections.slots.keys() {
            let Some(slot) = connections.slots.get(key) else { continue };
            let known = held_by.get(&key).copied().unwrap_or(0);
            let paused = slot.connection.is_paused(Pause::Outbox);
            if slot.held_by != known || paused != (known > 0) {
                let index = key.index();
                return Err(format!("slot {index}: held back for an outbox that does not know it"));
            }
        }
        Ok(())
    }
}
