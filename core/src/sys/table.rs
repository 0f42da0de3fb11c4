//! The table of a ring: which of its places are free.
//!
//! A socket in the table has no number of the process, and so does not count against RLIMIT_NOFILE; each ring's table
//! may have as many places as that limit. Nothing but this file gives places away: the kernel's own allocation is
//! not used, nothing is accepted into the table, and a client that finds no place keeps its descriptor.
//!
//! ```text
//!            take                   close is queued              the kernel has taken all that was queued
//!   free -----------> taken -------------------------> closing -----------------------------------------> free
//! ```
//!
//! *Closing* is a state since the next socket is put into its place by a call of its own, at once, and the close is
//! an entry of a queue: the one that came later would be first, and the close would hit the wrong socket. An entry
//! that empties a place is carried out when the kernel takes it, so nobody has to wait for its completion.

use crate::canary::{Canary, sings};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Places {
    count: u32,
    /// Those from here on have never been taken: of a large table that is never full, nothing is kept.
    fresh: u32,
    /// Those before that are free; the last one is taken next.
    free: Vec<u32>,
    closing: Vec<u32>,
}

impl Places {
    /// So many, all free.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { count, ..Self::default() }
    }

    /// Places there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Places that are not free.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.fresh - self.free.len() as u32
    }

    /// One that is free.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let fresh = self.fresh;
            (fresh < self.count).then(|| {
                self.fresh += 1;
                fresh
            })
        })
    }

    /// Nothing is in this one, or any more.
    pub fn give_back(&mut self, place: u32) {
        self.free.push(place);
    }

    /// The close of what is in this one is queued.
    pub fn close(&mut self, place: u32) {
        if sings(Canary::PlaceKept) {
            return;
        }
        if sings(Canary::PlaceFreeAtPush) {
            return self.give_back(place);
        }
        self.closing.push(place);
    }

    /// The kernel has taken all that was queued.
    #[inline]
    pub fn settle(&mut self) {
        if !self.closing.is_empty() {
            self.free.append(&mut self.closing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_its_close_was_taken() {
        let mut places = Places::new(2);
        assert_eq!((places.take(), places.take(), places.take()), (Some(0), Some(1), None));
        places.close(1);
        assert_eq!((places.take(), places.used()), (None, 2), "its close is in the queue");
        places.settle();
        assert_eq!((places.used(), places.take(), places.take()), (1, Some(1), None));
        places.give_back(0);
        assert_eq!((places.take(), places.used()), (Some(0), 2));
    }

    #[test]
    fn without_a_table_there_is_no_place() {
        assert_eq!(Places::new(0).take(), None);
    }
}
