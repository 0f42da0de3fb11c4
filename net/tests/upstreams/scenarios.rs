//! Upstreams in trouble, on the real kernel: what callers see of pools that are full, of servers that fail for a while,
//! and of connections that die while they are kept.
//!
//! Each is a tale that somebody tells of a pool: waiters that hang for half a minute, retries that finish off what was
//! left of a service, errors after each quiet moment. `upstream.rs` has the parts by themselves.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::setting::{ask, soon, with_upstream};
use crate::support::{bounded, bounded_by, ms, refusing, spawn};
use slipring::failure::{Checkout, Kind};
use slipring::policy::balancer::{Algorithm, BalancerLimits};
use slipring::policy::breaker::{BreakerLimits, Standing};
use slipring::policy::budget::BudgetLimits;
use slipring::policy::outlier::OutlierLimits;
use slipring::policy::retry::RetryPolicy;
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{Error, Idempotency, Scope, now, sleep, sleep_until, spawn_local, unblock};

/// A request that outlasts each trouble here.
fn patient() -> Request {
    Request { within: Some(Duration::from_secs(5)), ..Request::default() }
}

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Answer,
    /// Answers, then closes in order.
    AnswerAndClose,
    Reset,
    AnswerAfter(Duration),
}

/// A server of threads: one for each connection. When it is dropped, it ends with all of them.
struct Server {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    /// By their numbers: for who wants to end them.
    open: Arc<Mutex<Vec<(usize, TcpStream)>>>,
}

impl Server {
    /// `keep_alive`: a connection on which nothing was asked for so long is closed.
    fn new(keep_alive: Option<Duration>, act: impl Fn() -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("it is bound"),
            served: Arc::default(),
            is_over: Arc::default(),
            open: Arc::default(),
        };
        let (served, open) = (Arc::clone(&server.served), Arc::clone(&server.open));
        let (is_over, act) = (Arc::clone(&server.is_over), Arc::new(act));
        spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.expect("it was accepted");
                stream.set_read_timeout(keep_alive).expect("an open socket");
                stream.set_nodelay(true).expect("an open socket");
                let copy = stream.try_clone().expect("a descriptor");
                open.lock().expect("nobody panics").push((number, copy));
                let (served, act) = (Arc::clone(&served), Arc::clone(&act));
                let open = Arc::clone(&open);
                spawn(move || {
                    serve_by(&stream, &served, &*act);
                    open.lock().expect("nobody panics").retain(|(other, _)| *other != number);
                });
            }
        });
        server
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve_by(mut stream: &TcpStream, served: &AtomicUsize, act: &dyn Fn() -> Act) {
    let mut request = [0; 5];
    while stream.read_exact(&mut request).is_ok() {
        served.fetch_add(1, Ordering::SeqCst);
        let act = act();
        match act {
            Act::Reset => {
                let socket = socket2::SockRef::from(stream);
                socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
                return;
            }
            Act::AnswerAfter(span) => std::thread::park_timeout(span),
            Act::Answer | Act::AnswerAndClose => {}
        }
        if stream.write_all(&request).is_err() || act == Act::AnswerAndClose {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            return;
        }
    }
}

// ------------------------------------------------------------------------------------ a full pool

#[test]
fn who_waits_behind_slow_calls_is_told_after_five_seconds_what_the_cause_is() {
    bounded(|| {
        let server = Server::new(None, || Act::AnswerAfter(Duration::from_secs(8)));
        let address = server.address;
        // Defaults: ten connections, and 5 s to wait for one.
        with_upstream(&[address], UpstreamLimits::default(), async move |upstream| {
            let mut slow = Scope::new();
            for _ in 0..10 {
                let upstream = upstream.clone();
                slow.spawn(async move {
                    let call = upstream.call(
                        &Request::default(),
                        Idempotency::Idempotent,
                        async |stream| {
                            stream.send(b"hello".to_vec()).await?;
                            stream.recv_some().await
                        },
                    );
                    assert!(call.await.is_ok(), "it is slow, and answers");
                });
            }
            soon("ten are in use", || upstream.snapshot().endpoints[0].in_flight == 10).await;
            sleep(ms(50)).await;
            let (waits, errors) = (20, Rc::new(RefCell::new(Vec::new())));
            let mut waiting = Scope::new();
            for _ in 0..waits {
                let (upstream, errors) = (upstream.clone(), Rc::clone(&errors));
                waiting.spawn(async move {
                    let begun = now();
                    let call =
                        upstream
                            .call(&Request::default(), Idempotency::Idempotent, async |_| Ok(()));
                    let error = call.await.expect_err("all are in use");
                    errors.borrow_mut().push((now() - begun, error));
                });
            }
            while waiting.join_next().await.is_some() {}
            let errors = errors.take();
            assert_eq!(errors.len(), waits);
            for (took, error) in errors {
                assert!((ms(4990)..ms(6500)).contains(&took), "{took:?}: {error}");
                let Kind::Checkout(Checkout::Timeout { snapshot, last_dial_error: None }) =
                    error.kind()
                else {
                    panic!("{error:?}")
                };
                assert_eq!((snapshot.checked_out, snapshot.max), (10, 10));
                let text = error.to_string();
                for part in ["10 of 10 in use", "scenarios.rs:", "waiting", &address.to_string()] {
                    assert!(text.contains(part), "{part} is missing: {text}");
                }
            }
            // It says nothing of the server, which is slow and no more.
            assert_eq!(upstream.snapshot().breaker, Standing::Closed);
            while let Some(ended) = slow.join_next().await {
                ended.expect("it was answered");
            }
        });
    });
}

// ------------------------------------------------------------------------------------ one dead, one forgetful

#[test]
fn who_was_found_dead_is_not_tried_again_for_a_fresh_connection() {
    bounded(|| {
        let (_bound, dead) = refusing();
        // Each connection is good for one request, and says so by a reset when the second comes.
        let requests = AtomicUsize::new(0);
        let server = Server::new(None, move || {
            let is_first = requests.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            if is_first { Act::Answer } else { Act::Reset }
        });
        let limits = UpstreamLimits {
            algorithm: Algorithm::RoundRobin,
            // The dead one is asked each time.
            outlier: OutlierLimits { ejected_max_percent: 0, ..OutlierLimits::default() },
            breaker: BreakerLimits::never(),
            retry: RetryPolicy {
                attempts_max: 3,
                budget: BudgetLimits { percent: 1000, ..BudgetLimits::default() },
                ..RetryPolicy::default()
            },
            ..UpstreamLimits::default()
        };
        with_upstream(&[dead, server.address], limits, async |upstream| {
            for call in 0..20 {
                let asked = ask(&upstream, &patient(), Idempotency::Idempotent).await;
                assert!(asked.is_ok(), "call {call}: {asked:?}");
            }
        });
    });
}

#[test]
fn who_is_refused_while_a_probe_is_under_way_waits_for_the_probe_and_not_for_its_time() {
    bounded(|| {
        let requests = AtomicUsize::new(0);
        let server = Server::new(None, move || match requests.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Reset,
            1 => Act::AnswerAfter(ms(300)),
            _ => Act::Answer,
        });
        let limits = UpstreamLimits {
            breaker: BreakerLimits {
                calls_min: 1,
                open: ms(50),
                permits: 1,
                successes: 1,
                permit_timeout: Duration::from_secs(10),
                ..BreakerLimits::default()
            },
            outlier: OutlierLimits { ejected_max_percent: 0, ..OutlierLimits::default() },
            retry: RetryPolicy {
                attempts_max: 20,
                budget: BudgetLimits { percent: 1000, per_second: 100, ..BudgetLimits::default() },
                ..RetryPolicy::default()
            },
            ..UpstreamLimits::default()
        };
        with_upstream(&[server.address], limits, async |upstream| {
            let opened = ask(&upstream, &patient(), Idempotency::ConnectOnly).await;
            assert!(opened.is_err() && matches!(upstream.breaker(), Standing::Open { .. }));
            sleep(ms(60)).await;
            let of_probe = upstream.clone();
            let probe =
                spawn_local(
                    async move { ask(&of_probe, &patient(), Idempotency::ConnectOnly).await },
                );
            let is_half_open =
                || matches!(upstream.breaker(), Standing::HalfOpen { permits: 1, .. });
            soon("the probe is under way", is_half_open).await;
            let begun = now();
            let asked = ask(&upstream, &patient(), Idempotency::Idempotent).await;
            let took = now() - begun;
            assert!(asked.is_ok() && took < ms(1500), "{asked:?} after {took:?}");
            assert!(matches!(probe.await, Ok(Ok(()))));
        });
    });
}

// ------------------------------------------------------------------------------------ a partial outage

const RATE_HZ: u32 = 200;
const OUTAGE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(4);
/// What takes longest to recover: an ejection, and then a breaker that opened last of all.
const RECOVERS_WITHIN: Duration = Duration::from_millis(2500);

/// When each call began, and whether it was answered.
async fn storm(upstream: &Upstream, lasts: Duration) -> Vec<(Duration, Result<(), Error>)> {
    let (begun, results) = (now(), Rc::new(RefCell::new(Vec::new())));
    let mut calls = Scope::new();
    for number in 0.. {
        let at = begun + Duration::from_secs(number) / RATE_HZ;
        if at >= begun + lasts {
            break;
        }
        sleep_until(at).await;
        let (upstream, results) = (upstream.clone(), Rc::clone(&results));
        calls.spawn(async move {
            let result = ask(&upstream, &patient(), Idempotency::Idempotent).await;
            results.borrow_mut().push((at, result));
        });
    }
    while calls.join_next().await.is_some() {}
    results.take()
}

fn storm_limits() -> UpstreamLimits {
    UpstreamLimits {
        breaker: BreakerLimits {
            window: Duration::from_secs(1),
            open: ms(500),
            open_max: Duration::from_secs(1),
            ..BreakerLimits::default()
        },
        outlier: OutlierLimits {
            base: ms(500),
            longest: Duration::from_secs(1),
            ..OutlierLimits::default()
        },
        retry: RetryPolicy {
            budget: BudgetLimits { per_second: 2, ..BudgetLimits::default() },
            ..RetryPolicy::default()
        },
        ..UpstreamLimits::default()
    }
}

/// Two of three endpoints reset each request for a while. How many of how many calls failed meanwhile, and how many
/// attempts the two had to bear.
fn an_outage_of_two_of_three(limits: UpstreamLimits) -> (usize, usize, usize) {
    let is_ill = Arc::new(AtomicBool::new(true));
    let well = Server::new(None, || Act::Answer);
    let ill = [(); 2].map(|()| {
        let is_ill = Arc::clone(&is_ill);
        Server::new(
            None,
            move || if is_ill.load(Ordering::SeqCst) { Act::Reset } else { Act::Answer },
        )
    });
    let endpoints = [well.address, ill[0].address, ill[1].address];
    let constant = limits.retry.budget.per_second as usize * 10;
    let served = [Arc::clone(&ill[0].served), Arc::clone(&ill[1].served)];
    let (recovers, borne, during, after) = with_upstream(&endpoints, limits, {
        let is_ill = Arc::clone(&is_ill);
        async move |upstream| {
            let during = storm(&upstream, OUTAGE).await;
            is_ill.store(false, Ordering::SeqCst);
            let borne = served.iter().map(|served| served.load(Ordering::SeqCst)).sum();
            let recovers = now() + RECOVERS_WITHIN;
            let after = storm(&upstream, AFTER).await;
            (recovers, borne, during, after)
        }
    });
    let reached = well.served() + ill[0].served() + ill[1].served();
    let requests = during.len() + after.len();
    let failed = during.iter().filter(|(_, result)| result.is_err()).count();
    assert!(reached <= requests * 5 / 4 + constant, "{reached} attempts for {requests} requests");
    for (at, result) in &after {
        assert!(result.is_ok() || *at < recovers, "{at:?}, to be well at {recovers:?}: {result:?}");
    }
    let late = after.iter().filter(|(at, _)| *at >= recovers).count();
    assert!(late > 200, "only {late} calls after its recovery");
    (failed, during.len(), borne)
}

#[test]
fn a_partial_outage_brings_no_storm_of_retries_and_is_over_when_it_is() {
    bounded(|| {
        // By the defaults, at most half may be ejected, and with fewer than half healthy all are used.
        let (_, of, borne) = an_outage_of_two_of_three(storm_limits());
        assert!(borne * 3 < of, "{borne} attempts at endpoints that fail, for {of} calls");
    });
}

#[test]
fn a_partial_outage_costs_few_calls_where_all_ill_ones_may_be_ejected() {
    bounded(|| {
        let limits = UpstreamLimits {
            outlier: OutlierLimits { ejected_max_percent: 67, ..storm_limits().outlier },
            balancer: BalancerLimits { healthy_min_percent: 0, ..BalancerLimits::default() },
            breaker: BreakerLimits::never(),
            ..storm_limits()
        };
        let (failed, of, borne) = an_outage_of_two_of_three(limits);
        assert!(failed * 20 < of, "{failed} of {of} calls failed, though one endpoint was well");
        assert!(borne * 6 < of, "{borne} attempts at endpoints that fail, for {of} calls");
    });
}

// ------------------------------------------------------------------------------------ death while kept

/// Ends the client's side of all connections to this port, as an administrator does. Whether anything was ended.
fn kill_by_ss(port: u16) -> bool {
    let filter = ["-K", "-H", "-t", "dst", "127.0.0.1", "dport", "=", &port.to_string()];
    let killed = Command::new("ss").args(filter).output();
    killed.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

/// Whether this process may do that, and this kernel can.
fn can_kill_by_ss() -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(ms(500))).expect("an open socket");
    let says_so = kill_by_ss(address.port());
    let error = stream.read(&mut [0]).err().map(|error| error.kind());
    says_so && error != Some(std::io::ErrorKind::WouldBlock)
}

#[test]
fn connections_killed_while_they_are_kept_cost_no_error() {
    bounded(|| {
        let server = Server::new(None, || Act::Answer);
        let (address, open) = (server.address, Arc::clone(&server.open));
        let by_ss = can_kill_by_ss();
        with_upstream(&[address], UpstreamLimits::default(), async move |upstream| {
            for round in 0..50 {
                if round % 4 == 0 {
                    // Whoever dies only now, and answers until then, is not what is kept below.
                    sleep(ms(20)).await;
                }
                // A few are kept.
                let mut calls = Scope::new();
                for _ in 0..=round % 4 {
                    let upstream = upstream.clone();
                    calls.spawn(async move {
                        ask(&upstream, &patient(), Idempotency::Idempotent)
                            .await
                            .expect("no error surfaces");
                    });
                }
                while let Some(ended) = calls.join_next().await {
                    ended.expect("it was answered");
                }
                let (open, waits) = (Arc::clone(&open), round % 2 == 0);
                let before = upstream.snapshot().counters.retries;
                let killed = unblock(move || {
                    if by_ss && round % 4 < 2 {
                        return kill_by_ss(address.port());
                    }
                    let streams = std::mem::take(&mut *open.lock().expect("nobody panics"));
                    let is_any = !streams.is_empty();
                    for (_, stream) in streams {
                        let socket = socket2::SockRef::from(&stream);
                        socket.set_linger(Some(Duration::ZERO)).expect("an open socket");
                        // Wakes the thread that reads there, which closes the last copy.
                        let _ = stream.shutdown(std::net::Shutdown::Read);
                    }
                    is_any
                });
                assert!(
                    killed.await.expect("it does not panic"),
                    "round {round}: nothing was there"
                );
                if waits {
                    soon("the pool has seen it", || upstream.snapshot().connections.0 == 0).await;
                }
                ask(&upstream, &patient(), Idempotency::Idempotent)
                    .await
                    .expect("no error surfaces");
                if waits {
                    let after = upstream.snapshot().counters.retries;
                    assert_eq!(
                        after, before,
                        "round {round}: sent on one that was known to be dead"
                    );
                }
            }
            assert_eq!(upstream.snapshot().breaker, Standing::Closed);
        });
    });
}

// ------------------------------------------------------------------------------------ servers that close

#[test]
fn a_server_that_closes_after_each_request_fails_no_idempotent_call() {
    bounded(|| {
        let server = Server::new(None, || Act::AnswerAndClose);
        let counters =
            with_upstream(&[server.address], UpstreamLimits::default(), async |upstream| {
                for at_once in [1, 8] {
                    for _ in 0..40 {
                        let calls = (0..at_once).map(|_| {
                            let upstream = upstream.clone();
                            spawn_local(async move {
                                ask(&upstream, &patient(), Idempotency::Idempotent).await
                            })
                        });
                        for call in calls.collect::<Vec<_>>() {
                            call.await.expect("it ends").expect("never fails");
                        }
                        sleep(ms(5)).await;
                    }
                }
                assert_eq!(upstream.snapshot().breaker, Standing::Closed);
                upstream.snapshot().counters
            });
        assert_eq!((counters.succeeded, counters.failed), (360, 0));
    });
}

#[test]
fn a_server_that_keeps_connections_for_less_time_than_the_pool_fails_no_idempotent_call() {
    bounded_by(Duration::from_secs(40), || {
        let keep_alive = ms(40);
        let server = Server::new(Some(keep_alive), || Act::Answer);
        let counters =
            with_upstream(&[server.address], UpstreamLimits::default(), async move |upstream| {
                for round in 0..200 {
                    ask(&upstream, &patient(), Idempotency::Idempotent).await.expect("never fails");
                    // Just around the time at which the server gives it up.
                    sleep(ms(36 + round % 9)).await;
                }
                assert_eq!(upstream.snapshot().breaker, Standing::Closed);
                upstream.snapshot().counters
            });
        assert_eq!((counters.succeeded, counters.failed), (200, 0));
    });
}
