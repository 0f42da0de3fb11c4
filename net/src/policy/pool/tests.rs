//! The book of a pool: every state with every call, and what each rule is for. `tests/model.rs` has the sequences that
//! nobody thought of, `tests/knobs.rs` the limits.

mod knobs;
mod model;

use super::*;
use crate::failure::Dial;
use crate::policy::backoff::Backoff;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A book, and a room that does nothing but note what it is asked for. Tokens are free for all.
struct Room {
    book: Book,
    now: Duration,
    rng: fastrand::Rng,
}

impl Room {
    fn new(limits: PoolLimits) -> Self {
        let rng = fastrand::Rng::with_seed(3);
        Self { book: Book::new(limits).expect("sound limits"), now: Duration::ZERO, rng }
    }

    fn of(mode: Mode) -> Self {
        Self::new(PoolLimits::of(mode))
    }

    #[track_caller]
    fn checkout(&mut self) -> Checkout {
        self.book.checkout(self.now, Location::caller())
    }

    #[track_caller]
    fn hit(&mut self) -> Place {
        let Checkout::Hit(place) = self.checkout() else { panic!("not at once") };
        place
    }

    #[track_caller]
    fn wait(&mut self) -> Ticket {
        let Checkout::Wait(ticket) = self.checkout() else { panic!("not to wait") };
        ticket
    }

    fn acts(&mut self) -> Vec<Act> {
        std::iter::from_fn(|| self.book.poll_act(self.now, || true)).collect()
    }

    fn dials(&mut self) -> Vec<Place> {
        let of = |act| if let Act::Dial(place) = act { place } else { panic!("{act:?}") };
        self.acts().into_iter().map(of).collect()
    }

    #[track_caller]
    fn dialed(&mut self, place: Place) {
        assert!(self.book.dialed(place, self.now, &mut self.rng));
    }

    fn fail(&mut self, place: Place) -> bool {
        let error = Arc::new(Error::new(Dial::Refused));
        self.book.dial_failed(place, self.now, error, &mut self.rng)
    }

    #[track_caller]
    fn claim(&mut self, ticket: Ticket) -> Place {
        let Claim::Place(place) = self.book.claim(ticket, self.now) else { panic!("no place") };
        place
    }

    fn waits(&mut self, ticket: Ticket) -> bool {
        matches!(self.book.claim(ticket, self.now), Claim::Wait)
    }

    #[track_caller]
    fn checkin(&mut self, place: Place) {
        assert!(self.book.checkin(place, self.now, Return::Clean));
    }

    /// So many connections in use.
    #[track_caller]
    fn out(&mut self, count: usize) -> Vec<Place> {
        let tickets: Vec<_> = (0..count).map(|_| self.wait()).collect();
        for place in self.dials() {
            self.dialed(place);
        }
        assert_eq!(self.acts().len(), count, "each is woken");
        tickets.into_iter().map(|ticket| self.claim(ticket)).collect()
    }

    /// So many idle ones, the last of which is taken first.
    #[track_caller]
    fn idle(&mut self, count: usize) -> Vec<Place> {
        let places = self.out(count);
        for place in &places {
            self.checkin(*place);
        }
        places
    }

    fn pass(&mut self, span: Duration) -> Vec<Act> {
        self.now += span;
        self.book.maintain(self.now);
        self.acts()
    }
}

fn up_to(max: u32) -> Mode {
    Mode::Dynamic { min_idle: 0, max }
}

// ---------------------------------------------------------------------------- every state, every call

const CALLS: [&str; 6] = ["dialed", "dial_failed", "validated", "checkin", "ended", "closed"];

/// Puts a place into a state.
type Make<'a> = &'a dyn Fn(&mut Room) -> Place;

/// A place in each state, also in those of which the room has not been told yet.
fn states() -> Vec<(&'static str, Room, Place)> {
    let limits = PoolLimits {
        hung_after: Duration::ZERO,
        idle_timeout: None,
        keep_alive: Some(SECOND * 60),
        ..PoolLimits::of(up_to(1))
    };
    let with = |make: Make<'_>| {
        let mut room = Room::new(limits);
        let place = make(&mut room);
        (room, place)
    };
    let dial = |room: &mut Room| {
        let ticket = room.wait();
        (ticket, room.dials()[0])
    };
    let idle = |room: &mut Room| room.idle(1)[0];
    let made: [(&str, Make<'_>); 11] = [
        ("dialing", &|room| dial(room).1),
        ("cancelled", &|room| {
            let (ticket, place) = dial(room);
            assert!(room.book.leave(ticket, room.now));
            assert_eq!(room.acts(), [Act::CancelDial(place)]);
            place
        }),
        ("idle", &idle),
        ("granted", &|room| {
            let (_, place) = dial(room);
            room.dialed(place);
            place
        }),
        ("out", &|room| room.out(1)[0]),
        ("leaked", &|room| {
            let place = room.out(1)[0];
            assert!(matches!(room.pass(SECOND * 60)[..], [Act::Leaked { .. }]));
            place
        }),
        ("validating", &|room| {
            let place = idle(room);
            room.now += SECOND * 30;
            room.wait();
            assert_eq!(room.acts(), [Act::Validate(place)]);
            place
        }),
        ("to ping", &|room| {
            let place = idle(room);
            room.now += SECOND * 60;
            room.book.maintain(room.now);
            place
        }),
        ("to close", &|room| {
            let place = room.out(1)[0];
            assert!(room.book.checkin(place, room.now, Return::Discard));
            place
        }),
        ("closing", &|room| {
            let place = idle(room);
            assert!(room.book.ended(place, room.now));
            assert_eq!(room.acts(), [Act::Close(place, Cause::Ended)]);
            place
        }),
        ("free", &|room| {
            let place = idle(room);
            assert!(room.book.ended(place, room.now) && room.book.closed(place, room.now));
            place
        }),
    ];
    let make = |(name, make)| {
        let (room, place) = with(make);
        (name, room, place)
    };
    made.into_iter().map(make).collect()
}

fn call(room: &mut Room, what: &str, place: Place) -> bool {
    match what {
        "dialed" => room.book.dialed(place, room.now, &mut room.rng),
        "dial_failed" => room.fail(place),
        "validated" => room.book.validated(place, true, room.now),
        "checkin" => room.book.checkin(place, room.now, Return::Clean),
        "ended" => room.book.ended(place, room.now),
        "closed" => room.book.closed(place, room.now),
        _ => unreachable!("no such call"),
    }
}

/// What each leads to; `-`: nothing, and the call says so. `granted` is in use before it is claimed.
#[test]
fn every_state_takes_every_call() {
    let table = "
        state       dialed  dial_failed validated checkin ended   closed
        dialing     out     free        -         -       -       -
        cancelled   -       free        -         -       closing free
        idle        -       -           -         -       closing -
        granted     -       -           -         -       closing -
        out         -       -           -         idle    out     -
        leaked      -       -           -         idle    out     -
        validating  -       -           out       -       closing -
        to_ping     -       -           -         -       closing -
        to_close    -       -           -         -       closing free
        closing     -       -           -         -       closing free
        free        -       -           -         -       -       -";
    let mut rows = table.lines().skip(2).map(|row| row.split_whitespace().collect::<Vec<_>>());
    for (name, ..) in states() {
        let row = rows.next().expect("a row for each state");
        assert_eq!(row[0], name.replace(' ', "_"));
        for (column, what) in CALLS.iter().enumerate() {
            let (_, mut room, place) = states().into_iter().find(|it| it.0 == name).expect("made");
            let (before, stale) = (room.book.snapshot(room.now), room.book.counters().stale);
            let is_taken = call(&mut room, what, place);
            let cell = row[column + 1];
            assert_eq!(is_taken, cell != "-", "{name}, {what}");
            assert_eq!(room.book.counters().stale, stale + u64::from(!is_taken), "{name}, {what}");
            if !is_taken {
                assert_eq!(room.book.snapshot(room.now), before, "{name}, {what}");
                continue;
            }
            let state = match room.book.state(place) {
                None => "free",
                Some(State::Idle) => "idle",
                Some(State::CheckedOut) => "out",
                Some(State::Closing) => "closing",
                Some(state) => panic!("{name}, {what}: {state:?}"),
            };
            assert_eq!(state, cell, "{name}, {what}");
            assert_eq!(room.book.census(room.now), room.book.snapshot(room.now));
        }
    }
    assert!(rows.next().is_none());
}

#[test]
fn numbers_of_before_change_nothing() {
    let mut room = Room::of(up_to(2));
    let place = room.idle(1)[0];
    assert!(room.book.ended(place, room.now) && room.book.closed(place, room.now));
    let again = room.out(1)[0];
    assert!(again.index == place.index && again != place, "the same index, another generation");
    let before = room.book.snapshot(room.now);
    for what in CALLS {
        assert!(!call(&mut room, what, place), "{what}");
        assert!(!call(&mut room, what, Place { index: 77, generation: 0 }), "{what}");
    }
    assert_eq!(room.book.state(place), None);
    let ticket = room.wait();
    assert!(room.book.leave(ticket, room.now) && !room.book.leave(ticket, room.now));
    assert!(matches!(room.book.claim(ticket, room.now), Claim::Stale));
    assert!(matches!(room.book.expire(ticket, room.now), Claim::Stale));
    assert_eq!(room.book.snapshot(room.now), before);
}

// ---------------------------------------------------------------------------- who gets what

#[test]
fn the_one_used_last_is_taken_first() {
    let mut room = Room::of(up_to(3));
    let places = room.idle(3);
    assert_eq!([room.hit(), room.hit(), room.hit()], [places[2], places[1], places[0]]);
    assert_eq!((room.book.counters().hits, room.book.counters().dials), (3, 3));
}

#[test]
fn who_comes_later_waits_behind_also_if_one_just_came_free() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let (first, second) = (room.wait(), room.wait());
    room.checkin(place);
    let third = room.wait();
    assert_eq!(room.acts(), [Act::Wake(first)]);
    for ticket in [first, second, third] {
        assert_eq!(room.claim(ticket), place);
        room.checkin(place);
    }
    assert_eq!(room.hit(), place);
}

/// What made it wait (the idle one is to be looked at) is over, and it was not served yet.
#[test]
fn who_comes_later_waits_behind_also_if_limits_have_just_changed() {
    let mut room = Room::of(up_to(2));
    let places = room.idle(2);
    room.now += SECOND * 30;
    let first = room.wait();
    assert_eq!(room.acts(), [Act::Validate(places[1])]);
    let limits = PoolLimits { validate_after: None, ..PoolLimits::of(up_to(2)) };
    room.book.set_limits(limits, room.now).expect("sound");
    let second = room.wait();
    assert_eq!(room.acts(), [Act::Wake(first)]);
    assert_eq!(room.claim(first), places[0]);
    assert!(room.waits(second));
    assert!(room.book.validated(places[1], true, room.now));
    assert_eq!(room.claim(second), places[1]);
}

#[test]
fn a_dial_is_the_pools_and_goes_to_who_came_first() {
    let mut room = Room::of(up_to(4));
    let (first, second) = (room.wait(), room.wait());
    let dials = room.dials();
    assert!(room.book.leave(first, room.now), "its dial goes on");
    assert_eq!(room.acts(), []);
    room.dialed(dials[1]);
    assert_eq!(room.acts(), [Act::Wake(second)]);
    assert_eq!(room.claim(second), dials[1]);
    room.dialed(dials[0]);
    assert_eq!(room.hit(), dials[0], "dialed for nobody, and kept");
}

/// Callers that give up a little sooner than a dial takes. If each took its dial along, nobody would ever be served.
#[test]
fn impatient_callers_do_not_cancel_each_others_dials() {
    let mut room = Room::of(up_to(10));
    let mut dials = Vec::new();
    for _ in 0..3 {
        let ticket = room.wait();
        dials.extend(room.dials());
        room.now += ms(50);
        assert!(matches!(room.book.expire(ticket, room.now), Claim::TimedOut { .. }));
        assert_eq!(room.acts(), []);
    }
    assert_eq!(dials.len(), 1, "who comes next waits for the same one");
    room.dialed(dials[0]);
    assert_eq!(room.hit(), dials[0]);
}

#[test]
fn a_hung_dial_is_cancelled_when_nobody_needs_it() {
    let mut room = Room::of(up_to(10));
    let (first, second) = (room.wait(), room.wait());
    let dials = room.dials();
    room.now += SECOND;
    assert_eq!(room.acts(), [], "both are needed");
    assert!(room.book.leave(second, room.now));
    assert_eq!(room.acts(), [Act::CancelDial(dials[0])], "the one that hangs for longest");
    assert!(room.waits(first));
    assert!(room.book.leave(first, room.now));
    assert_eq!(room.acts(), [Act::CancelDial(dials[1])]);
    assert!(!room.book.dialed(dials[0], room.now, &mut room.rng), "established after all: closed");
    assert!(room.book.closed(dials[0], room.now) && room.fail(dials[1]));
    assert_eq!(room.acts(), [Act::Release, Act::Release]);
    assert!(room.book.last_dial_error().is_none(), "a cancelled dial says nothing of the endpoint");
    assert_eq!(room.book.counters().dials_cancelled, 2);
}

#[test]
fn a_young_dial_that_nobody_needs_is_cancelled_once_it_hangs() {
    let mut room = Room::of(up_to(10));
    let ticket = room.wait();
    let dial = room.dials()[0];
    assert!(room.book.leave(ticket, room.now));
    assert_eq!(room.acts(), []);
    assert_eq!(room.book.next_maintenance(), Some(SECOND));
    assert_eq!(room.pass(SECOND), [Act::CancelDial(dial)]);
}

#[test]
fn no_more_dials_than_may_be_nor_than_are_needed() {
    let limits = PoolLimits { dials_max: 2, ..PoolLimits::of(up_to(4)) };
    let mut room = Room::new(limits);
    let tickets: Vec<_> = (0..5).map(|_| room.wait()).collect();
    let dials = room.dials();
    assert_eq!((dials.len(), room.book.lacks()), (2, 0));
    room.dialed(dials[0]);
    let acts = room.acts();
    assert!(matches!(acts[..], [Act::Wake(_), Act::Dial(_)]), "{acts:?}");
    assert!(room.book.leave(tickets[4], room.now) && room.book.leave(tickets[3], room.now));
    room.dialed(dials[1]);
    assert_eq!(room.acts(), [Act::Wake(tickets[1])], "one waits, and one dial is under way");
}

#[test]
fn without_a_token_nobody_dials_and_the_token_of_a_closed_one_is_not_shown_around() {
    let mut room = Room::of(up_to(4));
    let place = room.out(1)[0];
    let ticket = room.wait();
    assert_eq!(room.book.poll_act(room.now, || false), None);
    assert_eq!((room.book.lacks(), room.book.held()), (1, 1));
    assert!(room.book.checkin(place, room.now, Return::Unclean));
    assert_eq!(room.book.poll_act(room.now, || false), Some(Act::Close(place, Cause::Unclean)));
    assert_eq!(room.book.poll_act(room.now, || false), None);
    assert!(room.book.closed(place, room.now));
    let act = room.book.poll_act(room.now, || panic!("it has one"));
    let Some(Act::Dial(dial)) = act else { panic!("{act:?}") };
    room.dialed(dial);
    assert_eq!(room.book.poll_act(room.now, || panic!("it needs none")), Some(Act::Wake(ticket)));
    assert_eq!(room.book.poll_act(room.now, || panic!("it needs none")), None);
}

#[test]
fn a_pool_is_saturated_when_as_many_wait_as_may() {
    let mut room = Room::new(PoolLimits { waiters_max: 2, ..PoolLimits::of(up_to(1)) });
    room.out(1);
    room.now += SECOND;
    let first = room.wait();
    room.wait();
    room.now += SECOND;
    let Checkout::Saturated(snapshot) = room.checkout() else { panic!("a third one waits") };
    assert_eq!((snapshot.waiting, snapshot.checked_out, snapshot.max), (2, 1, 1));
    assert_eq!((snapshot.oldest_waiter, snapshot.oldest_checkout), (SECOND, SECOND * 2));
    assert!(snapshot.oldest_checkout_at.is_some_and(|at| at.file().ends_with("tests.rs")));
    assert!(room.book.leave(first, room.now));
    room.wait();
}

// ---------------------------------------------------------------------------- dials that fail

#[test]
fn a_failed_dial_fails_who_has_no_hope_left_and_others_have_their_own() {
    let mut room = Room::new(PoolLimits { dials_max: 1, ..PoolLimits::of(up_to(4)) });
    let (first, second) = (room.wait(), room.wait());
    let dial = room.dials()[0];
    assert!(room.fail(dial));
    let acts = room.acts();
    let [Act::Wake(woken), Act::Dial(next)] = acts[..] else { panic!("{acts:?}") };
    assert_eq!(woken, first);
    let Claim::Failed(error) = room.book.claim(first, room.now) else { panic!("not failed") };
    assert_eq!(error.label(), "refused");
    assert!(room.waits(second), "a dial of its own is under way");
    let Claim::TimedOut { snapshot, last_dial_error } = room.book.expire(second, room.now) else {
        panic!("time is up")
    };
    assert_eq!((snapshot.waiting, snapshot.dialing), (1, 1));
    assert!(last_dial_error.is_some_and(|last| Arc::ptr_eq(&last, &error)));
    room.dialed(next);
    assert!(room.book.last_dial_error().is_none(), "forgotten, as one went well");
}

#[test]
fn a_failed_dial_fails_nobody_who_has_another_hope() {
    let mut room = Room::of(up_to(4));
    let (first, second) = (room.wait(), room.wait());
    let dials = room.dials();
    assert!(room.book.leave(first, room.now));
    assert!(room.fail(dials[1]));
    assert!(room.waits(second), "the other dial is for it");
    assert!(room.fail(dials[0]));
    assert!(matches!(room.book.claim(second, room.now), Claim::Failed(_)));
}

#[test]
fn refills_pause_after_failures_and_callers_do_not() {
    let mut room = Room::of(Mode::Dynamic { min_idle: 1, max: 4 });
    let mut dial = room.dials()[0];
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        assert!(room.fail(dial));
        assert_eq!(room.acts(), [Act::Release]);
        let due = room.book.next_maintenance().expect("a refill is due");
        assert!(due - room.now <= SECOND * 5);
        waited += due - room.now;
        room.now = due - ms(1).min(due - room.now);
        if room.now < due {
            assert_eq!(room.acts(), []);
        }
        room.now = due;
        let dials = room.dials();
        assert_eq!(dials.len(), 1);
        dial = dials[0];
    }
    assert!(waited > SECOND * 15, "{waited:?}");
    assert!(room.fail(dial));
    assert_eq!(room.acts(), [Act::Release]);
    room.wait();
    dial = room.dials()[0];
    room.dialed(dial);
    let acts = room.acts();
    assert!(
        matches!(acts[..], [Act::Wake(_), Act::Dial(_)]),
        "well again: refilled at once, {acts:?}"
    );
}

#[test]
fn a_refill_without_a_token_asks_again_later() {
    let mut room = Room::of(Mode::Dynamic { min_idle: 2, max: 4 });
    assert_eq!(room.book.poll_act(room.now, || false), None);
    assert_eq!(room.book.poll_act(room.now, || panic!("asked at once again")), None);
    assert_eq!(room.book.next_maintenance(), Some(SECOND * 5));
    room.now += SECOND * 5;
    assert_eq!(room.dials().len(), 2);
    assert_eq!(room.book.counters().refills, 2);
}

// ---------------------------------------------------------------------------- callers that go

#[test]
fn what_a_caller_did_not_come_for_goes_to_the_next_or_rests() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let (first, second) = (room.wait(), room.wait());
    room.checkin(place);
    assert!(room.book.leave(first, room.now), "granted, not woken");
    assert_eq!(room.acts(), [Act::Wake(second)]);
    assert!(room.book.leave(second, room.now), "granted and woken");
    assert_eq!(room.book.state(place), Some(State::Idle));
    assert_eq!(room.hit(), place);
    assert!(!room.book.checkin(Place { index: 1, ..place }, room.now, Return::Clean));
}

#[test]
fn what_was_granted_just_in_time_is_taken() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let ticket = room.wait();
    room.checkin(place);
    assert!(matches!(room.book.expire(ticket, room.now), Claim::Place(it) if it == place));
    assert_eq!((room.book.counters().timeouts, room.book.counters().claimed), (0, 2));
}

#[test]
fn a_grant_that_ended_is_taken_back_and_who_had_it_waits_where_it_stood() {
    let mut room = Room::of(up_to(2));
    let places = room.out(2);
    let tickets: Vec<_> = (0..4).map(|_| room.wait()).collect();
    room.checkin(places[0]);
    room.checkin(places[1]);
    assert_eq!(room.acts(), [Act::Wake(tickets[0]), Act::Wake(tickets[1])]);
    // In the other order than they came.
    assert!(room.book.ended(places[0], room.now) && room.book.ended(places[1], room.now));
    assert!(room.waits(tickets[0]) && room.waits(tickets[1]));
    assert_eq!(room.acts().len(), 2, "both are closed");
    assert!(room.book.closed(places[0], room.now) && room.book.closed(places[1], room.now));
    for dial in room.dials() {
        room.dialed(dial);
    }
    assert_eq!(room.acts(), [Act::Wake(tickets[0]), Act::Wake(tickets[1])]);
    assert!(room.waits(tickets[2]) && room.waits(tickets[3]));
}

// ---------------------------------------------------------------------------- connections that end

#[test]
fn one_that_ended_is_never_given_out() {
    let mut room = Room::of(up_to(3));
    let places = room.idle(3);
    assert!(room.book.ended(places[2], room.now));
    assert_eq!(room.acts(), [Act::Close(places[2], Cause::Ended)]);
    let taken = room.hit();
    assert_eq!(taken, places[1]);
    assert!(room.book.ended(taken, room.now), "while it is in use");
    assert_eq!((room.acts(), room.book.state(taken)), (vec![], Some(State::CheckedOut)));
    room.checkin(taken);
    assert_eq!(room.acts(), [Act::Close(taken, Cause::Ended)]);
    assert_eq!(room.hit(), places[0]);
    assert_eq!(room.book.counters().closed(Cause::Ended), 2);
}

#[test]
fn one_in_use_is_not_ended_by_its_lifetime_but_closed_when_it_comes_back() {
    let mut room = Room::new(PoolLimits { leak_after: None, ..PoolLimits::of(up_to(3)) });
    let place = room.out(1)[0];
    assert_eq!(room.pass(SECOND * 1800), []);
    room.wait();
    let dial = room.dials()[0];
    room.checkin(place);
    assert_eq!(room.acts(), [Act::Close(place, Cause::Lifetime)], "also if somebody waits");
    room.dialed(dial);
    assert_eq!(room.acts().len(), 1);
}

#[test]
fn one_that_is_too_old_is_not_given_out_before_it_is_looked_for_either() {
    let mut room = Room::new(PoolLimits { idle_timeout: None, ..PoolLimits::of(up_to(3)) });
    let places = room.idle(2);
    room.now += SECOND * 1800;
    room.wait();
    let acts = room.acts();
    let closes = places.iter().rev().map(|place| Act::Close(*place, Cause::Lifetime));
    assert_eq!(acts[..2], closes.collect::<Vec<_>>());
    assert!(matches!(acts[2..], [Act::Dial(_)]), "{acts:?}");
}

#[test]
fn lifetimes_are_drawn_from_the_last_quarter() {
    let limits = PoolLimits { idle_timeout: None, ..PoolLimits::of(up_to(1000)) };
    let mut room = Room::new(PoolLimits { dials_max: 1000, ..limits });
    room.idle(1000);
    let mut ends = Vec::new();
    while room.book.held() > 0 {
        let due = room.book.next_maintenance().expect("all end");
        for act in room.pass(due - room.now) {
            let Act::Close(place, Cause::Lifetime) = act else { panic!("{act:?}") };
            assert!(room.book.closed(place, room.now));
            ends.push(room.now);
        }
        room.acts();
    }
    let (first, last) = (ends[0], ends[999]);
    assert!(first >= SECOND * 1350 && first < SECOND * 1353, "{first:?}");
    assert!(last <= SECOND * 1800 && last > SECOND * 1797, "{last:?}");
}

#[test]
fn those_idle_for_long_close_from_the_oldest_down_to_what_is_kept() {
    let mode = Mode::Dynamic { min_idle: 2, max: 4 };
    let mut room = Room::new(PoolLimits { keep_alive: None, ..PoolLimits::of(mode) });
    for dial in room.dials() {
        room.dialed(dial);
    }
    // Two in use, so two more are dialed.
    let mut places = vec![room.hit(), room.hit()];
    for dial in room.dials() {
        room.dialed(dial);
        places.push(dial);
    }
    for place in &places[..2] {
        room.now += SECOND;
        room.checkin(*place);
    }
    assert_eq!(room.pass(SECOND * 597), []);
    let closed = [places[2], places[3]].map(|place| Act::Close(place, Cause::IdleTimeout));
    assert_eq!(room.pass(SECOND), closed, "those used last are kept");
    assert_eq!(room.pass(SECOND * 60), [], "they stay");
}

// ---------------------------------------------------------------------------- looks and pings

#[test]
fn one_idle_for_long_is_looked_at_before_it_is_given_out() {
    let mut room = Room::of(up_to(3));
    let places = room.idle(2);
    room.now += ms(29_999);
    assert_eq!(room.hit(), places[1]);
    room.checkin(places[1]);
    assert_eq!(room.hit(), places[1]);
    room.now += ms(1);
    let (first, second) = (room.wait(), room.wait());
    let acts = room.acts();
    assert!(matches!(acts[..], [Act::Validate(it), Act::Dial(_)] if it == places[0]), "{acts:?}");
    let Act::Dial(dial) = acts[1] else { panic!("a dial for the second") };
    assert!(room.book.validated(places[0], true, room.now));
    assert_eq!(room.claim(first), places[0]);
    room.acts();
    room.dialed(dial);
    assert_eq!(room.claim(second), dial);
}

#[test]
fn one_that_does_not_pass_is_closed_and_a_dial_takes_its_part() {
    let mut room = Room::of(up_to(2));
    let places = room.idle(2);
    room.now += SECOND * 30;
    let ticket = room.wait();
    assert_eq!(room.acts(), [Act::Validate(places[1])]);
    assert!(room.book.validated(places[1], false, room.now));
    let acts = room.acts();
    assert_eq!(acts, [Act::Validate(places[0]), Act::Close(places[1], Cause::Invalid)]);
    assert!(room.book.validated(places[0], false, room.now));
    assert_eq!(room.acts(), [Act::Close(places[0], Cause::Invalid)], "no room yet");
    assert!(room.book.closed(places[0], room.now));
    let dials = room.dials();
    assert_eq!(dials.len(), 1);
    room.dialed(dials[0]);
    assert_eq!(room.claim(ticket), dials[0]);
}

/// A dial that is left over may hang, and a look is quick.
#[test]
fn a_dial_under_way_keeps_nobody_from_an_idle_one() {
    let mut room = Room::new(PoolLimits { hung_after: SECOND * 60, ..PoolLimits::of(up_to(3)) });
    let place = room.out(1)[0];
    let gone = room.wait();
    let dial = room.dials()[0];
    room.checkin(place);
    assert!(room.book.leave(gone, room.now));
    assert_eq!(room.acts(), []);
    room.now += SECOND * 30;
    room.wait();
    assert_eq!(room.acts(), [Act::Validate(place)]);
    assert_eq!(room.book.state(dial), Some(State::Dialing));
}

#[test]
fn zero_looks_at_all_that_is_idle_and_never_at_none() {
    let mut room =
        Room::new(PoolLimits { validate_after: Some(Duration::ZERO), ..PoolLimits::of(up_to(1)) });
    let place = room.idle(1)[0];
    let ticket = room.wait();
    assert_eq!(room.acts(), [Act::Validate(place)]);
    assert!(room.book.validated(place, true, room.now));
    assert_eq!(room.claim(ticket), place, "not looked at once more");

    let limits =
        PoolLimits { validate_after: None, idle_timeout: None, ..PoolLimits::of(up_to(1)) };
    let mut room = Room::new(limits);
    let place = room.idle(1)[0];
    room.now += SECOND * 1200;
    assert_eq!(room.hit(), place);
}

#[test]
fn pings_keep_the_order_in_which_connections_were_used() {
    let mut room = Room::of(Mode::Fixed(3));
    for dial in room.dials() {
        room.dialed(dial);
    }
    let places = [room.hit(), room.hit(), room.hit()];
    for place in places {
        room.checkin(place);
        room.now += SECOND * 5;
    }
    let mut pinged = Vec::new();
    for _ in 0..150 {
        for act in room.pass(SECOND) {
            let Act::Ping(place) = act else { panic!("{act:?}") };
            pinged.push(place);
            assert_eq!(room.book.state(place), Some(State::Validating));
        }
        // They answer out of order, and late.
        if pinged.len().is_multiple_of(2) || room.now > SECOND * 130 {
            for place in pinged.drain(..).rev() {
                assert!(room.book.validated(place, true, room.now));
            }
        }
    }
    assert!(room.book.counters().pings >= 3, "{:?}", room.book.counters());
    room.book.limits.validate_after = None;
    assert_eq!([room.hit(), room.hit(), room.hit()], [places[2], places[1], places[0]]);
}

#[test]
fn pings_are_drawn_from_the_last_fifth() {
    let mut room = Room::new(PoolLimits { dials_max: 500, ..PoolLimits::of(Mode::Fixed(500)) });
    for dial in room.dials() {
        room.dialed(dial);
    }
    let (mut first, mut last, mut count) = (Duration::MAX, Duration::ZERO, 0);
    while count < 500 {
        let due = room.book.next_maintenance().expect("all are pinged");
        for act in room.pass(due - room.now) {
            assert!(matches!(act, Act::Ping(_)));
            (first, last, count) = (first.min(room.now), last.max(room.now), count + 1);
        }
    }
    assert!(first >= SECOND * 96 && first < SECOND * 97, "{first:?}");
    assert!(last <= SECOND * 120 && last > SECOND * 119, "{last:?}");
}

// ---------------------------------------------------------------------------- the owner

#[test]
fn a_leak_is_warned_of_once_for_each_checkout() {
    let mut room = Room::of(up_to(2));
    let places = room.out(2);
    let at = room.book.snapshot(room.now).oldest_checkout_at;
    room.now += SECOND * 30;
    room.checkin(places[1]);
    room.now += SECOND;
    assert_eq!(room.hit(), places[1]);
    assert_eq!(room.pass(SECOND * 28), []);
    let acts = room.pass(SECOND);
    let [Act::Leaked { place, held, at: taken_at }] = acts[..] else { panic!("{acts:?}") };
    assert_eq!((place, held, Some(taken_at)), (places[0], SECOND * 60, at));
    assert_eq!(room.pass(SECOND * 30), [], "once");
    assert!(matches!(room.pass(SECOND)[..], [Act::Leaked { place, .. }] if place == places[1]));
    assert_eq!(
        room.book.snapshot(room.now).oldest_checkout,
        SECOND * 91,
        "the first is the oldest"
    );
    room.checkin(places[0]);
    assert_eq!(room.hit(), places[0]);
    assert!(matches!(room.pass(SECOND * 60)[..], [Act::Leaked { .. }]), "another checkout");
    assert_eq!(room.book.counters().leaks, 3);
}

#[test]
fn the_one_idle_for_longest_is_given_up_and_not_dialed_again_at_once() {
    let mut room = Room::of(Mode::Dynamic { min_idle: 2, max: 3 });
    let dials = room.dials();
    for dial in &dials {
        room.now += SECOND;
        room.dialed(*dial);
    }
    assert!(room.book.give_up_idle(room.now));
    assert_eq!(room.acts(), [Act::Close(dials[0], Cause::GivenUp)]);
    assert!(room.book.closed(dials[0], room.now));
    assert_eq!(room.acts(), [Act::Release], "the token is for the other reactor");
    assert_eq!(room.pass(SECOND * 4), []);
    assert_eq!(room.pass(SECOND).len(), 1, "after a while it is dialed again");
    let mut room = Room::of(up_to(1));
    room.out(1);
    room.wait();
    assert!(!room.book.give_up_idle(room.now), "nothing is idle, and somebody waits");
}

#[test]
fn a_smaller_pool_closes_what_is_idle_then_dials_then_what_comes_back() {
    let mut room = Room::of(up_to(6));
    let places = room.idle(4);
    let _ = [room.hit(), room.hit()];
    room.book.set_limits(PoolLimits::of(up_to(3)), room.now).expect("sound");
    assert_eq!(room.acts(), [Act::Close(places[0], Cause::Shrunk)], "the one idle for longest");
    let mut room = Room::of(up_to(6));
    let places = room.out(2);
    let tickets = [room.wait(), room.wait()];
    let dials = room.dials();
    room.book.set_limits(PoolLimits::of(up_to(1)), room.now).expect("sound");
    assert_eq!(room.acts(), [Act::CancelDial(dials[1]), Act::CancelDial(dials[0])]);
    room.checkin(places[0]);
    assert_eq!(room.acts(), [Act::Close(places[0], Cause::Shrunk)], "also if somebody waits");
    room.checkin(places[1]);
    assert_eq!(room.claim(tickets[0]), places[1], "there may be one");
    let unsound = PoolLimits { dials_max: 0, ..PoolLimits::default() };
    assert_eq!(room.book.set_limits(unsound, room.now), Err(PoolLimitsError::NoDials));
    assert_eq!(room.book.limits(), &PoolLimits::of(up_to(1)));
}

#[test]
fn a_larger_pool_dials_for_who_waits() {
    let mut room = Room::of(up_to(1));
    room.out(1);
    let _ = [room.wait(), room.wait()];
    assert_eq!(room.acts(), []);
    room.book.set_limits(PoolLimits::of(up_to(2)), room.now).expect("sound");
    assert_eq!(room.dials().len(), 1);
}

#[test]
fn a_drain_gives_nothing_out_and_ends_with_nothing() {
    let mut room = Room::of(up_to(4));
    let out = room.out(3);
    room.wait();
    assert_eq!(room.dials().len(), 1);
    room.checkin(out[2]);
    let [Act::Wake(ticket)] = room.acts()[..] else { panic!("who waited is served") };
    assert!(room.book.leave(ticket, room.now));
    let out = [out[0], out[1]];
    room.book.drain(room.now);
    assert!(matches!(room.checkout(), Checkout::Draining));
    let closing: Vec<_> = room
        .acts()
        .into_iter()
        .map(|act| match act {
            Act::Close(place, Cause::Drained) | Act::CancelDial(place) => place,
            act => panic!("{act:?}"),
        })
        .collect();
    assert_eq!(closing.len(), 2);
    for place in out {
        room.checkin(place);
        assert_eq!(room.acts(), [Act::Close(place, Cause::Drained)]);
        assert!(room.book.closed(place, room.now) && !room.book.is_drained());
        assert_eq!(room.acts(), [Act::Release]);
    }
    for place in closing {
        assert!(room.book.closed(place, room.now));
    }
    assert!(room.book.is_drained() && room.book.is_draining());
    assert_eq!(room.acts(), [Act::Release; 2]);
}

#[test]
fn who_waits_as_a_drain_begins_is_told_and_what_was_given_is_kept() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let (first, second) = (room.wait(), room.wait());
    room.checkin(place);
    room.book.drain(room.now);
    assert_eq!(room.acts(), [Act::Wake(first), Act::Wake(second)]);
    assert_eq!(room.claim(first), place);
    assert!(matches!(room.book.claim(second, room.now), Claim::Draining));
}

/// Such times do not come, but nothing may break on them.
#[test]
fn no_time_breaks_it() {
    let forever = PoolLimits {
        checkout_timeout: Some(Duration::MAX),
        idle_timeout: Some(Duration::MAX - SECOND),
        max_lifetime: Some(Duration::MAX),
        keep_alive: None,
        validate_after: Some(Duration::MAX),
        leak_after: Some(Duration::MAX),
        hung_after: Duration::MAX,
        refill: Backoff { most: Duration::MAX, ..Backoff::refill() },
        ..PoolLimits::of(Mode::Dynamic { min_idle: 1, max: 3 })
    };
    for limits in [forever, PoolLimits::of(Mode::Fixed(2))] {
        let mut room = Room::new(limits);
        for now in [SECOND, Duration::MAX - SECOND, Duration::MAX, Duration::ZERO, Duration::MAX] {
            room.now = now;
            let _ = room.checkout();
            for act in room.pass(Duration::ZERO) {
                match act {
                    Act::Dial(place) if place.index == 1 => drop(room.fail(place)),
                    Act::Dial(place) => room.dialed(place),
                    Act::Close(place, _) | Act::CancelDial(place) => {
                        assert!(room.book.closed(place, now));
                    }
                    Act::Ping(place) | Act::Validate(place) => {
                        assert!(room.book.validated(place, true, now));
                    }
                    _ => {}
                }
            }
            let _ = (room.book.next_maintenance(), room.book.snapshot(now));
            assert_eq!(room.book.census(now), room.book.snapshot(now));
        }
    }
}

#[test]
fn time_that_goes_back_is_the_latest_seen() {
    let mut room = Room::of(up_to(1));
    let place = room.idle(1)[0];
    room.now = SECOND * 29;
    assert_eq!(room.pass(Duration::ZERO), []);
    room.now = SECOND * 10;
    assert_eq!(room.hit(), place);
    assert_eq!(room.book.snapshot(SECOND * 30).oldest_checkout, SECOND, "taken at 29 s");
    assert_eq!(room.book.snapshot(Duration::ZERO).oldest_checkout, Duration::ZERO);
}

/// An upstream lets in eight, the pool wants ten: who waits gets what comes back, and no error.
#[test]
fn a_dial_that_fails_beside_connections_in_use_fails_nobody_and_is_not_made_again_at_once() {
    let mut room = Room::of(up_to(2));
    let first = room.out(1)[0];
    let waiter = room.wait();
    let dial = room.dials()[0];
    assert!(room.fail(dial));
    assert_eq!(room.acts(), [Act::Release], "neither an error nor another dial");
    assert!(room.waits(waiter) && room.book.lacks() == 0);
    // The pause is over: another try, though nobody has called.
    let due = room.book.next_maintenance().expect("there is a pause");
    assert!(due > room.now && due <= room.now + ms(100), "{due:?}");
    room.now = due;
    let dial = room.dials()[0];
    // It fails again, and then the one in use ends: there is nothing to hope for but a dial, and the next that fails
    // is told to who waits.
    assert!(room.fail(dial));
    assert_eq!(room.acts(), [Act::Release]);
    assert!(room.book.checkin(first, room.now, Return::Discard));
    let acts = room.acts();
    let [Act::Close(..), Act::Dial(dial)] = acts[..] else { panic!("{acts:?}") };
    assert!(room.fail(dial));
    assert!(room.acts().contains(&Act::Wake(waiter)));
    assert!(matches!(room.book.claim(waiter, room.now), Claim::Failed(_)));
}
