//! Connections that are kept for the next who needs one: a pool, for one endpoint, on all reactors of a runtime.
//!
//! ```no_run
//! use slipring::pool::Pool;
//! use slipring::policy::pool::PoolLimits;
//! use slipring::{Conn, Error};
//!
//! // One value for all reactors; a plain connection is dialed when none is idle.
//! let pool = Pool::new("127.0.0.1:6379".parse()?, slipring::pool::Plain, PoolLimits::default())?;
//!
//! async fn ping(pool: &Pool<slipring::pool::Plain>) -> Result<(), Error> {
//!     let mut conn = pool.checkout().await?;
//!     let _ = conn.send(b"PING\r\n".to_vec()).await;
//!     let reply = conn.recv().await;
//!     if reply.is_none() {
//!         conn.mark_unclean(); // it is closed instead of kept
//!     }
//!     Ok(()) // dropped, it goes back
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!                        Pool, and what its reactors share: the cap, the orders
//!             +----------------------------+----------------------------+
//!   PoolRoom of reactor 0        PoolRoom of reactor 1              ...
//!     book     what each place has, who waits (policy::pool)
//!     kept     the connections, by the numbers of their places
//!     watcher  a task: sees that an idle one has ended, or speaks
//!     keeper   a task: what is due, what others want
//! ```
//!
//! Is: the room of [`policy::pool`](crate::policy::pool): it does what the book says, and tells it what happened. Is
//! not: a balancer; that and the rest of an upstream is `upstream`'s.
//!
//! *Across reactors* a connection does not move: it is known to the ring of its reactor. What moves is the right to
//! have one. A reactor that is refused says so, and who has an idle connection closes it and passes the token on; so
//! does who has more than its share and gets one back, though callers of its own wait; with fewer places than reactors,
//! they have them in turn. That costs a dial where a shared pool would hand the connection over; but it happens only at
//! the cap, and not for each call.
//!
//! *What is idle is watched*: a FIN, a reset or a byte that nobody asked for take a connection out of the pool at once,
//! and it is looked at once more when it is given out. So nothing is ever sent on one that is known to be dead.
//!
//! This file is the value that all reactors share; `pool/room.rs` is a reactor's side of it, `pool/steps.rs` what it
//! does for its book, `pool/keeper.rs` its two tasks, `pool/waiting.rs` a checkout, `pool/guard.rs` what that gives,
//! `pool/keep.rs` what can be pooled.

mod guard;
mod keep;
mod keeper;
mod room;
mod steps;
mod waiting;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use slipring_core::Doorbell;
use slipring_core::canary::{Canary, sings};

pub use guard::Pooled;
pub use keep::{Establish, Keep, Plain};

use crate::cap::Cap;
use crate::failure::Error;
use crate::policy::pool::{Mode, PoolCounters, PoolLimits, PoolLimitsError, PoolSnapshot};
use crate::tasks::{Executor, new_number};
use room::PoolRoom;

/// Connections to one endpoint, kept for the next who needs one. Cheap to clone; all clones are the same pool.
///
/// A pool belongs to the runtime whose task first uses it. When the last clone is dropped, it drains.
pub struct Pool<E: Establish> {
    shared: Arc<Shared<E>>,
    /// As long as somebody has this, the pool is in use.
    life: Arc<Life<E>>,
}

/// What the reactors of a pool share.
struct Shared<E> {
    number: u64,
    endpoint: SocketAddr,
    establish: E,
    limits: PoolLimits,
    seed: u64,
    is_draining: AtomicBool,
    team: OnceLock<Team>,
}

/// What there is once it is known which reactors there are.
struct Team {
    bell: Doorbell,
    places: Cap,
    /// By reactor: how its side stands, as of the last time its keeper looked.
    said: Box<[Mutex<Option<Said>>]>,
}

/// How one reactor's side of a pool stands.
#[derive(Clone, Debug)]
struct Said {
    snapshot: PoolSnapshot,
    counters: PoolCounters,
    last_dial_error: Option<Arc<Error>>,
}

/// Drains the pool when nobody has it any more.
struct Life<E>(Arc<Shared<E>>);

impl<E> Drop for Life<E> {
    fn drop(&mut self) {
        if sings(Canary::AbandonedPoolKept) {
            return;
        }
        self.0.drain();
    }
}

impl<E> Shared<E> {
    fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        if let Some(team) = self.team.get() {
            team.places.wake_all();
        }
    }

    /// # Panics
    /// If the pool is used by two runtimes.
    fn team(&self, bell: &Doorbell) -> &Team {
        let team = self.team.get_or_init(|| {
            let (_, reactors) = bell.reactor();
            Team {
                bell: bell.clone(),
                places: Cap::new(self.limits.mode.max(), reactors),
                said: (0..reactors).map(|_| Mutex::new(None)).collect(),
            }
        });
        assert!(
            team.bell.is_of_the_same_runtime(bell),
            "the pool for {} is used by two runtimes; make one for each of them",
            self.endpoint
        );
        team
    }

    /// The limits of one reactor's side. What is kept idle is divided: the first few have one more. How many there are
    /// in all is the cap's business.
    fn limits_of(&self, reactor: usize, reactors: usize) -> PoolLimits {
        let (reactor, reactors) = (reactor as u32, (reactors as u32).max(1));
        let min_idle = self.limits.mode.min_idle();
        let min_idle = min_idle / reactors + u32::from(reactor < min_idle % reactors);
        let mode = Mode::Dynamic { min_idle, max: self.limits.mode.max() };
        // All of a fixed number stay.
        let is_fixed = matches!(self.limits.mode, Mode::Fixed(_));
        let idle_timeout = self.limits.idle_timeout.filter(|_| !is_fixed);
        PoolLimits { mode, idle_timeout, ..self.limits }
    }
}

impl<E: Establish> Pool<E> {
    /// A pool of connections to this endpoint. Nothing is dialed before a task uses it; the connections to be kept idle
    /// are divided among the reactors, each of which sees to its own from its first use on.
    ///
    /// # Errors
    /// [`PoolLimitsError`], as [`PoolLimits::check`].
    pub fn new(
        endpoint: SocketAddr,
        establish: E,
        limits: PoolLimits,
    ) -> Result<Self, PoolLimitsError> {
        Self::with_seed(endpoint, establish, limits, fastrand::u64(..))
    }

    /// [`new`](Self::new), with the seed of what it draws (lifetimes, pauses), so that a simulation repeats.
    ///
    /// # Errors
    /// [`PoolLimitsError`], as [`PoolLimits::check`].
    pub fn with_seed(
        endpoint: SocketAddr,
        establish: E,
        limits: PoolLimits,
        seed: u64,
    ) -> Result<Self, PoolLimitsError> {
        limits.check()?;
        let shared = Arc::new(Shared {
            number: new_number(),
            endpoint,
            establish,
            limits,
            seed,
            is_draining: AtomicBool::new(false),
            team: OnceLock::new(),
        });
        let life = Arc::new(Life(Arc::clone(&shared)));
        Ok(Self { shared, life })
    }

    /// A connection: the one of this reactor that was used last, or a new one, or else the next that comes back, in the
    /// order of the calls. Dropping the future leaves the line; a dial that was begun for it goes on for the pool.
    ///
    /// # Errors
    /// [`Checkout`](crate::failure::Checkout) if the pool had none in time
    /// ([`checkout_timeout`](PoolLimits::checkout_timeout)) or as many wait as may; the error of the dial if that
    /// failed and nothing else is to be hoped for; [`Drain`](crate::failure::Drain) if the pool drains.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    pub fn checkout(&self) -> impl Future<Output = Result<Pooled<E>, Error>> + use<E> {
        let at = Location::caller();
        waiting::checkout(self.room(), at, self.shared.limits.checkout_timeout)
    }

    /// [`checkout`](Self::checkout), with a time of its own.
    ///
    /// # Errors
    /// As [`checkout`](Self::checkout).
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    pub fn checkout_within(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<Pooled<E>, Error>> + use<E> {
        waiting::checkout(self.room(), Location::caller(), Some(within))
    }

    /// A connection that was not kept, for who has found a kept one dead: dialed for this caller, if there is room. If
    /// not, those that are idle are closed, as they are likely dead, too, and it is as [`checkout`](Self::checkout).
    ///
    /// # Errors
    /// As [`checkout`](Self::checkout).
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    pub fn checkout_fresh(&self) -> impl Future<Output = Result<Pooled<E>, Error>> + use<E> {
        let at = Location::caller();
        waiting::checkout_fresh(self.room(), at, self.shared.limits.checkout_timeout)
    }

    /// An idle connection of this reactor, if nobody waits for one and there is one that is known to be fit. No dial is
    /// begun, and nothing is looked at, for who would not wait for it.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[track_caller]
    #[must_use]
    pub fn try_checkout(&self) -> Option<Pooled<E>> {
        self.room().try_checkout(Location::caller())
    }

    /// Gives nothing out any more: who waits is told so, idle connections are closed, those in use when they come back.
    pub fn drain(&self) {
        self.shared.drain();
    }

    // ------------------------------------------------------------------------------ being asked

    /// Where its connections lead.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        self.shared.endpoint
    }

    /// The limits it was made with.
    #[must_use]
    pub fn limits(&self) -> &PoolLimits {
        &self.shared.limits
    }

    /// This reactor's side at this moment: what there is, who waits and for how long, where the oldest checkout was
    /// taken.
    ///
    /// # Panics
    /// Outside of a reactor's tasks.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        self.room().snapshot()
    }

    /// All sides, by reactor, as of the last time each looked, which is at most a second ago while it is in use. `None`
    /// for those that have not used it. From anywhere.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Option<PoolSnapshot>> {
        self.said(|said| said.snapshot)
    }

    /// How often what has happened, as of then, over all reactors. From anywhere.
    #[must_use]
    pub fn counters(&self) -> PoolCounters {
        let sides = self.said(|said| said.counters).into_iter().flatten();
        sides.fold(PoolCounters::default(), PoolCounters::plus)
    }

    /// Why a dial failed last, on a reactor on which none went well since. From anywhere.
    #[must_use]
    pub fn last_dial_error(&self) -> Option<Error> {
        let errors = self.said(|said| said.last_dial_error.as_deref().cloned());
        errors.into_iter().flatten().flatten().next()
    }

    /// Connections that are open or being dialed, over all reactors: exact when nobody is at work.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.shared.team.get().map_or(0, |team| team.places.used())
    }

    fn said<T>(&self, tell: impl Fn(&Said) -> T) -> Vec<Option<T>> {
        let Some(team) = self.shared.team.get() else { return Vec::new() };
        let lock = |said: &Mutex<Option<Said>>| {
            said.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(&tell)
        };
        team.said.iter().map(lock).collect()
    }

    /// [`checkout_within`](Self::checkout_within), for another place of the code.
    pub(crate) async fn take(
        &self,
        at: &'static Location<'static>,
        within: Duration,
    ) -> Result<Pooled<E>, Error> {
        waiting::checkout(self.room(), at, Some(within)).await
    }

    /// [`checkout_fresh`](Self::checkout_fresh), the same way.
    pub(crate) async fn take_fresh(
        &self,
        at: &'static Location<'static>,
        within: Duration,
    ) -> Result<Pooled<E>, Error> {
        waiting::checkout_fresh(self.room(), at, Some(within)).await
    }

    /// Closes the connection of this reactor that is idle for longest, if nobody waits for one here. Whether there was
    /// one.
    pub(crate) fn spare(&self) -> bool {
        self.found().is_some_and(|room| room.spare())
    }

    /// Nobody comes for a connection of this reactor any more, but for who has one or waits: none is kept idle.
    pub(crate) fn keep_none_idle(&self) {
        if let Some(room) = self.found().filter(|room| !room.is_over.get()) {
            room.keep_none_idle();
            while room.spare() {}
        }
    }

    /// Whether somebody of this reactor waits for a dial: for any, or for one of its own.
    pub(crate) fn is_wanted(&self) -> bool {
        self.found().is_some_and(|room| room.is_wanted())
    }

    /// This reactor's side, if it has one.
    fn found(&self) -> Option<Rc<PoolRoom<E>>> {
        Executor::look(|executor| executor.find_room(self.shared.number))?
    }

    /// This reactor's side, for who uses it often.
    #[track_caller]
    pub(crate) fn room(&self) -> Rc<PoolRoom<E>> {
        if let Some(room) = Executor::look(|executor| executor.find_room(self.shared.number)) {
            return room.unwrap_or_else(|| self.open());
        }
        self.open()
    }

    #[cold]
    #[track_caller]
    fn open(&self) -> Rc<PoolRoom<E>> {
        let executor = Executor::here();
        executor.room(self.shared.number, || PoolRoom::open(&self.shared, &executor))
    }
}

impl<E: Establish> Clone for Pool<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), life: Arc::clone(&self.life) }
    }
}

impl<E: Establish> fmt::Debug for Pool<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("endpoint", &self.shared.endpoint)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}
