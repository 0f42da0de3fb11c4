//! What an upstream does beside its calls: reactors tell each other, endpoints are checked and probed.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use super::members::Member;
use super::room::UpstreamRoom;
use crate::connector::About;
use crate::failure::Kind;
use crate::health::Check;
use crate::policy::breaker::Counts;
use crate::policy::health::{Changed, Health, Initially};
use crate::policy::outlier::Ejected;
use crate::tasks::{Executor, now, put_aside, sleep, sleep_until, spawn_local, timeout};

/// How often reactors tell each other what they have: 100 ms †. What they know of each other is at most so old.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The same while nothing is called.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without a call for so long, there is nothing to tell: longer than any window that is short enough to matter.
const QUIET_AFTER: u32 = 600;

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
            } else if self.upstream.ejections.probed(member.number, now()) {
                self.count(|counters| counters.returns += 1);
                self.refresh();
            }
            let Some(changed) = changed else { continue };
            tracing::warn!(upstream = %self.upstream.name, endpoint = %member.address(), ?changed, "checks say");
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
        tracing::warn!(
            upstream = %self.upstream.name,
            endpoint = %member.address(),
            times = ejected.times,
            dials_only = ejected.is_dials_only,
            "calls fail; the endpoint is left alone"
        );
        self.refresh();
        if ejected.is_dials_only && !self.is_over.get() {
            let task = spawn_local(self.me().probe(Arc::clone(member), ejected.until));
            known.probe_by(Some(task));
        }
    }

    /// Tries to connect to an endpoint that was ejected for dials only, until that succeeds or its time has come.
    async fn probe(self: Rc<Self>, member: Arc<Member>, until: Duration) {
        let every = self.upstream.limits.probe_interval;
        let mut at = now();
        loop {
            at = at.saturating_add(every).max(now());
            if at >= until || !self.is_of_the_roster(&member) {
                return;
            }
            sleep_until(at).await;
            let is_ejected = self.upstream.ejections.is_ejected(member.number, now());
            if !is_ejected {
                return;
            }
            let about = About::default();
            let connect = member.connector.connect(member.address(), &about);
            if let Ok(Ok(stream)) = timeout(every.max(Duration::from_secs(1)), connect).await {
                drop(stream);
                if self.upstream.ejections.probed(member.number, now()) {
                    self.count(|counters| counters.returns += 1);
                    tracing::info!(upstream = %self.upstream.name, endpoint = %member.address(), "is back");
                }
                self.refresh();
                return;
            }
        }
    }
}
