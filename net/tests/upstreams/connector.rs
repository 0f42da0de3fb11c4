//! Connections to upstreams on the real kernel: how they come about, and how their streams end.
//!
//! One topic a file, in `connector/`; here is what they share.

#[path = "../tls/pki.rs"]
pub(crate) mod pki;

#[path = "connector/ends.rs"]
mod ends;
#[path = "connector/establishing.rs"]
mod establishing;
#[path = "connector/racing.rs"]
mod racing;
#[path = "connector/tls.rs"]
mod tls;
#[path = "connector/unfit.rs"]
mod unfit;

use std::error::Error as _;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{self, PATIENCE, end, eventually, one_reactor, serve, sum};
use slipring::connector::{About, ConnectLimits, Connector, Stream};
use slipring::{Builder, Conn, Error, Serving};

/// A runtime that serves nobody, and whose tasks dial.
struct Dialer {
    serving: Serving,
}

impl Dialer {
    fn new() -> Self {
        Self::of(64)
    }

    fn of(dialed_max: u32) -> Self {
        Self::built(one_reactor().max_dialed(dialed_max))
    }

    fn built(builder: Builder) -> Self {
        Self { serving: serve(builder, async |_conn: Conn| {}) }
    }

    /// Runs a future as a task, and waits for what comes of it.
    #[track_caller]
    fn run<T, M, F>(&self, make: M) -> T
    where
        T: Send + 'static,
        M: FnOnce() -> F + Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let (tell, told) = mpsc::channel();
        let running = self.serving.spawner().spawn(move || async move {
            let _ = tell.send(make().await);
        });
        match told.recv_timeout(PATIENCE) {
            Ok(result) => result,
            Err(error) => panic!("nothing was told ({error}): {:?}", running.join()),
        }
    }

    /// Waits until so many of the dialed connections are left.
    #[track_caller]
    fn wait_until_left(&self, count: u64) {
        let handle = self.serving.handle();
        eventually("so many connections are left", || {
            let counters = sum(&handle.counters());
            counters.dialed - counters.closed == count
        });
    }

    /// All its connections have to have ended by the end of the runtime.
    #[track_caller]
    fn end(self) {
        end(self.serving);
    }
}

/// Runs one future on a dialer of its own.
#[track_caller]
fn run<T, M, F>(make: M) -> T
where
    T: Send + 'static,
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let dialer = Dialer::new();
    let result = dialer.run(make);
    dialer.wait_until_left(0);
    dialer.end();
    result
}

async fn connected(to: SocketAddr) -> Stream {
    Connector::default().connect(to, &About::default()).await.expect("it listens")
}

/// The error of a connector that connects to where it cannot.
#[track_caller]
fn refused(connector: Connector, to: SocketAddr) -> Error {
    let error = run(move || async move {
        let connected = connector.connect(to, &About::default()).await;
        connected.err()
    });
    let error = error.expect("it does not connect");
    assert_eq!(error.endpoint(), Some(to));
    assert_eq!(error.traffic(), slipring::failure::Traffic::default(), "nothing was sent");
    error
}

/// Limits whose whole is all there is.
fn within(total: Duration) -> ConnectLimits {
    ConnectLimits { attempt: total, tls: total, total, ..ConnectLimits::default() }
}

fn with_limits(limits: ConnectLimits) -> Connector {
    Connector::builder().limits(limits).build().expect("limits that make sense")
}

/// Limits that pass in no test: what is given up is given up by who gives it up.
fn patient() -> ConnectLimits {
    let (long, longer) = (Duration::from_secs(60), Duration::from_secs(90));
    ConnectLimits { attempt: long, tls: long, total: longer, ..ConnectLimits::default() }
}

/// What lies beneath an error, as text.
fn beneath(error: &Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// What is done at the other end of the next connection, on a thread of its own.
fn peer<T: Send + 'static>(
    act: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let (listener, address): (TcpListener, SocketAddr) = support::listener();
    let thread = support::spawn(move || act(support::accept(&listener)));
    (address, thread)
}

/// Polls a future once, and drops it.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}
