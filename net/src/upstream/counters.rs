//! How often what has happened to the requests of an upstream.
//!
//! Is: plain numbers of one reactor, written by it alone, and their sums. Is not: how things stand, which is the
//! [`snapshot`](super::UpstreamSnapshot), nor what its pools did: those count for themselves
//! ([`PoolCounters`](crate::policy::pool::PoolCounters)).
//!
//! A reactor tells the others what it has counted when it tells them the rest, each 100 ms: so a call writes to memory
//! of its own reactor only, and a sum may be wrong by what happened elsewhere since.

use crate::failure::{self, Error, Kind};
use crate::policy::breaker::Change;
use crate::policy::retry::Why;

/// How often what has happened, since the upstream was made. Each counter only ever grows.
///
/// `requests` are all that were let in: those that `succeeded`, those that `failed`, those under way, and those whose
/// futures were dropped. `attempts + refused_by_breaker + without_endpoint` are all tries of them, and
/// `retries` those of these that were not the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpstreamCounters {
    /// Connects, checkouts and calls that were begun.
    pub requests: u64,
    /// Those of them that got what they wanted: a connection, or what a call's `act` returned.
    pub succeeded: u64,
    /// Those that ended with an error.
    pub failed: u64,
    /// Those refused before they were begun, since as many waited as may
    /// ([`pending_max`](super::UpstreamLimits::pending_max)). They are no `requests`.
    pub refused_pending: u64,
    /// Tries for which an endpoint was chosen.
    pub attempts: u64,
    /// Tries that the breaker refused.
    pub refused_by_breaker: u64,
    /// Tries for which there was no endpoint.
    pub without_endpoint: u64,
    /// Tries that followed a failed one. The budget has paid for each.
    pub retries: u64,
    /// Requests that failed and were not tried again, since the budget was empty
    /// ([`BudgetLimits`](crate::policy::budget::BudgetLimits)).
    pub out_of_budget: u64,
    /// The same, since as many attempts were made as may
    /// ([`attempts_max`](crate::policy::retry::RetryPolicy::attempts_max)).
    pub out_of_attempts: u64,
    /// The same, since their time was up, be it that of a pool's checkout, or would have been when the next attempt
    /// could begin.
    pub out_of_time: u64,
    /// Endpoints that were left alone from then on, since calls or dials failed.
    pub ejections: u64,
    /// Those of them that could be reached again, and were back before their time.
    pub returns: u64,
    /// The breaker opened, or opened again.
    pub breaker_opened: u64,
    /// The breaker closed.
    pub breaker_closed: u64,
}

impl UpstreamCounters {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            refused_pending: self.refused_pending + other.refused_pending,
            attempts: self.attempts + other.attempts,
            refused_by_breaker: self.refused_by_breaker + other.refused_by_breaker,
            without_endpoint: self.without_endpoint + other.without_endpoint,
            retries: self.retries + other.retries,
            out_of_budget: self.out_of_budget + other.out_of_budget,
            out_of_attempts: self.out_of_attempts + other.out_of_attempts,
            out_of_time: self.out_of_time + other.out_of_time,
            ejections: self.ejections + other.ejections,
            returns: self.returns + other.returns,
            breaker_opened: self.breaker_opened + other.breaker_opened,
            breaker_closed: self.breaker_closed + other.breaker_closed,
        }
    }

    /// A try for which nobody was chosen.
    pub(super) fn note_nobody(&mut self, error: &Error) {
        match error.kind() {
            Kind::Breaker(failure::Breaker::Open { .. }) => self.refused_by_breaker += 1,
            _ => self.without_endpoint += 1,
        }
    }

    /// A request has failed, and is not tried again.
    pub(super) fn note_end(&mut self, why: Why) {
        self.failed += 1;
        match why {
            Why::Budget => self.out_of_budget += 1,
            Why::Attempts => self.out_of_attempts += 1,
            Why::Deadline | Why::Waited => self.out_of_time += 1,
            Why::Verdict(_) => {}
        }
    }

    /// A request's time was up while it waited: for where the names lead, or, if it was tried, for its connection.
    pub(super) fn note_time_up(&mut self, is_tried: bool) {
        self.requests += u64::from(!is_tried);
        self.note_end(Why::Deadline);
    }

    pub(super) fn note_breaker(&mut self, change: Change) {
        match change {
            Change::Opened { .. } => self.breaker_opened += 1,
            Change::Closed => self.breaker_closed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::failure::Never;

    #[test]
    fn each_end_is_counted_once_and_by_its_reason() {
        let mut counters = UpstreamCounters::default();
        for why in [Why::Budget, Why::Attempts, Why::Deadline, Why::Verdict(Never::Final)] {
            counters.note_end(why);
        }
        let expected = UpstreamCounters {
            failed: 4,
            out_of_budget: 1,
            out_of_attempts: 1,
            out_of_time: 1,
            ..UpstreamCounters::default()
        };
        assert_eq!(counters, expected);
    }

    #[test]
    fn a_breaker_that_is_open_is_not_a_lack_of_endpoints() {
        let mut counters = UpstreamCounters::default();
        counters.note_nobody(&Error::new(failure::Breaker::Open { until: Duration::ZERO }));
        counters.note_nobody(&Error::new(failure::Upstream::Empty));
        counters.note_nobody(&Error::new(failure::Upstream::NoneHealthy { endpoints: 3 }));
        assert_eq!((counters.refused_by_breaker, counters.without_endpoint), (1, 2));
        counters.note_breaker(Change::Opened { until: Duration::MAX, openings: 2 });
        counters.note_breaker(Change::Closed);
        assert_eq!((counters.breaker_opened, counters.breaker_closed), (1, 1));
    }

    #[test]
    fn a_sum_forgets_no_counter() {
        // Another number in each: one that is forgotten, or added to another, is seen.
        let one = UpstreamCounters {
            requests: 1,
            succeeded: 2,
            failed: 3,
            refused_pending: 4,
            attempts: 5,
            refused_by_breaker: 6,
            without_endpoint: 7,
            retries: 8,
            out_of_budget: 9,
            out_of_attempts: 10,
            out_of_time: 11,
            ejections: 12,
            returns: 13,
            breaker_opened: 14,
            breaker_closed: 15,
        };
        let twice = UpstreamCounters {
            requests: 2,
            succeeded: 4,
            failed: 6,
            refused_pending: 8,
            attempts: 10,
            refused_by_breaker: 12,
            without_endpoint: 14,
            retries: 16,
            out_of_budget: 18,
            out_of_attempts: 20,
            out_of_time: 22,
            ejections: 24,
            returns: 26,
            breaker_opened: 28,
            breaker_closed: 30,
        };
        assert_eq!(one.plus(one), twice);
        assert_eq!(one.plus(UpstreamCounters::default()), one);
    }
}
