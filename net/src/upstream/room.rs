//! One reactor's side of an upstream: its verdicts, and who gets a call.
//!
//! *Seen anew before each choice*, by three loads that hardly ever find a change: who belongs to the upstream, who is
//! ejected, what checks have found. Only then the table is gone through.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Deref;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use slipring_core::canary::{Canary, sings};

use super::call::Call;
use super::members::{Listed, Member, Roster};
use super::parties::{Party, Place, Wanting};
use super::{Request, Shared, Team, UpstreamCounters};
use crate::cap::{Line, Token};
use crate::failure::{self, Error};
use crate::policy::balancer::{Availability, Balancer, Endpoint, Endpoints, Wish};
use crate::policy::breaker::{Breaker, BreakerState, Change, Open, Standing};
use crate::policy::budget::Budget;
use crate::policy::outcome::Outcome;
use crate::policy::outlier::Outlier;
use crate::tasks::{Executor, JoinHandle, Room, now, spawn_local};

/// When who was refused by a half-open breaker asks again, at the latest †: a few round trips, and little beside what
/// anybody waits who waits for a breaker.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Tiers that are told apart.
const TIERS_MOST: usize = 1 << 8;

/// An endpoint, as a reactor knows it. Calls share it: the count of its member's is written by all reactors.
pub(super) struct Known {
    pub(super) member: Arc<Member>,
    /// Dials to it.
    pub(super) dials: Rc<Line>,
    /// The connections of its pool.
    pub(super) pooled: Rc<Party>,
    /// Tries whether it is back, since this reactor ejected it last.
    probe: RefCell<Option<JoinHandle<()>>>,
}

impl Known {
    /// One probe at a time: that of an earlier ejection may hang in a dial still.
    pub(super) fn probe_by(&self, task: Option<JoinHandle<()>>) {
        if let Some(before) = self.probe.replace(task) {
            before.cancel();
        }
    }
}

/// What a reactor keeps of an endpoint, by its number in the table.
pub(super) struct Slot {
    pub(super) known: Rc<Known>,
    /// It does not belong to the upstream any more; it leaves the table when its last call has ended.
    pub(super) is_gone: bool,
}

impl Deref for Slot {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.known
    }
}

/// What decides.
pub(super) struct Verdicts {
    pub(super) endpoints: Endpoints,
    pub(super) slots: Vec<Option<Slot>>,
    pub(super) balancer: Balancer,
    pub(super) breaker: Breaker,
    pub(super) outlier: Outlier,
    pub(super) budget: Budget,
    pub(super) rng: fastrand::Rng,
}

pub(crate) struct UpstreamRoom {
    pub(super) upstream: Arc<Shared>,
    pub(super) reactor: usize,
    pub(super) reactors: usize,
    me: Weak<Self>,
    pub(super) verdicts: RefCell<Verdicts>,
    pub(super) connections: Rc<Line>,
    /// The connections that are their requests' own.
    pub(super) own: Rc<Party>,
    /// Those that are being closed for the sake of another party.
    pub(super) yielding: Rc<Cell<u32>>,
    pending: Rc<Line>,
    pub(super) counters: Cell<UpstreamCounters>,
    /// The roster, the ejections and the checks that the table shows.
    seen: Cell<(u64, u64, u64)>,
    /// The roster whose pools have begun.
    warmed: Cell<u64>,
    /// Something has happened since the last time others were told.
    pub(super) is_in_use: Cell<bool>,
    /// Requests that are not over, and calls: the room is there for as long as there are any.
    pub(super) under_way: Cell<u32>,
    pub(super) teller: RefCell<Option<Waker>>,
    pub(super) is_over: Cell<bool>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl UpstreamRoom {
    /// # Panics
    /// If the upstream is used by two runtimes.
    pub(super) fn open(upstream: &Arc<Shared>, executor: &Executor) -> Rc<Self> {
        let team = upstream.team(executor.bell());
        let (reactor, reactors) = executor.bell().reactor();
        let limits = &upstream.limits;
        let verdicts = Verdicts {
            endpoints: Endpoints::new(),
            slots: Vec::new(),
            balancer: Balancer::new(limits.algorithm, limits.balancer),
            breaker: Breaker::new(&limits.breaker),
            outlier: Outlier::new(limits.outlier),
            budget: Budget::new(&limits.retry.budget, reactor, reactors),
            rng: fastrand::Rng::with_seed(upstream.seed ^ (reactor as u64) << 32),
        };
        let room = Rc::new_cyclic(|me| Self {
            upstream: Arc::clone(upstream),
            reactor,
            reactors,
            me: me.clone(),
            verdicts: RefCell::new(verdicts),
            connections: Line::new(Arc::clone(&team.connections), reactor),
            own: Rc::default(),
            yielding: Rc::default(),
            pending: Line::new(Arc::clone(&team.pending), reactor),
            // Of a room that was here before, if there was one: counters only grow.
            counters: Cell::new(upstream.counted(|other| other == reactor)),
            seen: Cell::new((0, 0, 0)),
            warmed: Cell::new(0),
            is_in_use: Cell::new(true),
            under_way: Cell::new(0),
            teller: RefCell::default(),
            is_over: Cell::new(false),
            tasks: RefCell::default(),
        });
        room.take_up_names();
        room.refresh();
        let telling = spawn_local(Rc::clone(&room).tell());
        room.tasks.borrow_mut().push(telling);
        room
    }

    pub(super) fn team(&self) -> &Team {
        self.upstream.team.get().expect("it is there once there is a room")
    }

    /// Counts something.
    #[inline]
    pub(super) fn count(&self, note: impl FnOnce(&mut UpstreamCounters)) {
        let mut counters = self.counters.get();
        note(&mut counters);
        self.counters.set(counters);
    }

    /// Tells the others what was counted here.
    pub(super) fn tell_counters(&self) {
        let place = &self.team().counted[self.reactor];
        *place.lock().unwrap_or_else(PoisonError::into_inner) = self.counters.get();
    }

    pub(super) fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("who calls has it")
    }

    /// A task of the upstream's, which ends with it.
    pub(super) fn keep_task(&self, task: JoinHandle<()>) {
        let mut tasks = self.tasks.borrow_mut();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    // ------------------------------------------------------------------------------ who there is

    #[inline]
    pub(super) fn is_known(&self) -> bool {
        // Rosters are counted from 1, and each of them is known.
        self.upstream.version.load(Ordering::SeqCst) > 0
    }

    /// Waits until it is known where its names lead, if it has any.
    pub(super) async fn known(&self) {
        if self.is_known() {
            return;
        }
        poll_fn(|cx| {
            if self.upstream.roster().is_known {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            self.upstream.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
            // It may have become known since.
            if self.upstream.roster().is_known { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Brings the table up to date, if anything has changed.
    #[inline]
    pub(super) fn refresh(&self) {
        let upstream = &self.upstream;
        let latest = (
            upstream.version.load(Ordering::SeqCst),
            upstream.ejections.changes(),
            upstream.health_changes.load(Ordering::SeqCst),
        );
        let seen = self.seen.get();
        if seen != latest {
            self.seen.set(latest);
            self.see(seen.0 != latest.0);
        }
    }

    #[cold]
    fn see(&self, is_new_roster: bool) {
        let verdicts = &mut *self.verdicts.borrow_mut();
        let now = now();
        if is_new_roster {
            let roster = self.upstream.roster();
            self.take_over(verdicts, &roster, now);
        }
        for number in 0..verdicts.slots.len() {
            let Some(slot) = &verdicts.slots[number] else { continue };
            let member = &slot.member;
            let (availability, up_since) = if slot.is_gone {
                (Availability::Draining, None)
            } else if member.is_down() {
                (Availability::Down, None)
            } else if self.upstream.ejections.is_ejected(member.number, now) {
                (Availability::Ejected, None)
            } else {
                (Availability::Up, Some(member.up_since().unwrap_or(now).max(now)))
            };
            let set = verdicts.endpoints.set_availability(number as u32, availability, up_since);
            debug_assert!(set.is_ok(), "a slot is an endpoint of the table");
        }
        verdicts.balancer.rebuild(&verdicts.endpoints);
    }

    fn take_over(&self, verdicts: &mut Verdicts, roster: &Roster, now: Duration) {
        let mut tiers: Vec<_> = roster.members.iter().map(|listed| listed.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let tier_of = |listed: &Listed| {
            tiers.binary_search(&listed.tier).unwrap_or(0).min(TIERS_MOST - 1) as u8
        };
        let Verdicts { slots, endpoints, .. } = verdicts;
        for (number, slot) in slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            let mut all = roster.members.iter();
            let listed = all.find(|listed| Arc::ptr_eq(&listed.member, &slot.member));
            slot.is_gone = listed.is_none();
            if slot.is_gone {
                // Only so many may be ejected, and it needs that no more.
                self.upstream.ejections.uneject(slot.member.number, now);
            }
            if let Some(listed) = listed {
                // Those that have come or gone may have changed which tier is the how many-th.
                let set = endpoints.set_tier(number as u32, tier_of(listed));
                debug_assert!(set.is_ok(), "a slot is an endpoint of the table");
                let set = endpoints.set_weight(number as u32, roster.weight(listed));
                debug_assert!(set.is_ok(), "a slot is an endpoint of the table");
            }
        }
        for listed in &roster.members {
            let member = &listed.member;
            let is_known = |slot: &Slot| Arc::ptr_eq(&slot.member, member);
            if verdicts.slots.iter().flatten().any(is_known) {
                continue;
            }
            let endpoint = Endpoint {
                weight: roster.weight(listed),
                tier: tier_of(listed),
                up_since: (!member.is_of_the_first).then_some(now),
                ..Endpoint::new(member.identity())
            };
            let number = match verdicts.endpoints.insert(endpoint) {
                Ok(number) => number as usize,
                Err(error) => {
                    tracing::error!(upstream = %self.upstream.name, "an endpoint is left aside: {error}");
                    continue;
                }
            };
            let cap = member.dials(self.upstream.limits.dials_max, self.reactors);
            let dials = Line::new(cap, self.reactor);
            let (member, pooled) = (Arc::clone(member), Rc::default());
            let known = Rc::new(Known { member, dials, pooled, probe: RefCell::default() });
            let slot = Slot { known, is_gone: false };
            if verdicts.slots.len() <= number {
                verdicts.slots.resize_with(number + 1, || None);
            }
            verdicts.slots[number] = Some(slot);
        }
    }

    /// The pools of new endpoints begin, if they are to keep connections idle: not only with the first call.
    pub(super) fn warm_up(&self) {
        let version = self.seen.get().0;
        if self.warmed.replace(version) == version || self.upstream.limits.pool.mode.min_idle() == 0
        {
            return;
        }
        let known: Vec<_> = {
            let verdicts = self.verdicts.borrow();
            let slots = verdicts.slots.iter().flatten().filter(|slot| !slot.is_gone);
            slots.map(|slot| Rc::clone(&slot.known)).collect()
        };
        known.iter().for_each(|known| drop(known.member.pool.room()));
    }

    /// What is under way on those that have left goes on; nothing is kept for who comes, or pinged.
    pub(super) fn keep_nothing_for_the_gone(&self) {
        let gone: Vec<_> = {
            let verdicts = self.verdicts.borrow();
            let slots = verdicts.slots.iter().flatten().filter(|slot| slot.is_gone);
            slots.map(|slot| Rc::clone(&slot.known)).collect()
        };
        gone.iter().for_each(|known| known.member.pool.keep_none_idle());
    }

    /// Those that do not belong to it any more, and on which nothing is under way, are forgotten.
    pub(super) fn forget_the_gone(&self) {
        let mut forgotten = Vec::new();
        let verdicts = &mut *self.verdicts.borrow_mut();
        for number in 0..verdicts.slots.len() {
            let is_gone = verdicts.slots[number].as_ref().is_some_and(|slot| slot.is_gone);
            if is_gone && verdicts.endpoints.remove(number as u32).is_ok() {
                let slot = verdicts.slots[number].take();
                verdicts.outlier.forget(slot.as_ref().map_or(0, |slot| slot.member.number));
                // Dropped when nothing is borrowed any more: its pool may end with it.
                forgotten.extend(slot);
            }
        }
    }

    // ------------------------------------------------------------------------------ connections

    /// A place for a connection, in turn. If there is none, one that is kept idle makes room.
    pub(super) async fn connection(&self, party: &Rc<Party>) -> Place {
        if let Some(place) = self.try_connection(party) {
            return place;
        }
        self.spare();
        let _wanting = Wanting::of(party);
        let token = self.connections.take().await;
        Place::new(token, party, self.now_or_before())
    }

    /// One that is free, if nobody waits for it.
    pub(super) fn try_connection(&self, party: &Rc<Party>) -> Option<Place> {
        let token = self.connections.try_take()?;
        Some(Place::new(token, party, self.now_or_before()))
    }

    /// Whether this party gives up this connection though callers of its own wait: another has less and wants one, or
    /// another reactor. One at a time.
    pub(super) fn is_to_yield(&self, party: &Party, place: &Place) -> bool {
        if self.yielding.get() > 0 {
            return false;
        }
        let had_for = self.now_or_before().saturating_sub(place.since());
        let verdicts = self.verdicts.borrow();
        let parties = || {
            let pools = verdicts.slots.iter().flatten().map(|slot| &slot.pooled);
            pools.chain([&self.own])
        };
        if parties().any(|other| other.is_behind(party, had_for)) {
            return true;
        }
        let held = parties().map(|party| party.held()).sum();
        self.connections.is_to_yield(held, had_for)
    }

    /// Closes one that a pool of this reactor keeps idle, if there is any: its place is wanted here, for another
    /// endpoint, or elsewhere.
    pub(super) fn spare(&self) -> bool {
        let known: Vec<_> = {
            let verdicts = self.verdicts.borrow();
            verdicts.slots.iter().flatten().map(|slot| Rc::clone(&slot.known)).collect()
        };
        known.iter().any(|known| known.member.pool.spare())
    }

    /// The endpoint of this shared number.
    pub(super) fn known_as(&self, member: u32) -> Option<Rc<Known>> {
        let verdicts = self.verdicts.borrow();
        let mut slots = verdicts.slots.iter().flatten();
        slots.find(|slot| slot.member.number == member).map(|slot| Rc::clone(&slot.known))
    }

    // ------------------------------------------------------------------------------ calls

    /// A place among those who wait.
    pub(super) fn pend(&self) -> Result<Token, Error> {
        let limit = self.upstream.limits.pending_max;
        let token = self.pending.try_take();
        token.ok_or_else(|| {
            self.count(|counters| counters.refused_pending += 1);
            Error::new(failure::Admit::PendingLimit { limit })
        })
    }

    /// Chooses an endpoint that is not among those to be avoided, if there is one, for a call that begins now.
    pub(super) fn begin(&self, request: &Request, avoid: &[u32]) -> Result<Call, Error> {
        if self.is_over.get() {
            return Err(Error::new(failure::Drain::Refusing));
        }
        self.refresh();
        self.note_use();
        let now = now();
        let verdicts = &mut *self.verdicts.borrow_mut();
        let ticket = match verdicts.breaker.admit(now, &self.upstream.breaker) {
            Err(_) if sings(Canary::OpenLetsPass) => {
                verdicts.breaker.admit(now, &BreakerState::new())?
            }
            admitted => admitted.map_err(|open| self.refused(verdicts, open, now))?,
        };
        let Some(endpoint) = verdicts.pick(now, request.hash, avoid) else {
            self.upstream.breaker.give_back(now, ticket);
            return Err(self.nobody());
        };
        verdicts.endpoints.began(endpoint);
        self.under_way.set(self.under_way.get() + 1);
        let slot = verdicts.slots[endpoint as usize].as_ref().expect("who is picked has a slot");
        Ok(Call::new(self.me(), endpoint, Rc::clone(&slot.known), ticket, now))
    }

    /// The breaker lets nobody pass. While probes are under way, what they find out is known long before their permits
    /// are void: who asks again does so soon, and not all at a time.
    #[cold]
    fn refused(&self, verdicts: &mut Verdicts, open: Open, now: Duration) -> Error {
        let is_half_open = matches!(self.upstream.breaker.standing(), Standing::HalfOpen { .. });
        let soon = now.saturating_add(ASK_AGAIN.mul_f64(1.0 - verdicts.rng.f64() / 2.0));
        let until = if is_half_open { open.until.min(soon) } else { open.until };
        Error::from(Open { until })
    }

    #[cold]
    fn nobody(&self) -> Error {
        let roster = self.upstream.roster();
        match roster.failure {
            Some(failure) => Error::new(failure),
            None if roster.members.is_empty() => Error::new(failure::Upstream::Empty),
            None => {
                let endpoints = u32::try_from(roster.members.len()).unwrap_or(u32::MAX);
                Error::new(failure::Upstream::NoneHealthy { endpoints })
            }
        }
    }

    /// Whether anybody takes calls who is not among these.
    pub(super) fn has_others(&self, tried: &[u32]) -> bool {
        self.refresh();
        let verdicts = &mut *self.verdicts.borrow_mut();
        let wish = Wish { hash: None, avoid: tried };
        verdicts.balancer.pick(&verdicts.endpoints, now(), &mut verdicts.rng, wish).is_some()
    }

    #[inline]
    fn note_use(&self) {
        if !self.is_in_use.replace(true) {
            let teller = self.teller.borrow().clone();
            if let Some(teller) = teller {
                teller.wake();
            }
        }
    }

    /// What a dial of a pool says of an endpoint.
    pub(super) fn note_dial(&self, member: u32, took: Duration, error: Option<&Error>) {
        let outcome = error.map_or(Outcome::Success, Error::outcome);
        tracing::trace!(upstream = %self.upstream.name, member, ?took, ?outcome, "dialed");
        if self.known_as(member).is_none() {
            // It has left meanwhile, and what was known of it is forgotten.
            return;
        }
        match error {
            // What calls over it come to is not known yet.
            None => self.verdicts.borrow_mut().outlier.connected(member),
            Some(_) => self.note_outcome(member, outcome),
        }
    }

    pub(super) fn note_outcome(&self, member: u32, outcome: Outcome) {
        let ejected = {
            let verdicts = &mut *self.verdicts.borrow_mut();
            verdicts.outlier.note(&self.upstream.ejections, member, self.now_or_before(), outcome)
        };
        if let Some(ejected) = ejected {
            self.ejected(member, ejected);
        }
    }

    pub(super) fn log_change(&self, change: Option<Change>) {
        if let Some(change) = change {
            self.count(|counters| counters.note_breaker(change));
            tracing::warn!(upstream = %self.upstream.name, ?change, "the breaker has changed");
        }
    }

    pub(super) fn now_or_before(&self) -> Duration {
        Executor::with(|_| now()).unwrap_or_default()
    }
}

/// A request that is not over: also between its attempts, and before its first, the room stays.
pub(super) struct Asking(Rc<UpstreamRoom>);

impl Asking {
    pub(super) fn of(room: Rc<UpstreamRoom>) -> Self {
        room.under_way.set(room.under_way.get() + 1);
        Self(room)
    }
}

impl Deref for Asking {
    type Target = UpstreamRoom;

    fn deref(&self) -> &UpstreamRoom {
        &self.0
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

impl Verdicts {
    fn pick(&mut self, now: Duration, hash: Option<u64>, avoid: &[u32]) -> Option<u32> {
        let Self { endpoints, slots, balancer, rng, .. } = self;
        let mut pick = |avoid: &[u32]| {
            balancer.pick(endpoints, now, rng, Wish { hash, avoid }).map(|pick| pick.endpoint)
        };
        let first = pick(avoid).or_else(|| if avoid.is_empty() { None } else { pick(&[]) })?;
        let is_full = |endpoint: u32| {
            slots[endpoint as usize].as_ref().is_some_and(|slot| slot.dials.is_full())
        };
        if !is_full(first) {
            return Some(first);
        }
        // As many dials hang there as may: whoever is free is better.
        let mut busy = avoid.to_vec();
        busy.push(first);
        Some(pick(&busy).filter(|second| !is_full(*second)).unwrap_or(first))
    }
}

impl Room for UpstreamRoom {
    fn end(&self) {
        if self.is_over.replace(true) {
            return;
        }
        self.tell_counters();
        self.upstream.following.end(self.reactor);
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        tasks.iter().for_each(JoinHandle::cancel);
        self.connections.listen_beside(None);
        let slots = std::mem::take(&mut self.verdicts.borrow_mut().slots);
        for slot in slots.iter().flatten() {
            slot.probe_by(None);
            slot.member.end_checking(self.reactor);
            let _ = slot.member.exchange(self.reactor, self.reactors, 0);
        }
    }
}
