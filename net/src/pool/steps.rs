//! What a pool does for its book: dials, looks, closings, each a task of its own.
//!
//! Each such task says how it ended, also if it is cancelled or panics: what it holds says so when it is dropped. A
//! place of which nobody is told would be lost to the pool for ever.

use std::rc::Rc;
use std::sync::Arc;

use slipring_core::CloseReason;
use slipring_core::canary::{Canary, sings};

use super::room::{Kept, PoolRoom};
use super::{Establish, Keep};
use crate::failure::{Dial, Error};
use crate::policy::pool::{Act, Cause, Place};
use crate::tasks::{spawn_local, timeout, wake_waiter};

impl<E: Establish> PoolRoom<E> {
    pub(super) fn act(&self, act: Act) {
        match act {
            Act::Wake(_) if sings(Canary::PoolWaiterNotWoken) => {}
            Act::Wake(ticket) => {
                let index = ticket.index as usize;
                let waker = self.waiting.borrow_mut().get_mut(index).and_then(Option::take);
                // One that panics is not to end what is done here for others.
                waker.into_iter().for_each(wake_waiter);
            }
            Act::Dial(place) => {
                let dial = Dialing { step: Step::new(self.me(), place) };
                self.occupy(place, Kept::Busy(spawn_local(dial.run())));
            }
            Act::CancelDial(place) => self.cancel(place),
            Act::Validate(place) | Act::Ping(place) => self.look(place),
            Act::Close(place, cause) => self.close(place, cause),
            Act::Leaked { held, at, .. } => tracing::warn!(
                endpoint = %self.pool.endpoint,
                held = ?held,
                "a connection has been in use for long; it was taken at {at} and may be leaked"
            ),
            Act::Release => self.places().give(self.reactor),
        }
    }

    fn cancel(&self, place: Place) {
        let mut kept = self.kept.borrow_mut();
        let slot = kept.get_mut(place.index as usize);
        let task = slot.map(|slot| std::mem::replace(slot, Kept::Nothing));
        drop(kept);
        if let Some(Kept::Busy(task)) = task {
            task.cancel();
        }
    }

    fn look(&self, place: Place) {
        let step = Step::new(self.me(), place);
        match self.take(place) {
            Some((conn, served)) => {
                let look = Looking { step, conn: Some(conn), served };
                self.occupy(place, Kept::Busy(spawn_local(look.run())));
            }
            // Not there: it cannot be alive.
            None => drop(Looking::<E> { step, conn: None, served: 0 }),
        }
    }

    fn close(&self, place: Place, cause: Cause) {
        tracing::debug!(endpoint = %self.pool.endpoint, cause = cause.label(), "a kept connection is closed");
        let closing =
            Closing { step: Step::new(self.me(), place), is_yielded: cause == Cause::GivenUp };
        match self.take(place) {
            Some((conn, _)) => {
                self.occupy(place, Kept::Busy(spawn_local(closing.run(conn))));
            }
            // It is being looked at, or its holder has kept it.
            None => {
                self.cancel(place);
                drop(closing);
            }
        }
    }
}

/// A place, and that something is being done about it.
struct Step<E: Establish> {
    room: Rc<PoolRoom<E>>,
    place: Place,
    is_told: bool,
}

impl<E: Establish> Step<E> {
    fn new(room: Rc<PoolRoom<E>>, place: Place) -> Self {
        Self { room, place, is_told: false }
    }

    /// Whether the book is still to be told.
    fn begins_to_tell(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true) && !self.room.is_over.get()
    }
}

/// A dial, of the pool's and nobody else's.
struct Dialing<E: Establish> {
    step: Step<E>,
}

impl<E: Establish> Dialing<E> {
    async fn run(mut self) {
        let (room, place) = (Rc::clone(&self.step.room), self.step.place);
        let result = room.pool.establish.establish(room.pool.endpoint).await;
        if !self.step.begins_to_tell() {
            return;
        }
        match result {
            Ok(conn) => room.dialed(place, conn),
            Err(error) => room.dial_failed(place, error),
        }
    }
}

impl<E: Establish> Drop for Dialing<E> {
    fn drop(&mut self) {
        if self.step.begins_to_tell() {
            // Cancelled, which the book knows, or it has panicked.
            let error = self.step.room.error(Dial::GivenUp(CloseReason::HandlerPanic));
            self.step.room.dial_failed(self.step.place, error);
        }
    }
}

impl<E: Establish> PoolRoom<E> {
    pub(super) fn dialed(&self, place: Place, conn: E::Connection) {
        // Noted first: who it is for may come for it as soon as the book knows.
        let stir = self.put(place, conn, 0);
        let now = self.now_or_before();
        let is_wanted = {
            let mut rng = self.rng.borrow_mut();
            self.book.borrow_mut().dialed(place, now, &mut rng)
        };
        if !is_wanted {
            let taken = self.take(place);
            drop(taken);
            self.book.borrow_mut().closed(place, now);
        } else if stir.is_some() {
            self.book.borrow_mut().ended(place, now);
        }
        self.settle();
    }

    pub(super) fn dial_failed(&self, place: Place, error: Error) {
        let now = self.now_or_before();
        {
            let mut rng = self.rng.borrow_mut();
            self.book.borrow_mut().dial_failed(place, now, Arc::new(error), &mut rng);
        }
        self.settle();
    }
}

/// A look whether a connection is alive.
struct Looking<E: Establish> {
    step: Step<E>,
    conn: Option<E::Connection>,
    served: u64,
}

impl<E: Establish> Looking<E> {
    async fn run(mut self) {
        let room = Rc::clone(&self.step.room);
        let within = room.pool.limits.validate_timeout;
        let Some(conn) = &mut self.conn else { return };
        conn.forget_stir();
        let is_alive = timeout(within, room.pool.establish.is_alive(conn)).await == Ok(true);
        self.end(is_alive);
    }

    fn end(&mut self, is_alive: bool) {
        if !self.step.begins_to_tell() {
            return;
        }
        let (room, place) = (&self.step.room, self.step.place);
        let stir = self.conn.take().and_then(|conn| room.put(place, conn, self.served));
        let now = room.now_or_before();
        room.book.borrow_mut().validated(place, is_alive && stir.is_none(), now);
        room.settle();
    }
}

impl<E: Establish> Drop for Looking<E> {
    fn drop(&mut self) {
        // Not put back: in the middle of a ping, its answer would be the next one's.
        self.conn = None;
        self.end(false);
    }
}

/// A closing. The place is free when the connection has ended.
struct Closing<E: Establish> {
    step: Step<E>,
    is_yielded: bool,
}

impl<E: Establish> Closing<E> {
    async fn run(self, conn: E::Connection) {
        conn.close().await;
        drop(self);
    }
}

impl<E: Establish> Drop for Closing<E> {
    fn drop(&mut self) {
        if !self.step.begins_to_tell() {
            return;
        }
        let room = &self.step.room;
        if self.is_yielded {
            room.yielding.set(room.yielding.get().saturating_sub(1));
        }
        room.book.borrow_mut().closed(self.step.place, room.now_or_before());
        room.settle();
    }
}
