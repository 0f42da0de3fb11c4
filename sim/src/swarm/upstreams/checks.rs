//! What must hold of an upstream: after each step, at rest, and when it is gone.

use slipring::Census;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring_core::Timeout;

use super::Run;
use super::terms::{ENDPOINTS_MOST, Terms};
use crate::kernel::Dialed;

/// So late anybody may know of an end when all is well, microseconds.
const KNOWN_US: u64 = 2_000_000;

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
        self.check_lines();
        self.check_breaker();
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
        let Count { all: alone, connecting } = counts[ENDPOINTS_MOST];
        let most = terms.pool.mode.max() as usize;
        // Each reactor's side may have so many under way.
        let dials = terms.pool.dials_max as usize * terms.plan.reactors;
        if connecting > dials {
            return Some(format!("{connecting} dials of the pool, and {dials} allowed"));
        }
        (alone > most).then(|| format!("{alone} connections to the pool that may have {most}"))
    }

    /// No more wait than may.
    fn check_lines(&mut self) {
        let pages = self.ledger.open();
        let most = self.terms.limits.pending_max as usize;
        let mut complaint = (pages.pending > most)
            .then(|| format!("{} requests wait, and {most} may", pages.pending));
        // Who was given a connection and has not come for it waits no more.
        let most = (self.terms.pool.waiters_max + self.terms.pool.mode.max()) as usize;
        if let Some(waiting) = pages.of_pool.values().find(|waiting| **waiting > most) {
            complaint = Some(format!("{waiting} callers wait for the pool, and {most} may"));
        }
        drop(pages);
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }

    /// Nobody has asked for long: nobody has anything, and what is kept idle is as much as is to be.
    pub(super) fn check_idle(&mut self) {
        if self.engine.failure().is_some() {
            return;
        }
        let (terms, counts) = (self.terms, self.count(|_| true));
        // Of several reactors only those that have used it keep any.
        let is_free = terms.plan.reactors == 1
            && terms.plan.timeouts.idle == Timeout::Never
            && terms.plan.limits.dialed_max >= 256
            && !self.engine.kernel.borrow().is_any_dialed_ending();
        let pages = self.ledger.open();
        let keeps_own =
            is_free && terms.limits.connections_max >= 1_024 && !pages.firsts.is_empty();
        let is_used = pages.came_to.contains_key("Pool served");
        let keeps_pool = is_free && is_used && terms.pool_drains_us.is_none();
        drop(pages);
        let keeps_all = |limits: &PoolLimits| {
            limits.idle_timeout.is_none() || matches!(limits.mode, Mode::Fixed(_))
        };
        let mut complaint = None;
        for (number, count) in counts.iter().enumerate() {
            let is_alone = number == ENDPOINTS_MOST;
            let limits = if is_alone { &terms.pool } else { &terms.limits.pool };
            let unasked = if is_alone { 0 } else { terms.unasked };
            let least = limits.mode.min_idle() as usize;
            let most = least + unasked;
            let is_kept = if is_alone { keeps_pool } else { keeps_own };
            let temper = match is_alone {
                true => Some(&terms.alone.1),
                false => terms.endpoints.get(number).map(|(_, temper)| temper),
            };
            // Who closes what is idle has closed it just now, maybe.
            let is_there = temper.is_some_and(|temper| temper.idle_us.is_none());
            if is_kept && is_there && count.all < least {
                let all = count.all;
                complaint = Some(format!(
                    "endpoint {number} has {all} connections, and {least} are to be kept"
                ));
            }
            if !keeps_all(limits) && count.all > most {
                let all = count.all;
                complaint = Some(format!(
                    "endpoint {number} has {all} connections, idle for longer than {:?}, and {most} are to be kept",
                    limits.idle_timeout
                ));
            }
        }
        let kernel = self.engine.kernel.borrow();
        let pages = self.ledger.open();
        let ended = kernel.dialed().find_map(|dialed| {
            let ended_us = *pages.unfit_us.get(&dialed.from)?;
            (ended_us + KNOWN_US < kernel.now_us).then_some((dialed, ended_us))
        });
        if let Some((dialed, ended_us)) = ended {
            complaint = Some(format!("ended at {ended_us} us, and still kept: {dialed:?}"));
        }
        drop((kernel, pages));
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }

    /// Connections of the upstream, and of the pool that is alone; `None` while some come about or end.
    pub(super) fn open(&self) -> Option<[usize; 2]> {
        let counts = self.count(|_| true);
        let is_moving = counts.iter().any(|count| count.connecting > 0)
            || self.engine.kernel.borrow().is_any_dialed_ending();
        let of_upstream = counts[..ENDPOINTS_MOST].iter().map(|count| count.all).sum();
        (!is_moving).then_some([of_upstream, counts[ENDPOINTS_MOST].all])
    }

    /// Nobody asks for anything: nothing is under way, and what is counted is there.
    ///
    /// `before` is what was open when reactors were asked for what they count.
    pub(super) fn check_rest(&mut self, before: Option<[usize; 2]>) {
        if self.engine.failure().is_some() {
            return;
        }
        let snapshots = std::mem::take(&mut self.ledger.open().snapshots);
        let mut complaints = Vec::new();
        // The reactor whose connection was the last to end may have told before its task had seen that.
        let mut connections = u32::MAX;
        for (reactor, snapshot) in snapshots.into_iter().flatten().enumerate() {
            connections = connections.min(snapshot.connections.0);
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
        let unasked = self.terms.unasked * self.terms.endpoints.len();
        let held = self.pool.as_ref().map_or(0, |pool| pool.held());
        if let Some([open, alone]) = self.open().filter(|open| before == Some(*open)) {
            if !(open.saturating_sub(unasked)..=open).contains(&(connections as usize)) {
                complaints.push(format!("{connections} connections are counted, and {open} open"));
            }
            if held as usize != alone {
                complaints.push(format!("the pool holds {held} connections, and {alone} are open"));
            }
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
