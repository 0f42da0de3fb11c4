//! A runtime whose connections are served by tasks.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use slipring_core::{Builder, Counters, Handle, RunError, Running, Runtime, SetupError};

use super::{Conn, Tasks, tasks};
use crate::tasks::Spawner;

/// Serves each client of an address by a task of its own, with the defaults of [`Runtime::builder`]: one reactor for
/// each core. `service` is cloned for each reactor, and what it makes stays on it: neither has to be `Send` but the
/// first.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let serving = slipring::serve("127.0.0.1:7000".parse()?, |mut conn| async move {
///     while let Some(data) = conn.recv().await { conn.send(data).await?; }
///     Ok::<_, slipring::SendError>(())
/// })?;
/// # serving.join()?;
/// # Ok(())
/// # }
/// ```
///
/// What the task returns is dropped: what should be known of its end, it says itself.
///
/// # Errors
/// [`SetupError`]: the cause and the remedy.
pub fn serve<S, F>(address: SocketAddr, service: S) -> Result<Serving, SetupError>
where
    S: FnMut(Conn) -> F + Clone + Send + 'static,
    F: Future + 'static,
{
    Runtime::builder().listen(address).serve(service)
}

/// [`serve`] for a runtime with more to say about: [`Builder::serve`](Serve::serve).
pub trait Serve {
    /// Starts the runtime, and serves each accepted connection by a task of its own. See [`serve`].
    ///
    /// # Errors
    /// [`SetupError`]: the cause and the remedy.
    fn serve<S, F>(self, service: S) -> Result<Serving, SetupError>
    where
        S: FnMut(Conn) -> F + Clone + Send + 'static,
        F: Future + 'static;
}

impl Serve for Builder {
    fn serve<S, F>(self, service: S) -> Result<Serving, SetupError>
    where
        S: FnMut(Conn) -> F + Clone + Send + 'static,
        F: Future + 'static,
    {
        // One for each reactor; a mutex, since a closure that is called from many threads has to be `Sync`.
        let service = Mutex::new(service);
        start(self, move |_reactor| {
            tasks(service.lock().unwrap_or_else(PoisonError::into_inner).clone())
        })
    }
}

/// Starts a runtime whose reactors run these.
pub(crate) fn start<S, F>(
    builder: Builder,
    make: impl Fn(usize) -> Tasks<S> + Send + Sync + 'static,
) -> Result<Serving, SetupError>
where
    S: FnMut(Conn) -> F + 'static,
    F: Future + 'static,
{
    let remotes = Arc::new(Mutex::new(Vec::new()));
    let registered = Arc::clone(&remotes);
    let running = builder.start(move |reactor| {
        let handler = make(reactor);
        let remote = Arc::clone(handler.executor().remote());
        registered.lock().unwrap_or_else(PoisonError::into_inner).push((reactor, remote));
        handler
    })?;
    let mut remotes = std::mem::take(&mut *remotes.lock().unwrap_or_else(PoisonError::into_inner));
    remotes.sort_by_key(|(reactor, _)| *reactor);
    let spawner = Spawner::new(remotes.into_iter().map(|(_, remote)| remote).collect());
    Ok(Serving { running, spawner })
}

/// A runtime that serves by tasks. Dropping it lets it run on.
#[derive(Debug)]
pub struct Serving {
    running: Running,
    spawner: Spawner,
}

impl Serving {
    /// Where it listens, in the order of the `listen` calls.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        self.running.addresses()
    }

    /// Drains or aborts it, from any thread.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// Starts tasks on its reactors, from any thread.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// The runtime, for what else there is to be known of it.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The runtime, and what starts tasks on it.
    #[must_use]
    pub fn into_parts(self) -> (Running, Spawner) {
        (self.running, self.spawner)
    }

    /// Waits until a drain is complete: what each reactor counted.
    ///
    /// # Errors
    /// [`RunError`] when a reactor failed; the others have been drained then.
    pub fn join(self) -> Result<Vec<Counters>, RunError> {
        self.running.join()
    }
}
