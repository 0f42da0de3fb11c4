//! The promise that retries are there for, held to while nothing is well yet.
//!
//! > While one endpoint is steady and can be reached all the time, an idempotent call does not fail that has time
//! > enough, retries left in the budget, and no cap in its way.
//!
//! Is: when exactly that holds, and a quarter of the seeds drawn so that it does. Is not: what is promised when all is
//! well, to which [`probe`](super::requester::probe) holds any upstream.
//!
//! # Of the run
//! - Network and kernel are as they should be ([`Knobs::calm`]): lost dials are lost on the way to the steady one, too.
//! - An endpoint is steady: up all the time, with no trouble. It may close what was idle for long.
//! - Attempts suffice for one at each endpoint, and one for a connection that had been kept for too long. Such a
//!   connection is replaced once (`20-semantics.md`), so the promise is not for a call that meets two.
//! - No cap is in the way: of connections, of those who wait, of dials, of pools, for all requesters at a time. One may
//!   wait for a pool's connection for longer than others may hold one: who has waited for as long as one may is not
//!   tried again, by design.
//! - A reply may take as long as an act may: no idle deadline of the connection comes first.
//! - There is no drain.
//!
//! # Of a call
//! - It is idempotent, and has no time of its own but that in which a connection must be had, which is long.
//! - Nobody has answered it half: who has seen a byte of a reply is not asked again.
//! - The breaker has not opened in this run. It is the upstream's and not an endpoint's, so it refuses calls that would
//!   have been served.
//! - It is not the budget that ended it; unless that is [`GENEROUS`], and cannot have been used up.

use std::net::SocketAddr;
use std::time::Duration;

use slipring::failure::{Error, Kind, Retry};
use slipring::policy::backoff::Backoff;
use slipring::policy::budget::BudgetLimits;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring_core::Timeout;

use super::terms::{Deed, Temper, Terms};
use crate::dice::Dice;
use crate::knobs::Knobs;

/// Of a thousand seeds, so many are drawn for it.
const SHARE: u32 = 250;
/// As many connections as all requesters could ever have, on each reactor.
const PLENTY: u32 = 256;
/// Somebody else's connection of the same endpoint ends in this time, whatever comes of it.
const WAIT_MIN: Duration = Duration::from_secs(60);
/// What is noted of a call that was held to it, and of a retry, of which the network or whoever asked need not know.
pub(super) const MADE: &str = "promised";
pub(super) const RETRY: &str = "retries";
/// More than all requesters of a reactor can use up: 24 times 16 of them with four retries each, in less than a second.
pub(super) const GENEROUS: BudgetLimits =
    BudgetLimits { percent: 1_000, per_second: 8_192, window: Duration::from_secs(10) };

/// Makes these terms such, for some seeds. Whatever the others draw stays what it was.
pub(super) fn draw(terms: &mut Terms, knobs_are_given: bool) {
    let mut dice = Dice::new(terms.plan.seed ^ 0x7072_6f6d);
    if !dice.permille(SHARE) {
        return;
    }
    if !knobs_are_given {
        terms.plan.knobs = Knobs::calm();
        terms.slack_us = Terms::slack_us(&terms.plan.knobs);
    }
    terms.drains_us = None;
    terms.plan.timeouts.idle = Timeout::Never;
    terms.plan.limits.dialed_max = 4 * PLENTY;
    let troubled = dice.pick(&[0, 0, 200, 600]);
    let wanted = dice.between(2, 4) as usize;
    terms.endpoints.truncate(wanted);
    while terms.endpoints.len() < wanted {
        terms.endpoints.push((Terms::endpoint(terms.endpoints.len() as u64), terms.alone.1));
    }
    let steady = dice.below(wanted as u32) as usize;
    for (number, (_, temper)) in terms.endpoints.iter_mut().enumerate() {
        let is_steady = number == steady;
        *temper = Temper {
            is_steady,
            trouble: if is_steady { 0 } else { troubled },
            flaps_us: dice.log_between(100_000, 4_000_000),
            ..*temper
        };
    }
    if !terms.deeds.contains(&Deed::Call) {
        terms.deeds = vec![Deed::Call];
    }
    let limits = &mut terms.limits;
    limits.connections_max = 1_024;
    limits.pending_max = 1_024;
    limits.dials_max = PLENTY;
    limits.connect_within = Duration::from_secs(300);
    limits.breaker.is_enabled &= dice.permille(300);
    limits.retry.attempts_max = wanted as u32 + 1 + dice.below(2);
    limits.retry.budget = if dice.coin() { GENEROUS } else { BudgetLimits::default() };
    let min_idle = limits.pool.mode.min_idle().min(4);
    limits.pool = PoolLimits {
        mode: Mode::Dynamic { min_idle, max: PLENTY },
        dials_max: PLENTY,
        waiters_max: PLENTY,
        checkout_timeout: limits.pool.checkout_timeout.map(|_| WAIT_MIN),
        ..limits.pool
    };
    let first = limits.retry.backoff.first.min(Duration::from_millis(100));
    limits.retry.backoff = Backoff { first, most: first * 10, ..limits.retry.backoff };
}

/// Whether it holds in runs under these terms.
pub(super) fn holds(terms: &Terms) -> bool {
    let Terms { plan, limits, endpoints, .. } = terms;
    let all = terms.requesters.max(1);
    let is_steady = |temper: &Temper| temper.is_steady && temper.trouble == 0;
    let waits = |span: Option<Duration>| span.is_none_or(|span| span >= WAIT_MIN);
    plan.knobs == Knobs::calm()
        && plan.timeouts.idle == Timeout::Never
        && terms.drains_us.is_none()
        && endpoints.iter().any(|(_, temper)| is_steady(temper))
        && limits.retry.attempts_max as usize > endpoints.len()
        && waits(limits.pool.checkout_timeout)
        && waits(Some(limits.connect_within))
        && [limits.connections_max, plan.limits.dialed_max].iter().all(|max| *max >= 4 * PLENTY)
        && [limits.pending_max, limits.dials_max, limits.pool.waiters_max, limits.pool.dials_max]
            .iter()
            .all(|max| *max >= 2 * all)
        && limits.pool.mode.max() >= 2 * all + terms.unasked as u32
}

/// What a call has met that may end it, as whoever made it saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Met {
    /// Attempts that had a connection.
    pub(super) acts: u32,
    /// A byte of a reply.
    pub(super) has_heard: bool,
    /// Connections that had served before, and failed without a byte of a reply.
    pub(super) stale: u32,
    /// Whom the last attempt led to.
    pub(super) last: Option<SocketAddr>,
}

impl Met {
    /// Whether the call must not have failed like this, if it is idempotent and the promise holds in this run.
    pub(super) fn forbids(&self, error: &Error, terms: &Terms, has_opened: bool) -> bool {
        let is_out_of_budget = matches!(error.kind(), Kind::Retry(Retry::BudgetExhausted));
        let may_be = is_out_of_budget && terms.limits.retry.budget != GENEROUS;
        !self.has_heard && self.stale < 2 && !has_opened && !may_be
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::super::run_with;
    use super::*;
    use crate::swarm::Options;

    const SEEDS: u64 = 300;

    fn holding() -> Vec<u64> {
        (0..SEEDS).filter(|seed| holds(&Terms::new(*seed, None, &[]))).collect()
    }

    #[test]
    fn a_fifth_of_all_seeds_are_held_to_it_at_least() {
        let holding = holding().len() as u64;
        assert!(holding * 5 >= SEEDS, "{holding} of {SEEDS}");
    }

    /// A check that never applies is none.
    #[test]
    fn calls_are_held_to_it_and_some_were_in_need_of_it() {
        let options = Options { upstreams: true, ..Options::default() };
        let (mut made, mut tested) = (0, 0);
        for seed in holding().into_iter().take(30) {
            let ledger = Ledger::default();
            let outcome = run_with(seed, &options, &ledger);
            assert_eq!(outcome.failure, None, "seed {seed}");
            let of = |what: &str| ledger.open().came_to.get(what).copied().unwrap_or(0);
            made += of(MADE);
            tested += of(RETRY);
        }
        assert!(made >= 300 && tested >= 20, "{made} calls of 30 seeds, {tested} retries");
    }
}
