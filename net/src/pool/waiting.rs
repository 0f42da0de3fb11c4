//! A checkout as a future.

use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::room::PoolRoom;
use super::{Establish, Pooled};
use crate::failure::Error;
use crate::policy::pool::{Place, Ticket};
use crate::tasks::{now, sleep, timeout};

/// In the line, until it is left.
struct InLine<E: Establish> {
    room: Rc<PoolRoom<E>>,
    ticket: Ticket,
    is_settled: bool,
}

impl<E: Establish> Drop for InLine<E> {
    fn drop(&mut self) {
        if !self.is_settled && !self.room.is_over.get() {
            self.room.leave(self.ticket);
        }
    }
}

pub(super) async fn checkout<E: Establish>(
    room: Rc<PoolRoom<E>>,
    at: &'static Location<'static>,
    within: Option<Duration>,
) -> Result<Pooled<E>, Error> {
    let ticket = match room.begin(at)? {
        Ok(pooled) => return Ok(pooled),
        Err(ticket) => ticket,
    };
    let started = now();
    let mut line = InLine { room, ticket, is_settled: false };
    let mut alarm = within.map(sleep);
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = line.room.poll_claim(ticket, cx) {
            return Poll::Ready(result);
        }
        let Some(alarm) = &mut alarm else { return Poll::Pending };
        Pin::new(alarm).poll(cx).map(|()| line.room.expire(ticket))
    })
    .await;
    line.is_settled = true;
    result.map_err(|error| error.after(now().saturating_sub(started)))
}

/// A dial for one caller, until it is told how that ended.
struct Fresh<E: Establish> {
    room: Rc<PoolRoom<E>>,
    place: Place,
    is_told: bool,
}

impl<E: Establish> Drop for Fresh<E> {
    fn drop(&mut self) {
        if !self.is_told && !self.room.is_over.get() {
            let now = self.room.now_or_before();
            self.room.book.borrow_mut().leave_fresh(self.place, now);
            self.room.settle();
        }
    }
}

pub(super) async fn checkout_fresh<E: Establish>(
    room: Rc<PoolRoom<E>>,
    at: &'static Location<'static>,
    within: Option<Duration>,
) -> Result<Pooled<E>, Error> {
    if room.is_over.get() {
        return Err(room.error(crate::failure::Drain::Refusing));
    }
    if room.is_to_drain() {
        room.drain();
    }
    let place = {
        let places = room.places();
        room.book.borrow_mut().dial_fresh(now(), at, || places.try_take(room.reactor))
    };
    let Some(place) = place else {
        room.book.borrow_mut().distrust(now(), now());
        room.settle();
        return checkout(room, at, within).await;
    };
    let mut fresh = Fresh { room: Rc::clone(&room), place, is_told: false };
    let dial = room.pool.establish.establish(room.pool.endpoint);
    let dialed = match within {
        Some(within) => timeout(within, dial).await,
        None => Ok(dial.await),
    };
    let result = match dialed {
        Ok(result) => result,
        Err(elapsed) => return Err(room.timed_out().after(elapsed.within)),
    };
    fresh.is_told = true;
    if room.is_over.get() {
        return Err(room.error(crate::failure::Drain::Refusing));
    }
    let conn = match result {
        Ok(conn) => conn,
        Err(error) => {
            room.dial_failed(place, error.clone());
            return Err(error);
        }
    };
    {
        let mut rng = room.rng.borrow_mut();
        room.book.borrow_mut().dialed(place, now(), &mut rng);
    }
    room.settle();
    Ok(Pooled::new(room, place, conn, 0))
}
