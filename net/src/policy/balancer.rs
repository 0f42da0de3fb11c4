//! Which endpoint gets the next call.
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring::policy::balancer::{
//!     Algorithm, Balancer, BalancerLimits, Endpoint, Endpoints, Wish,
//! };
//!
//! let mut endpoints = Endpoints::new();
//! for identity in [0xa, 0xb, 0xc] {
//!     endpoints.insert(Endpoint::new(identity))?;
//! }
//! let mut balancer = Balancer::new(Algorithm::LeastOfTwo, BalancerLimits::default());
//! let mut rng = fastrand::Rng::with_seed(1);
//!
//! let now = Duration::ZERO;
//! let first = balancer.pick(&endpoints, now, &mut rng, Wish::default()).expect("all are up");
//! endpoints.began(first.endpoint);
//! // The call failed. Its first retry goes elsewhere.
//! endpoints.ended(first.endpoint);
//! let wish = Wish { avoid: &[first.endpoint], ..Wish::default() };
//! let second = balancer.pick(&endpoints, now, &mut rng, wish).expect("two are left");
//! assert_ne!(second.endpoint, first.endpoint);
//! # Ok::<(), slipring::policy::balancer::EndpointsError>(())
//! ```
//!
//! ```text
//!   Endpoints (one table a reactor) --rebuild--> Field: who takes calls --+--> Draw      least of two, random, ewma
//!      weight, tier, availability                tiers, panic             +--> Rotation  round robin
//!      in flight, latency ----------------------- read at each pick ----> +--> Maglev    by a hash
//! ```
//!
//! Is: a choice. Is not: what finds out who is up (`health`, `outlier`), nor what retries (`retry`). Is not exact
//! across reactors: what others have in flight is as old as the last snapshot.
//!
//! *Tiers.* Calls go to the lowest tier that has an endpoint up. If less than half of it is up (by weight, Draining
//! ones apart), the next tier that has one up joins it as an equal, and so on, until half of some tier that joined is
//! up. By weight, because what is at stake is what is left to carry the load, and weights say that.
//!
//! *Panic.* If no tier that has joined is half up, all of them is used, but for Draining ones, and
//! [`Pick::is_desperate`]: the few that are up could not carry what all did, and where nearly all fail, it is as likely
//! that who judges them is mistaken. If nothing is up at all, it is the lowest tier there is.
//!
//! *Avoided* endpoints are never picked: `None` if nothing else takes calls. It does not go to a higher tier for that.
//!
//! *Weights* are kept by drawing, so that idle endpoints get their share of calls that come one by one. Of two that
//! were drawn, the one with less `(in flight + 1) / weight` is taken, which is Envoy's active request bias of 1. If
//! both are idle there is nothing to tell them apart but the draw: the first.
//!
//! *Slow start.* An endpoint that came up late has a tenth of its weight at first, and all of it after 30 s. A draw of
//! it, a turn of the rotation, a key of Maglev's that falls to it is passed on as often as that takes, and its weight
//! is the smaller one where weights are compared. Where all are new, none is spared: after a few who were passed over,
//! the next is taken.
//!
//! *Ewma.* The cost of an endpoint is its latency times (in flight + 1). The latency follows a higher one at once, and
//! goes down with `exp(-dt / 10 s)`, also while nothing is heard of it: so one that was slow is tried again some day. A
//! failure counts as at least the connect timeout, so one that fails fast attracts nothing. One that nobody has heard
//! of yet costs nothing while it is idle, and as a failure would once something is under way.
//!
//! *Cost.* No pick allocates, unless the table has changed since: then it calls `rebuild` itself, which had better been
//! called when the change was made. All but round robin, which keeps a heap, take the same time whatever the number of
//! endpoints; only if a dozen draws found nobody, the field is walked.

use std::time::Duration;

use super::outcome::Outcome;

mod asked;
mod draw;
mod endpoints;
mod field;
mod latency;
mod maglev;
mod rotation;

pub use endpoints::{Availability, Endpoint, Endpoints, EndpointsError};

use asked::{Asked, NOBODY};
use draw::Draw;
use field::Field;
use latency::micros;
use maglev::{Maglev, mix};
use rotation::Rotation;

/// How one is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Two are drawn by weight; the one with less in flight for its weight. The default.
    #[default]
    LeastOfTwo,
    /// In turn: each as often in a cycle as its weight says, and spread over the cycle.
    RoundRobin,
    /// Drawn by weight.
    Random,
    /// Two are drawn by weight; the one whose latency times (in flight + 1) is less for its weight.
    Ewma,
    /// By [`Wish::hash`]: equal hashes go to the same endpoint, and few of them elsewhere when endpoints come and go.
    /// Without a hash as `Random`.
    Maglev,
}

/// Whom the bounded load holds back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Bounds {
    /// Nobody.
    Never,
    /// Those chosen by a hash ([`Algorithm::Maglev`]). The default: the others spread the load themselves.
    #[default]
    Hashed,
    /// Those chosen by any algorithm.
    All,
}

/// What a balancer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancerLimits {
    /// Whom the bounded load holds back. Default: [`Bounds::Hashed`].
    pub bounds: Bounds,
    /// Percent of the mean number of calls in flight, by weight, from which an endpoint is passed over. From 100 to
    /// 10000. Default 125 (Mirrokni, Thorup, Zadimoghaddam, and HAProxy's example).
    pub bound_percent: u32,
    /// Percent of a tier, by weight, that has to be up. Below, the next tier joins; with no tier left, all endpoints
    /// are used. From 0, which is never, to 100. Default 50 (Envoy's panic threshold).
    pub healthy_min_percent: u32,
    /// How long an endpoint that came up late has less than its weight. Zero: never. Default 30 s †.
    pub slow_start: Duration,
    /// Percent of its weight that it starts with. From 1 to 100. Default 10 (Envoy).
    pub slow_start_min_percent: u32,
    /// Time in which what is known of a latency fades to 37 %. More than zero. Default 10 s (Finagle).
    pub decay: Duration,
    /// What a failure counts for in a latency at least: the timeout of a connect, more than zero. Default 3 s (Sozu).
    pub failure: Duration,
    /// What hashes are mixed with. All that shall send equal hashes to the same endpoint need the same. Default 0.
    pub seed: u64,
}

impl Default for BalancerLimits {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            bound_percent: 125,
            healthy_min_percent: 50,
            slow_start: Duration::from_secs(30),
            slow_start_min_percent: 10,
            decay: Duration::from_secs(10),
            failure: Duration::from_secs(3),
            seed: 0,
        }
    }
}

/// Why limits of a balancer are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalancerLimitsError {
    /// With less than the mean, there may be nobody below it.
    #[error("a bounded load of {percent} % of the mean; say from 100 to 10000, or `Bounds::Never`")]
    Bound {
        /// The percentage given.
        percent: u32,
    },
    /// More than all of a tier.
    #[error("{percent} % of a tier have to be up; say from 0 to 100")]
    Healthy {
        /// The percentage given.
        percent: u32,
    },
    /// Without any weight, it would never start.
    #[error(
        "slow start from {percent} % of the weight; say from 1 to 100, or a `slow_start` of zero to have none"
    )]
    SlowStart {
        /// The percentage given.
        percent: u32,
    },
    /// All is forgotten at once.
    #[error("latencies that fade in no time; say a `decay` of more than zero, 10 s as a rule")]
    Decay,
    /// Who fails fast would attract all calls.
    #[error(
        "a failure that counts as no latency; say a `failure` of more than zero, the connect timeout as a rule"
    )]
    Failure,
}

impl BalancerLimits {
    /// Whether they make sense. A balancer takes those that do not for the nearest that do.
    ///
    /// # Errors
    /// [`BalancerLimitsError`], for the first that does not.
    pub fn check(&self) -> Result<(), BalancerLimitsError> {
        if !(100..=10_000).contains(&self.bound_percent) {
            return Err(BalancerLimitsError::Bound { percent: self.bound_percent });
        }
        if self.healthy_min_percent > 100 {
            return Err(BalancerLimitsError::Healthy { percent: self.healthy_min_percent });
        }
        if !(1..=100).contains(&self.slow_start_min_percent) {
            return Err(BalancerLimitsError::SlowStart { percent: self.slow_start_min_percent });
        }
        if self.decay.is_zero() {
            return Err(BalancerLimitsError::Decay);
        }
        if self.failure.is_zero() {
            return Err(BalancerLimitsError::Failure);
        }
        Ok(())
    }

    fn clamped(self) -> Self {
        Self {
            bound_percent: self.bound_percent.clamp(100, 10_000),
            healthy_min_percent: self.healthy_min_percent.min(100),
            slow_start_min_percent: self.slow_start_min_percent.clamp(1, 100),
            decay: self.decay.max(Duration::from_micros(1)),
            failure: self.failure.max(Duration::from_micros(1)),
            ..self
        }
    }
}

/// What a call asks of the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// What [`Algorithm::Maglev`] goes by: of a session, a key, a client's address. Any 64 bits, they are mixed.
    pub hash: Option<u64>,
    /// Endpoints that are not to be picked, those tried already. A few: each is compared with each candidate.
    pub avoid: &'a [u32],
}

/// Who gets the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its number in the table.
    pub endpoint: u32,
    /// Too few are up, so that all are used: this one may not be up.
    pub is_desperate: bool,
}

/// One reactor's choice among the endpoints of an upstream.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    limits: BalancerLimits,
    /// The number of changes that the table had had when the field was last made.
    seen: Option<u64>,
    field: Field,
    order: Order,
    /// The latest time that it was told.
    latest: Duration,
}

/// What an algorithm keeps.
#[derive(Debug)]
enum Order {
    Draw(Draw),
    Rotation(Rotation),
    Maglev(Maglev),
}

impl Balancer {
    /// Of endpoints that it will be shown.
    #[must_use]
    pub fn new(algorithm: Algorithm, limits: BalancerLimits) -> Self {
        let field = Field::default();
        let limits = limits.clamped();
        let order = Order::new(algorithm, &field, limits.seed);
        Self { algorithm, limits, seen: None, field, order, latest: Duration::ZERO }
    }

    /// To be called after endpoints came or went, or a weight, a tier or an availability changed. Takes time in
    /// proportion to the number of endpoints, and for Maglev some milliseconds if it is others than before that take
    /// calls.
    pub fn rebuild(&mut self, endpoints: &Endpoints) {
        let field = Field::of(endpoints, &self.limits);
        if self.seen.is_none() || !field.is_of_the_same(&self.field) {
            self.order = Order::new(self.algorithm, &field, self.limits.seed);
        }
        self.field = field;
        self.seen = Some(endpoints.changes());
    }

    /// Who gets the next call; `None` if nobody takes calls who is not to be avoided. It is not counted as under way:
    /// [`Endpoints::began`] does that, once the call goes there indeed.
    pub fn pick(
        &mut self,
        endpoints: &Endpoints,
        now: Duration,
        rng: &mut fastrand::Rng,
        wish: Wish<'_>,
    ) -> Option<Pick> {
        if self.seen != Some(endpoints.changes()) {
            self.rebuild(endpoints);
        }
        self.latest = self.latest.max(now);
        let has_bound = match self.limits.bounds {
            Bounds::Never => false,
            Bounds::Hashed => self.algorithm == Algorithm::Maglev,
            Bounds::All => true,
        };
        let limits = &self.limits;
        let asked = Asked::new(endpoints, &self.field, limits, self.latest, wish.avoid, has_bound)?;
        let endpoint = match &mut self.order {
            Order::Rotation(rotation) => rotation.next(&asked, rng),
            Order::Maglev(maglev) => {
                let hash = wish.hash.map_or_else(|| rng.u64(..), |hash| mix(hash ^ limits.seed));
                maglev.pick(&asked, hash)
            }
            Order::Draw(draw) => match self.algorithm {
                Algorithm::Ewma => {
                    Self::better(&asked, draw, rng, |first, second| asked.is_cheaper(second, first))
                }
                Algorithm::LeastOfTwo => {
                    Self::better(&asked, draw, rng, |first, second| asked.is_freer(second, first))
                }
                _ => asked.draw(draw, NOBODY, rng),
            },
        }?;
        Some(Pick { endpoint, is_desperate: self.field.is_desperate })
    }

    /// Of two that are drawn, the second if `is_second` says so.
    #[inline]
    fn better(
        asked: &Asked<'_>,
        draw: &Draw,
        rng: &mut fastrand::Rng,
        is_second: impl Fn(u32, u32) -> bool,
    ) -> Option<u32> {
        let first = asked.draw(draw, NOBODY, rng)?;
        let Some(second) = asked.draw(draw, first, rng) else { return Some(first) };
        let is_better = !asked.is_over(second) && is_second(first, second);
        Some(if is_better { second } else { first })
    }

    /// A call to this endpoint has ended, after so long. Kept whatever the algorithm, for whoever wants to show it.
    pub fn note(
        &mut self,
        endpoints: &mut Endpoints,
        endpoint: u32,
        now: Duration,
        latency: Duration,
        outcome: Outcome,
    ) {
        self.latest = self.latest.max(now);
        let latency = match outcome {
            Outcome::Ignored => return,
            Outcome::Success => latency,
            Outcome::Failure | Outcome::DialFailure | Outcome::DialTimeout => {
                latency.max(self.limits.failure)
            }
        };
        endpoints.note(endpoint, micros(self.latest), micros(latency), micros(self.limits.decay));
    }

    /// How one is chosen.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How many endpoints take calls, as of the last `rebuild`.
    #[must_use]
    pub fn taking(&self) -> usize {
        self.field.members.len()
    }

    /// Whether too few are up, so that all are used, as of the last `rebuild`.
    #[must_use]
    pub fn is_desperate(&self) -> bool {
        self.field.is_desperate
    }
}

impl Order {
    fn new(algorithm: Algorithm, field: &Field, seed: u64) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::Rotation(Rotation::new(field)),
            Algorithm::Maglev => Self::Maglev(Maglev::new(field, seed)),
            Algorithm::LeastOfTwo | Algorithm::Random | Algorithm::Ewma => {
                Self::Draw(Draw::new(field))
            }
        }
    }
}

#[cfg(test)]
mod tests;
