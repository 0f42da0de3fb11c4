//! Own TCP connections on Linux io_uring: thread-per-core reactors with zero-copy buffers.
//!
//! A server is a [`Handler`], called on the thread of the reactor that owns the connection:
//!
//! ```no_run
//! use slipring::{Ctx, Handler, Lease, Runtime};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type State = ();
//!
//!     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
//!         ctx.send(data); // the kernel's own buffer goes back out: nothing is copied
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let address = "127.0.0.1:7000".parse()?;
//!     let running = Runtime::builder().listen(address).start(|_reactor| Echo)?;
//!     println!("listening on {}", running.addresses()[0]);
//!     running.join()?;
//!     Ok(())
//! }
//! ```
//!
//! As `async fn`, with a task for each connection: [`serve`] and [`Conn`]. What blocks goes to [`unblock`].
//! With the features `futures-io`, `tokio-io`, `hyper` and `tower` its connections are those of other libraries too:
//! `adapters`. Names of upstreams are found by [`resolve`]; with the feature `dns` it asks name servers.
//!
//! What stands behind it is an [`upstream`]: names resolved, connections dialed, pooled, balanced, checked and tried
//! again.
//!
//! What it does *not* do: it never speaks a protocol above TCP.
#![forbid(unsafe_code)]

#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper", feature = "tower"))]
pub mod adapters;
mod cap;
pub mod conn;
pub mod connector;
pub mod failure;
#[cfg(feature = "faults")]
pub mod faults;
pub mod health;
pub mod policy;
pub mod pool;
pub mod proxy_protocol;
mod relay;
pub mod resolve;
mod tasks;
#[cfg(feature = "tls")]
pub mod tls;
pub mod upstream;

pub use conn::{
    BusyFlag, Conn, DialError, End, ReadHalf, Relayed, Relaying, SendError, Serve, Serving, Stir,
    Tasks, WriteHalf, dial, dial_with, relay, serve, tasks,
};
pub use failure::{Error, Idempotency};
pub use relay::Relay;
pub use slipring_core::*;
pub use tasks::{
    BlockingLimits, BlockingLimitsError, BlockingSnapshot, Census, Elapsed, JoinError, JoinHandle,
    RemoteJoin, Scope, Sleep, Spawner, blocking_snapshot, draining, now, set_blocking_limits,
    sleep, sleep_until, spawn_local, timeout, unblock, yield_now,
};

/// The programs of docs/guide, run as tests, and those of the README, which would not end, compiled: a page that is
/// wrong fails `cargo test`. Pages that need the simulator or tokio are run by the packages that have them.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/guide/first-server.md")]
    struct FirstServer;
    #[doc = include_str!("../../docs/guide/back-pressure.md")]
    struct BackPressure;
    #[doc = include_str!("../../docs/guide/cancellation.md")]
    struct Cancellation;
    #[doc = include_str!("../../docs/guide/timeouts.md")]
    struct Timeouts;
    #[doc = include_str!("../../docs/guide/blocking-work.md")]
    struct BlockingWork;
    #[doc = include_str!("../../docs/guide/errors.md")]
    struct Errors;
    #[doc = include_str!("../../docs/guide/upstreams.md")]
    struct Upstreams;
}
