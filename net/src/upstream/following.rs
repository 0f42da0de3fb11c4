//! Where the names of an upstream lead.
//!
//! ```text
//!   endpoints that were given --+
//!   watch(name 1) --------------+--> all of them, each address once --> roster
//!   watch(name 2) --------------+
//! ```
//!
//! Names are followed by tasks of one reactor, whichever comes first; if it ends, another takes over when it next
//! looks. What was found out stays meanwhile.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Shared;
use super::room::UpstreamRoom;
use crate::failure::Resolve;
use crate::policy::names::Target;
use crate::resolve::{Query, ResolveLimits, Source, watch};
use crate::tasks::spawn_local;

/// Nobody follows them.
const NOBODY: usize = usize::MAX;

/// A name, and who knows it.
pub(super) struct Followed {
    pub(super) query: Query,
    pub(super) source: Arc<dyn Source>,
    pub(super) limits: ResolveLimits,
}

/// What was found out of a name; `None`: nothing yet.
type Answered = Option<Result<Vec<Target>, Resolve>>;

/// An endpoint, and the name that led there, for its certificate.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) target: Target,
    pub(super) name: Option<&'a str>,
}

pub(super) struct Following {
    given: Vec<Target>,
    names: Vec<Followed>,
    /// By name.
    found: Mutex<Vec<Answered>>,
    /// The reactor that follows them.
    follower: AtomicUsize,
}

impl Following {
    pub(super) fn new(given: Vec<Target>, names: Vec<Followed>) -> Self {
        let found = Mutex::new(names.iter().map(|_| None).collect());
        Self { given, names, found, follower: AtomicUsize::new(NOBODY) }
    }

    fn begin(&self, reactor: usize) -> bool {
        let (order, load) = (Ordering::AcqRel, Ordering::Relaxed);
        !self.names.is_empty()
            && self.follower.compare_exchange(NOBODY, reactor, order, load).is_ok()
    }

    pub(super) fn end(&self, reactor: usize) {
        let (order, load) = (Ordering::AcqRel, Ordering::Relaxed);
        // If they are another's by now, they stay so.
        let _ = self.follower.compare_exchange(reactor, NOBODY, order, load);
    }

    /// All that is known, once something is known of each name.
    fn all(&self) -> Option<(Vec<Found<'_>>, Option<Resolve>)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let given = self.given.iter().map(|&target| Found { target, name: None });
        let mut all: Vec<_> = given.collect();
        let mut failure = None;
        for (found, followed) in found.iter().zip(&self.names) {
            let name = followed.query.certified();
            match found.as_ref()? {
                Ok(targets) => all.extend(targets.iter().map(|&target| Found { target, name })),
                Err(why) => failure = Some(*why),
            }
        }
        // Stable: whoever was named first has named it.
        all.sort_by_key(|found| found.target);
        let mut known = Vec::with_capacity(all.len());
        for one in all {
            if !known.iter().any(|other: &Found<'_>| other.target.address == one.target.address) {
                known.push(one);
            }
        }
        let failure = failure.filter(|_| known.is_empty());
        Some((known, failure))
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(|name| &name.query).collect();
        f.debug_struct("Following")
            .field("given", &self.given)
            .field("names", &names)
            .finish_non_exhaustive()
    }
}

/// What is known at the beginning: all, if there are no names.
pub(super) fn begin(upstream: &Arc<Shared>) {
    if let Some((found, failure)) = upstream.following.all() {
        Shared::publish(upstream, &found, failure);
    }
}

impl UpstreamRoom {
    /// Follows the names from now on, if nobody does.
    pub(super) fn take_up_names(&self) {
        if !self.upstream.following.begin(self.reactor) {
            return;
        }
        for (number, name) in self.upstream.following.names.iter().enumerate() {
            let upstream = Arc::clone(&self.upstream);
            let query = name.query.clone();
            let publish = move |targets: Result<&[Target], Resolve>| {
                let found = targets.map(<[Target]>::to_vec);
                let before = {
                    let all = &upstream.following.found;
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all[number].replace(found)
                };
                let of = &upstream.name;
                match (targets, before) {
                    (Err(failure), _) => {
                        tracing::warn!(upstream = %of, %query, %failure, "a name leads nowhere");
                    }
                    (Ok(targets), Some(Err(_))) => {
                        let targets = targets.len();
                        tracing::warn!(upstream = %of, %query, targets, "a name leads somewhere again");
                    }
                    (Ok(targets), _) => {
                        tracing::debug!(upstream = %of, %query, targets = targets.len(), "a name leads there");
                    }
                }
                begin(&upstream);
            };
            let seed = self.verdicts.borrow_mut().rng.u64(..);
            let rng = fastrand::Rng::with_seed(seed);
            let source = Arc::clone(&name.source);
            let followed = watch(name.query.clone(), source, name.limits, rng, publish);
            self.keep_task(spawn_local(async move {
                followed.await;
            }));
        }
    }
}
