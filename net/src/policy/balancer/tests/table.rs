//! The table itself, and a balancer whose table changes.

use super::*;

#[test]
fn weights_that_there_are() {
    let mut endpoints = Endpoints::new();
    for weight in [0, 257, u32::MAX] {
        let endpoint = Endpoint { weight, ..Endpoint::new(1) };
        let error = endpoints.insert(endpoint).expect_err("there is no such weight");
        assert_eq!(error, EndpointsError::Weight { weight });
        assert!(error.to_string().contains("; say from 1 to 256"), "{error}");
    }
    let endpoint = endpoints.insert(Endpoint::new(1)).expect("weight 1");
    assert_eq!(endpoints.set_weight(endpoint, 0), Err(EndpointsError::Weight { weight: 0 }));
    assert_eq!(endpoints.weight(endpoint), Some(1));
}

#[test]
fn numbers_are_reused_and_nothing_of_the_past_with_them() {
    let mut endpoints = table(&[1, 2, 3]);
    endpoints.began(1);
    endpoints.set_others(1, 7);
    let busy = EndpointsError::Busy { endpoint: 1, calls: 1 };
    assert_eq!(endpoints.remove(1), Err(busy));
    endpoints.ended(1);
    let mut balancer = balancer(Algorithm::Ewma);
    balancer.note(&mut endpoints, 1, SEC, SEC, Outcome::Success);
    assert_eq!(endpoints.remove(1), Ok(()));
    assert_eq!(endpoints.remove(1), Err(EndpointsError::Unknown { endpoint: 1 }));
    assert_eq!((endpoints.weight(1), endpoints.availability(1)), (None, None));
    endpoints.began(1);
    assert_eq!(endpoints.insert(Endpoint::new(9)), Ok(1));
    assert_eq!((endpoints.in_flight(1), endpoints.own(1)), (0, 0));
    assert_eq!(endpoints.latency(1, SEC, SEC), None);
    assert_eq!(endpoints.insert(Endpoint::new(10)), Ok(3));
    assert_eq!(endpoints.members(), 4);
}

#[test]
fn full_table_says_so() {
    let mut endpoints = Endpoints::new();
    for identity in 0..1 << 16 {
        endpoints.insert(Endpoint::new(identity)).expect("there is room");
    }
    assert_eq!(endpoints.insert(Endpoint::new(0)), Err(EndpointsError::Full));
    endpoints.remove(77).expect("it is there");
    assert_eq!(endpoints.insert(Endpoint::new(0)), Ok(77));
}

#[test]
fn change_is_seen_without_a_rebuild() {
    for algorithm in ALL {
        let (mut endpoints, mut balancer, mut rng) = (table(&[1, 1]), balancer(algorithm), rng());
        let mut pick = |endpoints: &Endpoints| {
            let picks = (0..40).filter_map(|_| {
                balancer.pick(endpoints, SEC, &mut rng, Wish::default()).map(|pick| pick.endpoint)
            });
            picks.collect::<BTreeSet<u32>>()
        };
        assert_eq!(pick(&endpoints), BTreeSet::from([0, 1]));
        endpoints.set_availability(0, Availability::Draining, None).expect("it is there");
        assert_eq!(pick(&endpoints), BTreeSet::from([1]));
        endpoints.remove(0).expect("nothing is under way");
        endpoints.insert(Endpoint::new(5)).expect("there is room");
        assert_eq!(pick(&endpoints), BTreeSet::from([0, 1]));
    }
}

/// What nobody should do: another table, of which the balancer cannot know that it is another.
#[test]
fn table_of_somebody_else_is_no_panic() {
    for algorithm in ALL {
        let (mut balancer, mut rng) = (balancer(algorithm), rng());
        let (big, mut small) = (table(&[1, 2, 3]), table(&[1]));
        small.set_weight(0, 2).expect("it is there");
        small.set_weight(0, 3).expect("it is there");
        assert_eq!(small.changes(), big.changes());
        balancer.rebuild(&big);
        for _ in 0..100 {
            balancer.pick(&small, SEC, &mut rng, Wish::default());
        }
    }
}

/// What stays the same keeps its place in the rotation, though something else was said.
#[test]
fn rotation_goes_on_when_the_same_take_calls() {
    let mut endpoints = table(&[1, 1, 1, 1]);
    endpoints.set_availability(3, Availability::Down, None).expect("it is there");
    let (mut balancer, mut rng) = (balancer(Algorithm::RoundRobin), rng());
    let mut last = None;
    for step in 0..60 {
        let pick =
            balancer.pick(&endpoints, SEC, &mut rng, Wish::default()).expect("three").endpoint;
        assert!(last.is_none_or(|last| pick == (last + 1) % 3));
        last = Some(pick);
        let kind = if step % 2 == 0 { Availability::Ejected } else { Availability::Down };
        endpoints.set_availability(3, kind, None).expect("it is there");
        balancer.rebuild(&endpoints);
    }
}

#[test]
fn picks_allocate_nothing_that_stays() {
    // No allocator can be asked here: what is kept must not grow, which is where an allocation would come from.
    let (endpoints, mut rng) = (table(&[3; 50]), rng());
    let mut balancer = balancer(Algorithm::RoundRobin);
    balancer.rebuild(&endpoints);
    let capacities = |balancer: &Balancer| match &balancer.order {
        Order::Rotation(rotation) => rotation.capacities(),
        _ => unreachable!("it is round robin"),
    };
    let before = capacities(&balancer);
    let avoid: Vec<u32> = (0..49).collect();
    for step in 0..2000 {
        let avoid = if step % 3 == 0 { &avoid[..] } else { &[] };
        balancer.pick(&endpoints, SEC, &mut rng, Wish { avoid, ..Wish::default() });
    }
    assert_eq!(capacities(&balancer), before);
}

proptest! {
    /// The sums by tier and availability are those of the endpoints.
    #[test]
    fn sums_are_those_of_the_endpoints(
        steps in prop::collection::vec((0u32..6, 0u32..7, 0u32..4), 0..80),
    ) {
        use Availability::{Down, Draining, Ejected, Up};
        let kinds = [Up, Ejected, Down, Draining];
        let mut endpoints = Endpoints::new();
        for (endpoint, step, number) in steps {
            match step {
                0 => {
                    let tier = number as u8;
                    let _ = endpoints.insert(Endpoint { tier, ..Endpoint::new(u64::from(endpoint)) });
                }
                1 => drop(endpoints.remove(endpoint)),
                2 => endpoints.began(endpoint),
                3 => endpoints.ended(endpoint),
                4 => endpoints.set_others(endpoint, number),
                _ => drop(endpoints.set_availability(endpoint, kinds[number as usize], None)),
            }
            prop_assert_eq!(endpoints.iter().count(), endpoints.members());
            for tier in 0..4 {
                for kind in kinds {
                    let of = |(_, it): &(u32, Endpoint)| it.tier == tier && it.availability == kind;
                    let calls = endpoints.iter().filter(of).map(|(at, _)| endpoints.in_flight(at));
                    prop_assert_eq!(endpoints.under_way(tier, kind), calls.sum::<u64>());
                }
            }
        }
    }
}

#[test]
fn another_tier_takes_its_calls_along() {
    let mut endpoints = table(&[1, 1]);
    endpoints.began(0);
    endpoints.set_others(0, 2);
    let changes = endpoints.changes();
    endpoints.set_tier(0, 0).expect("it is there");
    assert_eq!(endpoints.changes(), changes);
    endpoints.set_tier(0, 3).expect("it is there");
    assert_eq!(endpoints.under_way(0, Availability::Up), 0);
    assert_eq!(endpoints.under_way(3, Availability::Up), 3);
    endpoints.ended(0);
    assert_eq!(endpoints.under_way(3, Availability::Up), 2);
    let mut balancer = balancer(Algorithm::LeastOfTwo);
    balancer.rebuild(&endpoints);
    assert_eq!(counts(&mut balancer, &endpoints, SEC, 20), [0, 20], "tier 0 comes first");
    assert!(endpoints.set_tier(9, 0).is_err());
}
