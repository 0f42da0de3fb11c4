//! Upstreams on the real kernel: who gets a request, what a failing endpoint costs, and what is counted.
//! `upstream/members.rs`: who belongs to one.

#[path = "upstream/members.rs"]
mod members;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::setting::{ask, made, runtime, soon, upstream, with_upstream};
use crate::support::{
    BlackHole, bounded, drained, end, eventually, ms, one_reactor, refusing, spawn, two_reactors,
};
use slipring::failure::{Admit, Breaker, Dial, Kind, Resolve, Transfer};
use slipring::health::Check;
use slipring::policy::balancer::{Algorithm, Availability};
use slipring::policy::breaker::{BreakerLimits, Standing};
use slipring::policy::health::HealthLimits;
use slipring::policy::names::{NameLimits, Target};
use slipring::policy::outlier::OutlierLimits;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::policy::retry::RetryPolicy;
use slipring::resolve::{Fixed, ResolveLimits};
use slipring::upstream::{Request, Upstream, UpstreamError, UpstreamLimits, UpstreamLimitsError};
use slipring::{Idempotency, now, sleep, spawn_local, timeout};

#[test]
fn calls_are_answered_over_kept_connections() {
    bounded(|| {
        let (serving, address) = upstream();
        with_upstream(&[address], UpstreamLimits::default(), async |upstream| {
            for _ in 0..20 {
                ask(&upstream, &Request::default(), Idempotency::ConnectOnly)
                    .await
                    .expect("an echo");
            }
            let snapshot = upstream.snapshot();
            assert_eq!((snapshot.connections.0, snapshot.pending.0), (1, 0));
            assert_eq!(snapshot.endpoints[0].in_flight, 0);
            assert!(snapshot.endpoints[0].latency.is_some(), "{snapshot}");
        });
        assert_eq!(drained(serving).accepted, 1);
    });
}

#[test]
fn an_endpoint_that_refuses_costs_nobody_an_error() {
    bounded(|| {
        let all = [upstream(), upstream()];
        let (_bound, dead) = refusing();
        let endpoints = [all[0].1, dead, all[1].1];
        with_upstream(&endpoints, UpstreamLimits::default(), async move |upstream| {
            let mut went = BTreeMap::new();
            for _ in 0..200 {
                let connected = upstream.connect(&Request::default()).await.expect("others live");
                *went.entry(connected.endpoint()).or_insert(0) += 1;
            }
            assert!(!went.contains_key(&dead) && went.len() == 2, "{went:?}");
            let snapshot = upstream.snapshot();
            let of_dead = snapshot.endpoints.iter().find(|one| one.address == dead);
            let of_dead = of_dead.expect("it is one of them");
            assert_eq!(of_dead.availability, Availability::Ejected);
            assert_eq!(snapshot.breaker, Standing::Closed);
            soon("all places are free", || upstream.snapshot().connections.0 == 0).await;
        });
        all.into_iter().for_each(|(serving, _)| end(serving));
    });
}

#[test]
fn an_endpoint_that_comes_back_is_used_again_within_two_seconds() {
    bounded(|| {
        let (serving, live) = upstream();
        let (bound, dead) = refusing();
        let (serving_too, spawner) = runtime(one_reactor());
        let upstream = made(&[live, dead], UpstreamLimits::default());
        let of_task = upstream.clone();
        let ejected = spawner.spawn(move || async move {
            for _ in 0..50 {
                drop(of_task.connect(&Request::default()).await.expect("one lives"));
            }
            of_task.snapshot().endpoints.iter().filter(|one| one.ejected_until.is_some()).count()
        });
        assert_eq!(ejected.join().expect("it ends"), 1);
        // It is started: the socket that held its port listens.
        bound.listen(64).expect("a bound socket");
        let listener = TcpListener::from(bound);
        let took = spawner.spawn(move || async move {
            let begun = now();
            loop {
                let connected = upstream.connect(&Request::default()).await.expect("one lives");
                if connected.endpoint() == dead {
                    return now() - begun;
                }
                sleep(ms(5)).await;
            }
        });
        let took = took.join().expect("it ends");
        assert!(took < ms(2000), "{took:?}");
        drop(listener);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn a_black_hole_costs_one_connect_timeout_and_is_avoided_then() {
    bounded(|| {
        let (serving, live) = upstream();
        let hole = BlackHole::new();
        let connector = slipring::connector::Connector::default();
        let (serving_too, spawner) = runtime(one_reactor().timeouts(slipring::Timeouts {
            dial: slipring::Timeout::After(ms(300)),
            ..slipring::Timeouts::default()
        }));
        let upstream = Upstream::builder("test")
            .endpoint(live)
            .endpoint(hole.address)
            .connector(connector)
            .seed(7)
            .build()
            .expect("sound");
        let slow = spawner.spawn(move || async move {
            let mut slow = 0;
            for _ in 0..100 {
                let begun = now();
                drop(upstream.connect(&Request::default()).await.expect("one lives"));
                slow += usize::from(now() - begun >= ms(250));
            }
            slow
        });
        let slow = slow.join().expect("it ends");
        assert!(slow <= 1, "{slow} of 100 waited for the black hole");
        drop(hole);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn when_nobody_listens_the_error_says_so_and_attempts_are_bounded() {
    bounded(|| {
        let (_one, first) = refusing();
        let (_two, second) = refusing();
        let limits =
            UpstreamLimits { breaker: BreakerLimits::never(), ..UpstreamLimits::default() };
        let error = with_upstream(&[first, second], limits, async |upstream| {
            upstream.connect(&Request::default()).await.expect_err("nobody listens")
        });
        assert!(matches!(error.kind(), Kind::Dial(Dial::Refused)), "{error}");
        assert!(error.endpoint().is_some());
    });
}

#[test]
fn a_breaker_opens_on_failures_and_refuses_at_once() {
    bounded(|| {
        let (_one, first) = refusing();
        let limits = UpstreamLimits { retry: RetryPolicy::never(), ..UpstreamLimits::default() };
        with_upstream(&[first], limits, async |upstream| {
            for _ in 0..20 {
                let error = upstream.connect(&Request::default()).await.expect_err("refused");
                assert!(matches!(error.kind(), Kind::Dial(Dial::Refused)), "{error}");
            }
            let begun = now();
            let error = upstream.connect(&Request::default()).await.expect_err("open");
            assert!(matches!(error.kind(), Kind::Breaker(Breaker::Open { .. })), "{error}");
            assert!(now() - begun < ms(50), "it does not wait for it to close");
            assert_ne!(upstream.snapshot().breaker, Standing::Closed);
        });
    });
}

/// A server that answers by script: one entry for each request, over all its connections.
struct Scripted {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

/// What a scripted server does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    /// Closes without an answer.
    Close,
    /// Says nothing.
    Hang,
}

impl Scripted {
    fn new(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (served, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, over, act) = (Arc::clone(&served), Arc::clone(&is_over), Arc::new(act));
        spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (counts, act) = (Arc::clone(&counts), Arc::clone(&act));
                spawn(move || serve_by(stream.expect("it was accepted"), &counts, &*act));
            }
        });
        Self { address, served, is_over }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve_by(mut stream: TcpStream, counts: &AtomicUsize, act: &dyn Fn(usize) -> Act) {
    let mut request = [0; 5];
    while stream.read_exact(&mut request).is_ok() {
        match act(counts.fetch_add(1, Ordering::SeqCst)) {
            Act::Answer => {
                if stream.write_all(&request).is_err() {
                    return;
                }
            }
            Act::Close => return,
            Act::Hang => {
                let _ = stream.read(&mut request);
                return;
            }
        }
    }
}

#[test]
fn a_kept_connection_that_turns_out_dead_is_replaced_once_if_that_is_allowed() {
    bounded(|| {
        for (idempotency, is_fine) in
            [(Idempotency::Idempotent, true), (Idempotency::ConnectOnly, false)]
        {
            let server = Scripted::new(|n| if n == 1 { Act::Close } else { Act::Answer });
            let address = server.address;
            with_upstream(&[address], UpstreamLimits::default(), async move |upstream| {
                ask(&upstream, &Request::default(), idempotency).await.expect("the first");
                match ask(&upstream, &Request::default(), idempotency).await {
                    Ok(()) => assert!(is_fine),
                    Err(error) => {
                        let stale = matches!(error.kind(), Kind::Transfer(Transfer::StaleReuse));
                        assert!(stale && !is_fine, "{error}");
                    }
                }
                ask(&upstream, &Request::default(), idempotency).await.expect("the third");
                assert_eq!(upstream.snapshot().breaker, Standing::Closed);
            });
            assert_eq!(server.served(), if is_fine { 4 } else { 3 });
        }
    });
}

#[test]
fn a_call_has_its_time_and_no_more() {
    bounded(|| {
        let server = Scripted::new(|_| Act::Hang);
        with_upstream(&[server.address], UpstreamLimits::default(), async |upstream| {
            let request = Request { within: Some(ms(200)), ..Request::default() };
            let begun = now();
            let called = upstream.call(&request, Idempotency::Idempotent, async |stream| {
                stream.send(b"hello".to_vec()).await?;
                stream.recv_some().await
            });
            let error = called.await.expect_err("nobody answers");
            assert!(matches!(error.kind(), Kind::Transfer(Transfer::ReadTimeout)), "{error}");
            assert!(error.traffic().bytes_sent == 5 && now() - begun < ms(1500));
            soon("its connection is closed", || upstream.snapshot().connections.0 == 0).await;
        });
    });
}

#[test]
fn a_call_that_is_dropped_closes_its_connection_and_counts_for_nothing() {
    bounded(|| {
        let server = Scripted::new(|_| Act::Hang);
        with_upstream(&[server.address], UpstreamLimits::default(), async |upstream| {
            for _ in 0..30 {
                let called =
                    timeout(ms(20), ask(&upstream, &Request::default(), Idempotency::ConnectOnly))
                        .await;
                assert!(called.is_err(), "nobody answers");
            }
            let snapshot = upstream.snapshot();
            assert_eq!(snapshot.breaker, Standing::Closed);
            assert_eq!((snapshot.endpoints[0].in_flight, snapshot.pending.0), (0, 0));
            soon("all are closed", || upstream.snapshot().connections.0 == 0).await;
        });
    });
}

#[test]
fn never_more_connections_than_the_upstream_may_have_on_two_reactors() {
    bounded(|| {
        let (serving, address) = upstream();
        let (serving_too, spawner) = runtime(two_reactors());
        let limits = UpstreamLimits { connections_max: 4, ..UpstreamLimits::default() };
        let upstream = made(&[address], limits);
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..24)
            .map(|task| {
                let (upstream, open, most) =
                    (upstream.clone(), Arc::clone(&open), Arc::clone(&most));
                spawner.spawn_on(task % 2, move || async move {
                    for _ in 0..5 {
                        let connected =
                            upstream.connect(&Request::default()).await.expect("in turn");
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        sleep(ms(1)).await;
                        open.fetch_sub(1, Ordering::SeqCst);
                        drop(connected);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().expect("served"));
        assert!(most.load(Ordering::SeqCst) <= 4, "{most:?}");
        drop(upstream);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn more_than_may_wait_are_refused() {
    bounded(|| {
        let hole = BlackHole::new();
        let limits = UpstreamLimits { pending_max: 2, ..UpstreamLimits::default() };
        with_upstream(&[hole.address], limits, async |upstream| {
            let wait = || {
                let upstream = upstream.clone();
                spawn_local(async move { upstream.connect(&Request::default()).await.map(drop) })
            };
            let waits = [wait(), wait()];
            soon("both wait", || upstream.snapshot().pending.0 == 2).await;
            let error = upstream.connect(&Request::default()).await.expect_err("too many wait");
            assert!(
                matches!(error.kind(), Kind::Admit(Admit::PendingLimit { limit: 2 })),
                "{error}"
            );
            waits.iter().for_each(slipring::JoinHandle::cancel);
            let snapshot = upstream.snapshot();
            assert_eq!((snapshot.pending.0, snapshot.endpoints[0].in_flight), (0, 0));
        });
        drop(hole);
    });
}

#[test]
fn equal_hashes_go_to_the_same_endpoint() {
    bounded(|| {
        let all = [upstream(), upstream(), upstream()];
        let endpoints: Vec<_> = all.iter().map(|(_, address)| *address).collect();
        let limits = UpstreamLimits { algorithm: Algorithm::Maglev, ..UpstreamLimits::default() };
        with_upstream(&endpoints, limits, async |upstream| {
            let mut went = BTreeMap::new();
            for round in 0..120_u64 {
                let request = Request { hash: Some(round % 12), ..Request::default() };
                let at = upstream.connect(&request).await.expect("all live").endpoint();
                assert_eq!(*went.entry(round % 12).or_insert(at), at);
            }
            let used: std::collections::BTreeSet<_> = went.values().collect();
            assert!(used.len() > 1, "all went to one");
        });
        all.into_iter().for_each(|(serving, _)| end(serving));
    });
}

#[test]
fn what_happens_is_counted_over_all_reactors() {
    bounded(|| {
        let (serving, live) = upstream();
        let (_bound, dead) = refusing();
        let (serving_too, spawner) = runtime(two_reactors());
        let upstream = made(&[live, dead], UpstreamLimits::default());
        for reactor in 0..2 {
            let upstream = upstream.clone();
            let task = spawner.spawn_on(reactor, move || async move {
                for _ in 0..50 {
                    ask(&upstream, &Request::default(), Idempotency::Idempotent)
                        .await
                        .expect("one lives");
                }
                let own = upstream.snapshot().counters;
                assert!(own.requests >= 50 && own.succeeded >= 50, "{own:?}");
            });
            task.join().expect("it ends");
        }
        eventually("all are told", || upstream.counters().requests == 100);
        let counters = upstream.counters();
        assert_eq!((counters.succeeded, counters.failed), (100, 0));
        // Who was refused was tried again, at once and elsewhere, until the endpoint was ejected: once, for all.
        assert_eq!(counters.attempts, 100 + counters.retries);
        assert!((1..=10).contains(&counters.retries), "{counters:?}");
        assert_eq!((counters.ejections, counters.returns), (1, 0));
        assert_eq!((counters.breaker_opened, counters.refused_by_breaker), (0, 0));
        eventually("the pools have told", || upstream.pool_counters().hits == 98);
        let pools = upstream.pool_counters();
        assert_eq!(pools.dials_failed, counters.retries, "{pools:?}");
        drop(upstream);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn requests_that_end_badly_are_counted_by_their_reason() {
    bounded(|| {
        let (_one, first) = refusing();
        let limits = UpstreamLimits { retry: RetryPolicy::never(), ..UpstreamLimits::default() };
        with_upstream(&[first], limits, async |upstream| {
            for _ in 0..25 {
                drop(upstream.connect(&Request::default()).await.expect_err("nobody listens"));
            }
            let counters = upstream.snapshot().counters;
            assert_eq!((counters.requests, counters.failed, counters.succeeded), (25, 25, 0));
            assert_eq!((counters.attempts, counters.refused_by_breaker), (20, 5));
            assert_eq!((counters.out_of_attempts, counters.out_of_budget), (25, 0));
            assert_eq!((counters.breaker_opened, counters.retries), (1, 0));
        });
        let hole = BlackHole::new();
        let limits =
            UpstreamLimits { connect_within: ms(200), pending_max: 1, ..UpstreamLimits::default() };
        with_upstream(&[hole.address], limits, async |upstream| {
            let of_task = upstream.clone();
            let first = spawn_local(async move {
                of_task.connect(&Request::default()).await.map(drop).expect_err("a black hole")
            });
            soon("it waits", || upstream.snapshot().pending.0 == 1).await;
            drop(upstream.connect(&Request::default()).await.expect_err("one may wait"));
            drop(first.await.expect("it ends"));
            // One that is dropped is a request that neither succeeded nor failed.
            let dropped = timeout(ms(20), upstream.connect(&Request::default())).await;
            assert!(dropped.is_err());
            let counters = upstream.snapshot().counters;
            assert_eq!((counters.requests, counters.failed, counters.succeeded), (2, 1, 0));
            assert_eq!((counters.out_of_time, counters.refused_pending), (1, 1));
        });
        drop(hole);
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let none = Upstream::builder("test").build().expect_err("no endpoint");
    assert_eq!(none, UpstreamError::NoEndpoint);
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let twice = Upstream::builder("test").endpoint(address).endpoint(address).build();
    assert_eq!(twice.expect_err("twice"), UpstreamError::Twice(address));
    let between = SocketAddr::from(([127, 0, 0, 1], 2));
    let twice = Upstream::builder("test").endpoint(address).endpoint(between);
    let twice = twice.target(Target { tier: 1, ..Target::new(address) }).build();
    assert_eq!(twice.expect_err("in two tiers"), UpstreamError::Twice(address));
    let with = |limits| Upstream::builder("test").endpoint(address).limits(limits).build();
    let fine = UpstreamLimits::default();
    let nothing = with(UpstreamLimits { dials_max: 0, ..fine.clone() }).expect_err("no dials");
    assert_eq!(nothing, UpstreamError::Limits(UpstreamLimitsError::Nothing { knob: "dials_max" }));
    let pool = PoolLimits::of(Mode::Dynamic { min_idle: 9, max: 3 });
    let error =
        with(UpstreamLimits { pool, ..fine.clone() }).expect_err("more idle than there may be");
    assert!(error.to_string().starts_with("pool: "), "{error}");
    let long = with(UpstreamLimits { probe_interval: Duration::ZERO, ..fine.clone() });
    assert!(long.expect_err("no pause").to_string().contains("probe_interval"));
    let many = with(UpstreamLimits { endpoints_max: 1 << 20, ..fine });
    assert!(many.expect_err("too many").to_string().contains("at most"));
}
