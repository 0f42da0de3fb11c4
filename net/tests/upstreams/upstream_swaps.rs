//! Names that lead elsewhere while calls are under way, and checks that fail for reasons of our own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::setting::{made, run, runtime, soon, upstream};
use crate::support::{
    BlackHole, bounded, end, eventually, loopback, ms, one_reactor, refusing, serve, sum,
};
use slipring::failure::{Admit, Kind, Transfer};
use slipring::health::Check;
use slipring::policy::balancer::Availability;
use slipring::policy::breaker::BreakerLimits;
use slipring::policy::health::HealthLimits;
use slipring::policy::names::{NameLimits, Target};
use slipring::policy::pool::{Mode, PoolLimits};
use slipring::policy::retry::RetryPolicy;
use slipring::resolve::{Fixed, ResolveLimits};
use slipring::upstream::{Request, Upstream, UpstreamLimits};
use slipring::{Error, sleep, spawn_local};

/// An upstream of a name, and what moves the name.
fn named(limits: UpstreamLimits) -> (Upstream, impl Fn(&[SocketAddr]) + Send) {
    let hosts = Fixed::new();
    let names =
        NameLimits { ttl_min: ms(20), ttl_max: ms(20), negative: ms(20), ..NameLimits::default() };
    let upstream = Upstream::builder("test")
        .name(
            "cache.example:1".parse().expect("a query"),
            hosts.clone(),
            ResolveLimits { names, ..ResolveLimits::default() },
        )
        .limits(UpstreamLimits {
            breaker: BreakerLimits::never(),
            retry: RetryPolicy::never(),
            ..limits
        })
        .seed(7)
        .build()
        .expect("sound");
    let moves = move |to: &[SocketAddr]| {
        let targets = to.iter().map(|address| Target::new(*address));
        hosts.set("cache.example", targets).expect("a name");
    };
    (upstream, moves)
}

fn who_is_there(upstream: &Upstream) -> Vec<(SocketAddr, Availability)> {
    let snapshot = upstream.snapshot();
    snapshot.endpoints.iter().map(|one| (one.address, one.availability)).collect()
}

#[test]
fn a_dial_that_ends_after_its_endpoint_has_left_is_not_held_against_the_next_of_its_number() {
    bounded(|| {
        let hole = BlackHole::new();
        let pool = PoolLimits { hung_after: ms(30_000), ..PoolLimits::default() };
        let limits = UpstreamLimits { pool, connections_max: 1, ..UpstreamLimits::default() };
        let (upstream, moves) = named(limits);
        let (serving, live) = crate::setting::upstream();
        let address = hole.address;
        run(move || async move {
            moves(&[live]);
            let one = upstream.connect(&Request::default()).await.expect("it lives");
            moves(&[address]);
            soon("it is there", || who_is_there(&upstream).iter().any(|(at, _)| *at == address))
                .await;
            let request = Request { within: Some(ms(1500)), ..Request::default() };
            let hanging = spawn_local(upstream.checkout(&request));
            sleep(ms(100)).await;
            // Its dial has waited for this place.
            drop(one);
            sleep(ms(100)).await;
            let others: [SocketAddr; 3] = [1, 2, 3].map(|port| ([127, 0, 0, 1], port).into());
            moves(&others[..2]);
            assert!(hanging.await.expect("it ends").is_err(), "nobody answers");
            soon("it has left", || who_is_there(&upstream).len() == 2).await;
            // Its dial is given up some turns later.
            sleep(ms(200)).await;
            moves(&others);
            soon("all three are there", || who_is_there(&upstream).len() == 3).await;
            let there = who_is_there(&upstream);
            assert!(there.iter().all(|(_, is)| *is == Availability::Up), "{there:?}");
        });
        drop(hole);
        end(serving);
    });
}

#[test]
fn a_name_that_leads_to_more_than_may_be_takes_nobody_away_who_is_there() {
    bounded(|| {
        let mut all = [upstream(), upstream(), upstream()];
        all.sort_by_key(|(_, address)| *address);
        let addresses = [all[0].1, all[1].1, all[2].1];
        let (upstream, moves) =
            named(UpstreamLimits { endpoints_max: 2, ..UpstreamLimits::default() });
        run(move || async move {
            moves(&addresses[1..]);
            drop(upstream.connect(&Request::default()).await.expect("two are there"));
            moves(&addresses);
            for _ in 0..30 {
                let connected = upstream.connect(&Request::default()).await.expect("still there");
                assert_ne!(connected.endpoint(), addresses[0], "it is one too many");
                drop(connected);
                sleep(ms(10)).await;
            }
            moves(&addresses[..2]);
            soon("the place of who has left is another's", || {
                who_is_there(&upstream).contains(&(addresses[0], Availability::Up))
            })
            .await;
        });
        all.into_iter().for_each(|(serving, _)| end(serving));
    });
}

#[test]
fn all_endpoints_may_be_others_at_once_though_calls_are_under_way() {
    bounded(|| {
        let all = [upstream(), upstream(), upstream()];
        let addresses = [all[0].1, all[1].1, all[2].1];
        let (upstream, moves) =
            named(UpstreamLimits { endpoints_max: 1, ..UpstreamLimits::default() });
        run(move || async move {
            moves(&addresses[..1]);
            let mut held = Vec::new();
            for at in addresses {
                moves(&[at]);
                loop {
                    let connected = upstream.connect(&Request::default()).await;
                    let connected = connected.expect("somebody is always there");
                    if connected.endpoint() == at {
                        held.push(connected);
                        break;
                    }
                    sleep(ms(5)).await;
                }
                sleep(ms(250)).await;
            }
        });
        all.into_iter().for_each(|(serving, _)| end(serving));
    });
}

#[test]
fn who_has_left_is_not_kept_company_by_idle_connections_while_a_call_lasts() {
    bounded(|| {
        let (first, second) = (upstream(), upstream());
        let pool = PoolLimits::of(Mode::Dynamic { min_idle: 2, max: 8 });
        let (upstream, moves) = named(UpstreamLimits { pool, ..UpstreamLimits::default() });
        let (serving, spawner) = runtime(one_reactor());
        let of_task = upstream.clone();
        moves(&[first.1]);
        let is_over = Arc::<AtomicUsize>::default();
        let over = Arc::clone(&is_over);
        let task = spawner.spawn(move || async move {
            let held = of_task.connect(&Request::default()).await.expect("one");
            soon("the call is over", || over.load(Ordering::SeqCst) == 1).await;
            drop(held);
        });
        let open = || {
            let counters = sum(&first.0.handle().counters());
            counters.accepted - counters.closed
        };
        eventually("two are idle beside it", || open() == 3);
        moves(&[second.1]);
        eventually("they are closed", || open() == 1);
        is_over.store(1, Ordering::SeqCst);
        task.join().expect("it ends");
        drop(upstream);
        end(serving);
        end(first.0);
        end(second.0);
    });
}

#[test]
fn calls_that_fail_on_who_has_left_keep_nobody_else_from_being_ejected() {
    bounded(|| {
        let (first, second) = (upstream(), upstream());
        let (_bound, dead) = refusing();
        let (upstream, moves) = named(UpstreamLimits::default());
        let (leaving, staying) = (first.1, second.1);
        run(move || async move {
            moves(&[leaving]);
            let mut calls = Vec::new();
            for _ in 0..6 {
                calls.push(upstream.checkout(&Request::default()).await.expect("it lives"));
            }
            moves(&[staying, dead]);
            soon("the others are there", || who_is_there(&upstream).len() == 3).await;
            for call in calls.drain(..5) {
                call.failed(&Error::new(Transfer::ResetEarly));
            }
            for _ in 0..60 {
                drop(upstream.connect(&Request::default()).await);
            }
            let there = who_is_there(&upstream);
            assert!(there.contains(&(dead, Availability::Ejected)), "{there:?}");
        });
        end(first.0);
        end(second.0);
    });
}

#[test]
fn a_check_that_fails_for_our_own_limits_says_nothing_of_the_endpoint() {
    bounded(|| {
        let (serving, live) = upstream();
        let limits = HealthLimits {
            interval: ms(20),
            fast_interval: ms(10),
            timeout: ms(500),
            ..HealthLimits::default()
        };
        let health = Some(Check { limits, ..Check::default() });
        let limits = UpstreamLimits { health, ..UpstreamLimits::default() };
        let upstream = made(&[live], limits);
        let dialing = serve(one_reactor().listen(loopback()).max_dialed(1), async |_| {});
        let spawner = dialing.spawner();
        let task = spawner.spawn(move || async move {
            let _only = loop {
                // A check may have it.
                match upstream.connect(&Request::default()).await {
                    Ok(connected) => break connected,
                    Err(error) => assert!(matches!(error.kind(), Kind::Admit(Admit::ProcessLimit))),
                }
            };
            sleep(ms(400)).await;
            who_is_there(&upstream)
        });
        assert_eq!(task.join().expect("it ends"), [(live, Availability::Up)]);
        end(dialing);
        end(serving);
    });
}
