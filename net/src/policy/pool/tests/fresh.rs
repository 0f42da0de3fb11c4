//! Dials for one caller alone, and those kept beside one that turned out to be dead.

use super::*;

impl Room {
    #[track_caller]
    fn fresh(&mut self) -> Option<Place> {
        self.book.dial_fresh(self.now, Location::caller(), || true)
    }

    fn state(&self, place: Place) -> Option<State> {
        self.book.state(place)
    }
}

#[test]
fn one_dialed_for_one_caller_is_given_to_it_past_those_who_wait() {
    let mut room = Room::new(PoolLimits { dials_max: 1, ..PoolLimits::of(up_to(4)) });
    let place = room.fresh().expect("there is room");
    let line = line!() - 1;
    let ticket = room.wait();
    assert_eq!(room.acts(), [], "as many dials as may be");
    room.now += SECOND;
    room.dialed(place);
    assert_eq!(room.state(place), Some(State::CheckedOut));
    assert!(room.waits(ticket));
    let dial = room.dials()[0];
    assert!(room.fail(dial), "nobody is failed beside one in use");
    room.now += SECOND * 4;
    let snapshot = room.book.snapshot(room.now);
    assert_eq!((snapshot.checked_out, snapshot.oldest_checkout), (1, SECOND * 4));
    assert!(snapshot.oldest_checkout_at.is_some_and(|at| at.line() == line));
    room.checkin(place);
    assert_eq!(room.claim(ticket), place, "then it is as any other");
    let PoolCounters { dials, fresh, refills, hits, waits, claimed, .. } = *room.book.counters();
    assert_eq!((dials, fresh, refills, hits, waits, claimed), (2, 1, 0, 0, 1, 1));
}

#[test]
fn a_leak_of_one_dialed_for_one_caller_is_warned_of_from_its_handing_over_on() {
    let mut room = Room::of(up_to(1));
    let place = room.fresh().expect("there is room");
    room.now += SECOND * 60;
    room.dialed(place);
    assert_eq!(room.pass(SECOND * 59), []);
    assert_eq!(room.book.next_maintenance(), Some(SECOND * 120));
    let acts = room.pass(SECOND);
    assert!(
        matches!(acts[..], [Act::Leaked { place: it, held, at }]
            if it == place && held == SECOND * 60 && at.file().ends_with("fresh.rs")),
        "{acts:?}"
    );
}

#[test]
fn it_has_a_lifetime_as_any_other() {
    let mut room = Room::new(PoolLimits { leak_after: None, ..PoolLimits::of(up_to(1)) });
    let place = room.fresh().expect("there is room");
    room.dialed(place);
    room.now += SECOND * 1800;
    room.checkin(place);
    assert_eq!(room.acts(), [Act::Close(place, Cause::Lifetime)]);
}

#[test]
fn there_is_none_in_a_full_pool_and_what_is_idle_stays() {
    let mut room = Room::of(up_to(2));
    let places = room.idle(2);
    assert_eq!(room.hit(), places[1]);
    assert_eq!(room.book.dial_fresh(room.now, Location::caller(), || panic!("asked")), None);
    assert!(room.book.checkin(places[1], room.now, Return::Discard));
    assert_eq!(room.fresh(), None, "the dead one has its place until it is closed");
    assert_eq!(room.acts(), [Act::Close(places[1], Cause::Discarded)]);
    assert_eq!((room.fresh(), room.state(places[0])), (None, Some(State::Idle)));
    assert!(room.book.closed(places[1], room.now));
    // The place's own token is enough.
    let place = room.book.dial_fresh(room.now, Location::caller(), || panic!("asked"));
    assert!(place.is_some_and(|place| place.index == places[1].index));
    assert_eq!((room.acts(), room.book.held()), (vec![], 2), "the token is taken");
}

#[test]
fn there_is_none_without_a_token_and_what_is_owed_is_none() {
    let mut room = Room::of(Mode::Dynamic { min_idle: 1, max: 2 });
    assert_eq!(room.book.dial_fresh(room.now, Location::caller(), || false), None);
    let dials = room.dials();
    assert_eq!(dials.len(), 1, "nothing was put off by it");
    room.dialed(dials[0]);
    assert!(room.book.give_up_idle(room.now));
    assert_eq!(room.acts().len(), 1);
    assert!(room.book.closed(dials[0], room.now));
    assert_eq!(room.book.dial_fresh(room.now, Location::caller(), || false), None);
    assert_eq!(room.acts(), [Act::Release]);
    assert_eq!(room.book.counters().fresh, 0);
}

#[test]
fn there_is_none_beyond_the_dials_that_may_be_of_both_kinds() {
    let mut room = Room::new(PoolLimits { dials_max: 3, ..PoolLimits::of(up_to(9)) });
    room.wait();
    let dials = room.dials();
    let (first, second) = (room.fresh(), room.fresh());
    assert!(first.is_some() && second.is_some());
    assert_eq!((room.fresh(), room.book.snapshot(room.now).dialing), (None, 3));
    let _ = [room.wait(), room.wait()];
    assert_eq!((room.acts(), room.book.lacks()), (vec![], 0));
    assert!(room.book.leave_fresh(first.expect("dialed"), room.now));
    // The two others lack one dial: no more may be under way.
    let acts = [room.book.poll_act(room.now, || false), room.book.poll_act(room.now, || false)];
    assert!(matches!(acts, [Some(Act::Dial(_)), None]), "{acts:?}");
    room.dialed(dials[0]);
    assert_eq!(
        room.book.poll_act(room.now, || false).map(|act| matches!(act, Act::Wake(_))),
        Some(true)
    );
    assert_eq!(room.book.poll_act(room.now, || false), None);
    assert_eq!(room.book.lacks(), 1);
}

#[test]
fn nobody_else_hopes_for_it() {
    let mut room = Room::of(up_to(4));
    let fresh = room.fresh().expect("there is room");
    let ticket = room.wait();
    let dial = room.dials()[0];
    assert!(room.fail(dial));
    let acts = room.acts();
    assert!(acts.contains(&Act::Wake(ticket)), "{acts:?}");
    assert!(matches!(room.book.claim(ticket, room.now), Claim::Failed(_)));
    assert_eq!(room.state(fresh), Some(State::Dialing));
}

#[test]
fn its_error_is_told_to_nobody_who_waits_and_is_remembered() {
    let mut room = Room::new(PoolLimits { dials_max: 1, ..PoolLimits::of(up_to(4)) });
    let fresh = room.fresh().expect("there is room");
    let ticket = room.wait();
    assert!(room.fail(fresh));
    assert!(room.waits(ticket), "it has no dial yet, and no error");
    assert_eq!(room.state(fresh), None);
    assert!(room.book.last_dial_error().is_some());
    assert_eq!(room.book.counters().dials_failed, 1);
    let dial = room.book.poll_act(room.now, || panic!("there is a token"));
    assert!(matches!(dial, Some(Act::Dial(_))), "{dial:?}");
}

#[test]
fn refills_pause_behind_one_that_fails_and_not_behind_one_that_does_well() {
    let mut room = Room::of(Mode::Fixed(3));
    let [first, second, last] = room.dials()[..] else { panic!("three") };
    assert!(room.fail(first) && room.fail(second) && room.fail(last));
    assert_eq!(room.acts(), [Act::Release; 3]);
    let fresh = room.fresh().expect("callers do not pause");
    room.dialed(fresh);
    assert!(room.book.last_dial_error().is_none());
    let dials = room.dials();
    assert_eq!(dials.len(), 2, "at once");
    room.dialed(dials[0]);
    room.dialed(dials[1]);
    assert!(room.book.checkin(fresh, room.now, Return::Discard));
    assert_eq!(room.acts().len(), 1);
    assert!(room.book.closed(fresh, room.now));
    let fresh = room.fresh().expect("there is room");
    assert!(room.fail(fresh));
    assert_eq!(room.acts(), [Act::Release], "a pause");
    assert!(room.book.next_maintenance().is_some_and(|due| due > room.now));
}

#[test]
fn neither_time_nor_limits_nor_a_drain_cancel_it() {
    let limits = PoolLimits { hung_after: Duration::ZERO, ..PoolLimits::of(up_to(3)) };
    let mut room = Room::new(limits);
    let (fresh, other) = (room.fresh().expect("room"), room.fresh().expect("room"));
    assert_eq!(room.pass(SECOND * 60), [], "it hangs, says its caller");
    assert_eq!(room.book.next_maintenance(), None);
    let limits = PoolLimits { mode: up_to(1), ..limits };
    room.book.set_limits(limits, room.now).expect("sound");
    assert_eq!(room.acts(), []);
    room.dialed(fresh);
    room.checkin(fresh);
    assert_eq!(room.acts(), [Act::Close(fresh, Cause::Shrunk)], "there may be one");
    room.book.drain(room.now);
    assert_eq!(room.acts(), []);
    assert_eq!(room.fresh(), None, "it drains");
    assert!(room.book.closed(fresh, room.now) && !room.book.is_drained());
    room.dialed(other);
    assert_eq!(room.state(other), Some(State::CheckedOut), "its caller may end what it began");
    room.checkin(other);
    assert_eq!(room.acts(), [Act::Close(other, Cause::Drained), Act::Release]);
    assert!(room.book.closed(other, room.now) && room.book.is_drained());
}

#[test]
fn one_that_is_left_is_free_and_says_nothing_of_the_endpoint() {
    let mut room = Room::of(up_to(1));
    let fresh = room.fresh().expect("room");
    let ticket = room.wait();
    assert_eq!(room.acts(), [], "full");
    assert!(room.book.leave_fresh(fresh, room.now) && !room.book.leave_fresh(fresh, room.now));
    assert_eq!(room.state(fresh), None);
    let dial = room.book.poll_act(room.now, || panic!("there is a token"));
    let Some(Act::Dial(dial)) = dial else { panic!("{dial:?}") };
    assert!(!room.book.leave_fresh(dial, room.now), "that is the pool's");
    room.dialed(dial);
    assert_eq!(room.claim(ticket), dial);
    assert!(room.book.last_dial_error().is_none());
    let PoolCounters { dials_cancelled, dials_failed, stale, .. } = *room.book.counters();
    assert_eq!((dials_cancelled, dials_failed, stale), (1, 0, 2));
    // Dialed, and its caller goes in the same moment.
    room.checkin(dial);
    let mut room = Room::of(up_to(1));
    let fresh = room.fresh().expect("room");
    room.dialed(fresh);
    assert!(!room.book.leave_fresh(fresh, room.now));
    assert_eq!(room.state(fresh), Some(State::CheckedOut), "it is still to be given back");
}

/// The upstream was restarted at 4 s: what was seen alive after that is another's.
#[test]
fn those_quiet_for_as_long_as_the_dead_one_are_closed() {
    let mut room = Room::new(PoolLimits { idle_timeout: None, ..PoolLimits::of(up_to(6)) });
    let places = room.out(6);
    for place in &places[..4] {
        room.now += SECOND;
        room.checkin(*place);
    }
    room.now += SECOND;
    room.book.distrust(room.now, SECOND * 2);
    let closed = [places[0], places[1]].map(|place| Act::Close(place, Cause::Distrusted));
    assert_eq!(room.acts(), closed, "seen at 2 s counts as quiet since 2 s");
    assert_eq!(room.state(places[4]), Some(State::CheckedOut), "its user finds out");
    room.book.distrust(room.now, Duration::ZERO);
    assert_eq!(room.acts(), []);
    // Looked at for who waits, so left alone.
    room.now += SECOND * 30;
    let ticket = room.wait();
    assert_eq!(room.acts(), [Act::Validate(places[3])]);
    room.book.distrust(room.now, room.now);
    assert_eq!(room.acts(), [Act::Close(places[2], Cause::Distrusted)], "all that is idle");
    assert!(room.book.validated(places[3], true, room.now));
    assert_eq!(room.claim(ticket), places[3]);
    assert_eq!(room.book.counters().closed(Cause::Distrusted), 3);
}

/// One that was used before the other was pinged after it.
#[test]
fn it_counts_when_they_were_seen_and_not_when_they_were_used() {
    let limits = PoolLimits {
        idle_timeout: None,
        keep_alive: Some(SECOND * 60),
        ..PoolLimits::of(up_to(2))
    };
    let mut room = Room::new(limits);
    let places = room.idle(2);
    assert_eq!(room.pass(SECOND * 60), [Act::Ping(places[0]), Act::Ping(places[1])]);
    assert!(room.book.validated(places[1], true, room.now));
    room.now += SECOND;
    assert!(room.book.validated(places[0], true, room.now));
    room.book.distrust(room.now, SECOND * 60);
    assert_eq!(room.acts(), [Act::Close(places[1], Cause::Distrusted)]);
    assert_eq!(room.hit(), places[0]);
}

/// All were dead: the caller that found it out is served by one dialed for it.
#[test]
fn who_finds_a_pool_full_of_dead_ones_is_served_by_a_dial() {
    let mut room = Room::of(up_to(3));
    let places = room.idle(3);
    room.now += SECOND * 10;
    let dead = room.hit();
    assert!(room.book.checkin(dead, room.now, Return::Discard));
    assert_eq!(room.fresh(), None);
    room.book.distrust(room.now, Duration::ZERO);
    let ticket = room.wait();
    let acts = room.acts();
    assert!(acts.iter().all(|act| matches!(act, Act::Close(..))), "{acts:?}");
    assert_eq!(acts.len(), 3);
    assert!(room.book.closed(places[0], room.now));
    let dial = room.dials()[0];
    room.dialed(dial);
    assert_eq!(room.claim(ticket), dial);
}
