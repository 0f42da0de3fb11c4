//! A fixed number of slots, each with a generation that counts its lives.
//!
//! Storage is the `slab` crate's: a place is found and freed in constant time. What is added here is what
//! a server needs of it: it never grows past its capacity (a full slab is an answer, not a reallocation),
//! and a [`Key`] from an earlier life of a slot finds nothing. Memory is reserved at the start and touched
//! as slots are first used.
//!
//! Hazard: after 2^32 lives of one slot a key repeats. At a million lives a second that takes an hour of
//! holding a dead key; completions cannot be that late, since a slot is freed only once the kernel holds
//! nothing of it.

use crate::canary::{Canary, sings};
use crate::token::{Key, SLOTS_MAX};

/// A value and the life of the slot it is in.
#[derive(Debug)]
struct Life<T> {
    generation: u32,
    value: T,
}

/// Slots for at most `capacity` values.
#[derive(Debug)]
pub struct Slab<T> {
    slots: slab::Slab<Life<T>>,
    /// The life that each slot is in, or will be in once it is used again. Looked at by `insert_with` and
    /// `remove` only: a value has its own beside it, for the look-ups.
    generations: Vec<u32>,
    /// No slot from this one on has ever been used.
    reach: u32,
}

impl<T> Slab<T> {
    /// An empty slab.
    ///
    /// # Panics
    /// If `capacity` is more than [`SLOTS_MAX`].
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self::starting_at(0, capacity)
    }

    /// An empty slab whose slots all are in the life `generation`, for tests of what happens when it wraps.
    ///
    /// # Panics
    /// If `capacity` is more than [`SLOTS_MAX`].
    #[must_use]
    pub fn starting_at(generation: u32, capacity: u32) -> Self {
        assert!(capacity <= SLOTS_MAX, "a slab of {capacity} slots cannot be addressed");
        Self {
            slots: slab::Slab::with_capacity(capacity as usize),
            generations: vec![generation; capacity as usize],
            reach: 0,
        }
    }

    /// Values it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.generations.len() as u32
    }

    /// Values it holds.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether `insert` would fail.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Puts in what `make` builds of its own key; `None`, without calling it, when full.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let entry = self.slots.vacant_entry();
        let index = entry.key();
        let generation = self.generations[index];
        let key = Key::new(index as u32, generation);
        entry.insert(Life { generation, value: make(key) });
        self.reach = self.reach.max(key.index() + 1);
        Some(key)
    }

    /// The value of `key`, unless it is stale.
    #[inline]
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let life = self.slots.get(key.index() as usize)?;
        let same = life.generation == key.generation() || sings(Canary::NoGenerationCheck);
        same.then_some(&life.value)
    }

    /// The value of `key`, unless it is stale.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let life = self.slots.get_mut(key.index() as usize)?;
        let same = life.generation == key.generation() || sings(Canary::NoGenerationCheck);
        same.then_some(&mut life.value)
    }

    /// The key of the value that lives in slot `index` now.
    #[must_use]
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let life = self.slots.get(index as usize)?;
        Some(Key::new(index, life.generation))
    }

    /// Takes the value of `key` out and ends this life of its slot; `None` if stale.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let index = key.index() as usize;
        if !sings(Canary::GenerationNotCounted) {
            self.generations[index] = self.generations[index].wrapping_add(1);
        }
        self.slots.try_remove(index).map(|life| life.value)
    }

    /// The keys of the values in the next `slots` slots behind this one, itself the first, and around the end. Slots
    /// that were never used are none: what is there stands in the first of a slab, however many it could hold.
    pub fn keys_from(&self, index: u32, slots: u32) -> impl Iterator<Item = Key> + '_ {
        let reach = self.reach;
        (0..slots.min(reach)).filter_map(move |step| {
            let at = (u64::from(index) + u64::from(step)) % u64::from(reach);
            self.key_at(at as u32)
        })
    }

    /// The keys of all values, by slot.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.slots.iter().map(|(index, life)| Key::new(index as u32, life.generation))
    }
}
