//! Where the tests of this binary take place: a runtime that dials, an echo to be dialed, an upstream or a pool on it.

use std::future::Future;
use std::net::SocketAddr;

use slipring::policy::pool::{Mode, PoolLimits};
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{Builder, Error, Idempotency, Serving, Spawner, sleep, timeout};

use crate::support::{PATIENCE, echo, end, loopback, ms, one_reactor, serve};

/// A runtime whose tasks dial.
pub(crate) fn runtime(builder: Builder) -> (Serving, Spawner) {
    let serving = serve(builder.listen(loopback()).max_dialed(256), async |_| {});
    let spawner = serving.spawner();
    (serving, spawner)
}

/// Runs one task on a reactor to its end.
pub(crate) fn run<T, F>(task: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (serving, spawner) = runtime(one_reactor());
    let result = spawner.spawn(task).join().expect("it ends");
    end(serving);
    result
}

/// An echo of another runtime.
pub(crate) fn upstream() -> (Serving, SocketAddr) {
    let serving = serve(one_reactor().listen(loopback()), echo);
    let address = serving.addresses()[0];
    (serving, address)
}

/// An upstream of these endpoints.
pub(crate) fn made(endpoints: &[SocketAddr], limits: UpstreamLimits) -> Upstream {
    let builder = Upstream::builder("test").limits(limits).seed(7);
    endpoints.iter().fold(builder, |builder, at| builder.endpoint(*at)).build().expect("sound")
}

/// Runs a task with an upstream of these endpoints on one reactor.
pub(crate) fn with_upstream<T, F>(
    endpoints: &[SocketAddr],
    limits: UpstreamLimits,
    task: impl FnOnce(Upstream) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let upstream = made(endpoints, limits);
    run(move || task(upstream))
}

/// What they all ask for: five bytes there, the same five back.
pub(crate) async fn ask(
    upstream: &Upstream,
    request: &Request,
    idempotency: Idempotency,
) -> Result<(), Error> {
    let answer = upstream.call(request, idempotency, async |stream| {
        stream.send(b"hello".to_vec()).await?;
        let mut answer = Vec::new();
        while answer.len() < 5 {
            answer.extend_from_slice(&stream.recv_some().await?);
        }
        Ok(answer)
    });
    assert_eq!(answer.await?, b"hello");
    Ok(())
}

/// A pool of so many connections, none kept idle.
pub(crate) fn at_most(max: u32) -> PoolLimits {
    PoolLimits::of(Mode::Dynamic { min_idle: 0, max })
}

/// Waits until something is so, in a task.
pub(crate) async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let result = timeout(PATIENCE, async {
        while !is_so() {
            sleep(ms(2)).await;
        }
    });
    assert!(result.await.is_ok(), "never so: {what}");
}
