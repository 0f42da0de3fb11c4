//! HTTP on one connection, 1.1 or 2 as the client speaks, with an end that fails no request.
//!
//! A request is under way from its head to the head of its response; a body that is made slowly afterwards is so only
//! as far as bytes of it move.
//!
//! Is: hyper-util's connection builder on a reactor, and what a drain means to it. Is not about TCP or TLS: any stream
//! that hyper reads and writes will do.
//!
//! | the order to drain meets | what happens |
//! |---|---|
//! | HTTP/2 | GOAWAY; the streams that were begun end, then the connection |
//! | HTTP/1.1, a request under way, or one that comes | its response says `connection: close` |
//! | HTTP/1.1, nothing under way | the reactor closes it once it is quiet for a moment |
//!
//! Why not hyper's own graceful shutdown for HTTP/1.1: it closes at once what is between two requests, and a client
//! that has just sent the next one would be left without an answer.

use std::cell::Cell;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::{Read, Write};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, Version};
use hyper_util::server::conn::auto;
use slipring::adapters::hyper::{ReactorExecutor, ReactorTimer};
use slipring::tls::TlsServer;
use slipring::{BusyFlag, Conn};

/// What is spoken over TLS, the best first: HTTP/2, then 1.1.
pub const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// A request's head has to be there within this time, and a client of HTTP/2 has to answer a ping.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Stage {
    is_draining: Cell<bool>,
    is_http2: Cell<bool>,
    under_way: Cell<usize>,
}

/// A request that is answered, until it is dropped: a drain waits for it.
struct UnderWay {
    stage: Rc<Stage>,
    busy: BusyFlag,
}

impl UnderWay {
    fn new(stage: &Rc<Stage>, busy: &BusyFlag) -> Self {
        stage.under_way.update(|count| count + 1);
        busy.set(true);
        Self { stage: Rc::clone(stage), busy: busy.clone() }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.stage.under_way.update(|count| count - 1);
        self.busy.set(self.stage.under_way.get() > 0);
    }
}

/// Serves the requests of one connection, by TLS if that is given. Until it ends, or the reactor drains.
pub async fn serve_conn<S, B>(conn: Conn, tls: Option<TlsServer>, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Some(tls) = tls else { return serve(conn.busy_flag(), conn, service).await };
    match tls.accept(conn).await {
        Ok(conn) => serve(conn.busy_flag(), conn, service).await,
        Err(error) => tracing::debug!(%error, "no handshake"),
    }
}

/// Serves the requests of one connection, whose flag this is, until it ends or the reactor drains.
pub async fn serve<I, S, B>(busy: BusyFlag, io: I, service: S)
where
    I: Read + Write + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let stage = Rc::new(Stage::default());
    let staged = service_fn(|request: Request<Incoming>| {
        stage.is_http2.set(request.version() == Version::HTTP_2);
        let under_way = UnderWay::new(&stage, &busy);
        let response = service.call(request);
        async move {
            let mut response = response.await?;
            let stage = &under_way.stage;
            if stage.is_draining.get() && !stage.is_http2.get() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, S::Error>(response)
        }
    });
    let mut http = auto::Builder::new(ReactorExecutor);
    http.http1().timer(ReactorTimer).header_read_timeout(HEAD_WITHIN);
    http.http2().timer(ReactorTimer).keep_alive_interval(HEAD_WITHIN);
    let mut connection = pin!(http.serve_connection(io, staged));
    let mut draining = pin!(slipring::draining());
    let mut goes_away = false;
    let ended = poll_fn(|cx| {
        if !stage.is_draining.get() && draining.as_mut().poll(cx).is_ready() {
            stage.is_draining.set(true);
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            if goes_away || !stage.is_draining.get() || !stage.is_http2.get() {
                return Poll::Pending;
            }
            goes_away = true;
            connection.as_mut().graceful_shutdown();
        }
    });
    if let Err(error) = ended.await {
        tracing::debug!(error, "a connection ended");
    }
}
