//! What lives beside the tasks of one reactor and is found by a number: its side of a pool, of an upstream.
//!
//! Is: a table of the executor's. Is not: a place of the thread's: the reactors of a simulation share one, and their
//! pools must not.
//!
//! A number is a value's that all reactors share, and no other ever has it in this process ([`new_number`]).

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slipring_core::Doorbell;

use super::catching::catch;
use super::{CURRENT, Executor};

/// One reactor's side of something.
pub(crate) trait Room: Any {
    /// The reactor ends, its tasks are gone: what the room holds is let go, and it takes nothing any more.
    fn end(&self);
}

/// A number for what has a room on each reactor.
pub(crate) fn new_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Those of one reactor.
#[derive(Default)]
pub(super) struct Rooms {
    of: RefCell<BTreeMap<u64, Rc<dyn Room>>>,
}

impl Rooms {
    /// All of them end, one after the other, also if what users have made panics as it is dropped. How often it has.
    pub(super) fn end(&self) -> u64 {
        let mut panics = 0;
        loop {
            // Not borrowed any more when it ends: that drops what users have made.
            let first = self.of.borrow_mut().pop_first();
            let Some((_, room)) = first else { return panics };
            panics += u64::from(catch(move || room.end()).is_none());
        }
    }
}

impl Executor {
    /// The room of this number, made now if there is none yet.
    ///
    /// # Panics
    /// If the number is that of another kind of room.
    #[inline]
    pub(crate) fn room<T: Room>(&self, number: u64, make: impl FnOnce() -> Rc<T>) -> Rc<T> {
        self.find_room(number).unwrap_or_else(|| {
            let room = make();
            let kept: Rc<dyn Room> = room.clone();
            self.rooms.of.borrow_mut().insert(number, kept);
            room
        })
    }

    /// The room of this number, if there is one.
    ///
    /// # Panics
    /// If the number is that of another kind of room.
    #[inline]
    pub(crate) fn find_room<T: Room>(&self, number: u64) -> Option<Rc<T>> {
        let room: Rc<dyn Any> = self.rooms.of.borrow().get(&number).map(Rc::clone)?;
        Some(room.downcast().unwrap_or_else(|_| panic!("room {number} is of another kind")))
    }

    /// Nobody needs the room of this number any more.
    pub(crate) fn end_room(&self, number: u64) {
        let room = self.rooms.of.borrow_mut().remove(&number);
        if let Some(room) = room {
            room.end();
        }
    }

    /// [`with`](Self::with), for a look that asks for it no more, and drops nothing: without a clone.
    #[inline]
    pub(crate) fn look<R>(look: impl FnOnce(&Self) -> R) -> Option<R> {
        CURRENT.with(|place| place.borrow(|executor| look(executor)))
    }

    /// Which of those in this process it is, for as long as it is there.
    #[inline]
    pub(crate) fn number(&self) -> u16 {
        self.id.number
    }

    /// Its time, as of this turn.
    #[inline]
    pub(crate) fn time(&self) -> Duration {
        Duration::from_micros(self.now_us.get())
    }

    /// What wakes its reactor, and says which that is.
    ///
    /// # Panics
    /// Before the reactor has started: none of its tasks runs before.
    pub(crate) fn bell(&self) -> &Doorbell {
        self.bell.get().expect("tasks run once their reactor has started")
    }
}
