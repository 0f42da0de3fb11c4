//! Test a handler, or the reactor itself, without a socket.
//!
//! | part | is | for |
//! |---|---|---|
//! | [`Sim`] | reactors over a simulated kernel: virtual time, peers by script, faults by seed | tests of handlers |
//! | [`check`], [`explore`] | many seeds, one after the other | the same |
//! | [`Stage`] | a reactor with one handler over a [`Scripted`] driver | tests of handlers, completion by completion |
//! | [`Scripted`] | a driver that does what a test says, and checks what it is asked for | tests of the reactor |
//! | [`Null`] | a driver that does nothing, at no cost | measuring what the reactor costs by itself |
//! | [`swarm`] | random services and random peers under the simulated kernel | tests of slipring itself |
//!
//! A handler runs in a simulation as it is: the same type, the same calls, the same rules. docs/simulation.md
//! shows how a bug is found.
//!
//! ```
//! use slipring_core::{Ctx, Handler, Lease};
//! use slipring_sim::{Script, Sim, check};
//!
//! /// The service under test: it shouts back.
//! struct Shout;
//!
//! impl Handler for Shout {
//!     type State = ();
//!
//!     fn on_data(&mut self, ctx: &mut Ctx<'_, ()>, data: Lease) {
//!         ctx.send(data.to_ascii_uppercase());
//!     }
//! }
//!
//! check(100, |seed| {
//!     let mut sim = Sim::new(seed, |_reactor| Shout);
//!     let peer = sim.connect(Script::new().send(b"hello").expect(b"HELLO").shutdown().expect_end());
//!     sim.run();
//!     assert_eq!(sim.received(peer), b"HELLO");
//!     sim.finish();
//! });
//! ```

//!
//! A service of tasks runs in the same way:
//!
//! ```
//! use std::time::Duration;
//!
//! use slipring::{Conn, tasks, timeout};
//! use slipring_sim::{Script, Sim, check};
//!
//! async fn shout(mut conn: Conn) {
//!     // Nothing for a second is no end: the wait is dropped, and what comes then is there for the next.
//!     loop {
//!         match timeout(Duration::from_secs(1), conn.recv()).await {
//!             Ok(Some(data)) if conn.send(data.to_ascii_uppercase()).await.is_ok() => {}
//!             Err(_) => continue,
//!             _ => return,
//!         }
//!     }
//! }
//!
//! check(100, |seed| {
//!     let mut sim = Sim::new(seed, |_reactor| tasks(shout));
//!     let script = Script::new().pause(Duration::from_secs(3)).send(b"hello").expect(b"HELLO");
//!     sim.connect(script.shutdown().expect_end());
//!     sim.finish();
//!     assert_eq!(sim.handler(0).census(), slipring::Census::default());
//! });
//! ```

#![forbid(unsafe_code)]

pub mod campaign;
pub mod conformance;
mod dice;
mod engine;
mod kernel;
mod knobs;
mod marks;
mod null;
mod paced;
mod peer;
mod ring;
mod scripted;
mod sim;
mod stage;
pub mod swarm;
mod trace;

pub use knobs::Knobs;
pub use marks::{Mark, Marks};
pub use null::Null;
pub use peer::{End, PeerId, Script};
pub use scripted::{Operation, Scripted, Submitted};
pub use sim::{Failure, Sim, SimBuilder, check, explore};
pub use stage::{Conditions, Stage};

/// Runs the page's programs as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide/testing-under-the-simulator.md")]
struct TestingUnderTheSimulator;
