//! Connections to upstreams on the real kernel: how they come about, and how their streams end.
//!
//! One topic a file, in `connector/`; here is what they share.

mod support;

#[path = "connector/ends.rs"]
mod ends;

use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

use slipring::Conn;
use slipring::connector::{About, Connector, Stream};
use support::{PATIENCE, end, one_reactor, serve};

/// Runs a future as a task of a runtime that serves nobody, and waits for what comes of it. All its connections have
/// to have ended by the end of the runtime.
#[track_caller]
fn run<T, M, F>(make: M) -> T
where
    T: Send + 'static,
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    let serving = serve(one_reactor().max_dialed(64), async |_conn: Conn| {});
    let (tell, told) = mpsc::channel();
    let running = serving.spawner().spawn(move || async move {
        let _ = tell.send(make().await);
    });
    let result = told.recv_timeout(PATIENCE);
    let result = result.unwrap_or_else(|error| {
        panic!("nothing was told ({error}): {:?}", running.join());
    });
    end(serving);
    result
}

async fn connected(to: SocketAddr) -> Stream {
    Connector::default().connect(to, &About::default()).await.expect("it listens")
}

/// What is done at the other end of the next connection, on a thread of its own.
fn peer<T: Send + 'static>(
    act: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<T>) {
    let (listener, address): (TcpListener, SocketAddr) = support::listener();
    let thread = support::spawn(move || act(support::accept(&listener)));
    (address, thread)
}
