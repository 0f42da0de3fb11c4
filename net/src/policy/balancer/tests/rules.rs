//! Tiers, panic, draining and who is avoided.

use super::*;

/// One endpoint of a table: weight, tier, availability.
type Line = (u32, u8, Availability);

use Availability::{Down, Draining, Ejected, Up};

fn table(lines: &[Line]) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for (identity, (weight, tier, availability)) in (0..).zip(lines) {
        let (weight, tier, availability) = (*weight, *tier, *availability);
        let endpoint = Endpoint { weight, tier, availability, ..Endpoint::new(identity) };
        endpoints.insert(endpoint).expect("a weight that there is");
    }
    endpoints
}

/// Who takes calls, and whether in despair.
fn field(lines: &[Line]) -> (Vec<u32>, bool) {
    field_with(lines, 50)
}

fn field_with(lines: &[Line], healthy_min_percent: u32) -> (Vec<u32>, bool) {
    let limits = BalancerLimits { healthy_min_percent, ..BalancerLimits::default() };
    let mut balancer = Balancer::new(Algorithm::Random, limits);
    balancer.rebuild(&table(lines));
    let members = balancer.field.members.iter().map(|member| member.endpoint).collect();
    (members, balancer.is_desperate())
}

#[test]
fn lowest_tier_with_half_of_it_up_takes_all() {
    assert_eq!(field(&[(1, 0, Up), (1, 0, Up), (1, 1, Up)]), (vec![0, 1], false));
    assert_eq!(field(&[(1, 0, Up), (1, 0, Down), (1, 1, Up)]), (vec![0], false), "half is enough");
    assert_eq!(field(&[(1, 9, Up), (1, 200, Up), (1, 255, Up)]), (vec![0], false));
    assert_eq!(field(&[(1, 1, Up), (1, 0, Ejected), (1, 1, Up)]), (vec![0, 2], false));
}

#[test]
fn next_tier_joins_when_less_than_half_is_up() {
    let first = [(1, 0, Up), (1, 0, Down), (1, 0, Ejected)];
    let with = |more: &[Line]| field(&[&first, more].concat());
    assert_eq!(with(&[(1, 1, Up)]), (vec![0, 3], false));
    assert_eq!(with(&[(1, 1, Up), (1, 1, Down), (1, 1, Down), (1, 2, Up)]), (vec![0, 3, 6], false));
    assert_eq!(
        with(&[(1, 1, Down), (1, 2, Up)]),
        (vec![0, 4], false),
        "a tier without any is passed"
    );
}

#[test]
fn half_is_by_weight() {
    assert_eq!(field(&[(3, 0, Up), (1, 0, Down), (1, 0, Down), (1, 1, Up)]), (vec![0], false));
    assert_eq!(field(&[(1, 0, Up), (1, 0, Up), (3, 0, Down), (1, 1, Up)]), (vec![0, 1, 3], false));
}

#[test]
fn too_few_up_is_all_in_play_but_those_that_drain() {
    let lines = [(1, 0, Up), (1, 0, Down), (1, 0, Ejected), (1, 0, Draining)];
    assert_eq!(field(&lines), (vec![0, 1, 2], true));
    // Two tiers in play, a third in which nobody is up is not.
    let lines =
        [(1, 0, Up), (2, 0, Down), (1, 1, Up), (2, 1, Down), (1, 2, Down), (1, 2, Draining)];
    assert_eq!(field(&lines), (vec![0, 1, 2, 3], true));
    assert_eq!(field(&[(1, 0, Down), (2, 1, Down), (1, 1, Up)]), (vec![1, 2], true));
}

#[test]
fn nobody_up_is_the_lowest_tier_that_has_somebody() {
    let lines = [(1, 0, Draining), (1, 3, Down), (1, 2, Ejected), (5, 2, Down), (1, 2, Draining)];
    assert_eq!(field(&lines), (vec![2, 3], true));
    assert_eq!(field_with(&lines, 0), (vec![], false), "zero percent is never");
    assert_eq!(field_with(&[(1, 0, Down), (1, 0, Down), (1, 0, Up)], 0), (vec![2], false));
    assert_eq!(field_with(&[(1, 0, Up), (1, 0, Down)], 100), (vec![0, 1], true));
}

#[test]
fn draining_counts_neither_for_nor_against() {
    assert_eq!(field(&[(1, 0, Up), (9, 0, Draining), (1, 1, Up)]), (vec![0], false));
}

#[test]
fn desperate_picks_say_so() {
    for algorithm in ALL {
        let endpoints = table(&[(1, 0, Up), (1, 0, Down), (1, 0, Ejected), (1, 0, Draining)]);
        let mut balancer = balancer(algorithm);
        let mut rng = rng();
        let picks: Vec<Pick> = (0..600)
            .filter_map(|_| balancer.pick(&endpoints, SEC, &mut rng, Wish::default()))
            .collect();
        assert!(picks.iter().all(|pick| pick.is_desperate), "{algorithm:?}");
        for endpoint in 0..3 {
            let number = picks.iter().filter(|pick| pick.endpoint == endpoint).count();
            assert!((130..270).contains(&number), "{algorithm:?}: {number} of {endpoint}");
        }
    }
}

/// The rules once more, from the page: tier after tier, by lists.
fn model(lines: &[Line]) -> (BTreeSet<u32>, bool) {
    let of = |tier: u8| {
        let numbered = (0u32..).zip(lines);
        numbered.filter(move |(_, line)| line.1 == tier && line.2 != Draining)
    };
    let tiers: BTreeSet<u8> = lines.iter().map(|line| line.1).collect();
    let mut in_play = Vec::new();
    for tier in &tiers {
        let weigh = |is_counted: fn(Availability) -> bool| -> u32 {
            of(*tier).filter(|(_, line)| is_counted(line.2)).map(|(_, line)| line.0).sum()
        };
        let (up, all) = (weigh(|it| it == Up), weigh(|_| true));
        if up > 0 {
            in_play.push(*tier);
            if 2 * up >= all {
                let up = in_play.iter().flat_map(|tier| of(*tier)).filter(|(_, line)| line.2 == Up);
                return (up.map(|(endpoint, _)| endpoint).collect(), false);
            }
        }
    }
    if in_play.is_empty() {
        in_play.extend(tiers.iter().find(|tier| of(**tier).next().is_some()));
    }
    let all = in_play.iter().flat_map(|tier| of(*tier)).map(|(endpoint, _)| endpoint);
    let all: BTreeSet<u32> = all.collect();
    let is_desperate = !all.is_empty();
    (all, is_desperate)
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let availability = prop::sample::select(vec![Up, Up, Up, Ejected, Down, Down, Draining]);
    let weight = prop_oneof![1u32..4, Just(256u32)];
    prop::collection::vec((weight, 0u8..4, availability), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn those_who_take_calls_are_picked_and_no_others(
        lines in lines(),
        algorithm in prop::sample::select(ALL.to_vec()),
        bounds in prop::sample::select(vec![Bounds::Never, Bounds::Hashed, Bounds::All]),
        avoid in prop::collection::vec(0u32..16, 0..16),
        loads in prop::collection::vec(0u32..9, 14),
        up_since in prop::option::of(0u64..60),
        now in 0u64..60,
        seed in any::<u64>(),
    ) {
        let mut endpoints = table(&lines);
        for (endpoint, load) in (0..).zip(loads) {
            endpoints.set_others(endpoint, load);
            // Some that came late.
            if endpoint % 3 == 0 && lines.get(endpoint as usize).is_some_and(|line| line.2 == Up) {
                endpoints.set_availability(endpoint, Down, None).expect("it is there");
                let since = up_since.map(Duration::from_secs);
                endpoints.set_availability(endpoint, Up, since).expect("it is there");
            }
        }
        let limits = BalancerLimits { bounds, ..BalancerLimits::default() };
        let mut balancer = Balancer::new(algorithm, limits);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut takers, is_desperate) = model(&lines);
        let now = Duration::from_secs(now);
        for _ in 0..2 {
            for hash in [None, Some(1), Some(seed)] {
                let wish = Wish { hash, avoid: &[] };
                let pick = balancer.pick(&endpoints, now, &mut rng, wish);
                prop_assert_eq!(pick.is_some(), !takers.is_empty());
                prop_assert!(pick.is_none_or(|pick| pick.is_desperate == is_desperate));
                prop_assert!(pick.is_none_or(|pick| takers.contains(&pick.endpoint)));
            }
        }
        prop_assert_eq!(balancer.taking(), takers.len());
        takers.retain(|endpoint| !avoid.contains(endpoint));
        for _ in 0..4 {
            let wish = Wish { hash: Some(seed), avoid: &avoid };
            let pick = balancer.pick(&endpoints, now, &mut rng, wish);
            prop_assert_eq!(pick.is_some(), !takers.is_empty());
            prop_assert!(pick.is_none_or(|pick| takers.contains(&pick.endpoint)));
        }
    }
}

/// However many were tried, the one that is left is found, and each of those left is.
#[test]
fn last_one_left_is_found_among_a_thousand() {
    let endpoints = super::table(&[1; 1000]);
    for algorithm in ALL {
        let mut balancer = balancer(algorithm);
        let mut rng = rng();
        let avoid: Vec<u32> = (0..1000).filter(|endpoint| *endpoint != 613).collect();
        let wish = Wish { avoid: &avoid, ..Wish::default() };
        let pick = balancer.pick(&endpoints, SEC, &mut rng, wish).expect("one is left");
        assert_eq!(pick.endpoint, 613, "{algorithm:?}");
    }
}
