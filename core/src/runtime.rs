//! The process: reactors on their cores, from their start to the end of their drain.
//!
//! ```no_run
//! # use slipring_core::{Ctx, Handler, Lease, Runtime, SetupError};
//! # struct Echo;
//! # impl Handler for Echo {
//! #     type State = ();
//! #     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) { ctx.send(data); }
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let running = Runtime::builder().listen("127.0.0.1:7000".parse()?).start(|_core| Echo)?;
//! println!("listening on {}", running.addresses()[0]);
//! running.join()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything that can be refused is refused before the first client: the kernel's features are tried,
//! limits computed and compared, addresses claimed, rings made on their threads. Only when all reactors
//! have said that they are ready does any of them run.
//!
//! This file is a runtime that runs; `runtime/builder.rs` says what it will be, `runtime/team.rs` is what its
//! reactors have in common, `runtime/threads.rs` gets them onto their cores, `runtime/watch.rs` looks whether they
//! turn.

mod builder;
mod team;
#[cfg(test)]
mod tests;
mod threads;
mod watch;

use std::net::SocketAddr;
use std::thread::JoinHandle;

use crate::counters::Counters;
use crate::driver::DriverFailed;
use crate::sys::Features;

pub use builder::Builder;
pub use team::{Handle, Team};
use threads::ReactorThread;
pub use watch::{LOOK_US, STALL_US, Stall, Watch};

/// The name under which runtimes are built.
#[derive(Debug)]
pub struct Runtime;

impl Runtime {
    /// A runtime to be: no listeners, every core this process may use, the defaults of
    /// [`Limits`](crate::Limits) and [`Timeouts`](crate::Timeouts).
    pub fn builder() -> Builder {
        Builder::new()
    }
}

/// A runtime that runs. Dropping it lets the reactors run on; use [`Handle::drain`] and [`Running::join`].
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    addresses: Vec<SocketAddr>,
    threads: Vec<ReactorThread>,
    watch: JoinHandle<()>,
    features: Features,
    memory_bound: u64,
    max_connections: u32,
}

impl Running {
    /// Where it listens, in the order of the `listen` calls.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the kernel can do.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// What its own structures may come to, bytes.
    #[must_use]
    pub fn memory_bound(&self) -> u64 {
        self.memory_bound
    }

    /// Accepted connections it holds at most.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections
    }

    /// Reactors.
    #[must_use]
    pub fn reactors(&self) -> usize {
        self.threads.len()
    }

    /// Stops it from anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until a drain is complete: what each reactor counted.
    ///
    /// # Errors
    /// [`RunError`] when a reactor failed; the others have been drained then.
    pub fn join(self) -> Result<Vec<Counters>, RunError> {
        let mut result = Ok(());
        for (reactor, thread) in self.threads.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(failed)) => RunError::Driver { reactor, failed },
                Err(_) => RunError::Panicked { reactor },
            };
            result = result.and(Err(ended));
        }
        self.watch.thread().unpark();
        // It has nothing to tell; a panic in it has been told.
        let _ = self.watch.join();
        result?;
        Ok(self.handle.control.reports().iter().map(|report| report.counters).collect())
    }
}

/// A reactor ended otherwise than by a drain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Its ring failed.
    #[error("reactor {reactor} stopped: {failed}")]
    Driver {
        /// Its number.
        reactor: usize,
        /// What failed.
        failed: DriverFailed,
    },
    /// It panicked outside of a handler: a bug of slipring.
    #[error("reactor {reactor} panicked; this is a bug of slipring, please report it")]
    Panicked {
        /// Its number.
        reactor: usize,
    },
}
