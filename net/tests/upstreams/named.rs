//! Upstreams by name: what the limits of a name let pass, and what is kept when its answer changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use slipring::policy::balancer::Algorithm;
use slipring::policy::names::{NameLimits, Target};
use slipring::resolve::{Fixed, ResolveLimits};
use slipring::upstream::{Request, Upstream, UpstreamBuilder, UpstreamLimits};
use slipring::{Idempotency, sleep};

use crate::setting::{ask, run, upstream};
use crate::support::{bounded, drained, ms};

fn by_name(hosts: &Fixed, names: NameLimits) -> UpstreamBuilder {
    let limits = ResolveLimits { names, ..ResolveLimits::default() };
    let query = "cache.example:1".parse().expect("a query");
    Upstream::builder("test")
        .name(query, hosts.clone(), limits)
        .limits(UpstreamLimits { algorithm: Algorithm::RoundRobin, ..UpstreamLimits::default() })
        .seed(7)
}

fn soon_asked_again() -> NameLimits {
    NameLimits { ttl_min: ms(20), ttl_max: ms(20), negative: ms(20), ..NameLimits::default() }
}

fn weighs(address: SocketAddr, weight: u16) -> Target {
    Target { weight, ..Target::new(address) }
}

#[test]
fn a_name_that_is_an_address_is_held_to_its_limits_too() {
    let names = NameLimits { is_public: true, ..NameLimits::default() };
    let limits = ResolveLimits { names, ..ResolveLimits::default() };
    let of = |text: &str, limits: ResolveLimits| {
        let query = text.parse().expect("a query");
        let built = Upstream::builder("test").name(query, Fixed::new(), limits).build();
        built.map(drop).map_err(|error| error.to_string())
    };
    for text in
        ["127.0.0.1:80", "[::ffff:10.0.0.1]:80", "169.254.169.254:80", "[64:ff9b::a00:1]:80"]
    {
        let error = of(text, limits).expect_err("it is not");
        assert!(error.starts_with(&format!("{text} is not public, ")), "{error}");
        assert_eq!(of(text, ResolveLimits::default()), Ok(()), "nobody says that it is public");
    }
    assert_eq!(of("8.8.8.8:80", limits), Ok(()));
    let senseless = ResolveLimits { names_max: 0, ..limits };
    let refused = of("8.8.8.8:80", senseless).expect_err("as with any other name");
    assert!(refused.starts_with("names: 0 names are kept"), "{refused}");
}

#[test]
fn an_endpoint_whose_weight_changes_keeps_its_connections() {
    bounded(|| {
        let (serving, address) = upstream();
        let hosts = Fixed::new();
        hosts.set("cache.example", [weighs(address, 1)]).expect("a name");
        let upstream = by_name(&hosts, soon_asked_again()).build().expect("sound");
        run(move || async move {
            for weight in 2..6 {
                for _ in 0..5 {
                    ask(&upstream, &Request::default(), Idempotency::ConnectOnly)
                        .await
                        .expect("an echo");
                }
                hosts.set("cache.example", [weighs(address, weight)]).expect("a name");
                sleep(ms(150)).await;
            }
            assert_eq!(upstream.snapshot().endpoints.len(), 1);
        });
        assert_eq!(drained(serving).accepted, 1, "one connection for all of them");
    });
}

#[test]
fn weights_share_the_load_however_large_they_are_and_also_when_they_change() {
    bounded(|| {
        let (first, second) = (upstream(), upstream());
        let hosts = Fixed::new();
        let weigh = {
            let hosts = hosts.clone();
            let both = [first.1, second.1];
            move |weights: [u16; 2]| {
                let places = both.into_iter().zip(weights).map(|(at, weight)| weighs(at, weight));
                hosts.set("cache.example", places).expect("a name");
            }
        };
        weigh([1_000, 3_000]);
        let (one, other) = (first.1, second.1);
        let mut limits =
            UpstreamLimits { algorithm: Algorithm::RoundRobin, ..UpstreamLimits::default() };
        limits.balancer.slow_start = Duration::ZERO;
        let upstream = by_name(&hosts, soon_asked_again()).limits(limits).build().expect("sound");
        run(move || async move {
            for (weights, shares) in [
                ([1_000, 3_000], [25, 75]),
                ([30_000, 10_000], [75, 25]),
                ([1, 1], [50, 50]),
                ([0, 65_535], [0, 100]),
                ([3, 1], [75, 25]),
            ] {
                weigh(weights);
                sleep(ms(200)).await;
                let mut went = BTreeMap::new();
                for _ in 0..100 {
                    let connected = upstream.connect(&Request::default()).await.expect("it lives");
                    *went.entry(connected.endpoint()).or_insert(0_i32) += 1;
                }
                for (at, share) in [one, other].into_iter().zip(shares) {
                    let went = went.get(&at).copied().unwrap_or(0);
                    assert!((went - share).abs() <= 2, "{weights:?}: {went} instead of {share}");
                }
            }
        });
        drained(first.0);
        drained(second.0);
    });
}
