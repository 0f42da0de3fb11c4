//! The cap of an upstream, at which everybody gets something: who retries on a fresh connection, who goes to another
//! endpoint than all others, who has one of its own, who waits in vain and asks why.

use std::error::Error as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::setting::{ask, made, runtime, soon, upstream, with_upstream};
use crate::support::{bounded, end, ms, one_reactor, spawn, two_reactors};
use slipring::failure::{Admit, Checkout, Kind};
use slipring::policy::balancer::{Algorithm, BalancerLimits, Bounds};
use slipring::policy::retry::RetryPolicy;
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{Error, Idempotency, sleep, spawn_local, yield_now};

/// In two seconds.
fn soon_enough() -> Request {
    Request { within: Some(ms(2000)), ..Request::default() }
}

/// A request to this endpoint.
async fn to(upstream: &Upstream, address: SocketAddr) -> Request {
    for hash in 0..1000 {
        let request = Request { hash: Some(hash), ..soon_enough() };
        if upstream.connect(&request).await.expect("there is room").endpoint() == address {
            return request;
        }
    }
    panic!("nothing leads to {address}");
}

#[test]
fn a_retry_on_a_fresh_connection_waits_for_the_place_of_the_dead_one() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        spawn(move || {
            // The first of its connections answers once, and is dead when it is used again; the second answers.
            for answers in [1, 2] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 5];
                for _ in 0..answers {
                    if stream.read_exact(&mut request).is_ok() {
                        let _ = stream.write_all(&request);
                    }
                }
                let _ = stream.read_exact(&mut request);
            }
        });
        let retry = RetryPolicy { attempts_max: 2, ..RetryPolicy::default() };
        let limits = UpstreamLimits { connections_max: 1, retry, ..UpstreamLimits::default() };
        with_upstream(&[address], limits, async |upstream| {
            let request = soon_enough();
            ask(&upstream, &request, Idempotency::Idempotent).await.expect("the first");
            ask(&upstream, &request, Idempotency::Idempotent).await.expect("on a fresh one");
        });
    });
}

/// Tasks that ask for the same all the time, so that somebody always waits for a connection of their endpoint.
async fn crowd(upstream: &Upstream, request: Request, is_over: &Arc<AtomicBool>) {
    for _ in 0..12 {
        let (upstream, is_over) = (upstream.clone(), Arc::clone(is_over));
        drop(spawn_local(async move {
            while !is_over.load(Ordering::Relaxed) {
                let asked = ask(&upstream, &request, Idempotency::ConnectOnly).await;
                asked.expect("in turn");
                yield_now().await;
            }
        }));
    }
    soon("all places are taken, and somebody waits", || {
        let snapshot = upstream.snapshot();
        let waiting = snapshot.endpoints.iter().filter_map(|one| one.pool.as_ref());
        snapshot.connections.0 == snapshot.connections.1
            && waiting.map(|pool| pool.waiting).sum::<u32>() > 0
    })
    .await;
}

/// One endpoint of two has callers of reactor 0 that never stop. What becomes of others.
fn beside_a_crowd(
    connections_max: u32,
    reactor: usize,
    others: impl AsyncFnOnce(Upstream, Request, Request) -> Result<(), Error> + Send + 'static,
) {
    let all = [upstream(), upstream()];
    let (serving, spawner) = runtime(two_reactors());
    let limits = UpstreamLimits {
        connections_max,
        algorithm: Algorithm::Maglev,
        // The crowd stays with its endpoint.
        balancer: BalancerLimits { bounds: Bounds::Never, ..BalancerLimits::default() },
        retry: RetryPolicy::never(),
        ..UpstreamLimits::default()
    };
    let (here, there) = (all[0].1, all[1].1);
    let upstream = made(&[here, there], limits);
    let is_over = Arc::<AtomicBool>::default();
    let (of_task, over) = (upstream.clone(), Arc::clone(&is_over));
    let requests = spawner.spawn_on(0, move || async move {
        let requests = (to(&of_task, here).await, to(&of_task, there).await);
        crowd(&of_task, requests.0, &over).await;
        requests
    });
    let (here, there) = requests.join().expect("it is crowded");
    let result = spawner.spawn_on(reactor, move || others(upstream, here, there)).join();
    is_over.store(true, Ordering::Relaxed);
    let result = result.expect("it ends");
    assert!(result.is_ok(), "{connections_max} places, from reactor {reactor}: {result:?}");
    end(serving);
    all.into_iter().for_each(|(serving, _)| end(serving));
}

#[test]
fn an_endpoint_whose_callers_never_stop_leaves_places_for_another() {
    bounded(|| {
        for (connections_max, reactor) in [(4, 0), (4, 1), (1, 0)] {
            beside_a_crowd(connections_max, reactor, async |upstream, _, there| {
                for _ in 0..3 {
                    ask(&upstream, &there, Idempotency::ConnectOnly).await?;
                    sleep(ms(5)).await;
                }
                Ok(())
            });
        }
    });
}

#[test]
fn nor_does_it_keep_another_reactor_or_a_connection_of_one_s_own_out() {
    bounded(|| {
        beside_a_crowd(4, 1, async |upstream, here, _| {
            ask(&upstream, &here, Idempotency::ConnectOnly).await
        });
        for reactor in [0, 1] {
            beside_a_crowd(4, reactor, async |upstream, here, there| {
                let one = upstream.connect(&here).await?;
                let two = upstream.connect(&there).await?;
                drop((one, two));
                Ok(())
            });
        }
    });
}

#[test]
fn who_waits_for_a_pool_in_vain_at_the_cap_of_the_upstream_is_told_of_that() {
    bounded(|| {
        let (serving, live) = upstream();
        let retry = RetryPolicy::never();
        let limits = UpstreamLimits { connections_max: 1, retry, ..UpstreamLimits::default() };
        with_upstream(&[live], limits, async |upstream| {
            let _one = upstream.connect(&Request::default()).await.expect("one");
            let request = Request { within: Some(ms(200)), ..Request::default() };
            let error = upstream.checkout(&request).await.expect_err("no second");
            assert!(matches!(error.kind(), Kind::Checkout(Checkout::Timeout { .. })), "{error}");
            let cause = error.source().and_then(|source| source.downcast_ref::<Error>());
            let kind = cause.map(Error::kind);
            let is_limit = matches!(kind, Some(Kind::Admit(Admit::UpstreamLimit { limit: 1 })));
            assert!(is_limit, "{error:?}");
        });
        end(serving);
    });
}

#[test]
fn a_crowd_costs_dials_only_while_others_want_something() {
    bounded(|| {
        let (serving, live) = upstream();
        let limits = UpstreamLimits { connections_max: 4, ..UpstreamLimits::default() };
        let (serving_too, spawner) = runtime(one_reactor());
        let upstream = made(&[live], limits);
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let dials = spawner.spawn(move || async move {
            crowd(&upstream, soon_enough(), &over).await;
            let before = upstream.pool_counters().dials;
            sleep(ms(300)).await;
            upstream.pool_counters().dials - before
        });
        let dials = dials.join().expect("it ends");
        is_over.store(true, Ordering::Relaxed);
        assert!(dials < 20, "{dials}");
        end(serving_too);
        end(serving);
    });
}
