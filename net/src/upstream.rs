//! An upstream: one named set of endpoints, and all that is done so that a request gets a connection to one that works.
//!
//! ```no_run
//! use slipring::upstream::{Request, Upstream};
//! use slipring::{Conn, Idempotency};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let redis = Upstream::builder("redis")
//!     .endpoint("10.0.0.1:6379".parse()?)
//!     .endpoint("10.0.0.2:6379".parse()?)
//!     .build()?;
//!
//! // In a task of a reactor: a connection of a pool, another endpoint if one fails, and so on.
//! # async fn example(redis: Upstream) -> Result<(), slipring::Error> {
//! let reply = redis
//!     .call(&Request::default(), Idempotency::Idempotent, async |stream| {
//!         stream.send(b"PING\r\n".to_vec()).await?;
//!         stream.recv_some().await
//!     })
//!     .await?;
//! assert_eq!(&*reply, b"+PONG\r\n");
//! # Ok(())
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!   connect   a stream of its own        \      +- begin: breaker, balancer        <----+
//!   checkout  a stream of a pool          > --> |  attempt: line, dial or pool           | retry: policy, budget
//!   call      .. and what is done with it/      +- judge: breaker, outlier, balancer ----+
//! ```
//!
//! Is: rooms for the verdicts of [`policy`](crate::policy), one on each reactor, and what they share: the table of
//! docs/upstreams.md says what crosses, and how. Is not: a protocol. What a request is, and whether it was answered
//! well, only the caller knows.
//!
//! | file | what it is |
//! |---|---|
//! | `limits` | the knobs |
//! | `members` | the endpoints, as all reactors see them |
//! | `parties` | who has its connections, and who gives one up at the cap |
//! | `room` | one reactor's verdicts, and who gets a call |
//! | `call` | one attempt, from its choice to its judgement |
//! | `attempts` | the loop of retries |
//! | `lent` | what requests get: a stream, and what has to be given back with it |
//! | `following` | where its names lead |
//! | `dialer` | how connections of its pools come about |
//! | `upkeep` | what is said to other reactors, checks, probes |
//! | `snapshot` | an upstream at one moment, for people |
//! | `counters` | how often what has happened |

mod attempts;
mod call;
mod counters;
mod dialer;
mod following;
mod lent;
mod limits;
mod members;
mod parties;
mod room;
mod snapshot;
mod upkeep;

use std::fmt;
use std::net::SocketAddr;
use std::ops::AsyncFnMut;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use slipring_core::Doorbell;

pub use counters::UpstreamCounters;
pub use dialer::{Counted, Dialer};
pub use lent::{Connected, Held, Lent};
pub use limits::{UpstreamLimits, UpstreamLimitsError};
pub use snapshot::{EndpointSnapshot, UpstreamSnapshot};

use crate::cap::Cap;
use crate::connector::{About, Connector, Stream};
use crate::failure::{Error, Idempotency, Resolve};
use crate::policy::breaker::{BreakerState, Standing};
use crate::policy::names::{Target, is_public_address};
use crate::policy::outlier::Ejections;
use crate::policy::pool::PoolCounters;
use crate::pool::Pool;
use crate::resolve::{Query, ResolveLimits, ResolveLimitsError, Source};
use crate::tasks::{Executor, Spawner, new_number};
use following::{Followed, Following, Found};
use members::{Listed, Member, Numbers, Roster};
use room::{Asking, UpstreamRoom};

/// What a request asks of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What [`Maglev`](crate::policy::balancer::Algorithm::Maglev) goes by: equal ones go to the same endpoint.
    /// Default: none, so any.
    pub hash: Option<u64>,
    /// In what time it has to be over, from the call on; for a [`connect`](Upstream::connect) and a
    /// [`checkout`](Upstream::checkout), in what time it has to have its connection. Default:
    /// [`connect_within`](UpstreamLimits::connect_within) for these, and none for what a call does then.
    pub within: Option<Duration>,
    /// What a PROXY header says, if the connector sends one, of a connection of the request's own
    /// ([`connect`](Upstream::connect)). Those of a pool are for many, and say that they are for nobody. Default: for
    /// nobody.
    pub about: About,
}

/// One named set of endpoints. Cheap to clone; all clones are the same. It belongs to the runtime whose task first uses
/// it.
/// When the last clone is dropped, it closes what its pools kept.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
    /// As long as somebody has this, the upstream is in use.
    _life: Arc<Life>,
}

/// Nobody has the upstream any more: its rooms end, each when it next looks.
struct Life(Arc<Shared>);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.is_abandoned.store(true, Ordering::SeqCst);
    }
}

/// What the reactors of an upstream share.
pub(crate) struct Shared {
    number: u64,
    name: Box<str>,
    limits: UpstreamLimits,
    connector: Connector,
    seed: u64,
    roster: Mutex<Arc<Roster>>,
    /// Counts the rosters, from 1.
    version: AtomicU64,
    /// Counts what checks have changed.
    health_changes: AtomicU64,
    following: Following,
    /// Who waits for the first roster that is known.
    waiting: Mutex<Vec<Waker>>,
    numbers: Arc<Numbers>,
    ejections: Arc<Ejections>,
    breaker: BreakerState,
    is_abandoned: AtomicBool,
    team: OnceLock<Team>,
}

/// What there is once it is known which reactors there are.
struct Team {
    bell: Doorbell,
    connections: Arc<Cap>,
    pending: Arc<Cap>,
    /// What each reactor's calls came to, for the breaker.
    counts: Box<[AtomicU64]>,
    /// What each reactor has counted, as of when it last told the others.
    counted: Box<[Mutex<UpstreamCounters>]>,
}

impl Shared {
    /// # Panics
    /// If the upstream is used by two runtimes.
    fn team(&self, bell: &Doorbell) -> &Team {
        let team = self.team.get_or_init(|| {
            let (_, reactors) = bell.reactor();
            Team {
                bell: bell.clone(),
                connections: Arc::new(Cap::new(self.limits.connections_max, reactors)),
                pending: Arc::new(Cap::new(self.limits.pending_max, reactors)),
                counts: (0..reactors).map(|_| AtomicU64::new(0)).collect(),
                counted: (0..reactors).map(|_| Mutex::default()).collect(),
            }
        });
        assert!(
            team.bell.is_of_the_same_runtime(bell),
            "the upstream {} is used by two runtimes; make one for each of them",
            self.name
        );
        team
    }

    /// What this reactor, or all but it, have counted as of when they last told.
    fn counted(&self, is_wanted: impl Fn(usize) -> bool) -> UpstreamCounters {
        let Some(team) = self.team.get() else { return UpstreamCounters::default() };
        let wanted = team.counted.iter().enumerate().filter(|(reactor, _)| is_wanted(*reactor));
        wanted.fold(UpstreamCounters::default(), |sum, (_, counted)| {
            sum.plus(*counted.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This reactor's side.
    #[track_caller]
    fn room(this: &Arc<Self>) -> Rc<UpstreamRoom> {
        let executor = Executor::here();
        executor.room(this.number, || UpstreamRoom::open(this, &executor))
    }

    /// From now on these belong to it; who is in both stays who it is. `failure`: why there are none, if a name leads
    /// nowhere.
    fn publish(this: &Arc<Self>, found: &[Found<'_>], failure: Option<Resolve>) {
        let mut roster = this.roster.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&roster);
        let known = |found: &Found<'_>| {
            before.members().find(|member| member.address() == found.target.address).map(Arc::clone)
        };
        let known: Vec<_> = found.iter().map(known).collect();
        // Who is there stays: those that come have what room is left.
        let staying = known.iter().flatten().count();
        let mut room = (this.limits.endpoints_max as usize).saturating_sub(staying);
        if found.len() > staying + room {
            tracing::warn!(
                upstream = %this.name,
                endpoints = found.len(),
                limit = this.limits.endpoints_max,
                "more endpoints than the upstream may have; the rest is left aside, raise `endpoints_max`"
            );
        }
        let mut members = Vec::with_capacity(staying + room.min(found.len()));
        for (Found { target, name }, known) in found.iter().zip(known) {
            let listed = |member| Listed { member, tier: target.tier, weight: target.weight };
            if let Some(member) = known {
                members.push(listed(member));
                continue;
            }
            let Some(left) = room.checked_sub(1) else { continue };
            room = left;
            let number = this.numbers.take();
            let connector = match name {
                Some(name) => this.connector.for_what_leads_there(name),
                None => this.connector.clone(),
            };
            let dialer = Dialer::new(Arc::downgrade(this), connector.clone(), number);
            let seed = this.seed ^ u64::from(number) << 40;
            let pool = Pool::with_seed(target.address, dialer, this.limits.pool, seed)
                .expect("the limits were checked");
            let numbers = Arc::clone(&this.numbers);
            let (address, is_first) = (target.address, !before.is_known);
            let member = Member::new(number, address, connector, pool, is_first, numbers);
            if before.is_known && this.limits.health.is_some() {
                // As its checks take it for until the first.
                member.set_up(false, Duration::ZERO);
            }
            members.push(listed(member));
        }
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        this.ejections.set_members(count);
        *roster = Arc::new(Roster { members, failure, is_known: true });
        drop(roster);
        this.version.fetch_add(1, Ordering::SeqCst);
        let waiting =
            std::mem::take(&mut *this.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

// ------------------------------------------------------------------------------------- building

/// Sets up an [`Upstream`].
#[must_use]
pub struct UpstreamBuilder {
    name: String,
    targets: Vec<Target>,
    names: Vec<Followed>,
    /// Names that were addresses.
    addresses: Vec<(SocketAddr, ResolveLimits)>,
    connector: Connector,
    limits: UpstreamLimits,
    seed: Option<u64>,
}

/// Why an upstream was not set up.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// It leads nowhere.
    #[error("the upstream has no endpoint; add one by `endpoint`, or a name by `name`")]
    NoEndpoint,
    /// The same twice.
    #[error("the endpoint {0} stands there twice; give it a weight instead")]
    Twice(SocketAddr),
    /// A name that is an address, and one that its limits let nobody be led to.
    #[error(
        "{0} is not public, and as a name of this upstream it has to be; correct it, or leave `is_public` out"
    )]
    NotPublic(SocketAddr),
    /// Its limits make no sense.
    #[error(transparent)]
    Limits(#[from] UpstreamLimitsError),
    /// Those of its names do not.
    #[error("names: {0}")]
    Names(#[from] ResolveLimitsError),
}

impl UpstreamBuilder {
    /// An endpoint, with weight 1, of the first tier.
    pub fn endpoint(self, address: SocketAddr) -> Self {
        self.target(Target::new(address))
    }

    /// An endpoint with a weight, from 1 to 256, and a tier: those of a higher one are asked when those below are down.
    pub fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Wherever a name leads, for as long as it leads there: each of its addresses is an endpoint, with the weight and
    /// the tier that the source says. One task of one reactor follows it. A name that is an address needs no source.
    ///
    /// With TLS, certificates of what is found have to be for this name, unless the connector has one of its own
    /// (`ConnectorBuilder::server_name`); for a service (`srv:_http._tcp.example.com`) they have to be for its domain
    /// (`example.com`), as whoever forges the answer could name any host.
    ///
    /// ```
    /// use slipring::resolve::{Fixed, ResolveLimits};
    /// use slipring::upstream::Upstream;
    ///
    /// let hosts = Fixed::new();
    /// hosts.set("cache.example", [std::net::IpAddr::from([192, 0, 2, 1])])?;
    /// let upstream = Upstream::builder("cache")
    ///     .name("cache.example:11211".parse()?, hosts, ResolveLimits::default())
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(mut self, query: Query, source: impl Source, limits: ResolveLimits) -> Self {
        match query.address() {
            Some(address) => {
                self.targets.push(Target::new(address));
                self.addresses.push((address, limits));
            }
            None => self.names.push(Followed { query, source: Arc::new(source), limits }),
        }
        self
    }

    /// How connections are established. Default: [`Connector::default`].
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// Its knobs. Default: [`UpstreamLimits::default`].
    pub fn limits(mut self, limits: UpstreamLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The seed of all that is drawn, so that a simulation repeats. Default: another each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The upstream. Nothing is dialed before it is used.
    ///
    /// # Errors
    /// [`UpstreamError`]: the cause and the remedy.
    pub fn build(self) -> Result<Upstream, UpstreamError> {
        self.limits.check()?;
        let mut targets = self.targets;
        if targets.is_empty() && self.names.is_empty() {
            return Err(UpstreamError::NoEndpoint);
        }
        for name in &self.names {
            name.limits.check()?;
        }
        for (address, limits) in &self.addresses {
            limits.check()?;
            if limits.names.is_public && !is_public_address(address.ip()) {
                return Err(UpstreamError::NotPublic(*address));
            }
        }
        targets.sort_unstable_by_key(|target| target.address);
        if let Some(pair) = targets.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(UpstreamError::Twice(pair[0].address));
        }
        let following = Following::new(targets, self.names);
        // All may be others at once, while calls are under way on those that have left.
        let ejections = Arc::new(Ejections::new(self.limits.endpoints_max.saturating_mul(2)));
        let numbers = Numbers::new(Arc::clone(&ejections));
        let shared = Arc::new(Shared {
            number: new_number(),
            name: self.name.into(),
            limits: self.limits,
            connector: self.connector,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
            roster: Mutex::default(),
            version: AtomicU64::new(0),
            health_changes: AtomicU64::new(0),
            following,
            waiting: Mutex::default(),
            numbers,
            ejections,
            breaker: BreakerState::new(),
            is_abandoned: AtomicBool::new(false),
            team: OnceLock::new(),
        });
        following::begin(&shared);
        let life = Arc::new(Life(Arc::clone(&shared)));
        Ok(Upstream { shared, _life: life })
    }
}

impl fmt::Debug for UpstreamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBuilder")
            .field("name", &self.name)
            .field("targets", &self.targets)
            .finish_non_exhaustive()
    }
}

// ------------------------------------------------------------------------------------- using

impl Upstream {
    /// To set one up. The name is for logs and metrics.
    pub fn builder(name: impl Into<String>) -> UpstreamBuilder {
        UpstreamBuilder {
            name: name.into(),
            targets: Vec::new(),
            names: Vec::new(),
            addresses: Vec::new(),
            connector: Connector::default(),
            limits: UpstreamLimits::default(),
            seed: None,
        }
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The knobs it was made with.
    #[must_use]
    pub fn limits(&self) -> &UpstreamLimits {
        &self.shared.limits
    }

    /// Begins on all reactors of a runtime: endpoints are checked, connections that are to be idle are dialed. Without
    /// this each reactor begins when a task of it first uses the upstream.
    pub fn start(&self, spawner: &Spawner) {
        for reactor in 0..spawner.reactors() {
            let shared = Arc::clone(&self.shared);
            // Nothing to wait for.
            drop(spawner.spawn_on(reactor, move || async move {
                Shared::room(&shared);
            }));
        }
    }

    /// A connection of the request's own, to an endpoint that works: one that fails is followed by another, at once.
    /// For whoever relays, or speaks a protocol that has no requests.
    ///
    /// Dropping the future gives it up.
    ///
    /// # Errors
    /// [`Error`]: of the last attempt, or why there was none.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    pub async fn connect(&self, request: &Request) -> Result<Connected, Error> {
        Asking::of(Shared::room(&self.shared)).connect(request).await
    }

    /// A connection of the pool of an endpoint that works. Dropped, it goes back: see
    /// [`Pooled`](crate::pool::Pooled). What comes of it counts for the breaker and the endpoint: what failed on the
    /// stream last, else a success, unless [`Lent::failed`] says otherwise.
    ///
    /// # Errors
    /// [`Error`]: of the last attempt, or why there was none.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    pub fn checkout(&self, request: &Request) -> impl Future<Output = Result<Lent, Error>> + use<> {
        let (room, request) = (Asking::of(Shared::room(&self.shared)), *request);
        let at = Location::caller();
        async move { room.checkout(&request, at).await }
    }

    /// Does something over a connection of a pool, and again if that is allowed and pays: elsewhere, on a fresh
    /// connection or later, as [`RetryPolicy`](crate::policy::retry::RetryPolicy) has it. `act` sends a request and
    /// receives its answer, whole; an error of the stream is to be passed on, since it knows what was under way.
    ///
    /// With [`Idempotency::ConnectOnly`] nothing is sent twice. Dropping the future closes the connection, as an answer
    /// may be on its way.
    ///
    /// # Errors
    /// [`Error`]: of the last attempt, or why there was none.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    pub fn call<T, F>(
        &self,
        request: &Request,
        idempotency: Idempotency,
        act: F,
    ) -> impl Future<Output = Result<T, Error>> + use<T, F>
    where
        F: AsyncFnMut(&mut Stream) -> Result<T, Error>,
    {
        let (room, request) = (Asking::of(Shared::room(&self.shared)), *request);
        let at = Location::caller();
        async move { room.call(&request, idempotency, at, act).await }
    }

    /// How its breaker stands. From anywhere.
    #[must_use]
    pub fn breaker(&self) -> Standing {
        self.shared.breaker.standing()
    }

    /// How it stands at this moment, as this reactor sees it.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[must_use]
    pub fn snapshot(&self) -> UpstreamSnapshot {
        Shared::room(&self.shared).snapshot()
    }

    /// How often what has happened, over all reactors: as of a tenth of a second ago, and of a second while nothing is
    /// asked of it. [`snapshot`](Self::snapshot) has what the present reactor did up to now. From anywhere.
    #[must_use]
    pub fn counters(&self) -> UpstreamCounters {
        self.shared.counted(|_| true)
    }

    /// How often what has happened in the pools of the endpoints that there are now, over all reactors, each as of a
    /// second ago at most. An endpoint that leaves takes its numbers along. From anywhere.
    #[must_use]
    pub fn pool_counters(&self) -> PoolCounters {
        let roster = self.shared.roster();
        let counters = roster.members().map(|member| member.pool.counters());
        counters.fold(PoolCounters::default(), PoolCounters::plus)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
