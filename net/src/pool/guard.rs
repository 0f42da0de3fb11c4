//! What a checkout gives: a connection, until it is dropped.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::Establish;
use super::room::PoolRoom;
use crate::policy::pool::{Place, Return};
use crate::tasks::Executor;

/// A connection of a pool, for as long as this is held. Dropped, it goes back to the next; during a panic, it is
/// closed.
///
/// What has been asked on it has to be answered by then: else the next one would read that answer. Whoever stops in
/// between says so by [`mark_unclean`](Self::mark_unclean), best before it begins. Bytes that nobody has received are
/// seen, and such a connection is closed.
#[must_use = "dropped, it goes back to the pool"]
pub struct Pooled<E: Establish> {
    room: Rc<PoolRoom<E>>,
    place: Place,
    /// `None` once it is taken out for good.
    conn: Option<E::Connection>,
    served: u64,
    how: Return,
}

impl<E: Establish> Pooled<E> {
    pub(super) fn new(
        room: Rc<PoolRoom<E>>,
        place: Place,
        conn: E::Connection,
        served: u64,
    ) -> Self {
        Self { room, place, conn: Some(conn), served, how: Return::Clean }
    }

    /// Whether it has been in use before: what fails on it at once may have ended while it was kept.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.served > 0
    }

    /// How often it has been in use before.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.served
    }

    /// Something is on its way: dropped from now on, it is closed instead of kept.
    pub fn mark_unclean(&mut self) {
        self.how = Return::Unclean;
    }

    /// All that was asked has been answered: it is kept again.
    pub fn mark_clean(&mut self) {
        self.how = Return::Clean;
    }

    /// Whether it is kept when it is dropped, as far as its holder goes.
    pub(crate) fn is_clean(&self) -> bool {
        self.how == Return::Clean
    }

    /// Its place under some cap is wanted elsewhere: it is closed, unless somebody waits for it here, if that counts
    /// for more. Whether it is.
    pub(crate) fn spare(&mut self, even_if_awaited: bool) -> bool {
        let is_spared = self.how == Return::Clean && (even_if_awaited || self.room.waiters() == 0);
        if is_spared {
            self.how = Return::Discard;
        }
        is_spared
    }

    /// It is not to be used again: it is closed.
    pub fn discard(mut self) {
        self.how = Return::Discard;
    }

    /// Takes it out of the pool for good. Its place is another's from now on.
    #[must_use]
    pub fn take(mut self) -> E::Connection {
        self.conn.take().expect("it is there until this is dropped")
    }
}

impl<E: Establish> Deref for Pooled<E> {
    type Target = E::Connection;

    fn deref(&self) -> &E::Connection {
        self.conn.as_ref().expect("it is there until this is dropped")
    }
}

impl<E: Establish> DerefMut for Pooled<E> {
    fn deref_mut(&mut self) -> &mut E::Connection {
        self.conn.as_mut().expect("it is there until this is dropped")
    }
}

impl<E: Establish> Drop for Pooled<E> {
    fn drop(&mut self) {
        let is_unwinding = Executor::look(|executor| executor.is_unwinding()).unwrap_or(false);
        let how = if is_unwinding { Return::Discard } else { self.how };
        self.room.give_back(self.place, self.conn.take(), self.served + 1, how);
    }
}

impl<E: Establish> fmt::Debug for Pooled<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled")
            .field("place", &self.place)
            .field("served", &self.served)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}
