//! What is under way, and how long it takes.

use super::*;

/// The longest queue there was: each endpoint ends one call a tick, and nine calls for ten of them come.
fn longest_queue(algorithm: Algorithm) -> u64 {
    const ENDPOINTS: u32 = 100;
    let mut endpoints = table(&[1; ENDPOINTS as usize]);
    let (mut balancer, mut rng) = (balancer(algorithm), rng());
    let mut longest = 0;
    for tick in 0..2000 {
        for _ in 0..ENDPOINTS * 9 / 10 {
            let now = Duration::from_millis(tick);
            let pick = balancer.pick(&endpoints, now, &mut rng, Wish::default()).expect("100");
            endpoints.began(pick.endpoint);
            longest = longest.max(endpoints.in_flight(pick.endpoint));
        }
        (0..ENDPOINTS).for_each(|endpoint| endpoints.ended(endpoint));
    }
    longest
}

#[test]
fn least_of_two_keeps_queues_short() {
    let (two, random) = (longest_queue(Algorithm::LeastOfTwo), longest_queue(Algorithm::Random));
    assert!(two <= 6, "{two}");
    assert!(random >= 3 * two, "{random}, and {two} of two");
}

#[test]
fn what_others_have_in_flight_counts() {
    for algorithm in [Algorithm::LeastOfTwo, Algorithm::Ewma] {
        let mut endpoints = table(&[1, 1]);
        let mut balancer = balancer(algorithm);
        for endpoint in 0..2 {
            balancer.note(&mut endpoints, endpoint, SEC, SEC, Outcome::Success);
        }
        endpoints.began(0);
        endpoints.set_others(1, 3);
        assert_eq!(counts(&mut balancer, &endpoints, SEC, 100), [100, 0], "{algorithm:?}");
        endpoints.set_others(1, 0);
        assert_eq!(counts(&mut balancer, &endpoints, SEC, 100), [0, 100], "{algorithm:?}");
    }
}

/// In flight they settle by weight, though the draw alone would do as much without load.
#[test]
fn heavier_ones_carry_more() {
    let mut endpoints = table(&[1, 2, 5]);
    let (mut balancer, mut rng) = (balancer(Algorithm::LeastOfTwo), rng());
    for _ in 0..800 {
        let pick = balancer.pick(&endpoints, SEC, &mut rng, Wish::default()).expect("three");
        endpoints.began(pick.endpoint);
    }
    let carried: Vec<u64> = (0..3).map(|endpoint| endpoints.in_flight(endpoint)).collect();
    for (carried, expected) in carried.iter().zip([100u64, 200, 500]) {
        assert!(carried.abs_diff(expected) <= 10, "{carried}, not {expected}");
    }
    // A light one that is idle beside a heavy one with little to do is not the better one.
    let mut endpoints = table(&[1, 256]);
    endpoints.began(1);
    let counts = counts(&mut balancer, &endpoints, SEC, 100);
    assert_eq!(counts, [0, 100]);
}

/// Calls one after the other, each ended before the next: how often each endpoint is asked.
fn served(
    balancer: &mut Balancer,
    endpoints: &mut Endpoints,
    from: Duration,
    calls: u32,
    serve: impl Fn(u32) -> (Duration, Outcome),
) -> (Vec<u32>, Duration) {
    let (mut rng, mut now) = (rng(), from);
    let mut counts = vec![0; endpoints.members()];
    for _ in 0..calls {
        let pick = balancer.pick(endpoints, now, &mut rng, Wish::default()).expect("some");
        let (latency, outcome) = serve(pick.endpoint);
        now += latency;
        balancer.note(endpoints, pick.endpoint, now, latency, outcome);
        counts[pick.endpoint as usize] += 1;
    }
    (counts, now)
}

#[test]
fn who_fails_fast_attracts_nothing_and_is_tried_again_one_day() {
    let ms = Duration::from_millis;
    for bad in [Outcome::Failure, Outcome::DialFailure, Outcome::DialTimeout] {
        let mut endpoints = table(&[1; 10]);
        let mut balancer = balancer(Algorithm::Ewma);
        let serve =
            |endpoint| if endpoint == 4 { (ms(1), bad) } else { (ms(10), Outcome::Success) };
        let (counts, now) = served(&mut balancer, &mut endpoints, SEC, 3000, serve);
        assert!(counts[4] <= 3, "{counts:?}");
        // It works again, and nobody says so. The others take turns at it.
        let serve = |_| (ms(10), Outcome::Success);
        let (counts, _) = served(&mut balancer, &mut endpoints, now, 20_000, serve);
        assert!(counts[4] > 800, "{counts:?}");
    }
}

#[test]
fn failure_that_took_longer_counts_as_long_and_an_ignored_one_not_at_all() {
    let mut endpoints = table(&[1]);
    let mut balancer = balancer(Algorithm::Ewma);
    let decay = balancer.limits.decay;
    balancer.note(&mut endpoints, 0, SEC, SEC * 99, Outcome::Ignored);
    assert_eq!(endpoints.latency(0, SEC, decay), None);
    balancer.note(&mut endpoints, 0, SEC, Duration::ZERO, Outcome::Failure);
    assert_eq!(endpoints.latency(0, SEC, decay), Some(SEC * 3));
    balancer.note(&mut endpoints, 0, SEC, SEC * 8, Outcome::DialFailure);
    assert_eq!(endpoints.latency(0, SEC, decay), Some(SEC * 8));
    // Of nobody: nothing.
    balancer.note(&mut endpoints, 9, SEC, SEC, Outcome::Success);
}

#[test]
fn faster_ones_get_more() {
    let mut endpoints = table(&[1; 4]);
    let mut balancer = balancer(Algorithm::Ewma);
    let ms = Duration::from_millis;
    let serve = |endpoint| (ms(if endpoint == 0 { 50 } else { 5 }), Outcome::Success);
    let (counts, _) = served(&mut balancer, &mut endpoints, SEC, 4000, serve);
    assert!(counts[0] < 40 && counts[1..].iter().all(|count| *count > 1000), "{counts:?}");
}

/// Of those that are as fast, the draw has said all there is to say.
#[test]
fn equally_fast_ones_get_their_weight() {
    let mut endpoints = table(&[1, 2, 5, 20]);
    let mut balancer = balancer(Algorithm::Ewma);
    for endpoint in 0..4 {
        balancer.note(&mut endpoints, endpoint, SEC, SEC, Outcome::Success);
    }
    let counts = counts(&mut balancer, &endpoints, SEC, 20_000);
    assert_shares(&counts, &[1.0, 2.0, 5.0, 20.0], "idle, and equally fast");
}

/// Nobody knows it yet: it is tried, and not by everybody at once.
#[test]
fn unknown_one_gets_one_call_until_it_is_known() {
    let mut endpoints = table(&[1; 3]);
    let mut balancer = balancer(Algorithm::Ewma);
    for endpoint in 0..2 {
        balancer.note(&mut endpoints, endpoint, SEC, Duration::from_millis(10), Outcome::Success);
    }
    let mut rng = rng();
    for _ in 0..100 {
        let pick = balancer.pick(&endpoints, SEC, &mut rng, Wish::default()).expect("three");
        endpoints.began(pick.endpoint);
    }
    assert_eq!(endpoints.in_flight(2), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The bound: nobody carries more than 1.25 of its share of the mean, rounded up, by what was given to it under the
    /// bound; whatever the algorithm and however hot a key.
    #[test]
    fn bounded_load_is_kept(
        weights in prop::collection::vec(1u32..=20, 1..12),
        algorithm in prop::sample::select(ALL.to_vec()),
        percent in prop::sample::select(vec![100u32, 125, 200]),
        seed in any::<u64>(),
    ) {
        let mut endpoints = table(&weights);
        let limits =
            BalancerLimits { bounds: Bounds::All, bound_percent: percent, ..BalancerLimits::default() };
        let mut balancer = Balancer::new(algorithm, limits);
        let mut rng = fastrand::Rng::with_seed(seed);
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        // Some are much faster.
        for endpoint in 0..weights.len() as u32 {
            balancer.note(&mut endpoints, endpoint, SEC, Duration::from_millis(rng.u64(1..1000)), Outcome::Success);
        }
        for calls in 1..200u64 {
            let wish = Wish { hash: Some(seed), ..Wish::default() };
            let pick = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("there are some");
            endpoints.began(pick.endpoint);
            let share = calls * u64::from(percent) * u64::from(weights[pick.endpoint as usize]);
            let carried = endpoints.in_flight(pick.endpoint);
            prop_assert!(carried <= share.div_ceil(all * 100), "{carried} of {calls}");
        }
    }
}

/// Whose calls do not end is passed over, though it is its turn.
#[test]
fn turn_of_one_that_carries_too_much_is_lost() {
    let limits = BalancerLimits { bounds: Bounds::All, ..BalancerLimits::default() };
    for stuck in [1, 30] {
        // With thirty of them, more turns are lost than are waited for.
        let mut endpoints = table(&[1; 40]);
        (0..stuck).for_each(|endpoint| endpoints.set_others(endpoint, 50));
        for algorithm in ALL {
            let mut balancer = Balancer::new(algorithm, limits);
            let counts = counts(&mut balancer, &endpoints, SEC, 2000);
            let (stuck, rest) = counts.split_at(stuck as usize);
            assert!(stuck.iter().all(|count| *count == 0), "{algorithm:?}: {counts:?}");
            assert!(rest.iter().all(|count| *count > 20), "{algorithm:?}: {counts:?}");
        }
    }
}

#[test]
fn hot_key_spreads_and_comes_home() {
    let mut endpoints = table(&[1; 10]);
    let (mut balancer, mut rng) = (balancer(Algorithm::Maglev), rng());
    let wish = Wish { hash: Some(42), ..Wish::default() };
    let home = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("ten").endpoint;
    let mut began = Vec::new();
    for _ in 0..1000 {
        let pick = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("ten");
        endpoints.began(pick.endpoint);
        began.push(pick.endpoint);
    }
    assert!((0..10).all(|endpoint| endpoints.in_flight(endpoint) <= 125));
    assert_eq!(endpoints.in_flight(home), 125, "as many as it may carry");
    began.into_iter().for_each(|endpoint| endpoints.ended(endpoint));
    assert_eq!(balancer.pick(&endpoints, SEC, &mut rng, wish).expect("ten").endpoint, home);

    let limits = BalancerLimits { bounds: Bounds::Never, ..BalancerLimits::default() };
    let mut free = Balancer::new(Algorithm::Maglev, limits);
    for _ in 0..1000 {
        assert_eq!(free.pick(&endpoints, SEC, &mut rng, wish).expect("ten").endpoint, home);
        endpoints.began(home);
    }
}

/// Where all are used, what those carry that are not up is in the mean: else a key would be sent away from home.
#[test]
fn mean_of_the_desperate_is_of_all() {
    let mut endpoints = table(&[1, 1, 1, 1, 1]);
    for (endpoint, availability) in
        [(0, Availability::Down), (1, Availability::Ejected), (2, Availability::Down)]
    {
        endpoints.set_availability(endpoint, availability, None).expect("it is there");
    }
    (0..5).for_each(|endpoint| endpoints.set_others(endpoint, 100));
    let (mut balancer, mut rng) = (balancer(Algorithm::Maglev), rng());
    let mut homes = BTreeSet::new();
    for hash in 0..200 {
        let wish = Wish { hash: Some(hash), ..Wish::default() };
        let loaded = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("five");
        assert!(loaded.is_desperate);
        let idle = (0..5).fold(endpoints.clone(), |mut endpoints, endpoint| {
            endpoints.set_others(endpoint, 0);
            endpoints
        });
        assert_eq!(balancer.pick(&idle, SEC, &mut rng, wish), Some(loaded));
        homes.insert(loaded.endpoint);
    }
    // And who carries far more than the others is passed over.
    endpoints.set_others(0, 500);
    for hash in 0..200 {
        let wish = Wish { hash: Some(hash), ..Wish::default() };
        assert_ne!(balancer.pick(&endpoints, SEC, &mut rng, wish).expect("five").endpoint, 0);
    }
    assert_eq!(homes.len(), 5);
}

/// Calls that hang on one that is down say nothing of what the others may carry.
#[test]
fn mean_is_of_those_who_take_calls() {
    let mut endpoints = table(&[1, 1, 1, 1]);
    endpoints.set_others(3, 1_000_000);
    endpoints.set_availability(3, Availability::Down, None).expect("it is there");
    let (mut balancer, mut rng) = (balancer(Algorithm::Maglev), rng());
    let wish = Wish { hash: Some(42), ..Wish::default() };
    for _ in 0..300 {
        let pick = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("three");
        endpoints.began(pick.endpoint);
    }
    assert!((0..3).all(|endpoint| endpoints.in_flight(endpoint) <= 125));
}
