//! Names and their places, as somebody has written them down: what `Fixed` and `HostsFile` know.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Query;
use crate::failure::Resolve;
use crate::policy::names::{Answer, Target};

/// One of the places of a name.
///
/// Without a port of its own it has that of the question; and whoever asks for a service, which comes without one, is
/// not led there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub ip: IpAddr,
    /// Its port, if it is not to be that of the question.
    pub port: Option<u16>,
    /// Those of a lower tier first. Default 0.
    pub tier: u16,
    /// Its share among those of its tier. Default 1.
    pub weight: u16,
}

impl Place {
    /// Of tier 0, with weight 1, on the port that is asked for.
    #[must_use]
    pub const fn new(ip: IpAddr) -> Self {
        Self { ip, port: None, tier: 0, weight: 1 }
    }

    fn target(&self, port: Option<u16>) -> Option<Target> {
        // Nobody listens on port 0.
        let port = self.port.or(port).filter(|port| *port != 0)?;
        let address = SocketAddr::new(self.ip, port);
        Some(Target { tier: self.tier, address, weight: self.weight })
    }
}

impl From<IpAddr> for Place {
    fn from(ip: IpAddr) -> Self {
        Self::new(ip)
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { port: Some(address.port()), ..Self::new(address.ip()) }
    }
}

impl From<Target> for Place {
    fn from(Target { tier, address, weight }: Target) -> Self {
        Self { tier, weight, ..Self::from(address) }
    }
}

/// Names in lower case, without a dot at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, Vec<Place>>);

impl Places {
    pub(super) fn set(&mut self, name: String, places: Vec<Place>) {
        self.0.insert(name, places);
    }

    pub(super) fn add(&mut self, name: String, place: Place) {
        self.0.entry(name).or_default().push(place);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a name, if it is known.
    #[cfg(feature = "dns")]
    pub(super) fn of(&self, name: &str) -> Option<&[Place]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub(super) fn answer(&self, query: &Query, ttl: Duration) -> Result<Answer, Resolve> {
        let places = query.name().and_then(|name| self.0.get(name)).ok_or(Resolve::NotFound)?;
        let targets: Vec<_> =
            places.iter().filter_map(|place| place.target(query.port())).collect();
        match targets.is_empty() {
            true => Err(Resolve::NoAddress),
            false => Ok(Answer { targets, ttl }),
        }
    }
}
