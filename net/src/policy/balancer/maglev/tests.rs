use super::super::endpoints::{Endpoint, Endpoints};
use super::super::{BalancerLimits, Field};
use super::*;

fn field(endpoints: impl IntoIterator<Item = (u64, u32)>) -> Field {
    let mut table = Endpoints::new();
    for (identity, weight) in endpoints {
        table.insert(Endpoint { weight, ..Endpoint::new(identity) }).expect("there is room");
    }
    Field::of(&table, &BalancerLimits::default())
}

/// Slots of each endpoint.
fn shares(maglev: &Maglev, members: usize) -> Vec<u32> {
    let mut shares = vec![0; members];
    for endpoint in &maglev.slots {
        shares[*endpoint as usize] += 1;
    }
    shares
}

#[test]
fn equal_weights_have_equal_shares() {
    for members in [1, 2, 3, 10, 1000] {
        let shares =
            shares(&Maglev::new(&field((0..members).map(|it| (it, 1))), 0), members as usize);
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{shares:?}");
    }
}

#[test]
fn shares_are_by_weight() {
    let weights = [1u32, 2, 3, 10, 10, 100, 256];
    let all: u32 = weights.iter().sum();
    let maglev = Maglev::new(&field((0..).zip(weights)), 0);
    for (share, weight) in shares(&maglev, weights.len()).iter().zip(weights) {
        let ideal = SLOTS * weight / all;
        assert!(share.abs_diff(ideal) <= 2, "{share} slots for {weight}, not {ideal}");
    }
}

#[test]
fn everybody_has_a_slot_however_many_there_are() {
    let maglev = Maglev::new(&field((0..1 << 16).map(|it| (it, 1))), 0);
    assert!(shares(&maglev, 1 << 16).iter().all(|share| (1..=2).contains(share)));
    assert!(Maglev::new(&field([]), 0).slots.is_empty());
    // The lightest of many beside the heaviest.
    let maglev = Maglev::new(&field((0..1000).map(|it| (it, if it == 0 { 256 } else { 1 }))), 0);
    let shares = shares(&maglev, 1000);
    // It has a turn in each round, and the light ones in one of 256: the last rounds may be without.
    assert!(shares[0].abs_diff(SLOTS * 256 / 1255) <= 256, "{}", shares[0]);
    assert!(shares[1..].iter().all(|share| (51..=54).contains(share)));
}

/// Slots whose endpoint, by identity, is another.
fn moved(before: (&Field, &Maglev), after: (&Field, &Maglev)) -> u32 {
    let identity = |field: &Field, endpoint: u32| {
        let member = field.members.iter().find(|member| member.endpoint == endpoint);
        member.expect("slots are of members").identity
    };
    let slots = before.1.slots.iter().zip(&after.1.slots);
    let moved = slots.filter(|(old, new)| identity(before.0, **old) != identity(after.0, **new));
    moved.count() as u32
}

#[test]
fn few_slots_move_when_endpoints_come_and_go() {
    for members in [2u64, 3, 10, 50] {
        for gone in [0, members / 2, members - 1] {
            let all = field((0..members).map(|it| (it * 77, 1)));
            let rest = field((0..members).filter(|it| *it != gone).map(|it| (it * 77, 1)));
            let (before, after) = (Maglev::new(&all, 5), Maglev::new(&rest, 5));
            let moved = moved((&all, &before), (&rest, &after));
            let ideal = SLOTS / members as u32;
            assert!((ideal..=2 * ideal).contains(&moved), "{moved} of {members}, ideal is {ideal}");
        }
    }
}

#[test]
fn few_slots_move_when_a_weight_changes() {
    let weight = |other: u32| move |it: u64| (it, if it == 3 { other } else { 10 });
    let (one, other) = (field((0..10).map(weight(10))), field((0..10).map(weight(12))));
    let (before, after) = (Maglev::new(&one, 5), Maglev::new(&other, 5));
    let moved = moved((&one, &before), (&other, &after));
    assert!(moved < SLOTS / 10 * 2, "{moved}");
}

/// A table is of the identities: neither numbers nor the order of insertion matter.
#[test]
fn numbers_play_no_part() {
    let (one, other) = (field((0..20).map(|it| (it, 3))), field((0..20).rev().map(|it| (it, 3))));
    let (before, after) = (Maglev::new(&one, 9), Maglev::new(&other, 9));
    assert_eq!(moved((&one, &before), (&other, &after)), 0);
    assert_ne!(before.slots, after.slots);
    let seeded = Maglev::new(&one, 10);
    assert!(moved((&one, &before), (&one, &seeded)) > SLOTS / 2, "the seed makes another table");
}

#[test]
fn two_of_one_identity_share() {
    let shares = shares(&Maglev::new(&field([(7, 1), (7, 1)]), 0), 2);
    assert!(shares[0].abs_diff(shares[1]) <= 1);
}

/// Of a change of this, keys would move: those that hash elsewhere too would have to agree.
#[test]
fn mix_is_splitmix64() {
    assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
    assert_eq!(mix(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
}
