//! Numbered entries of which each stands in one list, and lists that are changed in O(1).
//!
//! ```text
//!   index, generation ---> [ entry | entry | entry | entry | ... ]      a Vec, grown when no entry is free
//!                             ^ |               ^ |
//!   list: front ... back      +-+-- links ------+-+
//! ```
//!
//! Is: the frame for places and for waiters, whose *states* are lists: an entry that stands in one cannot stand in
//! another, and a sum over the lists is a sum over the entries. Is not: what the states mean.
//!
//! A free entry stands in list 0. Taking one out of it allocates only if it is empty. Its generation changes when it
//! goes back, so that numbers of before are known as *stale*. It wraps: a number would have to be kept over 2^32 uses
//! of one entry to be mistaken.

const NONE: u32 = u32::MAX;

/// The list of entries that are free.
pub(super) const FREE: usize = 0;

struct Node<T> {
    previous: u32,
    next: u32,
    list: usize,
    generation: u32,
    value: T,
}

#[derive(Clone, Copy)]
struct Ends {
    front: u32,
    back: u32,
    len: u32,
}

/// `N` lists over entries of `T`.
pub(super) struct Lists<T, const N: usize> {
    nodes: Vec<Node<T>>,
    ends: [Ends; N],
}

impl<T, const N: usize> Lists<T, N> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), ends: [Ends { front: NONE, back: NONE, len: 0 }; N] }
    }

    // --------------------------------------------------------------------------- entries

    /// Takes a free entry, to the back of a list.
    pub(super) fn insert(&mut self, value: T, list: usize) -> u32 {
        let index = match self.front(FREE) {
            Some(index) => {
                self.unlink(index);
                self[index] = value;
                index
            }
            None => {
                let index = u32::try_from(self.nodes.len()).unwrap_or(NONE);
                assert!(index < NONE, "entries are numbered by 32 bits");
                let (previous, next) = (NONE, NONE);
                self.nodes.push(Node { previous, next, list, generation: 0, value });
                index
            }
        };
        self.link(index, list, self.ends[list].back, NONE);
        index
    }

    /// Frees an entry: its generation is over.
    pub(super) fn free(&mut self, index: u32) {
        self.move_front(index, FREE);
        let node = &mut self.nodes[index as usize];
        node.generation = node.generation.wrapping_add(1);
    }

    /// Which list an entry stands in; `None` if its number is stale, or was never one.
    pub(super) fn list(&self, index: u32, generation: u32) -> Option<usize> {
        let node = self.nodes.get(index as usize)?;
        (node.generation == generation && node.list != FREE).then_some(node.list)
    }

    pub(super) fn generation(&self, index: u32) -> u32 {
        self.nodes[index as usize].generation
    }

    // --------------------------------------------------------------------------- lists

    #[inline]
    pub(super) fn len(&self, list: usize) -> u32 {
        self.ends[list].len
    }

    pub(super) fn front(&self, list: usize) -> Option<u32> {
        some(self.ends[list].front)
    }

    pub(super) fn back(&self, list: usize) -> Option<u32> {
        some(self.ends[list].back)
    }

    /// The neighbour on the side of the front.
    pub(super) fn before(&self, index: u32) -> Option<u32> {
        some(self.nodes[index as usize].previous)
    }

    /// The neighbour on the side of the back.
    pub(super) fn behind(&self, index: u32) -> Option<u32> {
        some(self.nodes[index as usize].next)
    }

    pub(super) fn move_front(&mut self, index: u32, list: usize) {
        self.unlink(index);
        self.link(index, list, NONE, self.ends[list].front);
    }

    pub(super) fn move_back(&mut self, index: u32, list: usize) {
        self.unlink(index);
        self.link(index, list, self.ends[list].back, NONE);
    }

    /// Into a list, right behind another entry of it; to its front if that is `None`.
    pub(super) fn move_behind(&mut self, index: u32, list: usize, other: Option<u32>) {
        self.unlink(index);
        let previous = other.unwrap_or(NONE);
        let next = match other {
            Some(other) => self.nodes[other as usize].next,
            None => self.ends[list].front,
        };
        self.link(index, list, previous, next);
    }

    fn unlink(&mut self, index: u32) {
        let Node { previous, next, list, .. } = self.nodes[index as usize];
        match some(previous) {
            Some(previous) => self.nodes[previous as usize].next = next,
            None => self.ends[list].front = next,
        }
        match some(next) {
            Some(next) => self.nodes[next as usize].previous = previous,
            None => self.ends[list].back = previous,
        }
        self.ends[list].len -= 1;
    }

    fn link(&mut self, index: u32, list: usize, previous: u32, next: u32) {
        let node = &mut self.nodes[index as usize];
        (node.previous, node.next, node.list) = (previous, next, list);
        match some(previous) {
            Some(previous) => self.nodes[previous as usize].next = index,
            None => self.ends[list].front = index,
        }
        match some(next) {
            Some(next) => self.nodes[next as usize].previous = index,
            None => self.ends[list].back = index,
        }
        self.ends[list].len += 1;
    }

    // --------------------------------------------------------------------------- being checked

    /// Walks all lists, both ways.
    ///
    /// # Panics
    /// If an entry stands in no list, in two, or in another than it says.
    pub(super) fn census(&self) -> [u32; N] {
        let mut seen = vec![false; self.nodes.len()];
        let lens: [u32; N] = std::array::from_fn(|list| {
            let (mut previous, mut next, mut len) = (None, self.front(list), 0);
            while let Some(index) = next {
                let node = &self.nodes[index as usize];
                assert_eq!(node.list, list, "entry {index} says another list");
                assert_eq!(some(node.previous), previous, "entry {index} has other neighbours");
                assert!(
                    !std::mem::replace(&mut seen[index as usize], true),
                    "{index} stands twice"
                );
                (previous, next, len) = (next, some(node.next), len + 1);
            }
            assert_eq!(self.back(list), previous, "list {list} ends elsewhere");
            assert_eq!(self.len(list), len, "list {list} is of another length");
            len
        });
        assert!(seen.iter().all(|seen| *seen), "an entry stands in no list");
        lens
    }
}

fn some(index: u32) -> Option<u32> {
    (index != NONE).then_some(index)
}

impl<T, const N: usize> std::ops::Index<u32> for Lists<T, N> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.nodes[index as usize].value
    }
}

impl<T, const N: usize> std::ops::IndexMut<u32> for Lists<T, N> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.nodes[index as usize].value
    }
}
