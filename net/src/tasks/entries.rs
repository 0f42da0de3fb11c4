//! What an executor keeps for futures that wait: a place each, named so that no other is meant by it once it is gone.
//!
//! Who waits holds numbers only, since it may be `Send`, and so it may be dropped anywhere: on another thread, in the
//! turn of another reactor, or when its executor is gone and another has its number. Then what it had comes back to its
//! own executor, by way of other threads if need be, or not at all.

use slab::Slab;

use super::Executor;
use super::remote::{self, ExecutorId};

/// Names one entry, and none that is in its place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u32,
    generation: u32,
}

/// Entries in their places.
#[derive(Debug)]
pub(super) struct Entries<T> {
    places: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { places: Slab::new(), generation: 0 }
    }
}

impl<T> Entries<T> {
    pub(super) fn insert(&mut self, value: T) -> Entry {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        Entry { index: self.places.insert((generation, value)) as u32, generation }
    }

    pub(super) fn get_mut(&mut self, entry: Entry) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(entry.index as usize)?;
        (*generation == entry.generation).then_some(value)
    }

    pub(super) fn remove(&mut self, entry: Entry) -> Option<T> {
        self.get_mut(entry)?;
        Some(self.places.remove(entry.index as usize).1)
    }

    /// The one in this place.
    pub(super) fn at(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize).map(|(_, value)| value)
    }

    pub(super) fn take_all(&mut self) -> Vec<T> {
        self.places.drain().map(|(_, value)| value).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }
}

/// What is kept for a future that waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    Timer(Entry),
    DrainWaiter(Entry),
}

impl Kept {
    /// Nobody waits for it any more.
    pub(super) fn let_go(self, of: ExecutorId) {
        let was_here = Executor::with(|executor| {
            let is_its_own = executor.id == of;
            if is_its_own {
                executor.take_back(self);
            }
            is_its_own
        });
        if was_here != Some(true) {
            remote::let_go(of, self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_gone_names_none_that_comes_after_it() {
        let mut entries = Entries::default();
        let first = entries.insert('a');
        assert_eq!(entries.remove(first), Some('a'));
        let second = entries.insert('b');
        assert_eq!(first.index, second.index, "it has the place of the first");
        assert!(entries.get_mut(first).is_none() && entries.remove(first).is_none());
        assert_eq!(entries.at(second.index), Some(&mut 'b'));
        assert_eq!(entries.take_all(), ['b']);
        let third = entries.insert('c');
        assert_eq!((entries.remove(second), entries.len()), (None, 1));
        assert_eq!(entries.remove(third), Some('c'));
    }
}
