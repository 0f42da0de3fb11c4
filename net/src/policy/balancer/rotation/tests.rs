use proptest::prelude::*;

use super::super::endpoints::{Endpoint, Endpoints};
use super::super::{BalancerLimits, Field};
use super::*;

/// A table and those of it that take calls: all.
fn table(weights: &[u32]) -> (Endpoints, Field) {
    let mut endpoints = Endpoints::new();
    for (identity, weight) in (0..).zip(weights) {
        let endpoint = Endpoint { weight: *weight, ..Endpoint::new(identity) };
        endpoints.insert(endpoint).expect("a weight that there is");
    }
    let field = Field::of(&endpoints, &BalancerLimits::default());
    (endpoints, field)
}

/// What comes next, so many times.
fn picks(
    rotation: &mut Rotation,
    (endpoints, field): &(Endpoints, Field),
    avoid: &[u32],
    number: u64,
) -> Vec<u32> {
    let limits = BalancerLimits::default();
    let mut rng = fastrand::Rng::with_seed(number);
    let one = |_| {
        let now = std::time::Duration::ZERO;
        let asked = Asked::new(endpoints, field, &limits, now, avoid, false)?;
        rotation.next(&asked, &mut rng)
    };
    (0..number).filter_map(one).collect()
}

fn repeats(picks: &[u32]) -> usize {
    picks.windows(2).filter(|two| two[0] == two[1]).count()
}

/// From the beginning of a cycle.
fn whole(table: &(Endpoints, Field)) -> Rotation {
    let mut rotation = Rotation::new(&table.1);
    rotation.is_fresh = false;
    rotation
}

#[test]
fn known_orders() {
    let orders: [(&[u32], &[u32]); 5] = [
        (&[1, 1, 1], &[0, 1, 2]),
        (&[5, 1, 1], &[0, 1, 0, 0, 0, 2, 0]),
        (&[2, 1, 1], &[0, 1, 0, 2]),
        (&[1, 1, 2], &[2, 0, 2, 1]),
        (&[3], &[0, 0, 0]),
    ];
    for (weights, order) in orders {
        let table = table(weights);
        let mut rotation = whole(&table);
        for _ in 0..3 {
            assert_eq!(picks(&mut rotation, &table, &[], order.len() as u64), order, "{weights:?}");
        }
    }
}

proptest! {
    #[test]
    fn cycles_are_exact_and_nobody_comes_twice_in_a_row(
        weights in prop_oneof![
            prop::collection::vec(1u32..=256, 1..8),
            prop::collection::vec(1u32..=4, 1..30),
            // One that weighs exactly as much as all the others, in any place.
            (prop::collection::vec(1u32..=20, 1..12), any::<prop::sample::Index>()).prop_map(
                |(mut weights, at)| {
                    let heaviest = weights.iter().sum::<u32>().min(256);
                    weights.insert(at.index(weights.len() + 1), heaviest);
                    weights
                },
            ),
        ],
        is_fresh in any::<bool>(),
    ) {
        let table = table(&weights);
        let all: u32 = weights.iter().sum();
        let mut rotation = whole(&table);
        rotation.is_fresh = is_fresh;
        let mut row = Vec::new();
        if is_fresh {
            // The rest of the cycle into which it was born, of which it may have kept nothing.
            row.extend(picks(&mut rotation, &table, &[], 1));
            let rest = rotation.left;
            row.extend(picks(&mut rotation, &table, &[], rest));
        }
        let born = row.len();
        for _ in 0..3 {
            let cycle = picks(&mut rotation, &table, &[], u64::from(all));
            prop_assert_eq!(rotation.left, 0);
            for (endpoint, weight) in (0..).zip(&weights) {
                let picked = cycle.iter().filter(|picked| **picked == endpoint).count();
                prop_assert_eq!(picked, *weight as usize);
            }
            row.extend(cycle);
        }
        let heaviest = *weights.iter().max().expect("there is one");
        if 2 * heaviest <= all {
            prop_assert_eq!(repeats(&row[born.max(1) - 1..]), 0, "{:?}", row);
        }
    }

    /// Smooth: at no time is anyone more than a few picks from its share.
    #[test]
    fn nobody_is_far_from_its_share(weights in prop::collection::vec(1u32..=256, 2..12)) {
        let table = table(&weights);
        let all: u32 = weights.iter().sum();
        let mut picked = vec![0u32; weights.len()];
        let order = picks(&mut whole(&table), &table, &[], u64::from(all));
        for (done, endpoint) in (1..).zip(order) {
            picked[endpoint as usize] += 1;
            for (picked, weight) in picked.iter().zip(&weights) {
                let share = f64::from(done) * f64::from(*weight) / f64::from(all);
                prop_assert!((f64::from(*picked) - share).abs() < 2.5, "{picked} of {share}");
            }
        }
    }

    /// Who was avoided for a while has had all of its turns by the end of the cycle.
    #[test]
    fn avoided_one_keeps_its_turns(
        weights in prop::collection::vec(1u32..=9, 2..8),
        avoided in any::<prop::sample::Index>(),
        share in 0u64..=30,
    ) {
        let table = table(&weights);
        let avoided = avoided.index(weights.len()) as u32;
        let all = u64::from(weights.iter().sum::<u32>());
        let others = all - u64::from(weights[avoided as usize]);
        let while_avoided = others * share / 100;
        let mut rotation = whole(&table);
        let mut cycle = picks(&mut rotation, &table, &[avoided], while_avoided);
        prop_assert!(!cycle.contains(&avoided));
        cycle.extend(picks(&mut rotation, &table, &[], all - while_avoided));
        for (endpoint, weight) in (0..).zip(&weights) {
            let picked = cycle.iter().filter(|picked| **picked == endpoint).count();
            prop_assert_eq!(picked, *weight as usize);
        }
    }
}

#[test]
fn avoided_one_holds_nobody_up() {
    let table = table(&[4, 2, 1]);
    let mut rotation = whole(&table);
    let row = picks(&mut rotation, &table, &[0], 300);
    assert_eq!(row.iter().filter(|picked| **picked == 1).count(), 200);
    assert_eq!(row.iter().filter(|picked| **picked == 2).count(), 100);
    assert_eq!(picks(&mut rotation, &table, &[0, 1, 2], 10), []);
    assert_eq!(picks(&mut rotation, &table, &[0, 2], 10), [1; 10]);
}

/// Also where the one whose turn it would be, lest it be left with too many, is the one that is avoided.
#[test]
fn others_alternate_while_one_is_avoided() {
    let table = table(&[8, 6, 2]);
    assert_eq!(picks(&mut whole(&table), &table, &[0], 4), [1, 2, 1, 2]);
}

/// Reactors that begin at the same moment do not all begin with the same one.
#[test]
fn first_pick_is_anybody_by_weight() {
    let table = table(&[6, 3, 1]);
    let limits = BalancerLimits::default();
    let mut firsts = [0u32; 3];
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = std::time::Duration::ZERO;
        let asked = Asked::new(&table.0, &table.1, &limits, now, &[], false).expect("three");
        let first = Rotation::new(&table.1).next(&asked, &mut rng).expect("three");
        firsts[first as usize] += 1;
    }
    for (first, share) in firsts.iter().zip([6000u32, 3000, 1000]) {
        assert!(first.abs_diff(share) < share / 5, "{firsts:?}");
    }
}
