//! Connections in the clothes of other interfaces, each behind a cargo feature.
//!
//! | feature | what [`Conn`](crate::Conn) becomes | for |
//! |---|---|---|
//! | `futures-io` | `futures_io::{AsyncRead, AsyncWrite}`, its halves too | `futures`, TLS and protocol crates on it |
//! | `tokio-io` | `tokio::io::{AsyncRead, AsyncWrite}`, its halves too | `tokio-util` codecs, clients of tokio |
//! | `hyper` | `hyper::rt::{Read, Write}`; [`hyper::ReactorTimer`], [`hyper::ReactorExecutor`] | HTTP/1 and HTTP/2 |
//! | `tower` | the request of a `tower_service::Service`: [`tower::serve_service`] | services with readiness |
//!
//! With the feature `tls` a `TlsConn` is what a `Conn` is, but for its halves: plaintext in, plaintext out, and its end
//! is the peer's close_notify.
//!
//! None of them is a runtime: the crates are named for their traits, and tasks, timers and sockets stay the reactor's.
//! What asks for a runtime's own sockets or timers (`tokio::net`, `tokio::time`) does not work here.
//!
//! What the byte streams promise, in all three of their forms:
//!
//! * *Read* copies once, from the kernel's buffer into the caller's; what does not fit is there for the next read. End
//!   of stream means that the peer's FIN is in, and nothing else does: a reset, a timeout or a drain is an error.
//! * *Write* waits for back-pressure only, then takes up to 64 KiB in one copy. Many slices become one piece. Neither
//!   memory that is short nor a full outbox is an error. Behind a shutdown, writing is `BrokenPipe`.
//! * *Flush* does not wait. What was taken is the reactor's, and is on its way without being asked: it goes to the
//!   kernel in this turn, or as soon as the peer makes room. That is what a socket does, and what codecs and hyper
//!   build on: waiting for the outbox would put a turn, or a slow peer, between any two messages. It fails if what was
//!   sent is lost.
//! * *Shutdown*, or close, puts our FIN behind what waits and does not wait either. Reading goes on. Dropping the
//!   connection later drops nothing of what was written: it ends in order.
//! * By TLS, a record that was taken waits for room or memory if there is none, and flush and shutdown wait with it.
//!   Who drops the connection without either, while that is so, resets it: the peer must not take a part for all.
//! * Errors are `io::Error`s of the fitting kind; `get_ref()` has the [`CloseReason`](crate::CloseReason).
//!
//! *Wake-ups.* A connection remembers one reader and one writer, so the two directions may be polled by different
//! tasks, as split halves are. Two tasks that poll the same direction wake only the last.

#[cfg(feature = "futures-io")]
mod futures;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(any(feature = "futures-io", feature = "tokio-io", feature = "hyper"))]
mod stream;
#[cfg(all(feature = "tls", any(feature = "futures-io", feature = "tokio-io", feature = "hyper")))]
mod tls;
#[cfg(feature = "tokio-io")]
mod tokio;
#[cfg(feature = "tower")]
pub mod tower;
