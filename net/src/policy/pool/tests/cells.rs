//! Every state with every call.

use super::*;

const CALLS: [&str; 7] =
    ["dialed", "dial_failed", "validated", "checkin", "ended", "closed", "leave_fresh"];

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
    let made: [(&str, Make<'_>); 12] = [
        ("dialing", &|room| dial(room).1),
        ("cancelled", &|room| {
            let (ticket, place) = dial(room);
            assert!(room.book.leave(ticket, room.now));
            assert_eq!(room.acts(), [Act::CancelDial(place)]);
            place
        }),
        ("fresh", &|room| {
            let place = room.book.dial_fresh(room.now, Location::caller(), || true);
            assert_eq!(room.acts(), []);
            place.expect("there is room")
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
        "leave_fresh" => room.book.leave_fresh(place, room.now),
        "closed" => room.book.closed(place, room.now),
        _ => unreachable!("no such call"),
    }
}

/// What each leads to; `-`: nothing, and the call says so. `granted` is in use before it is claimed.
#[test]
fn every_state_takes_every_call() {
    let table = "
        state       dialed  dial_failed validated checkin ended   closed  leave_fresh
        dialing     out     free        -         -       -       -       -
        cancelled   -       free        -         -       closing free    -
        fresh       out     free        -         -       -       -       free
        idle        -       -           -         -       closing -       -
        granted     -       -           -         -       closing -       -
        out         -       -           -         idle    out     -       -
        leaked      -       -           -         idle    out     -       -
        validating  -       -           out       -       closing -       -
        to_ping     -       -           -         -       closing -       -
        to_close    -       -           -         -       closing free    -
        closing     -       -           -         -       closing free    -
        free        -       -           -         -       -       -       -";
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
