//! `hyper_hello` on tokio: the current-thread scheduler, a task a connection, hyper-util's automatic builder.
//!
//! The service, the versions of hyper and the builder's settings are those of the example: what differs is whose
//! sockets, timers and tasks hyper is given.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

/// As the example has it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

async fn hello(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("hello {}\n", request.uri().path().trim_start_matches('/'));
    Ok(Response::new(Full::from(text)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = slipring_peers::start()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(async move {
                let mut http = auto::Builder::new(LocalExecutor);
                http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
                http.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_WITHIN);
                // How one ended is its client's to tell.
                http.serve_connection(TokioIo::new(stream), service_fn(hello)).await.is_ok()
            });
        }
    })
}
