//! Work that blocks, aside from the reactors: threads that run it, and the line in which it waits for one.
//!
//! ```text
//!   unblock(work) ---> line, in the order of arrival ---> a thread of the crew ---> result, waker of the task
//!        |                       |                             |
//!     dropped:             taken out of it               runs to its end, its result is dropped
//! ```
//!
//! Is not: a pool for computations that are to use every core. The reactors are on those, and these threads compete
//! with them.
//!
//! *Why one crew for a process*, and not one for each runtime: what bounds blocking work is the machine, its disks and
//! its cores, and a second runtime adds none. And a runtime's end would have to wait for work that cannot be ended.
//!
//! *Why one line*, and no second one in front of a full one: who stands in it is a future that somebody holds, and
//! leaves with it, so there are never more than there are tasks that wait. A place in a full line would have to be kept
//! for a future until it is polled, and one that is held but not polled would keep it from all others.
//!
//! *Why a thread does not keep to the core of whoever started it*: a thread inherits what its parent may run on, and a
//! reactor is pinned. The crew would share one core with it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::catching::catch;
use super::join::JoinError;
use super::remote::RemoteJoin;
use super::{Executor, sleep, yield_now};

/// Threads for each core, by default: most of such work waits for a disk or another process.
const THREADS_PER_CORE: usize = 4;
/// Threads by default, however many cores there are.
const THREADS_DEFAULT_MAX: usize = 64;
/// More are taken for a mistake: each has a stack.
const THREADS_MAX: usize = 4096;

/// The stack of a thread: what the standard library gives to one.
const STACK_BYTES: usize = 2 << 20;

static CREW: LazyLock<Crew> = LazyLock::new(|| Crew::new(BlockingLimits::default()));

/// How many threads [`unblock`] may use, and for how long they stay: for [`set_blocking_limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockingLimits {
    /// Threads of the process at most, from 1 to 4096. Default: four for each core †, 64 at most †.
    pub threads_max: usize,
    /// A thread without work for so long ends. Default 10 s †.
    pub idle: Duration,
}

impl Default for BlockingLimits {
    fn default() -> Self {
        // Not those of this thread, which may be a reactor's.
        let cores = cores().map_or(1, |cores| cores.count() as usize);
        let threads_max = (cores * THREADS_PER_CORE).clamp(1, THREADS_DEFAULT_MAX);
        Self { threads_max, idle: Duration::from_secs(10) }
    }
}

/// Why limits were not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockingLimitsError {
    /// `unblock` was used before.
    #[error(
        "blocking work has run already, under the limits there were; set them before the first `unblock`, \
         best before a runtime is started"
    )]
    InUse,
    /// More threads than may be, or none.
    #[error("{threads_max} threads for blocking work; say from 1 to {THREADS_MAX}")]
    Threads {
        /// Those asked for.
        threads_max: usize,
    },
}

/// How the threads of [`unblock`] stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockingSnapshot {
    /// Threads there are.
    pub threads: usize,
    /// Those of them that have nothing to do.
    pub idle: usize,
    /// Pieces of work that wait for a thread. If this grows, work comes in faster than it is done.
    pub waiting: usize,
}

/// Sets the limits of the process for [`unblock`]. To be called before its first use; may be called again until then.
///
/// # Errors
/// [`BlockingLimitsError`]: they are as before.
pub fn set_blocking_limits(limits: BlockingLimits) -> Result<(), BlockingLimitsError> {
    CREW.limit(limits)
}

/// How the threads of [`unblock`] stand, and how much waits for them.
#[must_use]
pub fn blocking_snapshot() -> BlockingSnapshot {
    CREW.snapshot()
}

/// Runs work that blocks on a thread that may: a file, a name to be resolved, a password to be hashed. The reactor goes
/// on meanwhile. What it returns comes back, so it has to be `Send`, as the work has.
///
/// ```no_run
/// # async fn example() -> Result<(), slipring::JoinError> {
/// let hosts = slipring::unblock(|| std::fs::read_to_string("/etc/hosts")).await?;
/// println!("{hosts:?}");
/// # Ok(())
/// # }
/// ```
///
/// The threads are those of the process ([`BlockingLimits`]), started when they are needed; they end when they have had
/// nothing to do for 10 s. When all are busy, work waits, first come, first served. Nothing bounds how long.
///
/// *Dropped* before a thread has begun, the work is taken out of the line and dropped. Work that has begun cannot be
/// ended: it goes on, keeps its thread, and its result is dropped on that thread. A drain waits for a task that waits
/// here if it waits for that task; the end of a runtime does not wait for the work, nor does the end of the process.
///
/// Where [`Tasks::with_inline_blocking`](crate::Tasks::with_inline_blocking) says so, it runs on the reactor's thread.
/// Outside of a reactor's tasks, on any other executor, it does the same as within.
///
/// # Errors
/// [`JoinError::Panicked`] if the work panicked, which ends nothing but the work; [`JoinError::NoThread`] if the system
/// has no thread for it and there is none yet.
pub async fn unblock<W, T>(work: W) -> Result<T, JoinError>
where
    W: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Executor::with(|executor| executor.inline_blocking.get()).flatten() {
        Some(takes) => run_inline(work, takes).await,
        None => CREW.enter(work).await,
    }
}

/// Where time is virtual and there is one thread: the work runs now, and is done after a time.
async fn run_inline<T>(work: impl FnOnce() -> T, takes: Duration) -> Result<T, JoinError> {
    let result = Executor::elsewhere(|| run(work));
    // Never at once: whoever drops the future while it waits finds it waiting here too.
    if takes.is_zero() {
        yield_now().await;
    } else {
        sleep(takes).await;
    }
    result
}

fn run<T>(work: impl FnOnce() -> T) -> Result<T, JoinError> {
    catch(work).ok_or(JoinError::Panicked)
}

// ---------------------------------------------------------------------------------------- the crew

type Job = Box<dyn FnOnce(Call) + Send>;

/// What becomes of work whose turn has come.
enum Call {
    Run,
    NoThread,
}

/// Threads that run blocking work, and what waits for them.
struct Crew {
    state: Mutex<State>,
    stack_bytes: usize,
}

struct State {
    limits: BlockingLimits,
    is_in_use: bool,
    /// By their tickets, which are in the order of arrival.
    line: BTreeMap<u64, Job>,
    next_ticket: u64,
    threads: usize,
    /// Threads that wait for work, the one that has waited least last: it is called first, so that the others' time
    /// comes.
    idle: Vec<Arc<Condvar>>,
}

impl Crew {
    fn new(limits: BlockingLimits) -> Self {
        let state = State {
            limits,
            is_in_use: false,
            line: BTreeMap::new(),
            next_ticket: 0,
            threads: 0,
            idle: Vec::new(),
        };
        Self { state: Mutex::new(state), stack_bytes: STACK_BYTES }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of users runs while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn limit(&self, limits: BlockingLimits) -> Result<(), BlockingLimitsError> {
        let threads_max = limits.threads_max;
        if !(1..=THREADS_MAX).contains(&threads_max) {
            return Err(BlockingLimitsError::Threads { threads_max });
        }
        let mut state = self.lock();
        if state.is_in_use {
            return Err(BlockingLimitsError::InUse);
        }
        state.limits = limits;
        Ok(())
    }

    fn snapshot(&self) -> BlockingSnapshot {
        let state = self.lock();
        BlockingSnapshot {
            threads: state.threads,
            idle: state.idle.len(),
            waiting: state.line.len(),
        }
    }

    /// Puts work at the end of the line, and sees to a thread for it.
    fn enter<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Place<T> {
        let (ending, result) = RemoteJoin::new();
        let job = Box::new(move |call: Call| {
            ending.set(match call {
                Call::Run => run(work),
                Call::NoThread => Err(JoinError::NoThread),
            });
        });
        let mut state = self.lock();
        state.is_in_use = true;
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.line.insert(ticket, job);
        if let Some(idle) = state.idle.pop() {
            idle.notify_one();
        } else if state.threads < state.limits.threads_max {
            state.threads += 1;
            drop(state);
            self.hire();
        }
        Place { crew: self, ticket, result, is_over: false }
    }

    /// Starts a thread. If there is none to be had, those there are will do.
    fn hire(&'static self) {
        let thread = std::thread::Builder::new().name("slipring-unblock".to_owned());
        let started = thread.stack_size(self.stack_bytes).spawn(|| self.serve());
        let Err(error) = started else { return };
        tracing::warn!(%error, "no thread could be started for blocking work");
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 {
            // Nobody would ever come for those in the line.
            let line = std::mem::take(&mut state.line);
            drop(state);
            for job in line.into_values() {
                let _ = catch(|| job(Call::NoThread));
            }
        }
    }

    /// What a thread does: whatever stands first in the line, until it has had nothing to do for long enough.
    fn serve(&self) {
        run_on_any_core();
        let called = Arc::new(Condvar::new());
        let mut state = self.lock();
        loop {
            if let Some((_, job)) = state.line.pop_first() {
                drop(state);
                // The work's own panics are caught within. What is left is the drop of a result that nobody waits for.
                let _ = catch(|| job(Call::Run));
                state = self.lock();
                continue;
            }
            let is_idle = |state: &State| state.idle.iter().any(|idle| Arc::ptr_eq(idle, &called));
            state.idle.push(Arc::clone(&called));
            let idle = state.limits.idle;
            let waited = called.wait_timeout_while(state, idle, |state| is_idle(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if is_idle(&state) {
                state.idle.retain(|idle| !Arc::ptr_eq(idle, &called));
                state.threads -= 1;
                return;
            }
        }
    }

    /// Takes work out of the line, if it still stands there.
    fn leave(&self, ticket: u64) {
        let job = self.lock().line.remove(&ticket);
        // What it owns is dropped here, with the line unlocked.
        drop(job);
    }
}

/// Work in the line, or on its way: a future of its result.
struct Place<T> {
    crew: &'static Crew,
    ticket: u64,
    result: RemoteJoin<T>,
    is_over: bool,
}

impl<T> Future for Place<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.result).poll(cx);
        self.is_over = polled.is_ready();
        polled
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        if !self.is_over {
            self.crew.leave(self.ticket);
        }
    }
}

/// What the process's first thread may run on.
fn cores() -> Option<CpuSet> {
    sched_getaffinity(Some(rustix::process::getpid())).ok()
}

/// A thread starts with the core of its parent, and a reactor has one only: from here on it may use all. If the system
/// does not let it, it runs all the same.
pub(crate) fn run_on_any_core() {
    if let Some(cores) = cores() {
        let _ = sched_setaffinity(None, &cores);
    }
}

#[cfg(test)]
mod tests;
