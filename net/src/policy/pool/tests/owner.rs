//! What the owner sees and does: leaks, other limits, a drain, and time.

use super::*;

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

/// It is the other reactor that needs the token, so it does not become that of a dial here.
#[test]
fn the_token_of_one_given_up_is_released_before_anything_is_dialed() {
    let mut room = Room::of(up_to(1));
    let place = room.idle(1)[0];
    assert!(room.book.give_up_idle(room.now));
    room.wait();
    assert_eq!(room.acts(), [Act::Close(place, Cause::GivenUp)], "no room yet");
    // It ends by itself meanwhile, which changes nothing.
    assert!(room.book.ended(place, room.now) && room.book.closed(place, room.now));
    let act = room.book.poll_act(room.now, || panic!("asked before it gave"));
    assert_eq!(act, Some(Act::Release));
    assert_eq!(room.book.poll_act(room.now, || false), None);
    assert_eq!((room.book.lacks(), room.book.held()), (1, 0));
    assert_eq!(room.dials().len(), 1, "there was another token");
}

/// Three come free together: each has the token that its cause says.
#[test]
fn tokens_that_are_owed_and_tokens_that_are_not_are_counted_apart() {
    let mut room = Room::of(up_to(4));
    let places = room.out(4);
    for (place, as_it_is) in
        places.iter().zip([Return::Yielded, Return::Discard, Return::Yielded, Return::Unclean])
    {
        assert!(room.book.checkin(*place, room.now, as_it_is));
    }
    assert_eq!(room.acts().len(), 4, "closed");
    for place in &places {
        assert!(room.book.closed(*place, room.now));
    }
    let _ = [room.wait(), room.wait(), room.wait()];
    let mut has_asked = 0;
    let acts: Vec<_> = std::iter::from_fn(|| {
        room.book.poll_act(room.now, || {
            has_asked += 1;
            false
        })
    })
    .collect();
    assert!(
        matches!(acts[..], [Act::Release, Act::Release, Act::Dial(_), Act::Dial(_)]),
        "{acts:?}"
    );
    assert_eq!((has_asked, room.book.lacks()), (1, 1), "the third has none");
}

#[test]
fn what_is_yielded_goes_to_the_other_reactor_also_if_callers_wait_here() {
    let mut room = Room::of(up_to(1));
    let place = room.out(1)[0];
    let ticket = room.wait();
    room.now += SECOND;
    assert!(room.book.checkin(place, room.now, Return::Yielded));
    assert_eq!(room.acts(), [Act::Close(place, Cause::GivenUp)]);
    assert!(room.waits(ticket));
    assert!(room.book.closed(place, room.now));
    assert_eq!(room.book.poll_act(room.now, || panic!("asked")), Some(Act::Release));
    assert_eq!(room.book.poll_act(room.now, || false), None, "the other one has it");
    let dial = room.dials()[0];
    room.dialed(dial);
    assert_eq!(room.claim(ticket), dial);
    assert_eq!(room.book.counters().closed(Cause::GivenUp), 1);
}

#[test]
fn what_is_yielded_is_not_dialed_again_at_once_for_nobody() {
    let mut room = Room::of(Mode::Fixed(1));
    let dial = room.dials()[0];
    room.dialed(dial);
    let taken = room.hit();
    assert!(room.book.checkin(taken, room.now, Return::Yielded));
    assert_eq!(room.acts(), [Act::Close(taken, Cause::GivenUp)]);
    assert!(room.book.closed(taken, room.now));
    assert_eq!(room.acts(), [Act::Release]);
    assert_eq!(room.pass(SECOND * 4), []);
    assert!(matches!(room.pass(SECOND)[..], [Act::Dial(_)]));
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
