//! Who takes calls: tiers, and what is done when too few are up. `balancer.rs` says the rules.
//!
//! Is: what follows from the table, until it changes. Is not: anything that changes by the call.

use std::time::Duration;

use super::BalancerLimits;
use super::endpoints::{Availability, Endpoints};

const TIERS: usize = 1 << u8::BITS;

/// One that takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) endpoint: u32,
    pub(super) weight: u32,
    pub(super) identity: u64,
}

/// Those that take calls.
#[derive(Debug, Default)]
pub(super) struct Field {
    pub(super) members: Vec<Member>,
    /// Of all of them.
    pub(super) weight: u64,
    /// The tiers they are of.
    tiers: Vec<u8>,
    /// Too few are up: all of these tiers take calls, but for those that drain.
    pub(super) is_desperate: bool,
    /// From then on nobody starts slowly any more.
    pub(super) warm_at: Duration,
}

impl Field {
    pub(super) fn of(endpoints: &Endpoints, limits: &BalancerLimits) -> Self {
        let mut weights = [Weights::default(); TIERS];
        for (_, endpoint) in endpoints.iter() {
            weights[usize::from(endpoint.tier)].add(endpoint.weight, endpoint.availability);
        }
        let (tiers, is_desperate) = join(&weights, limits.healthy_min_percent);

        let mut field = Self { tiers, is_desperate, ..Self::default() };
        for (number, endpoint) in endpoints.iter() {
            let takes_calls = match endpoint.availability {
                Availability::Up => true,
                Availability::Ejected | Availability::Down => is_desperate,
                Availability::Draining => false,
            };
            if !takes_calls || !field.tiers.contains(&endpoint.tier) {
                continue;
            }
            let (weight, identity) = (endpoint.weight, endpoint.identity);
            field.members.push(Member { endpoint: number, weight, identity });
            field.weight += u64::from(weight);
            if let Some(since) = endpoint.up_since {
                field.warm_at = field.warm_at.max(since.saturating_add(limits.slow_start));
            }
        }
        field
    }

    /// The same endpoints, with the same weights, under the same numbers.
    pub(super) fn is_of_the_same(&self, other: &Self) -> bool {
        self.members == other.members
    }

    /// Calls under way on all of them.
    pub(super) fn under_way(&self, endpoints: &Endpoints) -> u64 {
        let of = |availability| {
            let calls = self.tiers.iter().map(move |tier| endpoints.under_way(*tier, availability));
            calls.sum::<u64>()
        };
        let up = of(Availability::Up);
        if !self.is_desperate {
            return up;
        }
        up + of(Availability::Ejected) + of(Availability::Down)
    }
}

/// A tier's weights, of those that do not drain.
#[derive(Clone, Copy, Default)]
struct Weights {
    all: u64,
    up: u64,
}

impl Weights {
    fn add(&mut self, weight: u32, availability: Availability) {
        if availability != Availability::Draining {
            self.all += u64::from(weight);
        }
        if availability == Availability::Up {
            self.up += u64::from(weight);
        }
    }
}

/// Which tiers take calls, and whether all of them has to.
fn join(weights: &[Weights], healthy_min_percent: u32) -> (Vec<u8>, bool) {
    let mut joined = Vec::new();
    for (tier, Weights { all, up }) in (0u8..=u8::MAX).zip(weights) {
        if *up == 0 {
            continue;
        }
        joined.push(tier);
        if up * 100 >= all * u64::from(healthy_min_percent) {
            return (joined, false);
        }
    }
    if joined.is_empty() && healthy_min_percent > 0 {
        let lowest = (0u8..=u8::MAX).zip(weights).find(|(_, weights)| weights.all > 0);
        joined.extend(lowest.map(|(tier, _)| tier));
    }
    let is_desperate = !joined.is_empty();
    (joined, is_desperate)
}
