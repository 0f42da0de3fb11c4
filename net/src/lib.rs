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
//! What it does *not* do yet: `async fn` services, pools, retries and balancing beyond round-robin. It
//! never speaks a protocol above TCP.
#![forbid(unsafe_code)]

pub mod conn;
mod relay;
mod tasks;
#[cfg(feature = "tls")]
pub mod tls;

pub use conn::{
    Conn, DialError, End, ReadHalf, SendError, Serve, Serving, Tasks, WriteHalf, dial, serve, tasks,
};
pub use relay::Relay;
pub use slipring_core::*;
pub use tasks::{
    BlockingLimits, BlockingLimitsError, BlockingSnapshot, Elapsed, JoinError, JoinHandle,
    RemoteJoin, Scope, Sleep, Spawner, blocking_snapshot, draining, now, set_blocking_limits,
    sleep, sleep_until, spawn_local, timeout, unblock, yield_now,
};
