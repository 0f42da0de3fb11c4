//! What must hold of an upstream: after each step, at rest, and when it is gone.

use slipring::Census;
use slipring::policy::breaker::Standing;

use super::Run;
use super::terms::{ENDPOINTS_MOST, Terms};
use crate::kernel::Dialed;

/// What is remembered from step to step.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when the breaker is half-open.
    half_open_us: Option<u64>,
    /// Since when it is open.
    open_us: Option<u64>,
}

/// By the number of the endpoint, and last the pool that is alone.
type Counts = [Count; ENDPOINTS_MOST + 1];

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
        let late = self.ledger.open().find_late(now_us);
        if let Some((due_us, who)) = late
            && !self.engine.is_over()
        {
            self.engine
                .fail(format!("{who}: no answer at {now_us} us, and it was due at {due_us} us"));
        }
    }

    fn count(&self, is_counted: impl Fn(&Dialed) -> bool) -> Counts {
        let mut counts = Counts::default();
        let kernel = self.engine.kernel.borrow();
        for dialed in kernel.dialed().filter(is_counted) {
            let count = &mut counts[Terms::number_of(dialed.to)];
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

    fn find_too_many(&self, counts: &Counts) -> Option<String> {
        let (terms, limits) = (self.terms, &self.terms.limits);
        let all: usize = counts[..ENDPOINTS_MOST].iter().map(|count| count.all).sum();
        let unasked = terms.unasked * terms.endpoints.len();
        if all > limits.connections_max as usize + unasked {
            return Some(format!("{all} connections, and {} allowed", limits.connections_max));
        }
        for ((at, _), count) in terms.endpoints.iter().zip(counts) {
            let Count { all, connecting } = *count;
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
        let alone = counts[ENDPOINTS_MOST].all;
        let most = terms.pool.mode.max() as usize;
        (alone > most).then(|| format!("{alone} connections to the pool that may have {most}"))
    }

    /// Open, no call is under way that began since; half-open, as many as there are permits.
    fn check_permits(&mut self) {
        let Some(upstream) = &self.upstream else { return };
        let (standing, now_us) = (upstream.breaker(), self.engine.now_us());
        let Watch { half_open_us, open_us } = &mut self.watch;
        if !matches!(standing, Standing::HalfOpen { .. }) {
            *half_open_us = None;
        }
        if !matches!(standing, Standing::Open { .. }) {
            *open_us = None;
        }
        let (since_us, most) = match standing {
            Standing::Closed => return,
            // In the turn in which it opened, others may have begun before.
            Standing::Open { .. } => (*open_us.get_or_insert(now_us) + 1, 0),
            Standing::HalfOpen { .. } if !self.terms.are_permits_kept => return,
            Standing::HalfOpen { .. } => {
                (*half_open_us.get_or_insert(now_us), self.terms.limits.breaker.permits)
            }
        };
        let pages = self.ledger.open();
        let acts = pages.requests.iter().filter_map(|request| request.acts_since_us);
        let calls = acts.filter(|began_us| (since_us..u64::MAX).contains(began_us)).count();
        drop(pages);
        if calls > most as usize {
            self.engine.fail(format!(
                "{calls} calls have passed a breaker that lets {most} pass: {standing:?}"
            ));
        }
    }

    /// Nobody asks, so nobody has a permit of the breaker's.
    pub(super) fn check_no_permit_is_out(&mut self) {
        let standing = self.upstream.as_ref().map(|upstream| upstream.breaker());
        if let Some(Standing::HalfOpen { permits: 1.., .. }) = standing
            && self.terms.are_permits_kept
        {
            self.engine
                .fail(format!("nobody asks, and permits of the breaker are out: {standing:?}"));
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
        let open = counts[..ENDPOINTS_MOST].iter().map(|count| count.all);
        let (open, unasked) =
            (open.sum::<usize>(), self.terms.unasked * self.terms.endpoints.len());
        let is_moving = counts.iter().any(|count| count.connecting > 0)
            || self.engine.kernel.borrow().is_any_dialed_ending();
        if !is_moving && !(open.saturating_sub(unasked)..=open).contains(&(connections as usize)) {
            complaints.push(format!("{connections} connections are counted, and {open} open"));
        }
        let alone = counts[ENDPOINTS_MOST].all;
        let held = self.pool.as_ref().map_or(0, |pool| pool.held());
        if !is_moving && held as usize != alone {
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
}
