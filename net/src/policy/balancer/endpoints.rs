//! The table of an upstream's endpoints, as one reactor sees it.
//!
//! Is: an array for each thing known, indexed by an endpoint's number. Is not: shared. What others have in flight, and
//! who is up, is told by the room.
//!
//! A number that was given back goes to the next that is inserted. Calls under way know their endpoint by number, so it
//! is given back only when this reactor has none left on it.

use std::time::Duration;

use super::latency::{Latency, micros};

/// Numbers there may be: Maglev's table names them in 16 bits.
const ENDPOINTS_MAX: usize = 1 << 16;
/// The heaviest.
pub(super) const WEIGHT_MAX: u32 = 256;

/// Whether an endpoint takes calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Availability {
    /// It does.
    #[default]
    Up,
    /// Calls failed there: it is left alone for a while (`outlier`).
    Ejected,
    /// Its checks fail (`health`).
    Down,
    /// It is to be taken away: no new calls, whatever else fails.
    Draining,
}

/// One endpoint, to be put into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is, whatever its number: as a hash of its address. Maglev goes by it, so it has to be the same wherever
    /// equal hashes are to find the same endpoint.
    pub identity: u64,
    /// Its share of the calls, from 1 to 256. Default 1.
    pub weight: u32,
    /// Its tier: 0 is asked first. Default 0.
    pub tier: u8,
    /// Whether it takes calls. Default: it does.
    pub availability: Availability,
    /// Since when it is up, on the runtime's clock, if it is to start slowly. Default `None`: it has all of its weight,
    /// as those that were there when the process started.
    pub up_since: Option<Duration>,
}

impl Endpoint {
    /// Up from the beginning, in the first tier, of weight 1.
    #[must_use]
    pub fn new(identity: u64) -> Self {
        Self { identity, weight: 1, tier: 0, availability: Availability::Up, up_since: None }
    }
}

/// Why a table is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointsError {
    /// A weight that there is not.
    #[error(
        "an endpoint of weight {weight}; say from 1 to {WEIGHT_MAX}, or have it `Draining` if it is to get no calls"
    )]
    Weight {
        /// The weight given.
        weight: u32,
    },
    /// All numbers are taken.
    #[error("{ENDPOINTS_MAX} endpoints in one upstream already; make another upstream of some")]
    Full,
    /// Nobody has the number.
    #[error(
        "no endpoint has the number {endpoint}; ask with one that `insert` gave and `remove` has not taken back"
    )]
    Unknown {
        /// The number given.
        endpoint: u32,
    },
    /// Calls are under way.
    #[error(
        "{calls} calls are under way on endpoint {endpoint}; have it `Draining` and remove it when they have ended"
    )]
    Busy {
        /// The endpoint.
        endpoint: u32,
        /// Calls of this reactor on it.
        calls: u32,
    },
}

/// Calls under way on an endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    own: u32,
    others: u32,
}

impl InFlight {
    #[inline]
    fn all(self) -> u64 {
        u64::from(self.own) + u64::from(self.others)
    }
}

/// The endpoints of an upstream, by number.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    identities: Vec<u64>,
    /// None is 0, but of a number that nobody has.
    weights: Vec<u32>,
    tiers: Vec<u8>,
    availabilities: Vec<Availability>,
    up_since: Vec<Option<Duration>>,
    in_flight: Vec<InFlight>,
    latencies: Vec<Latency>,
    /// Calls under way, by tier and availability: so that a mean needs no walk.
    under_way: Vec<[u64; 4]>,
    members: u32,
    changes: u64,
}

impl Endpoints {
    /// A table with nobody in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts one in. Its number is the lowest that is free.
    ///
    /// # Errors
    /// [`EndpointsError`]: `Weight` or `Full`.
    pub fn insert(&mut self, endpoint: Endpoint) -> Result<u32, EndpointsError> {
        check_weight(endpoint.weight)?;
        let at = if self.members() == self.weights.len() {
            self.weights.len()
        } else {
            self.weights.iter().position(|weight| *weight == 0).unwrap_or(self.weights.len())
        };
        if at >= ENDPOINTS_MAX {
            return Err(EndpointsError::Full);
        }
        if at == self.weights.len() {
            self.identities.push(0);
            self.weights.push(0);
            self.tiers.push(0);
            self.availabilities.push(Availability::Up);
            self.up_since.push(None);
            self.in_flight.push(InFlight::default());
            self.latencies.push(Latency::UNKNOWN);
        }
        self.identities[at] = endpoint.identity;
        self.weights[at] = endpoint.weight;
        self.tiers[at] = endpoint.tier;
        self.availabilities[at] = endpoint.availability;
        self.up_since[at] = endpoint.up_since;
        self.in_flight[at] = InFlight::default();
        self.latencies[at] = Latency::UNKNOWN;
        let tiers = usize::from(endpoint.tier) + 1;
        if self.under_way.len() < tiers {
            self.under_way.resize(tiers, [0; 4]);
        }
        self.members += 1;
        self.changes += 1;
        Ok(at as u32)
    }

    /// Takes one out. Its number is free then, and what others were said to have on it is forgotten.
    ///
    /// # Errors
    /// [`EndpointsError`]: `Unknown`, or `Busy` as long as calls of this reactor are under way on it.
    pub fn remove(&mut self, endpoint: u32) -> Result<(), EndpointsError> {
        let at = self.at(endpoint)?;
        let calls = self.in_flight[at].own;
        if calls > 0 {
            return Err(EndpointsError::Busy { endpoint, calls });
        }
        self.recount(at, |in_flight| *in_flight = InFlight::default());
        self.weights[at] = 0;
        self.members -= 1;
        self.changes += 1;
        Ok(())
    }

    /// Another weight, from 1 to 256.
    ///
    /// # Errors
    /// [`EndpointsError`]: `Weight` or `Unknown`.
    pub fn set_weight(&mut self, endpoint: u32, weight: u32) -> Result<(), EndpointsError> {
        check_weight(weight)?;
        let at = self.at(endpoint)?;
        if self.weights[at] != weight {
            self.weights[at] = weight;
            self.changes += 1;
        }
        Ok(())
    }

    /// Another tier.
    ///
    /// # Errors
    /// [`EndpointsError::Unknown`].
    pub fn set_tier(&mut self, endpoint: u32, tier: u8) -> Result<(), EndpointsError> {
        let at = self.at(endpoint)?;
        let before = std::mem::replace(&mut self.tiers[at], tier);
        if before == tier {
            return Ok(());
        }
        let tiers = usize::from(tier) + 1;
        if self.under_way.len() < tiers {
            self.under_way.resize(tiers, [0; 4]);
        }
        let calls = self.in_flight[at].all();
        let availability = self.availabilities[at] as usize;
        self.under_way[usize::from(before)][availability] -= calls;
        self.under_way[usize::from(tier)][availability] += calls;
        self.changes += 1;
        Ok(())
    }

    /// Whether it takes calls. Since when it is up is for its slow start, and counts only if it was not up before;
    /// `None`: it has all of its weight at once.
    ///
    /// # Errors
    /// [`EndpointsError::Unknown`].
    pub fn set_availability(
        &mut self,
        endpoint: u32,
        availability: Availability,
        up_since: Option<Duration>,
    ) -> Result<(), EndpointsError> {
        let at = self.at(endpoint)?;
        let before = self.availabilities[at];
        if before == availability {
            return Ok(());
        }
        let calls = self.in_flight[at].all();
        let under_way = &mut self.under_way[usize::from(self.tiers[at])];
        under_way[before as usize] -= calls;
        under_way[availability as usize] += calls;
        self.availabilities[at] = availability;
        if availability == Availability::Up {
            self.up_since[at] = up_since;
        }
        self.changes += 1;
        Ok(())
    }

    /// A call of this reactor goes to it. Nothing, if nobody has the number.
    pub fn began(&mut self, endpoint: u32) {
        if let Ok(at) = self.at(endpoint) {
            self.recount(at, |in_flight| in_flight.own = in_flight.own.saturating_add(1));
        }
    }

    /// A call of this reactor on it has ended. Nothing, if none was under way.
    pub fn ended(&mut self, endpoint: u32) {
        if let Ok(at) = self.at(endpoint) {
            self.recount(at, |in_flight| in_flight.own = in_flight.own.saturating_sub(1));
        }
    }

    /// How many calls of the other reactors are under way on it, as of now. Nothing, if nobody has the number.
    pub fn set_others(&mut self, endpoint: u32, calls: u32) {
        if let Ok(at) = self.at(endpoint) {
            self.recount(at, |in_flight| in_flight.others = calls);
        }
    }

    /// Calls of this reactor under way on it: what it publishes.
    #[must_use]
    pub fn own(&self, endpoint: u32) -> u32 {
        self.in_flight.get(endpoint as usize).map_or(0, |in_flight| in_flight.own)
    }

    /// Calls under way on it, of this reactor and, as of the last snapshot, of the others.
    #[inline]
    #[must_use]
    pub fn in_flight(&self, endpoint: u32) -> u64 {
        self.in_flight.get(endpoint as usize).map_or(0, |in_flight| in_flight.all())
    }

    /// Its latency as [`Algorithm::Ewma`](super::Algorithm::Ewma) takes it, with this time in which it fades; `None` if
    /// none was noted.
    #[must_use]
    pub fn latency(&self, endpoint: u32, now: Duration, decay: Duration) -> Option<Duration> {
        let us = self.known_latency(endpoint).at(micros(now), micros(decay))?;
        Some(Duration::from_micros(us as u64))
    }

    /// Its weight; `None` if nobody has the number.
    #[must_use]
    pub fn weight(&self, endpoint: u32) -> Option<u32> {
        self.weights.get(endpoint as usize).copied().filter(|weight| *weight > 0)
    }

    /// Whether it takes calls; `None` if nobody has the number.
    #[must_use]
    pub fn availability(&self, endpoint: u32) -> Option<Availability> {
        self.weight(endpoint).map(|_| self.availabilities[endpoint as usize])
    }

    /// How many endpoints there are.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members as usize
    }

    /// How often something changed that a [`Balancer`](super::Balancer) is to be rebuilt for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    // --------------------------------------------------------------------------- for the balancer

    /// Those there are, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Endpoint)> {
        let taken = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        taken.map(|(at, weight)| {
            let endpoint = Endpoint {
                identity: self.identities[at],
                weight: *weight,
                tier: self.tiers[at],
                availability: self.availabilities[at],
                up_since: self.up_since[at],
            };
            (at as u32, endpoint)
        })
    }

    /// Calls under way on those of a tier and an availability.
    pub(super) fn under_way(&self, tier: u8, availability: Availability) -> u64 {
        self.under_way.get(usize::from(tier)).map_or(0, |calls| calls[availability as usize])
    }

    /// 0 if nobody has the number.
    #[inline]
    pub(super) fn weight_or_none(&self, endpoint: u32) -> u32 {
        self.weights.get(endpoint as usize).copied().unwrap_or(0)
    }

    pub(super) fn identity(&self, endpoint: u32) -> u64 {
        self.identities.get(endpoint as usize).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn up_since(&self, endpoint: u32) -> Option<Duration> {
        self.up_since.get(endpoint as usize).copied().flatten()
    }

    #[inline]
    pub(super) fn known_latency(&self, endpoint: u32) -> Latency {
        self.latencies.get(endpoint as usize).copied().unwrap_or(Latency::UNKNOWN)
    }

    pub(super) fn note(&mut self, endpoint: u32, now_us: u64, sample_us: u64, decay_us: u64) {
        if let Ok(at) = self.at(endpoint) {
            self.latencies[at].note(now_us, sample_us, decay_us);
        }
    }

    fn at(&self, endpoint: u32) -> Result<usize, EndpointsError> {
        match self.weight(endpoint) {
            Some(_) => Ok(endpoint as usize),
            None => Err(EndpointsError::Unknown { endpoint }),
        }
    }

    fn recount(&mut self, at: usize, change: impl FnOnce(&mut InFlight)) {
        let in_flight = &mut self.in_flight[at];
        let before = in_flight.all();
        change(in_flight);
        let after = in_flight.all();
        let calls = &mut self.under_way[usize::from(self.tiers[at])];
        let calls = &mut calls[self.availabilities[at] as usize];
        *calls = *calls - before + after;
    }
}

fn check_weight(weight: u32) -> Result<(), EndpointsError> {
    if (1..=WEIGHT_MAX).contains(&weight) { Ok(()) } else { Err(EndpointsError::Weight { weight }) }
}
