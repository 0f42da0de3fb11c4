//! An upstream at one moment, as one reactor sees it: for people.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::UpstreamCounters;
use super::room::UpstreamRoom;
use crate::policy::balancer::Availability;
use crate::policy::breaker::Standing;
use crate::policy::pool::{PoolCounters, PoolSnapshot};
use crate::tasks::now;

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Where.
    pub address: SocketAddr,
    /// Whether it takes calls.
    pub availability: Availability,
    /// Until when it is left alone, on the runtime's clock, if it is.
    pub ejected_until: Option<Duration>,
    /// Calls under way, of all reactors; those of the others as of a tenth of a second ago.
    pub in_flight: u64,
    /// How long its calls took lately, as this reactor saw it.
    pub latency: Option<Duration>,
    /// This reactor's side of its pool, as of the last time that looked.
    pub pool: Option<PoolSnapshot>,
    /// How often what has happened in its pool, over all reactors: as of the last time each looked.
    pub pool_counters: PoolCounters,
}

/// An upstream.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UpstreamSnapshot {
    /// What it is called.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSnapshot>,
    /// How its breaker stands.
    pub breaker: Standing,
    /// Connections, of so many that there may be.
    pub connections: (u32, u32),
    /// Requests that wait, of so many that may.
    pub pending: (u32, u32),
    /// Retries that this reactor could afford now.
    pub retries_left: u64,
    /// How often what has happened: this reactor's up to now, those of the others as of a tenth of a second ago.
    pub counters: UpstreamCounters,
}

/// A line for the upstream, and one for each endpoint.
impl fmt::Display for UpstreamSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, pending) = (self.connections, self.pending);
        write!(
            f,
            "{}: breaker {:?}, {} of {} connections, {} of {} pending, {} retries left",
            self.name,
            self.breaker,
            connections.0,
            connections.1,
            pending.0,
            pending.1,
            self.retries_left
        )?;
        for endpoint in &self.endpoints {
            let EndpointSnapshot { address, availability, in_flight, .. } = endpoint;
            write!(f, "\n  {address}: {availability:?}, {in_flight} in flight")?;
            if let Some(latency) = endpoint.latency {
                write!(f, ", {:.3} ms", latency.as_secs_f64() * 1e3)?;
            }
            if let Some(pool) = &endpoint.pool {
                write!(f, "; pool: {pool}")?;
            }
        }
        Ok(())
    }
}

impl UpstreamRoom {
    pub(super) fn snapshot(&self) -> UpstreamSnapshot {
        self.refresh();
        let now = now();
        let (upstream, team) = (&self.upstream, self.team());
        let verdicts = &mut *self.verdicts.borrow_mut();
        let decay = upstream.limits.balancer.decay;
        let slots = verdicts.slots.iter().enumerate();
        let endpoints = slots.filter_map(|(number, slot)| {
            let (number, slot) = (number as u32, slot.as_ref()?);
            let ejection = upstream.ejections.state(slot.member.number).unwrap_or_default();
            Some(EndpointSnapshot {
                address: slot.member.address(),
                availability: verdicts.endpoints.availability(number)?,
                ejected_until: ejection.is_ejected.then_some(ejection.until),
                in_flight: verdicts.endpoints.in_flight(number),
                latency: verdicts.endpoints.latency(number, now, decay),
                pool: slot.member.pool.snapshots().get(self.reactor).cloned().flatten(),
                pool_counters: slot.member.pool.counters(),
            })
        });
        UpstreamSnapshot {
            name: upstream.name.to_string(),
            endpoints: endpoints.collect(),
            breaker: upstream.breaker.standing(),
            connections: (team.connections.used(), team.connections.cap()),
            pending: (team.pending.used(), team.pending.cap()),
            retries_left: verdicts.budget.left(now),
            counters: upstream.counted(|reactor| reactor != self.reactor).plus(self.counters.get()),
        }
    }
}
