//! Names of upstreams: what may be asked for, who is asked, and what is made of the answers.
//!
//! ```text
//!   Query ---> Resolver, watch ---> Source: Fixed, HostsFile, Dns, Chain, or one of your own
//!                   |                  |
//!                   |                  +--> Answer (targets, TTL) or a failure
//!                   v                              |
//!                 Name  <--------------------------+     how long it counts, and when to ask again
//! ```
//!
//! ```
//! use slipring::resolve::{Fixed, Resolver, ResolveLimits};
//!
//! let fixed = Fixed::new();
//! fixed.set("backend.example", [std::net::IpAddr::from([192, 0, 2, 1])])?;
//! let resolver = Resolver::new(fixed, ResolveLimits::default())?;
//! // In a task: resolver.resolve(&"backend.example:80".parse()?).await?
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Is: the rooms about the verdict [`Name`]: [`watch`], which follows one name for as long as an upstream wants it, and
//! [`Resolver`], which keeps many for those who dial by name. Is not: who dials, nor in which order.
//!
//! Why sources know no cache: there is one, in [`Name`], with one set of rules for all of them. Why a look-up is not
//! `Send`: it is polled by a task of one reactor, and so a source may use connections and timers of slipring itself.
//! One that waits for another thread or runtime does as well.

mod asking;
mod chain;
#[cfg(feature = "dns")]
mod dns;
mod fixed;
mod hosts;
mod places;
mod promise;
mod query;
mod resolver;
mod stamp;
mod watching;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use chain::Chain;
#[cfg(feature = "dns")]
pub use dns::{Dns, DnsConfig, DnsConfigError};
pub use fixed::Fixed;
pub use hosts::{HostsFault, HostsFile, HostsFileError};
pub use places::Place;
pub use query::{Query, QueryError, QueryFault};
pub use resolver::{Resolver, Unresolved};
pub use watching::watch;

use crate::failure::Resolve;
use crate::policy::names::NameLimitsError;
pub use crate::policy::names::{Answer, Name, NameLimits, Target};

/// A look-up under way. Dropping it gives it up.
pub type Lookup = Pin<Box<dyn Future<Output = Result<Answer, Resolve>>>>;

/// Who knows names.
///
/// ```
/// use std::time::Duration;
/// use slipring::failure::Resolve;
/// use slipring::resolve::{Answer, Lookup, Query, Source, Target};
///
/// /// Everything is on this host.
/// struct Here;
///
/// impl Source for Here {
///     fn lookup(&self, query: &Query) -> Lookup {
///         let port = query.port();
///         Box::pin(async move {
///             let port = port.ok_or(Resolve::NotFound)?;
///             let target = Target::new(([127, 0, 0, 1], port).into());
///             Ok(Answer { targets: vec![target], ttl: Duration::from_secs(60) })
///         })
///     }
/// }
/// ```
pub trait Source: Send + Sync + 'static {
    /// Looks a name up. Called on a reactor's thread, so it must not block; what it returns is polled there too.
    /// It is never asked for an address, and never cached below: whoever asks keeps the answer for its TTL.
    ///
    /// It has [`lookup_timeout`](ResolveLimits::lookup_timeout), then it is dropped. One that panics has failed as a
    /// name server does.
    ///
    /// # Errors
    /// [`Resolve::NotFound`] if it does not know the name: a [`Chain`] asks the next one then. All others end the
    /// matter.
    fn lookup(&self, query: &Query) -> Lookup;
}

impl<S: Source + ?Sized> Source for Arc<S> {
    fn lookup(&self, query: &Query) -> Lookup {
        (**self).lookup(query)
    }
}

impl<S: Source + ?Sized> Source for Box<S> {
    fn lookup(&self, query: &Query) -> Lookup {
        (**self).lookup(query)
    }
}

const LOOKUP_TIMEOUT_MIN: Duration = Duration::from_millis(1);
const LOOKUP_TIMEOUT_MAX: Duration = Duration::from_secs(300);
const NAMES_MOST: usize = 1 << 20;

/// How names are asked for and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveLimits {
    /// How long answers count.
    pub names: NameLimits,
    /// A look-up has so long; then it has failed with [`Resolve::Timeout`]. Default 5 s (glibc).
    pub lookup_timeout: Duration,
    /// Names that a [`Resolver`] keeps, from 1 to 1,048,576. Behind that the one that was not used for longest goes.
    /// Default 1024 †.
    pub names_max: usize,
}

impl Default for ResolveLimits {
    fn default() -> Self {
        Self {
            names: NameLimits::default(),
            lookup_timeout: Duration::from_secs(5),
            names_max: 1024,
        }
    }
}

/// Why [`ResolveLimits`] make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveLimitsError {
    /// How long answers count.
    #[error(transparent)]
    Names(#[from] NameLimitsError),
    /// Nothing could be looked up, or would be waited for without end.
    #[error("a look-up has {lookup_timeout:?}; say from 1 ms to 300 s")]
    LookupTimeout {
        /// The time it would have.
        lookup_timeout: Duration,
    },
    /// Nothing could be kept, or more than memory is for.
    #[error("{names_max} names are kept; say from 1 to {NAMES_MOST}")]
    NamesMax {
        /// Their number.
        names_max: usize,
    },
}

impl ResolveLimits {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// [`ResolveLimitsError`], with the first thing that does not fit.
    pub fn check(&self) -> Result<(), ResolveLimitsError> {
        let Self { names, lookup_timeout, names_max } = *self;
        names.check()?;
        if !(LOOKUP_TIMEOUT_MIN..=LOOKUP_TIMEOUT_MAX).contains(&lookup_timeout) {
            return Err(ResolveLimitsError::LookupTimeout { lookup_timeout });
        }
        if !(1..=NAMES_MOST).contains(&names_max) {
            return Err(ResolveLimitsError::NamesMax { names_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reactors_share_may_be_shared() {
        fn is_shared<T: Clone + Send + Sync + 'static>() {}
        is_shared::<Query>();
        is_shared::<Resolver>();
        is_shared::<Fixed>();
        is_shared::<HostsFile>();
        is_shared::<Chain>();
        is_shared::<Arc<dyn Source>>();
        #[cfg(feature = "dns")]
        is_shared::<Dns>();
        fn is_source<T: Source>() {}
        is_source::<Arc<dyn Source>>();
        is_source::<Box<dyn Source>>();
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        assert_eq!(ResolveLimits::default().check(), Ok(()));
        for lookup_timeout in [Duration::ZERO, Duration::from_secs(301), Duration::MAX] {
            let limits = ResolveLimits { lookup_timeout, ..ResolveLimits::default() };
            assert_eq!(limits.check(), Err(ResolveLimitsError::LookupTimeout { lookup_timeout }));
        }
        for names_max in [0, NAMES_MOST + 1, usize::MAX] {
            let limits = ResolveLimits { names_max, ..ResolveLimits::default() };
            assert_eq!(limits.check(), Err(ResolveLimitsError::NamesMax { names_max }));
        }
        let names = NameLimits { negative: Duration::ZERO, ..NameLimits::default() };
        let limits = ResolveLimits { names, ..ResolveLimits::default() };
        assert!(matches!(limits.check(), Err(ResolveLimitsError::Names(_))));
    }
}
