//! Dials that fail: who is told, and when the next is made.

use super::*;

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

/// An upstream that is full accepts, and ends the connection at once.
#[test]
fn what_is_turned_away_before_its_first_use_is_refilled_with_pauses() {
    let mut room = Room::of(Mode::Dynamic { min_idle: 2, max: 4 });
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let dials = room.dials();
        assert_eq!(dials.len(), 2);
        dials.iter().for_each(|place| room.dialed(*place));
        for place in dials {
            assert!(room.book.ended(place, room.now));
            assert!(room.acts().iter().all(|act| !matches!(act, Act::Dial(_))));
            assert!(room.book.closed(place, room.now));
            assert!(room.acts().iter().all(|act| !matches!(act, Act::Dial(_))));
        }
        let due = room.book.next_maintenance().expect("a refill is due");
        pauses.push((due - room.now).as_millis());
        room.now = due;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // Callers do not wait for that, and one that has served is not turned away.
    let dials = room.dials();
    dials.iter().for_each(|place| room.dialed(*place));
    let place = room.hit();
    room.now += ms(1);
    room.checkin(place);
    assert!(room.book.ended(place, room.now));
    assert!(room.acts().iter().any(|act| matches!(act, Act::Dial(_))), "at once");
}
