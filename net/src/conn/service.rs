//! The handler beneath: what happens to connections, told to their tasks.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slipring_core::calling::Task;
use slipring_core::canary::{Canary, sings};
use slipring_core::{CloseReason, Connections, Ctx, Handler, Key, Lease, Origin};

use super::shell::{self, Remains, Shell};
use super::{Conn, relaying};
use crate::tasks::{Census, Executor, Spawner};

/// A handler that runs a task for each connection it accepts: what [`tasks`] makes.
pub struct Tasks<S> {
    service: S,
    executor: Rc<Executor>,
    remains: Remains,
    /// Accepted in this turn.
    accepted: Vec<Key>,
}

/// A handler that serves each accepted connection by a task of its own: `service` makes its future, and is called on
/// the reactor. For [`Builder::start`](crate::Builder::start), and for whoever runs handlers otherwise, such as the
/// simulator; [`serve`](crate::serve) is shorter.
///
/// ```no_run
/// use slipring::{Conn, Runtime, tasks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let running = Runtime::builder()
///     .listen("127.0.0.1:7000".parse()?)
///     .start(|_reactor| {
///         tasks(|mut conn: Conn| async move {
///             while let Some(data) = conn.recv().await {
///                 if conn.send(data).await.is_err() {
///                     break;
///                 }
///             }
///         })
///     })?;
/// # running.join()?;
/// # Ok(())
/// # }
/// ```
pub fn tasks<S, F>(service: S) -> Tasks<S>
where
    S: FnMut(Conn) -> F,
    F: Future + 'static,
{
    Tasks { service, executor: Executor::new(), remains: Remains::default(), accepted: Vec::new() }
}

impl<S> Tasks<S> {
    /// Runs [`unblock`](crate::unblock)'s work on the reactor's own thread, at once, and gives its result after this
    /// time of the reactor's clock (zero: in the next round of polls). For simulations: they have one thread and
    /// virtual time, and threads beside them would make no two runs alike. On a runtime it blocks the reactor.
    ///
    /// All work begins when it is first polled, however much there is: that there are so many threads and no more is
    /// not simulated.
    #[must_use]
    pub fn with_inline_blocking(self, takes: Duration) -> Self {
        self.executor.block_inline(takes);
        self
    }

    /// How much there is of everything that tasks hold: for tests that nothing is left, and for whoever watches.
    #[must_use]
    pub fn census(&self) -> Census {
        Census { ended: self.remains.len(), ..self.executor.census() }
    }

    /// Starts tasks on this reactor, from any thread. [`Serving::spawner`](crate::Serving::spawner) has all reactors
    /// of a runtime.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner::new(vec![Arc::clone(self.executor.remote())])
    }

    pub(super) fn executor(&self) -> &Rc<Executor> {
        &self.executor
    }
}

impl<S, F> Handler for Tasks<S>
where
    S: FnMut(Conn) -> F,
    F: Future + 'static,
{
    type State = Shell;

    fn on_start(&mut self, connections: &mut Connections<Shell>) {
        self.executor.connect(connections.bell(), connections.task_notes());
    }

    fn on_open(&mut self, ctx: &mut Ctx<'_, Shell>, origin: Origin) {
        ctx.state().is_open = true;
        match origin {
            Origin::Accepted(_) => {
                ctx.state().handles = 1;
                self.accepted.push(ctx.key());
            }
            Origin::Dialed => {
                if let Some(waker) = ctx.state().writer.take() {
                    self.executor.wake_waker(waker);
                }
            }
        }
    }

    #[inline]
    fn on_data(&mut self, ctx: &mut Ctx<'_, Shell>, data: Lease) {
        let key = ctx.key();
        if let Some(partner) = ctx.state().partner.key() {
            return ctx.forward(partner, data);
        }
        if let Some(waker) = ctx.state().receive(data, key, &mut self.remains) {
            self.executor.wake_waker(waker);
        }
    }

    fn on_eof(&mut self, ctx: &mut Ctx<'_, Shell>) {
        let shell = ctx.state();
        shell.is_ended = true;
        if let Some(partner) = shell.partner.key() {
            return ctx.shutdown_of(partner);
        }
        if let Some(waker) = shell.reader.take() {
            self.executor.wake_waker(waker);
        }
    }

    fn on_writable(&mut self, ctx: &mut Ctx<'_, Shell>) {
        let shell = ctx.state();
        // Who waits for a relay waits for its end only.
        if shell.partner.key().is_none()
            && let Some(waker) = shell.writer.take()
        {
            self.executor.wake_waker(waker);
        }
    }

    fn on_turn(&mut self, connections: &mut Connections<Shell>) {
        let Self { service, executor, remains, accepted, .. } = self;
        let (now_us, is_draining) = (connections.now_us(), !connections.is_ready());
        let reactor = connections.reactor() as u16;
        executor.enter(|| {
            shell::lend(connections, remains, || {
                for key in accepted.drain(..) {
                    executor.serve(Task::of(key), || service(Conn::of(key, reactor)));
                }
                executor.turn(now_us, is_draining);
            });
        });
        remains.hold_back_the_unread(connections);
        for _ in 0..executor.take_panics() {
            connections.count_panic();
        }
    }

    fn next_turn_ms(&self) -> Option<u64> {
        if self.accepted.is_empty() { self.executor.next_turn_ms() } else { Some(0) }
    }

    fn is_busy(&self) -> bool {
        let serves = self.executor.is_serving() && !sings(Canary::DrainForgetsTasks);
        !self.accepted.is_empty() || serves
    }

    fn is_idle(&self, shell: &Shell) -> bool {
        shell.is_idle()
    }

    fn on_end(&mut self, connections: &mut Connections<Shell>) {
        self.accepted.clear();
        let Self { executor, remains, .. } = self;
        shell::lend(connections, remains, || executor.clear());
        remains.clear();
        for _ in 0..executor.take_panics() {
            connections.count_panic();
        }
    }

    fn on_close(&mut self, ctx: &mut Ctx<'_, Shell>, reason: CloseReason) {
        let key = ctx.key();
        if let Some(partner) = ctx.state().partner.key() {
            relaying::end(ctx, partner, reason);
        }
        ctx.state().end(key, reason, &mut self.remains, &self.executor);
    }
}

impl<S> Drop for Tasks<S> {
    fn drop(&mut self) {
        self.executor.clear();
    }
}

impl<S> fmt::Debug for Tasks<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("executor", &self.executor).finish_non_exhaustive()
    }
}
