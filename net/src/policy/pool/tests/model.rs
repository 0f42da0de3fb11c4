//! The book against a naive model: lists are Vecs, nothing is linked, counted or remembered twice, and every rule is
//! written once more. Random sequences of all calls, fitting and not, with numbers that are stale, with callers that go
//! at every point, with a cap that others take from, and with a room that does not poll after each.
//!
//! After each step every place is in the state that the model says, and all counts agree. When the book has nothing
//! more to do, nothing was forgotten (no waiter beside an idle connection or free capacity, nothing to be closed, woken
//! or pinged), and the tokens that were taken are the places that are not free.

mod checks;
mod fresh;
mod naive;
mod sequences;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    Act, Book, Cause, Checkout, Claim, Mode, Place, PoolCounters, PoolLimits, Return, State, Ticket,
};
use crate::failure::{Dial, Error};
use naive::{Conn, Had, Model};
use sequences::limits;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

/// The book, the model, and what a room knows.
struct Rig {
    book: Book,
    model: Model,
    rng: fastrand::Rng,
    /// Tokens that others have left for us, and those that we have.
    free: usize,
    taken: usize,
    is_refused: bool,
    /// Numbers that are no more.
    gone_places: Vec<Place>,
    gone_tickets: Vec<Ticket>,
    checkouts: u64,
    /// What does not happen in this run: each knob is off half of the time, so that runs are of many kinds.
    off: u16,
    /// Grants taken back, as the connection ended before anybody came for it.
    withdrawn: u64,
    /// Dials for one caller alone, those of them that it left, and all dials that went well.
    fresh: u64,
    fresh_left: u64,
    established: u64,
}

impl Rig {
    fn new(limits: PoolLimits, free: usize) -> Self {
        let model = Model {
            limits,
            now: Duration::ZERO,
            conns: BTreeMap::new(),
            idle: Vec::new(),
            tickets: BTreeMap::new(),
            to_wake: BTreeSet::new(),
            spare: 0,
            owed: 0,
            arrivals: 0,
            is_draining: false,
            has_failed: false,
            failed_at: None,
            stale: 0,
        };
        Self {
            book: Book::new(limits).expect("sound limits"),
            model,
            rng: fastrand::Rng::with_seed(42),
            free,
            taken: 0,
            is_refused: false,
            gone_places: Vec::new(),
            gone_tickets: Vec::new(),
            checkouts: 0,
            off: 0,
            withdrawn: 0,
            fresh: 0,
            fresh_left: 0,
            established: 0,
        }
    }

    fn now(&self) -> Duration {
        self.model.now
    }

    fn free_place(&mut self, place: Place) {
        let conn = self.model.conns.remove(&place).expect("there");
        assert_ne!(conn.state, State::Idle);
        if conn.cause == Some(Cause::GivenUp) {
            self.model.owed += 1;
        } else {
            self.model.spare += 1;
        }
        self.gone_places.push(place);
    }

    fn end_ticket(&mut self, ticket: Ticket) -> Had {
        self.model.to_wake.remove(&ticket);
        self.gone_tickets.push(ticket);
        self.model.tickets.remove(&ticket).expect("there").3
    }

    // ----------------------------------------------------------------------- calls

    fn checkout(&mut self, at: &'static Location<'static>) {
        self.checkouts += 1;
        let answer = self.book.checkout(self.now(), at);
        let model = &mut self.model;
        if model.is_draining {
            assert!(matches!(answer, Checkout::Draining));
            return;
        }
        let waiting = model.waiting().len();
        if waiting == 0
            && let Some(top) = model.fresh_top()
        {
            assert!(
                matches!(answer, Checkout::Hit(place) if place == top),
                "{answer:?}, not {top:?}"
            );
            return model.take(top, at, None);
        }
        if waiting >= model.limits.waiters_max as usize {
            let Checkout::Saturated(snapshot) = answer else { panic!("{answer:?}") };
            assert_eq!(snapshot.waiting as usize, waiting);
            return;
        }
        let Checkout::Wait(ticket) = answer else { panic!("{answer:?}, not to wait") };
        assert!(!self.gone_tickets.contains(&ticket), "{ticket:?} once more");
        let entry = (model.arrivals, model.now, at, Had::Nothing);
        model.arrivals += 1;
        assert!(model.tickets.insert(ticket, entry).is_none(), "{ticket:?} twice");
    }

    fn try_checkout(&mut self, at: &'static Location<'static>) {
        let answer = self.book.try_checkout(self.now(), at);
        let model = &mut self.model;
        let is_first = model.waiting().is_empty() && !model.is_draining;
        let top = model.fresh_top().filter(|_| is_first);
        assert_eq!(answer, top);
        if let Some(top) = top {
            self.checkouts += 1;
            model.take(top, at, None);
        }
    }

    fn claim(&mut self, ticket: Ticket, is_late: bool) {
        let now = self.now();
        let answer =
            if is_late { self.book.expire(ticket, now) } else { self.book.claim(ticket, now) };
        let Some((.., had)) = self.model.tickets.get(&ticket).copied() else {
            assert!(matches!(answer, Claim::Stale));
            self.model.stale += 1;
            return;
        };
        let waiting = self.model.waiting().len();
        if had != Had::Nothing || is_late {
            self.end_ticket(ticket);
        }
        match (had, answer) {
            (Had::Nothing, Claim::Wait) => assert!(!is_late),
            (Had::Nothing, Claim::TimedOut { snapshot, .. }) => {
                assert!(is_late);
                assert_eq!(snapshot.waiting as usize, waiting);
            }
            (Had::Place(place), Claim::Place(claimed)) => {
                assert_eq!(place, claimed);
                self.model.conns.get_mut(&place).expect("there").ticket = None;
            }
            (Had::Error, Claim::Failed(_)) | (Had::Draining, Claim::Draining) => {}
            (had, answer) => panic!("{answer:?}, not {had:?}"),
        }
    }

    fn leave(&mut self, ticket: Ticket) {
        let is_known = self.book.leave(ticket, self.now());
        assert_eq!(is_known, self.model.tickets.contains_key(&ticket));
        if !is_known {
            self.model.stale += 1;
        } else if let Had::Place(place) = self.end_ticket(ticket) {
            self.model.conns.get_mut(&place).expect("there").ticket = None;
            self.model.offer(place);
        }
    }

    /// Whether the model knows the place in such a state; the book has to say the same.
    fn fits(&mut self, place: Place, said: bool, fit: impl Fn(&Conn) -> bool) -> bool {
        let fits = self.model.conns.get(&place).is_some_and(fit);
        assert_eq!(said, fits, "{place:?}: {:?}", self.model.conns.get(&place));
        self.model.stale += u64::from(!fits);
        fits
    }

    fn checkin(&mut self, place: Place, as_it_is: Return) {
        let said = self.book.checkin(place, self.now(), as_it_is);
        let is_held = |conn: &Conn| conn.state == State::CheckedOut && conn.ticket.is_none();
        if !self.fits(place, said, is_held) {
            return;
        }
        let now = self.now();
        self.model.conns.get_mut(&place).expect("there").seen = now;
        match as_it_is {
            Return::Clean => self.model.offer(place),
            Return::Unclean => self.model.close(place, Cause::Unclean),
            Return::Discard => self.model.close(place, Cause::Discarded),
            Return::Yielded => {
                self.model.close(place, Cause::GivenUp);
                self.model.has_failed = true;
            }
        }
    }

    fn dialed(&mut self, place: Place) {
        let mut drawn = self.rng.clone();
        let said = self.book.dialed(place, self.now(), &mut self.rng);
        if !self.fits(place, said, |conn| conn.state == State::Dialing) {
            return;
        }
        let (now, limits) = (self.now(), self.model.limits);
        let mut less = |span: Duration, part: f64| {
            let all = span.as_secs_f64() * (1.0 - part * drawn.f64());
            Duration::from_secs_f64(all)
        };
        let conn = self.model.conns.get_mut(&place).expect("there");
        (conn.opened, conn.seen) = (Some(now), now);
        conn.lifetime = limits.max_lifetime.map(|span| less(span, 0.25));
        conn.keep_alive = limits.keep_alive.map(|span| less(span, 0.2));
        assert!(self.book.last_dial_error().is_none());
        self.established += 1;
        self.model.failed_at = None;
        match self.model.conns[&place] {
            Conn { is_fresh: true, at: Some(at), .. } => self.model.take(place, at, None),
            _ => self.model.offer(place),
        }
    }

    fn dial_failed(&mut self, place: Place) {
        let error = Arc::new(Error::new(Dial::Refused));
        let said = self.book.dial_failed(place, self.now(), error, &mut self.rng);
        let was_dial = |conn: &Conn| {
            conn.state == State::Dialing || (conn.state == State::Closing && conn.opened.is_none())
        };
        if !self.fits(place, said, was_dial) {
            return;
        }
        let Conn { state, is_fresh, .. } = self.model.conns[&place];
        let is_cancelled = state == State::Closing;
        self.free_place(place);
        if is_cancelled {
            return;
        }
        assert!(self.book.last_dial_error().is_some());
        let model = &mut self.model;
        model.has_failed = true;
        model.failed_at = Some(model.now);
        let hopes = model.dialing()
            + model.count(State::Validating)
            + model.count(State::CheckedOut)
            + model.idle.len();
        let waiting = model.waiting();
        if !is_fresh && waiting.len() > hopes {
            model.tickets.get_mut(&waiting[0]).expect("there").3 = Had::Error;
            model.to_wake.insert(waiting[0]);
        }
    }

    fn validated(&mut self, place: Place, is_alive: bool) {
        let said = self.book.validated(place, is_alive, self.now());
        if !self.fits(place, said, |conn| conn.state == State::Validating && conn.is_told) {
            return;
        }
        let now = self.now();
        if is_alive {
            self.model.conns.get_mut(&place).expect("there").seen = now;
            self.model.offer(place);
        } else {
            self.model.close(place, Cause::Invalid);
        }
    }

    fn closed(&mut self, place: Place) {
        let said = self.book.closed(place, self.now());
        if self.fits(place, said, |conn| conn.state == State::Closing) {
            self.free_place(place);
        }
    }

    fn ended(&mut self, place: Place) {
        let said = self.book.ended(place, self.now());
        if !self.fits(place, said, |conn| conn.state != State::Dialing) {
            return;
        }
        let model = &mut self.model;
        let conn = model.conns.get_mut(&place).expect("there");
        if conn.opened == Some(conn.seen) && conn.state != State::Closing {
            // It was turned away: a pause.
            model.has_failed = true;
        }
        match (conn.state, conn.ticket.take()) {
            (State::Closing, _) => {}
            (State::CheckedOut, None) => conn.is_ended = true,
            (_, None) => model.close(place, Cause::Ended),
            (_, Some(ticket)) => {
                model.close(place, Cause::Ended);
                self.withdrawn += 1;
                model.to_wake.remove(&ticket);
                model.tickets.get_mut(&ticket).expect("there").3 = Had::Nothing;
                self.serve();
                if self.model.is_draining {
                    self.model.tickets.get_mut(&ticket).expect("there").3 = Had::Draining;
                    self.model.to_wake.insert(ticket);
                }
            }
        }
    }

    fn serve(&mut self) {
        while let Some(first) = self.model.waiting().first()
            && let Some(top) = self.model.fresh_top()
        {
            self.model.give(top, *first);
        }
    }

    fn give_up_idle(&mut self) {
        let said = self.book.give_up_idle(self.now());
        let coldest = self.model.idle.first().copied();
        let coldest = coldest.filter(|_| self.model.waiting().is_empty());
        assert_eq!(said, coldest.is_some());
        if let Some(coldest) = coldest {
            self.model.close(coldest, Cause::GivenUp);
            self.model.has_failed = true;
        }
    }

    fn set_limits(&mut self, limits: PoolLimits) {
        self.book.set_limits(limits, self.now()).expect("sound limits");
        self.model.limits = limits;
        while self.model.is_above_max()
            && let Some(coldest) = self.model.idle.first().copied()
        {
            self.model.close(coldest, Cause::Shrunk);
        }
    }

    fn drain(&mut self) {
        self.book.drain(self.now());
        let model = &mut self.model;
        model.is_draining = true;
        for ticket in model.waiting() {
            model.tickets.get_mut(&ticket).expect("there").3 = Had::Draining;
            model.to_wake.insert(ticket);
        }
        let resting = [State::Idle, State::Validating];
        let all: Vec<_> = model.conns.iter().map(|(place, conn)| (*place, conn.state)).collect();
        for (place, _) in all.into_iter().filter(|(_, state)| resting.contains(state)) {
            model.close(place, Cause::Drained);
        }
    }

    /// Time goes by. The room looks after the pool every time, or when the book says that it has to.
    fn pass(&mut self, span: Duration, how: u16) {
        self.model.now += span;
        let next = self.book.next_maintenance();
        let is_due = next.is_some_and(|next| next <= self.model.now);
        if how.is_multiple_of(4) || (how % 4 == 1 && !is_due) {
            return;
        }
        self.book.maintain(self.now());
        self.model.maintain();
        self.settle();
        let next = self.book.next_maintenance();
        assert!(next.is_none_or(|next| next > self.now()), "due for ever: {next:?}");
    }

    /// When something is to be done by the model, at the latest.
    fn next_due(&self) -> Option<Duration> {
        let model = &self.model;
        let more_than_min = model.resting() > model.limits.mode.min_idle() as usize;
        let surplus = model.dialing() > model.dials_wanted();
        let dues = model.conns.iter().flat_map(|(place, conn)| {
            let is_first = model.idle.first() == Some(place);
            let after = |since: Duration, span: Option<Duration>| span.map(|span| since + span);
            match conn.state {
                State::Idle => [
                    after(conn.opened.expect("it is there"), conn.lifetime),
                    after(conn.seen, conn.keep_alive),
                    after(conn.used, model.limits.idle_timeout)
                        .filter(|_| is_first && more_than_min),
                ],
                State::CheckedOut if !conn.is_warned => {
                    [after(conn.since, model.limits.leak_after), None, None]
                }
                State::Dialing if surplus && !conn.is_fresh => {
                    [Some(conn.since + model.limits.hung_after), None, None]
                }
                _ => [None; 3],
            }
        });
        dues.flatten().min()
    }

    // ----------------------------------------------------------------------- acts

    /// A place: mostly one that such a call is made for, else any, else one that is no more.
    fn pick(&self, by: u16, fit: impl Fn(&Conn) -> bool) -> Option<Place> {
        let (how, by) = (by % 16, usize::from(by / 16));
        if how == 0 && !self.gone_places.is_empty() {
            return Some(self.gone_places[by % self.gone_places.len()]);
        }
        let fits = |conn: &Conn| how == 1 || fit(conn);
        let of = self.model.conns.iter().filter(|(_, conn)| fits(conn)).map(|(place, _)| *place);
        let of: Vec<_> = of.collect();
        (!of.is_empty()).then(|| of[by % of.len()])
    }

    fn pick_ticket(&self, by: u16) -> Option<Ticket> {
        let by = usize::from(by / 16);
        if by.is_multiple_of(16) && !self.gone_tickets.is_empty() {
            return Some(self.gone_tickets[by % self.gone_tickets.len()]);
        }
        let of: Vec<_> = self.model.tickets.keys().copied().collect();
        (!of.is_empty()).then(|| of[by % of.len()])
    }

    fn step(&mut self, (what, which, how): (u8, u16, u16)) {
        let in_state = |state: State| move |conn: &Conn| conn.state == state;
        let place = match what % 64 {
            9..18 => self.pick(which, in_state(State::Dialing)),
            18..23 => self.pick(which, in_state(State::Validating)),
            23..29 => self.pick(which, in_state(State::Closing)),
            29..41 => {
                self.pick(which, |conn| conn.state == State::CheckedOut && conn.ticket.is_none())
            }
            63 => self.pick(which, |conn| conn.state == State::Dialing && conn.is_fresh),
            _ => self.pick(which, |conn| how.is_multiple_of(2) || conn.ticket.is_some()),
        };
        let ticket = self.pick_ticket(which);
        let is_off = |knob: u32| self.off >> knob & 1 == 1;
        let what = match what % 64 {
            6..9 if is_off(0) => 29,
            17 if is_off(1) => 9,
            47..50 if is_off(2) => 41,
            58..62 if is_off(3) => 50,
            57 if is_off(4) => 62,
            what => what,
        };
        match (what, place, ticket) {
            (0..9, ..) => {
                let ats = [here(), here(), here()];
                let at = ats[usize::from(which) % 3];
                if how.is_multiple_of(5) { self.try_checkout(at) } else { self.checkout(at) }
            }
            (9..17, Some(place), _) => self.dialed(place),
            (17, Some(place), _) => self.dial_failed(place),
            (18..23, Some(place), _) => self.validated(place, !how.is_multiple_of(6)),
            (23..29, Some(place), _) => self.closed(place),
            (29..41, Some(place), _) => {
                let as_it_is = match how % 16 {
                    0 => Return::Unclean,
                    1 => Return::Discard,
                    2 => Return::Yielded,
                    _ => Return::Clean,
                };
                self.checkin(place, as_it_is);
            }
            (41..47, _, Some(ticket)) => self.claim(ticket, false),
            (47, _, Some(ticket)) => self.leave(ticket),
            (48, _, Some(ticket)) => self.claim(ticket, true),
            (49, Some(place), _) => self.ended(place),
            (50..58, ..) => self.pass(ms(u64::from(which) % 2500), how),
            (58, ..) if how.is_multiple_of(2) => self.give_up_idle(),
            (59, ..) if how.is_multiple_of(2) => self.set_limits(limits(which)),
            (60, ..) if how.is_multiple_of(24) => self.drain(),
            (62, ..) => self.dial_fresh(here()),
            (63, Some(place), _) if !how.is_multiple_of(6) => self.leave_fresh(place),
            (63, ..) => self.distrust(ms(u64::from(which) % 4000)),
            (60..62, ..) => self.free = usize::from(which) % 7,
            _ => {}
        }
        self.agree();
        // Now and then the room does several things before it asks.
        if !how.is_multiple_of(5) {
            self.settle();
            self.agree();
        }
    }

    /// Everybody goes, everything ends: nothing is left.
    fn end(&mut self) {
        self.drain();
        self.settle();
        for ticket in self.model.tickets.keys().copied().collect::<Vec<_>>() {
            if ticket.index.is_multiple_of(2) {
                self.leave(ticket);
            } else {
                self.claim(ticket, false);
            }
        }
        self.settle();
        self.end_fresh();
        for place in self.model.conns.keys().copied().collect::<Vec<_>>() {
            if self.model.conns[&place].state == State::CheckedOut {
                self.checkin(place, Return::Clean);
            }
        }
        self.settle();
        for place in self.model.conns.keys().copied().collect::<Vec<_>>() {
            self.closed(place);
        }
        self.settle();
        assert!(self.book.is_drained());
        assert_eq!((self.taken, self.book.held()), (0, 0));
    }
}
