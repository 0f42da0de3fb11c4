use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

mod load;
mod rules;
mod starting;
mod table;

const SEC: Duration = Duration::from_secs(1);
const ALL: [Algorithm; 5] = [
    Algorithm::LeastOfTwo,
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::Ewma,
    Algorithm::Maglev,
];

fn table(weights: &[u32]) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for (identity, weight) in (100..).zip(weights) {
        let endpoint = Endpoint { weight: *weight, ..Endpoint::new(identity) };
        endpoints.insert(endpoint).expect("a weight that there is");
    }
    endpoints
}

fn balancer(algorithm: Algorithm) -> Balancer {
    Balancer::new(algorithm, BalancerLimits::default())
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(0x5EED)
}

/// How often each is picked, with nothing under way.
fn counts(balancer: &mut Balancer, endpoints: &Endpoints, now: Duration, picks: u32) -> Vec<u32> {
    let mut rng = rng();
    let mut counts = vec![0; endpoints.members()];
    for key in 0..picks {
        let wish = Wish { hash: Some(u64::from(key)), ..Wish::default() };
        let pick = balancer.pick(endpoints, now, &mut rng, wish).expect("there is somebody");
        counts[pick.endpoint as usize] += 1;
    }
    counts
}

/// Pearson's statistic is within five deviations of its mean.
fn assert_shares(counts: &[u32], shares: &[f64], what: impl std::fmt::Debug) {
    let all: u32 = counts.iter().sum();
    let whole: f64 = shares.iter().sum();
    let terms = counts.iter().zip(shares).map(|(count, share)| {
        let expected = f64::from(all) * share / whole;
        (f64::from(*count) - expected).powi(2) / expected
    });
    let (chi, freedom) = (terms.sum::<f64>(), counts.len() as f64 - 1.0);
    assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "{what:?}: {chi}, {counts:?}");
}

#[test]
fn idle_endpoints_get_their_weight() {
    let sets: [&[u32]; 4] =
        [&[1, 1, 1, 1], &[1, 2, 3, 10, 64], &[256, 1], &[7, 256, 256, 31, 2, 2]];
    for weights in sets {
        let shares: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
        for algorithm in ALL {
            let counts = counts(&mut balancer(algorithm), &table(weights), SEC, 50_000);
            assert_shares(&counts, &shares, algorithm);
        }
    }
}

#[test]
fn nobody_is_nobody() {
    for algorithm in ALL {
        let mut balancer = balancer(algorithm);
        let pick = |balancer: &mut Balancer, endpoints: &Endpoints| {
            balancer.pick(endpoints, SEC, &mut rng(), Wish::default())
        };
        assert_eq!(pick(&mut balancer, &Endpoints::new()), None);
        let mut endpoints = table(&[1, 2]);
        for endpoint in 0..2 {
            endpoints
                .set_availability(endpoint, Availability::Draining, None)
                .expect("it is there");
        }
        assert_eq!(pick(&mut balancer, &endpoints), None);
        assert_eq!((balancer.taking(), balancer.is_desperate()), (0, false));
    }
}

#[test]
fn only_one_is_picked_whatever_it_carries() {
    for algorithm in ALL {
        for weight in [1, 256] {
            let mut endpoints = table(&[weight]);
            let limits = BalancerLimits { bounds: Bounds::All, ..BalancerLimits::default() };
            let mut balancer = Balancer::new(algorithm, limits);
            for _ in 0..50 {
                let pick = balancer.pick(&endpoints, SEC, &mut rng(), Wish::default());
                assert_eq!(pick, Some(Pick { endpoint: 0, is_desperate: false }), "{algorithm:?}");
                endpoints.began(0);
            }
            let wish = Wish { avoid: &[0], ..Wish::default() };
            assert_eq!(balancer.pick(&endpoints, SEC, &mut rng(), wish), None);
        }
    }
}

#[test]
fn seed_repeats_a_run() {
    for algorithm in ALL {
        let run = || {
            let (mut balancer, mut rng, mut endpoints) =
                (balancer(algorithm), rng(), table(&[1, 2, 3, 4]));
            let picks = (0..500u32).map(|at| {
                let now = Duration::from_millis(u64::from(at));
                let pick = balancer.pick(&endpoints, now, &mut rng, Wish::default()).expect("four");
                endpoints.began(pick.endpoint);
                let latency = Duration::from_micros(rng.u64(1..9000));
                balancer.note(&mut endpoints, pick.endpoint, now, latency, Outcome::Success);
                endpoints.ended(at % 4);
                pick.endpoint
            });
            picks.collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn equal_hashes_find_the_same_endpoint_in_any_table() {
    let identities: Vec<u64> = (0..20).collect();
    let insert = |identities: &mut dyn Iterator<Item = &u64>| {
        let mut endpoints = Endpoints::new();
        for identity in identities {
            endpoints.insert(Endpoint::new(*identity)).expect("there is room");
        }
        endpoints
    };
    let (one, other) = (insert(&mut identities.iter()), insert(&mut identities.iter().rev()));
    let (mut of_one, mut of_other) = (balancer(Algorithm::Maglev), balancer(Algorithm::Maglev));
    let limits = BalancerLimits { seed: 1, ..BalancerLimits::default() };
    let mut seeded = Balancer::new(Algorithm::Maglev, limits);
    let mut agree = 0;
    for hash in 0..2000 {
        let wish = Wish { hash: Some(hash), ..Wish::default() };
        let mut rng = fastrand::Rng::with_seed(hash);
        let pick = of_one.pick(&one, SEC, &mut rng, wish).expect("20");
        let same = of_other.pick(&other, SEC, &mut rng, wish).expect("20");
        assert_eq!(pick.endpoint, 19 - same.endpoint);
        agree += u32::from(seeded.pick(&one, SEC, &mut rng, wish) == Some(pick));
    }
    assert!(agree < 300, "{agree}: the seed makes another table");
}

#[test]
fn few_keys_move_when_an_endpoint_goes() {
    let mut endpoints = table(&[1; 20]);
    let mut balancer = balancer(Algorithm::Maglev);
    let mut homes = |endpoints: &Endpoints| {
        let home = |hash| {
            let wish = Wish { hash: Some(hash), ..Wish::default() };
            balancer.pick(endpoints, SEC, &mut rng(), wish).expect("there are some").endpoint
        };
        (0..20_000).map(home).collect::<Vec<u32>>()
    };
    let before = homes(&endpoints);
    endpoints.set_availability(7, Availability::Down, None).expect("it is there");
    let after = homes(&endpoints);
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new).count();
    assert!((800..2000).contains(&moved), "{moved} of 20000, ideal is 1000");
    endpoints.set_availability(7, Availability::Up, None).expect("it is there");
    assert_eq!(homes(&endpoints), before);
}

#[test]
fn limits_that_make_no_sense_are_told_with_a_remedy() {
    let fine = BalancerLimits::default();
    assert_eq!(fine.check(), Ok(()));
    let zero = Duration::ZERO;
    let cases = [
        (BalancerLimits { bound_percent: 99, ..fine }, BalancerLimitsError::Bound { percent: 99 }),
        (
            BalancerLimits { bound_percent: 10_001, ..fine },
            BalancerLimitsError::Bound { percent: 10_001 },
        ),
        (
            BalancerLimits { healthy_min_percent: 101, ..fine },
            BalancerLimitsError::Healthy { percent: 101 },
        ),
        (
            BalancerLimits { slow_start_min_percent: 0, ..fine },
            BalancerLimitsError::SlowStart { percent: 0 },
        ),
        (
            BalancerLimits { slow_start_min_percent: 101, ..fine },
            BalancerLimitsError::SlowStart { percent: 101 },
        ),
        (BalancerLimits { decay: zero, ..fine }, BalancerLimitsError::Decay),
        (BalancerLimits { failure: zero, ..fine }, BalancerLimitsError::Failure),
    ];
    for (limits, error) in cases {
        assert_eq!(limits.check(), Err(error));
        assert!(
            error.to_string().contains("; say ") || error.to_string().contains("; say a"),
            "{error}"
        );
    }
}
