//! The book against a naive model: lists are Vecs, nothing is linked, counted or remembered twice, and every rule is
//! written once more. Random sequences of all calls, fitting and not, with numbers that are stale, with callers that go
//! at every point, with a cap that others take from, and with a room that does not poll after each.
//!
//! After each step every place is in the state that the model says, and all counts agree. When the book has nothing
//! more to do, nothing was forgotten (no waiter beside an idle connection or free capacity, nothing to be closed, woken
//! or pinged), and the tokens that were taken are the places that are not free.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{
    Act, Book, Cause, Checkout, Claim, Mode, Place, PoolCounters, PoolLimits, Return, State, Ticket,
};
use crate::failure::{Dial, Error};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

#[derive(Clone, Debug)]
struct Conn {
    state: State,
    is_told: bool,
    since: Duration,
    opened: Option<Duration>,
    used: Duration,
    seen: Duration,
    lifetime: Option<Duration>,
    keep_alive: Option<Duration>,
    ticket: Option<Ticket>,
    at: Option<&'static Location<'static>>,
    is_ended: bool,
    is_warned: bool,
    is_pinged: bool,
    cause: Option<Cause>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Had {
    Nothing,
    Place(Place),
    Error,
    Draining,
}

struct Model {
    limits: PoolLimits,
    now: Duration,
    conns: BTreeMap<Place, Conn>,
    /// Used last, last.
    idle: Vec<Place>,
    /// All tickets there are: arrival, since, where, and what it has.
    tickets: BTreeMap<Ticket, (usize, Duration, &'static Location<'static>, Had)>,
    to_wake: BTreeSet<Ticket>,
    spare: usize,
    arrivals: usize,
    is_draining: bool,
    has_failed: bool,
    /// When the dial failed behind which there may be a pause; none since one went well.
    failed_at: Option<Duration>,
    stale: u64,
}

impl Model {
    fn count(&self, state: State) -> usize {
        self.conns.values().filter(|conn| conn.state == state).count()
    }

    /// In the order of arrival.
    fn waiting(&self) -> Vec<Ticket> {
        let mut waiting: Vec<_> = self
            .tickets
            .iter()
            .filter(|(_, ticket)| ticket.3 == Had::Nothing)
            .map(|(ticket, (arrival, ..))| (*arrival, *ticket))
            .collect();
        waiting.sort();
        waiting.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn max(&self) -> usize {
        self.limits.mode.max() as usize
    }

    fn is_above_max(&self) -> bool {
        self.conns.len() - self.count(State::Closing) > self.max()
    }

    fn resting(&self) -> usize {
        self.idle.len() + self.count(State::Validating).saturating_sub(self.waiting().len())
    }

    fn for_waiters(&self) -> usize {
        self.waiting().len().saturating_sub(self.count(State::Validating))
    }

    fn for_rest(&self) -> usize {
        (self.limits.mode.min_idle() as usize).saturating_sub(self.resting())
    }

    fn dials_wanted(&self) -> usize {
        if self.is_draining { 0 } else { self.for_waiters() + self.for_rest() }
    }

    fn has_room(&self) -> bool {
        self.conns.len() < self.max()
            && self.count(State::Dialing) < self.limits.dials_max as usize
            && !self.is_draining
    }

    fn unfit(&self, place: Place) -> Option<Cause> {
        let conn = &self.conns[&place];
        if self.is_draining {
            return Some(Cause::Drained);
        }
        if conn.is_ended {
            return Some(Cause::Ended);
        }
        if self.is_above_max() {
            return Some(Cause::Shrunk);
        }
        let age = self.now - conn.opened.unwrap_or(self.now);
        conn.lifetime.filter(|lifetime| age >= *lifetime).map(|_| Cause::Lifetime)
    }

    fn close(&mut self, place: Place, cause: Cause) {
        self.idle.retain(|other| *other != place);
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.is_told, conn.cause) = (State::Closing, false, Some(cause));
    }

    fn give(&mut self, place: Place, ticket: Ticket) {
        let entry = self.tickets.get_mut(&ticket).expect("there");
        entry.3 = Had::Place(place);
        let at = entry.2;
        self.to_wake.insert(ticket);
        self.take(place, at, Some(ticket));
    }

    fn take(&mut self, place: Place, at: &'static Location<'static>, ticket: Option<Ticket>) {
        self.idle.retain(|other| *other != place);
        let now = self.now;
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.since, conn.at, conn.ticket) = (State::CheckedOut, now, Some(at), ticket);
        (conn.is_warned, conn.is_told, conn.is_pinged) = (false, true, false);
    }

    fn offer(&mut self, place: Place) {
        if let Some(cause) = self.unfit(place) {
            return self.close(place, cause);
        }
        if let Some(first) = self.waiting().first() {
            return self.give(place, *first);
        }
        let now = self.now;
        let conn = self.conns.get_mut(&place).expect("there");
        (conn.state, conn.is_told) = (State::Idle, true);
        if conn.is_pinged {
            let used = conn.used;
            conn.is_pinged = false;
            // Behind those that were used before.
            let behind = self.idle.iter().take_while(|other| self.conns[other].used < used).count();
            self.idle.insert(behind, place);
        } else {
            conn.used = now;
            self.idle.push(place);
        }
    }

    fn top(&mut self) -> Option<Place> {
        while let Some(top) = self.idle.last().copied() {
            match self.unfit(top) {
                Some(cause) => self.close(top, cause),
                None => return Some(top),
            }
        }
        None
    }

    fn fresh_top(&mut self) -> Option<Place> {
        let top = self.top()?;
        let unseen = self.now - self.conns[&top].seen;
        self.limits.validate_after.is_none_or(|after| unseen < after).then_some(top)
    }

    fn maintain(&mut self) {
        for place in self.idle.clone() {
            let conn = &self.conns[&place];
            let is_past = |since: Duration, span: Option<Duration>| {
                span.is_some_and(|span| self.now - since >= span)
            };
            if let Some(cause) = self.unfit(place) {
                self.close(place, cause);
            } else if is_past(conn.used, self.limits.idle_timeout)
                && self.resting() > self.limits.mode.min_idle() as usize
            {
                self.close(place, Cause::IdleTimeout);
            } else if is_past(conn.seen, conn.keep_alive) {
                self.idle.retain(|other| *other != place);
                let conn = self.conns.get_mut(&place).expect("there");
                (conn.state, conn.is_told, conn.is_pinged) = (State::Validating, false, true);
            }
        }
        for conn in self.conns.values_mut() {
            let is_late =
                self.limits.leak_after.is_some_and(|after| self.now - conn.since >= after);
            if conn.state == State::CheckedOut && !conn.is_warned && is_late {
                (conn.is_warned, conn.is_told) = (true, false);
            }
        }
    }
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
        }
    }

    fn now(&self) -> Duration {
        self.model.now
    }

    fn free_place(&mut self, place: Place) {
        let conn = self.model.conns.remove(&place).expect("there");
        assert_ne!(conn.state, State::Idle);
        self.model.spare += 1;
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
        self.model.failed_at = None;
        self.model.offer(place);
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
        let is_cancelled = self.model.conns[&place].state == State::Closing;
        self.free_place(place);
        if is_cancelled {
            return;
        }
        assert!(self.book.last_dial_error().is_some());
        let model = &mut self.model;
        model.has_failed = true;
        model.failed_at = Some(model.now);
        let hopes = model.count(State::Dialing)
            + model.count(State::Validating)
            + model.count(State::CheckedOut)
            + model.idle.len();
        let waiting = model.waiting();
        if waiting.len() > hopes {
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
        let surplus = model.count(State::Dialing) > model.dials_wanted();
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
                State::Dialing if surplus => {
                    [Some(conn.since + model.limits.hung_after), None, None]
                }
                _ => [None; 3],
            }
        });
        dues.flatten().min()
    }

    // ----------------------------------------------------------------------- acts

    /// Polls until there is nothing to do. Every act has to be one that the model allows.
    fn settle(&mut self) {
        for step in 0.. {
            assert!(step < 10_000, "it never ends");
            let (free, mut asked) = (self.free, false);
            let act = self.book.poll_act(self.now(), || {
                asked = true;
                free > 0
            });
            // Who waits is served from what is idle first.
            self.serve();
            let took = asked && free > 0;
            if asked && !took {
                self.is_refused = true;
            }
            if took {
                self.free -= 1;
                self.taken += 1;
                assert!(matches!(act, Some(Act::Dial(_))), "{act:?} with a token");
            }
            let Some(act) = act else { break };
            self.check(act, took);
            self.agree();
        }
        self.check_settled();
    }

    fn check(&mut self, act: Act, took: bool) {
        let model = &mut self.model;
        let dialing = model.count(State::Dialing);
        match act {
            Act::Wake(ticket) => {
                assert!(model.to_wake.remove(&ticket), "{ticket:?} woken for nothing");
            }
            Act::Dial(place) => {
                assert!(model.has_room(), "a dial too many");
                assert!(dialing < model.dials_wanted(), "nobody wants a dial");
                assert!(!self.gone_places.contains(&place), "{place:?} once more");
                if !took {
                    model.spare = model.spare.checked_sub(1).expect("a dial without a token");
                }
                let conn = Conn {
                    state: State::Dialing,
                    is_told: true,
                    since: model.now,
                    opened: None,
                    used: model.now,
                    seen: model.now,
                    lifetime: None,
                    keep_alive: None,
                    ticket: None,
                    at: None,
                    is_ended: false,
                    is_warned: false,
                    is_pinged: false,
                    cause: None,
                };
                assert!(model.conns.insert(place, conn).is_none(), "{place:?} twice");
            }
            Act::Validate(place) => {
                assert!(model.waiting().len() > model.count(State::Validating));
                assert_eq!(model.top(), Some(place));
                model.idle.pop();
                let conn = model.conns.get_mut(&place).expect("there");
                (conn.state, conn.is_told, conn.is_pinged) = (State::Validating, true, false);
            }
            Act::Ping(place) => {
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::Validating && !conn.is_told && conn.is_pinged);
                conn.is_told = true;
            }
            Act::CancelDial(place) => {
                let wanted = model.dials_wanted();
                let (is_above_max, is_draining) = (model.is_above_max(), model.is_draining);
                let (now, hung_after) = (model.now, model.limits.hung_after);
                let conn = model.conns.get_mut(&place).expect("there");
                assert_eq!(conn.state, State::Dialing);
                let is_hung = now - conn.since >= hung_after;
                assert!(
                    is_above_max || is_draining || (dialing > wanted && is_hung),
                    "a dial cancelled that is wanted, or young"
                );
                (conn.state, conn.is_told) = (State::Closing, true);
            }
            Act::Close(place, cause) => {
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::Closing && !conn.is_told, "{place:?} {conn:?}");
                assert_eq!(conn.cause, Some(cause));
                conn.is_told = true;
            }
            Act::Leaked { place, held, at } => {
                let now = model.now;
                let conn = model.conns.get_mut(&place).expect("there");
                assert!(conn.state == State::CheckedOut && conn.is_warned && !conn.is_told);
                assert_eq!((held, Some(at)), (now - conn.since, conn.at));
                conn.is_told = true;
            }
            Act::Release => {
                model.spare = model.spare.checked_sub(1).expect("no token to give back");
                self.free += 1;
                self.taken -= 1;
            }
        }
    }

    fn check_settled(&mut self) {
        let model = &mut self.model;
        assert!(model.to_wake.is_empty(), "not woken: {:?}", model.to_wake);
        assert!(model.conns.values().all(|conn| conn.is_told), "not told: {:?}", model.conns);
        assert_eq!((model.spare, model.conns.len()), (0, self.taken), "tokens are lost, or made");
        let (dialing, waiting) = (model.count(State::Dialing), model.waiting().len());
        if waiting > 0 {
            assert_eq!(model.fresh_top(), None, "somebody waits beside an idle connection");
        }
        if waiting > model.count(State::Validating) {
            assert!(model.idle.is_empty(), "somebody waits beside an idle connection");
        }
        // How long that is was drawn: it may be over before.
        let pause = |failed_at: Duration| failed_at.saturating_add(model.limits.refill.most);
        let paused_until = model.failed_at.map_or(Duration::ZERO, pause);
        let is_pausing = model.count(State::CheckedOut) > 0 && model.now < paused_until;
        if dialing < model.for_waiters() && model.has_room() {
            if is_pausing && self.book.lacks() == 0 {
                let due = self.book.next_maintenance();
                assert!(
                    due.is_some_and(|due| due <= paused_until),
                    "nobody comes back to it: {due:?}"
                );
            } else {
                assert_eq!(self.free, 0, "somebody waits, and there is room");
                assert!(self.book.lacks() > 0, "it does not say that it lacks tokens");
            }
        } else {
            assert_eq!(self.book.lacks(), 0);
        }
        if dialing < model.dials_wanted()
            && model.has_room()
            && !model.has_failed
            && !self.is_refused
        {
            assert_eq!(self.free, 0, "fewer idle than there should be, and there is room");
        }
        let oldest = model.conns.values().filter(|conn| conn.state == State::Dialing);
        let oldest = oldest.map(|conn| model.now - conn.since).max();
        let is_hung = oldest.is_some_and(|age| age >= model.limits.hung_after);
        assert!(dialing <= model.dials_wanted() || !is_hung, "a hung dial that nobody needs");
        assert!(!model.is_draining || (dialing == 0 && model.idle.is_empty()));
        if let Some(due) = self.next_due() {
            let said = self.book.next_maintenance();
            assert!(said.is_some_and(|said| said <= due), "{said:?}, but due at {due:?}");
        }
    }

    /// Everything there is, and how it stands.
    fn agree(&self) {
        let (book, model) = (&self.book, &self.model);
        for (place, conn) in &model.conns {
            assert_eq!(book.state(*place), Some(conn.state), "{place:?} {conn:?}");
        }
        for place in self.gone_places.iter().rev().take(8) {
            assert_eq!(book.state(*place), None, "{place:?} is no more");
        }
        let (snapshot, census) = (book.snapshot(model.now), book.census(model.now));
        assert_eq!(snapshot, census);
        let count = |state| model.count(state) as u32;
        assert_eq!(snapshot.dialing, count(State::Dialing));
        assert_eq!(snapshot.idle as usize, model.idle.len());
        assert_eq!(snapshot.idle, count(State::Idle));
        assert_eq!(snapshot.checked_out, count(State::CheckedOut));
        assert_eq!(snapshot.validating, count(State::Validating));
        assert_eq!(snapshot.closing, count(State::Closing));
        assert_eq!(book.held() as usize, model.conns.len());
        let waiting = model.waiting();
        assert_eq!(snapshot.waiting as usize, waiting.len());
        let first = waiting.first().map_or(model.now, |first| model.tickets[first].1);
        assert_eq!(snapshot.oldest_waiter, model.now - first);
        let out = model.conns.values().filter(|conn| conn.state == State::CheckedOut);
        let oldest = out.map(|conn| model.now - conn.since).max();
        assert_eq!(snapshot.oldest_checkout, oldest.unwrap_or_default());
        let counters = book.counters();
        let served = counters.hits + counters.waits + counters.saturated + counters.refused;
        assert_eq!(served, self.checkouts);
        let over = counters.claimed + counters.failed + counters.timeouts + counters.left;
        assert_eq!(counters.waits, over + model.tickets.len() as u64);
        assert_eq!(counters.stale, model.stale);
    }

    // ----------------------------------------------------------------------- one step

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
            _ => self.pick(which, |conn| how.is_multiple_of(2) || conn.ticket.is_some()),
        };
        let ticket = self.pick_ticket(which);
        let is_off = |knob: u32| self.off >> knob & 1 == 1;
        let what = match what % 64 {
            6..9 if is_off(0) => 29,
            17 if is_off(1) => 9,
            47..50 if is_off(2) => 41,
            58..62 if is_off(3) => 50,
            what => what,
        };
        match (what, place, ticket) {
            (0..9, ..) => {
                let ats = [here(), here(), here()];
                self.checkout(ats[usize::from(which) % 3]);
            }
            (9..17, Some(place), _) => self.dialed(place),
            (17, Some(place), _) => self.dial_failed(place),
            (18..23, Some(place), _) => self.validated(place, !how.is_multiple_of(6)),
            (23..29, Some(place), _) => self.closed(place),
            (29..41, Some(place), _) => {
                let as_it_is = match how % 16 {
                    0 => Return::Unclean,
                    1 => Return::Discard,
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

/// Small ones, so that everything runs into everything.
fn limits(by: u16) -> PoolLimits {
    let by = u32::from(by);
    let max = 1 + by % 4 * (by / 1024 % 3);
    let mode = match by / 4 % 4 {
        0 | 1 => Mode::Dynamic { min_idle: 0, max },
        2 => Mode::Dynamic { min_idle: (by / 16 % 3).min(max), max },
        _ => Mode::Fixed(max),
    };
    let pick = |every: u32, value: u64| (by / 16 % every != 0).then(|| ms(value));
    PoolLimits {
        mode,
        dials_max: 1 + by / 48 % 3,
        waiters_max: 1 + by / 64 % 5,
        idle_timeout: pick(5, 4000),
        max_lifetime: pick(6, 20_000),
        keep_alive: pick(3, 3000),
        validate_after: [Some(Duration::ZERO), Some(ms(2000)), Some(ms(2000)), None]
            [by as usize / 128 % 4],
        leak_after: pick(7, 5000),
        hung_after: ms(u64::from(by / 512 % 2) * 1000),
        ..PoolLimits::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn book_and_model_agree(
        by in any::<u16>(),
        off in any::<u16>(),
        free in 0_usize..8,
        steps in proptest::collection::vec((any::<u8>(), any::<u16>(), any::<u16>()), 1..160),
    ) {
        let limits = limits(by);
        prop_assume!(limits.check().is_ok());
        let mut rig = Rig::new(limits, free);
        rig.off = off;
        rig.settle();
        for step in steps {
            rig.step(step);
        }
        rig.settle();
        rig.end();
    }
}

/// The sequences above are no better than what they reach: everything, and often.
#[test]
fn sequences_reach_everything() {
    let mut sum = PoolCounters::default();
    let mut withdrawn = 0;
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::new(limits(rng.u16(..)), rng.usize(0..8));
        rig.off = rng.u16(..);
        rig.settle();
        for _ in 0..200 {
            rig.step((rng.u8(..), rng.u16(..), rng.u16(..)));
        }
        rig.settle();
        rig.end();
        withdrawn += rig.withdrawn;
        let counters = rig.book.counters();
        for (of, by) in sum.closes.iter_mut().zip(counters.closes) {
            *of += by;
        }
        let PoolCounters { hits, waits, saturated, refused, claimed, failed, .. } = *counters;
        for (of, by) in [
            (&mut sum.hits, hits),
            (&mut sum.waits, waits),
            (&mut sum.saturated, saturated),
            (&mut sum.refused, refused),
            (&mut sum.claimed, claimed),
            (&mut sum.failed, failed),
            (&mut sum.timeouts, counters.timeouts),
            (&mut sum.left, counters.left),
            (&mut sum.dials, counters.dials),
            (&mut sum.refills, counters.refills),
            (&mut sum.dials_failed, counters.dials_failed),
            (&mut sum.dials_cancelled, counters.dials_cancelled),
            (&mut sum.validations, counters.validations),
            (&mut sum.pings, counters.pings),
            (&mut sum.leaks, counters.leaks),
            (&mut sum.stale, counters.stale),
        ] {
            *of += by;
        }
    }
    let text = format!("{sum:?}, {withdrawn} withdrawn");
    let PoolCounters { closes, .. } = sum;
    assert!(closes.iter().all(|count| *count > 20), "{text}");
    for count in [
        sum.hits,
        sum.waits,
        sum.saturated,
        sum.refused,
        sum.claimed,
        sum.failed,
        sum.timeouts,
        sum.left,
        sum.dials,
        sum.refills,
        sum.dials_failed,
        sum.dials_cancelled,
        sum.validations,
        sum.pings,
        sum.leaks,
        sum.stale,
        withdrawn,
    ] {
        assert!(count > 20, "{text}");
    }
}

/// All that `limits` makes can be met: otherwise the sequences above would not be what they seem.
#[test]
fn limits_of_the_model_are_sound() {
    for by in 0..=u16::MAX {
        assert_eq!(limits(by).check(), Ok(()), "{by}");
    }
}
