//! What requests may cost an upstream: attempts, held to the budget of retries.
//!
//! | by | seen | may be |
//! |---|---|---|
//! | each reactor | calls that had a connection a second time | its share of the budget |
//! | what the upstream counts | each retry that it granted, and each try beyond a request's first | the budget |
//! | the network, if each request of the run is a connect | dials | the requests, and the budget |
//!
//! The share of the first attempts is exact: a retry is paid for by first attempts before it, and none of them pays
//! twice, since the retries that it has paid for are forgotten after it. Of the constant part it is not known where one
//! window ends: there may be as many as lie between the first retry and the last, and one more.

use std::net::SocketAddr;

use slipring::upstream::UpstreamCounters;

use super::terms::{Deed, ENDPOINTS_MOST, Terms};
use super::{Run, promise};

/// What requests have come to.
#[derive(Debug)]
pub(super) struct Spent {
    /// By the upstream.
    counted: UpstreamCounters,
    /// Those that were made, and when the last of them.
    requests: u64,
    last_us: u64,
    /// Calls that had a connection once more.
    repeats: u64,
    /// By the network.
    dials: u64,
}

impl Run<'_> {
    /// Notes what was spent, once: what is asked from then on is not looked at.
    pub(super) fn note_spent(&mut self) {
        let (Some(upstream), None) = (&self.upstream, &self.spent) else { return };
        let counted = upstream.counters();
        let mut pages = self.ledger.open();
        pages.came_to.insert(promise::RETRY.to_owned(), counted.retries);
        let is_of_it = |to: SocketAddr| Terms::number_of(to) < ENDPOINTS_MOST;
        let kernel = self.engine.kernel.borrow();
        let dials = kernel.dials.iter().filter(|(to, _)| is_of_it(**to)).map(|(_, dials)| dials);
        self.spent = Some(Spent {
            counted,
            requests: pages.firsts.len() as u64,
            last_us: pages.firsts.last().map_or(0, |(last_us, _)| *last_us),
            repeats: pages.repeats.len() as u64,
            dials: dials.sum(),
        });
    }

    pub(super) fn check_budget(&mut self) {
        let complaint = self.find_overspent_reactor().or_else(|| self.find_overspent());
        if let Some(complaint) = complaint {
            self.engine.fail(complaint);
        }
    }

    /// Retries of a window that no first attempts pay for, over all reactors.
    fn constant(&self) -> u64 {
        let budget = self.terms.limits.retry.budget;
        u64::from(budget.per_second) * budget.window.as_micros() as u64 / 1_000_000
    }

    /// Nine tenths of a window at least are looked back on.
    fn window_us(&self) -> u64 {
        (self.terms.limits.retry.budget.window.as_micros() as u64 * 9 / 10).max(1)
    }

    /// Of each reactor, by what requesters have seen.
    fn find_overspent_reactor(&self) -> Option<String> {
        let (constant, window_us) = (self.constant(), self.window_us());
        let percent = u64::from(self.terms.limits.retry.budget.percent);
        let pages = self.ledger.open();
        let reactors = self.terms.plan.reactors as u64;
        (0..self.terms.plan.reactors).find_map(|reactor| {
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
                    until_us = at_us.saturating_sub(window_us);
                }
            }
            // A repeat may be made long after it was granted, in another window.
            let most = firsts.len() as u64 * percent / 100 + own * (windows + 1);
            (repeats.len() as u64 > most).then(|| {
                format!(
                    "reactor {reactor}: {} calls were made again, and {most} may be, of {} requests",
                    repeats.len(),
                    firsts.len()
                )
            })
        })
    }

    /// Of all together: with the 20 % of the default, no more than 1.2 attempts a request, and the constant part.
    fn find_overspent(&self) -> Option<String> {
        let Spent { counted, requests, last_us, repeats, dials } = *self.spent.as_ref()?;
        let limits = &self.terms.limits;
        let span_us = last_us + limits.connect_within.as_micros() as u64;
        let earned = requests * u64::from(limits.retry.budget.percent) / 100;
        let most = earned + self.constant() * (span_us / self.window_us() + 1);
        let tries = counted.attempts + counted.refused_by_breaker + counted.without_endpoint;
        let again = tries.saturating_sub(counted.requests);
        // A drain may take some along that had not begun.
        let begun = counted.requests + counted.refused_pending;
        if begun > requests || (begun < requests && self.terms.drains_us.is_none()) {
            return Some(format!(
                "{requests} requests were made, and {begun} counted: {counted:?}"
            ));
        }
        if self.terms.is_quiet() && counted.ejections > 0 {
            return Some(format!(
                "nothing has gone wrong, and endpoints were left alone: {counted:?}"
            ));
        }
        if again.max(repeats) > counted.retries {
            return Some(format!(
                "tried {again} times again, {repeats} times on a connection, and {counted:?}"
            ));
        }
        if counted.retries > most {
            return Some(format!(
                "{} retries, and {most} may be, of {requests} requests",
                counted.retries
            ));
        }
        // What pools keep idle they dial, though nobody asks them.
        let is_all_connects = self.terms.deeds == [Deed::Connect]
            && self.terms.unasked == 0
            && limits.pool.mode.min_idle() == 0;
        (is_all_connects && dials > requests + most)
            .then(|| format!("{dials} dials of {requests} connects, and {most} retries may be"))
    }
}
