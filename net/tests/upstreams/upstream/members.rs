//! Who belongs to an upstream, and who of them is used: checks, names, tiers, its end.

use super::*;
use crate::support;

fn checked(expect: &[u8]) -> UpstreamLimits {
    let limits = HealthLimits {
        interval: ms(40),
        fast_interval: ms(20),
        timeout: ms(500),
        ..HealthLimits::default()
    };
    let health = Check { limits, send: b"hello".to_vec(), expect: expect.to_vec() };
    UpstreamLimits {
        health: Some(health),
        // Only checks are to speak.
        outlier: OutlierLimits { ejected_max_percent: 0, ..OutlierLimits::default() },
        ..UpstreamLimits::default()
    }
}

#[test]
fn checks_take_an_endpoint_out_and_back_in() {
    bounded(|| {
        let is_ill = Arc::new(AtomicBool::new(false));
        let ill = Arc::clone(&is_ill);
        let server =
            Scripted::new(
                move |_| {
                    if ill.load(Ordering::SeqCst) { Act::Close } else { Act::Answer }
                },
            );
        let (serving, live) = upstream();
        let (serving_too, spawner) = runtime(two_reactors());
        let upstream = made(&[live, server.address], checked(b"hell"));
        upstream.start(&spawner);
        let address = server.address;
        for (is_ill_now, availability) in
            [(true, Availability::Down), (false, Availability::Up), (true, Availability::Down)]
        {
            is_ill.store(is_ill_now, Ordering::SeqCst);
            for reactor in 0..2 {
                let upstream = upstream.clone();
                let seen = spawner.spawn_on(reactor, move || async move {
                    soon("checks have seen it", || {
                        let snapshot = upstream.snapshot();
                        let mut all = snapshot.endpoints.iter();
                        all.any(|one| one.address == address && one.availability == availability)
                    })
                    .await;
                });
                seen.join().expect("it is seen on both");
            }
        }
        drop(upstream);
        end(serving_too);
        end(serving);
    });
}

#[test]
fn a_server_that_answers_something_else_is_down() {
    bounded(|| {
        let (serving, live) = upstream();
        with_upstream(&[live], checked(b"PONG"), async |upstream| {
            soon("it is down", || {
                upstream.snapshot().endpoints[0].availability == Availability::Down
            })
            .await;
            // The only one: better to try it than nobody.
            ask(&upstream, &Request::default(), Idempotency::ConnectOnly)
                .await
                .expect("it answers all the same");
        });
        end(serving);
    });
}

#[test]
fn an_upstream_that_nobody_has_any_more_closes_what_it_kept() {
    bounded(|| {
        let (serving, address) = upstream();
        let (serving_too, spawner) = runtime(one_reactor());
        let upstream = made(&[address], UpstreamLimits::default());
        let of_task = upstream.clone();
        let asked = spawner.spawn(move || async move {
            ask(&of_task, &Request::default(), Idempotency::ConnectOnly).await
        });
        asked.join().expect("it ends").expect("an echo");
        drop(upstream);
        eventually("its connection is closed", || {
            support::sum(&serving.handle().counters()).closed == 1
        });
        end(serving_too);
        end(serving);
    });
}

#[test]
fn where_a_name_leads_requests_go_also_when_it_leads_elsewhere() {
    bounded(|| {
        let (first, second) = (upstream(), upstream());
        let hosts = Fixed::new();
        let place = |address: SocketAddr| Target::new(address);
        hosts.set("cache.example", [place(first.1)]).expect("a name");
        let names = NameLimits {
            ttl_min: ms(20),
            ttl_max: ms(20),
            negative: ms(20),
            ..NameLimits::default()
        };
        let limits = ResolveLimits { names, ..ResolveLimits::default() };
        let (serving, spawner) = runtime(two_reactors());
        let upstream = Upstream::builder("test")
            .name("cache.example:1".parse().expect("a query"), hosts.clone(), limits)
            .seed(7)
            .build()
            .expect("sound");
        let goes_to = |reactor: usize, wanted: Result<SocketAddr, Resolve>| {
            let upstream = upstream.clone();
            let task = spawner.spawn_on(reactor, move || async move {
                loop {
                    let went = upstream.connect(&Request::default()).await;
                    let went = went.map(|connected| connected.endpoint());
                    match (&went, &wanted) {
                        (Ok(at), Ok(wanted)) if at == wanted => return,
                        (Err(error), Err(why)) => {
                            if matches!(error.kind(), Kind::Resolve(what) if what == why) {
                                return;
                            }
                        }
                        _ => {}
                    }
                    sleep(ms(5)).await;
                }
            });
            task.join().expect("it gets there");
        };
        goes_to(0, Ok(first.1));
        goes_to(1, Ok(first.1));
        hosts.set("cache.example", [place(second.1)]).expect("a name");
        goes_to(1, Ok(second.1));
        goes_to(0, Ok(second.1));
        hosts.remove("cache.example");
        goes_to(0, Err(Resolve::NotFound));
        goes_to(1, Err(Resolve::NotFound));
        hosts.set("cache.example", [place(first.1), place(second.1)]).expect("a name");
        goes_to(0, Ok(first.1));
        goes_to(1, Ok(second.1));
        drop(upstream);
        end(serving);
        end(first.0);
        end(second.0);
    });
}

#[test]
fn tiers_are_asked_in_their_order() {
    bounded(|| {
        let (serving, second) = upstream();
        let (_bound, dead) = refusing();
        let (serving_too, spawner) = runtime(one_reactor());
        let upstream = Upstream::builder("test")
            .target(Target::new(dead))
            .target(Target { tier: 7, ..Target::new(second) })
            .limits(UpstreamLimits { breaker: BreakerLimits::never(), ..UpstreamLimits::default() })
            .seed(7)
            .build()
            .expect("sound");
        let task = spawner.spawn(move || async move {
            // The only one of its tier is gone: until it is ejected, who comes finds nobody else there.
            let mut errors = 0;
            for _ in 0..50 {
                errors += usize::from(upstream.connect(&Request::default()).await.is_err());
            }
            errors
        });
        let errors = task.join().expect("it ends");
        assert!(errors <= 2, "{errors}");
        end(serving_too);
        end(serving);
    });
}
