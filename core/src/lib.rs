//! The mechanism of slipring: one reactor per CPU that owns TCP connections on io_uring.
//!
//! Most users want the `slipring` crate, which re-exports this one and adds what stands on it. This one
//! knows nothing of upstreams, TLS or HTTP.
//!
//! ```text
//! kernel CQE -> Completion -> Token -> Connection -> Handler -> Outbox -> Action -> Submission -> kernel SQE
//!           sys/ring      token    connection    handler   outbox   connection  reactor    sys/ring
//! ```

mod acceptor;
pub mod access;
pub mod admission;
pub mod calling;
pub mod canary;
pub mod clock;
pub mod config;
pub mod connection;
mod connections;
pub mod control;
pub mod counters;
pub mod door;
mod drain;
pub mod driver;
mod error;
pub mod front;
mod handler;
mod listen;
pub mod loads;
pub mod mailbox;
pub mod moving;
pub mod outbox;
pub mod pace;
pub mod placement;
mod places;
pub mod polling;
pub mod rates;
pub mod reactor;
pub mod runtime;
mod shedding;
pub mod slab;
mod slip;
pub mod sources;
pub mod span;
mod sync;
pub mod sys;
pub mod token;
pub mod tokens;
pub mod wheel;

pub use access::{Access, Prefix, PrefixError};
pub use config::{Dial, Limits, Poll, Timeout, Timeouts};
pub use connections::{Connections, DialRefused, Doorbell, SendRefused};
pub use counters::{Counters, Ledger, Snapshot, TurnTimes};
pub use driver::TcpInfo;
pub use error::{CloseReason, Fault, SetupError};
pub use handler::{Ctx, Handler, Origin, Outgoing};
pub use listen::{Listen, OnFull, Placement};
pub use moving::Luggage;
pub use rates::{Rate, RateError};
pub use runtime::{Builder, Handle, RunError, Running, Runtime, Team};
pub use sources::SourceLimits;
pub use sys::memory::{Lease, LeaseMut};
pub use token::Key;
pub use tokens::Tokens;
