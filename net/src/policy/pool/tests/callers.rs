//! Who gets what, and callers that go.

use super::*;

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

/// The room looks at what was given before it claims it.
#[test]
fn what_was_granted_is_told_until_it_is_claimed_or_taken_back() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let (first, second) = (room.wait(), room.wait());
    assert_eq!(room.book.granted(first), None, "it waits");
    room.checkin(place);
    assert_eq!((room.book.granted(first), room.book.granted(second)), (Some(place), None));
    assert_eq!(room.acts(), [Act::Wake(first)]);
    assert_eq!(room.book.granted(first), Some(place), "woken or not");
    // It looks, and the connection is dead.
    assert!(room.book.ended(place, room.now));
    assert_eq!(room.book.granted(first), None);
    assert_eq!(room.acts(), [Act::Close(place, Cause::Ended)]);
    assert!(room.book.closed(place, room.now));
    let dial = room.dials()[0];
    room.dialed(dial);
    assert_eq!(room.book.granted(first), Some(dial), "it stood before the second");
    assert_eq!(room.claim(first), dial);
    assert_eq!(room.book.granted(first), None, "such a ticket is no more");
    assert!(room.book.checkin(dial, room.now, Return::Discard));
    assert_eq!(room.acts().len(), 1);
    assert!(room.book.closed(dial, room.now));
    let dial = room.dials()[0];
    assert!(room.fail(dial));
    assert_eq!(room.book.granted(second), None, "an error is no place");
    assert!(matches!(room.book.claim(second, room.now), Claim::Failed(_)));
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
