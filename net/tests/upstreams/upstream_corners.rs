//! Upstreams in corners: failures between dials that go well, caps that are used up, deadlines, ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::setting::{ask, made, run, runtime, upstream, with_upstream};
use crate::support::{
    self, BlackHole, bounded, end, eventually, ms, one_reactor, refusing, spawn, sum, two_reactors,
};
use slipring::connector::{ConnectLimits, Connector};
use slipring::failure::{Admit, Dial, Kind};
use slipring::policy::balancer::{Algorithm, Availability};
use slipring::policy::breaker::BreakerLimits;
use slipring::policy::outlier::OutlierLimits;
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::policy::retry::RetryPolicy;
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{Idempotency, now, sleep};

fn within(within: Duration) -> Request {
    Request { within: Some(within), ..Request::default() }
}

/// Accepts, reads a request, and closes without an answer.
struct Failing {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Failing {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                spawn(move || {
                    let _ = stream.expect("it was accepted").read_exact(&mut [0; 5]);
                });
            }
        });
        Self { address, is_over }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// Only calls are to be judged, and nothing is tried again.
fn plainly() -> UpstreamLimits {
    UpstreamLimits {
        breaker: BreakerLimits::never(),
        retry: RetryPolicy::never(),
        ..UpstreamLimits::default()
    }
}

fn is_ejected(upstream: &Upstream, address: SocketAddr) -> bool {
    let snapshot = upstream.snapshot();
    let mut all = snapshot.endpoints.iter();
    all.any(|one| one.address == address && one.availability == Availability::Ejected)
}

#[test]
fn who_accepts_and_fails_every_request_is_left_alone_though_dials_go_well() {
    bounded(|| {
        let (serving, live) = upstream();
        let failing = Failing::new();
        let dead = failing.address;
        with_upstream(&[live, dead], plainly(), async move |upstream| {
            let mut errors = 0;
            for _ in 0..60 {
                errors += usize::from(
                    ask(&upstream, &Request::default(), Idempotency::ConnectOnly).await.is_err(),
                );
            }
            assert!(is_ejected(&upstream, dead), "{errors} errors: {}", upstream.snapshot());
            assert!(errors <= 5, "{errors}");
        });
        end(serving);
    });
}

#[test]
fn what_failed_on_a_stream_counts_also_if_its_holder_says_nothing() {
    bounded(|| {
        let (serving, live) = upstream();
        let failing = Failing::new();
        let dead = failing.address;
        with_upstream(&[live, dead], plainly(), async move |upstream| {
            for _ in 0..60 {
                let mut lent = upstream.checkout(&Request::default()).await.expect("both accept");
                lent.send(b"hello".to_vec()).await.expect("open");
                let answer = lent.recv_some().await;
                assert_eq!(answer.is_err(), lent.endpoint() == dead);
            }
            assert!(is_ejected(&upstream, dead), "{}", upstream.snapshot());
        });
        end(serving);
    });
}

#[test]
fn a_call_may_outlive_the_last_handle_of_its_upstream() {
    bounded(|| {
        let (serving, live) = upstream();
        with_upstream(&[live], UpstreamLimits::default(), async |upstream| {
            let checkout = upstream.checkout(&Request::default());
            let call =
                upstream.call(&Request::default(), Idempotency::ConnectOnly, async |stream| {
                    stream.send(b"hello".to_vec()).await
                });
            drop(upstream);
            sleep(ms(400)).await;
            call.await.expect("it was begun while there was one");
            drop(checkout.await.expect("likewise"));
        });
        end(serving);
    });
}

#[test]
fn connections_kept_idle_make_place_for_a_connection_of_one_s_own() {
    bounded(|| {
        for other in [0, 1] {
            let (serving, live) = upstream();
            let (serving_too, spawner) = runtime(two_reactors());
            let limits = UpstreamLimits { connections_max: 2, ..plainly() };
            let upstream = made(&[live], limits);
            let of_task = upstream.clone();
            let filled = spawner.spawn_on(0, move || async move {
                let one = of_task.checkout(&Request::default()).await.expect("one");
                let two = of_task.checkout(&Request::default()).await.expect("two");
                drop((one, two));
            });
            filled.join().expect("both are idle");
            let connected = spawner.spawn_on(other, move || async move {
                let one = upstream.connect(&within(ms(1000))).await.map(drop);
                one.and(upstream.connect(&within(ms(1000))).await.map(drop))
            });
            let connected = connected.join().expect("it ends");
            assert!(connected.is_ok(), "from reactor {other}: {connected:?}");
            end(serving_too);
            end(serving);
        }
    });
}

#[test]
fn connections_kept_idle_for_one_endpoint_make_place_for_those_of_another() {
    bounded(|| {
        for other in [0, 1] {
            let all = [upstream(), upstream()];
            let (serving_too, spawner) = runtime(two_reactors());
            let limits = UpstreamLimits {
                connections_max: 2,
                algorithm: Algorithm::Maglev,
                ..UpstreamLimits::default()
            };
            let upstream = made(&[all[0].1, all[1].1], limits);
            let first = all[0].1;
            let of_task = upstream.clone();
            let to = move |hash| Request {
                hash: Some(hash),
                within: Some(ms(2000)),
                ..Request::default()
            };
            let filled = spawner.spawn_on(0, move || async move {
                let (mut here, mut there) = (None, None);
                for hash in 0..64 {
                    let at = of_task.connect(&to(hash)).await.expect("in turn").endpoint();
                    *(if at == first { &mut here } else { &mut there }) = Some(hash);
                }
                let (here, there) = (here.expect("some"), there.expect("some"));
                let one = of_task.checkout(&to(here)).await.expect("one");
                let two = of_task.checkout(&to(here)).await.expect("two");
                drop((one, two));
                there
            });
            let there = filled.join().expect("both are idle");
            let asked = spawner.spawn_on(other, move || async move {
                ask(&upstream, &to(there), Idempotency::ConnectOnly).await
            });
            let asked = asked.join().expect("it ends");
            assert!(asked.is_ok(), "from reactor {other}: {asked:?}");
            end(serving_too);
            all.into_iter().for_each(|(serving, _)| end(serving));
        }
    });
}

#[test]
fn who_waits_in_vain_is_told_what_for() {
    bounded(|| {
        let (serving, live) = upstream();
        let limits = UpstreamLimits { connections_max: 1, ..plainly() };
        with_upstream(&[live], limits, async |upstream| {
            let _one = upstream.connect(&Request::default()).await.expect("one");
            let error = upstream.connect(&within(ms(200))).await.expect_err("no second");
            let is_limit = matches!(error.kind(), Kind::Admit(Admit::UpstreamLimit { limit: 1 }));
            assert!(is_limit && error.elapsed() >= ms(199), "{error:?}");
        });
        end(serving);
        let hole = BlackHole::new();
        let address = hole.address;
        with_upstream(&[address], plainly(), async move |upstream| {
            let error = upstream.connect(&within(ms(200))).await.expect_err("nobody is there");
            assert!(matches!(error.kind(), Kind::Dial(Dial::Timeout)), "{error}");
            assert_eq!(error.endpoint(), Some(address));
            assert!(error.elapsed() >= ms(199), "{error:?}");
        });
        drop(hole);
    });
}

#[test]
fn a_black_hole_is_found_also_by_callers_that_have_less_time_than_a_dial() {
    bounded(|| {
        let (serving, live) = upstream();
        let hole = BlackHole::new();
        let address = hole.address;
        for is_pooled in [false, true] {
            let limits = UpstreamLimits { algorithm: Algorithm::Random, ..plainly() };
            with_upstream(&[live, address], limits, async move |upstream| {
                let mut errors = 0;
                let begun = now();
                while !is_ejected(&upstream, address) && now() - begun < ms(6000) {
                    let is_error = match is_pooled {
                        true => ask(&upstream, &within(ms(150)), Idempotency::ConnectOnly)
                            .await
                            .is_err(),
                        false => upstream.connect(&within(ms(150))).await.is_err(),
                    };
                    errors += usize::from(is_error);
                    sleep(ms(20)).await;
                }
                assert!(is_ejected(&upstream, address), "pooled {is_pooled}: {errors} errors");
            });
        }
        drop(hole);
        end(serving);
    });
}

/// Left alone for half a second at first, and probed ten times a second.
fn soon_back() -> UpstreamLimits {
    UpstreamLimits {
        algorithm: Algorithm::RoundRobin,
        outlier: OutlierLimits { base: ms(500), longest: ms(2000), ..OutlierLimits::default() },
        probe_interval: ms(100),
        ..UpstreamLimits::default()
    }
}

#[test]
fn who_is_not_back_when_its_time_has_come_costs_nobody_another_connect_timeout() {
    bounded(|| {
        let (serving, live) = upstream();
        let hole = BlackHole::new();
        let attempt = ConnectLimits { attempt: ms(150), ..ConnectLimits::default() };
        let connector = Connector::builder().limits(attempt).build().expect("sound");
        let upstream = Upstream::builder("test").endpoint(live).endpoint(hole.address);
        let upstream = upstream.connector(connector).limits(soon_back()).seed(7).build();
        let upstream = upstream.expect("sound");
        let slow = run(move || async move {
            let (begun, mut slow) = (now(), Vec::new());
            while now() - begun < ms(3000) {
                let asked = now();
                drop(upstream.connect(&Request::default()).await.expect("one lives"));
                if now() - asked >= ms(140) {
                    slow.push(asked - begun);
                }
                sleep(ms(10)).await;
            }
            slow
        });
        assert!(slow.len() <= 1, "these waited for the black hole: {slow:?}");
        drop(hole);
        end(serving);
    });
}

#[test]
fn who_could_not_be_reached_for_long_is_back_when_it_can_be() {
    bounded(|| {
        let (serving, live) = upstream();
        let (bound, dead) = refusing();
        with_upstream(&[live, dead], soon_back(), async move |upstream| {
            while !is_ejected(&upstream, dead) {
                drop(upstream.connect(&Request::default()).await.expect("one lives"));
            }
            for _ in 0..60 {
                sleep(ms(20)).await;
                assert!(is_ejected(&upstream, dead), "nobody listens there");
            }
            bound.listen(8).expect("a bound socket");
            let begun = now();
            while is_ejected(&upstream, dead) {
                assert!(now() - begun < ms(2000), "it can be reached: {}", upstream.snapshot());
                sleep(ms(20)).await;
            }
            // Told ten times a second.
            sleep(ms(300)).await;
            assert_eq!(upstream.counters().returns, 1);
        });
        end(serving);
    });
}

#[test]
fn started_it_dials_what_is_to_be_idle() {
    bounded(|| {
        let (serving, live) = upstream();
        let (serving_too, spawner) = runtime(two_reactors());
        let pool = PoolLimits::of(Mode::Dynamic { min_idle: 3, max: 8 });
        let upstream = made(&[live], UpstreamLimits { pool, ..UpstreamLimits::default() });
        upstream.start(&spawner);
        eventually("all are dialed", || sum(&serving.handle().counters()).accepted == 3);
        drop(upstream);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn a_request_that_panics_says_nothing_of_the_endpoint() {
    bounded(|| {
        let (serving, live) = upstream();
        let (serving_too, spawner) = runtime(one_reactor());
        let upstream = made(&[live], UpstreamLimits::default());
        let of_task = upstream.clone();
        let task = spawner.spawn(move || async move {
            let _lent = of_task.checkout(&Request::default()).await.expect("one");
            panic!("as it is meant to");
        });
        assert!(task.join().is_err());
        let task = spawner.spawn(move || async move { upstream.snapshot() });
        let snapshot = task.join().expect("it ends");
        assert_eq!(snapshot.endpoints[0].latency, None, "no success was noted: {snapshot}");
        assert_eq!(snapshot.endpoints[0].in_flight, 0);
        assert_eq!(support::drained(serving_too).handler_panics, 1);
        let mut client = support::connect(serving.addresses()[0]);
        client.write_all(b"x").expect("open");
        drop(client);
        end(serving);
    });
}
