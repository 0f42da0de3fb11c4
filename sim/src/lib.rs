//! Drivers that are not a kernel: test a handler, or the reactor itself, without a socket.
//!
//! | part | is | for |
//! |---|---|---|
//! | [`Stage`] | a reactor with one handler over a [`Scripted`] driver | tests of handlers |
//! | [`Scripted`] | a driver that does what the test says, and checks what the reactor asks for | tests of the reactor |
//! | [`Null`] | a driver that does nothing, at no cost | measuring what the reactor costs by itself |
//!
//! Not here: a network, faults drawn from a seed, several reactors. A scripted driver decides nothing by
//! itself; whoever drives it says what completes, with what, and in which order.
//!
//! ```
//! use slipring_core::{Ctx, Handler, Lease};
//! use slipring_sim::Stage;
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
//! let mut stage = Stage::new(Shout);
//! let client = stage.accept();
//! stage.receive(client, b"hello");
//! assert_eq!(stage.sent(client), b"HELLO");
//! stage.end_of_stream(client);
//! assert!(stage.driver().is_closed(client));
//! ```

#![forbid(unsafe_code)]

pub mod campaign;
mod dice;
mod engine;
mod kernel;
mod knobs;
mod marks;
mod null;
mod ring;
mod scripted;
mod stage;
pub mod swarm;
mod trace;

pub use knobs::Knobs;
pub use marks::{Mark, Marks};
pub use null::Null;
pub use scripted::{Operation, Scripted, Submitted};
pub use stage::{Conditions, Stage};
