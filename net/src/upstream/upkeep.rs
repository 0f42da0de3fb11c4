//! What an upstream does beside its calls: reactors tell each other, endpoints are checked and probed.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use super::UpstreamLimits;
use super::members::Member;
use super::room::UpstreamRoom;
use crate::connector::About;
use crate::failure::Kind;
use crate::health::Check;
use crate::policy::breaker::Counts;
use crate::policy::health::{Changed, Health, Initially};
use crate::policy::outlier::Ejected;
use crate::tasks::{Executor, now, put_aside, sleep, sleep_until, spawn_local};

/// How often reactors tell each other what they have: 100 ms †. What they know of each other is at most so old.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The same while nothing is called.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without a call for so long, there is nothing to tell: longer than any window that is short enough to matter.
const QUIET_AFTER: u32 = 600;
/// A probe has at least so long: a SYN that is lost is sent once more after a second.
const PROBE_MIN: Duration = Duration::from_secs(1);

impl UpstreamRoom {
    /// Tells the others, as long as there is anything to be told; else it looks once a second whether there is anything
    /// to be done.
    pub(super) async fn tell(self: Rc<Self>) {
        let mut quiet = 0;
        loop {
            self.exchange();
            self.take_up_names();
            self.take_up_checks();
            self.warm_up();
            self.forget_the_gone();
            self.keep_nothing_for_the_gone();
            if self.upstream.is_abandoned.load(Ordering::SeqCst) && !self.has_calls() {
                break;
            }
            let calls = self.is_in_use.replace(false);
            quiet = if calls || self.has_calls() { 0 } else { quiet + 1 };
            let every = if quiet < QUIET_AFTER { TELL_EVERY } else { LOOK_EVERY };
            let mut pause = sleep(every);
            if self.connections.is_pressed() {
                self.spare();
            }
            poll_fn(|cx| {
                let before = self.teller.replace(Some(cx.waker().clone()));
                if before.is_none() {
                    self.connections.listen_beside(Some(cx.waker().clone()));
                }
                put_aside(before);
                if self.connections.is_wanted_by_others() {
                    self.spare();
                }
                // Called after a long quiet, it tells at once.
                if quiet >= QUIET_AFTER && self.is_in_use.get() {
                    return Poll::Ready(());
                }
                Pin::new(&mut pause).poll(cx)
            })
            .await;
        }
        Executor::with(|executor| executor.end_room(self.upstream.number));
    }

    fn has_calls(&self) -> bool {
        self.under_way.get() > 0
    }

    fn exchange(&self) {
        let now = now();
        self.tell_counters();
        let team = self.team();
        let change = {
            let verdicts = &mut *self.verdicts.borrow_mut();
            for (number, slot) in verdicts.slots.iter().enumerate() {
                let Some(slot) = slot else { continue };
                let own = verdicts.endpoints.own(number as u32);
                let others = slot.member.exchange(self.reactor, self.reactors, own);
                verdicts.endpoints.set_others(number as u32, others);
            }
            let own = verdicts.breaker.own_counts(now);
            team.counts[self.reactor].store(own.to_bits(), Ordering::Relaxed);
            let others = team.counts.iter().enumerate().filter(|(other, _)| *other != self.reactor);
            let others = others.map(|(_, bits)| Counts::from_bits(bits.load(Ordering::Relaxed)));
            verdicts.breaker.merge(now, &self.upstream.breaker, others)
        };
        self.log_change(change);
        self.upstream.ejections.expire(now);
        self.refresh();
    }

    // ------------------------------------------------------------------------------ checks

    /// Each endpoint is checked by one reactor: the one whose number it is, or, if that does not use the upstream, by
    /// whoever looks next.
    fn take_up_checks(&self) {
        let Some(check) = &self.upstream.limits.health else { return };
        let members: Vec<_> = {
            let verdicts = self.verdicts.borrow();
            let slots = verdicts.slots.iter().flatten().filter(|slot| !slot.is_gone);
            slots.map(|slot| Arc::clone(&slot.member)).collect()
        };
        for member in members {
            if member.begin_checking(self.reactor) {
                let seed = self.verdicts.borrow_mut().rng.u64(..);
                let task = spawn_local(self.me().check(member, check.clone(), seed));
                self.keep_task(task);
            }
        }
    }

    async fn check(self: Rc<Self>, member: Arc<Member>, check: Check, seed: u64) {
        let initially = if member.is_of_the_first { Initially::Up } else { Initially::Unknown };
        let mut health = Health::new(check.limits, initially);
        let mut rng = fastrand::Rng::with_seed(seed);
        while self.is_of_the_roster(&member) {
            sleep(health.next_check(&mut rng)).await;
            let result = check.run(&member.connector, member.address()).await;
            if let Err(error) = &result
                && !error.counts_for_breaker()
                && matches!(error.kind(), Kind::Admit(_) | Kind::Resource(_) | Kind::Drain(_))
            {
                // A lack of ours says nothing of the endpoint.
                continue;
            }
            let changed = health.checked(now(), result.is_ok());
            if let Err(error) = &result {
                tracing::debug!(upstream = %self.upstream.name, endpoint = %member.address(), %error, "a check failed");
            } else {
                self.is_back(&member);
            }
            let Some(changed) = changed else { continue };
            let (upstream, endpoint) = (&self.upstream.name, member.address());
            match &result {
                Ok(()) => {
                    tracing::warn!(%upstream, %endpoint, "checks succeed; the endpoint is used again");
                }
                Err(error) => {
                    tracing::warn!(%upstream, %endpoint, %error, "checks fail; the endpoint is left alone");
                }
            }
            member.set_up(changed == Changed::Up, now());
            self.upstream.health_changes.fetch_add(1, Ordering::SeqCst);
            self.refresh();
        }
        member.end_checking(self.reactor);
    }

    fn is_of_the_roster(&self, member: &Arc<Member>) -> bool {
        self.upstream.roster().members().any(|other| Arc::ptr_eq(other, member))
    }

    // ------------------------------------------------------------------------------ probes

    /// An endpoint was ejected by what this reactor has seen.
    pub(super) fn ejected(&self, member: u32, ejected: Ejected) {
        let Some(known) = self.known_as(member) else { return };
        let member = &known.member;
        if !self.is_of_the_roster(member) {
            // Nobody is sent there anyway, and only so many may be ejected.
            self.upstream.ejections.uneject(member.number, now());
            return;
        }
        self.count(|counters| counters.ejections += 1);
        let (upstream, endpoint, times) = (&self.upstream.name, member.address(), ejected.times);
        if ejected.is_dials_only {
            tracing::warn!(%upstream, %endpoint, times, "dials fail; the endpoint is left alone until it can be reached");
        } else {
            let for_s = ejected.until.saturating_sub(now()).as_secs_f32();
            tracing::warn!(%upstream, %endpoint, times, for_s, "calls fail; the endpoint is left alone");
        }
        self.refresh();
        if ejected.is_dials_only && !self.is_over.get() {
            let task = spawn_local(self.me().probe(Arc::clone(member), ejected.until));
            known.probe_by(Some(task));
        }
    }

    /// Looks after an endpoint that was ejected for dials only, as long as it is: tries to connect, one dial at a time.
    ///
    /// The last of them, before its time has come, has all the time that a client's dial has. If that fails too,
    /// clients would only find out the same, each by a dial of its own: it is left alone for as long again as the first
    /// time.
    async fn probe(self: Rc<Self>, member: Arc<Member>, ejected_until: Duration) {
        let UpstreamLimits { probe_interval, outlier, .. } = &self.upstream.limits;
        let brief = (*probe_interval).max(PROBE_MIN);
        let whole = member.connector.limits().total;
        // Not sooner than halfway: one that is refused takes no time at all.
        let last_before = |until: Duration, now: Duration| {
            let lead = whole.saturating_add(brief).saturating_add(*probe_interval);
            until.saturating_sub(lead.min(until.saturating_sub(now) / 2))
        };
        let (mut until, mut at) = (ejected_until, now());
        let mut last = last_before(until, at);
        loop {
            at = at.saturating_add(*probe_interval).max(now());
            sleep_until(at).await;
            if !self.is_kept_out(&member, until) {
                return;
            }
            let is_last = now() >= last;
            let within = if is_last { whole } else { brief };
            let about = About::default();
            match member.connector.connect_within(member.address(), &about, within).await {
                Ok(stream) => {
                    drop(stream);
                    return self.is_back(&member);
                }
                // A lack of ours says nothing of the endpoint.
                Err(error) if is_last && error.counts_for_breaker() => {
                    let now = now();
                    let later = now.saturating_add(outlier.base);
                    let prolonged =
                        self.upstream.ejections.prolong(member.number, now, until, later);
                    let Some(prolonged) = prolonged else { return };
                    until = prolonged;
                    last = last_before(until, now);
                }
                Err(_) => {}
            }
        }
    }

    /// Whether it is the same ejection still, of an endpoint that belongs to the upstream.
    fn is_kept_out(&self, member: &Arc<Member>, until: Duration) -> bool {
        let state = self.upstream.ejections.state(member.number);
        state.is_some_and(|state| state.is_until(until, now())) && self.is_of_the_roster(member)
    }

    /// It was reached: if it was ejected for dials only, it is so no more.
    fn is_back(&self, member: &Arc<Member>) {
        if self.upstream.ejections.probed(member.number, now()) {
            self.count(|counters| counters.returns += 1);
            let (upstream, endpoint) = (&self.upstream.name, member.address());
            tracing::warn!(%upstream, %endpoint, "the endpoint can be reached, and is used again");
            self.refresh();
        }
    }
}
