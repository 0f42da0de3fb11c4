//! How a listener takes its clients, in words: what a configuration says of it.
//!
//! What follows from them is elsewhere: `placement` chooses reactors, `admission` counts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::access::Access;
use crate::error::SetupError;
use crate::rates::Rate;

/// How a listener takes its clients in.
///
/// ```
/// use slipring_core::{Listen, Runtime};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Whoever comes to the second address can never take all places.
/// let builder = Runtime::builder()
///     .max_connections(1000)
///     .listen("0.0.0.0:443".parse()?)
///     .listen_with("0.0.0.0:8443".parse()?, Listen::new().max_connections(100));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listen {
    /// Accepted connections it may hold at once, over all reactors; further clients wait in its backlog. Default:
    /// as many as the process.
    pub max_connections: Option<u32>,
    /// Which reactor its clients go to. Default: the builder's.
    pub placement: Option<Placement>,
    /// From where clients may come. Default: as the builder says.
    pub access: Option<Arc<Access>>,
    /// What becomes of its clients when there is no place for them. Default: as the builder says.
    pub on_full: Option<OnFull>,
    /// How often a client is let in, over all reactors, beside the rate of the process. Default: as often as that.
    pub accept_rate: Option<Rate>,
}

impl Listen {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// It holds at most so many accepted connections, and others of the process stay free for other listeners.
    /// Below twice the backlog its clients are accepted one by one.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Its clients go to the reactor that this policy chooses.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// Clients from elsewhere are reset.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(Arc::new(access));
        self
    }

    /// What becomes of its clients when there is no place for them.
    #[must_use]
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = Some(on_full);
        self
    }

    /// Its clients are let in at this rate, over all reactors; who comes sooner waits in the backlog, and nobody is
    /// refused for it. Its clients are accepted one by one then. Reactors look for tokens every millisecond, so a
    /// rate above 1000 a second is reached only with a burst of as many as come in a few milliseconds.
    #[must_use]
    pub fn accept_rate(mut self, rate: Rate) -> Self {
        self.accept_rate = Some(rate);
        self
    }

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`SetupError::Config`] with what would.
    pub fn check(&self) -> Result<(), SetupError> {
        if self.max_connections == Some(0) {
            return Err(SetupError::Config {
                cause: "a listener that may hold no connection".to_owned(),
                remedy: "allow at least 1, or do not listen there".to_owned(),
            });
        }
        Ok(())
    }
}

/// What becomes of a client that comes when every place is taken, of the process or of its listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// It waits in the kernel's backlog until somebody leaves. The default: to itself it is connected, its
    /// bytes are kept, and nothing is accepted only to be dropped.
    #[default]
    Backlog,
    /// It is reset at once, so that it can go elsewhere. Takes a spare descriptor for a moment; without one it
    /// waits as with `Backlog`.
    Reject,
    /// The connection of its reactor that has been idle for longest is closed in order
    /// ([`CloseReason::Evicted`](crate::CloseReason::Evicted)), if one has been for a second at least and its handler
    /// has nothing under way for it ([`Handler::is_idle`](crate::Handler::is_idle)), and the client has its place
    /// then. If there is none, it waits as with `Backlog`.
    EvictIdle,
}

/// Which reactor a listener's clients go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// The kernel's choice, a hash of the addresses (SO_REUSEPORT).
    Kernel,
    /// The reactor of the CPU that received the client's first packet, as long as it has one.
    Cpu,
    /// The kernel's choice, handed over if one of two others has clearly less to do. The default.
    #[default]
    LeastLoaded,
    /// Each reactor in turn, whatever it has to do.
    RoundRobin,
}

impl Placement {
    /// Every policy, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Cpu, Self::LeastLoaded, Self::RoundRobin];

    /// Its name on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Cpu => "cpu",
            Self::LeastLoaded => "least-loaded",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|placement| placement.name() == text);
        named.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("'{text}' is no placement; use one of {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for placement in Placement::ALL {
            assert_eq!(placement.name().parse(), Ok(placement));
        }
        let message = "hash".parse::<Placement>().expect_err("no such name");
        assert!(message.contains("use one of kernel, cpu, least-loaded, round-robin"), "{message}");
    }
}
