//! A panic in any callback: its connection is reset and told of, everything else goes on.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use slipring_core::token::Descriptor;
use slipring_core::{CloseReason, Ctx, Handler, Lease, Timeout};
use slipring_sim::{Conditions, Stage};

use crate::support::{Noted, Told, buffers_free, echo, limited, stage, stage_started};

fn keep_alive() -> Timeout {
    Timeout::After(Duration::from_millis(50))
}

/// Two clients, the first of which makes its handler panic once it is told what `is_it` says.
fn with_a_bug(is_it: fn(&Told) -> bool) -> Noted {
    let conditions = limited(|limits| {
        (limits.outbox_high_bytes, limits.outbox_low_bytes) = (600, 200);
    });
    let mut first = None;
    stage(&conditions, move |ctx, told, lease| {
        let first = *first.get_or_insert(ctx.key());
        let bad = ctx.key() == first;
        if bad && matches!(told, Told::Open(_)) {
            ctx.set_keep_alive(keep_alive());
        }
        assert!(!(bad && is_it(told)), "a bug of the user's");
        echo(ctx, told, lease);
    })
}

/// Nothing of the first client is left, and the second is served.
fn check(stage: &mut Noted, bad: Descriptor, good: Descriptor) {
    assert!(stage.driver().is_closed(bad) && stage.driver().is_abortive(bad));
    let told = stage.handler().take_told_of(0);
    assert_eq!(told.last(), Some(&Told::Close(CloseReason::HandlerPanic)));
    assert_eq!(stage.counters().handler_panics, 1);
    assert_eq!((stage.admission().open(), buffers_free(stage)), (1, 16));
    stage.receive(good, b"unharmed");
    assert_eq!(stage.sent(good), b"unharmed");
    let third = stage.accept();
    stage.receive(third, b"welcome");
    assert_eq!(stage.sent(third), b"welcome");
}

#[test]
fn in_on_open_it_ends_a_connection_that_was_hardly_there() {
    let mut stage = with_a_bug(|told| matches!(told, Told::Open(_)));
    let (bad, good) = (stage.accept(), stage.accept());
    check(&mut stage, bad, good);
}

#[test]
fn in_on_eof_it_ends_a_half_closed_connection() {
    let mut stage = with_a_bug(|told| *told == Told::Eof);
    let (bad, good) = (stage.accept(), stage.accept());
    stage.receive(bad, b"last words");
    stage.end_of_stream(bad);
    assert_eq!(stage.sent(bad), b"last words");
    check(&mut stage, bad, good);
}

#[test]
fn in_on_writable_it_ends_a_connection_whose_send_has_just_ended() {
    let mut stage = with_a_bug(|told| *told == Told::Writable);
    let (bad, good) = (stage.accept(), stage.accept());
    stage.receive(bad, &[b'w'; 700]);
    check(&mut stage, bad, good);
    assert_eq!(stage.sent(bad), [b'w'; 700]);
}

#[test]
fn in_on_keep_alive_it_ends_a_quiet_connection() {
    let mut stage = with_a_bug(|told| *told == Told::KeepAlive);
    let (bad, good) = (stage.accept(), stage.accept());
    stage.pass_ms(200);
    check(&mut stage, bad, good);
}

#[test]
fn in_on_open_of_a_dial_it_gives_the_dials_place_back() {
    let conditions = limited(|limits| limits.dialed_max = 1);
    let mut stage = stage(&conditions, |_, told, _| {
        assert!(!matches!(told, Told::Open(_)), "a bug of the user's");
    });
    let address = SocketAddr::from(([192, 0, 2, 1], 80));
    stage.reactor().connections().dial(address, ()).expect("one place");
    stage.settle();
    let (socket, _) = stage.dials()[0];
    stage.answer_dial(socket, Ok(()));
    assert!(stage.driver().is_closed(socket) && stage.driver().is_abortive(socket));
    assert!(stage.handler().take_told_of(0).contains(&Told::Close(CloseReason::HandlerPanic)));
    assert!(stage.reactor().connections().dial(address, ()).is_ok(), "its place is free");
}

#[test]
fn in_on_start_it_keeps_nobody_from_being_served() {
    let mut stage = stage_started(&Conditions::default(), |_| panic!("a bug of the user's"), echo);
    let client = stage.accept();
    stage.receive(client, b"served");
    assert_eq!(stage.sent(client), b"served");
    assert_eq!(stage.counters().handler_panics, 1);
}

#[test]
fn many_in_one_turn_are_survived_one_by_one() {
    let mut stage = stage(&Conditions::default(), |ctx, told, lease| {
        assert!(*told != Told::Data(b"bad".to_vec()), "a bug of the user's");
        echo(ctx, told, lease);
    });
    let clients: Vec<_> = (0..12).map(|_| stage.accept()).collect();
    for (number, &client) in clients.iter().enumerate() {
        let bytes: &[u8] = if number.is_multiple_of(2) { b"bad" } else { b"good" };
        stage.driver().receive(client, bytes);
    }
    stage.settle();
    for (number, &client) in clients.iter().enumerate() {
        let bad = number.is_multiple_of(2);
        assert_eq!(stage.driver().is_closed(client), bad, "client {number}");
        assert_eq!(stage.sent(client), if bad { b"".to_vec() } else { b"good".to_vec() });
    }
    assert_eq!((stage.counters().handler_panics, buffers_free(&mut stage)), (6, 16));
}

thread_local! {
    /// The next state that is made here panics.
    static FAILS_TO_BEGIN: Cell<bool> = const { Cell::new(false) };
    /// So many of the next states that are dropped here panic.
    static FAIL_TO_END: Cell<u32> = const { Cell::new(0) };
}

/// What a handler keeps of a connection.
struct Brittle;

impl Default for Brittle {
    fn default() -> Self {
        assert!(!FAILS_TO_BEGIN.take(), "a bug of the user's");
        Self
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        let left = FAIL_TO_END.get();
        FAIL_TO_END.set(left.saturating_sub(1));
        assert_eq!(left, 0, "a bug of the user's");
    }
}

/// Sends everything back, and has a bug in its end.
struct Keeper;

impl Handler for Keeper {
    type State = Brittle;

    fn on_data(&mut self, ctx: &mut Ctx<'_, Brittle>, data: Lease) {
        ctx.send(data);
    }

    fn on_close(&mut self, _: &mut Ctx<'_, Brittle>, _: CloseReason) {
        assert_eq!(FAIL_TO_END.get(), 0, "another one");
    }
}

#[test]
fn in_the_making_of_its_state_it_costs_a_client_and_no_place() {
    let mut stage = Stage::with(Keeper, &limited(|limits| limits.accepted_max = 1));
    FAILS_TO_BEGIN.set(true);
    let bad = stage.accept();
    assert!(stage.driver().is_closed(bad) && stage.driver().is_abortive(bad));
    assert_eq!((stage.admission().open(), stage.counters().handler_panics), (0, 1));
    let good = stage.accept();
    stage.receive(good, b"unharmed");
    assert_eq!(stage.sent(good), b"unharmed");
    assert_eq!((stage.counters().accepted, stage.counters().closed), (1, 0));
}

#[test]
fn in_on_close_and_again_in_the_end_of_the_state_it_ends_nothing_else() {
    let mut stage = Stage::with(Keeper, &Conditions::default());
    let (bad, good) = (stage.accept(), stage.accept());
    FAIL_TO_END.set(1);
    stage.reset(bad);
    assert!(stage.driver().is_closed(bad));
    assert_eq!((stage.admission().open(), stage.counters().closed), (1, 1));
    assert_eq!(stage.counters().handler_panics, 2);
    stage.receive(good, b"unharmed");
    assert_eq!(stage.sent(good), b"unharmed");
}

#[test]
fn in_on_close_and_again_in_the_end_of_the_state_it_leaves_nothing_open_when_the_driver_fails() {
    let mut stage = Stage::with(Keeper, &Conditions::default());
    for _ in 0..4 {
        stage.accept();
    }
    FAIL_TO_END.set(2);
    stage.driver().fail_enter("completions were lost");
    stage.reactor().run().expect_err("the driver failed");
    assert_eq!((stage.driver().open_descriptors(), stage.admission().open()), (0, 0));
    assert_eq!((stage.counters().closed, stage.counters().handler_panics), (4, 4));
}
