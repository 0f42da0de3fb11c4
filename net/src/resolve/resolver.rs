//! Names for those who dial by name: looked up once for all who ask, kept for their TTL.
//!
//! ```text
//!   resolve --> known and fresh ----------------------------> at once
//!       |       an old answer stands in for a failure ------> at once
//!       |       known not to be there, or failed lately ----> the failure, at once
//!       |
//!       +-----> not known, or too old: wait --+
//!                                             v
//!          the first asker's reactor: ask --> tell all --> sleep --> ask again, if anybody asked meanwhile
//! ```
//!
//! Is: a cache of [`Name`]s, and a task for each that is in use. Is not: the rules, which are those of [`Name`].
//!
//! Why a task, and not the first asker itself: whoever asks first may go first, and others wait for what it began. Why
//! that task stays: who asks often should never wait, so the name is asked for again before its answer ends. It ends
//! as soon as nobody asked in the life of an answer, and with the name, when that goes for want of room.
//!
//! *Lock.* One for all names, held for a look into a map. It is for whoever dials by name, once for each connection; an
//! upstream's endpoints are followed by [`watch`](super::watch), which has none.
//!
//! *Reactors.* The one that asks may end, or hang in somebody's code. Those who wait on others are told of the first,
//! and ask themselves; of the second they despair a second behind the look-up's timeout.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::asking::ask;
use super::promise::{Promise, Shared};
use super::{Query, ResolveLimits, ResolveLimitsError, Source};
use crate::failure::{Error, Resolve};
use crate::policy::names::{Answer, Name, Target};
use crate::tasks::{now, spawn_local, timeout};

/// How much longer than a look-up may take the reactor that asks is waited for.
const ASKER_LATE: Duration = Duration::from_secs(1);
/// How many of those who ask may be gone before it is given up: each was a reactor's end.
const ASKERS_GONE_MAX: usize = 3;

type Verdict = Result<Arc<[Target]>, Resolve>;

/// Resolves names for whoever dials by name. Its clones share what they know, on all reactors of one runtime.
///
/// ```no_run
/// use slipring::resolve::{Fixed, Resolver};
///
/// # async fn example(resolver: Resolver) -> Result<(), Box<dyn std::error::Error>> {
/// let targets = resolver.resolve(&"backend.example:80".parse()?).await?;
/// let conn = slipring::dial(targets[0].address).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Resolver {
    common: Arc<Common>,
}

struct Common {
    source: Box<dyn Source>,
    limits: ResolveLimits,
    kept: Mutex<Kept>,
}

struct Kept {
    names: BTreeMap<Query, Known>,
    rng: fastrand::Rng,
    /// Questions so far: the time in which use is measured.
    questions: u64,
}

struct Known {
    name: Name,
    /// By the number of the question.
    last_used: u64,
    /// Since the last answer.
    was_asked_for: bool,
    /// Over, with nothing told: its reactor has ended.
    asking: Option<Shared<Verdict>>,
    /// Never said: it ends with the name, for the task that sleeps until it is asked for again.
    kept: Promise<()>,
}

/// What a look into the map comes to.
enum Look {
    Known(Result<Vec<Target>, Resolve>),
    Wait(Shared<Verdict>),
}

/// The name that an error of [`Resolver`] is about: its source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("resolving {query}")]
#[non_exhaustive]
pub struct Unresolved {
    /// What was asked for.
    pub query: Query,
}

impl Resolver {
    /// Asks this source.
    ///
    /// # Errors
    /// [`ResolveLimitsError`] if the limits make no sense.
    pub fn new(source: impl Source, limits: ResolveLimits) -> Result<Self, ResolveLimitsError> {
        Self::with_rng(source, limits, fastrand::Rng::new())
    }

    /// The same with draws that can be repeated: when a name is asked for again is drawn.
    ///
    /// # Errors
    /// [`ResolveLimitsError`] if the limits make no sense.
    pub fn with_rng(
        source: impl Source,
        limits: ResolveLimits,
        rng: fastrand::Rng,
    ) -> Result<Self, ResolveLimitsError> {
        limits.check()?;
        let kept = Mutex::new(Kept { names: BTreeMap::new(), rng, questions: 0 });
        Ok(Self { common: Arc::new(Common { source: Box::new(source), limits, kept }) })
    }

    /// Where a name leads: sorted, each once, never none. An address leads to itself.
    ///
    /// Dropping the future takes nothing from others who wait for the same name.
    ///
    /// # Errors
    /// [`Error`] of the kind [`Resolve`], which has an [`Unresolved`] with the name as its source.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn resolve(&self, query: &Query) -> Result<Vec<Target>, Error> {
        let begun = now();
        self.find(query).await.map_err(|failure| {
            let unresolved = Unresolved { query: query.clone() };
            Error::new(failure).after(now().saturating_sub(begun)).over(unresolved)
        })
    }

    async fn find(&self, query: &Query) -> Result<Vec<Target>, Resolve> {
        if let Some(address) = query.address() {
            return self.common.itself(Target::new(address));
        }
        let patience = self.common.limits.lookup_timeout.saturating_add(ASKER_LATE);
        for _ in 0..ASKERS_GONE_MAX {
            let shared = match self.look(query) {
                Look::Known(known) => return known,
                Look::Wait(shared) => shared,
            };
            match timeout(patience, shared.wait()).await {
                Ok(Some(verdict)) => return verdict.map(|targets| targets.to_vec()),
                Ok(None) => {}
                Err(_) => return self.common.despair(query, &shared),
            }
        }
        Err(Resolve::Timeout)
    }

    /// What is known now. Sees to it that it is asked for if it should be.
    fn look(&self, query: &Query) -> Look {
        let (common, now) = (&self.common, now());
        let mut kept = common.lock();
        kept.questions += 1;
        let used = kept.questions;
        let gone = match kept.names.contains_key(query) {
            true => None,
            false => kept.make_room(common.limits.names_max),
        };
        let known = kept.names.entry(query.clone()).or_insert_with(|| Known::new(&common.limits));
        (known.last_used, known.was_asked_for) = (used, true);
        let name = &known.name;
        let is_due = now >= name.next_lookup();
        let look = (name.is_fresh(now) || name.is_stale(now) || !is_due)
            .then(|| Look::Known(name.targets(now).map(<[Target]>::to_vec)));
        let begun = (is_due && !known.is_asked()).then(|| known.begin());
        let look = match look {
            Some(look) => look,
            None => Look::Wait(known.asking.clone().expect("it is due, and so was begun")),
        };
        drop(kept);
        drop(gone);
        if let Some(promise) = begun {
            drop(spawn_local(keep(Arc::downgrade(common), query.clone(), promise)));
        }
        look
    }

    /// Names it keeps at present.
    #[must_use]
    pub fn names(&self) -> usize {
        self.common.lock().names.len()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("limits", &self.common.limits)
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

/// Asks for a name, tells who waits, and goes on as long as somebody asks for it in the life of each answer.
async fn keep(common: Weak<Common>, query: Query, mut promise: Promise<Verdict>) {
    loop {
        let again = {
            let Some(common) = common.upgrade() else { return };
            let answer = ask(&*common.source, &query, common.limits.lookup_timeout).await;
            common.tell(&query, promise, answer)
        };
        let Some((again, kept)) = again else { return };
        if timeout(again.saturating_sub(now()), kept.wait()).await.is_ok() {
            // The name is kept no more, or the resolver is gone.
            return;
        }
        let Some(next) = common.upgrade().and_then(|common| common.begin_again(&query)) else {
            return;
        };
        promise = next;
    }
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing that can panic runs while it is locked.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An address, as far as the limits let it pass.
    fn itself(&self, target: Target) -> Result<Vec<Target>, Resolve> {
        let names = &self.limits.names;
        let mut name = Name::new(names);
        let answer = Answer { targets: vec![target], ttl: names.ttl_max };
        // Drawn from for nothing: it is not asked for again.
        name.answered(now(), Ok(answer), &mut fastrand::Rng::with_seed(0));
        name.targets(now()).map(<[Target]>::to_vec)
    }

    /// What came of asking, for all who wait. When to ask again, as long as it is kept; `None` if that is for others to
    /// do by now.
    fn tell(
        &self,
        query: &Query,
        promise: Promise<Verdict>,
        answer: Result<Answer, Resolve>,
    ) -> Option<(Duration, Shared<()>)> {
        let now = now();
        let mut kept = self.lock();
        let Kept { names, rng, .. } = &mut *kept;
        let known = names.get_mut(query).filter(|known| known.is_asked_by(promise.shared()));
        let (verdict, again) = match known {
            Some(known) => {
                known.asking = None;
                known.was_asked_for = false;
                known.name.answered(now, answer, rng);
                let again = (known.name.next_lookup(), known.kept.shared().clone());
                (known.name.targets(now).map(Arc::from), Some(again))
            }
            // It has gone for want of room, or was despaired of. Those who wait get it all the same.
            None => {
                let mut name = Name::new(&self.limits.names);
                name.answered(now, answer, rng);
                (name.targets(now).map(Arc::from), None)
            }
        };
        drop(kept);
        promise.say(verdict);
        again
    }

    /// Asks again, if somebody asked for it since the last answer and nobody else does so now.
    fn begin_again(&self, query: &Query) -> Option<Promise<Verdict>> {
        let now = now();
        let mut kept = self.lock();
        let known = kept.names.get_mut(query)?;
        let is_due = now >= known.name.next_lookup();
        (is_due && known.was_asked_for && !known.is_asked()).then(|| known.begin())
    }

    /// Whoever asks does not come back. What is known without.
    fn despair(&self, query: &Query, shared: &Shared<Verdict>) -> Result<Vec<Target>, Resolve> {
        let now = now();
        let mut kept = self.lock();
        let Kept { names, rng, .. } = &mut *kept;
        let Some(known) = names.get_mut(query) else { return Err(Resolve::Timeout) };
        if known.is_asked_by(shared) {
            known.asking = None;
            known.name.answered(now, Err(Resolve::Timeout), rng);
        }
        known.name.targets(now).map(<[Target]>::to_vec)
    }
}

impl Kept {
    /// Lets the name go that was not used for longest, if there are as many as may be. To be dropped unlocked: it
    /// wakes.
    fn make_room(&mut self, names_max: usize) -> Option<Known> {
        if self.names.len() < names_max {
            return None;
        }
        // A look at each: it comes before a question to a name server, which takes far longer.
        let oldest = self.names.iter().min_by_key(|(_, known)| known.last_used);
        let oldest = oldest.map(|(query, _)| query.clone())?;
        self.names.remove(&oldest)
    }
}

impl Known {
    fn new(limits: &ResolveLimits) -> Self {
        Self {
            name: Name::new(&limits.names),
            last_used: 0,
            was_asked_for: false,
            asking: None,
            kept: Promise::new(),
        }
    }

    fn begin(&mut self) -> Promise<Verdict> {
        let promise = Promise::new();
        self.asking = Some(promise.shared().clone());
        promise
    }

    fn is_asked(&self) -> bool {
        self.asking.as_ref().is_some_and(|asking| !asking.is_over())
    }

    fn is_asked_by(&self, shared: &Shared<Verdict>) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.is(shared))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::Serve;
    use crate::resolve::Fixed;
    use crate::tasks::{Executor, sleep};

    fn tasks() -> usize {
        Executor::here().census().tasks
    }

    #[test]
    fn a_task_ends_with_its_name_and_with_the_resolver() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let builder = crate::Runtime::builder().listen(address);
        let serving = builder.serve(async |_| {}).expect("it starts");
        let checked = serving.spawner().spawn(|| async {
            let (fixed, before) = (Fixed::new(), tasks());
            let names = crate::resolve::NameLimits {
                ttl_min: Duration::from_secs(60),
                negative: Duration::from_secs(60),
                ..Default::default()
            };
            let limits = ResolveLimits { names, names_max: 3, ..ResolveLimits::default() };
            let resolver = Resolver::new(fixed.clone(), limits).expect("limits");
            for name in 0..50 {
                let name = format!("n{name}.example");
                fixed.set(&name, [IpAddr::from([192, 0, 2, 1])]).expect("a name");
                let query = Query::host(&name, 80).expect("a query");
                resolver.resolve(&query).await.expect("it is known");
            }
            sleep(Duration::from_millis(20)).await;
            assert_eq!((resolver.names(), tasks() - before), (3, 3));
            drop(resolver);
            sleep(Duration::from_millis(20)).await;
            assert_eq!(tasks(), before);
        });
        assert_eq!(checked.join(), Ok(()));
        serving.handle().drain();
        serving.join().expect("a drain in order");
    }
}
