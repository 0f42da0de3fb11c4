//! What must hold of an upstream: after each step, at rest, and when it is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use slipring::Census;
use slipring::policy::breaker::Standing;

use super::Run;
use crate::kernel::Dialed;

/// What is remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when the breaker is half-open.
    half_open_us: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    connecting: usize,
}

impl Run<'_> {
    pub(super) fn check_step(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        let complaint = self.ledger.open().complaints.first().cloned();
        if let Some(complaint) = complaint {
            return self.engine.fail(complaint);
        }
        self.check_waits();
        self.check_caps();
        self.check_permits();
    }

    /// Whoever waits has its answer in time. A drain ends without an answer for those it does not wait for.
    fn check_waits(&mut self) {
        let now_us = self.engine.now_us();
        let pages = self.ledger.open();
        let late = pages.waits.values().find(|(due_us, _)| *due_us < now_us).cloned();
        drop(pages);
        if let Some((due_us, who)) = late
            && !self.engine.is_over()
        {
            self.engine
                .fail(format!("{who}: no answer at {now_us} us, and it was due at {due_us} us"));
        }
    }

    fn count(&self, is_counted: impl Fn(&Dialed) -> bool) -> BTreeMap<SocketAddr, Count> {
        let mut counts: BTreeMap<SocketAddr, Count> = BTreeMap::new();
        let kernel = self.engine.kernel.borrow();
        for dialed in kernel.dialed().filter(is_counted) {
            let count = counts.entry(dialed.to).or_default();
            count.all += 1;
            count.connecting += usize::from(dialed.is_connecting);
        }
        counts
    }

    /// No cap is passed, by what the network has.
    fn check_caps(&mut self) {
        // The first look is cheap, and as a rule enough.
        if self.find_too_many(&self.count(|_| true)).is_none() {
            return;
        }
        let ends = |dialed: &Dialed| dialed.party.is_some_and(|party| self.engine.is_ending(party));
        let counts = self.count(|dialed| !ends(dialed));
        if let Some(too_many) = self.find_too_many(&counts) {
            self.engine.fail(too_many);
        }
    }

    fn find_too_many(&self, counts: &BTreeMap<SocketAddr, Count>) -> Option<String> {
        let (terms, limits) = (self.terms, &self.terms.limits);
        let of = |at: &SocketAddr| counts.get(at).copied().unwrap_or_default();
        let all: usize = terms.endpoints.iter().map(|(at, _)| of(at).all).sum();
        let unasked = terms.unasked * terms.endpoints.len();
        if all > limits.connections_max as usize + unasked {
            return Some(format!("{all} connections, and {} allowed", limits.connections_max));
        }
        for (at, _) in &terms.endpoints {
            let Count { all, connecting } = of(at);
            let pooled = limits.pool.mode.max() as usize;
            if terms.are_all_pooled() && all > pooled + terms.unasked {
                return Some(format!("{all} connections to {at}, and its pool may have {pooled}"));
            }
            if connecting > limits.dials_max as usize + terms.unasked {
                return Some(format!(
                    "{connecting} dials to {at}, and {} allowed",
                    limits.dials_max
                ));
            }
        }
        let alone = of(&terms.alone.0).all;
        let most = terms.pool.mode.max() as usize + self.taken();
        (alone > most).then(|| format!("{alone} connections to the pool that may have {most}"))
    }

    /// Connections that were taken out of their pool for good.
    fn taken(&self) -> usize {
        0
    }

    /// Half-open, so many calls are under way at most that began since.
    fn check_permits(&mut self) {
        let Some(upstream) = &self.upstream else { return };
        let (permits, now_us) = (self.terms.limits.breaker.permits, self.engine.now_us());
        if !matches!(upstream.breaker(), Standing::HalfOpen { .. }) {
            self.watch.half_open_us = None;
            return;
        }
        let since_us = *self.watch.half_open_us.get_or_insert(now_us);
        if !self.terms.are_permits_kept {
            return;
        }
        let pages = self.ledger.open();
        let acts = pages.requests.iter().filter_map(|request| request.acts_since_us);
        let probes = acts.filter(|began_us| (since_us..u64::MAX).contains(began_us)).count();
        drop(pages);
        if probes > permits as usize {
            self.engine
                .fail(format!("{probes} probes are under way, and {permits} permits there are"));
        }
    }

    /// Nobody asks for anything: nothing is under way, and what is counted is there.
    pub(super) fn check_rest(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        let snapshots = std::mem::take(&mut self.ledger.open().snapshots);
        let mut complaints = Vec::new();
        let mut connections = 0;
        for (reactor, snapshot) in snapshots.into_iter().flatten().enumerate() {
            connections = snapshot.connections.0;
            if snapshot.pending.0 > 0 {
                complaints.push(format!(
                    "reactor {reactor}: {} pending, and nobody asks",
                    snapshot.pending.0
                ));
            }
            for endpoint in snapshot.endpoints.iter().filter(|endpoint| endpoint.in_flight > 0) {
                complaints
                    .push(format!("reactor {reactor}: in flight, and nobody asks: {endpoint:?}"));
            }
        }
        let counts = self.count(|_| true);
        let open =
            self.terms.endpoints.iter().map(|(at, _)| counts.get(at).map_or(0, |count| count.all));
        let (open, unasked) =
            (open.sum::<usize>(), self.terms.unasked * self.terms.endpoints.len());
        let is_dialing = counts.values().any(|count| count.connecting > 0);
        if !is_dialing && !(open.saturating_sub(unasked)..=open).contains(&(connections as usize)) {
            complaints.push(format!("{connections} connections are counted, and {open} open"));
        }
        let alone = counts.get(&self.terms.alone.0).map_or(0, |count| count.all);
        let held = self.pool.as_ref().map_or(0, |pool| pool.held());
        if !is_dialing && held as usize != alone {
            complaints.push(format!("the pool holds {held} connections, and {alone} are open"));
        }
        if let Some(complaint) = complaints.into_iter().next() {
            self.engine.fail(complaint);
        }
    }

    /// The upstream and the pool are gone: so is all that was theirs.
    pub(super) fn check_parted(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        let left = self.engine.kernel.borrow().dialed().count();
        let censuses: Vec<Census> =
            self.engine.reactors().map(|reactor| reactor.handler().census()).collect();
        if left > 0 {
            return self.engine.fail(format!("{left} connections of an upstream that is gone"));
        }
        if let Some(reactor) = censuses.iter().position(|census| *census != Census::default()) {
            let census = censuses[reactor];
            self.engine
                .fail(format!("reactor {reactor}, left of an upstream that is gone: {census:?}"));
        }
    }

    /// Repeats are paid for: in all no more than the share of the first attempts that the budget has, and its constant
    /// part for each window.
    pub(super) fn check_budget(&mut self) {
        let budget = self.terms.limits.retry.budget;
        let window_us = (budget.window.as_micros() as u64).max(1);
        let most_of_window = window_us * 9 / 10;
        let pages = self.ledger.open();
        let mut complaint = None;
        let reactors = self.terms.plan.reactors as u64;
        let constant = u64::from(budget.per_second) * window_us / 1_000_000;
        for reactor in 0..self.terms.plan.reactors {
            let of = |all: &[(u64, usize)]| -> Vec<u64> {
                all.iter().filter(|(_, own)| *own == reactor).map(|(at_us, _)| *at_us).collect()
            };
            let (firsts, repeats) = (of(&pages.firsts), of(&pages.repeats));
            let own = constant / reactors + u64::from((reactor as u64) < constant % reactors);
            let mut windows = 0;
            let mut until_us = u64::MAX;
            for at_us in repeats.iter().rev() {
                if *at_us <= until_us {
                    windows += 1;
                    until_us = at_us.saturating_sub(most_of_window);
                }
            }
            // Windows overlap by a tenth; a repeat may be made long after it was granted.
            let earned = firsts.len() as u64 * u64::from(budget.percent) * 10 / 900;
            let most = earned + own * (windows + 1) + 1;
            if repeats.len() as u64 > most {
                complaint = Some(format!(
                    "reactor {reactor}: {} calls were made again, and {most} may be, of {} requests",
                    repeats.len(),
                    firsts.len()
                ));
            }
        }
        drop(pages);
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }
}
