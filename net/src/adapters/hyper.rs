//! Feature `hyper`: what hyper asks of a runtime, of a reactor.
//!
//! ```no_run
//! use std::convert::Infallible;
//!
//! use hyper::body::Incoming;
//! use hyper::service::service_fn;
//! use hyper::{Request, Response};
//! use slipring::Conn;
//! use slipring::adapters::hyper::ReactorTimer;
//!
//! async fn hello(_request: Request<Incoming>) -> Result<Response<String>, Infallible> {
//!     Ok(Response::new("hello\n".to_owned()))
//! }
//!
//! async fn serve(conn: Conn) -> hyper::Result<()> {
//!     let mut http = hyper::server::conn::http1::Builder::new();
//!     http.timer(ReactorTimer).serve_connection(conn, service_fn(hello)).await
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     slipring::serve("127.0.0.1:7000".parse()?, serve)?.join()?;
//!     Ok(())
//! }
//! ```
//!
//! | hyper asks for | a reactor has |
//! |---|---|
//! | `Read`, `Write` | [`Conn`]: one copy, into hyper's buffer and out of it |
//! | `Timer`, `Sleep` | [`ReactorTimer`]: the reactor's clock, virtual where that is |
//! | `Executor` | [`ReactorExecutor`]: tasks of the reactor, which need not be `Send` |
//!
//! *Why a timer can be `Send` and `Sync`*, as hyper wants of it, though it belongs to a reactor: it is nothing but a
//! name, and a sleep nothing but numbers. Both find the reactor by the thread that polls them, and panic where there is
//! none.

use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Executor, Read, ReadBufCursor, Sleep, Timer, Write};
use slipring_core::clock::Instant;

use super::stream::{Part, Stream, poll_read, writes};
use crate::{Conn, tasks};

macro_rules! reads {
    ($type:ty) => {
        impl Read for $type {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                mut into: ReadBufCursor<'_>,
            ) -> Poll<Result<()>> {
                if into.remaining() == 0 {
                    return Poll::Ready(Ok(()));
                }
                poll_read(self.get_mut(), cx, |bytes| {
                    let count = bytes.len().min(into.remaining());
                    into.put_slice(&bytes[..count]);
                    count
                })
            }
        }
    };
}

reads!(Conn);
writes!(Write for Conn, poll_shutdown, is_write_vectored);
#[cfg(feature = "tls")]
reads!(crate::tls::TlsConn);
#[cfg(feature = "tls")]
writes!(Write for crate::tls::TlsConn, poll_shutdown, is_write_vectored);

/// The timers of the reactor that polls. For the builders of hyper's connections.
///
/// # Panics
/// Its methods, and its sleeps when they are polled, panic outside of a reactor's tasks; a sleep also on another
/// reactor than the one that polled it first.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorTimer;

impl Timer for ReactorTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(tasks::sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(tasks::sleep_until(tasks::instants().since_start(deadline)))
    }

    fn now(&self) -> Instant {
        tasks::instants().at(tasks::now().as_micros() as u64)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<tasks::Sleep>() {
            Some(sleep) => sleep.get_mut().reset(tasks::instants().since_start(new_deadline)),
            // Of another timer.
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

impl Sleep for tasks::Sleep {}

/// Runs what hyper spawns as tasks of the reactor, as [`spawn_local`](crate::spawn_local) does. HTTP/2 needs it: a task
/// for each request.
///
/// # Panics
/// When something is spawned outside of a reactor's tasks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReactorExecutor;

impl<F> Executor<F> for ReactorExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        // Nobody asks how it ends: hyper's tasks tell each other.
        drop(tasks::spawn_local(future));
    }
}
