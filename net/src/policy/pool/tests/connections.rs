//! Connections that end, that are old, that are looked at.

use super::*;

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
