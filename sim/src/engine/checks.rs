//! What must hold of the reactors after each of their turns, while they sleep, and at the end.
//!
//! | asked | what |
//! |---|---|
//! | after a turn | structures, sums, caps, rates hold; each had a share; it does not spin; nobody is refused in vain |
//! | as it falls asleep | it does not sleep past its first timer |
//! | before each step | no client waits at a listener of one that sleeps while there is room |
//! | at the end | nothing is left: no connection, buffer, descriptor, place, load |
//!
//! Each is told from what the reactors, their books and the simulated kernel say of the same thing. What they say of
//! connections over time (deadlines, streams) is for whoever plays the run.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use slipring_core::driver::Driver as _;
use slipring_core::{Counters, Handler, Key};

use super::{Doing, Engine, Lane};
use crate::kernel::Kernel;
use crate::paced::Accepted;
use crate::trace::Party;

/// Turns of one reactor for nothing since it slept, after which it spins.
const TURNS_MAX: u32 = 500;
/// Turns for nothing that one pays for which moves bytes. Who takes turns with others waits for eight at most, with
/// the bytes and with the buffers.
const TURNS_PER_MOVE: u32 = 16;

/// Completions of each connection that were put off to the next turn, and how many had been taken by then.
pub(super) type PutOff = BTreeMap<Party, (u64, u64)>;

/// The turns that a reactor has made for nothing since it slept.
///
/// Bytes pay for turns: each moves once, and of those to be moved there are so many. A reactor that moves one now and
/// then, and turns without end in between, does not get away with that.
#[derive(Debug, Default)]
pub(super) struct Restless {
    turns: u32,
}

impl Restless {
    /// It sleeps, and nothing that it has done itself wakes it.
    pub(super) fn sleep(&mut self) {
        self.turns = 0;
    }

    /// It has turned; whether it spins.
    fn turn(&mut self, moved: bool) -> bool {
        self.turns = match moved {
            true => self.turns.saturating_sub(TURNS_PER_MOVE),
            false => self.turns + 1,
        };
        self.turns > TURNS_MAX
    }
}

impl<H: Handler> Engine<H> {
    /// The turn of a reactor is over; `before` is what it had counted when it began.
    pub(super) fn check_turn(&mut self, place: usize, before: &Counters) {
        let lane = &mut self.lanes[place];
        let audit = lane.reactor.audit();
        lane.accepted = lane.reactor.accepted_by_listener();
        let after = &lane.before;
        let refused = after.refused_full > before.refused_full;
        let draining = lane.reactor.connections().is_draining();
        let bytes = |counters: &Counters| (counters.bytes_received, counters.bytes_sent);
        let spins = lane.restless.turn(bytes(after) != bytes(before));
        let nudged: BTreeSet<Key> = lane.reactor.nudged().collect();
        let mut new = nudged.difference(&lane.nudged).map(|key| Party::of(place, *key));
        let unheard = new.find(|who| self.kernel.borrow().is_unheard(*who));
        lane.nudged = nudged;
        let starved = note_put_off(&self.kernel.borrow(), place, lane);
        if let Err(contradiction) = audit {
            self.fail(format!("reactor {place}: {contradiction}"));
        }
        if let Some(who) = unheard {
            self.fail(format!("{who}: asked to go, and what it has sent was not looked at"));
        }
        if let Some(who) = starved {
            self.fail(format!("{who}: what was put off to this turn was put off again, all of it"));
        }
        if spins {
            self.fail(format!(
                "reactor {place} spins: {TURNS_MAX} turns for nothing, and no sleep"
            ));
        }
        self.check_sums();
        self.check_pace(draining);
        self.check_not_ready(place, draining);
        self.check_evicting();
        if refused {
            self.check_refusal();
        }
    }

    /// Those who send clients have their time to notice. Where a reactor has failed, the others drain without an order.
    fn check_not_ready(&mut self, place: usize, draining: bool) {
        // Handlers may order it, too.
        if self.stops_us.is_none() && !self.handle.is_ready() {
            self.stops_us = Some(self.now_us() + self.not_ready_us);
        }
        let failed = self.lanes.iter().any(|lane| lane.failed);
        let early = self.stops_us.is_none_or(|stops_us| self.now_us() + 1_000 < stops_us);
        if draining && early && !failed {
            self.fail(format!("reactor {place} stopped accepting before it was time"));
        }
    }

    /// No more were let in than the rates allow. Who was refused is gone already, and has not come in.
    fn check_pace(&mut self, draining: bool) {
        let mut kernel = self.kernel.borrow_mut();
        let mut accepted = std::mem::take(&mut kernel.accepted);
        accepted.retain(|one| kernel.stream(one.client).is_some());
        drop(kernel);
        if draining {
            return;
        }
        for Accepted { at, now_us, .. } in accepted {
            if let Err(too_soon) = self.paced.add(at, now_us) {
                self.fail(too_soon);
            }
        }
    }

    /// Somebody was refused in this turn: some cap is reached. A state that could not be made gives its place back
    /// behind the refusal.
    fn check_refusal(&mut self) {
        let fragile = self.kernel.borrow().knobs.failed_states > 0;
        let own = |(number, max): (usize, &Option<u32>)| {
            max.is_some_and(|max| self.admission.open_of(number) == Some(max))
        };
        let full = self.admission.open() == self.accepted_max
            || self.listener_max.iter().enumerate().any(own);
        if !full && !fragile {
            self.fail("a client was refused, and there was a place for it");
        }
    }

    fn check_sums(&mut self) {
        if self.panics() > self.panics_meant.get() {
            self.fail("a panic that no handler meant");
        }
        let stale: u64 = self.lanes.iter().map(|lane| lane.before.stale_completions).sum();
        if stale > 0 {
            self.fail("a completion that nobody awaited");
        }
        self.check_caps();
    }

    /// Neither cap is passed, by what is really open; and the books say what is.
    fn check_caps(&mut self) {
        let mut open_of: BTreeMap<u16, u32> = BTreeMap::new();
        for (listener, open) in self.lanes.iter().flat_map(|lane| &lane.accepted) {
            *open_of.entry(*listener).or_default() += open;
        }
        // Let in or handed over, and not opened yet: they have their places.
        let waiting = self.lanes.iter().map(|lane| lane.reactor.clients_waiting());
        let mailed = (0..self.lanes.len()).map(|reactor| self.front.mail(reactor).len());
        let on_the_way = waiting.chain(mailed).sum::<usize>() as u32;
        let open: u32 = open_of.values().sum();
        if open + on_the_way > self.accepted_max {
            self.fail(format!("{open} accepted connections, {} allowed", self.accepted_max));
        }
        for (number, max) in self.listener_max.clone().into_iter().enumerate() {
            let open = open_of.get(&(number as u16)).copied().unwrap_or(0);
            if max.is_some_and(|max| open > max) {
                self.fail(format!("{open} connections of listener {number}, {max:?} allowed"));
            }
            let booked = self.admission.open_of(number);
            if booked.is_some_and(|booked| !(open..=open + on_the_way).contains(&booked)) {
                self.fail(format!("{open} connections of listener {number}, {booked:?} booked"));
            }
        }
        let booked = self.admission.open();
        if booked != open + on_the_way {
            let which = format!("{open} accepted connections, {on_the_way} on the way");
            self.fail(format!("{which}, {booked} booked"));
        }
    }

    /// No client waits in a backlog while there is room, and nobody will look.
    pub(super) fn find_held_out(&self) -> Option<String> {
        let kernel = self.kernel.borrow();
        let held_out = |(place, lane): (usize, &Lane<H>)| {
            let asleep = matches!(lane.doing, Doing::Asleep { .. });
            if !asleep || kernel.has_news(place as u16) {
                return None;
            }
            let listener = lane.reactor.find_idle_listener()?;
            Some(format!(
                "listener {listener} of reactor {place} takes nobody in, and there is room"
            ))
        };
        self.lanes.iter().enumerate().find_map(held_out)
    }

    /// Panics of handlers that the reactors have counted.
    fn panics(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.reactor.counters().handler_panics).sum()
    }

    /// Everything has ended: nothing may be left, and no panic may have passed unseen.
    pub(crate) fn check_end(&mut self) {
        let mut left = Vec::new();
        let (told, meant) = (self.panics(), self.panics_meant.get());
        if told != meant {
            left.push(format!("{told} panics were counted, and {meant} meant"));
        }
        for (place, lane) in self.lanes.iter_mut().enumerate() {
            let reactor = &mut lane.reactor;
            let counters = *reactor.counters();
            let failed = reactor.driver().submit().is_err();
            let mut say = |what: String| left.push(format!("reactor {place}: {what}"));
            let open = reactor.connections().len();
            if open > 0 {
                say(format!("{open} connections"));
            }
            if counters.open() != 0 {
                say("not every connection was closed".to_owned());
            }
            if failed {
                continue;
            }
            let memory = Rc::clone(reactor.driver().memory());
            if memory.buffers_free() != memory.buffers() {
                say(format!("{} buffers held", memory.buffers() - memory.buffers_free()));
            }
            if memory.owned_bytes() > 0 {
                say(format!("{} owned bytes", memory.owned_bytes()));
            }
            let places = reactor.driver().places_used();
            if places > 0 {
                say(format!("{places} places of its table that are not free"));
            }
            if reactor.driver().held() > 0 {
                say("memory of zero-copy sends".to_owned());
            }
            let (pending, read) = self.kernel.borrow().in_flight(place as u16);
            // The watch of its bell is never answered.
            if pending > 1 || read > 0 {
                say(format!("{pending} operations and {read} notifications under way"));
            }
        }
        let descriptors = self.kernel.borrow().open_descriptors();
        if descriptors > 0 {
            left.push(format!("{descriptors} descriptors"));
        }
        let places = self.kernel.borrow().taken_places();
        if places > 0 {
            left.push(format!("sockets in {places} places of tables"));
        }
        let (open, dialed) = (self.admission.open(), self.admission.dialed());
        if open + dialed > 0 {
            left.push(format!("places of {open} accepted and {dialed} dialed connections"));
        }
        let sources = self.door.sources_known();
        if sources > 0 {
            left.push(format!("{sources} sources that count connections"));
        }
        let loads = self.front.loads();
        let counted: Vec<u32> = (0..loads.reactors()).map(|r| loads.connections(r)).collect();
        let failed = self.lanes.iter().any(|lane| lane.failed);
        if counted.iter().any(|load| *load > 0) && !failed {
            left.push(format!("loads of {counted:?}"));
        }
        if !left.is_empty() {
            self.fail(format!("left behind at the end: {}", left.join("; ")));
        }
    }
}

/// A reactor falls asleep for longer than until the first of its timers; one that has passed wakes it at once.
pub(super) fn find_overslept<H: Handler>(
    place: usize,
    lane: &Lane<H>,
    (now_us, until_us): (u64, Option<u64>),
) -> Option<String> {
    let first_us = lane.reactor.first_deadline_us()?.max(now_us + 1);
    let late_us = until_us.map_or(u64::MAX, |until_us| until_us.saturating_sub(first_us));
    (late_us > 0).then(|| format!("reactor {place} sleeps, and {late_us} us past its first timer"))
}

/// Every connection has a share of every turn: of what was put off to it something was dealt with. Whose was
/// not, if there is one.
fn note_put_off<H: Handler>(kernel: &Kernel, place: usize, lane: &mut Lane<H>) -> Option<Party> {
    let mut now = PutOff::new();
    for key in lane.reactor.put_off() {
        let who = Party::of(place, key);
        let taken = kernel.receives_of(who).unwrap_or(0);
        now.entry(who).or_insert((0, taken)).0 += 1;
    }
    let before = std::mem::replace(&mut lane.put_off, now);
    let starved = before.into_iter().find(|(who, (waited, taken))| {
        let new = lane.put_off.get(who).map(|(waits, now)| (*waits, now - taken));
        new.is_some_and(|(waits, came)| waits >= waited + came)
    });
    starved.map(|(who, _)| who)
}
