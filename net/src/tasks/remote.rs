//! What other threads reach a reactor's tasks by: wake-ups and new tasks, left in one place, and a ring of its bell.
//!
//! Executors have numbers, of which one is a part of every waker: whoever wakes from elsewhere finds the place by it.
//! The number of an executor that is gone goes to the next one, which counts the generations of its tasks from where
//! the first has come to: a waker that has outlived the first finds nobody. What there is room for holds an
//! [`ExecutorId`] instead, which is never used again.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use slipring_core::Doorbell;
use slipring_core::canary::{Canary, sings};

use super::ending::{Ending, Outcome, SaidTo};
use super::entries::Kept;
use super::join::JoinError;
use super::waking::{TaskId, drop_replaced};
use super::{Executor, Kind};

static EXECUTORS: RwLock<Vec<Seat>> = RwLock::new(Vec::new());

/// Names an executor, and never another one: its number, and how many have had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExecutorId {
    pub(super) number: u16,
    serial: NonZeroU32,
}

/// What there is of a number.
struct Seat {
    /// Of the executor that has it.
    remote: Option<Arc<Remote>>,
    /// The one that has it, or had it last.
    id: ExecutorId,
    /// What the tasks of the last one have come to.
    generation: u32,
}

type Make = Box<dyn FnOnce(&Rc<Executor>) + Send>;

/// What came for an executor since it last looked.
#[derive(Default)]
pub(super) struct Incoming {
    /// Each task once, however often it was woken.
    pub(super) woken: BTreeSet<u64>,
    pub(super) spawned: Vec<Make>,
    /// What it keeps for nobody any more.
    pub(super) let_go: Vec<Kept>,
}

#[derive(Default)]
struct Place {
    incoming: Incoming,
    bell: Option<Doorbell>,
    is_closed: bool,
}

/// The side of an executor that other threads see.
pub(crate) struct Remote {
    place: Mutex<Place>,
    /// Something is in the place.
    has_incoming: AtomicBool,
}

impl Remote {
    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing that can panic runs while it is locked.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connect(&self, bell: Doorbell) {
        self.lock().bell = Some(bell);
    }

    pub(super) fn has_incoming(&self) -> bool {
        self.has_incoming.load(Ordering::Acquire)
    }

    /// Whether tasks are on their way.
    pub(super) fn has_spawned(&self) -> bool {
        self.has_incoming() && !self.lock().incoming.spawned.is_empty()
    }

    pub(super) fn take(&self) -> Option<Incoming> {
        if !self.has_incoming() {
            return None;
        }
        let mut place = self.lock();
        self.has_incoming.store(false, Ordering::Relaxed);
        Some(std::mem::take(&mut place.incoming))
    }

    /// Whether it was left: not if the executor is gone.
    fn leave(&self, leave: impl FnOnce(&mut Incoming)) -> bool {
        let mut place = self.lock();
        if place.is_closed {
            return false;
        }
        leave(&mut place.incoming);
        // The first rings: who comes until the executor looks finds it rung.
        if !self.has_incoming.swap(true, Ordering::AcqRel)
            && let Some(bell) = &place.bell
            && !sings(Canary::RemoteWakeUnrung)
        {
            bell.ring();
        }
        true
    }

    /// Nobody looks any more but for this.
    pub(super) fn close(&self) -> Incoming {
        let mut place = self.lock();
        place.is_closed = true;
        place.bell = None;
        self.has_incoming.store(false, Ordering::Relaxed);
        std::mem::take(&mut place.incoming)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

/// A name for a new executor, what the generations of its tasks begin behind, and its outer side.
pub(super) fn register() -> (ExecutorId, u32, Arc<Remote>) {
    let remote = Arc::new(Remote { place: Mutex::default(), has_incoming: AtomicBool::new(false) });
    let mut executors = EXECUTORS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(seat) = executors.iter_mut().find(|seat| seat.remote.is_none()) {
        let serial = seat.id.serial.checked_add(1);
        seat.id.serial = serial.expect("a number goes to fewer than 2^32 executors");
        seat.remote = Some(Arc::clone(&remote));
        return (seat.id, seat.generation, remote);
    }
    let number = u16::try_from(executors.len()).expect("a process has at most 65,536 reactors");
    let id = ExecutorId { number, serial: NonZeroU32::MIN };
    executors.push(Seat { remote: Some(Arc::clone(&remote)), id, generation: 0 });
    (id, 0, remote)
}

/// It is gone: its tasks have come to this generation.
pub(super) fn forget(id: ExecutorId, generation: u32) {
    let mut executors = EXECUTORS.write().unwrap_or_else(PoisonError::into_inner);
    let seat = &mut executors[usize::from(id.number)];
    (seat.remote, seat.generation) = (None, generation);
}

/// The executor of this number, if `is_meant` says of its name that it is the one.
fn find(number: u16, is_meant: impl FnOnce(ExecutorId) -> bool) -> Option<Arc<Remote>> {
    let executors = EXECUTORS.read().unwrap_or_else(PoisonError::into_inner);
    executors.get(usize::from(number)).filter(|seat| is_meant(seat.id))?.remote.clone()
}

/// Wakes a task of whichever executor it belongs to.
pub(super) fn wake(id: TaskId) {
    if let Some(remote) = find(id.executor, |_| true) {
        remote.leave(|incoming| {
            incoming.woken.insert(id.to_bits());
        });
    }
}

/// What an executor keeps is wanted no more.
pub(super) fn let_go(of: ExecutorId, kept: Kept) {
    if let Some(remote) = find(of.number, |id| id == of) {
        remote.leave(|incoming| incoming.let_go.push(kept));
    }
}

// ------------------------------------------------------------------------- tasks from other threads

/// Starts tasks on the reactors of a runtime, from any thread.
#[derive(Clone, Debug)]
pub struct Spawner {
    remotes: Arc<[Arc<Remote>]>,
    next: Arc<AtomicUsize>,
}

impl Spawner {
    pub(crate) fn new(remotes: Vec<Arc<Remote>>) -> Self {
        Self { remotes: remotes.into(), next: Arc::default() }
    }

    /// Reactors there are.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.remotes.len()
    }

    /// Runs a future on one of the reactors, which take turns. It is made there by `make`, so it need not be `Send`;
    /// its result comes back, and has to be. The task goes on when the result is not waited for. A drain waits for it
    /// as it does for connections.
    ///
    /// On a runtime that has ended it is [`Cancelled`](JoinError::Cancelled).
    ///
    /// ```no_run
    /// # fn example(spawner: &slipring::Spawner) -> Result<(), slipring::JoinError> {
    /// let greeting = spawner.spawn(|| async {
    ///     let mut conn = slipring::dial("127.0.0.1:7000".parse().unwrap()).await.ok()?;
    ///     conn.recv().await.map(|lease| lease.to_vec())
    /// });
    /// println!("{:?}", greeting.join()?); // or `.await`, on any executor
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<M, F>(&self, make: M) -> RemoteJoin<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let reactor = self.next.fetch_add(1, Ordering::Relaxed) % self.remotes.len();
        self.spawn_on(reactor, make)
    }

    /// The same, on the reactor of this number.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn spawn_on<M, F>(&self, reactor: usize, make: M) -> RemoteJoin<F::Output>
    where
        M: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        let (ending, result) = RemoteJoin::new();
        let make: Make = Box::new(move |executor| {
            let task = async move {
                let result = make().await;
                ending.set(Ok(result));
            };
            executor.spawn(Kind::Serving, task);
        });
        // A runtime that is gone drops it here, which says that it was cancelled.
        let mut make = Some(make);
        self.remotes[reactor].leave(|incoming| incoming.spawned.extend(make.take()));
        drop(make);
        result
    }
}

/// An end that is said on one thread and waited for on another.
pub(super) struct Shared<T> {
    outcome: Mutex<Outcome<T>>,
    ended: Condvar,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Outcome<T>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> SaidTo<T> for Arc<Shared<T>> {
    fn end(&self, result: Result<T, JoinError>) -> Option<Waker> {
        let waits = self.lock().end(result);
        self.ended.notify_all();
        waits
    }
}

/// The result of a task on a reactor, for another thread: a future for any executor, or [`join`](Self::join) to block.
#[must_use = "dropping it lets the task run on, with nobody to learn how it ends"]
pub struct RemoteJoin<T> {
    shared: Arc<Shared<T>>,
}

impl<T> RemoteJoin<T> {
    /// A result to come, and what says it.
    pub(super) fn new() -> (Ending<T, Arc<Shared<T>>>, Self) {
        let shared = Arc::new(Shared { outcome: Mutex::default(), ended: Condvar::new() });
        (Ending::new(Arc::clone(&shared)), Self { shared })
    }

    /// Blocks until the task has ended. Not for a reactor's own thread: that would wait for itself.
    ///
    /// # Errors
    /// [`JoinError`] if it was cancelled or has panicked.
    pub fn join(self) -> Result<T, JoinError> {
        let mut outcome = self.shared.lock();
        loop {
            if let Some(result) = outcome.take() {
                return result;
            }
            outcome = self.shared.ended.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for RemoteJoin<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled again behind its result.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let (polled, left) = self.shared.lock().poll(waker);
        drop_replaced(left);
        polled
    }
}

impl<T> fmt::Debug for RemoteJoin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoin").finish_non_exhaustive()
    }
}
