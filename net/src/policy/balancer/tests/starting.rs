//! Slow start, and the times that it goes by.

use super::*;

const CAME_UP: Duration = Duration::from_secs(100);

/// Ten endpoints, of which the first came up late.
fn late() -> Endpoints {
    let mut endpoints = table(&[10; 10]);
    endpoints.set_availability(0, Availability::Down, None).expect("it is there");
    endpoints.set_availability(0, Availability::Up, Some(CAME_UP)).expect("it is there");
    endpoints
}

#[test]
fn late_one_ramps_up_from_a_tenth() {
    for algorithm in ALL {
        let mut balancer = balancer(algorithm);
        for (secs, part) in [(0, 0.1), (10, 0.4), (15, 0.55), (27, 0.91), (30, 1.0), (300, 1.0)] {
            let now = CAME_UP + Duration::from_secs(secs);
            let counts = counts(&mut balancer, &late(), now, 40_000);
            let others = f64::from(counts[1..].iter().sum::<u32>()) / 9.0;
            let ratio = f64::from(counts[0]) / others;
            assert!(
                (ratio - part).abs() < 0.05,
                "{algorithm:?} after {secs} s: {ratio}, not {part}"
            );
        }
    }
}

#[test]
fn who_was_there_from_the_beginning_has_all_of_its_weight() {
    let mut endpoints = table(&[1; 4]);
    endpoints.set_availability(0, Availability::Down, None).expect("it is there");
    endpoints.set_availability(0, Availability::Up, None).expect("it is there");
    for algorithm in ALL {
        let counts = counts(&mut balancer(algorithm), &endpoints, Duration::ZERO, 20_000);
        assert_shares(&counts, &[1.0; 4], algorithm);
    }
}

#[test]
fn slow_start_of_no_time_is_none() {
    let limits = BalancerLimits { slow_start: Duration::ZERO, ..BalancerLimits::default() };
    for algorithm in ALL {
        let counts = counts(&mut Balancer::new(algorithm, limits), &late(), CAME_UP, 20_000);
        assert_shares(&counts, &[1.0; 10], algorithm);
    }
}

#[test]
fn where_all_are_new_all_are_used() {
    let mut endpoints = Endpoints::new();
    for identity in 0..4 {
        let endpoint = Endpoint { up_since: Some(CAME_UP), ..Endpoint::new(identity) };
        endpoints.insert(endpoint).expect("there is room");
    }
    for algorithm in ALL {
        let counts = counts(&mut balancer(algorithm), &endpoints, CAME_UP, 20_000);
        assert!(
            counts.iter().all(|count| (4000..6000).contains(count)),
            "{algorithm:?}: {counts:?}"
        );
    }
}

/// Under load too: it carries a tenth of what the other does.
#[test]
fn late_one_carries_less() {
    for algorithm in [Algorithm::LeastOfTwo, Algorithm::Ewma] {
        let mut endpoints = table(&[3, 3]);
        endpoints.set_availability(0, Availability::Ejected, None).expect("it is there");
        endpoints.set_availability(0, Availability::Up, Some(CAME_UP)).expect("it is there");
        let (mut balancer, mut rng) = (balancer(algorithm), rng());
        for endpoint in 0..2 {
            balancer.note(&mut endpoints, endpoint, SEC, SEC, Outcome::Success);
        }
        for _ in 0..110 {
            let pick = balancer.pick(&endpoints, CAME_UP, &mut rng, Wish::default()).expect("two");
            endpoints.began(pick.endpoint);
        }
        assert!((9..=11).contains(&endpoints.in_flight(0)), "{}", endpoints.in_flight(0));
    }
}

#[test]
fn keys_that_moved_to_a_late_one_stay_there() {
    let (endpoints, mut balancer) = (late(), balancer(Algorithm::Maglev));
    let mut homes = |secs| {
        let home = |hash| {
            let wish = Wish { hash: Some(hash), ..Wish::default() };
            balancer.pick(&endpoints, CAME_UP + SEC * secs, &mut rng(), wish).expect("ten").endpoint
        };
        (0..5000).map(home).collect::<Vec<u32>>()
    };
    let mut before = homes(0);
    for secs in [5, 10, 20, 30] {
        let after = homes(secs);
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
        assert!(moved.clone().count() > 0 && moved.into_iter().all(|(_, new)| *new == 0));
        before = after;
    }
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let (mut balancer, mut rng) = (balancer(Algorithm::Random), rng());
    let endpoints = late();
    balancer.pick(&endpoints, CAME_UP + SEC * 30, &mut rng, Wish::default());
    let counts = counts(&mut balancer, &endpoints, CAME_UP, 40_000);
    assert_shares(&counts, &[1.0; 10], "it was warm already");
}

proptest! {
    #[test]
    fn nothing_panics(
        algorithm in prop::sample::select(ALL.to_vec()),
        times in prop::array::uniform4(prop::sample::select(vec![0, 1, 30, 1 << 40, u64::MAX])),
        percents in prop::array::uniform3(prop::sample::select(vec![0, 1, 50, 100, u32::MAX])),
        steps in prop::collection::vec((0u32..5, 0u32..8, prop::sample::select(vec![0, 1, u64::MAX])), 0..40),
    ) {
        let [slow_start, decay, failure, since] =
            times.map(|secs| Duration::from_secs(secs).saturating_add(Duration::from_nanos(secs)));
        let limits = BalancerLimits {
            bounds: Bounds::All,
            bound_percent: percents[0],
            healthy_min_percent: percents[1],
            slow_start,
            slow_start_min_percent: percents[2],
            decay,
            failure,
            seed: times[0],
        };
        let mut balancer = Balancer::new(algorithm, limits);
        let (mut endpoints, mut rng) = (table(&[1, 256, 7]), rng());
        for (endpoint, step, secs) in steps {
            let now = Duration::from_secs(secs).saturating_add(Duration::from_nanos(999_999_999));
            match step {
                0 => endpoints.began(endpoint),
                1 => endpoints.set_others(endpoint, u32::MAX),
                2 => endpoints.ended(endpoint),
                3 => drop(endpoints.set_availability(endpoint, Availability::Down, Some(since))),
                4 => drop(endpoints.set_availability(endpoint, Availability::Up, Some(since))),
                5 => drop(endpoints.remove(endpoint)),
                6 => balancer.note(&mut endpoints, endpoint, now, now, Outcome::Failure),
                _ => balancer.note(&mut endpoints, endpoint, now, Duration::ZERO, Outcome::Success),
            }
            let wish = Wish { hash: Some(u64::MAX), avoid: &[endpoint, u32::MAX] };
            if let Some(pick) = balancer.pick(&endpoints, now, &mut rng, wish) {
                prop_assert!(endpoints.weight(pick.endpoint).is_some());
                prop_assert!(pick.endpoint != endpoint);
            }
            let _ = endpoints.latency(endpoint, now, decay);
        }
    }
}
