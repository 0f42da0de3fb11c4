//! Whether a client that has connected may stay, by its address.
//!
//! ```text
//!   accepted, has its permit ---> may anybody from there? ---> has its source too many, or come too often? ---> in
//!                                     (access list)                        (sources)
//!                                          | no                                | yes
//!                                          +-----------> reset <---------------+
//! ```
//!
//! Is: the two looks in their order, and what came of them. Is not: what a look is made of (`access`,
//! `sources`), nor the caps on how many there are at all (`admission`). A listener for which nothing is
//! configured asks nothing, and its clients cost no call for their address.
//!
//! Reset, and not left in the backlog: behind a client that may not come in others wait who may.

use std::net::IpAddr;
use std::sync::Arc;

use crate::access::Access;
use crate::sources::{Refused, Source, Sources};

/// Why a client was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The access list denies its address.
    Denied,
    /// Its source has as many connections as it may.
    SourceFull,
    /// Its source comes too often.
    SourceRate,
}

/// What the listeners of a process ask of their clients.
#[derive(Debug, Default)]
pub struct Door {
    /// For each listener.
    access: Vec<Option<Arc<Access>>>,
    sources: Option<Sources>,
}

impl Door {
    /// The lists of the listeners, in the order of their numbers, and the limits of sources.
    #[must_use]
    pub fn new(access: Vec<Option<Arc<Access>>>, sources: Option<Sources>) -> Self {
        Self { access, sources }
    }

    /// Whether the clients of a listener are asked for their address.
    #[inline]
    #[must_use]
    pub fn asks(&self, listener: u16) -> bool {
        self.sources.is_some() || self.access_of(listener).is_some()
    }

    /// Whether sources are counted: then a connection keeps its own until it ends.
    #[must_use]
    pub fn counts_sources(&self) -> bool {
        self.sources.is_some()
    }

    fn access_of(&self, listener: u16) -> Option<&Access> {
        self.access.get(usize::from(listener))?.as_deref()
    }

    /// Whether the client may stay. If it is counted for its source, that comes back, and has to be
    /// [released](Self::release) when its connection is over.
    ///
    /// # Errors
    /// [`Refusal`]: reset it.
    pub fn ask(
        &self,
        listener: u16,
        address: IpAddr,
        now_us: u64,
    ) -> Result<Option<Source>, Refusal> {
        if self.access_of(listener).is_some_and(|access| !access.allows(address)) {
            return Err(Refusal::Denied);
        }
        let Some(sources) = &self.sources else { return Ok(None) };
        match sources.admit(address, now_us) {
            Ok(source) => Ok(Some(source)),
            Err(Refused::Full) => Err(Refusal::SourceFull),
            Err(Refused::Rate { .. }) => Err(Refusal::SourceRate),
        }
    }

    /// A connection of the source is over.
    pub fn release(&self, source: Source, now_us: u64) {
        if let Some(sources) = &self.sources {
            sources.release(source, now_us);
        }
    }

    /// Sources that are known: none, when the last connection is over and every bucket full.
    #[must_use]
    pub fn sources_known(&self) -> usize {
        self.sources.as_ref().map_or(0, Sources::known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::SourceLimits;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn lists(deny: &str) -> Option<Arc<Access>> {
        let deny = deny.parse().expect("a prefix");
        Some(Arc::new(Access::new([], [deny]).expect("it makes sense")))
    }

    #[test]
    fn each_listener_has_its_own_list() {
        let door = Door::new(vec![None, lists("192.0.2.1")], None);
        assert!(!door.asks(0) && door.asks(1) && !door.asks(9));
        assert_eq!(door.ask(0, address(1), 0), Ok(None));
        assert_eq!(door.ask(1, address(1), 0), Err(Refusal::Denied));
        assert_eq!(door.ask(1, address(2), 0), Ok(None));
    }

    #[test]
    fn who_is_denied_does_not_count_for_its_source() {
        let limits = SourceLimits { connections_max: Some(1), ..SourceLimits::default() };
        let sources = Sources::new(limits, 0).expect("it makes sense");
        let door = Door::new(vec![lists("192.0.2.1"), None], Some(sources));
        assert!(door.asks(0) && door.asks(1));
        assert_eq!(door.ask(0, address(1), 0), Err(Refusal::Denied));
        assert_eq!(door.sources_known(), 0);
        let first = door.ask(1, address(1), 0).expect("the first").expect("counted");
        assert_eq!(door.ask(1, address(1), 0), Err(Refusal::SourceFull));
        door.release(first, 0);
        assert!(door.ask(1, address(1), 0).is_ok());
    }
}
