//! The slab against a list of what was put in: keys of this life find their value, all others nothing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use slipring_core::slab::Slab;
use slipring_core::token::{Key, SLOTS_MAX};

const CAPACITY: u32 = 6;

#[derive(Debug, Clone)]
enum Step {
    Insert,
    Remove(Index),
    Change(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Insert),
        3 => any::<Index>().prop_map(Step::Remove),
        1 => any::<Index>().prop_map(Step::Change),
    ]
}

/// Behind the last slot that was ever used; whoever begins there begins somewhere.
fn living_reach(known: &[Key]) -> u32 {
    known.iter().map(|key| key.index() + 1).max().unwrap_or(0)
}

fn check(slab: &Slab<u64>, living: &BTreeMap<Key, u64>, known: &[Key]) {
    assert_eq!(slab.len() as usize, living.len());
    assert_eq!(slab.is_empty(), living.is_empty());
    assert_eq!(slab.is_full(), living.len() == CAPACITY as usize);
    assert!(slab.keys().eq(living.keys().copied()), "keys by slot");
    for key in known {
        assert_eq!(slab.get(*key), living.get(key), "{key:?}");
    }
    for from in 0..CAPACITY {
        let (before, behind): (Vec<Key>, Vec<Key>) = living.keys().partition(|k| k.index() < from);
        let around: Vec<Key> = slab.keys_from(from, CAPACITY).collect();
        assert!(
            around == [behind, before].concat() || from >= living_reach(known),
            "from {from}: {around:?}"
        );
        assert!(
            around.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(living.keys().copied())
        );
    }
    for index in 0..CAPACITY + 2 {
        let key = living.keys().find(|key| key.index() == index).copied();
        assert_eq!(slab.key_at(index), key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn a_key_finds_its_value_and_no_other(steps in prop::collection::vec(step(), 1..120)) {
        let mut slab = Slab::new(CAPACITY);
        let mut living = BTreeMap::new();
        // Every key there ever was.
        let mut known: Vec<Key> = Vec::new();
        for (value, step) in (0_u64..).zip(steps) {
            match step {
                Step::Insert => {
                    let full = living.len() == CAPACITY as usize;
                    let mut own = None;
                    let key = slab.insert_with(|key| {
                        own = Some(key);
                        value
                    });
                    assert_eq!(key, own, "the key it was built with");
                    assert_eq!(key.is_none(), full);
                    if let Some(key) = key {
                        assert!(!known.contains(&key), "{key:?} again");
                        assert!(key.index() < CAPACITY);
                        known.push(key);
                        living.insert(key, value);
                    }
                }
                Step::Remove(which) if !known.is_empty() => {
                    let key = which.get(&known);
                    assert_eq!(slab.remove(*key), living.remove(key), "{key:?}");
                }
                Step::Change(which) if !known.is_empty() => {
                    let key = which.get(&known);
                    let found = slab.get_mut(*key).map(|place| *place = value);
                    let expected = living.get_mut(key).map(|place| *place = value);
                    assert_eq!(found, expected, "{key:?}");
                }
                Step::Remove(_) | Step::Change(_) => {}
            }
            check(&slab, &living, &known);
        }
    }
}

#[test]
fn a_slot_lives_many_times_and_each_life_has_its_key() {
    let mut slab = Slab::new(1);
    for life in 0..1_000 {
        let key = slab.insert_with(|_| life).expect("empty");
        assert_eq!((key.index(), key.generation()), (0, life));
        assert_eq!(slab.insert_with(|_| unreachable!("full")), None);
        assert_eq!(slab.remove(key), Some(life));
        assert_eq!(slab.remove(key), None, "it was taken out");
    }
}

#[test]
fn after_the_last_life_of_a_slot_comes_the_first() {
    let mut slab = Slab::starting_at(u32::MAX, 2);
    assert_eq!((slab.capacity(), slab.len()), (2, 0));
    let last = slab.insert_with(|_| 'x').expect("room");
    assert_eq!(last.generation(), u32::MAX);
    assert_eq!(slab.remove(last), Some('x'));
    let first = slab.insert_with(|_| 'y').expect("room");
    assert_eq!((first.index(), first.generation()), (last.index(), 0));
    assert_eq!((slab.get(last), slab.get(first)), (None, Some(&'y')));
}

#[test]
fn a_key_of_another_slab_or_of_the_future_finds_nothing() {
    let mut slab = Slab::new(2);
    let key = slab.insert_with(|_| 'x').expect("room");
    for other in [
        Key::new(key.index(), key.generation() + 1),
        Key::new(1, 0),
        Key::new(2, 0),
        Key::new(SLOTS_MAX - 1, 0),
    ] {
        assert_eq!(slab.get(other), None, "{other:?}");
        assert_eq!(slab.get_mut(other), None, "{other:?}");
        assert_eq!(slab.remove(other), None, "{other:?}");
    }
    assert_eq!(slab.get(key), Some(&'x'));
}

#[test]
fn a_slab_of_none_is_empty_and_full() {
    let mut slab = Slab::<u8>::new(0);
    assert!(slab.is_empty() && slab.is_full());
    assert_eq!(slab.insert_with(|_| 1), None);
    assert_eq!(slab.key_at(0), None);
}

#[test]
fn it_never_moves_what_it_holds() {
    let mut slab = Slab::new(1_000);
    let first = slab.insert_with(|_| 0_u64).expect("room");
    let place = std::ptr::from_ref(slab.get(first).expect("there"));
    while slab.insert_with(|_| 1).is_some() {}
    assert_eq!(slab.len(), 1_000);
    assert!(std::ptr::eq(place, slab.get(first).expect("there")));
}

#[test]
#[should_panic(expected = "cannot be addressed")]
fn more_slots_than_a_key_can_name_are_refused() {
    let _ = Slab::<u8>::new(SLOTS_MAX + 1);
}
