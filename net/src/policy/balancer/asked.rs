//! One question to the balancer: the field as it stands at this moment, and who may be answered.
//!
//! Is: what all algorithms ask of a candidate: is it avoided, does it carry more than its share, does it start slowly.
//! Is not: an order of candidates; those are `draw`, `rotation` and `maglev`.

use std::time::Duration;

use super::BalancerLimits;
use super::draw::Draw;
use super::endpoints::Endpoints;
use super::field::Field;
use super::latency::{Latency, micros};

/// Nobody's number.
pub(super) const NOBODY: u32 = u32::MAX;
/// Draws until the field is walked, and turns that may be forfeited for one call. Of endpoints that all start with a
/// tenth of their weight, one in five calls comes to the end of it, and is none the worse for it.
pub(super) const PASSES_MAX: u32 = 16;
/// A whole weight, in parts.
pub(super) const WHOLE: u32 = 1024;

pub(super) struct Asked<'a> {
    pub(super) endpoints: &'a Endpoints,
    pub(super) field: &'a Field,
    limits: &'a BalancerLimits,
    now: Duration,
    avoid: &'a [u32],
    /// Someone may still start slowly.
    is_warming: bool,
    /// In hundredths: what the field may carry before one carries too much, next to `field.weight * 100`.
    bound: Option<u128>,
}

impl<'a> Asked<'a> {
    /// `None` if nobody takes calls.
    #[inline]
    pub(super) fn new(
        endpoints: &'a Endpoints,
        field: &'a Field,
        limits: &'a BalancerLimits,
        now: Duration,
        avoid: &'a [u32],
        has_bound: bool,
    ) -> Option<Self> {
        if field.members.is_empty() {
            return None;
        }
        // With the call in question.
        let bound = has_bound.then(|| {
            (u128::from(field.under_way(endpoints)) + 1) * u128::from(limits.bound_percent)
        });
        let is_warming = now < field.warm_at;
        Some(Self { endpoints, field, limits, now, avoid, is_warming, bound })
    }

    // --------------------------------------------------------------------------- what is asked of one

    #[inline]
    pub(super) fn is_avoided(&self, endpoint: u32) -> bool {
        self.avoid.contains(&endpoint)
    }

    /// It would carry more than the bound, with this call. Never said of all.
    #[inline]
    pub(super) fn is_over(&self, endpoint: u32) -> bool {
        let Some(bound) = self.bound else { return false };
        let carried = u128::from(self.endpoints.in_flight(endpoint));
        let weight = u128::from(self.endpoints.weight_or_none(endpoint));
        carried * u128::from(self.field.weight) * 100 >= bound * weight
    }

    /// How much of its weight it has, from 1 to `WHOLE` parts.
    #[inline]
    pub(super) fn parts(&self, endpoint: u32) -> u32 {
        if !self.is_warming {
            return WHOLE;
        }
        self.slow_parts(endpoint)
    }

    fn slow_parts(&self, endpoint: u32) -> u32 {
        let Some(since) = self.endpoints.up_since(endpoint) else { return WHOLE };
        let whole = micros(self.limits.slow_start);
        let up = micros(self.now.saturating_sub(since));
        if up >= whole {
            return WHOLE;
        }
        let least = u64::from(self.limits.slow_start_min_percent) * u64::from(WHOLE) / 100;
        let gained = u128::from(u64::from(WHOLE) - least) * u128::from(up) / u128::from(whole);
        (least + gained as u64).max(1) as u32
    }

    // --------------------------------------------------------------------------- drawing

    /// One drawn by weight, other than `except`; `None` if there is nobody.
    #[inline]
    pub(super) fn draw(&self, draw: &Draw, except: u32, rng: &mut fastrand::Rng) -> Option<u32> {
        // The other one of two: no draw is needed, and with a light one beside a heavy one, many would be.
        if except == NOBODY || self.field.members.len() > 2 {
            for _ in 0..PASSES_MAX {
                let endpoint = draw.one(rng)?;
                if endpoint == except || self.is_avoided(endpoint) || self.is_over(endpoint) {
                    continue;
                }
                let parts = self.parts(endpoint);
                if parts == WHOLE || rng.u32(..WHOLE) < parts {
                    return Some(endpoint);
                }
            }
        }
        self.walk(rng.usize(..self.field.members.len()), except)
    }

    /// The first from a place of the field on that will do; rather one that does not carry too much.
    #[cold]
    pub(super) fn walk(&self, start: usize, except: u32) -> Option<u32> {
        let (before, after) = self.field.members.split_at(start.min(self.field.members.len()));
        let members = after.iter().chain(before).map(|member| member.endpoint);
        let mut will_do = members.filter(|it| *it != except && !self.is_avoided(*it));
        let first = will_do.next()?;
        if !self.is_over(first) {
            return Some(first);
        }
        Some(will_do.find(|endpoint| !self.is_over(*endpoint)).unwrap_or(first))
    }

    // --------------------------------------------------------------------------- comparing two

    /// `one` has less in flight for its weight than `other`.
    #[inline]
    pub(super) fn is_freer(&self, one: u32, other: u32) -> bool {
        let calls = [one, other].map(|endpoint| self.endpoints.in_flight(endpoint));
        if calls == [0, 0] {
            return false;
        }
        let [weight, other_weight] = [one, other].map(|endpoint| self.weight(endpoint));
        (calls[0] + 1) * other_weight < (calls[1] + 1) * weight
    }

    /// `one` is expected to take less time for its weight than `other`.
    #[inline]
    pub(super) fn is_cheaper(&self, one: u32, other: u32) -> bool {
        let (now_us, decay_us) = (micros(self.now), micros(self.limits.decay));
        let latency = |endpoint: u32, calls: u64| {
            let latency = self.endpoints.known_latency(endpoint);
            match calls {
                _ if latency.is_known() => latency,
                0 => Latency::of(0.0, now_us),
                _ => Latency::of(micros(self.limits.failure) as f64, now_us),
            }
        };
        let calls = [one, other].map(|endpoint| self.endpoints.in_flight(endpoint));
        let (latency, other_latency) = (latency(one, calls[0]), latency(other, calls[1]));
        let (mut factor, mut other_factor) = (1.0, 1.0);
        if calls != [0, 0] {
            factor = (calls[0] + 1) as f64 * self.weight(other) as f64;
            other_factor = (calls[1] + 1) as f64 * self.weight(one) as f64;
        }
        latency.is_less(factor, other_latency, other_factor, now_us, decay_us)
    }

    /// As it is at this moment.
    #[inline]
    fn weight(&self, endpoint: u32) -> u64 {
        u64::from(self.endpoints.weight_or_none(endpoint)) * u64::from(self.parts(endpoint))
    }
}
